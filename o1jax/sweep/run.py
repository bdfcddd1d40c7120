"""A sweep: arms x seeds of one run, as one compiled program where the task has a device verifier.

    experiment -> members -> groups of one compiled step -> cold starts -> layout -> chunks of fused steps, diagnostics between
               -> final tests -> results.json -> findings, report, a row of RESULTS.md beside the experiment

Members whose configurations differ in traced strengths alone are one group. A block is as many of them as fit into
memory; its states are saved together behind a chunk, so that a sweep that was stopped goes on bitwise. Members of a task
that only the host can verify run one after the other, through the loop of `train.py` and one compiled step.
"""

import contextlib
import dataclasses
import math
import os
import pathlib
import time
from typing import Any, Iterable, Mapping, Sequence

import jax
import rich

from o1jax import evaluate as ev
from o1jax.config import ConfigError, CurriculumConfig, LogConfig, SweepConfig, require
from o1jax.io.log import write_json
from o1jax.io.report.results import record as write_rows
from o1jax.io.report.results import rows_of
from o1jax.io.report.sweep import findings, write_sweep_report
from o1jax.io.run_folder import locked, new_run
from o1jax.loop import Stopped
from o1jax.parallel.hosts import Preemption, start_backend
from o1jax.rl.stages import rl_stage
from o1jax.scaling.findings import Finding
from o1jax.sweep import folder as files
from o1jax.sweep import host
from o1jax.sweep.blocks import Files, run_block
from o1jax.sweep.cold import Cold, cold_starts
from o1jax.sweep.device import Block, Fleet, Layout
from o1jax.sweep.layout import candidates, choose, state_like
from o1jax.sweep.members import Member, groups_of, kept_terms, members_of
from o1jax.sweep.proxy import PROXIES
from o1jax.train import check_reward

CHUNK = 10  # steps in a call at most, where the sweep does not say


def sweep(
  config: SweepConfig, *, experiment: str, command: str, record: bool, full: bool, resume: bool
) -> int:
  """Runs a sweep into `base.out/base.name` and returns the exit code. Raises ConfigError where it cannot start.

  `record`: whether the findings are written into RESULTS.md beside the experiment, as those of its longer form if `full`.
  """
  began = time.perf_counter()
  config.validate()
  members, folder = members_of(config), files.folder_of(config)
  if resume:
    files.check_resumed(config, folder)
  layouts = files.read_layouts(folder) if resume else {}
  _spread_cpus(config.devices, layouts.values())
  blocks = [_block(config, group) for group in groups_of(members)]
  _check_acts(config, {_by_host(config, block) for block in blocks})
  head = files.head_of(config, experiment, command)
  with (
    locked(folder), contextlib.nullcontext() if resume else new_run(folder), Preemption() as preemption,
  ):  # fmt: skip
    if resume:
      layouts = files.read_layouts(folder)  # again: another process may have had the folder until here
    else:
      write_json(folder / files.HEAD, head)
    rows: list[dict[str, Any]] = []
    try:
      for number, block in enumerate(blocks):
        rows += _run(config, number, block, folder, layouts, preemption)
    except Stopped as stop:
      rich.print(f"[yellow]{stop}[/]")
      return stop.code
  order = [(member.arm.name, member.seed) for member in members]
  rows.sort(key=lambda row: order.index((row["arm"], row["seed"])))
  seconds = {"total": time.perf_counter() - began}
  found = _conclude(folder, {**head, "layout": _told(layouts), "seconds": seconds, "members": rows})
  if record:
    path = pathlib.Path(experiment).parent / "RESULTS.md"
    name = f"{pathlib.Path(experiment).stem}{' --full' if full else ''}"
    write_rows(path, name, rows_of(head, found))
    print(f"recorded in {path}")
  return 0


def _spread_cpus(wanted: int, before: Iterable[Layout]) -> None:
  """One CPU device a core, before the backend starts: members of a tiny model cannot fill more than a core.

  before: the layouts of a sweep that goes on, which keeps to as many devices as it had.
  """
  had = max((layout.devices for layout in before), default=0)
  cores = len(os.sched_getaffinity(0)) if "sched_getaffinity" in vars(os) else os.cpu_count() or 1
  with contextlib.suppress(RuntimeError):  # the backend runs already, as it does under a test
    jax.config.update("jax_num_cpu_devices", max(wanted, had) or cores)
  start_backend()
  count = jax.device_count()
  require(wanted <= count, "devices", f"{wanted} of only {count}")
  require(had <= count, "devices", f"the sweep was begun on {had}, and here are only {count}")


def _block(config: SweepConfig, group: Sequence[Member]) -> Block:
  """All members of a compiled step. Raises ConfigError naming what cannot run, before anything is written."""
  try:
    setup = ev.prepare(group[0].config, jax.devices()[:1])
    ev.check_problems(setup)
  except ConfigError as error:
    raise ConfigError(f"arm {group[0].arm.name}: {error}") from error
  have = len(setup.task.train)
  for member in group:
    few = member.config.rl.problems
    told = f"{few} of only {have} training problems"
    require(few is None or few <= have, f"arm {member.arm.name}: rl.problems", told)
  block = Block(setup, rl_stage(setup.config, kept_terms(group)), tuple(group))
  if _by_host(config, block):
    check_reward(setup)
  else:
    chunk, every = _chunk(config, block), setup.config.diagnostics.every
    rl, why = setup.config.rl, "cannot act where steps are fused: the order of problems is fixed before"
    require(rl.curriculum == CurriculumConfig(), "rl.curriculum", why)
    require(rl.chunks == 1, "rl.chunks", "cannot act where steps are fused: no verdict comes from the host")
    told = "must be 0 where steps are fused: a program has one response width"
    require(setup.config.rl.trim == 0, "rl.trim", told)
    told = f"must divide rl.steps={block.steps}, is {chunk}"
    require(block.steps % chunk == 0, "chunk", told)
    told = f"must divide diagnostics.every={every}, which comes between two chunks, is {chunk}"
    require(every % chunk == 0, "chunk", told)
    candidates(config, len(group), [])  # raises where vmapped does not divide
  return block


def _check_acts(config: SweepConfig, by_host: set[bool]) -> None:
  """Raises ConfigError naming an option that acts in no block; by_host: the ways in which they are verified."""
  if True not in by_host:
    for name in ("rollouts", "rollouts_every"):
      plain = vars(config.base.log)[name] == vars(LogConfig)[name]
      require(plain, f"log.{name}", "cannot act where steps are fused: no completion is written")
  if False not in by_host:
    for name in ("vmapped", "devices", "chunk"):
      one = vars(config)[name] in (0, 1)
      told = (
        "cannot act where the host verifies: members run one after the other, step by step, on one device"
      )
      require(one, name, f"{told}; 0 is the default")


def _by_host(config: SweepConfig, block: Block) -> bool:
  """Whether the members run one after the other, through the stepwise loop and the host's verifier."""
  return block.setup.task.device is None or not config.fused


def default_chunk(steps: int, every: int) -> int:
  """Steps in one executable call: few enough that measuring a layout stays short, and that diagnoses fall between two."""
  unbroken = math.gcd(steps, every)
  return max(n for n in range(1, CHUNK + 1) if unbroken % n == 0)


def _chunk(config: SweepConfig, block: Block) -> int:
  return config.chunk or default_chunk(block.steps, block.setup.config.diagnostics.every)


def _run(
  config: SweepConfig, number: int, block: Block, folder: pathlib.Path, layouts: dict[int, Layout], preemption: Preemption
) -> list[dict[str, Any]]:  # fmt: skip
  """Runs the members of a group; returns their rows of results.json. Keeps the layout it takes in `layouts`."""
  done = files.finished_rows(folder, block.members)
  if done is not None:
    return done
  colds = cold_starts(block, folder, preemption)
  if _by_host(config, block):
    return host.run_members(block, colds, folder, preemption)
  proxies = PROXIES[block.setup.config.rl.proxy.kind](block, colds, folder)
  fleet = _fleet(config, number, block, colds, proxies, layouts)
  if number not in layouts:
    layouts[number] = fleet.layout
    files.write_layouts(folder, layouts)
  rows: list[dict[str, Any]] = []
  size = fleet.layout.size
  for part, start in enumerate(range(0, len(block.members), size)):
    some = block.members[start : start + size]
    place = Files(folder, f"block{number}-{part}")
    rows += files.finished_rows(folder, some) or run_block(fleet.of(some), colds, place, preemption)
  return rows


def _fleet(
  config: SweepConfig,
  number: int,
  block: Block,
  colds: Mapping[str, Cold],
  proxies: Mapping[str, Any],
  layouts: Mapping[int, Layout],
) -> Fleet:
  """The group compiled as it was before the sweep was stopped, else as is found best."""
  chunk = _chunk(config, block)
  if number not in layouts:
    wanted = candidates(config, len(block.members), list(layouts.values()))
    return choose(block, wanted, chunk, colds, proxies, exact=config.vmapped > 0)
  layout = layouts[number]
  rich.print(f"layout, as before: {layout.told()}")
  some = dataclasses.replace(block, members=block.members[: layout.size])
  return Fleet(some, layout, chunk, state_like(block, colds), proxies)


def _told(layouts: Mapping[int, Layout]) -> str:
  """The layouts for the record."""
  ways = [f"{held.told()}{held.differs and f' ({held.differs})'}" for held in layouts.values()]
  return "; ".join(dict.fromkeys(ways)) or "one member after the other, verified by the host"


def _conclude(folder: pathlib.Path, results: Mapping[str, Any]) -> list[Finding]:
  """Writes results.json and the report; prints and returns what was found."""
  write_json(folder / files.RESULTS, results)
  found = findings(folder)
  held = [dataclasses.asdict(finding) for finding in found]
  write_json(folder / files.RESULTS, {**results, "findings": held})
  for finding in found:
    rich.print(f"{finding.check}: [bold]{finding.holds}[/]. {finding.measured}. {finding.reading}")
  print(f"report: {write_sweep_report(str(folder))}")
  return found

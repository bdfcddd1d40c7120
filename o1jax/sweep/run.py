"""A sweep: arms x seeds of one run, as one compiled program where the task has a device verifier.

    experiment -> members -> groups of one compiled step -> cold starts -> placement
               -> chunks of fused steps, diagnostics between
               -> final tests -> results.json -> findings, report, a row of RESULTS.md beside the experiment

Members whose configurations differ in traced strengths alone are one group. A group is as many of them as
fit into memory; its states are saved together behind a chunk, so that a sweep that was stopped goes on
bitwise. Members of a task that only the host can verify run one after the other, through the loop of
`train.py` and one compiled step.
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

from o1jax.config import (
  ConfigError,
  CurriculumConfig,
  LogConfig,
  SweepConfig,
  TrainConfig,
  active_terms,
  require,
)
from o1jax.io.log import write_json
from o1jax.io.report.results import record as write_rows
from o1jax.io.report.results import rows_of
from o1jax.io.report.sweep import findings, write_sweep_report
from o1jax.io.run_config import expanded
from o1jax.io.run_folder import locked, new_run
from o1jax.io.weights import is_weights_folder
from o1jax.parallel.hosts import Preemption, start_backend
from o1jax.rl.learner import rl_learner
from o1jax.rollout import setup
from o1jax.scaling.findings import Finding
from o1jax.sweep import folder as files
from o1jax.sweep import host
from o1jax.sweep.cold import cold_starts
from o1jax.sweep.groups import GroupFolder, run_group
from o1jax.sweep.members import Member, RLStart, groups_of, members_of
from o1jax.sweep.placement import candidates, choose
from o1jax.sweep.population import MemberGroup, Placement, Population
from o1jax.sweep.reward_model import member_reward_params
from o1jax.train import Stopped

CHUNK = 10  # steps in a call at most, where the sweep does not say


def sweep(
  config: SweepConfig, *, experiment: str, command: str, record: bool, full: bool, resume: bool
) -> int:
  """Runs a sweep into `base.out/base.name` and returns the exit code. Raises ConfigError where it cannot
  start.

  `record`: whether the findings are written into RESULTS.md beside the experiment, as those of its longer
  form if `full`.
  """
  began = time.perf_counter()
  config.validate()
  members, folder = members_of(config), files.folder_of(config)
  _check_pinned(config.base)
  if resume:
    files.check_resumed(config, folder)
  layouts = files.read_layouts(folder) if resume else {}
  _spread_cpus(config.devices, layouts.values())
  groups = [_group(config, group) for group in groups_of(members)]
  _check_acts(config, {_by_host(config, group) for group in groups})
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
      for number, group in enumerate(groups):
        rows += _run(config, number, group, folder, layouts, preemption)
    except Stopped as stop:
      rich.print(f"[yellow]{stop}[/]")
      return stop.code
  order = [(member.arm.name, member.seed) for member in members]
  rows.sort(key=lambda row: order.index((row["arm"], row["seed"])))
  seconds = {"total": time.perf_counter() - began}
  verdicts = _conclude(folder, {**head, "layout": _describe(layouts), "seconds": seconds, "members": rows})
  if record:
    path = pathlib.Path(experiment).parent / "RESULTS.md"
    name = f"{pathlib.Path(experiment).stem}{' --full' if full else ''}"
    write_rows(path, name, rows_of(head, verdicts))
    print(f"recorded in {path}")
  return 0


def _check_pinned(config: TrainConfig) -> None:
  """Raises ConfigError where members start from a run whose newest checkpoint may be another tomorrow."""
  path = expanded(config).init.path
  pinned = path is None or config.init.step is not None or is_weights_folder(pathlib.Path(path))
  require(pinned, "init.step", "must be given in a sweep, which reads init.path again when it is resumed")


def _spread_cpus(devices: int, before: Iterable[Placement]) -> None:
  """One CPU device a core, before the backend starts: members of a tiny model cannot fill more than a core.

  before: the layouts of a sweep that goes on, which keeps to as many devices as it had.
  """
  had = max((layout.devices for layout in before), default=0)
  cores = len(os.sched_getaffinity(0)) if "sched_getaffinity" in vars(os) else os.cpu_count() or 1
  with contextlib.suppress(RuntimeError):  # the backend runs already, as it does under a test
    jax.config.update("jax_num_cpu_devices", max(devices, had) or cores)
  start_backend()
  count = jax.device_count()
  require(devices <= count, "devices", f"{devices} of only {count}")
  require(had <= count, "devices", f"the sweep was begun on {had}, and here are only {count}")


def _group(config: SweepConfig, members: Sequence[Member]) -> MemberGroup:
  """All members of a compiled step. Raises ConfigError naming what cannot run, before anything is written."""
  try:
    runtime = setup.prepare(members[0].config, jax.devices()[:1])
    setup.check_problems(runtime)
  except ConfigError as error:
    raise ConfigError(f"arm {members[0].arm.name}: {error}") from error
  have = len(runtime.task.train)
  for member in members:
    count = member.config.rl.problems
    why = f"{count} of only {have} training problems"
    require(count is None or count <= have, f"arm {member.arm.name}: rl.problems", why)
  terms = active_terms(member.config.rl for member in members)
  group = MemberGroup(runtime, rl_learner(runtime.config, terms), tuple(members))
  if not _by_host(config, group):
    _check_fused(config, group)
  return group


def _check_fused(config: SweepConfig, group: MemberGroup) -> None:
  """Raises ConfigError naming an option that cannot act in fused steps."""
  chunk, every, rl = _chunk(config, group), group.runtime.config.diagnostics.every, group.runtime.config.rl
  why = "cannot act where steps are fused: the order of problems is fixed before"
  require(rl.curriculum == CurriculumConfig(), "rl.curriculum", why)
  for name, count in (("rl.slots", rl.slots), ("eval.slots", group.runtime.config.eval.slots)):
    require(count == 0, name, "cannot act where steps are fused: members stop together; use 0")
  require(rl.chunks == 1, "rl.chunks", "cannot act where steps are fused: no verdict comes from the host")
  require(
    rl.pad_multiple == 0,
    "rl.pad_multiple",
    "must be 0 where steps are fused: a program has one response width",
  )
  require(group.steps % chunk == 0, "chunk", f"must divide rl.steps={group.steps}, is {chunk}")
  why = f"must divide diagnostics.every={every}, which comes between two chunks, is {chunk}"
  require(every % chunk == 0, "chunk", why)
  candidates(config, len(group.members), [])  # raises where vmapped does not divide


def _check_acts(config: SweepConfig, by_host: set[bool]) -> None:
  """Raises ConfigError naming an option that acts in no group; by_host: how they are verified."""
  if True not in by_host:
    for name in ("rollouts", "rollouts_every"):
      plain = vars(config.base.log)[name] == vars(LogConfig)[name]
      require(plain, f"log.{name}", "cannot act where steps are fused: no completion is written")
  if False not in by_host:
    for name in ("vmapped", "devices", "chunk"):
      one = vars(config)[name] in (0, 1)
      why = "cannot act where the host verifies: members run one after the other, step by step, on one device"
      require(one, name, f"{why}; 0 is the default")


def _by_host(config: SweepConfig, group: MemberGroup) -> bool:
  """Whether the members run one after the other, through the stepwise loop and the host's verifier."""
  return group.runtime.task.device is None or not config.fused


def default_chunk(steps: int, every: int) -> int:
  """Steps in one executable call: few enough that measuring a layout stays short, and that diagnoses fall
  between two.
  """
  unbroken = math.gcd(steps, every)
  return max(n for n in range(1, CHUNK + 1) if unbroken % n == 0)


def _chunk(config: SweepConfig, group: MemberGroup) -> int:
  return config.chunk or default_chunk(group.steps, group.runtime.config.diagnostics.every)


def _run(
  config: SweepConfig,
  number: int,
  group: MemberGroup,
  folder: pathlib.Path,
  layouts: dict[int, Placement],
  preemption: Preemption,
) -> list[dict[str, Any]]:
  """Runs the members of a group; returns their rows of results.json. Keeps the placement it takes in
  `layouts`.
  """
  done = files.finished_rows(folder, group.members)
  if done is not None:
    return done
  colds = cold_starts(group, folder, preemption)
  start = RLStart(colds, member_reward_params(group, colds, folder))
  if _by_host(config, group):
    return host.run_members(group, start, folder, preemption)
  population = _population(config, number, group, start, layouts)
  if number not in layouts:
    layouts[number] = population.layout
    files.write_layouts(folder, layouts)
  rows: list[dict[str, Any]] = []
  size = population.layout.size
  for part, first in enumerate(range(0, len(group.members), size)):
    members = group.members[first : first + size]
    place = GroupFolder(folder, f"block{number}-{part}")
    finished = files.finished_rows(folder, members)
    rows += finished or run_group(population.of(members), place, preemption)
  return rows


def _population(
  config: SweepConfig,
  number: int,
  group: MemberGroup,
  start: RLStart,
  layouts: Mapping[int, Placement],
) -> Population:
  """The group compiled as it was before the sweep was stopped, else as is measured best."""
  chunk = _chunk(config, group)
  if number not in layouts:
    options = candidates(config, len(group.members), list(layouts.values()))
    return choose(group, options, chunk, start, exact=config.vmapped > 0)
  layout = layouts[number]
  rich.print(f"layout, as before: {layout.describe()}")
  part = dataclasses.replace(group, members=group.members[: layout.size])
  return Population(part, layout, chunk, start)


def _describe(layouts: Mapping[int, Placement]) -> str:
  """The placements for the record."""
  ways = [f"{layout.describe()}{layout.differs and f' ({layout.differs})'}" for layout in layouts.values()]
  return "; ".join(dict.fromkeys(ways)) or "one member after the other, verified by the host"


def _conclude(folder: pathlib.Path, results: Mapping[str, Any]) -> list[Finding]:
  """Writes results.json and the report; prints and returns the findings."""
  write_json(folder / files.RESULTS, results)
  verdicts = findings(folder)
  rows = [dataclasses.asdict(finding) for finding in verdicts]
  write_json(folder / files.RESULTS, {**results, "findings": rows})
  for finding in verdicts:
    rich.print(f"{finding.check}: [bold]{finding.holds}[/]. {finding.measured}. {finding.reading}")
  print(f"report: {write_sweep_report(str(folder))}")
  return verdicts

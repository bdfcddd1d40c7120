"""A sweep: arms x seeds of one run, as one compiled program where the task has a device verifier.

    experiment -> members -> groups of one compiled step -> cold starts -> chunks of fused steps, diagnostics between
               -> final tests -> results.json -> findings, report, a row of RESULTS.md beside the experiment

Members whose configurations differ in traced strengths alone are one group. A block is as many of them as fit into
memory; its states are saved together behind a chunk, so that a sweep that was stopped goes on bitwise. Members of a task
that only the host can verify run one after the other, through the loop of `train.py` and one compiled step.
"""

import dataclasses
import functools
import os
import pathlib
import time
from typing import Any, Mapping, Sequence

import jax
import rich

from o1jax import evaluate as ev
from o1jax.config import Arm, SweepConfig, require
from o1jax.dist.hosts import EXIT_PREEMPTED, Preemption
from o1jax.io.checkpoint import Checkpoints
from o1jax.io.log import environment, progress, write_json
from o1jax.io.results import record as write_rows
from o1jax.io.results import rows_of
from o1jax.io.run_config import config_to_dict, read_json
from o1jax.io.sweep_report import findings, write_sweep_report
from o1jax.rl.stages import Progress, first_state, rl_stage, sft_stage
from o1jax.sweep import device, host
from o1jax.sweep.blocks import Files, member_setup, run_block
from o1jax.sweep.device import Block, Fleet, Layout
from o1jax.sweep.members import Member, cold_start_key, groups_of, kept_terms, members_of
from o1jax.sweep.proxy import PROXIES, best_of
from o1jax.train import Stopped, check_reward, fresh_state, sft_step

HEAD, RESULTS = "sweep.json", "results.json"
CHUNK = 10  # steps in a call where neither the sweep nor its diagnostics say
MEMORY_SHARE = 0.8  # of the free memory that members may fill


def sweep(
  config: SweepConfig, *, experiment: str, command: str, record: bool, full: bool, resume: bool
) -> int:
  """Runs a sweep into `base.out/base.name` and returns the exit code. Raises ConfigError where it cannot start.

  `record`: whether the findings are written into RESULTS.md beside the experiment, as those of its longer form if `full`.
  """
  began = time.perf_counter()
  config.validate()
  _spread_cpus(config.devices)
  members = members_of(config)
  folder = pathlib.Path(config.base.out) / config.base.name
  head = _head(config, experiment, command)
  _open(folder, head, resume)
  layouts: list[Layout] = []
  rows: list[dict[str, Any]] = []
  with Preemption() as preemption:
    try:
      for number, group in enumerate(groups_of(members)):
        rows += _group(config, group, number, folder, preemption, layouts)
    except Stopped as stop:
      rich.print(f"[yellow]{stop}[/]")
      return stop.code
  order = {member.name: i for i, member in enumerate(members)}
  rows.sort(key=lambda row: order[f"{row['arm']}-seed{row['seed']}"])
  seconds = {"total": time.perf_counter() - began}
  results = {
    **head,
    "layout": _told(layouts),
    "seconds": seconds,
    "members": rows,
  }
  write_json(folder / RESULTS, results)
  found = findings(folder)
  write_json(folder / RESULTS, {**results, "findings": [dataclasses.asdict(finding) for finding in found]})
  for finding in found:
    rich.print(f"{finding.check}: [bold]{finding.holds}[/]. {finding.measured}. {finding.reading}")
  if record:
    path = pathlib.Path(experiment).parent / "RESULTS.md"
    write_rows(path, f"{config.base.name}{' --full' if full else ''}", rows_of(head, found))
    print(f"recorded in {path}")
  print(f"report: {write_sweep_report(str(folder))}")
  return 0


def _spread_cpus(wanted: int) -> None:
  """One CPU device a core, before the backend starts: members of a tiny model cannot fill more than a core."""
  count = wanted or len(os.sched_getaffinity(0))
  try:
    jax.config.update("jax_num_cpu_devices", count)
  except RuntimeError as error:  # the backend runs already, as it does under a test
    require(not wanted or jax.device_count() >= wanted, "devices", f"{wanted} cannot be had: {error}")


def _head(config: SweepConfig, experiment: str, command: str) -> dict[str, Any]:
  """What names a sweep, and what a resumed one must not change."""
  claim = dataclasses.asdict(config.claim)
  return {
    "name": config.base.name, "experiment": experiment, "command": command, "claim": claim,
    "arms": [{"name": a.name, "overrides": _overrides(a), "strength": a.strength} for a in config.arms],
    "seeds": list(config.seeds), "steps": config.base.rl.steps, "base": config_to_dict(config.base),
    "meta": {**environment(), "date": time.strftime("%Y-%m-%d")},
  }  # fmt: skip


def _overrides(arm: Arm) -> dict[str, Any]:
  """An arm's fields as JSON takes them; a group that is replaced whole is one."""
  spell = lambda value: dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value
  return {name: spell(value) for name, value in arm.overrides.items()}


def _told(layouts: Sequence[Layout]) -> str:
  ways = [
    f"{'lax.map' if l.vmapped == 1 else f'vmap of {l.vmapped}'} over {l.devices} device(s)" for l in layouts
  ]
  return ", ".join(dict.fromkeys(ways)) or "one member after the other, verified by the host"


SAME = ("arms", "seeds", "steps", "base")


def _open(folder: pathlib.Path, head: Mapping[str, Any], resume: bool) -> None:
  """Writes the head of a new sweep, or checks that of the one to go on with. Raises ConfigError where they differ."""
  path = folder / HEAD
  if not resume:
    require(not path.exists(), str(folder), "holds a sweep already: give it another name, or pass --resume")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, head)
    return
  require(path.is_file(), str(folder), f"holds no sweep to resume (no {HEAD})")
  before = read_json(path)
  for name in SAME:
    require(before.get(name) == _plain(head[name]), str(folder), f"was started with other `{name}`")


def _plain(value: Any) -> Any:
  """The value as JSON gives it back."""
  if isinstance(value, Mapping):
    return {k: _plain(v) for k, v in value.items()}
  return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _group(
  config: SweepConfig, members: Sequence[Member], number: int, folder: pathlib.Path, preemption: Preemption,
  layouts: list[Layout],
) -> list[dict[str, Any]]:  # fmt: skip
  """Runs the members of one compiled step; returns their rows of results.json. Appends the layout it took."""
  setup = ev.prepare(members[0].config, jax.devices()[:1])
  ev.check_problems(setup)
  block = Block(setup, rl_stage(setup.config, kept_terms(members)), tuple(members))
  colds = _cold_starts(block, folder, preemption)
  if setup.task.device is None:
    check_reward(setup)
    rich.print(f"group {number}: {len(members)} members one after the other, verified by the host")
    return [host.run_member(block, member, colds, folder, preemption) for member in members]
  require(
    setup.config.rl.trim == 0, "rl.trim", "must be 0 where steps are fused: a program has one response width"
  )
  chunk = config.chunk or setup.config.diagnostics.every or CHUNK
  whole = block.steps % chunk == 0
  require(whole, "rl.steps", f"must be a multiple of the chunk of {chunk} steps, is {block.steps}")
  proxies = PROXIES[setup.config.rl.proxy.kind](block, colds, folder)
  known = [layout for layout in layouts[:1] if layout.holds(len(members))]
  fleet = _fleet(block, chunk, colds, proxies, known or _candidates(config, len(members)))
  layouts.append(fleet.layout)
  rows: list[dict[str, Any]] = []
  size = len(fleet.block.members)
  for part, start in enumerate(range(0, len(members), size)):
    some = dataclasses.replace(block, members=tuple(members[start : start + size]))
    if some != fleet.block:
      fleet = Fleet(some, fleet.layout, chunk, _like(block, colds), proxies)
    rows += run_block(fleet, colds, Files(folder, f"block{number}-{part}"), preemption)
  for row, figures in zip(rows, best_of(block, colds, proxies)):
    row["final"] |= figures
  return rows


def _like(block: Block, colds: Mapping[str, Any]) -> Any:
  """Shapes of one member's state."""
  return jax.eval_shape(functools.partial(first_state, block.stage), next(iter(colds.values())))


def _candidates(config: SweepConfig, count: int) -> list[Layout]:
  """The layouts to choose from; 0 members in a vmap stands for all that a device has."""
  devices = min(jax.device_count(), count)
  return [Layout(devices, config.vmapped)] if config.vmapped else [Layout(devices, 1), Layout(devices, 0)]


def _fleet(
  block: Block, chunk: int, colds: Mapping[str, Any], proxies: Mapping[str, Any], candidates: Sequence[Layout]
) -> Fleet:
  """The block, or as much of it as fits into memory, compiled for the candidate that a short measurement finds fastest."""
  like, count = _like(block, colds), len(block.members)
  tried: list[tuple[float, Fleet]] = []
  for wanted in candidates:
    devices = min(wanted.devices, count)
    each = -(-count // devices)
    vmapped = wanted.vmapped or each
    require(wanted.holds(count), "vmapped", f"{vmapped} does not divide the {each} members of a device")
    fleet = Fleet(block, Layout(devices, vmapped), chunk, like, proxies)
    seconds = device.seconds_a_chunk(fleet, colds)
    tried.append((seconds, fleet))
    rich.print(f"layout: {fleet.layout.told(count)}: {seconds:.2f} s for {chunk} steps of {count} members")
  seconds, fleet = min(tried, key=lambda pair: pair[0])
  fits = device.members_that_fit(fleet, MEMORY_SHARE)
  require(fits > 0, "rl", "not one member fits into memory")
  told = f"{fleet.member_bytes() / 1e6:.1f} MB a member, {fits:,} fit into memory"
  rich.print(
    f"chosen: {fleet.layout.told(count)}; {told}; about {seconds * block.steps / chunk:.0f} s of steps"
  )
  if fits >= count:
    return fleet
  some = dataclasses.replace(block, members=block.members[:fits])
  return Fleet(some, Layout(fleet.layout.devices, 1), chunk, like, proxies)


def _cold_starts(block: Block, folder: pathlib.Path, preemption: Preemption) -> dict[str, Any]:
  """Name -> parameters with which RL begins; made once for all members that agree in model, task, `sft` and seed."""
  colds: dict[str, Any] = {}
  for member in block.members:
    key = cold_start_key(member.config)
    if key not in colds:
      colds[key] = _cold_start(member_setup(block, member), folder / "cold_start" / key, preemption)
  return colds


def _cold_start(setup: ev.Setup, folder: pathlib.Path, preemption: Preemption) -> Any:
  """Parameters after the cold start of one seed: read where they were saved, else trained and saved."""
  config, stage = setup.config, sft_stage(setup.config, setup.config.sft.steps)
  with ev.in_mesh(setup):
    state = fresh_state(setup, stage, None)
    if not config.sft.steps:
      return jax.device_get(state.params)
    with Checkpoints(folder, keep=1) as saved:
      if saved.latest() == config.sft.steps:
        return jax.device_get(saved.restore(config.sft.steps, state)[0].params)
      where = Progress()
      with progress(config.sft.steps, folder.name, config.log.progress, every=100) as tell:
        for step in range(1, config.sft.steps + 1):
          state, metrics, spent = sft_step(setup, stage, state, step, where.cursor)
          where = where.after(step, "sft", spent, 0.0)
          tell(step, {"loss": metrics["nll"]})
          if preemption.requested:
            raise Stopped(EXIT_PREEMPTED, f"{preemption.requested}: in the cold start; go on with --resume")
      saved.save(config.sft.steps, state, where.to_json())
    return jax.device_get(state.params)

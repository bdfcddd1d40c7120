"""Members that the host must verify: one after the other, through the loop of `train.py`, with one compiled step."""

import dataclasses
import functools
import pathlib
import time
from typing import Any, Callable, Mapping

import jax
import jax.numpy as jnp
import rich

from o1jax import evaluate as ev
from o1jax.parallel.hosts import EXIT_NONFINITE, Preemption
from o1jax.parallel.sharding import replicated
from o1jax.io.checkpoint import Checkpoints
from o1jax.io.log import CLOCK_METRICS, RunLog
from o1jax.loop import Run, Stopped
from o1jax.rl.regularise import first_coefficients
from o1jax.rl.stages import Stage, rl_stage
from o1jax.sweep.blocks import first_values, rl_lines, tail_means
from o1jax.sweep.cold import Cold
from o1jax.sweep.device import Block, member_setup
from o1jax.sweep.folder import begin_member, finished_rows, write_row
from o1jax.sweep.members import Member, cold_start_key
from o1jax.tasks.stream import Exhausted
from o1jax.train import rl_step
from o1jax.types import TrainState


def run_members(
  block: Block, colds: Mapping[str, Cold], folder: pathlib.Path, preemption: Preemption
) -> list[dict[str, Any]]:
  """Runs the block's members one after the other; returns their rows of results.json. Raises as `run_member` does."""
  count = len(block.members)
  rich.print(f"chosen: {count} members one after the other, verified by the host: one in memory")
  timed = _tells_time(rl_step, block.steps * count)
  rows = []
  for member in block.members:
    done = finished_rows(folder, [member])
    rows += done or [run_member(block, member, colds, folder, preemption, timed)]
  return rows


def _tells_time(step: Callable[..., tuple], steps: int) -> Callable[..., tuple]:
  """`step`, which prints the time that `steps` of it take behind its second call: the first one compiles."""
  calls = 0

  def told(*args: Any, **kwargs: Any) -> tuple:
    nonlocal calls
    calls += 1
    if calls > 2:
      return step(*args, **kwargs)
    began = time.perf_counter()
    out = jax.block_until_ready(step(*args, **kwargs))
    seconds = time.perf_counter() - began
    if calls == 2:
      rich.print(f"{seconds:.2f} s a step, about {seconds * steps:.0f} s of steps in all")
    return out

  return told


def begin(block: Block, member: Member, colds: Mapping[str, Cold]) -> tuple[ev.Setup, Stage, Any, TrainState]:
  """(setup, stage, first parameters where diagnostics need a copy beside the state, fresh state) of a member.

  The block's stage lends its terms and optimiser, so that the compiled step is one; rates and coefficients are its own.
  """
  setup, mine = member_setup(block, member), rl_stage(member.config)
  stage = dataclasses.replace(block.stage, rate=mine.rate, optim=mine.optim)
  copied = lambda: jax.tree.map(jnp.array, colds[cold_start_key(member.config)].params)
  with ev.in_mesh(setup):
    state = ev.fresh_state(setup, stage, copied())
    begun = copied() if ev.kept_aside(setup, stage) else None
  own = jax.device_put(first_coefficients(mine.update.controllers), replicated(setup.mesh))
  return setup, stage, begun, dataclasses.replace(state, controllers=own)


def run_member(
  block: Block, member: Member, colds: Mapping[str, Cold], folder: pathlib.Path, preemption: Preemption,
  step: Callable[..., tuple],
) -> dict[str, Any]:  # fmt: skip
  """Runs one member to its end, from its newest checkpoint where it has one; returns its row of results.json.

  `step`: `rl_step`, or what stands for it. A member whose loss or gradient is not finite ends there. Raises Stopped on a
  signal, with everything saved.
  """
  setup, stage, begun, state = begin(block, member, colds)
  own, where = folder / member.name, colds[cold_start_key(member.config)].where
  begin_member(setup, own)
  with ev.in_mesh(setup), Checkpoints(own / "checkpoints", keep=1) as saved:
    latest = saved.latest()
    if latest is not None:
      state, cursor = saved.restore(latest, state, finite=True)
      where = type(where).from_json(cursor)
    with RunLog(own, resume_step=latest or 0) as log:
      run = Run(setup, log, saved, preemption, where)
      run.counted = setup.task.spent()  # by the members before it
      state, bad = _to_its_end(run, stage, state, block.steps, functools.partial(step, begun=begun))
    found = _found(run, stage, state, begun, own)
  return write_row(folder, member, {"bad_step": bad, **found})


def _to_its_end(
  run: Run, stage: Stage, state: TrainState, steps: int, step: Callable[..., tuple]
) -> tuple[TrainState, int | None]:
  """(the last state, the step whose loss or gradient was not finite)."""
  try:
    return run.loop(stage, state, steps, step), None
  except Stopped as stop:
    if stop.code != EXIT_NONFINITE:
      raise
    return run.state, run.where.step


def _found(run: Run, stage: Stage, state: TrainState, begun: Any, own: pathlib.Path) -> dict[str, Any]:
  """What a row says of a finished member: figures of its last state, tests, means over its last steps."""
  cfg = run.setup.config.eval
  final, by_problem = ev.tested(run.setup, state.params, cfg, cfg.final_problems, run.where.step)
  lines = rl_lines(own / "metrics.jsonl")
  final = {**_diagnosed(run, stage, state, begun), **final, **first_values(lines), **tail_means(lines)}
  final |= {"train_flops": run.where.flops.useful, "num_tokens": float(run.where.tokens)}
  return {"final": final, "by_problem": by_problem}


def _diagnosed(run: Run, stage: Stage, state: TrainState, begun: Any) -> dict[str, float]:
  """What the step that would come next says of a state, which is donated to it; {} where diagnostics are off.

  Its rollout is verified for these figures alone: a member that is diagnosed costs a step more than it learns from.
  """
  config = run.setup.config
  if not config.diagnostics.every:
    return {}
  each = dataclasses.replace(config, diagnostics=dataclasses.replace(config.diagnostics, every=1))
  setup = dataclasses.replace(run.setup, config=each)
  probe = functools.partial(rl_step, setup, stage, state, run.where.step + 1, begun=begun)
  try:
    step = probe(run.where)
  except Exhausted:  # it is measured on any problems
    step = probe(dataclasses.replace(run.where, seen={}))
  return {name: value for name, value in step[1].items() if name not in CLOCK_METRICS}

"""Members that the host must verify: one after the other, through `train.fit`, with one compiled step."""

import dataclasses
import functools
import pathlib
import time
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import rich

from o1jax.evaluate.heldout import evaluate_heldout
from o1jax.io.checkpoint import Checkpoints
from o1jax.io.log import CLOCK_METRICS, RunLog
from o1jax.parallel.hosts import EXIT_NONFINITE, Preemption
from o1jax.parallel.sharding import replicated
from o1jax.rl.learner import Learner
from o1jax.rl.regularisers import first_coefficients, rl_controllers
from o1jax.rollout.record import StepFn, StepResult
from o1jax.rollout.setup import Runtime, fresh_state, in_mesh, needs_first_params
from o1jax.sweep.folder import begin_member, finished_rows
from o1jax.sweep.groups import MemberEnd, write_final
from o1jax.sweep.members import Member, RLStart
from o1jax.sweep.population import MemberGroup, member_runtime
from o1jax.sweep.reward_model import best_of_rows
from o1jax.tasks.stream import Exhausted
from o1jax.train import RLInputs, Run, Stopped, fit, rl_step
from o1jax.types import TrainState


class MemberStart(NamedTuple):
  """A member before its first step."""

  runtime: Runtime
  learner: Learner
  inputs: RLInputs
  state: TrainState


def run_members(
  group: MemberGroup, start: RLStart, folder: pathlib.Path, preemption: Preemption
) -> list[dict[str, Any]]:
  """Runs the group's members one after the other; returns their rows of results.json. Raises as `run_member`
  does.
  """
  count = len(group.members)
  rich.print(f"chosen: {count} members one after the other, verified by the host: one in memory")
  step = _print_seconds(rl_step, group.steps * count)
  rows = []
  for member in group.members:
    done = finished_rows(folder, [member])
    rows += done or [run_member(group, member, start, folder, preemption, step)]
  return rows


def _print_seconds(step: Callable[..., StepResult], steps: int) -> Callable[..., StepResult]:
  """`step`, which at its second call prints the seconds that `steps` of it take: the first one compiles."""
  calls = 0

  def timed(*args: Any, **kwargs: Any) -> StepResult:
    """One step."""
    nonlocal calls
    calls += 1
    if calls > 2:
      return step(*args, **kwargs)
    began = time.perf_counter()
    result = jax.block_until_ready(step(*args, **kwargs))
    seconds = time.perf_counter() - began
    if calls == 2:
      rich.print(f"{seconds:.2f} s a step, about {seconds * steps:.0f} s of steps in all")
    return result

  return timed


def begin(group: MemberGroup, member: Member, start: RLStart) -> MemberStart:
  """A member before its first step.

  The learner is the group's, so that the compiled step is one; hyperparameters and coefficients are its own.
  """
  runtime, learner = member_runtime(group, member), group.learner
  cold = start.cold_start(member).params
  with in_mesh(runtime):
    state = fresh_state(runtime, learner, jax.tree.map(jnp.array, cold))
    first = jax.tree.map(jnp.array, cold) if needs_first_params(runtime, learner) else None
  coefficients = first_coefficients(rl_controllers(member.config.rl))
  controllers = jax.device_put(coefficients, replicated(runtime.mesh))
  state = dataclasses.replace(state, controllers=controllers)
  return MemberStart(runtime, learner, RLInputs(first, start.reward_params[member.name]), state)


def run_member(
  group: MemberGroup,
  member: Member,
  start: RLStart,
  folder: pathlib.Path,
  preemption: Preemption,
  step: Callable[..., StepResult],
) -> dict[str, Any]:
  """Runs one member to its end, from its newest checkpoint where it has one; returns its row of results.json.

  `step`: `rl_step`, or a wrapper of it. A member whose loss or gradient is not finite ends there. Raises
  Stopped on a signal, with everything saved.
  """
  runtime, learner, begun, state = begin(group, member, start)
  own = folder / member.name
  begin_member(runtime, own)
  step_fn = functools.partial(step, runtime, learner, begun=begun)
  with in_mesh(runtime), Checkpoints(own / "checkpoints", keep=1) as saved:
    latest = saved.latest()
    with RunLog(own, resume_step=latest or 0) as log:
      run = Run(runtime, preemption, start.cold_start(member).progress, log=log, checkpoints=saved)
      run.counted = runtime.task.spent()  # by the members before it
      state = state if latest is None else run.restore(learner, latest)
      state, bad = _fit_to_the_end(run, learner, state, group.steps, step_fn)
    cfg = runtime.config.eval
    heldout = evaluate_heldout(runtime, state.params, cfg, cfg.final_problems, run.progress.step)
    diagnosis = _diagnosed(run, learner, state, begun)
    best_of = best_of_rows(dataclasses.replace(group, members=(member,)), start)[0]
  return write_final(folder, member, MemberEnd(run.progress, bad, diagnosis, heldout, best_of))


def _fit_to_the_end(
  run: Run, learner: Learner, state: TrainState, steps: int, step_fn: StepFn
) -> tuple[TrainState, int | None]:
  """(the last state, the step whose loss or gradient was not finite)."""
  try:
    return fit(run, learner, state, steps, step_fn), None
  except Stopped as stop:
    if stop.code != EXIT_NONFINITE:
      raise
    return run.state, run.progress.step


def _diagnosed(run: Run, learner: Learner, state: TrainState, begun: RLInputs) -> dict[str, float]:
  """Metrics of the step that would come next of a state, which is donated to it; {} where diagnostics are
  off.

  Its rollout is verified for these figures alone: a member that is diagnosed costs a step more than it
  learns from.
  """
  config = run.runtime.config
  if not config.diagnostics.every:
    return {}
  each = dataclasses.replace(config, diagnostics=dataclasses.replace(config.diagnostics, every=1))
  runtime, next_step = dataclasses.replace(run.runtime, config=each), run.progress.step + 1
  try:
    result = rl_step(runtime, learner, state, next_step, run.progress, begun=begun)
  except Exhausted:  # it is measured on any problems
    anew = dataclasses.replace(run.progress, pass_rates={})
    result = rl_step(runtime, learner, state, next_step, anew, begun=begun)
  return {name: value for name, value in result.metrics.items() if name not in CLOCK_METRICS}

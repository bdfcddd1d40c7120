"""Cold starts of a sweep: each made once for all members that agree in model, task, `sft` and seed, as
`o1jax train` makes it.
"""

import dataclasses
import functools
import pathlib

import jax

from o1jax.io.checkpoint import Checkpoints
from o1jax.parallel.hosts import Preemption
from o1jax.rl.learner import Learner, sft_learner
from o1jax.rollout.record import Progress
from o1jax.rollout.setup import Runtime, fresh_state, in_mesh
from o1jax.sweep.members import SftCheckpoint, cold_start_key
from o1jax.sweep.population import MemberGroup, member_runtime
from o1jax.train import Run, fit, sft_step

SHOWN = 100  # steps between lines of progress


def cold_starts(group: MemberGroup, folder: pathlib.Path, preemption: Preemption) -> dict[str, SftCheckpoint]:
  """The cold starts of a group's members by `cold_start_key`, read from the sweep's folder or trained and
  saved there.

  Raises Stopped on a signal, with everything saved, and where a loss or gradient is not finite.
  """
  made: dict[str, SftCheckpoint] = {}
  config = group.runtime.config
  learner = sft_learner(config, config.sft.steps)  # one for all seeds: one compiled step
  for member in group.members:
    key = cold_start_key(member.config)
    if key not in made:
      made[key] = _cold_start(member_runtime(group, member), learner, folder / "cold_start" / key, preemption)
  return made


def _cold_start(
  runtime: Runtime, learner: Learner, folder: pathlib.Path, preemption: Preemption
) -> SftCheckpoint:
  """The cold start of one seed: read, gone on with, or made."""
  steps = runtime.config.sft.steps
  with in_mesh(runtime):
    if not steps:
      return SftCheckpoint(jax.device_get(fresh_state(runtime, learner, None).params), Progress())
    with Checkpoints(folder, keep=1) as saved:
      label = f"cold start, seed {runtime.config.seed}"
      run = Run(runtime, preemption, Progress(), checkpoints=saved, label=label)
      run.counted = runtime.task.spent()  # building the task is no part of it
      latest = saved.latest()
      first = fresh_state(runtime, learner, None) if latest is None else run.restore(learner, latest)
      state = fit(run, learner, first, steps, functools.partial(sft_step, runtime, learner), every=SHOWN)
    return SftCheckpoint(jax.device_get(state.params), dataclasses.replace(run.progress, cursor=0))

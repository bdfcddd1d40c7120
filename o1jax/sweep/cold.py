"""Cold starts of a sweep: each made once for all members that agree in model, task, `sft` and seed, as `o1jax train` makes it."""

import dataclasses
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from o1jax import evaluate as ev
from o1jax.parallel.hosts import EXIT_NONFINITE, EXIT_PREEMPTED, Preemption
from o1jax.io.checkpoint import Checkpoints
from o1jax.io.log import progress
from o1jax.loop import Stopped
from o1jax.rl.stages import Progress, Stage, sft_stage
from o1jax.sweep.device import Block, member_setup
from o1jax.sweep.members import cold_start_key
from o1jax.train import sft_step
from o1jax.types import TrainState

SHOWN = 100  # steps between lines of progress


class Cold(NamedTuple):
  """What a member's RL begins with."""

  params: Any  # on the host
  where: Progress  # what the cold start took; its cursor is the RL stage's first


def cold_starts(block: Block, folder: pathlib.Path, preemption: Preemption) -> dict[str, Cold]:
  """The cold starts of a block's members by `cold_start_key`, read from the sweep's folder or trained and saved there.

  Raises Stopped on a signal, with everything saved, and where a loss or gradient is not finite.
  """
  made: dict[str, Cold] = {}
  stage = sft_stage(block.setup.config, block.setup.config.sft.steps)  # one for all seeds: one compiled step
  for member in block.members:
    key = cold_start_key(member.config)
    if key not in made:
      made[key] = _cold_start(member_setup(block, member), stage, folder / "cold_start" / key, preemption)
  return made


def _cold_start(setup: ev.Setup, stage: Stage, folder: pathlib.Path, preemption: Preemption) -> Cold:
  """Reads or makes the cold start of one seed."""
  with ev.in_mesh(setup):
    state, where = ev.fresh_state(setup, stage, None), Progress()
    if setup.config.sft.steps:
      with Checkpoints(folder, keep=1) as saved:
        state, where = _train(setup, stage, state, saved, preemption)
    return Cold(jax.device_get(state.params), dataclasses.replace(where, cursor=0))


def _train(
  setup: ev.Setup, stage: Stage, state: TrainState, saved: Checkpoints, preemption: Preemption
) -> tuple[TrainState, Progress]:
  """What is left of a cold start behind its checkpoint.

  Saved every `checkpoint.every` steps, at its end and where a signal stops it.
  """
  where, latest = Progress(), saved.latest()
  if latest is not None:
    state, cursor = saved.restore(latest, state, finite=True)
    where = Progress.from_json(cursor)
  steps, name = setup.config.sft.steps, f"cold start, seed {setup.config.seed}"
  with progress(steps, name, setup.config.log.progress, every=SHOWN) as tell:
    while where.step < steps:
      state, metrics, spent = sft_step(setup, stage, state, where.step + 1, where)
      where = where.after(where.step + 1, "sft", spent, 0.0)
      tell(where.step, {"loss": metrics["nll"]})
      if not np.isfinite([metrics["loss"], metrics["grad_norm"]]).all():
        raise Stopped(EXIT_NONFINITE, f"{name}: step {where.step}: loss or gradient is not finite")
      due = where.step % setup.config.checkpoint.every == 0
      if preemption.requested or where.step == steps or due:
        saved.save(where.step, state, where.to_json())
      if preemption.requested:
        saved.wait()
        told = f"{preemption.requested}: saved step {where.step} of the {name}; go on with --resume"
        raise Stopped(EXIT_PREEMPTED, told)
  return state, where

"""Members that the host must verify: one after the other, through the loop of `train.py`, with one compiled step."""

import dataclasses
import functools
import pathlib
from typing import Any, Mapping

import jax
import jax.numpy as jnp

from o1jax import evaluate as ev
from o1jax.dist.hosts import EXIT_NONFINITE, Preemption
from o1jax.io.checkpoint import Checkpoints
from o1jax.io.log import RunLog
from o1jax.rl.stages import Progress, rl_stage
from o1jax.sweep.blocks import first_values, member_setup, rl_lines, tail_means
from o1jax.sweep.device import Block
from o1jax.sweep.members import Member, cold_start_key
from o1jax.train import Run, Stopped, fresh_state, rl_step, write_head


def run_member(
  block: Block, member: Member, colds: Mapping[str, Any], folder: pathlib.Path, preemption: Preemption
) -> dict[str, Any]:
  """Runs one member to its end, from its newest checkpoint where it has one; returns its row of results.json.

  The block's stage lends its terms and optimiser, so that the compiled step is one; rates are the member's own.
  A member whose loss or gradient is not finite ends there. Raises Stopped on a signal, with everything saved.
  """
  setup, own = member_setup(block, member), folder / member.name
  mine = rl_stage(member.config)
  stage = dataclasses.replace(block.stage, rate=mine.rate, optim=mine.optim)
  first_params = jax.tree.map(jnp.asarray, colds[cold_start_key(member.config)])
  if not (own / "config.json").exists():
    own.mkdir(parents=True, exist_ok=True)
    write_head(setup, own)
  bad = None
  with ev.in_mesh(setup), Checkpoints(own / "checkpoints", keep=1) as saved:
    state, where, latest = fresh_state(setup, stage, first_params), Progress(step=block.first), saved.latest()
    if latest is not None:
      state, cursor = saved.restore(latest, state)
      where = Progress.from_json(cursor)
    with RunLog(own, resume_step=latest or 0) as log:
      run = Run(setup, log, saved, preemption, where)
      try:
        state = run.loop(stage, state, block.steps, functools.partial(rl_step, first_params=first_params))
      except Stopped as stop:
        if stop.code != EXIT_NONFINITE:
          raise
        bad, state = run.where.step, run.state
    cfg = setup.config.eval
    final, by_problem = ev.tested(setup, state.params, cfg, cfg.final_problems, run.where.step)
  lines = rl_lines(own / "metrics.jsonl")
  final |= first_values(lines) | tail_means(lines)
  final |= {"train_flops": run.where.flops.useful, "num_tokens": float(run.where.tokens)}
  return {
    "arm": member.arm.name, "seed": member.seed, "bad_step": bad, "final": final, "by_problem": by_problem,
  }  # fmt: skip

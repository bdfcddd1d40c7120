"""Controls of a final evaluation: smaller samples, and the policy that may not give up."""

import dataclasses

from o1jax.config import EvalConfig, require
from o1jax.tasks.base import Task


def control_config(cfg: EvalConfig) -> EvalConfig:
  """The evaluation of controls and forced budgets: fewer samples a problem, as many rows a call."""
  batch = cfg.batch * max(cfg.samples // cfg.control_samples, 1)
  return dataclasses.replace(cfg, samples=cfg.control_samples, batch=batch)


def no_give_up(task: Task) -> dict[int, int]:
  """The swap that forbids giving up: the retry token in its place."""
  able = task.give_up_token is not None and task.retry_token is not None
  require(able, "controls", f"{task.name} cannot give up")
  return {task.give_up_token: task.retry_token}  # type: ignore[dict-item]

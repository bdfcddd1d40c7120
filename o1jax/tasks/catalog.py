"""Which configuration builds which task."""

from typing import Callable

from o1jax.config import CountdownConfig, Gsm8kConfig, TaskConfig
from o1jax.tasks import countdown, gsm8k
from o1jax.tasks.base import Task

TASKS: dict[type, Callable[..., Task]] = {
  CountdownConfig: countdown.build,
  Gsm8kConfig: gsm8k.build,
}


def build_task(cfg: TaskConfig, seed: int) -> Task:
  """The task a configuration describes. Raises ConfigError naming the option or file that is wrong."""
  return TASKS[type(cfg)](cfg, seed)

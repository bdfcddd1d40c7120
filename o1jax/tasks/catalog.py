"""Which configuration builds which task."""

from typing import Any, Callable

from o1jax.config import CountdownConfig, Gsm8kConfig, TaskConfig
from o1jax.tasks import countdown, gsm8k
from o1jax.tasks.base import Source, Task
from o1jax.tasks.text import text_task

SOURCES: dict[type, Callable[[Any], Source]] = {
  Gsm8kConfig: gsm8k.source,
}


def build_text(cfg: Any) -> Task:
  """The task of a source of text, with a tokenizer of its own or a given one."""
  return text_task(SOURCES[type(cfg)](cfg), cfg.text, cfg.data_dir)


TASKS: dict[type, Callable[[Any], Task]] = {
  CountdownConfig: countdown.build,
  **dict.fromkeys(SOURCES, build_text),
}


def build_task(cfg: TaskConfig) -> Task:
  """The task a configuration describes. Raises ConfigError naming the option or file that is wrong."""
  return TASKS[type(cfg)](cfg)

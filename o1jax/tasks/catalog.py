"""Which configuration builds which task."""

from typing import Any, Callable

from o1jax.config import (
  ArithmeticConfig,
  BugfixConfig,
  CountdownConfig,
  Gsm8kConfig,
  HumanevalConfig,
  IfevalConfig,
  JudgedConfig,
  MathConfig,
  MbppConfig,
  MixtureConfig,
  ReasoningGymConfig,
  SourceConfig,
  TaskConfig,
)
from o1jax.tasks import (
  arithmetic,
  bugfix,
  countdown,
  gsm8k,
  humaneval,
  ifeval,
  judged,
  math,
  mbpp,
  mixture,
  reasoning_gym,
)
from o1jax.tasks.base import Source, Task
from o1jax.tasks.text import text_task

SOURCES: dict[type, Callable[[Any], Source]] = {
  CountdownConfig: countdown.source,
  Gsm8kConfig: gsm8k.source,
  MathConfig: math.source,
  MbppConfig: mbpp.source,
  HumanevalConfig: humaneval.source,
  BugfixConfig: bugfix.source,
  IfevalConfig: ifeval.source,
  JudgedConfig: judged.source,
  ArithmeticConfig: arithmetic.source,
  ReasoningGymConfig: reasoning_gym.source,
}


def build_source(cfg: SourceConfig) -> Source:
  """The problems that a configuration describes. Raises ConfigError naming the option or file that is wrong."""
  return SOURCES[type(cfg)](cfg)


def build_text(cfg: Any) -> Task:
  """A task of free text, with a tokenizer of its own or a given one."""
  return text_task(build_source(cfg), cfg.text, cfg.data_dir)


def build_mixture(cfg: MixtureConfig) -> Task:
  """A mixture, whose parts share a tokenizer."""
  return text_task(mixture.source(cfg, build_source), cfg.text, cfg.data_dir)


TASKS: dict[type, Callable[[Any], Task]] = {
  **dict.fromkeys(SOURCES, build_text),
  CountdownConfig: countdown.build,
  MixtureConfig: build_mixture,
}


def build_task(cfg: TaskConfig) -> Task:
  """The task that a configuration describes. Raises ConfigError naming the option or file that is wrong."""
  return TASKS[type(cfg)](cfg)

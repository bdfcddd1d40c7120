"""Which configuration builds which task. A JSONL data set is one file and one line of `DATASETS`."""

from typing import Any, Callable

from o1jax.config import (
  ArithmeticConfig,
  BugfixConfig,
  ConstrainedWritingConfig,
  CountdownConfig,
  JsonlTaskConfig,
  JudgedConfig,
  MixtureConfig,
  ReasoningGymConfig,
  SourceConfig,
  TaskConfig,
  require,
)
from o1jax.tasks import (
  arithmetic,
  bugfix,
  countdown,
  gsm8k,
  humaneval,
  judged,
  math,
  mbpp,
  mixture,
  reasoning_gym,
)
from o1jax.tasks import dataset as datasets
from o1jax.tasks.base import ProblemSet, Task, text_task
from o1jax.tasks.constraints import ifeval, writing

DATASETS: dict[str, datasets.Dataset] = {
  "gsm8k": gsm8k.DATASET,
  "humaneval": humaneval.DATASET,
  "ifeval": ifeval.DATASET,
  "math": math.DATASET,
  "mbpp": mbpp.DATASET,
}

# What is made, or asked of an endpoint, and not only read.
BUILDERS: dict[type, Callable[[Any], ProblemSet]] = {
  ArithmeticConfig: arithmetic.build,
  BugfixConfig: bugfix.build,
  ConstrainedWritingConfig: writing.build,
  CountdownConfig: countdown.build_problems,
  JudgedConfig: judged.build,
  ReasoningGymConfig: reasoning_gym.build,
}


def dataset_of(cfg: SourceConfig) -> datasets.Dataset:
  """The JSONL data set that a configuration selects. Raises ConfigError naming `task.dataset` of none."""
  if not isinstance(cfg, JsonlTaskConfig):
    return next(dataset for dataset in DATASETS.values() if dataset.config is type(cfg))
  known = [name for name, dataset in DATASETS.items() if dataset.config is JsonlTaskConfig]
  there = f"there are {', '.join(known)}" if known else "there is none without a configuration of its own"
  require(cfg.dataset in known, "task.dataset", f"is {cfg.dataset!r}; {there}")
  return DATASETS[cfg.dataset]


def build_problems(cfg: SourceConfig) -> ProblemSet:
  """The problems of a configuration. Raises ConfigError naming the option or file that is wrong."""
  if type(cfg) in BUILDERS:
    return BUILDERS[type(cfg)](cfg)
  return datasets.build(dataset_of(cfg), cfg)


def build_task(cfg: TaskConfig) -> Task:
  """The task of a configuration. Raises ConfigError naming the option or file that is wrong."""
  if isinstance(cfg, CountdownConfig):
    return countdown.build(cfg)
  problems = mixture.build(cfg, build_problems) if isinstance(cfg, MixtureConfig) else build_problems(cfg)
  return text_task(problems, cfg.text, cfg.data_dir)

"""The record of a training step: metrics, FLOPs, tokens, position in the data; the stepwise loop and the
fused program end in it.
"""

import dataclasses
from typing import Any, Callable, Mapping, NamedTuple, Sequence

import numpy as np

from o1jax.config import TrainConfig
from o1jax.rl.flops import StepSizes, step_flops
from o1jax.rl.learner import Learner
from o1jax.rollout.grade import Graded
from o1jax.scaling.flops import Ledger
from o1jax.scaling.text import reflection_rates, repetition_rate
from o1jax.tasks.base import Task
from o1jax.tasks.stream import curriculum_metrics, remembered
from o1jax.types import TrainState
from o1jax.verifiers.base import Problem


class StepUsage(NamedTuple):
  """FLOPs, tokens and stream position consumed by one step."""

  flops: Ledger
  tokens: int  # of prompts and responses that were learned from
  cursor: int  # position in the stage's stream of problems, behind the step
  pass_rates: Mapping[str, Any] = {}  # the curriculum's memory behind the step, by problem


@dataclasses.dataclass(frozen=True)
class Progress:
  """How far a run is: what its checkpoints hold beside the TrainState."""

  step: int = 0  # last finished step of the run
  cursor: int = 0  # position in this stage's stream of problems
  pass_rates: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # the curriculum's, by problem
  tokens: int = 0  # of prompts and responses that were learned from
  flops: Ledger = Ledger()
  seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)  # in each stage, over all processes
  costs: Mapping[str, float] = dataclasses.field(default_factory=dict)  # of the verifier, over all processes
  # Metrics of `step` as text, where it was saved before its line was written; {}: it is written.
  unlogged: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def to_json(self) -> dict[str, Any]:
    fields = dict(vars(self))
    pass_rates = fields.pop("pass_rates")
    return {**fields, "seen": pass_rates, "flops": self.flops.to_json()}

  @staticmethod
  def from_json(data: Mapping[str, Any]) -> "Progress":
    fields = dict(data)
    flops = Ledger.from_json(fields.pop("flops"))
    return Progress(pass_rates=fields.pop("seen"), flops=flops, **fields)

  def with_costs(self, now: Mapping[str, float], counted: Mapping[str, float]) -> "Progress":
    """With what the verifier has cost this process `now`, of which `counted` is in `costs` already."""
    names = {**self.costs, **now}
    new = {name: now.get(name, 0.0) - counted.get(name, 0.0) for name in names}
    return dataclasses.replace(self, costs={name: self.costs.get(name, 0.0) + new[name] for name in names})

  def before_line(self, metrics: Mapping[str, float]) -> "Progress":
    """With the metrics of its step, whose line is not written yet."""
    return dataclasses.replace(self, unlogged={name: str(float(value)) for name, value in metrics.items()})

  def after(self, step: int, stage: str, usage: StepUsage, seconds: float) -> "Progress":
    """Behind a step of `stage`; `seconds` in that stage so far."""
    return Progress(
      step=step,
      cursor=usage.cursor,
      pass_rates=usage.pass_rates,
      tokens=self.tokens + usage.tokens,
      flops=self.flops + usage.flops,
      seconds={**self.seconds, stage: seconds},
      costs=self.costs,
    )


class StepRecord(NamedTuple):
  """What one RL step did, before it is turned into metrics and usage."""

  stats: Mapping[str, float]  # of sampling, reward and learner, resolved; diagnostics too
  sizes: StepSizes
  cursor: int  # behind the last problem that was drawn
  flops: Ledger = Ledger()  # beside the step's own: of a diagnosis
  graded: Sequence[Graded] = ()  # of each draw, where the host verified


def record(
  config: TrainConfig, task: Task, learner: Learner, before: Progress, step: StepRecord
) -> tuple[dict[str, float], StepUsage]:
  """(metrics, usage) of an RL step that began at `before`."""
  cfg, sizes = config.rl, step.sizes
  metrics, pass_rates = dict(step.stats), before.pass_rates
  mean = metrics.pop("rewards/task/mean", None)
  if step.graded:
    first = step.graded[0]
    metrics |= text_metrics([text for row in first.texts for text in row])
    metrics |= property_shares(task, first.problems, first.texts)
    metrics |= rewards_by_source(task, first, mean)
    for graded in step.graded:
      pass_rates = remembered(pass_rates, graded.problems, graded.correct, cfg.curriculum)
    passed_over = step.cursor - before.cursor - cfg.prompts * len(sizes.draws)
    stream = task.stream(config.seed, cfg.problems)
    metrics |= curriculum_metrics(pass_rates, passed_over, stream, cfg.curriculum)
    unjudged = int(np.isnan(first.reward).sum())
    metrics |= {"completions/unjudged": float(unjudged)} if unjudged else {}
  elif mean is not None:
    metrics[f"rewards/{task.name}/mean"] = mean
  tokens = cfg.samples * sum(sizes.learned.prompts) + int(sizes.learned.lengths.sum())
  flops = step.flops + step_flops(config, learner, sizes)
  return metrics, StepUsage(flops, tokens, step.cursor, pass_rates)


def text_metrics(texts: Sequence[str]) -> dict[str, float]:
  """Rates of reflection and repetition in completions; no `repetition_rate` where none has a run of words."""
  repeated = repetition_rate(texts)
  return {**({} if repeated is None else {"repetition_rate": repeated}), **reflection_rates(texts)}


def property_shares(
  task: Task, problems: Sequence[Problem], texts: Sequence[Sequence[str]]
) -> dict[str, float]:
  """Property -> its share of the completions [n][K] of those of n problems whose source declares it."""
  holds: dict[str, list[bool]] = {}
  rows = [(p, row) for p, row in zip(problems, texts, strict=True) if p.source in task.properties]
  for problem, text in [(p, text) for p, row in rows for text in row]:
    for name, value in task.properties[problem.source](problem, text).items():
      holds.setdefault(name, []).append(value)
  return {name: float(np.mean(values)) for name, values in holds.items()}


def rewards_by_source(task: Task, graded: Graded, mean: float | None) -> dict[str, float]:
  """`rewards/<source>/mean`: of all completions their `mean` (None: none was judged); of a mixture each
  source's, and `prompts/<source>`.
  """
  if not task.shares:
    return {} if mean is None else {f"rewards/{task.name}/mean": mean}
  sources = np.asarray([problem.source for problem in graded.problems])
  metrics: dict[str, float] = {}
  for name in sorted(task.shares):
    rows = sources == name
    metrics[f"prompts/{name}"] = float(rows.sum())
    judged = graded.reward[rows][~np.isnan(graded.reward[rows])]
    if judged.size:
      metrics[f"rewards/{name}/mean"] = float(judged.mean())
  return metrics


class StepResult(NamedTuple):
  """What one training step gives to the loop."""

  state: TrainState
  metrics: dict[str, float]
  usage: StepUsage
  rows: list[dict[str, Any]] | None = None  # for rollouts.jsonl


# (state, donated; number of the step; progress before it) -> StepResult
StepFn = Callable[[TrainState, int, Progress], StepResult]

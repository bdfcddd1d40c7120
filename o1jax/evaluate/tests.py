"""What a policy does on the held-out problems and on each kind out of distribution, and diagnostics of a training step."""

import dataclasses
from typing import Any, Mapping, Sequence

import numpy as np

from o1jax.config import EvalConfig
from o1jax.evaluate.samples import Graded, sample_and_grade
from o1jax.evaluate.setup import Setup
from o1jax.rl.diagnostics import examine
from o1jax.rl.stages import Stage, examined_passes, without_strengths
from o1jax.scaling import compute
from o1jax.scaling.text import reflection_rates, repetition_rate
from o1jax.tasks.base import Task
from o1jax.types import TrainState
from o1jax.verifiers.base import Problem


def text_metrics(texts: Sequence[str]) -> dict[str, float]:
  """What the words of completions say; no `repetition_rate` where none has a run of words."""
  repeated = repetition_rate(texts)
  return {**({} if repeated is None else {"repetition_rate": repeated}), **reflection_rates(texts)}


def rewards_by_source(task: Task, graded: Graded, mean: float | None) -> dict[str, float]:
  """`rewards/<source>/mean`: of all completions their `mean` (None: none was judged); of a mixture each source's, and
  `prompts/<source>`."""
  if not task.shares:
    return {} if mean is None else {f"rewards/{task.name}/mean": mean}
  sources = np.asarray([problem.source for problem in graded.problems])
  told: dict[str, float] = {}
  for name in sorted(task.shares):
    there = sources == name
    told[f"prompts/{name}"] = float(there.sum())
    judged = graded.reward[there][~np.isnan(graded.reward[there])]
    if judged.size:
      told[f"rewards/{name}/mean"] = float(judged.mean())
  return told


def test_figures(
  task: Task,
  kind: str,
  problems: Sequence[Problem],
  texts: Sequence[str],
  correct: np.ndarray,
  parsed: np.ndarray,
  length: np.ndarray,
) -> dict[str, float]:
  """`<kind>/<figure>` of tested completions, K of each of n problems: accuracy, length, and what the texts are like.

  texts: n * K, prompt-major, as the arrays [n * K].
  """
  samples = len(texts) // len(problems)
  coherent = [task.well_formed(problems[i // samples], text) for i, text in enumerate(texts)]
  told = {
    "pass@1": float(np.mean(correct)),
    "parsed": float(np.mean(parsed)),
    "mean_length": float(np.mean(length)),
    "coherence": float(np.mean(coherent)),
    **text_metrics(texts),
  }
  return {f"{kind}/{name}": value for name, value in told.items()}


def tests_of(task: Task, count: int) -> dict[str, Sequence[Problem]]:
  """The held-out problems and each kind out of distribution, `count` of each at most."""
  return {"held_out": task.held_out[:count], **{f"ood/{k}": some[:count] for k, some in task.ood.items()}}


def tested(
  setup: Setup, params: Any, cfg: EvalConfig, count: int, step: int
) -> tuple[dict[str, float], dict]:
  """(figures, kind -> share of a problem's completions that are correct) of the tests, verified by the host."""
  figures: dict[str, float] = {}
  by_problem: dict[str, list[float]] = {}
  for kind, problems in tests_of(setup.task, count).items():
    graded = sample_and_grade(setup, params, problems, cfg, step)
    parsed = np.asarray([[v.parsed is not None for v in row] for row in graded.verdicts])
    texts = [text for row in graded.texts for text in row]
    figures |= test_figures(setup.task, kind, problems, texts, graded.correct, parsed, graded.length)
    by_problem[kind] = graded.correct.mean(1).tolist()
  return figures, by_problem


def diagnosed(
  setup: Setup,
  stage: Stage,
  state: TrainState,
  step: int,
  first_params: Any,
  learned: compute.Sizes,
  seen: tuple,
) -> tuple[dict[str, float], compute.Ledger]:
  """(figures of the state that a step begins with, what they took).

  `learned` are the groups that the step learns from, `seen` is what `examine` takes of it.
  """
  config = setup.config
  rollout, reward, greedy_reward, key, strengths = seen
  told = examine(
    state, first_params, rollout, reward, greedy_reward, key, strengths,
    model=setup.model, stage=stage, cfg=without_strengths(config.rl),
  )  # fmt: skip
  every = dataclasses.replace(config.eval, samples=config.diagnostics.samples)
  tests, _ = tested(setup, state.params, every, config.diagnostics.problems, step - 1)
  spent = compute.diagnostic_flops(
    config.model, learned, config.rl.max_prompt, rollout.tokens.shape[1] - config.rl.max_prompt,
    passes=examined_passes(stage, config.rl), draws=(),
  )  # fmt: skip
  return {**measured(told), **tests}, spent


def measured(figures: Mapping[str, Any]) -> dict[str, float]:
  """Figures of `examine` as floats, without those that are NaN: means over nothing."""
  values = {name: float(value) for name, value in figures.items()}
  return {name: value for name, value in values.items() if not np.isnan(value)}

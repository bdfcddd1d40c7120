"""Evaluation on the held-out problems and on each kind out of distribution, and diagnostics of a training
step.
"""

import dataclasses
from typing import Any, Mapping, NamedTuple, Sequence

import numpy as np

from o1jax.config import EvalConfig
from o1jax.evaluate.figures import sample_and_grade
from o1jax.rl.diagnostics import examine
from o1jax.rl.flops import diagnosis_flops
from o1jax.rl.learner import Learner, first_params
from o1jax.rl.step import LearnerInputs
from o1jax.rollout.record import property_shares, text_metrics
from o1jax.rollout.setup import Runtime
from o1jax.scaling.flops import Ledger, Sizes
from o1jax.tasks.base import Task
from o1jax.types import TrainState
from o1jax.verifiers.base import Problem


def heldout_figures(
  task: Task,
  kind: str,
  problems: Sequence[Problem],
  texts: Sequence[str],
  correct: np.ndarray,
  parsed: np.ndarray,
  length: np.ndarray,
) -> dict[str, float]:
  """`<kind>/<figure>` of K completions of each of n problems: accuracy, length, and what the texts are like.

  texts: n * K, prompt-major, as the arrays [n * K].
  """
  samples = len(texts) // len(problems)
  rows = [texts[start : start + samples] for start in range(0, len(texts), samples)]
  coherent = [task.well_formed(problems[i // samples], text) for i, text in enumerate(texts)]
  figures = {
    "pass@1": float(np.mean(correct)),
    "parsed": float(np.mean(parsed)),
    "mean_length": float(np.mean(length)),
    "coherence": float(np.mean(coherent)),
    **text_metrics(texts),
    **property_shares(task, problems, rows),
  }
  return {f"{kind}/{name}": value for name, value in figures.items()}


def heldout_problems(task: Task, count: int) -> dict[str, Sequence[Problem]]:
  """The held-out problems and each kind out of distribution, `count` of each at most."""
  ood = {f"ood/{kind}": problems[:count] for kind, problems in task.ood.items()}
  return {"held_out": task.held_out[:count], **ood}


class HeldoutResult(NamedTuple):
  """Figures of an evaluation, and accuracies by problem for paired tests."""

  figures: dict[str, float]
  by_problem: dict[str, list[float]]  # kind -> share of each problem's completions that are correct


def evaluate_heldout(runtime: Runtime, params: Any, cfg: EvalConfig, count: int, step: int) -> HeldoutResult:
  """Evaluates on `heldout_problems`, verified by the host."""
  figures: dict[str, float] = {}
  by_problem: dict[str, list[float]] = {}
  for kind, problems in heldout_problems(runtime.task, count).items():
    graded = sample_and_grade(runtime, params, problems, cfg, step)
    parsed = np.asarray([[v.parsed is not None for v in row] for row in graded.verdicts])
    texts = [text for row in graded.texts for text in row]
    figures |= heldout_figures(runtime.task, kind, problems, texts, graded.correct, parsed, graded.length)
    by_problem[kind] = graded.correct.mean(1).tolist()
  return HeldoutResult(figures, by_problem)


def diagnose(
  runtime: Runtime,
  learner: Learner,
  state: TrainState,
  step: int,
  first: Any,
  learned: Sizes,
  inputs: LearnerInputs,
) -> tuple[dict[str, float], Ledger]:
  """(figures of the state that a step begins with, their FLOPs); nothing where no diagnosis is due.

  first: the parameters that the stage began with, None where the state holds them; learned: sizes of the
  groups that the step learns from, `inputs`.
  """
  config, every = runtime.config, runtime.config.diagnostics.every
  if not every or (step - 1 - learner.first) % every:
    return {}, Ledger()
  first = first_params(state, learner) if first is None else first
  examined = examine(state, first, inputs, learner=learner)
  cfg = dataclasses.replace(config.eval, samples=config.diagnostics.samples)
  result = evaluate_heldout(runtime, state.params, cfg, config.diagnostics.problems, step - 1)
  width = inputs.rollout.tokens.shape[1] - inputs.rollout.prompt_width
  flops = diagnosis_flops(config, learner, learned, width)
  return {**measured(examined), **result.figures}, flops


def measured(figures: Mapping[str, Any]) -> dict[str, float]:
  """Figures of `examine` as floats, without those that are NaN: means over nothing."""
  values = {name: float(value) for name, value in figures.items()}
  return {name: value for name, value in values.items() if not np.isnan(value)}

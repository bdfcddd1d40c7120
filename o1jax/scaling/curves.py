"""Accuracy against completion tokens, in the forms that answer different questions.

Each curve is {"x", "y", "low", "high", "count"}: lists over points; x completion tokens, y accuracy, low and high its
95% interval over problems (`stats.share_ci`), count the samples behind it. correct is bool[n, K], length i[n, K].
"""

import numpy as np

from o1jax.scaling.stats import share_ci

Curve = dict[str, list]
BINS = 6


def _curve(points: list[tuple[float, float, float, float, int]]) -> Curve:
  names = ("x", "y", "low", "high", "count")
  return {name: [point[i] for point in points] for i, name in enumerate(names)}


def pooled_bins(correct: np.ndarray, length: np.ndarray, *, bins: int = BINS) -> Curve:
  """All samples in equal-count bins of length. Confounded: easy problems are short as well as right."""
  edges = np.unique(np.quantile(length, np.linspace(0, 1, bins + 1)))
  where = np.clip(np.searchsorted(edges, length, side="right") - 1, 0, max(len(edges) - 2, 0))
  points = []
  for i in range(max(len(edges) - 1, 1)):
    mask = where == i
    if mask.any():
      hits, sizes = (correct & mask).sum(1), mask.sum(1)
      low, high = share_ci(hits, sizes)
      points.append((float(length[mask].mean()), float(correct[mask].mean()), low, high, int(sizes.sum())))
  return _curve(points)


def within_prompt_bins(correct: np.ndarray, length: np.ndarray, *, bins: int = BINS) -> Curve:
  """The K samples of each problem ranked by length, equal ranks pooled: every problem weighs alike in every bin."""
  order = np.argsort(length, axis=1, kind="stable")
  ranked, lengths = np.take_along_axis(correct, order, 1), np.take_along_axis(length, order, 1)
  points = []
  for part in np.array_split(np.arange(length.shape[1]), min(bins, length.shape[1])):
    values = ranked[:, part].mean(1)
    low, high = share_ci(values)
    points.append(
      (float(lengths[:, part].mean()), float(values.mean()), low, high, int(ranked[:, part].size))
    )
  return _curve(points)


def natural(correct: np.ndarray, length: np.ndarray) -> Curve:
  """One point: the model stops where it likes."""
  low, high = share_ci(correct.mean(1))
  return _curve([(float(length.mean()), float(correct.mean()), low, high, int(correct.size))])


def forced_budget(correct: dict[int, np.ndarray]) -> Curve:
  """budget -> bool[n, K]: what stands after exactly that many tokens."""
  points = []
  for budget in sorted(correct):
    values = correct[budget].mean(1)
    low, high = share_ci(values)
    points.append((float(budget), float(values.mean()), low, high, int(correct[budget].size)))
  return _curve(points)


def best_of_n(correct: np.ndarray, length: np.ndarray, budgets: list[int]) -> Curve:
  """Natural samples taken in order while their total length fits a budget: solved where one of them is correct.

  An oracle picks (the verifier at test time). A problem whose first sample is longer than the budget is unsolved.
  """
  spent = np.cumsum(length, axis=1)
  points = []
  for budget in budgets:
    fits = spent <= budget
    solved = (correct & fits).any(1).astype(float)
    low, high = share_ci(solved)
    points.append((float(budget), float(solved.mean()), low, high, int(fits.sum())))
  return _curve(points)

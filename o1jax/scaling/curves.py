"""Curves of accuracy against completion tokens.

Each curve is {"x", "y", "low", "high", "count"}: lists over points. x: completion tokens; y: accuracy;
low, high: its 95% interval over problems (`stats.share_ci`); count: samples. correct is bool[n, K], length
i[n, K].
"""

import numpy as np

from o1jax.scaling.stats import share_ci

Curve = dict[str, list]
BINS = 6
Point = tuple[float, float, float, float, int]  # x, y, low, high, count


def _curve(points: list[Point]) -> Curve:
  names = ("x", "y", "low", "high", "count")
  return {name: [point[i] for point in points] for i, name in enumerate(names)}


def _point(x: float, accuracy: np.ndarray, count: int) -> Point:
  """The mean accuracy of problems f[n] at `x`, with its interval."""
  return (float(x), float(accuracy.mean()), *share_ci(accuracy), int(count))


def pooled_bins(correct: np.ndarray, length: np.ndarray, *, bins: int = BINS) -> Curve:
  """All samples in equal-count bins of length. Confounded: easy problems have short solutions."""
  edges = np.unique(np.quantile(length, np.linspace(0, 1, bins + 1)))
  bin_of = np.clip(np.searchsorted(edges, length, side="right") - 1, 0, max(len(edges) - 2, 0))
  points = []
  for i in range(max(len(edges) - 1, 1)):
    mask = bin_of == i
    if mask.any():
      hits, sizes = (correct & mask).sum(1), mask.sum(1)
      low, high = share_ci(hits, sizes)
      points.append((float(length[mask].mean()), float(correct[mask].mean()), low, high, int(sizes.sum())))
  return _curve(points)


def within_prompt_bins(correct: np.ndarray, length: np.ndarray, *, bins: int = BINS) -> Curve:
  """The K samples of each problem ranked by length, equal ranks pooled: problems weigh the same."""
  order = np.argsort(length, axis=1, kind="stable")
  ranked, lengths = np.take_along_axis(correct, order, 1), np.take_along_axis(length, order, 1)
  points = []
  for part in np.array_split(np.arange(length.shape[1]), min(bins, length.shape[1])):
    points.append(_point(lengths[:, part].mean(), ranked[:, part].mean(1), ranked[:, part].size))
  return _curve(points)


def natural(correct: np.ndarray, length: np.ndarray) -> Curve:
  """One point: samples without a forced budget."""
  low, high = share_ci(correct.mean(1))
  return _curve([(float(length.mean()), float(correct.mean()), low, high, int(correct.size))])


def forced_budget(correct: dict[int, np.ndarray]) -> Curve:
  """Accuracy at forced budgets; correct: budget -> bool[n, K] after exactly that many tokens."""
  return _curve([_point(budget, correct[budget].mean(1), correct[budget].size) for budget in sorted(correct)])


def best_of_n(correct: np.ndarray, length: np.ndarray, budgets: list[int]) -> Curve:
  """Best-of-n with an oracle: samples in order while their total length fits a budget; one has to be correct.

  A problem whose first sample is longer than the budget is unsolved.
  """
  total = np.cumsum(length, axis=1)
  points = []
  for budget in budgets:
    fits = total <= budget
    points.append(_point(budget, (correct & fits).any(1).astype(float), fits.sum()))
  return _curve(points)

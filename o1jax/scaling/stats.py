"""Intervals: the bootstrap over problems, paired differences, and over seeds then problems."""

from typing import Sequence

import numpy as np


def _means(values: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
  """f64[resamples] means of `values` f[n] resampled with replacement."""
  n = len(values)
  if n == 0:
    raise ValueError("a bootstrap needs at least one problem")
  counts = rng.multinomial(n, np.full(n, 1.0 / n), size=resamples)
  return counts @ np.asarray(values, np.float64) / n


def bootstrap_ci(values: np.ndarray, rng: np.random.Generator, resamples: int = 2000) -> tuple[float, float]:
  """95% percentile interval of the mean of `values` f[n], one a problem (Efron & Tibshirani 1993, chapter 13)."""
  low, high = np.percentile(_means(values, rng, resamples), [2.5, 97.5])
  return float(low), float(high)


def paired_bootstrap(a: np.ndarray, b: np.ndarray, rng: np.random.Generator, resamples: int = 2000) -> dict:
  """{"mean", "ci95", "share_at_most_zero"} of a - b, both f[n] over the same problems."""
  difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
  means = _means(difference, rng, resamples)
  low, high = np.percentile(means, [2.5, 97.5])
  return {
    "mean": float(difference.mean()),
    "ci95": [float(low), float(high)],
    "share_at_most_zero": float(np.mean(means <= 0)),
  }


def seeds_ci(
  runs: Sequence[np.ndarray], rng: np.random.Generator, resamples: int = 2000
) -> tuple[float, float]:
  """95% interval of the mean over seeds: seeds are resampled first, then the problems of each one that was drawn."""
  count = len(runs)
  drawn = rng.integers(count, size=(resamples, count))
  # A seed that is drawn twice brings two samples of its problems: sharing one would count its noise as correlated.
  means = [_means(np.asarray(run), rng, resamples * count).reshape(resamples, count) for run in runs]
  chosen = np.take_along_axis(np.stack(means), drawn[None], axis=0)[0]
  low, high = np.percentile(chosen.mean(1), [2.5, 97.5])
  return float(low), float(high)

"""Intervals: the bootstrap over problems, paired differences, over seeds then problems, and what few seeds can show."""

import dataclasses
import functools
import math
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


@dataclasses.dataclass(frozen=True)
class Effect:
  """A mean over seeds, and how sure it is."""

  mean: float
  ci95: tuple[float, float]
  seeds: int
  above: int  # seeds whose own mean lies above 0
  share_at_most_zero: float  # of the resampled means
  p: float  # two-sided, of a true mean of 0


def student_p(t: float, dof: int) -> float:
  """Two-sided tail probability of Student's t (Abramowitz & Stegun 1964, 26.7.3 and 26.7.4); dof >= 1."""
  angle = math.atan(abs(t) / math.sqrt(dof))
  sine, cosine = math.sin(angle), math.cos(angle)
  term = cosine if dof % 2 else 1.0
  total = term if dof > 1 else 0.0
  for k in range(2 + dof % 2, dof, 2):  # each term is the one before it times cos^2 (k - 1) / k
    term *= cosine**2 * (k - 1) / k
    total += term
  inside = (angle + sine * total) * 2 / math.pi if dof % 2 else sine * total
  return max(1.0 - inside, 0.0)


@functools.cache
def student_quantile(dof: int) -> float:
  """The t that 97.5% of Student's distribution lie below, by bisection; 12.71 at dof 1, 3.18 at 3, 1.96 in the limit."""
  low, high = 1.0, 16.0
  for _ in range(60):
    middle = (low + high) / 2
    low, high = (middle, high) if student_p(middle, dof) > 0.05 else (low, middle)
  return high


def seed_means(values: np.ndarray, rng: np.random.Generator, resamples: int = 2000) -> np.ndarray:
  """f64[resamples] means of `values` f[seeds, problems] with seeds and problems resampled.

  The problems are the same ones for every seed, so a resample draws them once for all of its seeds (the crossed
  bootstrap of Owen 2007): problems of their own for each seed would make few problems look like many.
  """
  seeds, problems = values.shape
  drawn_seeds = rng.multinomial(seeds, np.full(seeds, 1.0 / seeds), size=resamples)
  drawn_problems = rng.multinomial(problems, np.full(problems, 1.0 / problems), size=resamples)
  return ((drawn_seeds @ values) * drawn_problems).sum(1) / values.size


def seed_effect(values: np.ndarray, rng: np.random.Generator, resamples: int = 2000) -> Effect:
  """The mean of `values` f[seeds, problems] (problems = 1 where a seed has one figure) with its 95% interval.

  The interval spans two: the bootstrap over seeds and problems, which knows the noise of few problems, and Student's t
  over the seeds' own means, which knows how little few seeds tell. The bootstrap alone covers about 75% with three
  seeds, as it can never leave the range of the three. p is the larger of the two. One seed says nothing about others:
  its interval is over problems alone, and its p is 1.
  """
  values = np.asarray(values, np.float64)
  own = values.mean(1)
  seeds, mean = len(own), float(own.mean())
  means = seed_means(values, rng, resamples)
  low, high = np.percentile(means, [2.5, 97.5])
  share = float(np.mean(means <= 0))
  p = 1.0
  if seeds > 1:
    error = float(own.std(ddof=1)) / math.sqrt(seeds)
    half = student_quantile(seeds - 1) * error
    low, high = min(low, mean - half), max(high, mean + half)
    t = mean / error if error > 0 else math.copysign(math.inf, mean) if mean else 0.0
    p = max(student_p(t, seeds - 1), min(1.0, 2 * min(share, float(np.mean(means >= 0)))))
  return Effect(mean, (float(low), float(high)), seeds, int(np.sum(own > 0)), share, p)


def area_under_roc(scores: np.ndarray, correct: np.ndarray) -> float:
  """Probability that a correct sample scores above a wrong one, ties counting half; NaN where there is none of either.

  scores f[...], correct bool of the same shape. It is Mann and Whitney's U over the number of pairs (1947).
  """
  scores, correct = np.ravel(scores), np.ravel(correct).astype(bool)
  _, which, count = np.unique(scores, return_inverse=True, return_counts=True)
  rank = np.cumsum(count) - (count - 1) / 2  # from 1; of a tie, the mean of its places
  right, wrong = int(correct.sum()), int((~correct).sum())
  if not right or not wrong:
    return math.nan
  return float((rank[which][correct].sum() - right * (right + 1) / 2) / (right * wrong))


def holm(p_values: Sequence[float]) -> list[float]:
  """The p-values adjusted for their number, in the given order (Holm 1979): at most 5% of families hold a false one."""
  order = np.argsort(p_values, kind="stable")
  steps = np.maximum.accumulate([(len(order) - i) * p_values[k] for i, k in enumerate(order)])
  adjusted = np.empty(len(order))
  adjusted[order] = np.minimum(steps, 1.0)
  return [float(p) for p in adjusted]

"""Intervals of shares over problems and of effects over seeds, tests, and the area under a ROC curve."""

import dataclasses
import functools
import math
import statistics
from typing import Any, Sequence

import numpy as np

NORMAL = statistics.NormalDist().inv_cdf(0.975)
ROUNDING = 1e-9  # of a spread in its own scale, below which figures are the same


def _means(values: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
  """f64[resamples] means of `values` f[n] resampled with replacement."""
  n = len(values)
  if n == 0:
    raise ValueError("a bootstrap needs at least one problem")
  counts = rng.multinomial(n, np.full(n, 1.0 / n), size=resamples)
  return counts @ np.asarray(values, np.float64) / n


def share_ci(hits: np.ndarray, sizes: np.ndarray | None = None) -> tuple[float, float]:
  """95% interval of a share sum(hits) / sum(sizes), both f[n] by problem, 0 <= hits <= sizes (Wilson 1927).

  Without sizes each problem has the same weight and `hits` are shares. Wilson's number of trials is that
  whose binomial noise equals the noise between the problems, p (1 - p) / (s^2 / n), and at least the number
  of problems (where sizes differ, (sum sizes)^2 / sum sizes^2), so that problems that all agree leave a
  width. Raises ValueError without one.
  """
  hits = np.asarray(hits, np.float64)
  sizes = np.ones_like(hits) if sizes is None else np.asarray(sizes, np.float64)
  if not sizes.any():
    raise ValueError("an interval needs at least one problem")
  total = sizes.sum()
  share, tries = hits.sum() / total, total**2 / np.sum(sizes**2)
  binomial, noise = share * (1 - share), float(np.sum((hits - share * sizes) ** 2)) / total**2
  if noise > ROUNDING * binomial / tries:
    tries = max(tries, binomial / noise)
  square = NORMAL**2 / tries
  middle = (share + square / 2) / (1 + square)
  half = math.sqrt(binomial * square + square**2 / 4) / (1 + square)
  return float(min(max(middle - half, 0.0), share)), float(max(min(middle + half, 1.0), share))


def paired_difference(
  a: np.ndarray, b: np.ndarray, rng: np.random.Generator, resamples: int = 2000
) -> dict[str, Any]:
  """{"mean", "ci95", "share_at_most_zero"} of a - b, both f[n] shares in [0, 1] of the same problems.

  Gains and losses of the problems are two shares; their intervals and correlation give the interval of the
  difference (Newcombe 1998, method 10), which has a width even where nothing changed. The last is of
  resamples.
  """
  difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
  gained, lost = np.maximum(difference, 0), np.maximum(-difference, 0)
  (low_gain, high_gain), (low_loss, high_loss) = share_ci(gained), share_ci(lost)
  mean, gain, loss = float(difference.mean()), float(gained.mean()), float(lost.mean())
  spread = float(gained.std() * lost.std())
  correlation = float(np.mean(gained * lost) - gain * loss) / spread if spread > 0 else 0.0

  def half(x: float, y: float) -> float:
    return math.sqrt(max(x * x + y * y - 2 * correlation * x * y, 0.0))

  ci95 = [mean - half(gain - low_gain, high_loss - loss), mean + half(high_gain - gain, loss - low_loss)]
  share = float(np.mean(_means(difference, rng, resamples) <= 0))
  return {"mean": mean, "ci95": ci95, "share_at_most_zero": share}


@dataclasses.dataclass(frozen=True)
class Effect:
  """A mean over seeds, with its interval and p."""

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
  """The t below which 97.5% of Student's distribution lie, by bisection: 12.71 at dof 1, 3.18 at 3."""
  low, high = 1.0, 16.0
  for _ in range(60):
    middle = (low + high) / 2
    low, high = (middle, high) if student_p(middle, dof) > 0.05 else (low, middle)
  return high


def seed_means(values: np.ndarray, rng: np.random.Generator, resamples: int = 2000) -> np.ndarray:
  """f64[resamples] means of `values` f[seeds, problems] with seeds and problems resampled.

  The problems are the same for every seed, so a resample draws them once for all seeds (the crossed bootstrap
  of Owen 2007). Drawn anew for each seed, a small set of problems would look like a large one.
  """
  seeds, problems = values.shape
  seed_counts = rng.multinomial(seeds, np.full(seeds, 1.0 / seeds), size=resamples)
  problem_counts = rng.multinomial(problems, np.full(problems, 1.0 / problems), size=resamples)
  return ((seed_counts @ values) * problem_counts).sum(1) / values.size


def seed_effect(values: np.ndarray, rng: np.random.Generator, resamples: int = 2000) -> Effect:
  """The mean of `values` f[seeds, problems] (problems = 1 where a seed has one value) with its 95% interval.

  The interval spans two: the bootstrap over seeds and problems, which knows the noise between problems, and
  Student's t over the seeds' means, which knows how little three or four seeds say. The bootstrap alone
  covers about 75% with three seeds, as it never leaves the range of the three. p is the larger of the two.
  One seed says
  nothing about others: its interval is over problems alone, and its p is 1. Where neither seeds nor problems
  differ, their noise is unknown: the interval is NaN, and p is 1.
  """
  values = np.asarray(values, np.float64)
  own = values.mean(1)
  seeds, mean = len(own), float(own.mean())
  means = seed_means(values, rng, resamples)
  share = float(np.mean(means <= 0))
  same = ROUNDING * float(np.abs(values).max())
  if np.ptp(own) <= same and np.ptp(values) <= same:
    return Effect(mean, (math.nan, math.nan), seeds, int(np.sum(own > 0)), share, 1.0)
  low, high = np.percentile(means, [2.5, 97.5])
  p = 1.0
  if seeds > 1:
    error = float(own.std(ddof=1)) / math.sqrt(seeds)
    half = student_quantile(seeds - 1) * error
    low, high = min(low, mean - half), max(high, mean + half)
    t = mean / error if error > 0 else math.copysign(math.inf, mean) if mean else 0.0
    p = max(student_p(t, seeds - 1), min(1.0, 2 * min(share, float(np.mean(means >= 0)))))
  return Effect(mean, (float(low), float(high)), seeds, int(np.sum(own > 0)), share, p)


def share_effect(values: np.ndarray, rng: np.random.Generator) -> Effect:
  """`seed_effect` of shares in [0, 1], whose interval also spans that of several problems' means."""
  effect = seed_effect(values, rng)
  if np.shape(values)[1] == 1:
    return effect
  bounds = [*effect.ci95, *share_ci(np.mean(values, 0))]
  return dataclasses.replace(effect, ci95=(float(np.nanmin(bounds)), float(np.nanmax(bounds))))


def area_under_roc(scores: np.ndarray, correct: np.ndarray) -> float:
  """Probability that a correct sample scores above a wrong one, ties as half; NaN where one kind is missing.

  scores f[...], correct bool[...]. It is the U of Mann and Whitney (1947) over the number of pairs.
  """
  scores, correct = np.ravel(scores), np.ravel(correct).astype(bool)
  _, which, count = np.unique(scores, return_inverse=True, return_counts=True)
  rank = np.cumsum(count) - (count - 1) / 2  # from 1; of a tie, the mean of its places
  right, wrong = int(correct.sum()), int((~correct).sum())
  if not right or not wrong:
    return math.nan
  return float((rank[which][correct].sum() - right * (right + 1) / 2) / (right * wrong))


def holm(p_values: Sequence[float]) -> list[float]:
  """The p-values adjusted for their number (Holm 1979), in the given order."""
  order = np.argsort(p_values, kind="stable")
  steps = np.maximum.accumulate([(len(order) - i) * p_values[k] for i, k in enumerate(order)])
  adjusted = np.empty(len(order))
  adjusted[order] = np.minimum(steps, 1.0)
  return [float(p) for p in adjusted]

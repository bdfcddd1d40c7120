"""Which arm of a sweep is best, how sure that is, and what each arm's reward cost in KL."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from o1jax.scaling import stats
from o1jax.scaling.laws import distance_curve
from o1jax.scaling.members import LEVEL, PASS, Member, contrast, few_seeds, interval, outcomes, stack


@dataclasses.dataclass(frozen=True)
class Rank:
  """One arm's place."""

  arm: str
  strength: float | None
  effect: stats.Effect  # the metric's mean over seeds
  behind: (
    stats.Effect | None
  )  # the best arm minus this one, paired by seed; None: the best arm, or no seed in common
  p: float  # of `behind`, adjusted for all pairs of arms; NaN without one


@dataclasses.dataclass(frozen=True)
class Path:
  """One member's way through reward and distance."""

  arm: str
  seed: int
  distance: np.ndarray  # f[n] sqrt KL to the reference
  reward: np.ndarray  # f[n]


def frontier(members: Sequence[Member], metric: str, points: int | None = None) -> list[Path]:
  """Each member's metric against the root of its KL, by step; without members that lack either.

  `points`: at most so many averages of neighbouring steps; None: every step by itself.
  """
  paths = [Path(m.arm, m.seed, *distance_curve(m, metric, points)) for m in members]
  return [path for path in paths if len(path.distance)]


def rank_arms(members: Sequence[Member], metric: str, rng: np.random.Generator) -> list[Rank]:
  """The arms by their mean of the metric, best first, each compared with the best; arms that nobody finished are left out.

  The best arm is known only after looking at all of them, so each comparison with it is one of all pairs: the p-values
  of all k (k - 1) / 2 pairs are adjusted together (Holm 1979). Only their reading is about the best arm.
  """
  values = outcomes(members, metric)
  mean = stats.share_effect if metric.endswith(PASS) else stats.seed_effect
  effects = {arm: mean(stack(list(rows.values())), rng) for arm, rows in values.items()}
  order = sorted(effects, key=lambda arm: -effects[arm].mean)
  pairs = {
    (a, b): stats.seed_effect(contrast(values, {a: 1.0, b: -1.0}), rng)
    for a, b in itertools.combinations(order, 2)
    if set(values[a]) & set(values[b])
  }
  adjusted = dict(zip(pairs, stats.holm([pair.p for pair in pairs.values()])))
  strengths: Mapping[str, float | None] = {m.arm: m.strength for m in members}
  return [
    Rank(
      arm,
      strengths[arm],
      effects[arm],
      pairs.get((order[0], arm)),
      adjusted.get((order[0], arm), float("nan")),
    )
    for arm in order
  ]


def reading(ranks: Sequence[Rank], metric: str) -> str:
  """What the ranking says, in sentences."""
  if not ranks:
    return f"No arm has finished with {metric}."
  best, others = ranks[0], ranks[1:]
  first = (
    f"{best.arm} has the highest mean {metric}: {best.effect.mean:.3f} {interval(best.effect.ci95, '.3f')}"
  )
  first += ", biased upwards by the choice of the highest." if others else "."
  behind = [rank.arm for rank in others if rank.p < LEVEL]
  unclear = [rank.arm for rank in others if not rank.p < LEVEL]
  seeds = best.effect.seeds
  told = [first]
  if behind:
    told.append(f"It lies above {_list(behind)}.")
  if unclear:
    told.append(f"With {seeds} seed{'s' * (seeds != 1)} it cannot be told apart from {_list(unclear)}.")
  if others:
    pairs = len(ranks) * (len(ranks) - 1) // 2
    told.append(f"Comparisons are paired by seed, and their p is adjusted for all {pairs} pairs.")
  return " ".join([*told, few_seeds(seeds)])


def _list(names: Sequence[str]) -> str:
  return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

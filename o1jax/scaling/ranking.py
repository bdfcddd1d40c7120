"""Ranking of a sweep's arms, with paired comparisons to the best, and paths of reward against KL."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from o1jax.scaling import stats
from o1jax.scaling.findings import (
  LEVEL,
  PASS,
  MemberResult,
  contrast,
  format_interval,
  outcomes,
  sign_note,
  stack,
)
from o1jax.scaling.fits import distance_curve


@dataclasses.dataclass(frozen=True)
class Rank:
  """One arm's place in the ranking."""

  arm: str
  strength: float | None
  effect: stats.Effect  # the metric's mean over seeds
  # The best arm minus this one, paired by seed. None for the best arm, and for one without a seed in common.
  behind: stats.Effect | None
  p: float  # of `behind`, adjusted for all pairs of arms; NaN without one


@dataclasses.dataclass(frozen=True)
class Path:
  """One member's reward against its distance from the reference."""

  arm: str
  seed: int
  distance: np.ndarray  # f[n] sqrt KL to the reference
  reward: np.ndarray  # f[n]


def frontier(members: Sequence[MemberResult], metric: str, points: int | None = None) -> list[Path]:
  """Each member's metric against the root of its KL, by step; without members that lack either.

  `points`: at most so many averages of neighbouring steps; None: every step by itself.
  """
  paths = [Path(m.arm, m.seed, *distance_curve(m, metric, points)) for m in members]
  return [path for path in paths if len(path.distance)]


def rank_arms(members: Sequence[MemberResult], metric: str, rng: np.random.Generator) -> list[Rank]:
  """The arms by their mean of the metric, best first, each compared with the best; without those lacking it.

  The best arm is known only after looking at all of them, so each comparison with it is one of all k (k - 1)
  / 2 pairs, whose p-values are adjusted together (Holm 1979).
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
  ranks = []
  for arm in order:
    pair = (order[0], arm)
    ranks.append(Rank(arm, strengths[arm], effects[arm], pairs.get(pair), adjusted.get(pair, math.nan)))
  return ranks


def reading(ranks: Sequence[Rank], metric: str) -> str:
  """The ranking in sentences."""
  if not ranks:
    return f"No arm has finished with {metric}."
  best, others = ranks[0], ranks[1:]
  mean = f"{best.effect.mean:.3f} {format_interval(best.effect.ci95, '.3f')}"
  first = f"{best.arm} has the highest mean {metric}: {mean}"
  first += ", biased upwards by the choice of the highest." if others else "."
  behind = [rank.arm for rank in others if rank.p < LEVEL]
  unclear = [rank.arm for rank in others if not rank.p < LEVEL]
  seeds = best.effect.seeds
  sentences = [first]
  if behind:
    sentences.append(f"It lies above {_list(behind)}.")
  if unclear:
    sentences.append(
      f"With {seeds} seed{'s' * (seeds != 1)} it cannot be distinguished from {_list(unclear)}."
    )
  if others:
    pairs = len(ranks) * (len(ranks) - 1) // 2
    sentences.append(f"Comparisons are paired by seed, and their p is adjusted for all {pairs} pairs.")
  return " ".join([*sentences, sign_note(seeds)])


def _list(names: Sequence[str]) -> str:
  return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

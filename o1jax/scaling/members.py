"""The members of a sweep, what is found about them, and their figures by arm and seed."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from o1jax.scaling import stats

Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]
Holds = Literal["yes", "no", "undecided"]

PASS = "/pass@1"  # the metrics of this ending are means over problems, which `by_problem` holds


@dataclasses.dataclass(frozen=True)
class Member:
  """One run of a sweep."""

  arm: str
  strength: float | None
  seed: int
  final: Mapping[str, float]  # empty until the sweep ends
  by_problem: Mapping[str, np.ndarray]  # set of problems ("held_out", "ood/<kind>") -> f[problems]
  curves: Curves  # metric -> (steps i[n], values f[n])
  bad_step: int | None = None  # at which a NaN or an infinity stopped it


@dataclasses.dataclass(frozen=True)
class Finding:
  """What the sweep says about one check."""

  check: str
  measured: str  # with its interval and the count of seeds' signs
  effect: float
  ci95: tuple[float, float]
  holds: Holds
  reading: str
  seeds: int  # that the effect rests on


class Untestable(ValueError):
  """Why a check cannot be tested on these members."""


def few_seeds(seeds: int) -> str:
  """What the signs of so many seeds can show at most, as a sentence."""
  if seeds < 2:
    return "One seed cannot show what another would do."
  p = 2.0 ** (1 - seeds)
  return f"Without an effect the signs of {seeds} seeds would all agree in {p:.3g} of such comparisons."


def outcomes(members: Sequence[Member], metric: str) -> dict[str, dict[int, np.ndarray]]:
  """arm -> seed -> f[problems], or f[1] where the metric is no mean over problems; without members that stopped."""
  found: dict[str, dict[int, np.ndarray]] = {}
  for member in members:
    name = metric.removesuffix(PASS)
    known = metric.endswith(PASS) and name in member.by_problem
    values = member.by_problem[name] if known else np.array([member.final.get(metric, math.nan)])
    if member.bad_step is None and len(values) and np.isfinite(values).all():
      found.setdefault(member.arm, {})[member.seed] = np.asarray(values, np.float64)
  return found


def stack(rows: Sequence[np.ndarray]) -> np.ndarray:
  """f[seeds, problems] of one row a seed; f[seeds, 1] of their means where the seeds had other numbers of problems."""
  same = len({len(row) for row in rows}) == 1
  return np.stack(rows) if same else np.array([[row.mean()] for row in rows])


def contrast(values: Mapping[str, Mapping[int, np.ndarray]], weights: Mapping[str, float]) -> np.ndarray:
  """f[seeds, problems or 1] sum of weight times value over the arms, for the seeds that all of the arms have.

  Paired by seed, and by problem where all arms have as many. Raises Untestable where no seed has all arms.
  """
  seeds = sorted(set.intersection(*(set(values.get(arm, {})) for arm in weights)))
  if not seeds:
    raise Untestable(f"no seed has finished {' and '.join(weights)}")
  return stack([weighted({arm: values[arm][seed] for arm in weights}, weights) for seed in seeds])


def weighted(values: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
  """f[problems] sum of weight times value over the arms of one seed; f[1] of their means where the lengths differ."""
  rows = stack([values[arm] for arm in weights])
  return np.asarray(list(weights.values())) @ rows


def spell(effect: stats.Effect, digits: int = 3) -> str:
  """An effect, its interval and how many seeds agree in sign, for a table."""
  low, high = effect.ci95
  signs = f"{effect.above} of {effect.seeds} seeds above 0"
  return f"{effect.mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}], {signs}"


def side(effect: stats.Effect, sign: float = 1.0) -> Holds:
  """Whether the interval lies on the side of `sign`, on the other one, or on both; one seed decides nothing."""
  low, high = sorted(sign * bound for bound in effect.ci95)
  if effect.seeds < 2:
    return "undecided"
  return "yes" if low > 0 else "no" if high < 0 else "undecided"

"""The members of a sweep, what is found about them, and their figures by arm and seed."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from o1jax.scaling import stats

Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]
Holds = Literal["yes", "no", "undecided"]

PASS = "/pass@1"  # the metrics of this ending are means over problems, which `by_problem` holds without it
LEVEL = 0.05  # of an adjusted p below which something is shown


@dataclasses.dataclass(frozen=True)
class Member:
  """One run of a sweep."""

  arm: str
  strength: float | None
  seed: int
  final: Mapping[str, float]  # empty until the sweep ends
  by_problem: Mapping[
    str, np.ndarray
  ]  # "held_out", "ood/<kind>" or a metric that is a mean over problems -> f[problems]
  curves: Curves  # metric -> (steps i[n], values f[n])
  bad_step: int | None = None  # at which a NaN or an infinity stopped it


@dataclasses.dataclass(frozen=True)
class Finding:
  """What the sweep says about one check."""

  check: str
  measured: str  # with its interval, the count of seeds' signs and p
  effect: float
  ci95: tuple[float, float]  # not adjusted for the other checks
  p: float  # of the effect, adjusted for all checks of the claim; NaN where it was not tested
  holds: Holds
  reading: str
  seeds: int  # that the effect rests on


@dataclasses.dataclass(frozen=True)
class Tested:
  """One check by itself, before its p is adjusted for the claim's other checks."""

  check: str
  measured: str
  effect: stats.Effect
  leans: Holds  # the verdict where the effect's p is small enough
  sentences: Mapping[Holds, str]  # that the reading begins with, by the verdict
  rest: str  # of the reading
  refuted: float = (
    math.nan
  )  # p of "no" for a reason beside the effect's: what a law misses, a member without an end


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
    values = member.by_problem.get(metric.removesuffix(PASS), [member.final.get(metric, math.nan)])
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


def interval(ci95: tuple[float, float], form: str) -> str:
  """The bounds in brackets, as `form` writes a number; "[unknown]" where they are NaN."""
  return "[unknown]" if math.isnan(ci95[0]) else f"[{ci95[0]:{form}}, {ci95[1]:{form}}]"


def spell(effect: stats.Effect, digits: int = 3) -> str:
  """An effect, its interval and how many seeds agree in sign, for a table."""
  form = f"+.{digits}f"
  return f"{effect.mean:{form}} {interval(effect.ci95, form)}, {effect.above} of {effect.seeds} seeds above 0"


def spell_p(p: float) -> str:
  """A p-value in two digits."""
  return "p < 0.001" if p < 0.001 else f"p {p:.2g}"

"""Results of a sweep's members, findings about its checks, and contrasts of arms paired by seed."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from o1jax.scaling import stats

Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]
Holds = Literal["yes", "no", "undecided"]

PASS = "/pass@1"  # metrics of this ending are means over problems; `by_problem` has them without it
LEVEL = 0.05  # significance level of an adjusted p


@dataclasses.dataclass(frozen=True)
class MemberResult:
  """Metrics of one member of a sweep: an arm with a seed."""

  arm: str
  strength: float | None
  seed: int
  final: Mapping[str, float]  # final metrics; empty until the sweep ends
  # "held_out", "ood/<kind>" or another mean over problems -> f[problems]
  by_problem: Mapping[str, np.ndarray]
  curves: Curves  # metric -> (steps i[n], values f[n])
  bad_step: int | None = None  # at which a NaN or an infinity stopped it


@dataclasses.dataclass(frozen=True)
class Finding:
  """Verdict on one check of a claim, with its effect."""

  check: str
  measured: str  # with its interval, the number of seeds above 0 and p
  effect: float
  ci95: tuple[float, float]  # not adjusted for the other checks
  p: float  # of the effect, adjusted for all checks of the claim; NaN where it was not tested
  holds: Holds
  reading: str
  seeds: int  # that the effect rests on


@dataclasses.dataclass(frozen=True)
class CheckResult:
  """Test of one check by itself, before its p is adjusted for the claim's other checks."""

  check: str
  measured: str
  effect: stats.Effect
  verdict: Holds  # where the effect's p is small enough
  readings: Mapping[Holds, str]  # first sentence of the reading, by verdict
  details: str  # further sentences of the reading
  # p of "no" for another reason than the effect: a misfit, a member that stopped early
  p_no: float = math.nan


class CheckData(NamedTuple):
  """Input to the test of a check."""

  metric: str
  arms: Sequence[str]
  members: Sequence[MemberResult]  # of these arms
  rng: np.random.Generator  # draws the resamples


class Untestable(ValueError):
  """A check cannot be tested on these members; the message says why."""


def sign_note(seeds: int) -> str:
  """A sentence: the p-value at which the signs of all seeds agree by chance."""
  if seeds < 2:
    return "One seed cannot show what another would do."
  p = 2.0 ** (1 - seeds)
  return f"Without an effect the signs of {seeds} seeds would all agree in {p:.3g} of such comparisons."


def outcomes(members: Sequence[MemberResult], metric: str) -> dict[str, dict[int, np.ndarray]]:
  """Final values by arm and seed: f[problems], or f[1] where the metric is no mean over problems.

  Members that a NaN stopped are left out.
  """
  by_arm: dict[str, dict[int, np.ndarray]] = {}
  for member in members:
    values = member.by_problem.get(metric.removesuffix(PASS), [member.final.get(metric, math.nan)])
    if member.bad_step is None and len(values) and np.isfinite(values).all():
      by_arm.setdefault(member.arm, {})[member.seed] = np.asarray(values, np.float64)
  return by_arm


def stack(rows: Sequence[np.ndarray]) -> np.ndarray:
  """f[seeds, problems] of one row a seed; f[seeds, 1] of their means where the numbers of problems differ."""
  same = len({len(row) for row in rows}) == 1
  return np.stack(rows) if same else np.array([[row.mean()] for row in rows])


def contrast(values: Mapping[str, Mapping[int, np.ndarray]], weights: Mapping[str, float]) -> np.ndarray:
  """f[seeds, problems or 1] weighted sums over the arms, for the seeds that all of the arms have.

  Paired by seed, and by problem where all arms have as many. Raises Untestable where no seed has all arms.
  """
  seeds = sorted(set.intersection(*(set(values.get(arm, {})) for arm in weights)))
  if not seeds:
    raise Untestable(f"no seed has finished {' and '.join(weights)}")
  return stack([weighted_sum({arm: values[arm][seed] for arm in weights}, weights) for seed in seeds])


def weighted_sum(values: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
  """f[problems] weighted sum over the arms of one seed; f[1] of their means where the lengths differ."""
  return np.asarray(list(weights.values())) @ stack([values[arm] for arm in weights])


def format_interval(ci95: tuple[float, float], form: str) -> str:
  """The bounds in brackets, each in the format `form`; "[unknown]" where they are NaN."""
  return "[unknown]" if math.isnan(ci95[0]) else f"[{ci95[0]:{form}}, {ci95[1]:{form}}]"


def format_effect(effect: stats.Effect, digits: int = 3) -> str:
  """An effect, its interval and the number of seeds above 0, for a table."""
  form = f"+.{digits}f"
  bounds = format_interval(effect.ci95, form)
  return f"{effect.mean:{form}} {bounds}, {effect.above} of {effect.seeds} seeds above 0"


def format_p(p: float) -> str:
  """A p-value in two digits."""
  return "p < 0.001" if p < 0.001 else f"p {p:.2g}"

"""Laws of reward against entropy or distance, fitted by least squares to the curves of a sweep's members.

    members -> points of their curves, by seed -> one fit a seed -> its coefficient, its misfit beyond noise

Each law is linear in its coefficients, so a fit is exact and has no starting point. Noisy points do not
refuse a law.
Left out: extrapolation, and errors in x, which bias a coefficient where entropy and accuracy come from the
same completions.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from o1jax.scaling import stats
from o1jax.scaling.findings import (
  CheckData,
  CheckResult,
  Holds,
  MemberResult,
  Untestable,
  format_effect,
  format_p,
)
from o1jax.scaling.passk import best_of_n_kl

# The KL of whole completions, as in the paper, first. Per token, d is scaled by the root of a length that may
# drift. The last is a sampled estimate, for runs that logged no exact KL.
KL_METRICS = ("kl_sequence", "kl_reverse", "kl/k3")
# Share of the variation beyond noise that a law may miss: below MISSED the law holds; above NEGLIGIBLE it can
# be refused, as no law is exact.
MISSED, NEGLIGIBLE = 0.2, 0.01
RESAMPLES = 1000
FIT_POINTS = 40  # averages of neighbouring steps that a curve is fitted by

Points = tuple[np.ndarray, np.ndarray]  # x f[n], y f[n]


# Least squares


class GaoFit(NamedTuple):
  """Coefficients of R = start + d (a - b g(d)), with g = log for RL and g(d) = d for best-of-n."""

  a: float
  b: float
  start: float  # R at d = 0
  r2: float
  peak: float  # the d > 0 at which R is highest; infinite where b <= 0


def least_squares(columns: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
  """Coefficients f64[k] of `columns` f[n, k] fitted to `target` f[n], and R^2 (NaN for a constant target).

  Raises ValueError unless there are more points than coefficients.
  """
  if len(target) <= columns.shape[1]:
    raise ValueError(f"{len(target)} points for {columns.shape[1]} coefficients")
  coefficients = np.linalg.lstsq(columns, target, rcond=None)[0]
  spread = float(np.sum((target - target.mean()) ** 2))
  missed = float(np.sum((target - columns @ coefficients) ** 2))
  return coefficients, 1.0 - missed / spread if spread > 0 else math.nan


def residuals(columns: np.ndarray, target: np.ndarray) -> np.ndarray:
  """Residuals of `columns` f[n, k] fitted to `target`, f[n] or, one fit a column, f[n, m]; of its shape."""
  return target - columns @ np.linalg.lstsq(columns, target, rcond=None)[0]


def entropy_columns(entropy: np.ndarray) -> np.ndarray:
  """f[n, 2] factors of a and b in R = -a exp(H) + b (Cui et al. 2025, section 2); entropy H f[n], nats."""
  return np.stack([-np.exp(entropy), np.ones_like(entropy)], 1)


def gao_rl_columns(distance: np.ndarray) -> np.ndarray:
  """f[n, 3] factors of start, a and b in R = start + d (a - b log d), d log d = 0 at 0; distance f[n]."""
  bend = distance * np.log(np.where(distance > 0, distance, 1.0))
  return np.stack([np.ones_like(distance), distance, -bend], 1)


def gao_best_of_n_columns(distance: np.ndarray) -> np.ndarray:
  """f[n, 3] factors of start, a and b in R = start + d (a - b d); distance f[n]."""
  return np.stack([np.ones_like(distance), distance, -(distance**2)], 1)


def gao_rl(distance: np.ndarray, reward: np.ndarray) -> GaoFit:
  """R = d (a - b log d) for RL (Gao et al. 2022, section 3.1); d = sqrt KL to the start; both f[n].

  The paper subtracts the starting policy's reward; here `start` is a third coefficient, so that one noisy
  first value does not move the others. A constant factor of d changes a and b alone, so a KL per token serves
  as well as one per completion while the length stays the same.
  """
  (start, a, b), r2 = least_squares(gao_rl_columns(distance), reward)
  return GaoFit(float(a), float(b), float(start), r2, math.exp(min(a / b - 1, 700.0)) if b > 0 else math.inf)


def gao_best_of_n(distance: np.ndarray, reward: np.ndarray) -> GaoFit:
  """R = d (a - b d) for best-of-n (Gao et al. 2022, section 3.1); arguments as in `gao_rl`."""
  (start, a, b), r2 = least_squares(gao_best_of_n_columns(distance), reward)
  return GaoFit(float(a), float(b), float(start), r2, float(a) / (2 * b) if b > 0 else math.inf)


# Points of members


def parts(values: np.ndarray, count: int) -> np.ndarray:
  """f[min(count, n)] means of `values` f[n] over consecutive, near-equal parts."""
  return np.array([part.mean() for part in np.array_split(values, min(count, len(values)))])


def paired_curves(member: MemberResult, x: str, y: str) -> Points:
  """Two metrics of a member, f[n] each, at the steps where both are finite. Empty where it lacks one."""
  if x not in member.curves or y not in member.curves:
    return np.empty(0), np.empty(0)
  (x_steps, x_values), (y_steps, y_values) = member.curves[x], member.curves[y]
  _, i, j = np.intersect1d(x_steps, y_steps, return_indices=True)
  finite = np.isfinite(x_values[i]) & np.isfinite(y_values[j])
  return np.asarray(x_values[i][finite]), np.asarray(y_values[j][finite])


def distance_curve(member: MemberResult, metric: str, points: int | None = None) -> Points:
  """f[n] sqrt of the KL to the first policy, nats a completion where logged; f[n] the metric.

  Both in at most `points` averages of neighbouring steps (None: each step by itself). A KL is averaged before
  its root is taken, as the root of a noisy KL is biased upwards near 0, where one below 0 counts as 0.
  """
  pairs = (paired_curves(member, name, metric) for name in KL_METRICS)
  kl, values = max(pairs, key=lambda pair: min(len(pair[0]), 3))  # the first that has points enough
  if points is not None and len(kl):
    kl, values = parts(kl, points), parts(values, points)
  return np.sqrt(np.maximum(kl, 0.0)), values


def entropy_curve(member: MemberResult, metric: str) -> Points:
  """f[n] entropy, nats a token, and f[n] the metric, in at most FIT_POINTS averages of neighbouring steps."""
  entropy, values = paired_curves(member, "entropy", metric)
  return (parts(entropy, FIT_POINTS), parts(values, FIT_POINTS)) if len(values) else (entropy, values)


def best_of_n_curve(member: MemberResult, metric: str) -> Points:
  """f[n] sqrt of the KL of best-of-n, nats a completion, and f[n] the final `<metric>/<n>`, n ascending.

  KL = log n - (n - 1) / n, which is exact where no two completions have the same score, and otherwise a
  bound.
  """
  order = _best_of(member, metric)
  return np.sqrt([best_of_n_kl(n) for n in order]), np.array([member.final[f"{metric}/{n}"] for n in order])


def _best_of(member: MemberResult, metric: str) -> list[int]:
  """The n of the finite final metrics `<metric>/<n>`, ascending."""
  counts = []
  for name, value in member.final.items():
    start, _, n = name.rpartition("/")
    if start == metric and n.isdigit() and math.isfinite(value):
      counts.append(int(n))
  return sorted(counts)


class Law(NamedTuple):
  """A law of a kind of check: the points of a member that it is fitted to, and its least-squares columns."""

  points: Callable[[MemberResult, str], Points]  # (member, metric)
  columns: Callable[[np.ndarray], np.ndarray]


LAWS: dict[str, Law] = {
  "fit_entropy": Law(entropy_curve, entropy_columns),
  "fit_gao": Law(lambda member, metric: distance_curve(member, metric, FIT_POINTS), gao_rl_columns),
  "fit_gao_bon": Law(best_of_n_curve, gao_best_of_n_columns),
}


def points_by_seed(members: Sequence[MemberResult], metric: str, law: Law) -> dict[int, list[Points]]:
  """Non-empty curves of the members, by seed."""
  by_seed: dict[int, list[Points]] = {}
  for member in members:
    x, y = law.points(member, metric)
    if len(x):
      by_seed.setdefault(member.seed, []).append((x, y))
  return by_seed


def joined(points: Sequence[Points]) -> Points:
  """x f[n], y f[n] of several curves, concatenated."""
  return np.concatenate([x for x, _ in points]), np.concatenate([y for _, y in points])


def _fittable(data: CheckData, law: Law, against: str) -> dict[int, list[Points]]:
  """`points_by_seed` of the seeds that have points enough. Raises Untestable where there are none."""
  points = points_by_seed(data.members, data.metric, law)
  together = {seed: joined(curves) for seed, curves in points.items()}
  enough = [s for s, (x, y) in together.items() if len(x) > 4 and np.ptp(x) > 0 and np.ptp(y) > 0]
  if not enough:
    raise Untestable(f"no seed has a curve of {against} and {data.metric} that moves")
  return {seed: points[seed] for seed in enough}


def _residuals(points: Mapping[int, Sequence[Points]], law: Law) -> list[np.ndarray]:
  """Residuals f[n] of each curve, by the fit to all curves of its seed."""
  rows: list[np.ndarray] = []
  for curves in points.values():
    x, y = joined(curves)
    ends = np.cumsum([len(part) for part, _ in curves])[:-1]
    rows += np.split(residuals(law.columns(x), y), ends)
  return rows


# Misfit


class Misfit(NamedTuple):
  """How much of the variation beyond noise a law misses."""

  p: float  # of residuals that are noise alone; 1 where the noise is not known
  share: float  # missed, of the variation beyond noise; NaN where the noise is not known
  most: float  # upper end of the share's 95% interval

  def sentence(self) -> str:
    if math.isnan(self.share):
      return f"The noise of its points is not known; with it the law misses {self.most:.0%} of what moves."
    beyond = f"Beyond noise it misses {self.share:.0%} of what moves, at most {self.most:.0%}"
    return f"{beyond}; {format_p(self.p)} of noise alone."


NO_MISFIT = Misfit(1.0, 0.0, 0.0)


def _misfit(share: float, most: float, p: float, r2: float) -> Misfit:
  """The misfit of residuals of which `share`, and at most `most`, is no noise."""

  def of_variation(part: float) -> float:
    return part * (1 - r2) / max(part * (1 - r2) + r2, 1e-12) if part > 0 else 0.0

  missed = of_variation(share)
  return Misfit(p if missed > NEGLIGIBLE else 1.0, missed, of_variation(min(most, 1.0)))


def von_neumann(rows: Sequence[np.ndarray], r2: float) -> Misfit:
  """Misfit from the serial correlation of residuals f[n], each of a curve in the order of its steps.

  Noise is independent from step to step, a misfit is not: q = sum (r[i + 1] - r[i])^2 / sum r^2 of a curve is
  2 for noise, with the variance 4 (n - 2) / (n^2 - 1) (von Neumann 1941), and 2 (1 - share) where a share is
  no noise.
  """
  rows = [row for row in rows if len(row) > 2 and np.any(row)]
  if not rows:
    return NO_MISFIT
  shares = np.array([1 - np.sum(np.diff(row) ** 2) / np.sum(row**2) / 2 for row in rows])
  errors = np.sqrt([(len(row) - 2) / (len(row) ** 2 - 1) for row in rows])
  z = float(np.sum(shares / errors)) / math.sqrt(len(rows))
  most = float(shares.mean()) + stats.NORMAL * math.sqrt(np.sum(errors**2)) / len(rows)
  return _misfit(float(shares.mean()), most, statistics.NormalDist().cdf(-z), r2)


def resampled(rows: Sequence[np.ndarray], draws: Sequence[np.ndarray], r2: float) -> Misfit:
  """Misfit of residuals f[n] against residuals f[n, resamples] of noise alone."""
  total = sum(float(np.sum(row**2)) for row in rows)
  if total == 0:
    return NO_MISFIT
  noise = np.sum([np.sum(row**2, 0) for row in draws], 0) / total
  most = 1 - float(np.percentile(noise, 2.5))
  return _misfit(1 - float(noise.mean()), most, float(np.mean(noise >= 1)), r2)


# Tests of checks


def _law_result(
  text: str, measured: str, coefficient: stats.Effect, misfit: Misfit, holds: str, details: str
) -> CheckResult:
  """A law holds where its misfit is small and its coefficient positive; it fails where one fails."""
  fits_well: Holds = "yes" if misfit.most <= MISSED else "undecided"
  readings: dict[Holds, str] = {
    "yes": holds,
    "no": "The law does not describe these curves.",
    "undecided": "The law is not shown.",
  }
  verdict = fits_well if coefficient.mean > 0 else "no"
  p_no = misfit.p if coefficient.seeds > 1 else 1.0
  return CheckResult(text, measured, coefficient, verdict, readings, f"{misfit.sentence()} {details}", p_no)


def fit_entropy(data: CheckData) -> CheckResult:
  """R = -a exp(H) + b, one fit a seed over the curves of its arms (Cui et al. 2025); the effect is a.

  The reading tells the R^2 of a straight line in H as well: where it is as high, the exponential is not
  shown.
  """
  law = LAWS["fit_entropy"]
  points = _fittable(data, law, "entropy")
  curves = [joined(own) for own in points.values()]
  fits = [least_squares(law.columns(entropy), reward) for entropy, reward in curves]
  lines = [least_squares(np.stack([-x, np.ones_like(x)], 1), reward)[1] for x, reward in curves]
  effect = stats.seed_effect(np.array([[float(a)] for (a, _), _ in fits]), data.rng)
  b, r2 = float(np.mean([b for (_, b), _ in fits])), float(np.mean([r2 for _, r2 in fits]))
  measured = f"a = {format_effect(effect)}; b = {b:.3f}; R^2 = {r2:.2f}"
  details = f"A straight line in the entropy fits with R^2 = {float(np.mean(lines)):.2f}."
  text = f"{data.metric} = -a exp(entropy) + b over {', '.join(data.arms)}"
  misfit = von_neumann(_residuals(points, law), r2)
  return _law_result(text, measured, effect, misfit, "Reward is bought with entropy along the law.", details)


class GaoForm(NamedTuple):
  """One of the two laws of Gao et al. 2022: its formula and its fit."""

  text: str
  fit: Callable[[np.ndarray, np.ndarray], GaoFit]


GAO_RL = GaoForm("d (a - b log d)", gao_rl)
GAO_BEST_OF_N = GaoForm("d (a - b d)", gao_best_of_n)


def _gao_result(
  data: CheckData,
  points: Mapping[int, list[Points]],
  form: GaoForm,
  other: GaoForm,
  misfit: Callable[[float], Misfit],
) -> CheckResult:
  """`form` fitted to each seed's d and R, and the other form; the effect is b; `misfit` takes R^2."""
  fits = [form.fit(*joined(curves)) for curves in points.values()]
  others = [other.fit(*joined(curves)) for curves in points.values()]
  effect = stats.seed_effect(np.array([[fit.b] for fit in fits]), data.rng)
  a, r2 = float(np.mean([fit.a for fit in fits])), float(np.mean([fit.r2 for fit in fits]))
  other_a, other_b, _, other_r2, _ = np.mean(others, 0)
  furthest = [max(float(x.max()) for x, _ in curves) for curves in points.values()]
  inside = sum(fit.peak <= end for fit, end in zip(fits, furthest))
  within = f"inside what was measured in {inside} of {len(fits)} seeds (d up to {max(furthest):.3g})"
  beside = f"The other form {other.text} has a = {other_a:.3f}, b = {other_b:.3f}, R^2 = {other_r2:.2f}."
  peak = float(np.median([fit.peak for fit in fits]))
  text = f"{data.metric} = {form.text} over {', '.join(data.arms)}, d = sqrt KL"
  measured = f"b = {format_effect(effect)}; a = {a:.3f}; R^2 = {r2:.2f}; peak at d = {peak:.3g}"
  details = f"Its peak lies {within}. {beside}"
  return _law_result(text, measured, effect, misfit(r2), "Reward bends down along the law.", details)


def fit_gao(data: CheckData) -> CheckResult:
  """R = d (a - b log d), d = sqrt KL, one fit a seed (Gao et al. 2022, section 3.1); the effect is b."""
  points = _fittable(data, LAWS["fit_gao"], "the KL")
  rows = _residuals(points, LAWS["fit_gao"])
  return _gao_result(data, points, GAO_RL, GAO_BEST_OF_N, lambda r2: von_neumann(rows, r2))


def fit_gao_bon(data: CheckData) -> CheckResult:
  """R = d (a - b d) over the final `<metric>/<n>` of best-of-n, one fit a seed; the effect is b.

  The values of all n are of the same completions: their noise is that of resampled problems, the same for all
  seeds.
  """
  law = LAWS["fit_gao_bon"]
  points = _fittable(data, law, "the KL")
  rows = _residuals(points, law)
  noise = _problem_noise([m for m in data.members if m.seed in points], data.metric, data.rng)

  def misfit(r2: float) -> Misfit:
    if noise is None:
      return Misfit(1.0, math.nan, 1 - r2)
    columns = {seed: law.columns(joined(curves)[0]) for seed, curves in points.items()}
    return resampled(rows, [residuals(columns[seed], noise[seed]) for seed in points], r2)

  return _gao_result(data, points, GAO_BEST_OF_N, GAO_RL, misfit)


def _problem_noise(
  members: Sequence[MemberResult], metric: str, rng: np.random.Generator
) -> dict[int, np.ndarray] | None:
  """Shifts f[n, resamples] of each seed's points where problems are resampled, for all seeds alike.

  None where a member has no values by problem, or of another number of problems.
  """
  rows: dict[int, list[np.ndarray]] = {}
  for member in members:
    named = [f"{metric}/{n}" for n in _best_of(member, metric)]
    rows.setdefault(member.seed, []).extend(member.by_problem.get(name, np.empty(0)) for name in named)
  sizes = {len(row) for group in rows.values() for row in group}
  count = sizes.pop()
  if sizes or not count:
    return None
  shifts = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count - 1 / count
  return {seed: np.stack(group) @ shifts.T for seed, group in rows.items()}

"""Laws of reward against entropy or distance, fitted to the curves of a sweep's members.

    members -> points of their curves, by seed -> one fit a seed -> its coefficient, and what it misses beyond noise

A law is not refused for noisy points. Left out: errors in x, which bias a coefficient where entropy and accuracy
are of the same few completions.
"""

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from o1jax.scaling import fits, stats
from o1jax.scaling.members import Holds, Member, Tested, Untestable, spell, spell_p
from o1jax.scaling.passk import best_of_n_kl

# Gao's KL is of whole completions; nats a token in its place scale d by the root of a length, which may drift.
# The last is a sampled estimate, where nothing exact was logged.
KL_METRICS = ("kl_sequence", "kl_reverse", "kl/k3")
# Of what moves in a curve and is no noise, the share that a law may miss: surely less than the first to describe
# it, and more than the second to be refused, as no law is exact.
MISSED, NEGLIGIBLE = 0.2, 0.01
RESAMPLES = 1000
FIT_POINTS = 40  # averages of neighbouring steps that a curve is fitted by

Points = tuple[np.ndarray, np.ndarray]  # x f[n], y f[n]


def parts(values: np.ndarray, count: int) -> np.ndarray:
  """f[min(count, n)] means of `values` f[n] over consecutive, near-equal parts."""
  return np.array([part.mean() for part in np.array_split(values, min(count, len(values)))])


def paired_curves(member: Member, x: str, y: str) -> Points:
  """f[n], f[n]: two metrics of a member at the steps that have both, finite. Empty where it lacks one."""
  if x not in member.curves or y not in member.curves:
    return np.empty(0), np.empty(0)
  (x_steps, x_values), (y_steps, y_values) = member.curves[x], member.curves[y]
  _, i, j = np.intersect1d(x_steps, y_steps, return_indices=True)
  finite = np.isfinite(x_values[i]) & np.isfinite(y_values[j])
  return np.asarray(x_values[i][finite]), np.asarray(y_values[j][finite])


def distance_curve(member: Member, metric: str, points: int | None = None) -> Points:
  """f[n] sqrt of the KL to the first policy, nats a completion where logged; f[n] the metric.

  Both in at most `points` averages of neighbouring steps (None: each step by itself). A KL is averaged before its
  root is taken, as the root of a noisy KL is biased, upwards near 0, where one below 0 counts as 0.
  """
  pairs = (paired_curves(member, name, metric) for name in KL_METRICS)
  kl, values = max(pairs, key=lambda pair: min(len(pair[0]), 3))  # the first that has points enough
  if points is not None and len(kl):
    kl, values = parts(kl, points), parts(values, points)
  return np.sqrt(np.maximum(kl, 0.0)), values


def entropy_curve(member: Member, metric: str) -> Points:
  """f[n] entropy, nats a token, and f[n] the metric, in at most FIT_POINTS averages of neighbouring steps."""
  entropy, values = paired_curves(member, "entropy", metric)
  return (parts(entropy, FIT_POINTS), parts(values, FIT_POINTS)) if len(values) else (entropy, values)


def best_of_n_curve(member: Member, metric: str) -> Points:
  """f[n] sqrt of the KL of best-of-n, nats a completion, and f[n] the member's final `<metric>/<n>`, in ascending n.

  KL = log n - (n - 1) / n, which is exact where no two completions have one score, and a bound else.
  """
  order = _best_of(member, metric)
  return np.sqrt([best_of_n_kl(n) for n in order]), np.array([member.final[f"{metric}/{n}"] for n in order])


def _best_of(member: Member, metric: str) -> list[int]:
  """The n of its final `<metric>/<n>`, ascending."""
  counts = [
    n for name, value in member.final.items() for start, _, n in [name.rpartition("/")]
    if start == metric and n.isdigit() and math.isfinite(value)
  ]  # fmt: skip
  return sorted(map(int, counts))


def points_by_seed(members: Sequence[Member], curve: Callable[[Member], Points]) -> dict[int, list[Points]]:
  """seed -> the points of each of its members' curves, without the empty ones."""
  by_seed: dict[int, list[Points]] = {}
  for member in members:
    x, y = curve(member)
    if len(x):
      by_seed.setdefault(member.seed, []).append((x, y))
  return by_seed


def joined(points: Sequence[Points]) -> Points:
  """x f[n], y f[n] of several curves, one behind the other."""
  return np.concatenate([x for x, _ in points]), np.concatenate([y for _, y in points])


def _moving(points: Mapping[int, list[Points]], names: str) -> dict[int, list[Points]]:
  """Those seeds whose points can be fitted. Raises Untestable where no seed has enough of them."""
  together = {seed: joined(curves) for seed, curves in points.items()}
  moving = [s for s, (x, y) in together.items() if len(x) > 4 and np.ptp(x) > 0 and np.ptp(y) > 0]
  if not moving:
    raise Untestable(f"no seed has a curve of {names} that moves")
  return {seed: points[seed] for seed in moving}


@dataclasses.dataclass(frozen=True)
class Misfit:
  """What a law misses beyond noise."""

  p: float  # that what is left is noise alone; 1 where the noise is not known
  share: float  # of what moves and is no noise; NaN where the noise is not known
  most: float  # the share's upper bound, the end of a 95% interval

  def sentence(self) -> str:
    if math.isnan(self.share):
      return f"The noise of its points is not known; with it the law misses {self.most:.0%} of what moves."
    beyond = f"Beyond noise it misses {self.share:.0%} of what moves, at most {self.most:.0%}"
    return f"{beyond}; {spell_p(self.p)} of noise alone."


def _misfit(left: float, most: float, p: float, r2: float) -> Misfit:
  """Of the shares `left` and, at most, `most` of the residuals' squares that are no noise."""
  share = lambda part: part * (1 - r2) / max(part * (1 - r2) + r2, 1e-12) if part > 0 else 0.0
  return Misfit(p if share(left) > NEGLIGIBLE else 1.0, share(left), share(min(most, 1.0)))


def von_neumann(rows: Sequence[np.ndarray], r2: float) -> Misfit:
  """What residuals f[n], each of a curve in the order of its steps, tell of the law they are left by.

  Noise has no memory, and what a law misses has: q = sum (r[i + 1] - r[i])^2 / sum r^2 of a curve is 2 for noise,
  with the variance 4 (n - 2) / (n^2 - 1) (von Neumann 1941), and 2 (1 - the share that is no noise).
  """
  rows = [row for row in rows if len(row) > 2 and np.any(row)]
  if not rows:
    return Misfit(1.0, 0.0, 0.0)
  left = np.array([1 - np.sum(np.diff(row) ** 2) / np.sum(row**2) / 2 for row in rows])
  errors = np.sqrt([(len(row) - 2) / (len(row) ** 2 - 1) for row in rows])
  z = float(np.sum(left / errors)) / math.sqrt(len(rows))
  most = float(left.mean()) + stats.NORMAL * math.sqrt(np.sum(errors**2)) / len(rows)
  return _misfit(float(left.mean()), most, statistics.NormalDist().cdf(-z), r2)


def resampled(rows: Sequence[np.ndarray], draws: Sequence[np.ndarray], r2: float) -> Misfit:
  """What residuals f[n] tell beside those f[n, resamples] of noise alone."""
  total = sum(float(np.sum(row**2)) for row in rows)
  if total == 0:
    return Misfit(1.0, 0.0, 0.0)
  noise = np.sum([np.sum(row**2, 0) for row in draws], 0) / total
  most = 1 - float(np.percentile(noise, 2.5))
  return _misfit(1 - float(noise.mean()), most, float(np.mean(noise >= 1)), r2)


def _law_tested(
  text: str, measured: str, coefficient: stats.Effect, misfit: Misfit, holds: str, rest: str
) -> Tested:
  """A law holds where it misses little but noise and its coefficient is positive; it fails where one fails."""
  positive: Holds = "yes" if misfit.most <= MISSED else "undecided"
  sentences: dict[Holds, str] = {
    "yes": holds,
    "no": "The law does not describe these curves.",
    "undecided": "The law is not shown.",
  }
  leans = positive if coefficient.mean > 0 else "no"
  refuted = misfit.p if coefficient.seeds > 1 else 1.0
  return Tested(text, measured, coefficient, leans, sentences, f"{misfit.sentence()} {rest}", refuted)


def fit_entropy(
  metric: str, arms: Sequence[str], members: Sequence[Member], rng: np.random.Generator
) -> Tested:
  """R = -a exp(H) + b, one fit a seed over the curves of its arms (Cui et al. 2025); the effect is a."""
  points = points_by_seed(members, lambda member: entropy_curve(member, metric))
  points = _moving(points, f"entropy and {metric}")
  laws = [fits.entropy_law(*joined(curves)) for curves in points.values()]
  effect = stats.seed_effect(np.array([[law.a] for law in laws]), rng)
  b, r2, line = (float(np.mean([vars(law)[name] for law in laws])) for name in ("b", "r2", "line_r2"))
  misfit = von_neumann(_residuals(points, fits.entropy_columns), r2)
  form = f"A straight line in the entropy fits with R^2 = {line:.2f}."
  return _law_tested(
    f"{metric} = -a exp(entropy) + b over {', '.join(arms)}",
    f"a = {spell(effect)}; b = {b:.3f}; R^2 = {r2:.2f}",
    effect, misfit, "Reward is bought with entropy along the law.", form,
  )  # fmt: skip


def _residuals(
  points: Mapping[int, Sequence[Points]], columns: Callable[[np.ndarray], np.ndarray]
) -> list[np.ndarray]:
  """f[n] of each curve: what is left of it by the fit to all curves of its seed."""
  left: list[np.ndarray] = []
  for curves in points.values():
    x, y = joined(curves)
    ends = np.cumsum([len(part) for part, _ in curves])[:-1]
    left += np.split(fits.residuals(columns(x), y), ends)
  return left


@dataclasses.dataclass(frozen=True)
class GaoForm:
  """One of Gao's two laws: how it is written, and how it is fitted."""

  text: str
  fit: Callable[[np.ndarray, np.ndarray], fits.GaoLaw]
  columns: Callable[[np.ndarray], np.ndarray]


GAO_RL = GaoForm("d (a - b log d)", fits.gao_rl, fits.gao_rl_columns)
GAO_BEST_OF_N = GaoForm("d (a - b d)", fits.gao_best_of_n, fits.gao_best_of_n_columns)


def _gao_tested(
  metric: str, arms: Sequence[str], points: Mapping[int, list[Points]],
  rng: np.random.Generator, law: GaoForm, other: GaoForm, misfit: Callable[[float], Misfit],
) -> Tested:  # fmt: skip
  """R = `law` fitted to each seed's d and R, with the other form beside it; the effect is b; `misfit` takes R^2."""
  laws = [law.fit(*joined(curves)) for curves in points.values()]
  others = [other.fit(*joined(curves)) for curves in points.values()]
  effect = stats.seed_effect(np.array([[law.b] for law in laws]), rng)
  a, r2 = (float(np.mean([vars(law)[name] for law in laws])) for name in ("a", "r2"))
  other_a, other_b, other_r2 = (float(np.mean([vars(law)[n] for law in others])) for n in ("a", "b", "r2"))
  furthest = [max(float(x.max()) for x, _ in curves) for curves in points.values()]
  inside = sum(law.peak <= end for law, end in zip(laws, furthest))
  within = (
    f"Its peak lies inside what was measured in {inside} of {len(laws)} seeds (d up to {max(furthest):.3g})."
  )
  beside = f"The other form {other.text} has a = {other_a:.3f}, b = {other_b:.3f}, R^2 = {other_r2:.2f}."
  peak = float(np.median([law.peak for law in laws]))
  return _law_tested(
    f"{metric} = {law.text} over {', '.join(arms)}, d = sqrt KL",
    f"b = {spell(effect)}; a = {a:.3f}; R^2 = {r2:.2f}; peak at d = {peak:.3g}",
    effect, misfit(r2), "Reward bends down along the law.", f"{within} {beside}",
  )  # fmt: skip


def fit_gao(metric: str, arms: Sequence[str], members: Sequence[Member], rng: np.random.Generator) -> Tested:
  """R = d (a - b log d), d = sqrt KL, one fit a seed over the curves of its arms (Gao et al. 2022); the effect is b."""
  points = points_by_seed(members, lambda member: distance_curve(member, metric, FIT_POINTS))
  points = _moving(points, f"the KL and {metric}")
  left = _residuals(points, GAO_RL.columns)
  return _gao_tested(metric, arms, points, rng, GAO_RL, GAO_BEST_OF_N, lambda r2: von_neumann(left, r2))


def fit_gao_bon(
  metric: str, arms: Sequence[str], members: Sequence[Member], rng: np.random.Generator
) -> Tested:
  """R = d (a - b d) over the final `<metric>/<n>` of best-of-n, one fit a seed (Gao et al. 2022); the effect is b.

  The figures of all n are of the same completions: their noise is that of resampled problems, the same for all
  seeds.
  """
  points = points_by_seed(members, lambda member: best_of_n_curve(member, metric))
  points = _moving(points, f"the KL and {metric}")
  left = _residuals(points, GAO_BEST_OF_N.columns)
  noise = _problem_noise([m for m in members if m.seed in points], metric, rng)

  def misfit(r2: float) -> Misfit:
    if noise is None:
      return Misfit(1.0, math.nan, 1 - r2)
    columns = {seed: GAO_BEST_OF_N.columns(joined(curves)[0]) for seed, curves in points.items()}
    return resampled(left, [fits.residuals(columns[seed], noise[seed]) for seed in points], r2)

  return _gao_tested(metric, arms, points, rng, GAO_BEST_OF_N, GAO_RL, misfit)


def _problem_noise(
  members: Sequence[Member], metric: str, rng: np.random.Generator
) -> dict[int, np.ndarray] | None:
  """seed -> f[n, resamples] by which its points move where problems are resampled, for all seeds alike.

  None where a member has no figures by problem, or of another number of problems.
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

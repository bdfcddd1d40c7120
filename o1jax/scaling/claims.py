"""A sweep's claim against its members: one finding for each check, with an interval over seeds.

    members -> figures by arm and seed, or curves -> an effect a seed -> its interval and p
            -> p adjusted for the claim's checks -> yes, no or undecided

Effects are counted by seed, as seeds are what repeats. The interval is that of `stats.seed_effect`, wide enough for
three or four seeds, and each is at 95% by itself. A check says "yes" or "no" where its p, adjusted for all checks of
the claim (Holm 1979), is below 5%, else "undecided"; so does one that cannot be tested (a metric nobody has, arms
without strengths), with the reason in its reading. Members that a NaN stopped have no final figures to compare: they
are left out, and the reading names them.
"""

import dataclasses
import functools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from o1jax.config.sweep import Check
from o1jax.scaling import fits, stats
from o1jax.scaling.members import (
  LEVEL,
  Finding,
  Holds,
  Member,
  Untestable,
  contrast,
  few_seeds,
  outcomes,
  spell,
  spell_p,
  stack,
  weighted,
)
from o1jax.scaling.passk import best_of_n_kl

# Gao's KL is of whole completions; nats a token in its place scale d by the root of a length, which may drift. The last
# is a sampled estimate, where nothing exact was logged.
KL_METRICS = ("kl_sequence", "kl_reverse", "kl/k3")
# Of what moves in a curve and is no noise, the share that a law may miss: surely less than the first to describe it,
# and more than the second to be refused, as no law is exact.
MISSED, NEGLIGIBLE = 0.2, 0.01
RESAMPLES = 1000
FLAT_DRAWS = 20_000  # of the null distribution of `declines`
FIT_POINTS = 40  # averages of neighbouring steps that a curve is fitted by
PARTS = 10  # equal parts that a curve is cut into to find its best and its end
MARGIN = 0.1  # share of the gain so far that a curve may lose and still last


@dataclasses.dataclass(frozen=True)
class Tested:
  """One check by itself, before its p is adjusted for the claim's other checks."""

  check: str
  measured: str
  effect: stats.Effect
  leans: Holds  # what it says where the effect's p is small enough
  told: Mapping[Holds, str]  # the sentence that each verdict begins its reading with
  rest: str  # of the reading
  refuted: float = (
    math.nan
  )  # p of "no" for a reason beside the effect's: what a law misses, a member without an end


Test = Callable[[str, Sequence[str], Sequence[Member], np.random.Generator], Tested]
UNKNOWN = stats.Effect(math.nan, (math.nan, math.nan), 0, 0, math.nan, math.nan)


def test_claim(checks: Sequence[Check], members: Sequence[Member], rng: np.random.Generator) -> list[Finding]:
  """One finding a check, in their order; `rng` draws the resamples.

  Two families of p-values are adjusted, each among themselves: of the checks' effects, and of what laws miss.
  """
  chosen = [[m for m in members if not check.arms or m.arm in check.arms] for check in checks]
  tests = [_tested(check, held, rng) for check, held in zip(checks, chosen)]
  effects, refuted = _adjusted([t.effect.p for t in tests]), _adjusted([t.refuted for t in tests])
  count = sum(not math.isnan(p) for p in effects)
  return [
    _finding(t, p, no, count, [m for m in held if m.bad_step is not None])
    for t, p, no, held in zip(tests, effects, refuted, chosen)
  ]


def _adjusted(p_values: Sequence[float]) -> list[float]:
  """Holm's adjustment of those that are there; NaN stays NaN."""
  known = iter(stats.holm([p for p in p_values if not math.isnan(p)]))
  return [p if math.isnan(p) else next(known) for p in p_values]


def _tested(check: Check, members: Sequence[Member], rng: np.random.Generator) -> Tested:
  arms = check.arms or tuple(dict.fromkeys(m.arm for m in members))
  try:
    return CHECKS[check.kind](check.metric, arms, members, rng)
  except Untestable as reason:
    told: Mapping[Holds, str] = {"undecided": f"Cannot be tested: {reason}."}
    text = f"{check.metric}: {check.kind} ({', '.join(arms)})"
    return Tested(text, "not tested", UNKNOWN, "undecided", told, "")


def _finding(test: Tested, p: float, refuted: float, count: int, stopped: Sequence[Member]) -> Finding:
  """The verdict; `p` and `refuted` are adjusted, the first of them for `count` checks."""
  effect, measured = test.effect, test.measured
  holds: Holds = "no" if refuted < LEVEL else test.leans if p < LEVEL else "undecided"
  reading = [test.told[holds], test.rest]
  if effect.seeds:
    measured += f"; {spell_p(p)}{f', adjusted for {count} checks' if count > 1 else ''}"
    same = effect.seeds > 1 and math.isnan(effect.ci95[0])
    reading += ["The seeds agree exactly, which leaves their noise unknown."] if same else []
    reading.append(few_seeds(effect.seeds))
  if stopped:
    named = ", ".join(f"{m.arm} seed {m.seed} at step {m.bad_step}" for m in stopped)
    reading.append(f"Stopped by a NaN, and left out of final figures: {named}.")
  text = " ".join(filter(None, reading))
  return Finding(test.check, measured, effect.mean, effect.ci95, p, holds, text, effect.seeds)


def _side(effect: stats.Effect, sign: float = 1.0) -> Holds:
  """The verdict of an effect on the side of `sign`, or on the other one."""
  return "yes" if sign * effect.mean > 0 else "no"


def greater(metric: str, arms: Sequence[str], members: Sequence[Member], rng: np.random.Generator) -> Tested:
  """The metric of arms[0] minus that of arms[1], paired by seed and, where it can be, by problem."""
  if len(arms) != 2:
    raise Untestable(f"it compares two arms, and has {len(arms)}")
  first, second = arms
  effect = stats.seed_effect(contrast(outcomes(members, metric), {first: 1.0, second: -1.0}), rng)
  told: Mapping[Holds, str] = {
    "yes": f"{first} lies above {second}.",
    "no": f"{first} lies below {second}.",
    "undecided": f"{first} and {second} cannot be told apart.",
  }
  return Tested(f"{metric}: {first} above {second}", spell(effect), effect, _side(effect), told, "")


def strength_axis(strengths: Sequence[float]) -> tuple[np.ndarray, str]:
  """Where strengths lie on a logarithmic axis, f64[n], and its unit; ranks where one of them has no logarithm."""
  if min(strengths) > 0:
    return np.log10(strengths), "tenfold strength"
  order = sorted(set(strengths))
  return np.array([order.index(s) for s in strengths], np.float64), "step up in strength"


def _slopes(values: Mapping[str, Mapping[int, np.ndarray]], axis: Mapping[str, float]) -> list[np.ndarray]:
  """The least-squares slope of each seed over the arms, f[problems]: a slope is a contrast of arms.

  Of the seeds that finished all arms, where two or more did, as slopes over other arms are other slopes; else of each
  seed over the arms that it did finish.
  """
  known = [arm for arm in axis if arm in values]
  seeds = sorted({seed for arm in known for seed in values[arm]})
  whole = [seed for seed in seeds if all(seed in values[arm] for arm in known)]
  slopes = []
  for seed in whole if len(whole) > 1 else seeds:
    arms = [arm for arm in known if seed in values[arm]]
    x = np.array([axis[arm] for arm in arms])
    away = x - x.mean()
    if np.any(away != 0):
      weights = dict(zip(arms, away / np.sum(away**2)))
      slopes.append(weighted({arm: values[arm][seed] for arm in arms}, weights))
  return slopes


def _trend(
  metric: str,
  arms: Sequence[str],
  members: Sequence[Member],
  rng: np.random.Generator,
  sign: float,
  name: str,
) -> Tested:
  """The slope of the metric along the strengths; `sign` is the claimed one."""
  strengths = {m.arm: m.strength for m in members if m.strength is not None}
  if len(strengths) < len(arms) or len(set(strengths.values())) < 2:
    raise Untestable("it needs arms of two strengths or more, all of them numbers")
  places, unit = strength_axis(list(strengths.values()))
  values = outcomes(members, metric)
  slopes = _slopes(values, dict(zip(strengths, places.tolist())))
  if not slopes:
    raise Untestable(f"no seed has {metric} at two strengths")
  effect = stats.seed_effect(stack(slopes), rng)
  ordered = sorted((arm for arm in strengths if arm in values), key=lambda arm: strengths[arm])
  means = {arm: float(np.mean([v.mean() for v in values[arm].values()])) for arm in ordered}
  listed = ", ".join(f"{strengths[arm]:g}: {means[arm]:.3f}" for arm in ordered)
  told: Mapping[Holds, str] = {
    "yes": f"It is {name}.",
    "no": "It goes the other way.",
    "undecided": "No slope is shown.",
  }
  outside = [f"{arm} ({spell_p(p)})" for arm, p in _humps(values, ordered, rng).items() if p < LEVEL]
  shape = f" Outside the ends' range, which a slope does not tell: {', '.join(outside)}." if outside else ""
  rest = f"Means by strength: {listed}.{shape}"
  text = f"{metric}: {name} with strength, per {unit}"
  return Tested(text, spell(effect, 4), effect, _side(effect, sign), told, rest)


def _humps(
  values: Mapping[str, Mapping[int, np.ndarray]], arms: Sequence[str], rng: np.random.Generator
) -> dict[str, float]:
  """arm -> p of lying within the range of the first and the last of `arms`, adjusted for the arms between these.

  An arm lies outside where its contrasts with both ends lie on one side, so that its p is the larger one of the two.
  """
  known = {}
  for arm in arms[1:-1]:
    shared = set.intersection(*(set(values[name]) for name in (arms[0], arm, arms[-1])))
    if shared:
      ends = [stats.seed_effect(contrast(values, {arm: 1.0, end: -1.0}), rng) for end in (arms[0], arms[-1])]
      known[arm] = max(end.p for end in ends) if ends[0].mean * ends[1].mean > 0 else 1.0
  return dict(zip(known, stats.holm(list(known.values()))))


def rising(metric: str, arms: Sequence[str], members: Sequence[Member], rng: np.random.Generator) -> Tested:
  """The metric rises with strength."""
  return _trend(metric, arms, members, rng, 1.0, "rising")


def falling(metric: str, arms: Sequence[str], members: Sequence[Member], rng: np.random.Generator) -> Tested:
  """The metric falls with strength."""
  return _trend(metric, arms, members, rng, -1.0, "falling")


def parts(values: np.ndarray, count: int) -> np.ndarray:
  """f[min(count, n)] means of `values` f[n] over consecutive, near-equal parts."""
  return np.array([part.mean() for part in np.array_split(values, min(count, len(values)))])


def paired_curves(member: Member, x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
  """f[n], f[n]: two metrics of a member at the steps that have both, finite. Empty where it lacks one."""
  if x not in member.curves or y not in member.curves:
    return np.empty(0), np.empty(0)
  (x_steps, x_values), (y_steps, y_values) = member.curves[x], member.curves[y]
  _, i, j = np.intersect1d(x_steps, y_steps, return_indices=True)
  finite = np.isfinite(x_values[i]) & np.isfinite(y_values[j])
  return np.asarray(x_values[i][finite]), np.asarray(y_values[j][finite])


def distance_curve(member: Member, metric: str, points: int | None = None) -> tuple[np.ndarray, np.ndarray]:
  """f[n] sqrt of the KL to the first policy, nats a completion where logged; f[n] the metric.

  Both in at most `points` averages of neighbouring steps (None: each step by itself). A KL is averaged before its root
  is taken, as the root of a noisy KL is biased, upwards near 0, where one below 0 counts as 0.
  """
  pairs = (paired_curves(member, name, metric) for name in KL_METRICS)
  kl, values = max(pairs, key=lambda pair: min(len(pair[0]), 3))  # the first that has points enough
  if points is not None and len(kl):
    kl, values = parts(kl, points), parts(values, points)
  return np.sqrt(np.maximum(kl, 0.0)), values


def entropy_curve(member: Member, metric: str) -> tuple[np.ndarray, np.ndarray]:
  """f[n] entropy, nats a token, and f[n] the metric, in at most FIT_POINTS averages of neighbouring steps."""
  entropy, values = paired_curves(member, "entropy", metric)
  return (parts(entropy, FIT_POINTS), parts(values, FIT_POINTS)) if len(values) else (entropy, values)


def best_of_n_curve(member: Member, metric: str) -> tuple[np.ndarray, np.ndarray]:
  """f[n] sqrt of the KL of best-of-n, nats a completion, and f[n] the member's final `<metric>/<n>`, in ascending n.

  KL = log n - (n - 1) / n, which is exact where no two completions have one score, and a bound else.
  """
  order = _best_of(member, metric)
  return np.sqrt([best_of_n_kl(n) for n in order]), np.array([member.final[f"{metric}/{n}"] for n in order])


def _best_of(member: Member, metric: str) -> list[int]:
  """The n of its final `<metric>/<n>`, ascending."""
  found = [
    n for name, value in member.final.items() for start, _, n in [name.rpartition("/")]
    if start == metric and n.isdigit() and math.isfinite(value)
  ]  # fmt: skip
  return sorted(map(int, found))


def points_by_seed(
  members: Sequence[Member], curve: Callable[[Member], tuple[np.ndarray, np.ndarray]]
) -> dict[int, list[tuple[np.ndarray, np.ndarray]]]:
  """seed -> x f[n], y f[n] of each of its members' curves, without the empty ones."""
  found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
  for member in members:
    x, y = curve(member)
    if len(x):
      found.setdefault(member.seed, []).append((x, y))
  return found


def joined(points: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
  """x f[n], y f[n] of several curves, one behind the other."""
  return np.concatenate([x for x, _ in points]), np.concatenate([y for _, y in points])


def _moving(
  points: Mapping[int, list[tuple[np.ndarray, np.ndarray]]], wanted: str
) -> dict[int, list[tuple[np.ndarray, np.ndarray]]]:
  """Those seeds whose points can be fitted. Raises Untestable where no seed has enough of them."""
  whole = {seed: joined(held) for seed, held in points.items()}
  held = {s: points[s] for s, (x, y) in whole.items() if len(x) > 4 and np.ptp(x) > 0 and np.ptp(y) > 0}
  if not held:
    raise Untestable(f"no seed has a curve of {wanted} that moves")
  return held


@dataclasses.dataclass(frozen=True)
class Misfit:
  """What a law misses beyond noise."""

  p: float  # that what is left is noise alone; 1 where the noise is not known
  share: float  # of what moves and is no noise; NaN where the noise is not known
  most: float  # the share's upper bound, the end of a 95% interval

  def told(self) -> str:
    if math.isnan(self.share):
      return f"The noise of its points is not known; with it the law misses {self.most:.0%} of what moves."
    return (
      f"Beyond noise it misses {self.share:.0%} of what moves, at most {self.most:.0%} ({spell_p(self.p)})."
    )


def _misfit(left: float, most: float, p: float, r2: float) -> Misfit:
  """Of the shares `left` and, at most, `most` of the residuals' squares that are no noise; R^2 is over the fits."""
  share = lambda part: part * (1 - r2) / max(part * (1 - r2) + r2, 1e-12) if part > 0 else 0.0
  return Misfit(p if share(left) > NEGLIGIBLE else 1.0, share(left), share(min(most, 1.0)))


def von_neumann(rows: Sequence[np.ndarray], r2: float) -> Misfit:
  """What residuals f[n], each of a curve in the order of its steps, tell of the law they are left by.

  Noise has no memory, and what a law misses has: of each curve q = sum (r[i + 1] - r[i])^2 / sum r^2 is 2 for noise,
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
  """What residuals f[n] tell beside those f[n, resamples] of figures that deviate from theirs by noise alone."""
  total = sum(float(np.sum(row**2)) for row in rows)
  if total == 0:
    return Misfit(1.0, 0.0, 0.0)
  noise = np.sum([np.sum(row**2, 0) for row in draws], 0) / total
  most = 1 - float(np.percentile(noise, 2.5))
  return _misfit(1 - float(noise.mean()), most, float(np.mean(noise >= 1)), r2)


def _law_tested(
  text: str, measured: str, coefficient: stats.Effect, misfit: Misfit, bought: str, rest: str
) -> Tested:
  """A law holds where it misses little of what is no noise and its coefficient is positive; it fails where one fails."""
  positive: Holds = "yes" if misfit.most <= MISSED else "undecided"
  told: Mapping[Holds, str] = {
    "yes": bought,
    "no": "The law does not describe these curves.",
    "undecided": "The law is not shown.",
  }
  leans = positive if coefficient.mean > 0 else "no"
  refuted = misfit.p if coefficient.seeds > 1 else 1.0
  return Tested(text, measured, coefficient, leans, told, f"{misfit.told()} {rest}", refuted)


def fit_entropy(
  metric: str, arms: Sequence[str], members: Sequence[Member], rng: np.random.Generator
) -> Tested:
  """R = -a exp(H) + b, one fit a seed over the curves of its arms (Cui et al. 2025); the effect is a."""
  points = points_by_seed(members, lambda member: entropy_curve(member, metric))
  points = _moving(points, f"entropy and {metric}")
  laws = [fits.entropy_law(*joined(held)) for held in points.values()]
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
  points: Mapping[int, Sequence[tuple[np.ndarray, np.ndarray]]], columns: Callable[[np.ndarray], np.ndarray]
) -> list[np.ndarray]:
  """f[n] of each curve: what is left of it by the fit to all curves of its seed."""
  found: list[np.ndarray] = []
  for held in points.values():
    x, y = joined(held)
    ends = np.cumsum([len(part) for part, _ in held])[:-1]
    found += np.split(fits.residuals(columns(x), y), ends)
  return found


@dataclasses.dataclass(frozen=True)
class GaoForm:
  """One of Gao's two laws: how it is written, and how it is fitted."""

  text: str
  fit: Callable[[np.ndarray, np.ndarray], fits.GaoLaw]
  columns: Callable[[np.ndarray], np.ndarray]


GAO_RL = GaoForm("d (a - b log d)", fits.gao_rl, fits.gao_rl_columns)
GAO_BEST_OF_N = GaoForm("d (a - b d)", fits.gao_best_of_n, fits.gao_best_of_n_columns)


def _gao_tested(
  metric: str, arms: Sequence[str], points: Mapping[int, list[tuple[np.ndarray, np.ndarray]]],
  rng: np.random.Generator, law: GaoForm, other: GaoForm, misfit: Callable[[float], Misfit],
) -> Tested:  # fmt: skip
  """R = `law` fitted to each seed's d and R, with the other form beside it; the effect is b. `misfit` is of the R^2."""
  laws = [law.fit(*joined(held)) for held in points.values()]
  others = [other.fit(*joined(held)) for held in points.values()]
  effect = stats.seed_effect(np.array([[law.b] for law in laws]), rng)
  a, r2 = (float(np.mean([vars(law)[name] for law in laws])) for name in ("a", "r2"))
  other_a, other_b, other_r2 = (float(np.mean([vars(law)[n] for law in others])) for n in ("a", "b", "r2"))
  furthest = [max(float(x.max()) for x, _ in held) for held in points.values()]
  inside = sum(law.peak <= end for law, end in zip(laws, furthest))
  seen = (
    f"Its peak lies inside what was measured in {inside} of {len(laws)} seeds (d up to {max(furthest):.3g})."
  )
  beside = f"The other form {other.text} has a = {other_a:.3f}, b = {other_b:.3f}, R^2 = {other_r2:.2f}."
  peak = float(np.median([law.peak for law in laws]))
  return _law_tested(
    f"{metric} = {law.text} over {', '.join(arms)}, d = sqrt KL",
    f"b = {spell(effect)}; a = {a:.3f}; R^2 = {r2:.2f}; peak at d = {peak:.3g}",
    effect, misfit(r2), "Reward bends down along the law.", f"{seen} {beside}",
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

  The figures of all n are of the same completions: their noise is that of resampled problems, the same for all seeds.
  """
  points = points_by_seed(members, lambda member: best_of_n_curve(member, metric))
  points = _moving(points, f"the KL and {metric}")
  left = _residuals(points, GAO_BEST_OF_N.columns)
  noise = _problem_noise([m for m in members if m.seed in points], metric, rng)

  def misfit(r2: float) -> Misfit:
    if noise is None:
      return Misfit(1.0, math.nan, 1 - r2)
    columns = {seed: GAO_BEST_OF_N.columns(joined(held)[0]) for seed, held in points.items()}
    return resampled(left, [fits.residuals(columns[seed], noise[seed]) for seed in points], r2)

  return _gao_tested(metric, arms, points, rng, GAO_BEST_OF_N, GAO_RL, misfit)


def _problem_noise(
  members: Sequence[Member], metric: str, rng: np.random.Generator
) -> dict[int, np.ndarray] | None:
  """seed -> f[n, resamples] by which its points move where problems are resampled, the same ones for all seeds.

  None where a member has no figures by problem, or of another number of problems.
  """
  rows: dict[int, list[np.ndarray]] = {}
  for member in members:
    named = [f"{metric}/{n}" for n in _best_of(member, metric)]
    rows.setdefault(member.seed, []).extend(member.by_problem.get(name, np.empty(0)) for name in named)
  sizes = {len(row) for held in rows.values() for row in held}
  count = sizes.pop()
  if sizes or not count:
    return None
  shifts = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count - 1 / count
  return {seed: np.stack(held) @ shifts.T for seed, held in rows.items()}


def _chosen(curves: np.ndarray) -> np.ndarray:
  """i[..., seeds] the best part before the last in the mean of the OTHER seeds; curves f[..., seeds, parts].

  A curve's own highest part is its luckiest one, so that any noise would look like a decline.
  """
  others = curves.sum(-2, keepdims=True) - curves
  return np.argmax(others[..., :-1], -1)


def _lost(curves: np.ndarray) -> np.ndarray:
  """f[..., seeds] what each curve of f[..., seeds, parts] lost from its best part, as the others choose it, to its end."""
  return np.take_along_axis(curves, _chosen(curves)[..., None], -1)[..., 0] - curves[..., -1]


def _t(values: np.ndarray) -> np.ndarray:
  """f[...] the mean over its standard error of f[..., seeds]; 0 where all are the same."""
  error = values.std(-1, ddof=1) / math.sqrt(values.shape[-1])
  return np.where(error > 0, values.mean(-1) / np.where(error > 0, error, 1.0), 0.0)


@functools.cache
def flat_t(seeds: int, count: int) -> np.ndarray:
  """f[FLAT_DRAWS] ascending t of what flat curves of `count` parts and independent noise lose.

  Wider than Student's, as the seeds choose for one another: 3 to 5% of them lie beyond its 97.5%.
  """
  return np.sort(_t(_lost(np.random.default_rng(0).standard_normal((FLAT_DRAWS, seeds, count)))))


@dataclasses.dataclass(frozen=True)
class Drop:
  """What curves lost from their best to their end."""

  effect: stats.Effect  # its p is of what the curves are shown to do, or else the smaller one of both
  margin: float  # the loss that counts as none
  declines: bool  # what they do, should p be small enough; False: they last


def drop(curves: np.ndarray) -> Drop:
  """The loss of curves f[seeds, parts]; two seeds or more, two parts or more.

  They decline where there is a loss: p by `flat_t`, which knows that the best part was chosen. They last where a loss
  as large as the margin is refuted by Student's t, of the loss as it was chosen and of the loss from each part that was
  chosen by any seed or is the best of all: the true best may be another than the chosen one, whose loss is smaller.
  """
  seeds, count = curves.shape
  lost, chosen = _lost(curves), _chosen(curves)
  gained = curves[np.arange(seeds), chosen] - curves[:, 0]
  margin = MARGIN * max(float(gained.mean()), 0.0)
  best = int(np.argmax(curves[:, :-1].mean(0)))
  rows = np.stack([lost, *(curves[:, k] - curves[:, -1] for k in {best, *chosen.tolist()})])
  mean, error = rows.mean(1), rows.std(1, ddof=1) / math.sqrt(seeds)
  p_lasts = max(stats.student_p(t, seeds - 1) if t < 0 else 1.0 for t in _t(rows - margin).tolist())
  null, t = flat_t(seeds, count), float(_t(lost))
  p_declines = min(2 * (FLAT_DRAWS - np.searchsorted(null, t) + 1) / (FLAT_DRAWS + 1), 1.0)
  p_declines = max(float(p_declines), stats.student_p(t, seeds - 1)) if t > 0 else 1.0
  student = stats.student_quantile(seeds - 1)
  low = mean[0] - max(student, float(np.quantile(null, 0.975))) * error[0]
  ci95 = (math.nan, math.nan) if not error.any() else (float(low), float(np.max(mean + student * error)))
  declines = p_lasts >= LEVEL and p_declines < p_lasts
  effect = stats.Effect(
    float(mean[0]),
    ci95,
    seeds,
    int(np.sum(lost > 0)),
    float(np.mean(lost <= 0)),
    p_declines if declines else p_lasts,
  )
  return Drop(effect, margin, declines)


def _drop_tested(
  metric: str, arms: Sequence[str], members: Sequence[Member], name: str, claimed: bool, stopped: bool
) -> Tested:
  """`name`: what the curve of arms[0] does; `claimed`: whether that is a decline; `stopped`: it did not get to the end."""
  held = [m.curves[metric][1] for m in members if m.arm == arms[0] and metric in m.curves and not m.bad_step]
  held = [values[np.isfinite(values)] for values in held]
  if len(held) < 2 or min(map(len, held)) < 3:
    raise Untestable(f"it takes curves of {metric} from two seeds or more, of three points or more")
  count = min(PARTS, min(map(len, held)))
  found = drop(np.stack([parts(values, count) for values in held]))
  said = "It declines." if found.declines else "It lasts."
  leans: Holds = "yes" if found.declines == claimed else "no"
  told: dict[Holds, str] = {"undecided": "Neither a decline nor its absence is shown.", leans: said}
  if stopped:
    told["no"] = "A seed did not get to the end."
  return Tested(
    f"{metric}: {arms[0]} {name}",
    f"best minus end {spell(found.effect)}",
    found.effect, leans, told,
    f"A loss of up to {found.margin:.3f}, a tenth of the gain, counts as none. The best part is chosen by the other"
    " seeds.",
    0.0 if stopped else math.nan,
  )  # fmt: skip


def declines(metric: str, arms: Sequence[str], members: Sequence[Member], rng: np.random.Generator) -> Tested:
  """The curve of arms[0] ends below its best."""
  return _drop_tested(metric, arms, members, "declines", True, False)


def lasts(metric: str, arms: Sequence[str], members: Sequence[Member], rng: np.random.Generator) -> Tested:
  """The curve of arms[0] keeps what it had gained at its best. A member that a NaN stopped did not last."""
  stopped = any(m.bad_step is not None for m in members if m.arm == arms[0])
  return _drop_tested(metric, arms, members, "lasts", False, stopped)


CHECKS: dict[str, Test] = {
  "greater": greater,
  "rising": rising,
  "falling": falling,
  "fit_entropy": fit_entropy,
  "declines": declines,
  "lasts": lasts,
  "fit_gao": fit_gao,
  "fit_gao_bon": fit_gao_bon,
}

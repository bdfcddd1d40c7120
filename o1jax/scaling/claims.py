"""A sweep's claim against its members: one finding for each check, with an interval over seeds.

    members -> figures by arm and seed, or curves -> an effect a seed -> its interval -> yes, no or undecided

Effects are counted by seed, as seeds are what repeats. The interval is that of `stats.seed_effect`, wide enough for
three or four seeds. A check says "yes" or "no" when its interval lies on one side, else "undecided"; so does one
that cannot be tested (a metric nobody has, arms without strengths), with the reason in its reading. Members that a
NaN stopped have no final figures to compare: they are left out, and the reading names them.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from o1jax.config.sweep import Check
from o1jax.scaling import fits, stats
from o1jax.scaling.members import (
  Finding,
  Holds,
  Member,
  Untestable,
  contrast,
  few_seeds,
  outcomes,
  side,
  spell,
  stack,
  weighted,
)
from o1jax.scaling.passk import best_of_n_kl

# Gao's KL is of whole completions; nats a token in its place scale d by the root of a length, which may drift. The last
# is a sampled estimate, where nothing exact was logged.
KL_METRICS = ("kl_sequence", "kl_reverse", "kl/k3")
GOOD_FIT, BAD_FIT = 0.8, 0.5  # R^2 from which a law describes a curve, and below which it does not
FIT_POINTS = 40  # averages of neighbouring steps that a curve is fitted by
PARTS = 10  # equal parts that a curve is cut into to find its best and its end
MARGIN = 0.1  # share of the gain so far that a curve may lose and still last


def test_claim(checks: Sequence[Check], members: Sequence[Member], rng: np.random.Generator) -> list[Finding]:
  """One finding a check, in their order; `rng` draws the resamples."""
  return [_tested(check, members, rng) for check in checks]


def _tested(check: Check, members: Sequence[Member], rng: np.random.Generator) -> Finding:
  chosen = [m for m in members if not check.arms or m.arm in check.arms]
  arms = check.arms or tuple(dict.fromkeys(m.arm for m in chosen))
  try:
    finding = CHECKS[check.kind](check.metric, arms, chosen, rng)
  except Untestable as reason:
    nothing = (math.nan, math.nan)
    text = f"{check.metric}: {check.kind} ({', '.join(arms)})"
    finding = Finding(text, "not tested", math.nan, nothing, "undecided", f"Cannot be tested: {reason}.", 0)
  stopped = [f"{m.arm} seed {m.seed} at step {m.bad_step}" for m in chosen if m.bad_step is not None]
  if not stopped:
    return finding
  reading = f"{finding.reading} Stopped by a NaN, and left out of final figures: {', '.join(stopped)}."
  return dataclasses.replace(finding, reading=reading)


def greater(metric: str, arms: Sequence[str], members: Sequence[Member], rng: np.random.Generator) -> Finding:
  """The metric of arms[0] minus that of arms[1], paired by seed and, where it can be, by problem."""
  if len(arms) != 2:
    raise Untestable(f"it compares two arms, and has {len(arms)}")
  first, second = arms
  effect = stats.seed_effect(contrast(outcomes(members, metric), {first: 1.0, second: -1.0}), rng)
  holds = side(effect)
  told = {
    "yes": f"{first} lies above {second}.",
    "no": f"{first} lies below {second}.",
    "undecided": f"{first} and {second} cannot be told apart.",
  }[holds]
  text = f"{metric}: {first} above {second}"
  return Finding(
    text,
    spell(effect),
    effect.mean,
    effect.ci95,
    holds,
    f"{told} {few_seeds(effect.seeds)}",
    effect.seeds,
  )


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
) -> Finding:
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
  holds = side(effect, sign)
  means = {
    arm: float(np.mean([v.mean() for v in values[arm].values()])) for arm in strengths if arm in values
  }
  ordered = sorted(means, key=lambda arm: strengths[arm])
  listed = ", ".join(f"{strengths[arm]:g}: {means[arm]:.3f}" for arm in ordered)
  told = {"yes": f"It is {name}.", "no": "It goes the other way.", "undecided": "No slope is shown."}[holds]
  inside = [means[arm] for arm in ordered[1:-1]]
  ends = [means[arm] for arm in (ordered[0], ordered[-1])]
  hump = bool(inside) and (max(inside) > max(ends) or min(inside) < min(ends))
  shape = (
    " In these means a strength between lies outside the ends' range, which a slope does not tell."
    if hump
    else ""
  )
  reading = f"{told} Means by strength: {listed}.{shape} {few_seeds(effect.seeds)}"
  text = f"{metric}: {name} with strength, per {unit}"
  return Finding(text, spell(effect, 4), effect.mean, effect.ci95, holds, reading, effect.seeds)


def rising(metric: str, arms: Sequence[str], members: Sequence[Member], rng: np.random.Generator) -> Finding:
  """The metric rises with strength."""
  return _trend(metric, arms, members, rng, 1.0, "rising")


def falling(metric: str, arms: Sequence[str], members: Sequence[Member], rng: np.random.Generator) -> Finding:
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


def distance_curve(member: Member, metric: str) -> tuple[np.ndarray, np.ndarray]:
  """f[n] sqrt of the KL to the first policy, nats a completion where logged; f[n] the metric. A KL below 0 counts as 0."""
  pairs = (paired_curves(member, name, metric) for name in KL_METRICS)
  kl, values = max(pairs, key=lambda pair: min(len(pair[0]), 3))  # the first that has points enough
  return np.sqrt(np.maximum(kl, 0.0)), values


def best_of_n_curve(member: Member, metric: str) -> tuple[np.ndarray, np.ndarray]:
  """f[n] sqrt of the KL of best-of-n, nats a completion, and f[n] the member's final `<metric>/<n>`, in ascending n.

  KL = log n - (n - 1) / n, which is exact where no two completions have one score, and a bound else.
  """
  found = {
    int(n): value for name, value in member.final.items() for start, _, n in [name.rpartition("/")]
    if start == metric and n.isdigit() and math.isfinite(value)
  }  # fmt: skip
  order = sorted(found)
  return np.sqrt([best_of_n_kl(n) for n in order]), np.array([found[n] for n in order])


def points_by_seed(
  members: Sequence[Member], curve: Callable[[Member], tuple[np.ndarray, np.ndarray]]
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
  """seed -> x f[n], y f[n] of all its members' curves, thinned to averages of neighbouring points."""
  found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
  for member in members:
    x, y = curve(member)
    if len(x):
      found.setdefault(member.seed, []).append((parts(x, FIT_POINTS), parts(y, FIT_POINTS)))
  return {
    seed: (np.concatenate([x for x, _ in held]), np.concatenate([y for _, y in held]))
    for seed, held in found.items()
  }


def _fits(law: Callable, points: Mapping[int, tuple[np.ndarray, np.ndarray]], wanted: str) -> list:
  """The law fitted to each seed's points. Raises Untestable where no seed has points enough."""
  held = [law(x, y) for x, y in points.values() if len(x) > 4 and np.ptp(x) > 0 and np.ptp(y) > 0]
  if not held:
    raise Untestable(f"no seed has a curve of {wanted} that moves")
  return held


def _fitted(coefficient: stats.Effect, r2: float) -> Holds:
  """A law holds where it describes the curves and its coefficient is positive; it fails where one of both fails."""
  sign = side(coefficient)
  if coefficient.seeds < 2:
    return "undecided"
  if sign == "no" or r2 < BAD_FIT:
    return "no"
  return "yes" if sign == "yes" and r2 >= GOOD_FIT else "undecided"


def fit_entropy(
  metric: str, arms: Sequence[str], members: Sequence[Member], rng: np.random.Generator
) -> Finding:
  """R = -a exp(H) + b, one fit a seed over the curves of its arms (Cui et al. 2025); the effect is a."""
  points = points_by_seed(members, lambda member: paired_curves(member, "entropy", metric))
  laws: list[fits.EntropyLaw] = _fits(fits.entropy_law, points, f"entropy and {metric}")
  effect = stats.seed_effect(np.array([[law.a] for law in laws]), rng)
  b, r2, line = (float(np.mean([vars(law)[name] for law in laws])) for name in ("b", "r2", "line_r2"))
  measured = f"a = {spell(effect)}; b = {b:.3f}; R^2 = {r2:.2f}"
  holds = _fitted(effect, r2)
  told = {
    "yes": "Reward is bought with entropy along the law.",
    "no": "The law does not describe these curves.",
    "undecided": "The law is not shown.",
  }[holds]
  form = f"A straight line in the entropy fits with R^2 = {line:.2f}."
  reading = f"{told} {form} {few_seeds(effect.seeds)}"
  text = f"{metric} = -a exp(entropy) + b over {', '.join(arms)}"
  return Finding(text, measured, effect.mean, effect.ci95, holds, reading, effect.seeds)


@dataclasses.dataclass(frozen=True)
class GaoForm:
  """One of Gao's two laws: how it is written, and how it is fitted."""

  text: str
  fit: Callable[[np.ndarray, np.ndarray], fits.GaoLaw]


GAO_RL = GaoForm("d (a - b log d)", fits.gao_rl)
GAO_BEST_OF_N = GaoForm("d (a - b d)", fits.gao_best_of_n)


def _gao_finding(
  metric: str, arms: Sequence[str], points: Mapping[int, tuple[np.ndarray, np.ndarray]], rng: np.random.Generator,
  law: GaoForm, other: GaoForm,
) -> Finding:  # fmt: skip
  """R = `law` fitted to each seed's d and R, with the other form beside it; the effect is b."""
  laws: list[fits.GaoLaw] = _fits(law.fit, points, f"the KL and {metric}")
  others: list[fits.GaoLaw] = _fits(other.fit, points, f"the KL and {metric}")
  effect = stats.seed_effect(np.array([[law.b] for law in laws]), rng)
  a, r2 = (float(np.mean([vars(law)[name] for law in laws])) for name in ("a", "r2"))
  other_a, other_b, other_r2 = (float(np.mean([vars(law)[n] for law in others])) for n in ("a", "b", "r2"))
  peak, furthest = float(np.median([law.peak for law in laws])), max(x.max() for x, _ in points.values())
  where = "inside" if peak <= furthest else "beyond"
  measured = f"b = {spell(effect)}; a = {a:.3f}; R^2 = {r2:.2f}; peak at d = {peak:.3g}"
  holds = _fitted(effect, r2)
  told = {
    "yes": "Reward bends down along the law.",
    "no": "The law does not describe these curves.",
    "undecided": "The law is not shown.",
  }[holds]
  seen = f"Its peak lies {where} what was measured (d up to {furthest:.3g})."
  beside = f"The other form {other.text} has a = {other_a:.3f}, b = {other_b:.3f}, R^2 = {other_r2:.2f}."
  reading = f"{told} {seen} {beside} {few_seeds(effect.seeds)}"
  text = f"{metric} = {law.text} over {', '.join(arms)}, d = sqrt KL"
  return Finding(text, measured, effect.mean, effect.ci95, holds, reading, effect.seeds)


def fit_gao(metric: str, arms: Sequence[str], members: Sequence[Member], rng: np.random.Generator) -> Finding:
  """R = d (a - b log d), d = sqrt KL, one fit a seed over the curves of its arms (Gao et al. 2022); the effect is b."""
  points = points_by_seed(members, lambda member: distance_curve(member, metric))
  return _gao_finding(metric, arms, points, rng, GAO_RL, GAO_BEST_OF_N)


def fit_gao_bon(
  metric: str, arms: Sequence[str], members: Sequence[Member], rng: np.random.Generator
) -> Finding:
  """R = d (a - b d) over the final `<metric>/<n>` of best-of-n, one fit a seed (Gao et al. 2022); the effect is b."""
  points = points_by_seed(members, lambda member: best_of_n_curve(member, metric))
  return _gao_finding(metric, arms, points, rng, GAO_BEST_OF_N, GAO_RL)


def drops(curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """f[seeds] what each curve of f[seeds, parts] lost from its best to its end, and f[seeds] what it had gained by then.

  The best part is chosen by the mean of the OTHER seeds: a curve's own highest part is its luckiest one, so that any
  noise would look like a decline. What is left of that: as the seeds choose for one another, 3 to 5% of flat curves of
  2 to 6 seeds are still called declining by a two-sided 95% interval, where 2.5% should be.
  """
  seeds = len(curves)
  best = [int(np.argmax(np.delete(curves, i, axis=0).mean(0))) for i in range(seeds)]
  top = curves[np.arange(seeds), best]
  return top - curves[:, -1], top - curves[:, 0]


def _lasting(
  metric: str, arms: Sequence[str], members: Sequence[Member], rng: np.random.Generator
) -> tuple[stats.Effect, float, bool | None]:
  """What arms[0] lost since its best, the loss that counts as none, and whether it declines (None: undecided)."""
  held = [m.curves[metric][1] for m in members if m.arm == arms[0] and metric in m.curves and not m.bad_step]
  held = [values[np.isfinite(values)] for values in held]
  if len(held) < 2 or min(map(len, held)) < 3:
    raise Untestable(f"it takes curves of {metric} from two seeds or more, of three points or more")
  count = min(PARTS, min(map(len, held)))
  lost, gained = drops(np.stack([parts(values, count) for values in held]))
  effect, margin = stats.seed_effect(lost[:, None], rng), MARGIN * max(float(gained.mean()), 0.0)
  low, high = effect.ci95
  return effect, margin, False if high <= margin else True if low > 0 else None


def _lasting_finding(metric: str, arm: str, name: str, told: str, holds: Holds, drop: tuple) -> Finding:
  effect, margin, _ = drop
  kept = f"A loss of up to {margin:.3f}, a tenth of the gain, counts as none."
  reading = f"{told} {kept} The best part is chosen by the other seeds. {few_seeds(effect.seeds)}"
  measured = f"best minus end {spell(effect)}"
  return Finding(f"{metric}: {arm} {name}", measured, effect.mean, effect.ci95, holds, reading, effect.seeds)


def declines(
  metric: str, arms: Sequence[str], members: Sequence[Member], rng: np.random.Generator
) -> Finding:
  """The curve of arms[0] ends below its best."""
  drop = _lasting(metric, arms, members, rng)
  holds: dict[bool | None, Holds] = {True: "yes", False: "no", None: "undecided"}
  told = {True: "It declines.", False: "It lasts.", None: "Neither a decline nor its absence is shown."}
  return _lasting_finding(metric, arms[0], "declines", told[drop[2]], holds[drop[2]], drop)


def lasts(metric: str, arms: Sequence[str], members: Sequence[Member], rng: np.random.Generator) -> Finding:
  """The curve of arms[0] keeps what it had gained at its best. A member that a NaN stopped did not last."""
  drop = _lasting(metric, arms, members, rng)
  holds: dict[bool | None, Holds] = {True: "no", False: "yes", None: "undecided"}
  told = {True: "It declines.", False: "It lasts.", None: "Neither a decline nor its absence is shown."}
  stopped = any(m.bad_step is not None for m in members if m.arm == arms[0])
  verdict = "no" if stopped else holds[drop[2]]
  said = "A seed did not get to the end." if stopped else told[drop[2]]
  return _lasting_finding(metric, arms[0], "lasts", said, verdict, drop)


CHECKS: dict[str, Callable[[str, Sequence[str], Sequence[Member], np.random.Generator], Finding]] = {
  "greater": greater,
  "rising": rising,
  "falling": falling,
  "fit_entropy": fit_entropy,
  "declines": declines,
  "lasts": lasts,
  "fit_gao": fit_gao,
  "fit_gao_bon": fit_gao_bon,
}

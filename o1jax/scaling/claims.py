"""A sweep's claim against its members: one finding for each check, with an interval over seeds.

    members -> figures by arm and seed, or curves -> an effect a seed -> its interval and p
            -> p adjusted for the claim's checks -> yes, no or undecided

Effects are counted by seed, as seeds are what repeats. The interval is that of `stats.seed_effect`, wide enough
for three or four seeds, and each is at 95% by itself. A check says "yes" or "no" where its p, adjusted for all
checks of the claim (Holm 1979), is below 5%, else "undecided"; so does one that cannot be tested (a metric nobody
has, arms without strengths), with the reason in its reading. Members that a NaN stopped have no final figures to
compare: they are left out, and the reading names them.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from o1jax.config.sweep import Check
from o1jax.scaling import stats
from o1jax.scaling.laws import fit_entropy, fit_gao, fit_gao_bon, parts
from o1jax.scaling.members import (
  LEVEL,
  Finding,
  Holds,
  Member,
  Tested,
  Untestable,
  contrast,
  few_seeds,
  outcomes,
  spell,
  spell_p,
  stack,
  weighted,
)

FLAT_DRAWS = 20_000  # of the null distribution of `declines`
PARTS = 10  # equal parts that a curve is cut into to find its best and its end
MARGIN = 0.1  # share of the gain so far that a curve may lose and still last

Test = Callable[[str, Sequence[str], Sequence[Member], np.random.Generator], Tested]
UNKNOWN = stats.Effect(math.nan, (math.nan, math.nan), 0, 0, math.nan, math.nan)


def test_claim(checks: Sequence[Check], members: Sequence[Member], rng: np.random.Generator) -> list[Finding]:
  """One finding a check, in their order; `rng` draws the resamples.

  Two families of p-values are adjusted, each among themselves: of the checks' effects, and of what laws miss.
  """
  groups = [[m for m in members if not check.arms or m.arm in check.arms] for check in checks]
  tests = [_tested(check, group, rng) for check, group in zip(checks, groups)]
  effects, refuted = _adjusted([t.effect.p for t in tests]), _adjusted([t.refuted for t in tests])
  count = sum(not math.isnan(p) for p in effects)
  return [
    _finding(test, p, no, count, [m for m in group if m.bad_step is not None])
    for test, p, no, group in zip(tests, effects, refuted, groups)
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
    sentences: dict[Holds, str] = {"undecided": f"Cannot be tested: {reason}."}
    text = f"{check.metric}: {check.kind} ({', '.join(arms)})"
    return Tested(text, "not tested", UNKNOWN, "undecided", sentences, "")


def _finding(test: Tested, p: float, refuted: float, count: int, stopped: Sequence[Member]) -> Finding:
  """The verdict; `p` and `refuted` are adjusted, the first of them for `count` checks."""
  effect, measured = test.effect, test.measured
  holds: Holds = "no" if refuted < LEVEL else test.leans if p < LEVEL else "undecided"
  reading = [test.sentences[holds], test.rest]
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
  sentences: dict[Holds, str] = {
    "yes": f"{first} lies above {second}.",
    "no": f"{first} lies below {second}.",
    "undecided": f"{first} and {second} cannot be told apart.",
  }
  return Tested(f"{metric}: {first} above {second}", spell(effect), effect, _side(effect), sentences, "")


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
  sentences: dict[Holds, str] = {
    "yes": f"It is {name}.",
    "no": "It goes the other way.",
    "undecided": "No slope is shown.",
  }
  outside = [f"{arm} ({spell_p(p)})" for arm, p in _humps(values, ordered, rng).items() if p < LEVEL]
  shape = f" Outside the ends' range, which a slope does not tell: {', '.join(outside)}." if outside else ""
  rest = f"Means by strength: {listed}.{shape}"
  text = f"{metric}: {name} with strength, per {unit}"
  return Tested(text, spell(effect, 4), effect, _side(effect, sign), sentences, rest)


def _humps(
  values: Mapping[str, Mapping[int, np.ndarray]], arms: Sequence[str], rng: np.random.Generator
) -> dict[str, float]:
  """arm -> p of lying within the range of the first and the last of `arms`, adjusted for the arms between.

  An arm lies outside where its contrasts with both ends lie on one side, so that its p is the larger of the two.
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


def _chosen(curves: np.ndarray) -> np.ndarray:
  """i[..., seeds] the best part before the last in the mean of the OTHER seeds; curves f[..., seeds, parts].

  A curve's own highest part is its luckiest one, so that any noise would look like a decline.
  """
  others = curves.sum(-2, keepdims=True) - curves
  return np.argmax(others[..., :-1], -1)


def _lost(curves: np.ndarray) -> np.ndarray:
  """f[..., seeds] what curves f[..., seeds, parts] lost from their best parts, as the others choose, to the end."""
  return np.take_along_axis(curves, _chosen(curves)[..., None], -1)[..., 0] - curves[..., -1]


def _t(values: np.ndarray) -> np.ndarray:
  """f[...] the mean over its standard error of f[..., seeds]; 0 where all are the same."""
  error = values.std(-1, ddof=1) / math.sqrt(values.shape[-1])
  differ = error > stats.ROUNDING * np.abs(values).max(-1)
  return np.where(differ, values.mean(-1) / np.where(differ, error, 1.0), 0.0)


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

  They decline where there is a loss: p by `flat_t`, which knows that the best part was chosen. They last where a
  loss as large as the margin is refuted by Student's t, of the loss as it was chosen and of that from each part
  that any seed chose or that is the best of all: of several near the top the chosen ones need not lose the most.
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
  same = error.max() <= stats.ROUNDING * np.abs(curves).max()
  ci95 = (math.nan, math.nan) if same else (float(low), float(np.max(mean + student * error)))
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
  """`name`: what the curve of arms[0] does; `claimed`: whether by declining; `stopped`: before its end."""
  curves = [
    m.curves[metric][1] for m in members if m.arm == arms[0] and metric in m.curves and not m.bad_step
  ]
  curves = [values[np.isfinite(values)] for values in curves]
  if len(curves) < 2 or min(map(len, curves)) < 3:
    raise Untestable(f"it takes curves of {metric} from two seeds or more, of three points or more")
  count = min(PARTS, min(map(len, curves)))
  loss = drop(np.stack([parts(values, count) for values in curves]))
  leans: Holds = "yes" if loss.declines == claimed else "no"
  sentences: dict[Holds, str] = {"undecided": "Neither a decline nor its absence is shown."}
  sentences[leans] = "It declines." if loss.declines else "It lasts."
  if stopped:
    sentences["no"] = "A seed did not get to the end."
  kept = f"A loss of up to {loss.margin:.3f}, a tenth of the gain, counts as none."
  return Tested(
    f"{metric}: {arms[0]} {name}",
    f"best minus end {spell(loss.effect)}",
    loss.effect,
    leans,
    sentences,
    f"{kept} The best part is chosen by the other seeds.",
    0.0 if stopped else math.nan,
  )


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

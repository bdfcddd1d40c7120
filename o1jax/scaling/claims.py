"""Tests of a sweep's claim against its members: one finding a check, with an interval over seeds.

    members -> metrics by arm and seed, or curves -> an effect a seed -> its interval and p
            -> p adjusted for the claim's checks -> yes, no or undecided

Seeds are the unit of repetition. Each interval is that of `stats.seed_effect`, at 95% by itself. A check is
"yes" or "no" where its p, adjusted for all checks of the claim (Holm 1979), is below 5%, and otherwise
"undecided". A check that cannot be tested (a metric that is missing, arms without strengths) is undecided
too, with the reason in its reading. Members that a NaN stopped have no final metrics: they are left out, and
the reading names them.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from o1jax.config.sweep import Check
from o1jax.scaling import stats
from o1jax.scaling.findings import (
  LEVEL,
  CheckData,
  CheckResult,
  Finding,
  Holds,
  MemberResult,
  Untestable,
  contrast,
  format_effect,
  format_p,
  outcomes,
  sign_note,
  stack,
  weighted_sum,
)
from o1jax.scaling.fits import fit_entropy, fit_gao, fit_gao_bon, parts

FLAT_DRAWS = 20_000  # of the null distribution of `declines`
PARTS = 10  # equal parts that a curve is cut into to find its best and its end
MARGIN = 0.1  # share of the gain so far that a curve may lose and still last

UNKNOWN = stats.Effect(math.nan, (math.nan, math.nan), 0, 0, math.nan, math.nan)


def test_claim(
  checks: Sequence[Check], members: Sequence[MemberResult], rng: np.random.Generator
) -> list[Finding]:
  """One finding a check, in their order; `rng` draws the resamples.

  Two families of p-values are adjusted: those of the effects, and those of "no" for other reasons.
  """
  groups = [[m for m in members if not check.arms or m.arm in check.arms] for check in checks]
  results = [_test(check, group, rng) for check, group in zip(checks, groups)]
  effects, refused = _adjusted([r.effect.p for r in results]), _adjusted([r.p_no for r in results])
  count = sum(not math.isnan(p) for p in effects)
  return [
    _finding(result, p, p_no, count, [m for m in group if m.bad_step is not None])
    for result, p, p_no, group in zip(results, effects, refused, groups)
  ]


def _adjusted(p_values: Sequence[float]) -> list[float]:
  """Holm's adjustment of the p-values that are not NaN."""
  known = iter(stats.holm([p for p in p_values if not math.isnan(p)]))
  return [p if math.isnan(p) else next(known) for p in p_values]


def _test(check: Check, members: Sequence[MemberResult], rng: np.random.Generator) -> CheckResult:
  arms = check.arms or tuple(dict.fromkeys(m.arm for m in members))
  try:
    return CHECKS[check.kind](CheckData(check.metric, arms, members, rng))
  except Untestable as reason:
    readings: dict[Holds, str] = {"undecided": f"Cannot be tested: {reason}."}
    text = f"{check.metric}: {check.kind} ({', '.join(arms)})"
    return CheckResult(text, "not tested", UNKNOWN, "undecided", readings, "")


def _finding(
  result: CheckResult, p: float, p_no: float, count: int, stopped: Sequence[MemberResult]
) -> Finding:
  """The finding of a check; `p` and `p_no` are adjusted, the first of them for `count` checks."""
  effect, measured = result.effect, result.measured
  holds: Holds = "no" if p_no < LEVEL else result.verdict if p < LEVEL else "undecided"
  reading = [result.readings[holds], result.details]
  if effect.seeds:
    measured += f"; {format_p(p)}{f', adjusted for {count} checks' if count > 1 else ''}"
    if effect.seeds > 1 and math.isnan(effect.ci95[0]):
      reading.append("The seeds agree exactly, which leaves their noise unknown.")
    reading.append(sign_note(effect.seeds))
  if stopped:
    named = ", ".join(f"{m.arm} seed {m.seed} at step {m.bad_step}" for m in stopped)
    reading.append(f"Stopped by a NaN, and left out of final figures: {named}.")
  text = " ".join(filter(None, reading))
  return Finding(result.check, measured, effect.mean, effect.ci95, p, holds, text, effect.seeds)


def greater(data: CheckData) -> CheckResult:
  """The metric of arms[0] minus that of arms[1], paired by seed and, where it can be, by problem."""
  if len(data.arms) != 2:
    raise Untestable(f"it compares two arms, and has {len(data.arms)}")
  first, second = data.arms
  values = contrast(outcomes(data.members, data.metric), {first: 1.0, second: -1.0})
  effect = stats.seed_effect(values, data.rng)
  readings: dict[Holds, str] = {
    "yes": f"{first} lies above {second}.",
    "no": f"{first} lies below {second}.",
    "undecided": f"{first} and {second} cannot be distinguished.",
  }
  verdict: Holds = "yes" if effect.mean > 0 else "no"
  text = f"{data.metric}: {first} above {second}"
  return CheckResult(text, format_effect(effect), effect, verdict, readings, "")


# Trends over strengths


def strength_axis(strengths: Sequence[float]) -> tuple[np.ndarray, str]:
  """f64[n] log10 of strengths, and the axis's unit; their ranks where one is not positive."""
  if min(strengths) > 0:
    return np.log10(strengths), "tenfold strength"
  order = sorted(set(strengths))
  return np.array([order.index(s) for s in strengths], np.float64), "step up in strength"


def _slopes(values: Mapping[str, Mapping[int, np.ndarray]], axis: Mapping[str, float]) -> list[np.ndarray]:
  """The least-squares slope of each seed over the arms, f[problems]: a slope is a contrast of arms.

  Of the seeds that finished all arms, where there are two or more: slopes over other arms are other slopes.
  Otherwise of each seed over the arms that it finished.
  """
  known = [arm for arm in axis if arm in values]
  seeds = sorted({seed for arm in known for seed in values[arm]})
  complete = [seed for seed in seeds if all(seed in values[arm] for arm in known)]
  slopes = []
  for seed in complete if len(complete) > 1 else seeds:
    arms = [arm for arm in known if seed in values[arm]]
    x = np.array([axis[arm] for arm in arms])
    centred = x - x.mean()
    if np.any(centred != 0):
      weights = dict(zip(arms, centred / np.sum(centred**2)))
      slopes.append(weighted_sum({arm: values[arm][seed] for arm in arms}, weights))
  return slopes


def trend(data: CheckData, direction: Literal["rising", "falling"]) -> CheckResult:
  """The slope of the metric along the strengths, which is claimed to be positive or negative."""
  metric, members = data.metric, data.members
  strengths = {m.arm: m.strength for m in members if m.strength is not None}
  if len(strengths) < len(data.arms) or len(set(strengths.values())) < 2:
    raise Untestable("it needs arms of two strengths or more, all of them numbers")
  places, unit = strength_axis(list(strengths.values()))
  values = outcomes(members, metric)
  slopes = _slopes(values, dict(zip(strengths, places.tolist())))
  if not slopes:
    raise Untestable(f"no seed has {metric} at two strengths")
  effect = stats.seed_effect(stack(slopes), data.rng)
  ordered = sorted((arm for arm in strengths if arm in values), key=lambda arm: strengths[arm])
  means = {arm: float(np.mean([v.mean() for v in values[arm].values()])) for arm in ordered}
  listed = ", ".join(f"{strengths[arm]:g}: {means[arm]:.3f}" for arm in ordered)
  readings: dict[Holds, str] = {
    "yes": f"It is {direction}.",
    "no": "It goes the other way.",
    "undecided": "No slope is shown.",
  }
  outside = [f"{arm} ({format_p(p)})" for arm, p in _humps(values, ordered, data.rng).items() if p < LEVEL]
  shape = f" Outside the ends' range, which a slope does not tell: {', '.join(outside)}." if outside else ""
  details = f"Means by strength: {listed}.{shape}"
  text = f"{metric}: {direction} with strength, per {unit}"
  slope = effect.mean if direction == "rising" else -effect.mean
  verdict: Holds = "yes" if slope > 0 else "no"
  return CheckResult(text, format_effect(effect, 4), effect, verdict, readings, details)


def _humps(
  values: Mapping[str, Mapping[int, np.ndarray]], arms: Sequence[str], rng: np.random.Generator
) -> dict[str, float]:
  """arm -> p of lying within the range of the first and the last of `arms`, adjusted for the arms between.

  An arm is outside where its contrasts with both ends have one sign; its p is the larger of the two.
  """
  known = {}
  for arm in arms[1:-1]:
    shared = set.intersection(*(set(values[name]) for name in (arms[0], arm, arms[-1])))
    if shared:
      ends = [stats.seed_effect(contrast(values, {arm: 1.0, end: -1.0}), rng) for end in (arms[0], arms[-1])]
      known[arm] = max(end.p for end in ends) if ends[0].mean * ends[1].mean > 0 else 1.0
  return dict(zip(known, stats.holm(list(known.values()))))


# Declines of curves


def _chosen(curves: np.ndarray) -> np.ndarray:
  """i[..., seeds] the best part before the last in the mean of the OTHER seeds; curves f[..., seeds, parts].

  A curve's own highest part is its luckiest one, so that any noise would look like a decline.
  """
  others = curves.sum(-2, keepdims=True) - curves
  return np.argmax(others[..., :-1], -1)


def _lost(curves: np.ndarray) -> np.ndarray:
  """f[..., seeds] loss of curves f[..., seeds, parts] from the part `_chosen` to the last one."""
  return np.take_along_axis(curves, _chosen(curves)[..., None], -1)[..., 0] - curves[..., -1]


def _t(values: np.ndarray) -> np.ndarray:
  """f[...] the mean over its standard error of f[..., seeds]; 0 where all are the same."""
  error = values.std(-1, ddof=1) / math.sqrt(values.shape[-1])
  differ = error > stats.ROUNDING * np.abs(values).max(-1)
  return np.where(differ, values.mean(-1) / np.where(differ, error, 1.0), 0.0)


@functools.cache
def flat_t(seeds: int, count: int) -> np.ndarray:
  """f[FLAT_DRAWS] ascending t of the losses of flat curves of `count` parts with independent noise.

  Wider than Student's, as the seeds choose for one another: 3 to 5% of them lie beyond its 97.5%.
  """
  return np.sort(_t(_lost(np.random.default_rng(0).standard_normal((FLAT_DRAWS, seeds, count)))))


@dataclasses.dataclass(frozen=True)
class Drop:
  """Loss of curves from their best part to their end."""

  effect: stats.Effect  # its p is that of `declines`
  margin: float  # the loss that counts as none
  declines: bool  # whether the smaller p is that of a decline; else it is that of lasting


def drop(curves: np.ndarray) -> Drop:
  """The loss of curves f[seeds, parts]; two seeds or more, two parts or more.

  They decline where there is a loss: p by `flat_t`, which knows that the best part was chosen. They last
  where Student's t refutes a loss as large as the margin: the loss as it was chosen, and that from each part
  that any seed chose or that is the best of all, as of several parts near the top the chosen ones need not
  lose the most.
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
  above, share = int(np.sum(lost > 0)), float(np.mean(lost <= 0))
  effect = stats.Effect(float(mean[0]), ci95, seeds, above, share, p_declines if declines else p_lasts)
  return Drop(effect, margin, declines)


def drop_check(data: CheckData, behaviour: Literal["declines", "lasts"]) -> CheckResult:
  """The curve of arms[0] ends below its best, or as high. A member that a NaN stopped did not last."""
  metric, arm = data.metric, data.arms[0]
  members = [m for m in data.members if m.arm == arm]
  stopped = behaviour == "lasts" and any(m.bad_step is not None for m in members)
  curves = [m.curves[metric][1] for m in members if metric in m.curves and not m.bad_step]
  curves = [values[np.isfinite(values)] for values in curves]
  if len(curves) < 2 or min(map(len, curves)) < 3:
    raise Untestable(f"it takes curves of {metric} from two seeds or more, of three points or more")
  count = min(PARTS, min(map(len, curves)))
  loss = drop(np.stack([parts(values, count) for values in curves]))
  verdict: Holds = "yes" if loss.declines == (behaviour == "declines") else "no"
  readings: dict[Holds, str] = {"undecided": "Neither a decline nor its absence is shown."}
  readings[verdict] = "It declines." if loss.declines else "It lasts."
  if stopped:
    readings["no"] = "A seed did not get to the end."
  tolerated = f"A loss of up to {loss.margin:.3f}, a tenth of the gain, counts as none."
  details = f"{tolerated} The best part is chosen by the other seeds."
  text, measured = f"{metric}: {arm} {behaviour}", f"best minus end {format_effect(loss.effect)}"
  p_no = 0.0 if stopped else math.nan
  return CheckResult(text, measured, loss.effect, verdict, readings, details, p_no)


CHECKS: dict[str, Callable[[CheckData], CheckResult]] = {
  "greater": greater,
  "rising": functools.partial(trend, direction="rising"),
  "falling": functools.partial(trend, direction="falling"),
  "declines": functools.partial(drop_check, behaviour="declines"),
  "lasts": functools.partial(drop_check, behaviour="lasts"),
  "fit_entropy": fit_entropy,
  "fit_gao": fit_gao,
  "fit_gao_bon": fit_gao_bon,
}

"""Plots of a sweep: learning curves, reward against distance, accuracy by arm, fitted laws."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import ticker

from o1jax.config.sweep import Check
from o1jax.io.report import plots
from o1jax.io.report.plots import Plot
from o1jax.scaling import fits, stats
from o1jax.scaling.findings import PASS, MemberResult, outcomes, stack
from o1jax.scaling.ranking import frontier

HELD_OUT = f"held_out{PASS}"
FIRST = "first/"  # prefix of a metric's value at the first diagnosis, among the final metrics
PAPER: Any = {
  "font.size": 10,
  "axes.titlesize": 10.5,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.grid": True,
  "axes.axisbelow": True,
  "grid.color": "#e6e6e6",
  "grid.linewidth": 0.7,
  "legend.frameon": False,
  "figure.titlesize": 12,
}
# Learning curves: metric -> axis label.
CURVES = {
  HELD_OUT: "held-out pass@1",
  "reward": "training reward",
  "entropy": "entropy, nats a token",
  "kl_reverse": "KL to the reference, nats a token",
  "completions/mean_length": "tokens a completion",
  "grad_norm": "gradient norm before clipping",
}
LOGARITHMIC = ("kl_reverse", "grad_norm")
MARKERS = "osD^vPX*"
BINS = 60  # averages of neighbouring steps in a learning curve
PATH_POINTS = 40  # averages of neighbouring steps in a path of reward against distance
DISTANCE = "distance to the first policy, √KL"
# kind of check -> formula of its law, x axis label
LAWS = {
  "fit_entropy": ("R = −a exp(H) + b", "entropy H, nats a token"),
  "fit_gao": ("R = R₀ + d (a − b log d)", f"d: {DISTANCE}"),
  "fit_gao_bon": (
    "R = R₀ + d (a − b d)",
    "d: distance to the policy, √KL of best-of-n (√ nats a completion)",
  ),
}


@dataclasses.dataclass(frozen=True)
class Style:
  """Style of an arm in every plot."""

  colour: Any
  marker: str
  line: Any = "-"


def arm_styles(members: Sequence[MemberResult]) -> dict[str, Style]:
  """arm -> style: dark to light by strength (0 is grey and dashed) where all have one, else categories."""
  strengths = {m.arm: m.strength for m in members}
  if not _numeric(strengths):
    kinds = zip(strengths, plots.CATEGORIES * len(strengths), MARKERS * len(strengths))
    return {arm: Style(colour, marker) for arm, colour, marker in kinds}
  ordered = sorted(strengths, key=lambda arm: strengths[arm] or 0.0)
  positive = [arm for arm in ordered if strengths[arm]]
  shades = plt.get_cmap("viridis")(np.linspace(0.0, 0.84, max(len(positive), 2)))
  shaded = {arm: Style(shades[i], MARKERS[i % len(MARKERS)]) for i, arm in enumerate(positive)}
  return {arm: shaded.get(arm, Style(plots.GREY, "h", "--")) for arm in ordered}


def _numeric(strengths: Mapping[str, float | None]) -> bool:
  """Whether the arms lie on an axis of strengths: all have one, and no two the same."""
  known = [s for s in strengths.values() if s is not None]
  return len(known) == len(strengths) == len(set(known)) > 1


def _handles(styles: Mapping[str, Style]) -> list[Any]:
  """Legend handles of the arms."""
  return [
    plt.Line2D([], [], color=s.colour, marker=s.marker, linestyle=s.line, markersize=5, label=arm)
    for arm, s in styles.items()
  ]


def _below(figure: Any, handles: Sequence[Any]) -> None:
  """A legend below the panels, in as many columns as fit."""
  longest = max(len(handle.get_label()) for handle in handles)
  columns = max(1, int(figure.get_figwidth() / (0.75 + 0.085 * longest)))
  figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)))


def binned(members: Sequence[MemberResult], metric: str, edges: np.ndarray) -> np.ndarray:
  """f[members, bins] means of a metric over the steps between edges; NaN where there are none."""
  rows = []
  for member in members:
    steps, values = member.curves.get(metric, (np.empty(0), np.empty(0)))
    finite = np.isfinite(values)
    count, _ = np.histogram(steps[finite], edges)
    total, _ = np.histogram(steps[finite], edges, weights=values[finite])
    rows.append(np.where(count > 0, total / np.maximum(count, 1), math.nan))
  return np.array(rows)


def _edges(members: Sequence[MemberResult], metric: str) -> np.ndarray:
  """Edges of at most BINS groups of the steps that have the metric."""
  steps = np.unique(np.concatenate([m.curves[metric][0] for m in members if metric in m.curves]))
  firsts = [group[0] for group in np.array_split(steps, min(BINS, len(steps)))]
  return np.array([*firsts, steps[-1] + 1], np.float64) - 0.5


def _curve(ax: Any, members: Sequence[MemberResult], metric: str, edges: np.ndarray, style: Style) -> None:
  """One arm's mean over its seeds, with a band from the lowest to the highest seed."""
  values = binned(members, metric, edges)
  known = np.isfinite(values).any(0)
  values, x = values[:, known], ((edges[:-1] + edges[1:]) / 2)[known]
  every = max(1, len(x) // 5)
  edge = {"markeredgecolor": "white", "markeredgewidth": 0.5}
  marks: Any = {"marker": style.marker, "markersize": 4, "markevery": (every // 2, every), **edge}
  ax.plot(x, np.nanmean(values, 0), style.line, color=style.colour, linewidth=1.6, **marks)
  low, high = np.nanmin(values, 0), np.nanmax(values, 0)
  ax.fill_between(x, low, high, color=style.colour, alpha=0.15, linewidth=0)
  for member, row in zip(members, values):
    if member.bad_step is not None and np.isfinite(row).any():
      last = np.flatnonzero(np.isfinite(row))[-1]
      ax.plot(x[last], row[last], "x", color=plots.RED, markersize=7, markeredgewidth=2, zorder=5)


def curves(members: Sequence[MemberResult], styles: Mapping[str, Style]) -> Any:
  """Learning curves of training and evaluation; a cross where a NaN stopped a member."""
  logged = [name for name in CURVES if any(name in m.curves for m in members)]
  columns = min(3, max(len(logged), 1))
  rows = math.ceil(max(len(logged), 1) / columns)
  size = (3.8 * columns, 2.9 * rows + 0.5)
  figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, sharex=True)
  for ax in axes.flat[len(logged) :]:
    ax.set_axis_off()
  for i, (ax, name) in enumerate(zip(axes.flat, logged)):
    edges = _edges(members, name)
    for arm, style in styles.items():
      own = [m for m in members if m.arm == arm and name in m.curves]
      if own:
        _curve(ax, own, name, edges, style)
    ax.set(title=CURVES[name], yscale="log" if name in LOGARITHMIC and _decades(members, name) else "linear")
    if i + columns >= len(logged):
      ax.set_xlabel("step")
      ax.tick_params(labelbottom=True)
  stopped = plt.Line2D([], [], color=plots.RED, marker="x", linestyle="", markeredgewidth=2, label="stopped")
  _below(figure, [*_handles(styles), *([stopped] if any(m.bad_step is not None for m in members) else [])])
  return figure


def _decades(members: Sequence[MemberResult], metric: str) -> bool:
  """Whether the values are positive and span more than a factor of 20."""
  values = np.concatenate([m.curves[metric][1] for m in members if metric in m.curves])
  values = values[np.isfinite(values)]
  return len(values) > 0 and values.min() > 0 and values.max() > 20 * values.min()


def distance(members: Sequence[MemberResult], styles: Mapping[str, Style], metric: str) -> Any:
  """The metric against sqrt KL (Gao et al. 2022): each arm's mean path, its end, and the ends of its seeds.

  A cross marks the end of a member that a NaN stopped; the mean is over the others.
  """
  figure, ax = plt.subplots(figsize=(7.2, 4.4))
  ends = {}
  for path in frontier([m for m in members if m.bad_step is not None], metric):
    at = path.distance[-1], path.reward[-1]
    ax.plot(*at, "x", color=styles[path.arm].colour, markersize=7, markeredgewidth=2, zorder=5)
  for arm, style in styles.items():
    paths = frontier([m for m in members if m.arm == arm and m.bad_step is None], metric)
    if not paths:
      continue
    count = min(PATH_POINTS, min(len(path.reward) for path in paths))
    paths = frontier([m for m in members if m.arm == arm and m.bad_step is None], metric, count)
    x, y = np.array([path.distance for path in paths]), np.array([path.reward for path in paths])
    ax.plot(x.mean(0), y.mean(0), style.line, color=style.colour, linewidth=1.4, alpha=0.8)
    ax.scatter(x[:, -1], y[:, -1], 14, color=style.colour, alpha=0.6, linewidths=0, zorder=3)
    ends[arm] = float(x[:, -1].mean()), float(y[:, -1].mean())
  best = _envelope(list(ends.values()))
  for arm, point in ends.items():
    edge = plots.BLACK if point in best else "white"
    style = styles[arm]
    ax.plot(*point, style.marker, color=style.colour, markersize=9, markeredgecolor=edge, zorder=4)
  by_completion = any("kl_sequence" in m.curves for m in members)
  unit = "√nats a completion" if by_completion else "√nats a token"
  ax.set(xlabel=f"{DISTANCE} ({unit})", ylabel=CURVES.get(metric, metric))
  ax.set_xlim(left=0)
  edged = plt.Line2D([], [], color="white", marker="o", linestyle="", markeredgecolor=plots.BLACK,
                     label="no arm has more\nat less distance")  # fmt: skip
  figure.legend(handles=[*_handles({arm: styles[arm] for arm in ends}), edged], loc="outside right center")
  return figure


def _envelope(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
  """The points that no other point beats in reward at a smaller distance."""
  kept: list[tuple[float, float]] = []
  for point in sorted(points, key=lambda p: (p[0], -p[1])):
    if not kept or point[1] > kept[-1][1]:
      kept.append(point)
  return kept


def _axis(ax: Any, strengths: Mapping[str, float | None]) -> dict[str, float]:
  """arm -> place on the x axis, whose ticks it sets.

  Strengths lie on a logarithmic axis, with 0 a decade left of the others behind a break; else arms are
  categories.
  """
  if not _numeric(strengths):
    ax.set_xticks(range(len(strengths)), list(strengths), rotation=20 if len(strengths) > 4 else 0)
    return {arm: float(i) for i, arm in enumerate(strengths)}
  known = {arm: s for arm, s in strengths.items() if s is not None}
  positive = [s for s in known.values() if s > 0]
  if len(positive) < len(known) - 1 or min(known.values()) < 0:
    places = {arm: float(s) for arm, s in known.items()}
  else:
    places = {arm: math.log10(s) if s > 0 else math.log10(min(positive)) - 1.0 for arm, s in known.items()}
  ax.set_xticks(list(places.values()), [f"{known[arm]:g}" for arm in places])
  if 0.0 in known.values() and len(positive) == len(known) - 1:
    left = math.log10(min(positive)) - 0.5
    style = {"transform": ax.get_xaxis_transform(), "clip_on": False, "linewidth": 1.0, "zorder": 6}
    for x in (left - 0.04, left + 0.04):
      ax.plot([x - 0.03, x + 0.03], [-0.015, 0.015], color=plots.BLACK, **style)
  ax.set_xlabel("strength")
  return places


def accuracy_metrics(members: Sequence[MemberResult]) -> list[str]:
  """The final accuracies of the members, one a set of problems."""
  names = dict.fromkeys(name for m in members for name in m.final if name.endswith(PASS))
  return [name for name in names if not name.startswith(FIRST) and outcomes(members, name)]


def accuracy(members: Sequence[MemberResult], metrics: Sequence[str]) -> Any:
  """Final accuracy by arm and set of problems: mean, 95% interval, seeds (small points), start (dotted)."""
  figure, ax = plt.subplots(figsize=(6.6, 4.2))
  strengths = {m.arm: m.strength for m in members}
  if _numeric(strengths):
    strengths = dict(sorted(strengths.items(), key=lambda item: item[1] or 0.0))
  places, rng = _axis(ax, strengths), np.random.default_rng(0)
  width = float(np.min(np.diff(sorted(places.values())), initial=1.0))
  for i, metric in enumerate(metrics):
    values, shift = outcomes(members, metric), (i - (len(metrics) - 1) / 2) * 0.1 * width
    arms = [arm for arm in places if arm in values]
    x = np.array([places[arm] for arm in arms]) + shift
    rows = [stack(list(values[arm].values())) for arm in arms]
    effects = [stats.share_effect(row, rng) for row in rows]
    mean = np.array([effect.mean for effect in effects])
    error = [[e.mean - e.ci95[0] for e in effects], [e.ci95[1] - e.mean for e in effects]]
    line = "-" if _numeric(strengths) else ""
    colour = plots.CATEGORIES[i % len(plots.CATEGORIES)]
    name = metric.removesuffix(PASS).removeprefix("ood/").replace("_", " ")
    label = "held out" if metric == HELD_OUT else f"other kind: {name}"
    ax.errorbar(x, mean, error, fmt=f"{MARKERS[i % len(MARKERS)]}{line}", color=colour, label=label,
                capsize=3, markersize=6, linewidth=1.5, elinewidth=1.2, zorder=3)  # fmt: skip
    first = [m.final[FIRST + metric] for m in members if m.bad_step is None and FIRST + metric in m.final]
    if first:
      ax.axhline(float(np.mean(first)), color=colour, linestyle=":", linewidth=1.2, zorder=1)
    for place, row in zip(x, rows):
      seeds = row.mean(1)
      ax.scatter(np.full(len(seeds), place + 0.03 * width), seeds, 9, color=colour, alpha=0.5, linewidths=0)
  ax.set_ylabel("final pass@1")
  ax.yaxis.set_major_locator(ticker.MaxNLocator(6))
  figure.legend(loc="outside lower center", ncols=min(len(metrics), 3))
  return figure


def fitted_law(members: Sequence[MemberResult], styles: Mapping[str, Style], check: Check) -> Any:
  """The points of a fitted check, and the law fitted to all seeds together."""
  figure, ax = plt.subplots(figsize=(7.2, 4.4))
  law, (label, xlabel) = fits.LAWS[check.kind], LAWS[check.kind]
  checked = _checked(members, check)
  for arm, style in styles.items():
    for curves in fits.points_by_seed([m for m in checked if m.arm == arm], check.metric, law).values():
      x, y = fits.joined(curves)
      ax.plot(x, y, style.marker, color=style.colour, markersize=4, alpha=0.6, markeredgewidth=0)
  by_seed = fits.points_by_seed(checked, check.metric, law)
  x, y = fits.joined([points for curves in by_seed.values() for points in curves])
  line, coefficients = np.linspace(x.min(), x.max(), 200), fits.least_squares(law.columns(x), y)[0]
  ax.plot(line, law.columns(line) @ coefficients, color=plots.BLACK, linewidth=2)
  ax.set(xlabel=xlabel, ylabel=CURVES.get(check.metric, check.metric))
  present = {m.arm for m in checked}
  shown = {arm: dataclasses.replace(style, line="") for arm, style in styles.items() if arm in present}
  handles = [*_handles(shown), plt.Line2D([], [], color=plots.BLACK, linewidth=2, label=label)]
  figure.legend(handles=handles, loc="outside right center")
  return figure


def _checked(members: Sequence[MemberResult], check: Check) -> list[MemberResult]:
  return [m for m in members if not check.arms or m.arm in check.arms]


def _can_be_fitted(members: Sequence[MemberResult], check: Check) -> bool:
  """Whether the check is about a law, and its members have points enough for it."""
  if check.kind not in fits.LAWS:
    return False
  by_seed = fits.points_by_seed(_checked(members, check), check.metric, fits.LAWS[check.kind])
  return sum(len(x) for curves in by_seed.values() for x, _ in curves) > 4


def draw_sweep(
  folder: pathlib.Path, members: Sequence[MemberResult], checks: Sequence[Check]
) -> list[tuple[str, pathlib.Path]]:
  """Draws the plots that a sweep has data for into `folder`; returns (title, path) in the report's order."""
  styles = arm_styles(members)
  out: list[Plot] = []
  rewards = [m for m in (HELD_OUT, "reward") if any(len(path.reward) > 1 for path in frontier(members, m))]
  if rewards:
    draw = functools.partial(distance, members, styles, rewards[0])
    out.append(Plot("Reward against distance", "frontier.png", draw))
  if any(name in member.curves for member in members for name in CURVES):
    title = "Learning curves (mean; lowest to highest seed)"
    out.append(Plot(title, "curves.png", functools.partial(curves, members, styles)))
  if metrics := accuracy_metrics(members):
    title = "Final accuracy (mean, intervals each at 95%, single seeds; dotted: at first)"
    out.append(Plot(title, "accuracy.png", functools.partial(accuracy, members, metrics)))
  for i, check in enumerate(checks, start=1):
    if _can_be_fitted(members, check):
      draw = functools.partial(fitted_law, members, styles, check)
      out.append(Plot(f"Check {i}: the law", f"law{i}.png", draw))
  with plt.rc_context(PAPER):
    return plots.render(folder, out)

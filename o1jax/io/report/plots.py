"""Plots of a run."""

import io
import pathlib
from typing import Any, Callable, Mapping, NamedTuple, Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib import ticker

from o1jax.io.files import write_atomically

# Okabe and Ito's palette, safe for colour-blind readers.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#777777"
SKY, BLACK = "#56B4E9", "#222222"
CATEGORIES = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK, GREY)
DPI = 150
Rows = Sequence[Mapping[str, Any]]


class Plot(NamedTuple):
  """A figure that is drawn when it is rendered."""

  title: str
  file: str  # name of its PNG
  draw: Callable[[], Any]  # returns a matplotlib figure


def _panel(ax: Any, rows: Rows, names: Mapping[str, str], ylabel: str) -> None:
  """Metrics (name -> label) against the step."""
  for (name, label), colour in zip(names.items(), (BLUE, ORANGE, GREEN, PURPLE)):
    points = [(row["step"], row[name]) for row in rows if name in row]
    if points:
      ax.plot(*zip(*points), color=colour, label=label, linewidth=1.4)
  ax.set(xlabel="step", ylabel=ylabel)
  if ax.lines and len(names) > 1:
    ax.legend(frameon=False)


def training(rows: Rows) -> Any:
  """Loss of the cold start; reward, entropy and gradient norm of RL, by step."""
  figure, axes = plt.subplots(2, 2, figsize=(10, 6.5))
  rl = [row for row in rows if row["stage"] == "rl"]
  sft = [row for row in rows if row["stage"] == "sft"]
  _panel(axes[0, 0], sft, {"nll": "loss"}, "cold start: nats a token")
  _panel(axes[0, 1], rl, {"reward": "reward"}, "RL: mean reward")
  _panel(axes[1, 0], rl, {"entropy": "entropy"}, "RL: entropy, nats a token")
  _panel(axes[1, 1], rl, {"grad_norm": "gradient"}, "RL: gradient norm before clipping")
  return figure


def lengths(rows: Rows) -> Any:
  """Completion length over RL."""
  figure, ax = plt.subplots(figsize=(7, 4))
  names = {"completions/mean_length": "mean", "completions/max_length": "longest"}
  _panel(ax, [row for row in rows if row["stage"] == "rl"], names, "tokens a completion")
  ax.set_ylim(bottom=0)
  return figure


def words(rows: Rows) -> Any:
  """Reflection and repetition over RL."""
  figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
  rl = [row for row in rows if row["stage"] == "rl"]
  names = {f"reflection/{word}_rate": word for word in ("wait", "check", "alternatively")}
  _panel(left, rl, names, "occurrences a completion")
  _panel(right, rl, {"repetition_rate": "repetition"}, "share of repeated 4-word runs")
  return figure


def flops(rows: Rows, summary: Mapping[str, Any]) -> Any:
  """Held-out accuracy against training FLOPs; stars are the larger evaluations of the summary."""
  figure, ax = plt.subplots(figsize=(7, 4))
  for stage, colour, label in (("sft", GREY, "cold start"), ("rl", BLUE, "RL")):
    evaluated = [row for row in rows if row["stage"] == stage and "eval/pass@1" in row]
    x = [row["flops/useful"] for row in evaluated]
    ax.plot(x, [row["eval/pass@1"] for row in evaluated], "o-", color=colour, label=label)
    low, high = ([row[f"eval/pass@1_{side}"] for row in evaluated] for side in ("low", "high"))
    ax.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
  for arm, total, colour in (("cold_start", "cold_start_flops", GREY), ("final", "train_flops", BLUE)):
    if arm in summary:
      y, (low, high) = summary[arm]["pass@1"], summary[arm]["pass@1_ci95"]
      error = [[y - low], [high - y]]
      ax.errorbar(summary[total], y, error, fmt="*", color=colour, markersize=14, capsize=3)
  ax.set(xlabel="useful training FLOPs", ylabel="held-out pass@1 (band: 95% at each point)", xscale="log")
  ax.legend(frameon=False)
  return figure


def test_time(summary: Mapping[str, Any]) -> Any:
  """Accuracy against completion tokens, before and after RL where both were evaluated."""
  titles = {"cold_start": "cold start", "final": "after RL"}
  arms = {titles[name]: summary[name]["curves"] for name in titles if name in summary}
  figure, axes = plt.subplots(1, len(arms), figsize=(5.5 * len(arms), 4.4), sharey=True, squeeze=False)
  styles = {
    "forced_budget": (BLUE, "o-", "forced budget"),
    "best_of_n": (ORANGE, "o-", "best of n, oracle"),
    "within_prompt": (GREEN, "o--", "bins by length within a prompt"),
    "pooled": (PURPLE, "o:", "bins by length, pooled"),
  }
  for ax, (title, curves) in zip(axes[0], arms.items()):
    for kind, (colour, line, label) in styles.items():
      if kind in curves:
        curve = curves[kind]
        ax.plot(curve["x"], curve["y"], line, color=colour, label=label, markersize=4)
        ax.fill_between(curve["x"], curve["low"], curve["high"], color=colour, alpha=0.15, linewidth=0)
    if "natural" in curves:
      x, y = curves["natural"]["x"], curves["natural"]["y"]
      ax.plot(x, y, "*", color=RED, markersize=14, label="stops by itself")
    ax.set(title=title, xlabel="completion tokens (log scale)", xscale="log")
    ax.xaxis.set_major_locator(ticker.LogLocator(2))
    ax.xaxis.set_major_formatter(ticker.ScalarFormatter())
    ax.xaxis.set_minor_locator(ticker.NullLocator())
    ax.set_ylim(bottom=0)
  axes[0, 0].set_ylabel("held-out accuracy (band: 95% at each point)")
  handles, labels = axes[0, -1].get_legend_handles_labels()
  figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=len(handles))
  return figure


def kl_frontier(rows: Rows) -> Any:
  """Reward against the square root of the KL to the reference (Gao et al. 2022)."""
  figure, ax = plt.subplots(figsize=(7, 4))
  points = [row for row in rows if row.get("kl/k3", -1.0) >= 0 and "reward" in row]
  ax.plot([row["kl/k3"] ** 0.5 for row in points], [row["reward"] for row in points], ".", color=BLUE)
  ax.set(xlabel="sqrt of KL to the reference, sqrt(nats a token)", ylabel="mean reward")
  return figure


def draw_run(folder: pathlib.Path, rows: Rows, summary: Mapping[str, Any]) -> list[tuple[str, pathlib.Path]]:
  """Draws the plots that a run has data for into `folder`; returns (title, path) in the report's order."""
  out = []
  if "curves" in summary.get("final", {}):
    out.append(Plot("Accuracy against test-time tokens", "test_time.png", lambda: test_time(summary)))
  out.append(Plot("Training", "training.png", lambda: training(rows)))
  if any("eval/pass@1" in row for row in rows):
    out.append(Plot("Accuracy against training FLOPs", "flops.png", lambda: flops(rows, summary)))
  if any(row["stage"] == "rl" for row in rows):
    out.append(Plot("Completion length", "length.png", lambda: lengths(rows)))
    out.append(Plot("Reflection and repetition", "words.png", lambda: words(rows)))
  if any("kl/k3" in row for row in rows):
    out.append(Plot("Reward against sqrt KL", "kl.png", lambda: kl_frontier(rows)))
  return render(folder, out)


def render(folder: pathlib.Path, plots: Sequence[Plot]) -> list[tuple[str, pathlib.Path]]:
  """Draws each plot and writes it as a PNG; returns (title, path) in their order."""
  for plot in plots:
    figure = plot.draw()
    figure.set_layout_engine("constrained")
    figure.suptitle(plot.title)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=DPI)
    plt.close(figure)
    write_atomically(folder / plot.file, picture.getvalue())
  return [(plot.title, folder / plot.file) for plot in plots]

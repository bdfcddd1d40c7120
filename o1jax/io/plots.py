"""The pictures of a run."""

import io
import pathlib
from typing import Any, Callable, Mapping, Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib import ticker

from o1jax.io.data import write_atomically

# Okabe and Ito's palette: told apart by the colour-blind too.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#777777"
SKY, BLACK = "#56B4E9", "#222222"
CATEGORIES = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK, GREY)
DPI = 150
Rows = Sequence[Mapping[str, Any]]


def _series(rows: Rows, name: str, x: str = "step") -> tuple[list[float], list[float]]:
  held = [row for row in rows if name in row and x in row]
  return [row[x] for row in held], [row[name] for row in held]


def _panel(ax: Any, rows: Rows, names: Mapping[str, str], ylabel: str) -> bool:
  """Draws metrics (name -> label) against the step; returns whether there was any."""
  drawn = False
  for (name, label), colour in zip(names.items(), (BLUE, ORANGE, GREEN, PURPLE)):
    x, y = _series(rows, name)
    if x:
      ax.plot(x, y, color=colour, label=label, linewidth=1.4)
      drawn = True
  ax.set(xlabel="step", ylabel=ylabel)
  if drawn and len(names) > 1:
    ax.legend(frameon=False)
  return drawn


def training(rows: Rows) -> Any:
  """Reward, entropy, gradient norm and length over training."""
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
  """Held-out accuracy against the training FLOPs spent; stars are the larger evaluations of the summary."""
  figure, ax = plt.subplots(figsize=(7, 4))
  for stage, colour, label in (("sft", GREY, "cold start"), ("rl", BLUE, "RL")):
    held = [row for row in rows if row["stage"] == stage and "eval/pass@1" in row]
    x = [row["flops/useful"] for row in held]
    ax.plot(x, [row["eval/pass@1"] for row in held], "o-", color=colour, label=label)
    low, high = ([row[f"eval/pass@1_{side}"] for row in held] for side in ("low", "high"))
    ax.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
  for arm, spent, colour in (("cold_start", "cold_start_flops", GREY), ("final", "train_flops", BLUE)):
    if arm in summary:
      y, (low, high) = summary[arm]["pass@1"], summary[arm]["pass@1_ci95"]
      error = [[y - low], [high - y]]
      ax.errorbar(summary[spent], y, error, fmt="*", color=colour, markersize=14, capsize=3)
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
  for ax, (title, held) in zip(axes[0], arms.items()):
    for kind, (colour, line, label) in styles.items():
      if kind in held:
        curve = held[kind]
        ax.plot(curve["x"], curve["y"], line, color=colour, label=label, markersize=4)
        ax.fill_between(curve["x"], curve["low"], curve["high"], color=colour, alpha=0.15, linewidth=0)
    if "natural" in held:
      ax.plot(
        held["natural"]["x"], held["natural"]["y"], "*", color=RED, markersize=14, label="stops by itself"
      )
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
  held = [row for row in rows if row.get("kl/k3", -1.0) >= 0 and "reward" in row]
  ax.plot([row["kl/k3"] ** 0.5 for row in held], [row["reward"] for row in held], ".", color=BLUE)
  ax.set(xlabel="sqrt of KL to the reference, sqrt(nats a token)", ylabel="mean reward")
  return figure


def draw_all(folder: pathlib.Path, rows: Rows, summary: Mapping[str, Any]) -> list[tuple[str, pathlib.Path]]:
  """Draws what the data allows into `folder`; returns (title, PNG path) in the report's order."""
  wanted: list[tuple[str, str, Any]] = []
  if "curves" in summary.get("final", {}):
    wanted.append(("Accuracy against test-time tokens", "test_time.png", lambda: test_time(summary)))
  wanted.append(("Training", "training.png", lambda: training(rows)))
  if any("eval/pass@1" in row for row in rows):
    wanted.append(("Accuracy against training FLOPs", "flops.png", lambda: flops(rows, summary)))
  if any(row["stage"] == "rl" for row in rows):
    wanted.append(("Completion length", "length.png", lambda: lengths(rows)))
    wanted.append(("Reflection and repetition", "words.png", lambda: words(rows)))
  if any("kl/k3" in row for row in rows):
    wanted.append(("Reward against sqrt KL", "kl.png", lambda: kl_frontier(rows)))
  return render(folder, wanted)


def render(
  folder: pathlib.Path, wanted: Sequence[tuple[str, str, Callable[[], Any]]]
) -> list[tuple[str, pathlib.Path]]:
  """Draws each (title, file name, maker of a figure) and writes it as a PNG; returns (title, path) in their order."""
  out = []
  for title, name, make in wanted:
    figure = make()
    figure.set_layout_engine("constrained")
    figure.suptitle(title)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=DPI)
    plt.close(figure)
    write_atomically(folder / name, picture.getvalue())
    out.append((title, folder / name))
  return out

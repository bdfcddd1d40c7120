"""Prints the figures of finished runs of one experiment, a column a run, as a Markdown table.

python scripts/seeds_table.py runs/quickstart-seed0 runs/quickstart-seed1 runs/quickstart-seed2
"""

import json
import pathlib
import sys
from typing import Any, Mapping

Summary = Mapping[str, Any]


def interval(value: float, ci95: list[float], sign: str = "") -> str:
  """A figure with its 95% interval."""
  low, high = ci95
  return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def accuracy(figures: Summary) -> str:
  """pass@1 with its interval."""
  return interval(figures["pass@1"], figures["pass@1_ci95"])


def gain(paired: Summary) -> str:
  """A paired difference with its interval."""
  return interval(paired["mean"], paired["ci95"], "+")


def change(summary: Summary, name: str, digits: int) -> str:
  """A figure before and after RL."""
  before, after = (summary[arm][name] for arm in ("cold_start", "final"))
  return f"{before:.{digits}f} → {after:.{digits}f}"


def commit(summary: Summary) -> str:
  """The commit that ran, where it ran from a repository."""
  git = summary["commit"]
  return "unknown" if git is None else f"`{git['commit'][:7]}`{' with changes' if git['dirty'] else ''}"


ROWS = {
  "commit": commit,
  "pass@1, cold start": lambda s: accuracy(s["cold_start"]),
  "pass@1, after RL": lambda s: accuracy(s["final"]),
  "gain (paired)": lambda s: gain(s["paired"]["final_minus_cold_start"]),
  "control: giving up forbidden": lambda s: accuracy(s["controls"]["no_give_up"]),
  "after RL minus that": lambda s: gain(s["paired"]["final_minus_no_give_up"]),
  "control: RL's FLOPs on more cold start": lambda s: accuracy(s["controls"]["more_sft"]),
  "after RL minus that ": lambda s: gain(s["paired"]["final_minus_more_sft"]),
  "forced budget, last minus first": lambda s: gain(s["final"]["curves"]["forced_budget_gain"]),
  "pass@8": lambda s: change(s, "pass@8", 3),
  "maj@8": lambda s: change(s, "maj@8", 3),
  "tokens a response": lambda s: change(s, "mean_length", 1),
  "tries a response": lambda s: change(s, "tries_per_response", 2),
  "success a try": lambda s: change(s, "success_per_try", 3),
  "useful training FLOPs": lambda s: f"{s['train_flops']:.3g}",
  "seconds: cold start, RL, evaluation, control, all": lambda s: ", ".join(
    f"{s['seconds'][name]:.0f}" for name in ("cold_start", "rl", "evaluation", "control", "total")
  ),
}


def main(runs: list[str]) -> int:
  if not runs:
    print("error: name the folders of finished runs", file=sys.stderr)
    return 2
  missing = [run for run in runs if not (pathlib.Path(run) / "summary.json").is_file()]
  if missing:
    print(f"error: {missing[0]}: holds no finished run (no summary.json)", file=sys.stderr)
    return 2
  summaries = [json.loads((pathlib.Path(run) / "summary.json").read_text(encoding="utf-8")) for run in runs]
  print("| | " + " | ".join(pathlib.Path(run).name for run in runs) + " |")
  print("|---|" + "---|" * len(runs))
  for label, cell in ROWS.items():
    print(f"| {label.strip()} | " + " | ".join(cell(summary) for summary in summaries) + " |")
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))

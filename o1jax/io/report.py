"""The report of a run: one self-contained HTML page and its PNGs, and the table that a run prints at its end."""

import base64
import html
import math
import pathlib
from typing import Any, Mapping, Sequence

from rich.table import Table

from o1jax.config import require
from o1jax.io import plots
from o1jax.io.data import write_atomically
from o1jax.io.log import read_lines, read_metrics
from o1jax.io.run_config import read_json

ARMS = {
  "cold_start": "cold start",
  "final": "after RL",
  "no_give_up": "cold start, giving up forbidden",
  "more_sft": "cold start, RL's FLOPs spent on more of it",
}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
img { max-width: 100%; } table { border-collapse: collapse; } td, th { padding: .3rem .8rem; border-bottom: 1px solid #ddd;
text-align: right; } td:first-child, th:first-child { text-align: left; }
.t { white-space: pre-wrap; border-left: 4px solid #c44; padding: .3rem .8rem; margin: .6rem 0; background: #faf7f7; overflow-wrap: anywhere; }
.t.ok { border-color: #2a7; background: #f6faf7; } .t small { color: #666; } .wide { overflow-x: auto; font-size: .85em; } .left td, .left th { text-align: left; vertical-align: top;
overflow-wrap: anywhere; } .wide.left td:last-child { min-width: 18rem; } code { font-size: .9em; }
"""


def arms(summary: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
  """(name, figures) of what a summary compares, in the order of the table."""
  held = {**summary, **summary.get("controls", {})}
  return [(label, held[name]) for name, label in ARMS.items() if name in held]


def spelt(value: Any, form: str) -> str:
  """A figure as `form` writes it; a dash where there is none, or a NaN as summary.json has it."""
  return f"{value:{form}}" if isinstance(value, int | float) and math.isfinite(value) else "–"


def _maj(figures: Mapping[str, Any]) -> str:
  return next(name for name in figures if name.startswith("maj@"))


def _headings(summary: Mapping[str, Any]) -> list[str]:
  """A narrow terminal shows the last one on two lines, so that all figures of an arm keep to one."""
  return ["held-out", "pass@1 [95%]", _maj(summary["final"]), "tokens", "tries", "success\na try"]


def _cells(figures: Mapping[str, Any], maj: str) -> list[str]:
  """An arm's figures; with fewer samples its maj@k has a k of its own, which it then names."""
  low, high = figures["pass@1_ci95"]
  own = _maj(figures)
  return [
    f"{figures['pass@1']:.3f} [{low:.3f}, {high:.3f}]",
    f"{figures[own]:.3f}" if own == maj else f"@{own.removeprefix('maj@')}: {figures[own]:.3f}",
    spelt(figures.get("mean_length"), ".1f"),
    spelt(figures.get("tries_per_response"), ".2f"),
    spelt(figures.get("success_per_try"), ".3f"),
  ]


def results_table(summary: Mapping[str, Any]) -> Table:
  """The figures of a finished run, as measured in it; they take one line an arm from a width of 80 on."""
  title = f"{summary['final']['problems']} held-out problems, {summary['final']['samples']} samples each"
  fewer = [figures["samples"] for figures in summary.get("controls", {}).values()]
  table = Table(title=f"{title} (controls: {fewer[0]})" if fewer else title)
  first, *others = _headings(summary)
  table.add_column(first)
  for heading in others:
    table.add_column(heading, justify="right", no_wrap=True)
  for label, figures in arms(summary):
    table.add_row(label, *_cells(figures, _maj(summary["final"])))
  return table


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """An HTML table of plain texts."""
  top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
  body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
  return f"<table><tr>{top}</tr>{body}</table>"


def picture(title: str, path: pathlib.Path) -> str:
  """A heading, and a PNG inside the page."""
  data, title = base64.b64encode(path.read_bytes()).decode(), html.escape(title)
  return f"<h2>{title}</h2><img alt='{title}' src='data:image/png;base64,{data}'>"


def page(title: str, body: Sequence[str]) -> bytes:
  """A whole HTML page of the parts in `body`, under its title."""
  title = html.escape(title)
  head = f"<meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>{title}</title>"
  return f"<!doctype html>{head}<style>{STYLE}</style><h1>{title}</h1>{''.join(body)}".encode()


def _html_table(summary: Mapping[str, Any]) -> str:
  rows = [[label, *_cells(figures, _maj(summary["final"]))] for label, figures in arms(summary)]
  return table(_headings(summary), rows)


def _gains(summary: Mapping[str, Any]) -> str:
  """What the run compares, each with its interval."""
  told = {
    f"after RL minus {ARMS[name.removeprefix('final_minus_')]}": gain
    for name, gain in summary.get("paired", {}).items()
  }
  forced = summary["final"].get("curves", {}).get("forced_budget_gain")
  if forced:
    told["largest forced budget minus smallest"] = forced
  lines = []
  for label, gain in told.items():
    low, high = gain["ci95"]
    lines.append(f"<li>{label}: {gain['mean']:+.3f} [{low:+.3f}, {high:+.3f}]</li>")
  about = "<p>Differences, paired by problem, with intervals each at 95%, not adjusted for their number:</p>"
  return f"{about}<ul>{''.join(lines)}</ul>" if lines else ""


def _transcript(row: Mapping[str, Any]) -> str:
  verdict = "correct" if row["correct"] else row["error"]
  kind = "t ok" if row["correct"] else "t"
  return (
    f"<div class='{kind}'><small>step {row['step']}, {html.escape(str(verdict))}, reward {row['reward']:g}</small><br>"
    f"<b>{html.escape(row['prompt'])}</b><br>{html.escape(row['completion'])}</div>"
  )


def _some(rows: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
  """The first and the last written completions, `count` in all."""
  half = count // 2
  return [*rows[:half], *rows[half:][-half:]]


def write_report(run: str) -> pathlib.Path:
  """Writes RUN/report.html and its PNGs from what the run has written so far; returns the page's path.

  Raises ConfigError where RUN holds no metrics, or a damaged line (named by file and row).
  """
  folder = pathlib.Path(run)
  require((folder / "metrics.jsonl").is_file(), str(folder), "holds no run (no metrics.jsonl)")
  metrics, rollouts = read_metrics(folder / "metrics.jsonl"), read_lines(folder / "rollouts.jsonl")
  path = folder / "summary.json"
  summary = read_json(path) if path.is_file() else {}
  pictures = plots.draw_all(folder, metrics, summary)
  body: list[str] = []
  if summary:
    body += [_html_table(summary), _gains(summary)]
    spent = ", ".join(f"{name} {value:.0f} s" for name, value in summary["seconds"].items())
    body.append(f"<p>{summary['train_flops']:.3g} useful training FLOPs; {html.escape(spent)}.</p>")
  else:
    body.append(
      "<p><b>The run has not finished:</b> no summary.json. What there is, up to its last step, follows.</p>"
    )
  body += [picture(title, path) for title, path in pictures]
  body.append("<h2>Transcripts</h2>" + "".join(map(_transcript, _some(rollouts, 16))))
  out = folder / "report.html"
  write_atomically(out, page(folder.name, body))
  return out

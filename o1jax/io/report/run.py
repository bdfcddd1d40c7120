"""Report of a run: one self-contained HTML page with its PNGs, and the table that a run prints at its end."""

import base64
import html
import math
import pathlib
from typing import Any, Mapping, Sequence

from rich.table import Table

from o1jax.config import require
from o1jax.io.files import write_atomically
from o1jax.io.log import read_lines, read_metrics
from o1jax.io.report import plots
from o1jax.io.run_config import read_json

ARMS = {
  "cold_start": "cold start",
  "final": "after RL",
  "no_give_up": "cold start, giving up forbidden",
  "more_sft": "cold start, RL's FLOPs spent on more of it",
}
TRANSCRIPTS = 16  # on a page: the first ones of a run and the last ones
STYLE = """
body {
  font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
}
img { max-width: 100%; }
table { border-collapse: collapse; }
td, th { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: right; }
td:first-child, th:first-child { text-align: left; }
.t {
  white-space: pre-wrap; overflow-wrap: anywhere; border-left: 4px solid #c44; background: #faf7f7;
  padding: .3rem .8rem; margin: .6rem 0;
}
.t.ok { border-color: #2a7; background: #f6faf7; }
.t small { color: #666; }
.wide { overflow-x: auto; font-size: .85em; }
.left td, .left th { text-align: left; vertical-align: top; overflow-wrap: anywhere; }
.wide.left td:last-child { min-width: 18rem; }
code { font-size: .9em; }
"""


def arms(summary: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
  """(label, metrics) of the arms that a summary compares, in the order of the table."""
  by_name = {**summary, **summary.get("controls", {})}
  return [(label, by_name[name]) for name, label in ARMS.items() if name in by_name]


def format_value(value: Any, form: str) -> str:
  """A number in the format `form`; a dash where it is missing, or a NaN as summary.json has it."""
  return f"{value:{form}}" if isinstance(value, int | float) and math.isfinite(value) else "–"


def _majority_metric(metrics: Mapping[str, Any]) -> str:
  return next(name for name in metrics if name.startswith("maj@"))


def _headings(summary: Mapping[str, Any]) -> list[str]:
  """Column headings. The last one takes two lines, so that a narrow terminal shows an arm on one."""
  return [
    "held-out", "pass@1 [95%]", _majority_metric(summary["final"]), "tokens", "tries", "success\na try",
  ]  # fmt: skip


def _cells(metrics: Mapping[str, Any], majority: str) -> list[str]:
  """The cells of an arm; its maj@k is named where its k is not that of `majority`."""
  low, high = metrics["pass@1_ci95"]
  own = _majority_metric(metrics)
  return [
    f"{metrics['pass@1']:.3f} [{low:.3f}, {high:.3f}]",
    f"{metrics[own]:.3f}" if own == majority else f"@{own.removeprefix('maj@')}: {metrics[own]:.3f}",
    format_value(metrics.get("mean_length"), ".1f"),
    format_value(metrics.get("tries_per_response"), ".2f"),
    format_value(metrics.get("success_per_try"), ".3f"),
  ]


def _rows(summary: Mapping[str, Any]) -> list[list[str]]:
  majority = _majority_metric(summary["final"])
  return [[label, *_cells(metrics, majority)] for label, metrics in arms(summary)]


def results_table(summary: Mapping[str, Any]) -> Table:
  """The terminal's table of a finished run; an arm takes one line from a width of 80 on."""
  title = f"{summary['final']['problems']} held-out problems, {summary['final']['samples']} samples each"
  fewer = [metrics["samples"] for metrics in summary.get("controls", {}).values()]
  table = Table(title=f"{title} (controls: {fewer[0]})" if fewer else title)
  first, *others = _headings(summary)
  table.add_column(first)
  for heading in others:
    table.add_column(heading, justify="right", no_wrap=True)
  for row in _rows(summary):
    table.add_row(*row)
  return table


# HTML


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """An HTML table of plain texts."""
  top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
  body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
  return f"<table><tr>{top}</tr>{body}</table>"


def picture(title: str, path: pathlib.Path) -> str:
  """A heading, and a PNG inside the page."""
  data, title = base64.b64encode(path.read_bytes()).decode(), html.escape(title)
  return f"<h2>{title}</h2><img alt='{title}' src='data:image/png;base64,{data}'>"


def write_page(folder: pathlib.Path, title: str, body: Sequence[str]) -> pathlib.Path:
  """Writes the HTML page of the parts in `body`, under its title, as FOLDER/report.html; returns its path."""
  title, out = html.escape(title), folder / "report.html"
  head = f"<meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>{title}</title>"
  page = f"<!doctype html>{head}<style>{STYLE}</style><h1>{title}</h1>{''.join(body)}"
  write_atomically(out, page.encode())
  return out


def _gains(summary: Mapping[str, Any]) -> str:
  """The paired differences of a run, each with its interval."""
  gains = {
    f"after RL minus {ARMS[name.removeprefix('final_minus_')]}": gain
    for name, gain in summary.get("paired", {}).items()
  }
  forced = summary["final"].get("curves", {}).get("forced_budget_gain")
  if forced:
    gains["largest forced budget minus smallest"] = forced
  lines = []
  for label, gain in gains.items():
    low, high = gain["ci95"]
    lines.append(f"<li>{label}: {gain['mean']:+.3f} [{low:+.3f}, {high:+.3f}]</li>")
  about = "<p>Differences, paired by problem, with intervals each at 95%, not adjusted for their number:</p>"
  return f"{about}<ul>{''.join(lines)}</ul>" if lines else ""


def _transcript(row: Mapping[str, Any]) -> str:
  verdict = html.escape("correct" if row["correct"] else str(row["error"]))
  kind = "t ok" if row["correct"] else "t"
  return (
    f"<div class='{kind}'><small>step {row['step']}, {verdict}, reward {row['reward']:g}</small><br>"
    f"<b>{html.escape(row['prompt'])}</b><br>{html.escape(row['completion'])}</div>"
  )


def write_report(run: str) -> pathlib.Path:
  """Writes RUN/report.html and its PNGs from the files of a run, finished or not; returns the page's path.

  Raises ConfigError where RUN holds no metrics, or a damaged line (named by file and row).
  """
  folder = pathlib.Path(run)
  require((folder / "metrics.jsonl").is_file(), str(folder), "holds no run (no metrics.jsonl)")
  metrics, rollouts = read_metrics(folder / "metrics.jsonl"), read_lines(folder / "rollouts.jsonl")
  path = folder / "summary.json"
  summary = read_json(path) if path.is_file() else {}
  pictures = plots.draw_run(folder, metrics, summary)
  if summary:
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in summary["seconds"].items())
    flops = f"<p>{summary['train_flops']:.3g} useful training FLOPs; {html.escape(seconds)}.</p>"
    body = [html_table(_headings(summary), _rows(summary)), _gains(summary), flops]
  else:
    why = "no summary.json. What there is, up to its last step, follows."
    body = [f"<p><b>The run has not finished:</b> {why}</p>"]
  body += [picture(title, path) for title, path in pictures]
  half = TRANSCRIPTS // 2
  shown = [*rollouts[:half], *rollouts[half:][-half:]]
  body.append("<h2>Transcripts</h2>" + "".join(map(_transcript, shown)))
  return write_page(folder, folder.name, body)

"""Report of a sweep: its folder read back, and one self-contained HTML page with its PNGs.

    results.json (or sweep.json of an unfinished sweep) + each member's metrics.jsonl -> members
            -> findings, ranking, plots

Damage is refused in one line that names file and field.
"""

import html
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from o1jax.config import require
from o1jax.config.sweep import Check, Claim
from o1jax.io.log import NON_FINITE, read_metrics
from o1jax.io.report import sweep_plots
from o1jax.io.report.run import html_table, picture, write_page
from o1jax.io.run_config import read_json, struct_from_dict
from o1jax.scaling.claims import test_claim
from o1jax.scaling.findings import Curves, Finding, MemberResult, format_interval, outcomes
from o1jax.scaling.ranking import Rank, rank_arms, reading

FINISHED, STARTED = "results.json", "sweep.json"
HEAD: dict[str, type | tuple[type, ...]] = {
  "name": str, "experiment": (str, type(None)), "command": str, "claim": dict, "arms": list, "seeds": list,
  "steps": int, "layout": str, "meta": dict,
}  # fmt: skip
NUMBER = (int, float)
# Final metrics in the table by arm, beside the accuracies: metric -> heading.
TABLED = {
  "kl_reverse": "KL, nats a token",
  "last/entropy": "entropy, last quarter",
  "last/completions/mean_length": "tokens, last quarter",
  "last/incorrect/mean_length": "tokens where wrong, last quarter",
  "last/reward": "reward, last quarter",
}


def holds_sweep(folder: str | pathlib.Path) -> bool:
  """Whether a folder is a sweep's, finished or not."""
  return any((pathlib.Path(folder) / name).is_file() for name in (FINISHED, STARTED))


def read_members(folder: str | pathlib.Path) -> tuple[dict[str, Any], list[MemberResult]]:
  """The head of a sweep (results.json or sweep.json without "members") and its members.

  Of an unfinished sweep: those members that have begun, with curves and without final figures. Raises
  ConfigError naming file and field where something is missing or of another type.
  """
  folder = pathlib.Path(folder)
  require(holds_sweep(folder), str(folder), f"holds no sweep (neither {FINISHED} nor {STARTED})")
  path = folder / (FINISHED if (folder / FINISHED).is_file() else STARTED)
  head = read_json(path)
  for name, kind in HEAD.items():
    _typed(head, name, kind, f"{path}: {name}")
  seconds = _typed(head, "seconds", dict, f"{path}: seconds") if "seconds" in head else {}
  for name, value in seconds.items():
    _number(value, f"{path}: seconds.{name}")
  checks_of(head, str(path))
  strengths = _strengths(head["arms"], f"{path}: arms")
  if path.name == STARTED:
    return head, _begun(folder, strengths, head["seeds"])
  rows = _typed(head, "members", list, f"{path}: members")
  members = [_member(folder, row, strengths, f"{path}: members[{i}]") for i, row in enumerate(rows)]
  require(len(members) > 0, f"{path}: members", "are none")
  return {name: value for name, value in head.items() if name != "members"}, members


def checks_of(head: Mapping[str, Any], file: str) -> tuple[Check, ...]:
  """The claim's checks. Raises ConfigError that begins with `file` where the claim is damaged."""
  return struct_from_dict(Claim, head["claim"], file, "claim").checks


def findings(folder: str | pathlib.Path) -> list[Finding]:
  """The findings of a finished sweep; the same at every call."""
  head, members = read_members(folder)
  return test_claim(checks_of(head, str(folder)), members, np.random.default_rng(0))


def _typed(row: Any, name: str, kind: type | tuple[type, ...], field: str) -> Any:
  require(isinstance(row, dict), field, "is in no JSON object")
  require(name in row, field, "is missing")
  value = row[name]
  require(isinstance(value, kind) and not isinstance(value, bool), field, f"cannot be {value!r:.40}")
  return value


def _strengths(arms: list, field: str) -> dict[str, float | None]:
  strengths = {}
  for i, arm in enumerate(arms):
    name = _typed(arm, "name", str, f"{field}[{i}].name")
    strengths[name] = _typed(arm, "strength", (*NUMBER, type(None)), f"{field}[{i}].strength")
  return strengths


def _number(value: Any, field: str) -> float:
  value = NON_FINITE.get(value, value) if isinstance(value, str) else value
  number = isinstance(value, NUMBER) and not isinstance(value, bool)
  require(number, field, f"wants a number, has {value!r:.40}")
  return float(value)


def _member(
  folder: pathlib.Path, row: Any, strengths: Mapping[str, float | None], field: str
) -> MemberResult:
  arm, seed = _typed(row, "arm", str, f"{field}.arm"), _typed(row, "seed", int, f"{field}.seed")
  require(arm in strengths, f"{field}.arm", f"{arm!r} is no arm")
  bad = _typed(row, "bad_step", (int, type(None)), f"{field}.bad_step")
  final = _typed(row, "final", dict, f"{field}.final")
  final = {name: _number(value, f"{field}.final.{name}") for name, value in final.items()}
  problems = {}
  for name, values in _typed(row, "by_problem", dict, f"{field}.by_problem").items():
    own = f"{field}.by_problem.{name}"
    require(isinstance(values, list) and len(values) > 0, own, "wants a list of numbers")
    problems[name] = np.array([_number(value, own) for value in values])
  curves = _curves(folder / f"{arm}-seed{seed}" / "metrics.jsonl")
  return MemberResult(arm, strengths[arm], seed, final, problems, curves, bad)


def _begun(
  folder: pathlib.Path, strengths: Mapping[str, float | None], seeds: Sequence[int]
) -> list[MemberResult]:
  """The members of an unfinished sweep that have metrics."""
  members = []
  for arm, strength in strengths.items():
    for seed in seeds:
      path = folder / f"{arm}-seed{seed}" / "metrics.jsonl"
      if path.is_file():
        members.append(MemberResult(arm, strength, seed, {}, {}, _curves(path)))
  return members


def _curves(path: pathlib.Path) -> Curves:
  """metric -> steps, values of the RL lines of a metrics.jsonl."""
  curves: dict[str, tuple[list, list]] = {}
  rows = [row for row in read_metrics(path) if row.get("stage") == "rl"]
  for row in rows:
    for name in row.keys() - {"step", "stage", "time"}:
      steps, values = curves.setdefault(name, ([], []))
      steps.append(row["step"])
      values.append(_number(row[name], f"{path}: step {row['step']}: {name}"))
  return {name: (np.array(steps), np.array(values)) for name, (steps, values) in curves.items()}


def _format(mean: float, ci95: tuple[float, float], plus: str = "") -> str:
  return f"{mean:{plus}.3f} {format_interval(ci95, f'{plus}.3f')}"


def _claim(claim: Mapping[str, Any], results: Sequence[Finding]) -> list[str]:
  """The claim and its findings."""
  text, source, figure = (html.escape(claim[name]) for name in ("text", "source", "figure"))
  body = [f"<h2>Claim</h2><p>{text}</p><p>Source: {source}. There: {figure}.</p>"]
  if results:
    rows = [[f.check, f.measured, f.holds, f.reading] for f in results]
    head = ["check", "measured [each at 95%]", "holds", "reading"]
    body.append(f"<div class='wide left'>{html_table(head, rows)}</div>")
  return body


def _ranking(ranks: Sequence[Rank], metric: str) -> list[str]:
  """The arms in their order, each against the best."""
  rows = []
  for rank in ranks:
    strength = "" if rank.strength is None else f"{rank.strength:g}"
    row = [rank.arm, strength, _format(rank.effect.mean, rank.effect.ci95), str(rank.effect.seeds)]
    gap = rank.behind
    against = ["", "", "", ""]
    if gap is not None:
      share = f"{gap.share_at_most_zero:.3f}"
      against = [_format(gap.mean, gap.ci95, "+"), f"{gap.above} of {gap.seeds}", share, f"{rank.p:.3g}"]
    rows.append([*row, *against])
  head = ["arm", "strength", f"{metric} [95%]", "seeds", "best minus this [each at 95%]",
          "seeds above 0", "resamples not above 0", "p (Holm)"]  # fmt: skip
  about = (
    "Intervals span a bootstrap over seeds and problems and Student's t over the seeds: resampling three or"
    " four seeds alone understates what other seeds would do, so the share of resamples is no p-value. Each"
    " interval is at 95% by itself, so that one of a difference can leave out 0 where p, which is adjusted"
    " for all pairs of arms, is above 0.05. The best arm was chosen for its mean, which is therefore biased"
    " upwards, as are its differences."
  )
  return [
    f"<h2>Which arm is best</h2><p>{html.escape(reading(ranks, metric))}</p>",
    f"<div class='wide'>{html_table(head, rows)}</div><p><small>{about}</small></p>",
  ]


def _finals(members: Sequence[MemberResult]) -> list[str]:
  """Final metrics by arm: mean over the seeds, with the lowest and the highest of them."""
  names = dict.fromkeys(name for m in members for name in m.final if name.endswith("/pass@1"))
  headings = {name: name for name in names}
  headings |= {name: text for name, text in TABLED.items() if any(name in m.final for m in members)}
  values = {name: outcomes(members, name) for name in headings}
  rows = []
  for arm in dict.fromkeys(m.arm for m in members):
    seeds = [[float(v.mean()) for v in values[name].get(arm, {}).values()] for name in headings]
    cells = [f"{np.mean(s):.3g} ({min(s):.3g} to {max(s):.3g})" if s else "–" for s in seeds]
    rows.append([arm, *cells])
  head = ["arm", *headings.values()]
  return [f"<h2>Final figures</h2><div class='wide'>{html_table(head, rows)}</div>"]


def _stopped(members: Sequence[MemberResult]) -> list[str]:
  bad = [f"{m.arm}, seed {m.seed}: step {m.bad_step}" for m in members if m.bad_step is not None]
  if not bad:
    return []
  items = "".join(f"<li>{html.escape(text)}</li>" for text in bad)
  title = "<h2>Stopped by a NaN or an infinity</h2>"
  return [f"{title}<p>They have no part in final figures.</p><ul>{items}</ul>"]


def _machine(head: Mapping[str, Any]) -> list[str]:
  """How the sweep was made: command, layout, seconds, versions, commit."""
  meta = head["meta"]
  rows = [["experiment", str(head["experiment"] or "")], ["command", head["command"]]]
  rows += [["seeds", ", ".join(map(str, head["seeds"]))], ["steps", str(head["steps"])]]
  rows.append(["layout", head["layout"]])
  rows += [[f"seconds: {name}", f"{value:.0f}"] for name, value in head.get("seconds", {}).items()]
  git = meta.get("git")
  commit = f"{git['commit']}{', with changes' if git['dirty'] else ''}" if git else "unknown"
  rows += [["commit", commit], ["date", str(meta.get("date", ""))]]
  rows += [[name, str(meta[name])] for name in ("python", "platform") if name in meta]
  rows += [[name, str(version)] for name, version in meta.get("packages", {}).items()]
  if "device" in meta:
    rows.append(["device", ", ".join(str(value) for value in meta["device"].values())])
  return [f"<h2>How it was made</h2><div class='left'>{html_table(['what', 'value'], rows)}</div>"]


def write_sweep_report(folder: str | pathlib.Path) -> pathlib.Path:
  """Writes FOLDER/report.html and its PNGs from a sweep, finished or not; returns the page's path.

  Raises ConfigError as `read_members` does.
  """
  folder = pathlib.Path(folder)
  head, members = read_members(folder)
  checks, rng = checks_of(head, str(folder)), np.random.default_rng(0)
  finished = (folder / FINISHED).is_file()
  pictures = sweep_plots.draw_sweep(folder, members, checks)
  body = [] if finished else [_notice(head, members)]
  body += _claim(head["claim"], test_claim(checks, members, rng) if finished else [])
  if finished:
    candidates = [sweep_plots.HELD_OUT, *(check.metric for check in checks)]
    metric = next((name for name in candidates if outcomes(members, name)), sweep_plots.HELD_OUT)
    body += _ranking(rank_arms(members, metric, rng), metric)
  body += [picture(title, path) for title, path in pictures]
  body += [*(_finals(members) if finished else []), *_stopped(members), *_machine(head)]
  return write_page(folder, head["name"], body)


def _notice(head: Mapping[str, Any], members: Sequence[MemberResult]) -> str:
  last = max((int(steps[-1]) for m in members for steps, _ in m.curves.values()), default=0)
  planned = len(head["arms"]) * len(head["seeds"])
  begun = f"{len(members)} of {planned} members have begun, and their last step is {last} of {head['steps']}"
  follows = "What there is follows; nothing is tested yet."
  return f"<p><b>The sweep has not finished:</b> no {FINISHED}. {begun}. {follows}</p>"

"""The report of a run: one page that holds all it shows, and a table whose figures stay on one line."""

import base64
import html.parser
import io
import json
import pathlib
from typing import Any

import numpy as np
import pytest
import rich.console

from o1jax.config import ConfigError
from o1jax.io.report.run import arms, results_table, write_report

PNG = b"\x89PNG\r\n\x1a\n"
NASTY = "<script>alert('1 < 2 & 3')</script> https://example.org \"quoted\" ünïcode"


def figures(mean: float, k: int, **more: Any) -> dict[str, Any]:
  """What summary.json holds of one evaluation."""
  return {
    "pass@1": mean, "pass@1_ci95": [mean - 0.0185, mean + 0.019], f"pass@{k}": mean, f"maj@{k}": mean + 0.001,
    "mean_length": 100 * mean, "tries_per_response": 10.25, "success_per_try": mean / 10, "problems": 512,
    "samples": k, **more,
  }  # fmt: skip


def curve(*x: float) -> dict[str, list]:
  return {
    "x": list(x),
    "y": [0.2] * len(x),
    "low": [0.1] * len(x),
    "high": [0.3] * len(x),
    "count": [9] * len(x),
  }


CURVES = {
  "pooled": curve(3.0, 9.0), "within_prompt": curve(4.0, 8.0), "natural": curve(6.0),
  "forced_budget": curve(8.0, 16.0), "best_of_n": curve(8.0, 16.0),
  "forced_budget_gain": {"mean": 0.1, "ci95": [0.0, 0.2], "share_at_most_zero": 0.02},
}  # fmt: skip
SUMMARY: dict[str, Any] = {
  "final": figures(0.6861, 8, curves=CURVES),
  "cold_start": figures(0.2863, 8, curves=CURVES),
  "controls": {"no_give_up": figures(0.3712, 2), "more_sft": figures(0.4123, 2, steps=7)},
  "paired": {
    f"final_minus_{name}": {"mean": mean, "ci95": [mean - 0.1, mean + 0.1], "share_at_most_zero": 0.0}
    for name, mean in (("cold_start", 0.4), ("no_give_up", 0.315), ("more_sft", -0.05))
  },
  "train_flops": 1.25e13, "cold_start_flops": 4e12, "steps": 4, "commit": None,
  "seconds": {"cold_start": 61.2, "rl": 90.7, "evaluation": 12.0, "total": 170.0},
}  # fmt: skip
LABELS = ["cold start", "after RL", "cold start, giving up forbidden",
          "cold start, RL's FLOPs spent on more of it"]  # fmt: skip


def metrics() -> list[dict[str, Any]]:
  shared = {"time": 1.0, "loss": 1.0, "grad_norm": "NaN", "step_time": 0.1}
  evaluated = {"eval/pass@1": 0.3, "eval/pass@1_low": 0.2, "eval/pass@1_high": 0.4, "eval/mean_length": 9.0}
  words = {f"reflection/{word}_rate": 0.5 for word in ("wait", "check", "alternatively")}
  lengths = {"completions/mean_length": 9.0, "completions/max_length": 16.0, "repetition_rate": 0.0}
  rl = {"stage": "rl", "reward": 0.4, "entropy": 1.1, "kl/k3": 0.01, **lengths, **words}
  rows: list[dict[str, Any]] = [{"stage": "sft", "nll": 2.0}, {"stage": "sft", "nll": 1.5, **evaluated}]
  rows += [rl, {**rl, **evaluated}]
  return [{"step": i, **shared, "flops/useful": 1e9 * i, **row} for i, row in enumerate(rows, start=1)]


def rollouts(count: int) -> list[dict[str, Any]]:
  return [
    {
      "step": i, "stage": "rl", "problem_id": f"p{i}", "prompt": f"prompt {i} <b>",
      "completion": f"{NASTY} number {i};",
      "reward": float(i % 2), "correct": bool(i % 2), "error": None if i % 2 else "wrong <value>",
    }
    for i in range(count)
  ]  # fmt: skip


def folder_of(path: pathlib.Path, rows: list, completions: list, summary: dict | None) -> pathlib.Path:
  path.mkdir()
  for name, lines in (("metrics.jsonl", rows), ("rollouts.jsonl", completions)):
    (path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
  if summary is not None:
    (path / "summary.json").write_text(json.dumps(summary))
  return path


class Page(html.parser.HTMLParser):
  """A page's tags with their attributes, and its text by the tag that holds it."""

  def __init__(self, text: str):
    super().__init__()
    self.tags: list[tuple[str, dict[str, str | None]]] = []
    self.texts: list[tuple[str, str]] = []
    self.feed(text)

  def handle_starttag(self, tag: str, attributes: list) -> None:
    self.tags.append((tag, dict(attributes)))

  def handle_data(self, data: str) -> None:
    self.texts.append((self.tags[-1][0] if self.tags else "", data))

  @property
  def text(self) -> str:
    return " ".join(" ".join(data for _, data in self.texts).split())


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
  folder = folder_of(tmp_path_factory.mktemp("runs") / "a&b", metrics(), rollouts(40), SUMMARY)
  assert write_report(str(folder)) == folder / "report.html"
  return folder


@pytest.fixture(scope="module")
def page(run) -> Page:
  return Page((run / "report.html").read_text(encoding="utf-8"))


def test_the_page_needs_nothing_beside_itself(page) -> None:
  named = [
    value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")
  ]
  assert named and all(value.startswith("data:image/png;base64,") for value in named)
  assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "a"}
  (style,) = (data for tag, data in page.texts if tag == "style")
  assert "url(" not in style and "@import" not in style


def test_every_picture_is_a_file_and_in_the_page(run, page) -> None:
  files = {path.name: path.read_bytes() for path in run.glob("*.png")}
  assert set(files) == {"test_time.png", "training.png", "flops.png", "length.png", "words.png", "kl.png"}
  assert all(data.startswith(PNG) and data.endswith(b"IEND\xaeB`\x82") for data in files.values())
  shown = [attributes["src"].partition(",")[2] for tag, attributes in page.tags if tag == "img"]
  assert sorted(base64.b64decode(data) for data in shown) == sorted(files.values())
  titles = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
  assert titles == [data for tag, data in page.texts if tag == "h2"][:-1] and len(set(titles)) == 6


def test_transcripts_are_text_with_their_verdicts(page) -> None:
  kinds = [attributes.get("class") for tag, attributes in page.tags if tag == "div"]
  assert kinds == ["t", "t ok"] * 8
  # The first eight of forty, and the last eight.
  for i in (*range(8), *range(32, 40)):
    verdict = "correct, reward 1" if i % 2 else "wrong <value>, reward 0"
    assert f"step {i}, {verdict}" in page.text
    assert f"prompt {i} <b> {NASTY} number {i};" in page.text
  assert "number 8;" not in page.text and "number 31;" not in page.text


def test_the_page_tells_every_figure_of_every_arm(page) -> None:
  cells = [data for tag, data in page.texts if tag == "td"]
  rows = [cells[i : i + 6] for i in range(0, len(cells), 6)]
  assert [row[0] for row in rows] == LABELS
  assert rows[1] == ["after RL", "0.686 [0.668, 0.705]", "0.687", "68.6", "10.25", "0.069"]
  assert rows[3][2] == "@2: 0.413"
  gains = [data for tag, data in page.texts if tag == "li"]
  assert gains == [
    "after RL minus cold start: +0.400 [+0.300, +0.500]",
    "after RL minus cold start, giving up forbidden: +0.315 [+0.215, +0.415]",
    "after RL minus cold start, RL's FLOPs spent on more of it: -0.050 [-0.150, +0.050]",
    "largest forced budget minus smallest: +0.100 [+0.000, +0.200]",
  ]
  assert (
    "1.25e+13 useful training FLOPs; cold_start 61 s, rl 91 s, evaluation 12 s, total 170 s." in page.text
  )
  assert "has not finished" not in page.text and page.text.startswith("a&b")
  assert "paired by problem, with intervals each at 95%, not adjusted for their number" in page.text


def test_an_unfinished_run_says_so_and_shows_what_there_is(tmp_path) -> None:
  folder = folder_of(tmp_path / "run", metrics()[:1], [], None)
  with open(folder / "metrics.jsonl", "a") as file:
    file.write('{"step": 2, "sta')  # torn by a kill
  page = Page(write_report(str(folder)).read_text(encoding="utf-8"))
  assert "The run has not finished: no summary.json." in page.text
  assert [path.name for path in folder.glob("*.png")] == ["training.png"]
  assert "table" not in {tag for tag, _ in page.tags}


@pytest.mark.parametrize("name", ["metrics.jsonl", "rollouts.jsonl"])
def test_a_damaged_line_is_named_by_file_and_row(tmp_path, name) -> None:
  folder = folder_of(tmp_path / "run", metrics(), rollouts(4), None)
  lines = (folder / name).read_text().splitlines(keepends=True)
  (folder / name).write_text("".join([lines[0], lines[1][:20] + "\n", *lines[2:]]))
  with pytest.raises(ConfigError, match=f"{name}: row 2 is not a JSON object with a step$"):
    write_report(str(folder))
  assert not (folder / "report.html").exists()


def test_a_folder_without_a_run_is_named(tmp_path) -> None:
  for folder in (tmp_path, tmp_path / "nowhere"):
    with pytest.raises(ConfigError, match=rf"{folder.name}: holds no run \(no metrics.jsonl\)$"):
      write_report(str(folder))


def shown(summary: dict[str, Any], width: int) -> list[str]:
  """The lines of the results table on a terminal of that width."""
  console = rich.console.Console(file=io.StringIO(), width=width)
  console.print(results_table(summary))
  return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100, 200])
def test_every_arms_figures_take_one_line(width) -> None:
  lines = shown(SUMMARY, width)
  assert max(map(len, lines)) <= width
  figures_of = [line.split("│")[2:-1] for line in lines if "[0." in line]
  assert [[cell.strip() for cell in row] for row in figures_of] == [
    ["0.286 [0.268, 0.305]", "0.287", "28.6", "10.25", "0.029"],
    ["0.686 [0.668, 0.705]", "0.687", "68.6", "10.25", "0.069"],
    ["0.371 [0.353, 0.390]", "@2: 0.372", "37.1", "10.25", "0.037"],
    ["0.412 [0.394, 0.431]", "@2: 0.413", "41.2", "10.25", "0.041"],
  ]
  labels = " ".join(" ".join(line.split("│")[1].split()) for line in lines if line.startswith("│"))
  assert labels.split() == " ".join(LABELS).split()  # no label is cut short
  assert "512 held-out problems, 8 samples each (controls: 2)" in lines[0]
  headings = " ".join(lines[:4])
  assert "maj@8" in headings and "maj@k" not in headings


def test_the_table_holds_the_arms_that_ran() -> None:
  alone = {"final": figures(np.float64(0.5), 3), "controls": {}}
  assert [label for label, _ in arms(alone)] == ["after RL"]
  lines = shown(alone, 80)
  assert "3 samples each" in lines[0] and "controls" not in lines[0] and "maj@3" in " ".join(lines)
  assert [label for label, _ in arms(SUMMARY)] == LABELS


@pytest.mark.parametrize("missing", [None, "NaN"])
def test_a_figure_that_is_missing_is_a_dash(tmp_path, missing) -> None:
  summary = {**SUMMARY, "final": figures(0.6861, 8) | {"success_per_try": missing}}
  page = Page(write_report(str(folder_of(tmp_path / "run", metrics(), rollouts(2), summary))).read_text())
  assert ("td", "–") in page.texts

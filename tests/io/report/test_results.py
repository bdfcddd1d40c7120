"""The table of sweeps in RESULTS.md: rows come and go, everything else stays byte for byte."""

import dataclasses
import pathlib

import pytest

from o1jax.config import ConfigError
from o1jax.io.report.results import COLUMNS, HEADING, ResultsRow, record, rows_of
from o1jax.scaling.findings import Finding

RESULTS = pathlib.Path(__file__).parents[3] / "experiments" / "RESULTS.md"
ROW = ResultsRow(
  "less KL: a above b", "84.3", "+0.050 [+0.020, +0.080], 4 of 4", 4, "yes", "2026-01-02", "`0123456`"
)
BEFORE = "# Results\n\nText with a | pipe.\n\n## Another\n\n| x |\n|---|\n| `kl` | no row of ours |\n"


def row(claim: str) -> ResultsRow:
  return dataclasses.replace(ROW, claim=claim)


def table_of(text: str) -> list[str]:
  lines = text.split(HEADING + "\n")[1].split("\n## ")[0].split("\n")
  return [line for line in lines if line.startswith("|")][2:]


def test_a_heading_and_a_table_are_made_at_the_end(tmp_path) -> None:
  path = tmp_path / "RESULTS.md"
  path.write_text(BEFORE)
  record(path, "kl", [row("one"), row("two")])
  text = path.read_text()
  assert text.startswith(BEFORE + "\n" + HEADING + "\n\n| " + " | ".join(COLUMNS) + " |\n|---|")
  assert [line.split(" | ")[:2] for line in table_of(text)] == [["| `kl`", "one"], ["| `kl`", "two"]]
  assert "| 84.3 | +0.050 [+0.020, +0.080], 4 of 4 | 4 | yes | 2026-01-02 | `0123456` |" in text
  assert text.endswith("|\n") and list(tmp_path.iterdir()) == [path]


def test_recording_twice_changes_nothing(tmp_path) -> None:
  path = tmp_path / "RESULTS.md"
  path.write_bytes(RESULTS.read_bytes())
  record(path, "kl", [row("one"), row("two")])
  once = path.read_bytes()
  assert once.startswith(RESULTS.read_bytes().rstrip()) or HEADING in RESULTS.read_text()
  record(path, "kl", [row("one"), row("two")])
  assert path.read_bytes() == once


def test_rows_are_replaced_where_they_stand_by_more_or_fewer(tmp_path) -> None:
  path = tmp_path / "RESULTS.md"
  for name in ("first", "kl", "kl --full", "last"):
    record(path, name, [row(name)])
  path.write_text(path.read_text() + "\nWords below.\n\n## Next\n\n| a | b |\n")
  full = path.read_text()
  record(path, "kl", [row("x"), row("y"), row("z")])
  keys = [line.split(" | ")[:2] for line in table_of(path.read_text())]
  assert [claim for _, claim in keys] == ["first", "x", "y", "z", "kl --full", "last"]
  record(path, "kl", [row("kl")])
  assert path.read_text() == full
  record(path, "kl", [])
  assert path.read_text() == full.replace(next(x for x in table_of(full) if "`kl`" in x) + "\n", "")


def test_pipes_and_line_ends_stay_in_their_cell(tmp_path) -> None:
  path = tmp_path / "RESULTS.md"
  for _ in range(2):
    record(path, "a|b", [row("P(x|y)\nrises")])
  (line,) = table_of(path.read_text())
  assert line.startswith("| `a\\|b` | P(x\\|y) rises | ")


def test_a_heading_without_a_table_gets_one(tmp_path) -> None:
  path = tmp_path / "RESULTS.md"
  path.write_text(f"# Results\n\n{HEADING}\n\nWhat they show.\n\n## Next\n\n| a |\n|---|\n")
  record(path, "kl", [ROW])
  text = path.read_text()
  assert len(table_of(text)) == 1 and "\n\nWhat they show.\n\n## Next\n\n| a |\n|---|\n" in text


@pytest.mark.parametrize("content", [f"{HEADING}\n\n| other | columns |\n|---|---|\n".encode(), b"\xff\xfe"])
def test_what_cannot_be_recorded_names_the_file_and_changes_nothing(tmp_path, content) -> None:
  path = tmp_path / "RESULTS.md"
  path.write_bytes(content)
  with pytest.raises(ConfigError, match="RESULTS.md"):
    record(path, "kl", [ROW])
  assert path.read_bytes() == content


def test_a_place_that_cannot_be_written_is_named(tmp_path) -> None:
  (tmp_path / "file").write_text("")
  with pytest.raises(ConfigError, match="RESULTS.md: cannot be"):
    record(tmp_path / "file" / "RESULTS.md", "kl", [ROW])


def test_rows_of_a_sweep() -> None:
  head = {
    "claim": {"text": "Less is more", "source": "a paper", "figure": "50", "checks": []},
    "meta": {"git": {"commit": "0123456789", "dirty": True}, "date": "2026-01-02"},
  }
  results = [Finding(text, "+1.0", 1.0, (0.5, 1.5), 0.01, "yes", "", 3) for text in ("a above b", "c falls")]
  first, second = rows_of(head, results)
  assert first == ResultsRow(
    "Less is more (a paper): a above b", "50", "+1.0", 3, "yes", "2026-01-02", "`0123456` + changes"
  )
  assert second.claim == "c falls"
  assert rows_of({**head, "meta": {"git": None, "date": ""}}, results)[0].commit == "unknown"

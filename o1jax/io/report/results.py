"""The table of sweeps in experiments/RESULTS.md: one row a check, replaced when its experiment runs again.

All other lines stay byte for byte, and the file is written atomically. Left out: two sweeps that end in the
same instant (the later one wins).
"""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from o1jax.config import ConfigError, require
from o1jax.io.files import write_atomically
from o1jax.scaling.findings import Finding

HEADING = "## Sweeps"
COLUMNS = (
  "experiment", "claim", "paper's figure", "ours [95%], by seed", "seeds", "holds", "date", "commit",
)  # fmt: skip
_CELL = re.compile(r"(?<!\\)\|")


@dataclasses.dataclass(frozen=True)
class ResultsRow:
  """A row of the table: one check of an experiment."""

  claim: str
  figure: str  # the paper's own
  ours: str  # with its interval
  seeds: int
  holds: str
  date: str  # YYYY-MM-DD
  commit: str


def rows_of(head: Mapping[str, Any], findings: Sequence[Finding]) -> list[ResultsRow]:
  """The rows of a finished sweep, the claim's text in the first; `head` as of `sweep.read_members`."""
  claim, git = head["claim"], head["meta"].get("git")
  commit = f"`{git['commit'][:7]}`{' + changes' if git['dirty'] else ''}" if git else "unknown"
  texts = [f"{claim['text']} ({claim['source']}): "] + [""] * len(findings)
  figure, date = claim["figure"], head["meta"]["date"]
  return [
    ResultsRow(f"{text}{f.check}", figure, f.measured, f.seeds, f.holds, date, commit)
    for text, f in zip(texts, findings)
  ]


def record(path: str | pathlib.Path, experiment: str, rows: Sequence[ResultsRow]) -> None:
  """Puts `rows` into the table under "## Sweeps", in place of the experiment's old ones or after the last
  row.

  experiment: the key, a name followed by " --full" for that variant. A missing file, heading or table is
  created. Raises ConfigError naming the file where it is no text, cannot be written, or has another table
  under the heading.
  """
  path = pathlib.Path(path)
  try:
    lines = path.read_bytes().decode().split("\n") if path.exists() else ["# Results", ""]
  except (OSError, ValueError) as error:
    raise ConfigError(f"{path}: cannot be read as text: {error}") from error
  first, end = _table(lines, path)
  old = [i for i in range(first, end) if _key(lines[i]) == _escaped(f"`{experiment}`")]
  at = old[0] if old else end
  lines = [line for i, line in enumerate(lines) if i not in old]
  lines[at:at] = [_line([f"`{experiment}`", *map(str, dataclasses.astuple(row))]) for row in rows]
  write_atomically(path, "\n".join(lines).encode())


def _table(lines: list[str], path: pathlib.Path) -> tuple[int, int]:
  """Start and end of the table's rows; heading and table are added to `lines` where they are missing."""
  stripped = [line.strip() for line in lines]
  head = [_line(COLUMNS), "|" + "---|" * len(COLUMNS)]
  if HEADING not in stripped:
    while lines and not lines[-1].strip():
      lines.pop()
    lines += ["", HEADING, "", *head, ""]
    return len(lines) - 1, len(lines) - 1
  section = stripped.index(HEADING) + 1
  after = next((i for i in range(section, len(lines)) if stripped[i].startswith("## ")), len(lines))
  start = next((i for i in range(section, after) if stripped[i].startswith("|")), None)
  if start is None:
    lines[section:section] = ["", *head, *([] if section < len(lines) and not stripped[section] else [""])]
    return section + 3, section + 3
  require(stripped[start] == head[0], f"{path}: row {start + 1}", f"is no table of {', '.join(COLUMNS)}")
  rows = next((i for i in range(start, after) if not stripped[i].startswith("|")), after)
  return min(start + 2, rows), rows


def _key(line: str) -> str:
  """The first cell of a table's line."""
  return _CELL.split(line.strip())[1].strip()


def _escaped(cell: str) -> str:
  return " ".join(cell.split()).replace("|", "\\|")


def _line(cells: Sequence[str]) -> str:
  return f"| {' | '.join(map(_escaped, cells))} |"

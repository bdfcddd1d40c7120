"""The table of sweeps in experiments/RESULTS.md: one row a check, replaced when its experiment runs again.

    file -> lines -> the experiment's rows taken out of the table, the new ones put in -> the file, whole or not at all

All other lines stay byte for byte. Left out: two sweeps that end in the same instant (the later one wins).
"""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from o1jax.config import ConfigError, require
from o1jax.io.data import write_atomically
from o1jax.scaling.members import Finding

HEADING = "## Sweeps"
COLUMNS = (
  "experiment",
  "claim",
  "paper's figure",
  "ours [95%], by seed",
  "seeds",
  "holds",
  "date",
  "commit",
)
_CELL = re.compile(r"(?<!\\)\|")


@dataclasses.dataclass(frozen=True)
class Row:
  """One check's line in the table."""

  claim: str
  figure: str  # the paper's own
  ours: str  # with its interval
  seeds: int
  holds: str
  date: str  # YYYY-MM-DD
  commit: str


def rows_of(head: Mapping[str, Any], findings: Sequence[Finding]) -> list[Row]:
  """The rows of a finished sweep, the claim's text in the first; `head` as `sweep_report.read_members` gives it."""
  claim, git = head["claim"], head["meta"].get("git")
  commit = f"`{git['commit'][:7]}`{' + changes' if git['dirty'] else ''}" if git else "unknown"
  texts = [f"{claim['text']} ({claim['source']}): "] + [""] * len(findings)
  return [
    Row(f"{text}{f.check}", claim["figure"], f.measured, f.seeds, f.holds, head["meta"]["date"], commit)
    for text, f in zip(texts, findings)
  ]


def record(path: str | pathlib.Path, experiment: str, rows: Sequence[Row]) -> None:
  """Puts `rows` into the table under "## Sweeps" in place of the experiment's old ones, or behind the last row.

  `experiment` is the key: a name, and " --full" behind it for that variant. A missing file, heading or table is made.
  Raises ConfigError naming the file where it is no text, cannot be written, or has another table under the heading.
  """
  path = pathlib.Path(path)
  try:
    lines = path.read_bytes().decode().split("\n") if path.exists() else ["# Results", ""]
  except (OSError, ValueError) as error:
    raise ConfigError(f"{path}: cannot be read as text: {error}") from error
  first, end = _table(lines, path)
  old = [i for i in range(first, end) if _key(lines[i]) == _escaped(f"`{experiment}`")]
  at = old[0] if old else end
  kept = [line for i, line in enumerate(lines) if i not in old]
  kept[at:at] = [_line([f"`{experiment}`", *map(str, dataclasses.astuple(row))]) for row in rows]
  write_atomically(path, "\n".join(kept).encode())


def _table(lines: list[str], path: pathlib.Path) -> tuple[int, int]:
  """Where the table's rows begin and end; heading and table are added to `lines` where they are missing."""
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

"""Tables of cases that run as one test, in the core suite or in the whole one."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest


def failed_rows(check: Callable[..., None], rows: Iterable[Sequence[Any]]) -> list[str]:
  """Runs `check(*row)` on every row; returns the rows that failed, each with what it said. There are rows."""
  rows, failures = list(rows), []
  assert rows
  for row in rows:
    try:
      check(*row)
    except (Exception, pytest.fail.Exception) as error:
      said = (str(error).splitlines() or [""])[0]
      failures.append(f"{row!r}: {type(error).__name__}: {said}")
  return failures


def in_two_speeds(rows: Sequence[Any], every: int = 10) -> pytest.MarkDecorator:
  """Parametrises `rows`: each `every`-th one in the core suite, all of them under `--all`."""
  sample, full = (
    pytest.param(rows[::every], id="sample"),
    pytest.param(rows, id="all", marks=pytest.mark.full),
  )
  return pytest.mark.parametrize("rows", [sample, full])

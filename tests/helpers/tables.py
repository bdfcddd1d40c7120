"""Tables of cases that run as one test, in the core suite or in the whole one."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest


def check_rows(check: Callable[..., None], rows: Iterable[Sequence[Any]]) -> None:
  """Runs `check(*row)` on every row; fails at the end with all rows that failed, and what each one said."""
  rows, failures = list(rows), []
  assert rows
  for row in rows:
    try:
      check(*row)
    except (Exception, pytest.fail.Exception) as error:
      said = (str(error).splitlines() or [""])[0]
      failures.append(f"{row!r}: {type(error).__name__}: {said}")
  assert not failures, "\n".join([f"{len(failures)} of {len(rows)} rows failed", *failures])


def in_two_speeds(rows: Sequence[Any], every: int = 10) -> pytest.MarkDecorator:
  """Parametrises `rows`: each `every`-th one in the core suite, all of them under `--all`."""
  sample, full = (
    pytest.param(rows[::every], id="sample"),
    pytest.param(rows, id="all", marks=pytest.mark.full),
  )
  return pytest.mark.parametrize("rows", [sample, full])

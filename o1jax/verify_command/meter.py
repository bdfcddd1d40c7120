"""Standard error of `o1jax verify`: a progress bar where it is a terminal, and complaints always."""

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Meter(NamedTuple):
  """How progress, and a line that cannot be graded, are shown."""

  # (bytes of input, lines graded, correct ones among them), each since the last call
  advance: Callable[[int, int, int], None]
  complain: Callable[[str], None]


def complain(line: str) -> None:
  """Writes a line on standard error, if it can be written: verdicts and exit code must do without.

  Past Python's buffer: what stays in there changes the exit code.
  """
  with contextlib.suppress(OSError):
    os.write(sys.stderr.fileno(), f"{' '.join(line.split())}\n".encode(errors="backslashreplace"))


@contextlib.contextmanager
def make_meter(title: str, source: int, bar_always: bool) -> Iterator[Meter]:
  """A meter, with a bar where standard error is a terminal or `bar_always`. `source`: the input's descriptor.

  The bar fills with the bytes of a regular file; of a pipe, whose length nobody knows, it shows the rate
  alone.
  """
  if not (bar_always or sys.stderr.isatty()):
    yield Meter(lambda *_: None, complain)
    return
  from rich import progress
  from rich.console import Console

  console = Console(stderr=True)
  columns = (
    progress.TextColumn(title),
    progress.BarColumn(),
    progress.TaskProgressColumn(),
    progress.TextColumn("{task.fields[graded]:,} graded, {task.fields[share]:.1%} correct"),
    progress.TimeElapsedColumn(),
    progress.TimeRemainingColumn(),
  )
  counts = [0, 0]
  with progress.Progress(*columns, console=console) as bar:
    task = bar.add_task(title, total=_bytes_left(source), graded=0, share=0.0)

    def advance(size: int, graded: int, correct: int) -> None:
      counts[0] += graded
      counts[1] += correct
      bar.update(task, advance=size, graded=counts[0], share=counts[1] / max(1, counts[0]))

    def complain_above(line: str) -> None:
      bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    yield Meter(advance, complain_above)


def _bytes_left(source: int) -> int | None:
  """Bytes from where a regular file is read to its end; None of what is no regular file."""
  status = os.fstat(source)
  if not stat.S_ISREG(status.st_mode):
    return None
  return max(0, status.st_size - os.lseek(source, 0, os.SEEK_CUR))

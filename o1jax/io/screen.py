"""What a command shows. It is a luxury: where nobody can read it any more, what the command makes goes on.

text -> what the encoding lacks as escapes -> the descriptor, or nowhere once that has failed
"""

import contextlib
import errno
import io
import os
import sys
from typing import Any, Iterator

STDOUT, STDERR = 1, 2  # the descriptors
FULL = (errno.ENOSPC, errno.EDQUOT)


class _Screen(io.FileIO):
  """A descriptor that leads nowhere once a write has failed: a closed pipe or terminal, a full disk.

  results: whether what is shown is what the command is for, so that a full disk is an error.
  """

  def __init__(self, descriptor: int, results: bool):
    super().__init__(descriptor, "w", closefd=False)
    self._results = results

  def write(self, data: Any) -> int:
    """Writes as much as the descriptor takes; a terminal that takes nothing at the moment loses it."""
    try:
      taken = super().write(data)
    except OSError as error:
      lead_nowhere(self.fileno())
      if self._results and error.errno in FULL:
        raise
      taken = None
    return memoryview(data).nbytes if taken is None else taken


def lead_nowhere(descriptor: int) -> None:
  """What is written to the descriptor from here on, by child processes too, is dropped."""
  nowhere = os.open(os.devnull, os.O_WRONLY)
  if nowhere != descriptor:
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
  os.set_inheritable(descriptor, True)


def open_stderr() -> None:
  """Gives a process whose standard error was closed one that leads nowhere.

  Else Python prints complaints among the results, and the next file that is opened takes its number.
  """
  if sys.stderr is None:
    lead_nowhere(STDERR)
    sys.stderr = open(STDERR, "w", closefd=False)


@contextlib.contextmanager
def lasting_screen(results: bool) -> Iterator[None]:
  """While it is open, standard output and error of this process may fail without an error.

  results: whether standard output is what the command is for; it has to be flushed before the end. Streams that
  others have put in their place stay.
  """
  before = sys.stdout, sys.stderr
  if sys.stdout is None:  # closed, so that the next file to be opened would take its number
    lead_nowhere(STDOUT)
    sys.stdout = open(STDOUT, "w", closefd=False)
  sys.stdout, sys.stderr = _lasting(sys.stdout, STDOUT, results), _lasting(sys.stderr, STDERR, False)
  try:
    yield
  finally:
    with contextlib.suppress(OSError):
      sys.stdout.flush()
    sys.stdout, sys.stderr = before


def _lasting(stream: Any, descriptor: int, results: bool) -> Any:
  try:
    own = stream.fileno() == descriptor
  except (AttributeError, OSError, ValueError):  # what has no descriptor
    own = False
  if not own:
    return stream
  stream.flush()
  lines = stream.line_buffering or stream.write_through
  binary = io.BufferedWriter(_Screen(descriptor, results))
  return io.TextIOWrapper(binary, stream.encoding, "backslashreplace", line_buffering=lines)

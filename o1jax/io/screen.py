"""Standard output and error that may fail (a closed pipe, a full disk) without ending the command.

Characters that the encoding lacks are written as escapes.
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
  """A descriptor whose output is dropped once a write has failed: a closed pipe or terminal, a full disk.

  results: whether the output is the command's result, so that a full disk is an error.
  """

  def __init__(self, descriptor: int, results: bool):
    super().__init__(descriptor, "w", closefd=False)
    self._results = results

  def write(self, data: Any) -> int:
    """Writes as much as the descriptor takes; a terminal that takes nothing at the moment loses it."""
    try:
      written = super().write(data)
    except OSError as error:
      drop_output(self.fileno())
      if self._results and error.errno in FULL:
        raise
      written = None
    return memoryview(data).nbytes if written is None else written


def drop_output(descriptor: int) -> None:
  """Redirects the descriptor to the null device, for child processes too."""
  nowhere = os.open(os.devnull, os.O_WRONLY)
  if nowhere != descriptor:
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
  os.set_inheritable(descriptor, True)


def open_stderr() -> None:
  """Opens a standard error whose output is dropped, in a process that was started without one.

  Without it Python prints warnings among the results, and the next file that is opened takes its number.
  """
  if sys.stderr is None:
    drop_output(STDERR)
    sys.stderr = open(STDERR, "w", closefd=False)


@contextlib.contextmanager
def lasting_screen(results: bool) -> Iterator[None]:
  """Within it, standard output and error of this process may fail without an error.

  results: whether standard output is the command's result; it has to be flushed before the end. Other streams
  in their place stay.
  """
  before = sys.stdout, sys.stderr
  if sys.stdout is None:  # closed, so that the next file to be opened would take its number
    drop_output(STDOUT)
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

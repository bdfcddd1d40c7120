"""Files that other processes see whole or not at all."""

import contextlib
import os
import pathlib
import secrets
import stat
from typing import BinaryIO, Iterator


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
  """A binary file that takes `path`'s place at the end or, on any error, leaves `path` as it was.

  Its permissions are those that `open` gives: the replaced file's, else what the umask leaves.
  Raises OSError as `open` does.
  """
  target = pathlib.Path(os.path.realpath(path))
  beside = target.with_name(f".writing-{os.getpid()}-{secrets.token_hex(4)}")
  try:
    with open(beside, "xb") as file:
      with contextlib.suppress(FileNotFoundError):
        os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.replace(beside, target)
  finally:
    beside.unlink(missing_ok=True)

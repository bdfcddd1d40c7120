"""Atomic file writes: other processes see a file complete or not at all."""

import contextlib
import os
import pathlib
import secrets
import shutil
import stat
from typing import BinaryIO, Iterator

from o1jax.config import ConfigError
from o1jax.io.json_rows import one_line


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
  """A binary file that replaces `path` at the end or, on any error, leaves it as it was.

  It keeps the permissions of the file that it replaces, else those that the umask leaves. Raises OSError as
  `open` does.
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


@contextlib.contextmanager
def new_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A folder to write into that becomes `path` at the end or, on any error, is removed.

  Raises ConfigError naming `path` where it cannot be written.
  """
  beside = path.with_name(f".writing-{os.getpid()}-{secrets.token_hex(4)}")
  try:
    beside.mkdir(parents=True)
    yield beside
    os.rename(beside, path)
  except OSError as error:
    raise ConfigError(f"{path}: cannot be written: {one_line(error)}") from error
  finally:
    shutil.rmtree(beside, ignore_errors=True)


def write_atomically(path: pathlib.Path, content: bytes) -> None:
  """Writes a file atomically, its folder made where it is missing. Raises ConfigError naming the path."""
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
      file.write(content)
  except OSError as error:
    raise ConfigError(f"{path}: cannot be written: {one_line(error)}") from error

"""Locks of a run's folder, and the removal of a run that ends before its first step."""

import contextlib
import errno
import fcntl
import os
import pathlib
import shutil
import socket
import sys
from typing import Iterator

from o1jax.config import ConfigError, require
from o1jax.io.checkpoint import latest_step
from o1jax.io.log import read_lines

HEADS = ("config.json", "metrics.jsonl", "sweep.json", "results.json")  # of a run or a sweep
LOCK = ".lock"  # holds the process that writes into the folder; removed when that process ends in order
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_LOCKED: set[pathlib.Path] = set()  # by this process, which its own locks do not stop


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
  """Creates the folder if it is missing and locks it for this process; removes it at the end if it is empty.

  An fcntl lock, which works on NFS and ends with its process. Raises ConfigError naming process and host
  where another process has it, and the folder where it cannot be created. Prints a line where the file system
  has no locks.
  """
  path = pathlib.Path(os.path.abspath(folder))
  try:
    created = [place for place in (path, *path.parents) if not place.is_dir()]
    path.mkdir(parents=True, exist_ok=True)
    file = None if path in _LOCKED else _lock(path / LOCK)
  except OSError as error:
    raise ConfigError(f"{folder}: cannot be written: {error.strerror}") from error
  if file is None:
    cure = "wait for it or stop it, or take another name"
    raise ConfigError(f"{folder}: is in use by {_holder(path / LOCK)}: {cure}")
  _LOCKED.add(path)
  try:
    yield
  finally:
    _LOCKED.remove(path)
    (path / LOCK).unlink(missing_ok=True)  # while the lock is held: behind it the file may be another's
    os.close(file)
    with contextlib.suppress(OSError):  # the first that holds a run
      for place in created:
        place.rmdir()


def _lock(path: pathlib.Path) -> int | None:
  """The descriptor of a locked file, whose closing ends the lock; None if another process has the lock."""
  file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
  try:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    present = path.exists() and os.path.samestat(os.fstat(file), os.stat(path))
  except OSError as error:
    if error.errno in NO_LOCKS:
      print(f"{path.parent}: its file system has no locks: start no second process there", file=sys.stderr)
      return file
    os.close(file)
    if error.errno in (errno.EACCES, errno.EAGAIN):
      return None
    raise
  if not present:  # its holder has removed it in between
    os.close(file)
    return _lock(path)
  with contextlib.suppress(OSError):  # a full disk: it is locked without a name in it
    os.ftruncate(file, 0)
    os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
  return file


def _holder(path: pathlib.Path) -> str:
  try:
    return path.read_text(errors="replace") or "another process"
  except OSError:  # it has just ended
    return "another process"


@contextlib.contextmanager
def new_run(folder: pathlib.Path) -> Iterator[None]:
  """Starts a run or a sweep in a locked `folder`; removes its files if an error ends it before a step.

  Raises ConfigError where the folder holds a run, a sweep or checkpoints already. Other files in it, such as
  a redirected output, stay.
  """
  begun = any((folder / name).exists() for name in HEADS)
  begun = begun or any(latest_step(folder / name) is not None for name in ("checkpoints", "cold_start"))
  require(not begun, str(folder), "holds a run already: give it another name, or pass --resume")
  before = set(folder.iterdir())
  try:
    yield
  except BaseException:
    if not _begun(folder):
      _remove_new(folder, before)
    raise


def _begun(folder: pathlib.Path) -> bool:
  """Whether a step of the run or of a sweep's member was logged, or a sweep's cold start saved."""
  logs = (folder / "metrics.jsonl", *folder.glob("*/metrics.jsonl"))
  logged = any(path.is_file() and read_lines(path) for path in logs)
  return logged or any(latest_step(path) is not None for path in folder.glob("cold_start/*"))


def _remove_new(folder: pathlib.Path, before: set[pathlib.Path]) -> None:
  """Removes all of `folder` but the paths `before`."""
  for path in set(folder.iterdir()) - before:
    if path.is_dir():
      shutil.rmtree(path)
    else:
      path.unlink()

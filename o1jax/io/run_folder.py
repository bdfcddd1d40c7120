"""A folder belongs to one run or sweep, one process writes into it, and what gets to no step leaves none."""

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

HEADS = ("config.json", "metrics.jsonl", "sweep.json", "results.json")  # what tells a folder that is taken
LOCK = ".lock"  # names the process that writes into the folder; no file once that one has ended in order
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_LOCKED: set[pathlib.Path] = set()  # by this process, which its own locks do not stop


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
  """Makes the folder, if there is none, and keeps it to this process; removes it at the end where it is empty.

  The lock is fcntl's, which NFS knows, and dies with its process. Raises ConfigError naming process and host
  where another has it, and the folder where it cannot be made. A line tells of a file system without locks.
  """
  path = pathlib.Path(os.path.abspath(folder))
  try:
    made = [place for place in (path, *path.parents) if not place.is_dir()]
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
      for place in made:
        place.rmdir()


def _lock(path: pathlib.Path) -> int | None:
  """The descriptor of a locked file, whose closing ends the lock; None where another process has it."""
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
  if not present:  # who had it has removed it in between
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
  """Starts a run or a sweep in a locked `folder`; what any error ends before its first step is taken back.

  Raises ConfigError where the folder holds one already, or checkpoints that this one would take for its own.
  Files of others in the folder, such as a redirected output, stay.
  """
  held = any((folder / name).exists() for name in HEADS)
  held = held or any(latest_step(folder / name) is not None for name in ("checkpoints", "cold_start"))
  require(not held, str(folder), "holds a run already: give it another name, or pass --resume")
  before = set(folder.iterdir())
  try:
    yield
  except BaseException:
    if not _begun(folder):
      _take_back(folder, before)
    raise


def _begun(folder: pathlib.Path) -> bool:
  """Whether a step was logged, of the run or of a sweep's member, or a sweep's cold start saved."""
  logs = (folder / "metrics.jsonl", *folder.glob("*/metrics.jsonl"))
  logged = any(path.is_file() and read_lines(path) for path in logs)
  return logged or any(latest_step(path) is not None for path in folder.glob("cold_start/*"))


def _take_back(folder: pathlib.Path, before: set[pathlib.Path]) -> None:
  """Removes what came into `folder` since it held `before`."""
  for path in set(folder.iterdir()) - before:
    if path.is_dir():
      shutil.rmtree(path)
    else:
      path.unlink()

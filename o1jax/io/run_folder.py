"""A folder belongs to one run or one sweep, and what gets to no step leaves none."""

import contextlib
import pathlib
import shutil
from typing import Iterator

from o1jax.config import ConfigError, require
from o1jax.io.checkpoint import latest_step
from o1jax.io.log import read_lines

HEADS = ("config.json", "metrics.jsonl", "sweep.json", "results.json")  # what tells a folder that is taken


@contextlib.contextmanager
def new_run(folder: pathlib.Path) -> Iterator[None]:
  """Starts a run or a sweep in `folder`; what bad input or a full disk ends before its first step is taken back.

  Raises ConfigError where the folder holds one already, or checkpoints that this one would take for its own.
  Files of others in the folder, such as a redirected output, stay.
  """
  held = any((folder / name).exists() for name in HEADS)
  held = held or any(latest_step(folder / name) is not None for name in ("checkpoints", "cold_start"))
  require(not held, str(folder), "holds a run already: give it another name, or pass --resume")
  existed = folder.is_dir()
  before = set(folder.iterdir()) if existed else set()
  try:
    yield
  except (ConfigError, OSError):
    if not _begun(folder):
      _take_back(folder, before, existed)
    raise


def _begun(folder: pathlib.Path) -> bool:
  """Whether a step was logged, of the run or of a sweep's member, or a sweep's cold start saved."""
  logs = (folder / "metrics.jsonl", *folder.glob("*/metrics.jsonl"))
  logged = any(path.is_file() and read_lines(path) for path in logs)
  return logged or any(latest_step(path) is not None for path in folder.glob("cold_start/*"))


def _take_back(folder: pathlib.Path, before: set[pathlib.Path], existed: bool) -> None:
  """Removes what came into `folder` since it held `before`."""
  for path in set(folder.iterdir()) - before if folder.is_dir() else ():
    if path.is_dir():
      shutil.rmtree(path)
    else:
      path.unlink()
  if folder.is_dir() and not existed:
    folder.rmdir()

"""What is known of other processes, for tests that nothing outlives its parent."""

import pathlib
import time
from collections.abc import Callable, Iterable

DEADLINE = 60.0  # seconds within which what must happen does


def below(pid: int) -> set[int]:
  """Processes below one, whoever their parent is."""
  pairs = [
    (int(path.name), _parent_of(path)) for path in pathlib.Path("/proc").iterdir() if path.name.isdigit()
  ]
  found = {pid}
  while more := {child for child, parent in pairs if parent in found} - found:
    found |= more
  return found - {pid}


def parent(pid: int) -> int:
  """The process above one; 0 where it is gone."""
  return _parent_of(pathlib.Path(f"/proc/{pid}"))


def gone(pids: Iterable[int]) -> bool:
  """Whether none of them is left before the deadline; a zombie counts as gone."""
  return wait_for(lambda: not any(_alive(pid) for pid in pids))


def wait_for(condition: Callable[[], bool]) -> bool:
  """Whether it came true before the deadline."""
  end = time.monotonic() + DEADLINE
  while not condition() and time.monotonic() < end:
    time.sleep(0.02)
  return condition()


def _stat(path: pathlib.Path) -> list[str] | None:
  """The fields of a process behind its name: its state, its parent, ...; None where it is gone."""
  try:
    return (path / "stat").read_text().rpartition(")")[2].split()
  except (FileNotFoundError, ProcessLookupError):
    return None


def _parent_of(path: pathlib.Path) -> int:
  told = _stat(path)
  return int(told[1]) if told else 0


def _alive(pid: int) -> bool:
  told = _stat(pathlib.Path(f"/proc/{pid}"))
  return told is not None and told[0] != "Z"

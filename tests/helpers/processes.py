"""What is known of other processes, for tests that nothing outlives its parent."""

import pathlib
import subprocess
import time
from collections.abc import Callable, Iterable

DEADLINE = 60.0  # seconds within which what must happen does


def below(pid: int) -> set[int]:
  """Processes below one, whoever their parent is; `ps` itself is none of them."""
  listed = subprocess.run(["ps", "-eo", "pid,ppid,comm"], capture_output=True, text=True, check=True)
  rows = [line.split(maxsplit=2) for line in listed.stdout.splitlines()[1:]]
  pairs = [(int(child), int(parent)) for child, parent, name in rows if name != "ps"]
  found = {pid}
  while more := {child for child, parent in pairs if parent in found} - found:
    found |= more
  return found - {pid}


def parent(pid: int) -> int:
  """The process above one."""
  return int(_stat(pid)[1])


def gone(pids: Iterable[int]) -> bool:
  """Whether none of them is left before the deadline; a zombie counts as gone."""
  return wait_for(lambda: not any(_alive(pid) for pid in pids))


def wait_for(condition: Callable[[], bool]) -> bool:
  """Whether it came true before the deadline."""
  end = time.monotonic() + DEADLINE
  while not condition() and time.monotonic() < end:
    time.sleep(0.02)
  return condition()


def _stat(pid: int) -> list[str]:
  """The fields of a process behind its name: its state, its parent, ..."""
  return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _alive(pid: int) -> bool:
  try:
    return _stat(pid)[0] != "Z"
  except (FileNotFoundError, ProcessLookupError):
    return False

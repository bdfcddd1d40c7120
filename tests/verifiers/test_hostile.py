"""Programs that attack: contained, judged right, nothing left behind, and the honest program beside them unaffected."""

import os
import pathlib
import platform
import time

import pytest
from verifiers import hostile_programs as hostile

from o1jax.verifiers.base import Problem
from o1jax.verifiers.code import make_verify
from o1jax.verifiers.sandbox.service import Limits

LIMITS = Limits(cpu_seconds=1, wall_seconds=3.0, memory_bytes=256 << 20, output_bytes=1 << 20)
verify = make_verify(LIMITS, allow_unsandboxed_code=False)
FUNCTION = Problem("f", "", "", "test", {"tests": ["assert f(3) == 9"]})
SCRIPT = Problem("s", "", "", "test", {"tests": [{"input": "3\n", "output": "9\n"}]})
FUNCTIONS = [
  *hostile.PROCESSES,
  *hostile.RESOURCES,
  *hostile.FILES,
  *hostile.NETWORK,
  *hostile.SYSTEM_CALLS,
  *(hostile.X86_64 if platform.machine() == "x86_64" else []),
  *hostile.FORGERIES,
]


def descendants() -> list[int]:
  """Processes below this one."""
  parent = {}
  for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
      parent[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has ended meanwhile
      continue
  below, found = [os.getpid()], []
  while below:
    above = below.pop()
    children = [process for process, its_parent in parent.items() if its_parent == above]
    found += children
    below += children
  return sorted(found)


def traces() -> dict:
  """What a program could leave behind: processes, their descriptors and mounts, files."""
  processes = descendants()
  return {
    "processes": processes,
    "descriptors": [len(os.listdir(f"/proc/{process}/fd")) for process in [os.getpid(), *processes]],
    "mounts": [pathlib.Path(f"/proc/{process}/mountinfo").read_text() for process in [os.getpid(), *processes]],
    "files": sorted(name for name in os.listdir("/tmp") if not name.startswith("pytest")),
  }


def check_nothing_left(before: dict) -> None:
  """The kernel takes processes away after their end is known: within moments, so this waits."""
  deadline = time.monotonic() + 10
  while time.monotonic() < deadline:
    try:
      if traces() == before:
        break
    except OSError:  # a process ended while it was looked at
      pass
    time.sleep(0.01)
  assert traces() == before


@pytest.fixture(scope="module")
def clean():
  """The traces of a sandbox that is started and at rest."""
  assert verify([FUNCTION], [hostile.HONEST])[0].correct
  time.sleep(0.2)
  return traces()


def _judged(problem: Problem, source: str) -> str | None:
  verdict = verify([problem], [f"```python\n{source}\n```"])[0]
  assert verdict.correct == (verdict.error is None) == (verdict.reward == 1.0)
  return verdict.error


@pytest.mark.parametrize(("name", "source", "error"), FUNCTIONS, ids=[row[0] for row in FUNCTIONS])
def test_function(name, source, error, clean, tmp_path):
  canary = tmp_path / "canary"
  canary.write_text("MARK")
  canary.chmod(0o666)
  assert _judged(FUNCTION, source.replace("CANARY", str(canary))) == error
  assert _judged(FUNCTION, hostile.HONEST) is None
  assert canary.read_text() == "MARK"
  check_nothing_left(clean)


@pytest.mark.parametrize(("name", "source", "error"), hostile.SCRIPTS, ids=[row[0] for row in hostile.SCRIPTS])
def test_script(name, source, error, clean):
  assert _judged(SCRIPT, source) == error
  assert _judged(SCRIPT, "print(int(input()) ** 2)") is None
  check_nothing_left(clean)

"""Programs that attack: contained, judged right, nothing left behind, and the honest program after them
unaffected.
"""

import os
import pathlib
import platform
import re
import time

import pytest

from o1jax.verifiers.base import Problem
from o1jax.verifiers.code import make_verify
from o1jax.verifiers.sandbox import seccomp
from o1jax.verifiers.sandbox.service import Limits

pytestmark = pytest.mark.full

DATA = pathlib.Path(__file__).parents[2] / "data"
LIMITS = Limits(cpu_seconds=1, wall_seconds=2.0, memory_bytes=256 << 20, output_bytes=1 << 20)
verify = make_verify(LIMITS, allow_unsandboxed_code=False)
FUNCTION = Problem("f", "", "", "test", {"tests": ["assert f(3) == 9"]})
SCRIPT = Problem("s", "", "", "test", {"tests": [{"input": "3\n", "output": "9\n"}]})
HONEST_FUNCTION, HONEST_SCRIPT = "def f(x):\n  return x * x\n", "print(int(input()) ** 2)"


def programs(file: str) -> list:
  """(source, error) of each program in a file of tests/data, under its name."""
  rows = re.findall(r"^### (.*): (\w+)\n((?:(?!### ).*\n)*)", (DATA / file).read_text(), re.MULTILINE)
  return [pytest.param(source, None if error == "passes" else error, id=name) for name, error, source in rows]


# Calls of the C library by which a program could leave the sandbox; all of them kill it.
CALLS = """
fork()
mount(b'tmpfs', b'/tmp', b'tmpfs', 0, 0)
umount2(b'/tmp', 2)
chroot(b'/tmp')
ptrace(0, 0, 0, 0)
unshare(0x10000000)
setns(0, 0)
setuid(0)
personality(0x40000)
prctl(1, 0, 0, 0, 0)
prctl(4, 1, 0, 0, 0)
shmget(1, 4096, 0o1666)
""".split("\n")[1:-1]
# The same by number, on x86_64 and aarch64.
NUMBERS = {
  "kexec_load": (246, 104, "0, 0, 0, 0"),
  "open_by_handle_at": (304, 265, "0, 0, 0"),
  "clone": (56, 220, "17, 0, 0, 0, 0"),
  "io_uring_setup": (425, 425, "8, 0"),
  "memfd_create": (319, 279, "b'm', 0"),
  "bpf": (321, 280, "0, 0, 0"),
  "keyctl": (250, 219, "0, 0"),
  "process_vm_readv": (310, 270, "1, 0, 0, 0, 0, 0"),
  "userfaultfd": (323, 282, "0"),
  "seccomp": (317, 277, "1, 0, 0"),
}
COLUMN = ("x86_64", "aarch64").index(platform.machine())


def descendants() -> list[int]:
  """Processes below this one."""
  parent = {}
  for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
      parent[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has ended meanwhile
      continue
  above, found = [os.getpid()], []
  while above:
    process = above.pop()
    children = [child for child, its_parent in parent.items() if its_parent == process]
    found += children
    above += children
  return sorted(found)


def traces() -> dict:
  """What a program could leave behind: processes, descriptors and mounts of those that stay."""
  processes = [os.getpid(), *descendants()]
  return {
    "processes": processes,
    "descriptors": [len(os.listdir(f"/proc/{process}/fd")) for process in processes],
    "mounts": [pathlib.Path(f"/proc/{process}/mountinfo").read_text() for process in processes],
  }


def check_nothing_left(before: dict) -> None:
  """The kernel takes a process away a moment after its end is known, so this waits for it."""
  deadline, now = time.monotonic() + 10, None
  while now != before and time.monotonic() < deadline:
    try:
      now = traces()
    except OSError:  # a process ended while it was looked at
      continue
  assert now == before


@pytest.fixture(scope="module")
def at_rest():
  """The traces of a sandbox that has started and does nothing."""
  assert verify([FUNCTION], [HONEST_FUNCTION])[0].correct
  time.sleep(0.2)
  return traces()


def judged(problem: Problem, source: str) -> str | None:
  """The verdict's error, after the verdict has been checked to be whole."""
  verdict = verify([problem], [f"```python\n{source}\n```"])[0]
  assert verdict.correct == (verdict.error is None) == (verdict.reward == 1.0)
  return verdict.error


def test_there_are_enough_of_them():
  functions, scripts = programs("hostile_functions.txt"), programs("hostile_scripts.txt")
  assert len(functions) + len(scripts) + len(CALLS) + len(NUMBERS) >= 220
  assert all(len({row.id for row in rows}) == len(rows) for rows in (functions, scripts))


@pytest.mark.parametrize(("source", "error"), programs("hostile_functions.txt"))
def test_function(source, error, at_rest, tmp_path):
  canary = tmp_path / "canary"
  canary.write_text("MARK")
  for path in (tmp_path, canary):
    path.chmod(0o777)
  assert judged(FUNCTION, source.replace("CANARY", str(canary))) == error
  assert judged(FUNCTION, HONEST_FUNCTION) is None
  assert canary.read_text() == "MARK"
  check_nothing_left(at_rest)


@pytest.mark.parametrize(("source", "error"), programs("hostile_scripts.txt"))
def test_script(source, error, at_rest):
  assert judged(SCRIPT, source) == error
  assert judged(SCRIPT, HONEST_SCRIPT) is None
  check_nothing_left(at_rest)


@pytest.mark.parametrize("call", [*CALLS, *NUMBERS])
def test_system_call(call, at_rest):
  if call in NUMBERS:
    call = f"syscall(ctypes.c_long({NUMBERS[call][COLUMN]}), {NUMBERS[call][2]})"
  assert (
    judged(FUNCTION, f"import ctypes\nlibc = ctypes.CDLL(None)\ndef f(x):\n  return x * x + 0 * libc.{call}")
    == "policy"
  )
  assert judged(FUNCTION, HONEST_FUNCTION) is None
  check_nothing_left(at_rest)


# They wait for the second test, having given the first what it wants.
SECOND = """
import os, sys, time
calls = 0
def f(x):
  global calls
  calls += 1
  if calls == 2: {}
  return x * x
"""


@pytest.mark.parametrize(
  ("action", "error"),
  [
    ("pass", None),
    ("return True", "wrong"),
    ("return object()", "wrong"),
    ("raise AssertionError", "wrong"),
    ("sys.exit(0)", "crashed"),
    ("os._exit(0)", "crashed"),
    ("os.fork()", "policy"),
    ("time.sleep(99)", "timeout"),
  ],
)
@pytest.mark.parametrize("shape", ["mbpp", "humaneval"])
def test_a_program_that_waits_for_the_second_test(shape, action, error, at_rest):
  asserts = ["assert f(3) == 9", "assert f(4) == 16"]
  check = "def check(candidate):\n  assert candidate(3) == 9\n  assert candidate(4) == 16\n"
  meta = {"tests": asserts} if shape == "mbpp" else {"tests": check, "entry_point": "f"}
  problem = Problem("f", "" if shape == "mbpp" else "def f(x):\n", "", "test", meta)
  assert judged(problem, SECOND.format(action)) == error
  assert judged(problem, HONEST_FUNCTION) is None
  check_nothing_left(at_rest)


def test_a_script_leaves_nothing_to_the_next_test():
  tests = [{"input": "3", "output": "9"}, {"input": "4", "output": "16"}]
  source = """
import os
x = int(input())
print(0 if os.path.exists("left") else x * x)
open("left", "w").close()
"""
  assert judged(Problem("s", "", "", "test", {"tests": tests}), source) is None
  assert judged(Problem("s", "", "", "test", {"tests": tests}), "print(9)") == "wrong"


def test_unknown_system_calls_do_not_exist():
  source = (
    "import ctypes, errno\nlibc = ctypes.CDLL(None, use_errno=True)\ndef f(x):\n  assert libc.syscall({}) == "
    "-1\n"
    "  return x * x if ctypes.get_errno() == errno.ENOSYS else -1\n"
  )
  assert judged(FUNCTION, source.format("999")) is None
  assert judged(FUNCTION, source.format("435, 0, 0")) is None  # clone3


def test_each_call_in_no_table_does_not_exist():
  tables = f"{seccomp.ALLOWED} {seccomp.KILLED} {seccomp.BY_ARGUMENT}"
  # On x86_64 the kernel lets its probes' own two calls pass every filter; elsewhere than in a probe they do
  # nothing.
  known = {*seccomp.numbers(tables, platform.machine()).values(), 335, 336}
  source = f"""
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
def f(x):
  for number in {sorted({*range(600)} - known)}:
    ctypes.set_errno(0)
    if libc.syscall(ctypes.c_long(number), 0, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != errno.ENOSYS:
      return number
  return x * x
"""
  assert judged(FUNCTION, source) is None


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other ways into the kernel that x86_64 alone has")
def test_other_ways_into_the_kernel():
  call = "ctypes.CDLL(None).syscall(ctypes.c_long(0x40000000 + 39))"
  x32 = f"import ctypes\ndef f(x):\n  return x * x + 0 * {call}\n"
  assert judged(FUNCTION, x32) == "policy"
  compat = r"""
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=7)
page.write(b'\xb8\x14\x00\x00\x00\xcd\x80\xc3')  # mov eax, 20 (getpid); int 0x80; ret
call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
def f(x):
  return x * x if call() > 0 else -1
"""
  assert judged(FUNCTION, compat) in ("policy", "crashed")  # crashed where the kernel has no 32-bit calls


def test_a_program_finds_nothing_of_the_one_before():
  leave = f"""
import os, sys
open("/tmp/left-by-a-program", "w").write("9")
sys.left = os.environ["LEFT"] = "9"
{HONEST_FUNCTION}"""
  look = """
import os, sys
def f(x):
  left = os.listdir("/tmp") or hasattr(sys, "left") or "LEFT" in os.environ
  return 0 if left else x * x
"""
  assert [judged(FUNCTION, source) for source in (leave, look)] == [None, None]
  assert not os.path.exists("/tmp/left-by-a-program")

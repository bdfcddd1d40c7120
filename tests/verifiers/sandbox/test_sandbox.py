"""The sandbox as a service: its layers, its refusal to run without them, its failures, its end."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from o1jax.verifiers.base import Problem
from o1jax.verifiers.code import make_verify
from o1jax.verifiers.sandbox import service
from o1jax.verifiers.sandbox.service import Limits

ROOT = pathlib.Path(__file__).parents[3]
LIMITS = Limits(cpu_seconds=1, wall_seconds=5.0)
PROBLEM = Problem("f", "", "", "test", {"tests": ["assert f(3) == 9"]})
HONEST, FORK = "def f(x): return x * x", "import os\ndef f(x): return x * x + 0 * os.fork()"

# A script that finds these ready; `judged` gives the verdicts' errors.
PROLOGUE = f"""
import ctypes, os, struct, sys
from o1jax.verifiers.base import Problem
from o1jax.verifiers.code import make_verify
from o1jax.verifiers.sandbox import seccomp, service
from o1jax.verifiers.sandbox.service import Limits, SandboxError
HONEST, FORK = {HONEST!r}, {FORK!r}
def judged(*programs, allow=False):
  verify = make_verify(Limits(cpu_seconds=1, wall_seconds=5.0), allow_unsandboxed_code=allow)
  problem = Problem("f", "", "", "test", {{"tests": ["assert f(3) == 9"]}})
  return [verdict.error for verdict in verify([problem] * len(programs), programs)]
def deny(name, argument=None):
  # Lets the kernel answer EPERM to a call from here on, as a container's filter may (with that argument).
  number = seccomp.numbers(f"{{seccomp.KILLED}} {{seccomp.BY_ARGUMENT}}", os.uname().machine)[name]
  rows = [(0x20, 0, 0, 0), (0x15, 0, 3 if argument is not None else 1, number)]
  if argument is not None:
    rows += [(0x20, 0, 0, 16), (0x15, 0, 1, argument)]
  libc = ctypes.CDLL(None)
  libc.prctl(38, 1, 0, 0, 0)
  seccomp.install(seccomp.prepare([*rows, (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]))
"""


def run_script(body: str) -> subprocess.CompletedProcess:
  """Runs a script behind PROLOGUE in a process of its own."""
  return subprocess.run(
    [sys.executable, "-c", PROLOGUE + textwrap.dedent(body)],
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    timeout=60,
  )


def printed(body: str) -> str:
  done = run_script(body)
  assert done.returncode == 0, done.stderr
  return done.stdout.strip()


def test_describe():
  line = service.describe()
  assert "\n" not in line
  for layer in (
    "user, mount, pid, net, ipc and uts namespaces",
    "seccomp",
    "resource limits",
    "no capabilities",
  ):
    assert layer in line
  assert ("a user of its own" in line) == (os.geteuid() == 0)


def test_what_a_program_sees_of_itself():
  tests = [
    "assert f('pid') == 1 and f('parent') == 0 and f('host') == 'sandbox' and f('folder') == '/tmp'",
    "assert f('user') != 0",
    "assert f('environment') == {'HOME': '/tmp', 'TMPDIR': '/tmp'}",
  ]
  program = """
import os, socket
def f(what):
  return {
    "pid": os.getpid, "parent": os.getppid, "host": socket.gethostname, "folder": os.getcwd,
    "user": os.geteuid,
    "environment": lambda: dict(os.environ),
  }[what]()
"""
  verify = make_verify(LIMITS, allow_unsandboxed_code=False)
  problems = [Problem("f", "", "", "test", {"tests": [test]}) for test in tests]
  assert [verdict.error for verdict in verify(problems, [program] * 3)] == [None, None, None]


@pytest.mark.parametrize(
  ("denied", "missing"),
  [('deny("unshare")', "namespaces"), ('deny("prctl", 22)', "seccomp")],
  ids=["unshare", "seccomp"],
)
def test_without_an_essential_layer_nothing_is_run(denied, missing):
  said = printed(f"""
    {denied}
    for attempt in range(2):
      try:
        print(judged(HONEST))
      except SandboxError as error:
        print(error)
  """)
  assert said.count(f"missing: {missing} (") == 2 and said.count("allow_unsandboxed_code") == 2
  assert "None" not in said


def test_bare_code_is_run_where_the_flag_allows_it():
  said = printed("""
    deny("unshare")
    print(service.describe(True))
    print(judged(HONEST, "def f(x): return x", "while True: pass", FORK, allow=True))
  """)
  assert "MISSING namespaces: unshare" in said
  assert said.endswith("[None, 'wrong', 'timeout', 'policy']")  # the filter still acts


@pytest.mark.parametrize("inside", [1000, 0], ids=["ordinary user", "root of a user namespace"])
def test_other_users_have_the_same_sandbox(inside):
  # A user namespace in which the caller has no right that an ordinary user has not.
  said = printed(f"""
    user, group = os.geteuid(), os.getegid()
    ctypes.CDLL(None).unshare(0x10000000)
    maps = ("uid_map", f"{inside} {{user}} 1"), ("gid_map", f"{inside} {{group}} 1")
    for name, row in (("setgroups", "deny"), *maps):
      with open(f"/proc/self/{{name}}", "w") as file:
        file.write(row)
    from o1jax.verifiers.sandbox import kernel
    kernel.drop_capabilities()
    assert os.geteuid() == {inside}
    print(service.describe())
    # Where root has no second user, programs run as the owner of /dev/null, which is among their descriptors.
    chmod = "import os\\ndef f(x):\\n  os.fchmod(2, os.fstat(2).st_mode & 0o7777)\\n  return x * x"
    print(judged(HONEST, FORK, "def f(x): open('/etc/passwd')", chmod))
  """)
  assert "the caller's user" in said and "MISSING namespaces" not in said and "MISSING seccomp" not in said
  assert said.endswith("[None, 'policy', 'wrong', 'wrong']")


def test_a_bench_that_dies_is_replaced():
  verify = make_verify(LIMITS, allow_unsandboxed_code=False)
  assert verify([PROBLEM], [HONEST])[0].correct
  first = service._BENCHES[False]._process
  os.kill(first.pid, signal.SIGKILL)
  assert verify([PROBLEM], [HONEST])[0].correct
  second = service._BENCHES[False]._process
  assert second.pid != first.pid


def test_a_zygote_that_dies_is_replaced():
  said = printed("""
    import pathlib, signal
    assert judged(HONEST) == [None]
    def children(process):
      return [int(p) for p in pathlib.Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    (bench,) = children(os.getpid())
    (waiting,) = children(bench)
    (zygote,) = children(waiting)
    os.kill(zygote, signal.SIGKILL)
    print(judged(HONEST, "def f(x): return 0"))
  """)
  assert said == "[None, 'wrong']"


def _has_ended(process: int) -> bool:
  try:
    state = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
  except OSError:
    return True
  return state == "Z"


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "sys.exit(0)", "os._exit(0)"])
def test_nothing_outlives_the_caller_though_an_item_is_under_way(end):
  said = run_script(f"""
    import pathlib, threading, time
    def below(process):
      for child in pathlib.Path(f"/proc/{{process}}/task/{{process}}/children").read_text().split():
        yield child
        yield from below(child)
    assert judged(HONEST) == [None]
    threading.Thread(target=judged, args=["import time; time.sleep(60)"], daemon=True).start()
    while len(list(below(os.getpid()))) < 5:
      time.sleep(0.01)
    print(*below(os.getpid()), flush=True)
    {end}
  """).stdout
  processes = [int(process) for process in said.split()]
  assert len(processes) == 5  # the bench, what waits for the zygote, the zygote, the tester, the program
  deadline = time.monotonic() + 10
  while time.monotonic() < deadline and not all(map(_has_ended, processes)):
    time.sleep(0.01)
  assert [process for process in processes if not _has_ended(process)] == []


@pytest.mark.parametrize("under_way", [False, True], ids=["at rest", "an item under way"])
def test_an_end_leaves_nothing_that_others_must_wait_for(under_way):
  said = printed(f"""
    import threading, time
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans become this process's children
    assert judged(HONEST) == [None]
    if {under_way}:
      threading.Thread(target=judged, args=["import time; time.sleep(60)"], daemon=True).start()
      time.sleep(0.5)
    service._BENCHES[False].end()
    try:
      print(os.waitpid(-1, os.WNOHANG))
    except ChildProcessError:
      print("nobody")
  """)
  assert said == "nobody"


def test_a_fork_has_a_bench_of_its_own():
  said = printed("""
    assert judged(HONEST) == [None]
    first = service._BENCHES[False]._process.pid
    sys.stdout.flush()
    if os.fork() == 0:
      assert service._BENCHES[False]._process is None
      assert judged(HONEST, FORK) == [None, "policy"]
      assert service._BENCHES[False]._process.pid != first
      print("child", flush=True)
      os._exit(0)
    os.wait()
    assert service._BENCHES[False]._process.pid == first
    print(judged(HONEST))
  """)
  assert said == "child\n[None]"


@pytest.mark.full
def test_an_item_that_is_cut_off_leaves_its_verdict_to_no_other():
  said = printed("""
    import signal, time
    def stop(*_):
      raise KeyboardInterrupt
    signal.signal(signal.SIGALRM, stop)
    assert judged(HONEST) == [None]
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
      judged("import time; time.sleep(0.6)\\ndef f(x): return 0")
    except KeyboardInterrupt:
      print("cut off")
    time.sleep(1.0)  # until the bench would have said "wrong", and waited for the next item
    print(judged(HONEST, FORK, HONEST))
  """)
  assert said == "cut off\n[None, 'policy', None]"


def test_a_start_that_is_cut_off_skips_no_check():
  said = printed("""
    deny("prctl", 22)
    told = service.Bench._exchange
    def cut_off(bench, message):
      told(bench, message)
      service.Bench._exchange = told
      raise KeyboardInterrupt
    service.Bench._exchange = cut_off
    for attempt in range(2):
      try:
        print(judged(HONEST))
      except KeyboardInterrupt:
        print("cut off")
      except SandboxError as error:
        print(error)
  """)
  assert said.startswith("cut off\n") and "missing: seccomp (" in said and "None" not in said


def test_the_tester_leaves_no_core():
  # Not even where core_pattern names a program: one that is not dumpable (PR_GET_DUMPABLE is 0) has none.
  tests = ["import ctypes", "assert f(3) == 9 and ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0"]
  verify = make_verify(LIMITS, allow_unsandboxed_code=False)
  assert verify([Problem("f", "", "", "test", {"tests": tests})], [HONEST])[0].correct


def test_threads_take_turns():
  said = printed("""
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(4) as pool:
      print(list(pool.map(judged, [HONEST, FORK] * 4)))
  """)
  assert said == str([[None], ["policy"]] * 4)


def test_a_caller_with_little_address_space():
  # The limits that a worker process has itself are those of all below it, too.
  said = printed("""
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))
    print(judged(HONEST, "def f(x): return bytearray(450 << 20)", FORK))
  """)
  assert said == "[None, 'crashed', 'policy']"


@pytest.mark.full
def test_the_callers_cpu_limit_is_not_the_sandboxs():
  said = printed("""
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, (2, resource.RLIM_INFINITY))
    print(judged(*["import time\\nwhile time.process_time() < 0.6: pass\\n" + HONEST] * 5))
  """)
  assert said == "[None, None, None, None, None]"


@pytest.mark.parametrize(
  "wrong",
  [
    {"cpu_seconds": 0},
    {"cpu_seconds": 1.5},
    {"wall_seconds": float("inf")},
    {"memory_bytes": -1},
    {"threads": True},
    {"files": "9"},
  ],
  ids=str,
)
def test_limits_are_checked(wrong):
  (name,) = wrong
  with pytest.raises(ValueError, match=f"Limits.{name}"):
    Limits(**wrong)


@pytest.mark.slow
def test_nothing_grows_over_two_thousand_items():
  verify = make_verify(LIMITS, allow_unsandboxed_code=False)

  def resident() -> list[int]:
    """KiB of the bench and of the zygote."""
    bench = service._BENCHES[False]._process.pid
    children = lambda process: pathlib.Path(f"/proc/{process}/task/{process}/children").read_text().split()
    (waiting,) = children(bench)
    (zygote,) = children(waiting)
    status = [pathlib.Path(f"/proc/{process}/status").read_text() for process in (bench, zygote)]
    return [int(text.partition("VmRSS:")[2].split()[0]) for text in status]

  def many(count: int) -> None:
    assert [verdict.error for verdict in verify([PROBLEM] * 3, [HONEST, FORK, "def f(x): return 1"])] == [
      None,
      "policy",
      "wrong",
    ]
    assert all(verdict.correct for verdict in verify([PROBLEM] * count, [HONEST] * count))

  many(100)
  before = resident()
  many(2000)
  assert all(after <= first + 512 for first, after in zip(before, resident(), strict=True))

"""The pool's processes: they die, are killed and are replaced, no verdict changes, and nothing is left
behind.
"""

import os
import pathlib
import random
import signal
import subprocess
import sys
import threading

import fake_verifiers
import pytest
from fake_verifiers import CATALOG, CRASHED, PROBLEM, ask, expected, numbered
from processes import DEADLINE, below, gone, parent, wait_for

import o1jax
from o1jax.verifiers import gsm8k
from o1jax.verifiers.base import Problem, Verdict
from o1jax.verifiers.pool import Pool, PoolError, PoolLimits
from o1jax.verifiers.pool.dispatch import MAX_STARTING

PARENT = """
import sys, time
sys.path[:0] = {path!r}
from o1jax.verifiers.base import Problem
from o1jax.verifiers.catalog import Entry, VerifierLimits
from o1jax.verifiers.pool import Pool

catalog = {{"fake": Entry("fake_verifiers", (), VerifierLimits(600.0, 600.0))}}
with Pool(["fake"], 3, catalog=catalog) as pool:
  problem = Problem("p", "", "", "test")
  pool.submit("fake", [problem] * 2, ["loop", "child {pids}"])
  print(pool.verify("fake", [problem], ["pid"])[0].parsed, flush=True)
  pool.verify("fake", [problem], ["sleep 600"])
"""


def test_a_worker_that_dies_once_changes_nothing(pool, tmp_path):
  deed = f"once {tmp_path / 'died'}"
  assert ask(pool, deed) == [Verdict(0.0, False, deed, "wrong")]
  assert (tmp_path / "died").exists()
  assert pool.stats().deaths == 1


def test_the_fork_server_may_die_too(pool):
  (pid,) = {int(verdict.parsed or 0) for verdict in ask(pool, "pid")}
  server = parent(pid)
  pending = pool.submit("fake", [PROBLEM] * 300, numbered(300))
  os.kill(server, signal.SIGKILL)
  assert pending.result() == [expected(i) for i in range(300)]
  assert gone([pid])
  assert ask(pool, "killserver", *numbered(3))[0] == CRASHED


def test_workers_killed_at_random_change_no_verdict():
  problems = [Problem(str(i), "", str(i), "gsm8k") for i in range(250)]
  completions = [f"so #### {i + i % 3}" for i in range(250)]
  burns = [f"burn 0.002{i:03d}" for i in range(250)]
  stop = threading.Event()
  rng = random.Random(0)

  def kill() -> None:
    """Ends a worker each time that some more items are done, so that none meets its end over and over."""
    due = 0
    while not stop.wait(0.001):
      workers = sorted(below(server))
      if workers and pool.stats().graded >= due:
        os.kill(rng.choice(workers), signal.SIGKILL)
        due = pool.stats().graded + 20

  with Pool(["gsm8k", "fake"], 2, catalog=CATALOG) as pool:
    server = parent(int(ask(pool, "pid")[0].parsed or 0))
    killer = threading.Thread(target=kill)
    killer.start()
    rounds: list[list[Verdict]] = []
    while pool.stats().deaths <= 5 and len(rounds) < 20:  # a loaded machine kills fewer a round
      pending = [
        pool.submit("gsm8k", problems[i : i + 5], completions[i : i + 5]) for i in range(0, 250, 5)
      ] + [pool.submit("fake", [PROBLEM] * 250, burns)]
      rounds.append([verdict for batch in pending for verdict in batch.result()])
    stop.set()
    killer.join()
    assert pool.stats().deaths > 5
  right = gsm8k.verify(problems, completions) + [Verdict(0.0, False, burn, "wrong") for burn in burns]
  assert all(verdicts == right for verdicts in rounds)


def test_workers_that_cannot_start_are_an_error():
  with Pool(["fake"], 1, own=PoolLimits(memory_bytes=1 << 70), catalog=CATALOG) as pool:
    with pytest.raises(PoolError, match="died one after the other"):
      ask(pool, "ok 0")


def test_workers_are_replaced_after_many_items():
  with Pool(["fake"], 1, own=PoolLimits(recycle_items=10), catalog=CATALOG) as pool:
    assert ask(pool, *numbered(95)) == [expected(i) for i in range(95)]
    assert wait_for(lambda: pool.stats().started == 10)
    assert pool.stats().deaths == 0


def test_workers_are_replaced_when_they_grow():
  with Pool(["fake"], 1, own=PoolLimits(recycle_bytes=64 << 20), catalog=CATALOG) as pool:
    first = ask(pool, "pid")[0].parsed
    assert ask(pool, "hoard 16", "pid ")[1].parsed == first
    ask(pool, "hoard 65")
    assert ask(pool, "pid  ")[0].parsed != first


def test_nothing_is_left_behind(tmp_path):
  before, descriptors = below(os.getpid()), len(os.listdir("/proc/self/fd"))
  with Pool(["fake"], 2, catalog=CATALOG) as pool:
    ask(pool, f"child {tmp_path / 'pids'}", "kill", f"child {tmp_path / 'pids'} ")
    assert len(below(os.getpid()) - before) >= 4
  pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
  assert len(pids) == 2 and gone(pids)
  assert below(os.getpid()) == before
  assert len(os.listdir("/proc/self/fd")) == descriptors
  assert "o1jax-verifiers" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_parent(tmp_path, number):
  path = [
    str(pathlib.Path(module.__file__ or "").parents[up]) for module, up in ((o1jax, 1), (fake_verifiers, 0))
  ]
  program = PARENT.format(path=path, pids=tmp_path / "pids")
  with subprocess.Popen(
    [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
  ) as caller:
    assert caller.stdout is not None and int(caller.stdout.readline()) > 0
    assert wait_for(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text().endswith("\n"))
    left = below(caller.pid)
    assert len(left) == 5  # the fork server, three workers, the program of one
    caller.send_signal(number)
    assert gone(left)
    assert caller.wait(DEADLINE) == -number  # Python ends by SIGINT after an unhandled KeyboardInterrupt


def test_more_workers_than_start_at_once():
  with Pool(["fake"], MAX_STARTING + 3, catalog=CATALOG) as pool:
    assert wait_for(lambda: pool.stats().started == MAX_STARTING + 3)
    assert ask(pool, *numbered(40)) == [expected(i) for i in range(40)]
    assert pool.stats().deaths == 0


@pytest.mark.slow
def test_ten_thousand_items_leak_nothing():
  own = PoolLimits(recycle_items=500, cached=100)

  def size() -> tuple[int, int]:
    with open("/proc/self/statm") as file:
      return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))

  before = below(os.getpid())
  with Pool(["fake"], 2, own=own, catalog=CATALOG) as pool:
    ask(pool, *numbered(2000))
    first = size()
    for start in range(2000, 12_000, 500):
      ask(pool, *[f"ok {i}" for i in range(start, start + 490)], *["kill", "spin", "segfault"])
    last = size()
    assert last[1] <= first[1] + 4 and last[0] < first[0] + (8 << 20), (first, last)
  assert below(os.getpid()) == before

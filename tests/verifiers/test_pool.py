"""The pool: what one item does, no other notices; what is sent comes back in order; nothing is left behind."""

import json
import logging
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from o1jax.verifiers import gsm8k
from o1jax.verifiers.base import Problem, Verdict
from o1jax.verifiers.catalog import Entry, VerifierLimits
from o1jax.verifiers.dispatch import MAX_STARTING, PoolError, PoolLimits
from o1jax.verifiers.pool import Pool, ProblemError, cores, make_verify

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
CATALOG = {
  "fake": Entry("fakes", ("answer", "extra"), VerifierLimits(0.3, 60.0)),
  "sleepy": Entry("fakes", ("answer",), VerifierLimits(60.0, 0.3)),
  "missing": Entry("o1jax.verifiers.no_such_module", ("answer",), VerifierLimits(1.0, 10.0)),
}
PROBLEM = Problem("p", "", "good", "test")
OK = Verdict(1.0, True, "0")
TIMEOUT, CRASHED = (Verdict(0.0, False, None, error) for error in ("timeout", "crashed"))
DEADLINE = 30.0  # seconds within which what must happen does


@pytest.fixture(autouse=True)
def _fakes(monkeypatch) -> None:
  monkeypatch.syspath_prepend(str(HERE))


@pytest.fixture
def pool() -> Iterator[Pool]:
  with Pool(["fake", "sleepy"], 2, catalog=CATALOG) as made:
    yield made


def ask(pool: Pool, *completions: str, name: str = "fake", **settings) -> list[Verdict]:
  return pool.verify(name, [PROBLEM] * len(completions), completions, settings)


def numbered(count: int) -> list[str]:
  return [f"ok {i}" for i in range(count)]


def expected(i: int) -> Verdict:
  return Verdict(1 / (1 + i), i == 0, str(i), None if i == 0 else "wrong")


def children() -> set[int]:
  """Processes below this one, whoever their parent is."""
  listed = subprocess.run(["ps", "-eo", "pid,ppid,stat,comm"], capture_output=True, text=True, check=True)
  rows = [line.split() for line in listed.stdout.splitlines()[1:]]
  found, more = {os.getpid()}, True
  while more:
    below = {int(row[0]) for row in rows if int(row[1]) in found and row[3] != "ps"} | found
    more, found = below != found, below
  return found - {os.getpid()}


def alive(pid: int) -> bool:
  """Whether a process is there and no zombie."""
  try:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
  except (FileNotFoundError, ProcessLookupError):
    return False


def wait_for(condition: Callable[[], bool]) -> bool:
  """Whether it came true before the deadline."""
  end = time.monotonic() + DEADLINE
  while not condition() and time.monotonic() < end:
    time.sleep(0.02)
  return condition()


def test_verdicts_come_in_order(pool):
  assert ask(pool, *numbered(50)) == [expected(i) for i in range(50)]
  assert ask(pool) == []


@pytest.mark.parametrize(
  ("completion", "verdict"),
  [
    ("spin", TIMEOUT),
    ("loop", TIMEOUT),
    ("threads", TIMEOUT),
    ("kill", CRASHED),
    ("segfault", CRASHED),
    ("leave 0", CRASHED),
    ("leave 3", CRASHED),
    ("exit", CRASHED),
    ("bomb", CRASHED),
    ("recurse", CRASHED),
    ("value", CRASHED),
    ("type", CRASHED),
    ("contract", CRASHED),
    ("term", Verdict(0.0, False, "term", "wrong")),
    ("burn 0.1", Verdict(0.0, False, "burn 0.1", "wrong")),
  ],
)
def test_what_one_item_does_no_other_notices(pool, completion, verdict):
  told = ask(pool, *numbered(20), completion, *numbered(40)[20:])
  assert told.pop(20) == verdict
  assert told == [expected(i) for i in range(40)]


def test_a_sleeper_is_over_its_idle_limit_and_a_worker_that_computes_is_not(pool):
  told = ask(pool, "sleep 600", "burn 1.5", "sleep 0.05", name="sleepy")
  assert [verdict.error for verdict in told] == ["timeout", "wrong", "wrong"]


def test_a_slow_item_holds_up_none_of_two_hundred(pool):
  slow = pool.submit("sleepy", [PROBLEM], ["burn 3"])
  assert ask(pool, *numbered(200)) == [expected(i) for i in range(200)]
  assert slow._left == 1
  assert slow.result()[0].error == "wrong"


def test_a_worker_that_dies_once_changes_nothing(pool, tmp_path):
  deed = f"once {tmp_path / 'died'}"
  assert ask(pool, deed) == [Verdict(0.0, False, deed, "wrong")]
  assert (tmp_path / "died").exists()
  assert pool.stats().deaths == 1


def test_the_fork_server_may_die_too(pool):
  (pid,) = {int(verdict.parsed or 0) for verdict in ask(pool, "pid")}
  server = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
  pending = pool.submit("fake", [PROBLEM] * 300, numbered(300))
  os.kill(server, signal.SIGKILL)
  assert pending.result() == [expected(i) for i in range(300)]
  assert wait_for(lambda: not alive(pid))
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
      workers = sorted(children() - {server})
      if workers and pool.stats().graded >= due:
        os.kill(rng.choice(workers), signal.SIGKILL)
        due = pool.stats().graded + 20

  with Pool(["gsm8k", "fake"], 2, catalog={**CATALOG, "gsm8k": GSM8K}) as pool:
    assert ask(pool, "ok 0") == [OK]
    (server,) = (pid for pid in children() if _parent(pid) == os.getpid())
    killer = threading.Thread(target=kill)
    killer.start()
    pending = [
      pool.submit("gsm8k", problems[i : i + 5], completions[i : i + 5]) for i in range(0, 250, 5)
    ] + [pool.submit("fake", [PROBLEM] * 250, burns)]
    told = [verdict for batch in pending for verdict in batch.result()]
    stop.set()
    killer.join()
    assert pool.stats().deaths > 5
  assert told == gsm8k.verify(problems, completions) + [Verdict(0.0, False, burn, "wrong") for burn in burns]


GSM8K = Entry("o1jax.verifiers.gsm8k", ("answer",), VerifierLimits(2.0, 20.0))


def _parent(pid: int) -> int:
  return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_order_and_batch_change_nothing(pool):
  deeds = [*numbered(60), "segfault", "spin", "bomb", "exit"]
  whole = dict(zip(deeds, ask(pool, *deeds)))
  shuffled = random.Random(1).sample(deeds, len(deeds))
  with Pool(["fake"], 3, catalog=CATALOG) as other:
    assert [ask(other, deed)[0] for deed in shuffled] == [whole[deed] for deed in shuffled]


def test_many_batches_from_many_threads(pool):
  told: dict[int, list[Verdict]] = {}
  threads = [
    threading.Thread(target=lambda n=n: told.update({n: ask(pool, *numbered(100)[n:])})) for n in range(8)
  ]
  pending = [pool.submit("fake", [PROBLEM] * 2, [f"ok {i}", "ok 0"]) for i in range(100)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert told == {n: [expected(i) for i in range(n, 100)] for n in range(8)}
  assert [batch.result() for batch in reversed(pending)] == [[expected(i), OK] for i in reversed(range(100))]


def test_equal_items_are_graded_once(pool):
  assert ask(pool, "ok 0", "ok 0", "ok 1", "ok 0") == [OK, OK, expected(1), OK]
  assert pool.stats()[:2] == (2, 2)
  assert ask(pool, "ok 0", "ok 2") == [OK, expected(2)]
  assert pool.stats()[:2] == (3, 3)


def test_what_a_verifier_reads_and_its_settings_tell_items_apart(pool):
  other = Problem("q", "another prompt", "good", "elsewhere", {"unread": 1})
  assert pool.verify("fake", [PROBLEM, other], ["ok 1", "ok 1"]) == [expected(1)] * 2
  assert pool.stats().graded == 1
  for extra in (1, 1.0, True, [1], (1,), None):
    pool.verify("fake", [Problem("p", "", "good", "test", {"extra": extra})], ["ok 1"])
  assert pool.stats().graded == 7
  assert ask(pool, "ok 1", factor=4.0)[0].reward == 2.0
  assert ask(pool, "ok 1", factor=2.0)[0].reward == 1.0
  assert pool.stats().graded == 9


def test_a_verifier_sees_what_it_reads_and_no_more(pool):
  given = Problem("p", "prompt", "good", "test", {"extra": (1, [2.5]), "unread": 1})
  seen = Problem("", "", "good", "", {"extra": (1, [2.5])})
  assert pool.verify("fake", [given], ["saw"])[0].parsed == repr(seen)


def test_a_crash_is_tried_anew_and_a_timeout_is_kept(pool):
  for _ in range(2):
    assert ask(pool, "exit", "spin") == [CRASHED, TIMEOUT]
  assert pool.stats().graded == 3


def test_the_cache_is_bounded():
  own = PoolLimits(cached=2, cached_text=5)
  with Pool(["fake"], 1, own=own, catalog=CATALOG) as pool:
    for completion in ("ok 1", "ok 2", "ok 1", "ok 3", "ok 2", "long 5", "long 5", "long 6", "long 6"):
      ask(pool, completion)
    assert pool.stats()[:2] == (7, 2)  # known: the second `ok 1` and the second `long 5`


def test_a_bad_problem_is_named_and_the_others_are_graded(pool):
  bad = Problem("q7", "", "bad", "test")
  with pytest.raises(ProblemError, match="fake: problem 'q7': its answer is bad"):
    pool.verify("fake", [PROBLEM, bad, PROBLEM], ["ok 0", "ok 1", "ok 2"])
  pending = pool.submit("fake", [bad, PROBLEM], ["ok 1", "ok 2"])
  assert pending.graded(0).verdict is None
  assert pending.graded(1).verdict == expected(2)


def test_seconds_are_the_cpu_time_of_an_item(pool):
  pending = pool.submit("fake", [PROBLEM] * 4, ["burn 0.2", "sleep 0.4", "ok 0", "spin"])
  burnt, slept, quick, over = (pending.graded(place).seconds for place in range(4))
  assert 0.2 <= burnt < 0.29 and slept < 0.1 and quick < 0.1 and 0.29 < over < 0.4


def test_a_crash_is_told(pool, caplog):
  with caplog.at_level(logging.WARNING):
    ask(pool, "type")
  assert "TypeError: of ours" in caplog.text


def test_what_cannot_work_is_an_error(pool):
  with pytest.raises(ProblemError, match="cannot be made"):
    ask(pool, "ok 0", broken=True)
  with pytest.raises(ValueError, match="1 problems have 2 completions"):
    pool.verify("fake", [PROBLEM], ["a", "b"])
  with pytest.raises(ValueError, match="this pool serves fake, sleepy"):
    pool.verify("missing", [PROBLEM], ["a"])
  with pytest.raises(ValueError, match="no such verifier"):
    Pool(["nothing"], 1, catalog=CATALOG)
  with pytest.raises(ValueError, match="at least one worker"):
    Pool(["fake"], 0, catalog=CATALOG)


def test_a_verifier_that_cannot_be_loaded_is_an_error():
  with Pool(["missing"], 1, catalog=CATALOG) as pool:
    with pytest.raises(PoolError, match="No module named 'o1jax.verifiers.no_such_module'"):
      ask(pool, "ok 0", name="missing")
    with pytest.raises(PoolError):
      ask(pool, "ok 0", name="missing")


def test_workers_that_cannot_start_are_an_error():
  with Pool(["fake"], 1, own=PoolLimits(memory_bytes=1 << 70), catalog=CATALOG) as pool:
    with pytest.raises(PoolError, match="died one after the other"):
      ask(pool, "ok 0")


def test_a_closed_pool_says_so():
  with Pool(["fake", "sleepy"], 1, catalog=CATALOG) as pool:
    pending = pool.submit("sleepy", [PROBLEM], ["burn 600"])
  for call in (pending.result, lambda: ask(pool, "ok 0")):
    with pytest.raises(PoolError, match="closed"):
      call()
  pool.close()


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


def test_large_items_and_large_verdicts_travel(pool):
  completion = "ok 0".ljust(20_000_000)
  assert pool.verify("fake", [Problem("p", "", "good", "t", {"extra": "x" * 10_000_000})], ["ok 0"]) == [OK]
  assert ask(pool, "long 5000000")[0].parsed == "y" * 5_000_000
  assert ask(pool, completion, "ok 0")[1] == OK


def test_text_of_any_kind_travels(pool):
  for text in ("\ud800 lone", "\0", "𝔘 ☃", "line\r\nline\u2028"):
    assert ask(pool, f"print {text}")[0].parsed == f"print {text}"


def test_standard_output_stays_the_callers(pool, capfd):
  ask(pool, "print")
  assert capfd.readouterr().out == ""


def test_nothing_is_left_behind(tmp_path):
  before, descriptors = children(), len(os.listdir("/proc/self/fd"))
  with Pool(["fake"], 2, catalog=CATALOG) as pool:
    ask(pool, f"child {tmp_path / 'pids'}", "kill", f"child {tmp_path / 'pids'} ")
    assert len(children() - before) >= 4
  pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
  assert len(pids) == 2 and not any(alive(pid) for pid in pids)
  assert children() == before
  assert len(os.listdir("/proc/self/fd")) == descriptors
  assert "o1jax-verifiers" not in {thread.name for thread in threading.enumerate()}


PARENT = """
import sys, time
sys.path[:0] = {path!r}
from o1jax.verifiers.base import Problem
from o1jax.verifiers.catalog import Entry, VerifierLimits
from o1jax.verifiers.pool import Pool

catalog = {{"fake": Entry("fakes", (), VerifierLimits(600.0, 600.0))}}
with Pool(["fake"], 3, catalog=catalog) as pool:
  problem = Problem("p", "", "", "test")
  pool.submit("fake", [problem] * 2, ["loop", "child {pids}"])
  print(pool.verify("fake", [problem], ["pid"])[0].parsed, flush=True)
  pool.verify("fake", [problem], ["sleep 600"])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_parent(tmp_path, number):
  program = PARENT.format(path=[str(ROOT), str(HERE)], pids=tmp_path / "pids")
  before = children()
  parent = subprocess.Popen(
    [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
  )
  assert parent.stdout is not None and int(parent.stdout.readline()) > 0
  assert wait_for(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text().endswith("\n"))
  below = children() - before
  assert len(below) == 6  # the parent, its fork server, three workers, the program of one
  parent.send_signal(number)
  assert wait_for(lambda: not any(alive(pid) for pid in below - {parent.pid}))
  assert parent.wait(DEADLINE) == (1 if number == signal.SIGINT else -number) or number == signal.SIGINT
  parent.stdout.close()


def test_as_a_plain_function(pool):
  verify = make_verify(pool, "fake", {"factor": 3.0})
  assert verify([PROBLEM], ["ok 2"])[0].reward == 1.0


def test_more_workers_than_start_at_once():
  with Pool(["fake"], MAX_STARTING + 3, catalog=CATALOG) as pool:
    assert wait_for(lambda: pool.stats().started == MAX_STARTING + 3)
    assert ask(pool, *numbered(40)) == [expected(i) for i in range(40)]
    assert pool.stats().deaths == 0


def test_cores():
  assert 1 <= cores() <= (os.cpu_count() or 1)


@pytest.mark.slow
def test_ten_thousand_items_leak_nothing():
  own = PoolLimits(recycle_items=500, cached=100)

  def size() -> tuple[int, int]:
    with open("/proc/self/statm") as file:
      return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))

  before = children()
  with Pool(["fake"], 2, own=own, catalog=CATALOG) as pool:
    ask(pool, *[f"print {i}" for i in range(2000)])
    first = size()
    for start in range(2000, 12_000, 500):
      ask(pool, *[f"ok {i}" for i in range(start, start + 490)], *["kill", "spin", "segfault"])
    last = size()
    assert last[1] <= first[1] + 4 and last[0] < first[0] + (8 << 20), json.dumps([first, last])
  assert children() == before

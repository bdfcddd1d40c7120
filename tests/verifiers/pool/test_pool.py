"""The pool: what one item does, no other notices; verdicts come in order, and depend on the item alone."""

import logging
import os
import random
import threading

import pytest
from fake_verifiers import CATALOG, CRASHED, OK, PROBLEM, TIMEOUT, ask, expected, numbered

from o1jax.verifiers.base import Problem, Verdict
from o1jax.verifiers.pool import Pool, PoolError, PoolLimits, ProblemError, cores


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
  slow = pool.submit("sleepy", [PROBLEM], ["burn 1.5"])
  assert ask(pool, *numbered(200)) == [expected(i) for i in range(200)]
  assert slow._left == 1
  assert slow.result()[0].error == "wrong"


def test_order_and_batch_change_nothing(pool):
  deeds = [*numbered(60), "segfault", "spin", "bomb", "exit"]
  whole = dict(zip(deeds, ask(pool, *deeds)))
  shuffled = random.Random(1).sample(deeds, len(deeds))
  with Pool(["fake"], 3, catalog=CATALOG) as other:
    assert [ask(other, deed)[0] for deed in shuffled] == [whole[deed] for deed in shuffled]


def test_strings_hash_the_same_way_in_each_pool(pool):
  with Pool(["fake"], 1, catalog=CATALOG) as other:
    assert ask(other, "hash some text") == ask(pool, "hash some text")


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


def test_a_closed_pool_says_so():
  with Pool(["fake", "sleepy"], 1, catalog=CATALOG) as pool:
    pending = pool.submit("sleepy", [PROBLEM], ["burn 600"])
  for call in (pending.result, lambda: ask(pool, "ok 0")):
    with pytest.raises(PoolError, match="closed"):
      call()
  pool.close()


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


def test_cores():
  assert 1 <= cores() <= (os.cpu_count() or 1)

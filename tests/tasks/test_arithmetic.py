"""Generated arithmetic: every pair has a place, no problem is in two splits, each worked answer is right."""

import random
import re

import numpy as np
import pytest

from o1jax.config import ArithmeticConfig, ConfigError
from o1jax.tasks import arithmetic
from o1jax.tasks.arithmetic import APPLY, demonstrate, draw_pairs, ordered_pair, unordered_pair
from o1jax.verifiers.base import Problem

RNG = np.random.default_rng(0)


def build(**fields):
  return arithmetic.build(ArithmeticConfig(**fields))


def test_places_list_each_pair_once():
  unordered = [unordered_pair(place) for place in range(10)]
  assert unordered == [(0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2), (0, 3), (1, 3), (2, 3), (3, 3)]
  ordered = [ordered_pair(place) for place in range(9)]
  assert ordered == [(0, 0), (0, 1), (1, 1), (1, 0), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0)]
  assert sorted(ordered_pair(place) for place in range(49)) == [(a, b) for a in range(7) for b in range(7)]


@pytest.mark.parametrize("exponent", [20, 60, 199])
def test_places_are_exact_far_out(exponent):
  top = 10**exponent
  assert unordered_pair(top * (top + 1) // 2 - 1) == (top - 1, top - 1)
  assert unordered_pair(top * (top + 1) // 2) == (0, top)
  assert ordered_pair(top * top) == (0, top) and ordered_pair(top * top - 1) == (top - 1, 0)


def canonical(problem: Problem) -> tuple:
  a, op, b = re.match(r"(\d+) ([+*-]) (\d+)\nAnswer:\n$", problem.prompt).groups()
  return (op, int(a), int(b)) if op == "-" else (op, *sorted((int(a), int(b))))


def test_splits_are_disjoint_by_canonical_form_and_of_the_asked_sizes():
  made = build(digits=1, size=120, held_out=30, more_digits=31)
  problems = [*made.train, *made.held_out, *made.ood["more_digits"]]
  assert (len(made.train), len(made.held_out), len(problems)) == (120, 30, 181)
  assert len(set(map(canonical, problems))) == len({problem.id for problem in problems}) == 181
  ops = [[canonical(p)[0] for p in some] for some in (made.train, made.held_out)]
  assert [[op.count(sign) for sign in "+-*"] for op in ops] == [[40] * 3, [10] * 3]
  assert all(max(canonical(p)[1:]) > 9 for p in made.ood["more_digits"])
  assert all(max(canonical(p)[1:]) <= 9 for p in made.train)


def test_answers_are_exact_and_worked_answers_verify():
  made = build(digits=3, size=300, held_out=30, more_digits=30)
  problems = [*made.train, *made.held_out, *made.ood["more_digits"]]
  for problem in problems:
    a, op, b = problem.prompt.split()[:3]
    assert problem.answer == str(APPLY[op](int(a), int(b)))
  texts = [made.demonstrate(problem, RNG) for problem in problems]
  assert all(verdict.correct for verdict in made.verify(problems, texts))
  assert all(made.count_tries(p, t) == 1 and made.well_formed(p, t) for p, t in zip(problems, texts))
  assert (
    not made.well_formed(problems[0], "no answer") and made.count_tries(problems[0], "#### 1\n#### 2") == 2
  )


WORKED = {
  (47, "+", 36): "7 + 6 = 13, write 3, carry 1\n4 + 3 + 1 = 8, write 8\n#### 83",
  (99, "+", 1): "9 + 1 = 10, write 0, carry 1\n9 + 0 + 1 = 10, write 0, carry 1\nwrite 1\n#### 100",
  (52, "-", 19): "12 - 9 = 3, write 3, borrow 1\n5 - 1 - 1 = 3, write 3\n#### 33",
  (3, "-", 10): "10 is larger: -(10 - 3)\n10 - 3 = 7, write 7, borrow 1\n1 - 0 - 1 = 0, write 0\n#### -7",
  (47, "*", 36): "47 * 6 = 282\n47 * 30 = 1410\n282 + 1410 = 1692\n#### 1692",
  (0, "*", 5): "0 * 5 = 0\n#### 0",
}


@pytest.mark.parametrize("given", WORKED)
def test_a_worked_answer_by_hand(given):
  a, op, b = given
  problem = Problem("", "", str(APPLY[op](a, b)), "arithmetic", {"a": a, "op": op, "b": b})
  assert demonstrate(problem) == WORKED[given]


def test_every_line_of_work_is_true_and_the_written_digits_are_the_answer():
  rng = random.Random(0)
  for _ in range(300):
    a, b, op = rng.randrange(10**5), rng.randrange(10**5), rng.choice("+-*")
    text = demonstrate(Problem("", "", str(APPLY[op](a, b)), "", {"a": a, "op": op, "b": b}))
    for left, right in re.findall(r"^([\d +*-]+) = (\d+)", text, re.MULTILINE):
      assert eval(left) == int(right)
    if op != "*":
      written = "".join(reversed(re.findall(r"write (\d)", text)))
      assert int(written) == abs(APPLY[op](a, b))


def test_the_split_hangs_on_its_seed_and_sizes_alone():
  first, again = build(size=30, held_out=9), build(size=30, held_out=9)
  assert (first.train, first.held_out, first.data_hash) == (again.train, again.held_out, again.data_hash)
  others = [
    build(size=30, held_out=9, split_seed=1),
    build(size=31, held_out=9),
    build(size=30, held_out=9, digits=3),
  ]
  others += [
    build(size=30, held_out=9, more_digits=3),
    build(size=30, held_out=9, operations=("+", "*", "-")),
  ]
  assert len({first.data_hash, *(other.data_hash for other in others)}) == 6


def test_both_orders_of_operands_come():
  made = build(size=200, held_out=10, operations=("+",))
  first = [problem.meta["a"] < problem.meta["b"] for problem in made.train]
  assert 60 < sum(first) < 140


def test_too_many_problems_are_refused_by_name():
  with pytest.raises(
    ConfigError, match=r"^task\.size: only 55 problems `a \+ b` have such operands, 56 are wanted"
  ):
    build(digits=1, size=46, held_out=10, operations=("+",))
  assert len(build(digits=1, size=45, held_out=10, operations=("+",)).train) == 45
  with pytest.raises(ConfigError, match=r"^task\.more_digits: only 9900 problems"):
    build(digits=1, size=10, held_out=10, operations=("-",), more_digits=9901)


def test_long_operands_are_drawn_without_a_list():
  (pair,) = draw_pairs("*", 0, 10**100, 1, random.Random(0), "size")
  assert 10**98 < max(pair) < 10**100
  made = build(digits=100, size=3, held_out=3)
  texts = [made.demonstrate(problem, RNG) for problem in made.train]
  assert all(verdict.correct for verdict in made.verify(made.train, texts))

"""The order of problems: shares, epochs, what a curriculum takes, passes over and drops."""

import collections
import itertools
import json

import numpy as np
import pytest

from o1jax.config import ConfigError, CurriculumConfig
from o1jax.tasks.stream import (
  Record,
  Stream,
  Use,
  curriculum_metrics,
  draw,
  draw_order,
  generator,
  name_of,
  problems_from,
  remembered,
)
from o1jax.verifiers.base import Problem

PLAIN = CurriculumConfig()


def some(source: str, count: int) -> tuple[Problem, ...]:
  return tuple(Problem(str(i), "", "", source) for i in range(count))


ALONE = Stream((some("a", 7),), (1.0,), seed=3)
MIXED = Stream((some("a", 50), some("b", 5), some("c", 1000)), (0.25, 0.01, 0.74), seed=3)


def first(stream: Stream, count: int, start: int = 0) -> list[Problem]:
  return list(itertools.islice(problems_from(stream, start), count))


def test_one_part_comes_once_an_epoch_in_another_order_each() -> None:
  came = [int(problem.id) for problem in first(ALONE, 21)]
  epochs = [came[i : i + 7] for i in (0, 7, 14)]
  assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
  assert len(set(map(tuple, epochs))) == 3
  assert came == draw_order(7, 3, 0, 21).tolist()
  assert came != [int(problem.id) for problem in first(Stream(ALONE.parts, (1.0,), seed=4), 21)]


@pytest.mark.parametrize("stream", [ALONE, MIXED])
def test_a_stream_goes_on_from_any_position(stream) -> None:
  came = first(stream, 700)
  for start in (1, 6, 7, 255, 256, 300, 650):
    assert first(stream, 50, start) == came[start : start + 50][:50] or start + 50 > 700
  assert first(stream, 40, 650) == came[650:690]


def test_uses_of_a_seed_share_no_random_numbers() -> None:
  draws = [generator(0, use, number).random() for use in Use for number in range(300)]
  draws += [generator(0, use, number, 0).random() for use in Use for number in range(300)]
  draws += [np.random.default_rng(seed).random() for seed in range(300)]
  assert len(set(draws)) == len(draws) == 11 * 300


def test_parts_come_by_their_shares_and_each_problem_once_an_epoch_of_its_part() -> None:
  came = first(MIXED, 10_000)
  counts = collections.Counter(problem.source for problem in came)
  for source, share in zip("abc", MIXED.shares):
    assert (
      abs(counts[source] - 10_000 * share) < 12
    )  # a block that has not ended may be uneven by its own share
  for source, size in (("a", 50), ("b", 5), ("c", 1000)):
    own = [problem.id for problem in came if problem.source == source]
    for start in range(0, len(own) - size, size):
      assert len(set(own[start : start + size])) == size
  near = collections.Counter(problem.source for problem in came[:512])
  assert 0 < near["b"] <= 8 and abs(near["a"] - 128) <= 2


def test_without_a_curriculum_the_next_problems_are_taken() -> None:
  problems, behind = draw(MIXED, 100, 30, PLAIN, {})
  assert problems == first(MIXED, 30, 100) and behind == 130
  assert remembered({}, problems, np.ones((30, 2), bool), PLAIN) == {}
  assert curriculum_metrics({}, 0, MIXED, PLAIN) == {}


RULE = CurriculumConfig("pass_rate", min_probability=0.25, rate=0.5, drop_solved=2, drop_unsolved=3)


def test_records_by_hand() -> None:
  problem = some("a", 1)
  seen: dict = {}
  shares = ([1, 1], [1, 1], [0, 1], [0, 0], [0, 0])
  expected = [(1, 1, 1.0), (2, 2, 1.0), (3, 0, 0.75), (4, -1, 0.375), (5, -2, 0.1875)]
  for row, record in zip(shares, expected):
    seen = remembered(seen, problem, np.array([row], bool), RULE)
    assert seen == {"a/0": list(record)}
    seen = json.loads(json.dumps(seen))  # as a checkpoint keeps it
  assert seen == {"a/0": [5, -2, 0.1875]}


def test_what_is_always_or_never_solved_is_dropped_and_counted() -> None:
  seen = {"a/0": [2, 2, 1.0], "a/1": [9, 1, 0.5], "a/2": [3, -3, 0.0], "a/3": [3, -2, 0.5]}
  problems, behind = draw(ALONE, 0, 50, RULE, seen)
  ids = {problem.id for problem in problems}
  assert ids == {"1", "3", "4", "5", "6"}
  assert curriculum_metrics(seen, behind - 50, ALONE, RULE) == {
    "curriculum/passed_over": behind - 50,
    "curriculum/seen": 4,
    "curriculum/dropped_solved": 1,
    "curriculum/dropped_unsolved": 1,
  }
  assert behind == 70  # five of seven are taken


def test_what_is_left_of_each_part_of_a_mixture_is_told() -> None:
  seen = {f"b/{i}": [2, 2, 1.0] for i in range(5)} | {"a/7": [3, -3, 0.0], "c/9": [1, 1, 1.0]}
  told = curriculum_metrics(seen, 0, MIXED, RULE)
  left = {name: told[f"curriculum/left/{name}"] for name in "abc"}
  assert left == {"a": 49, "b": 0, "c": 1000}
  assert told["curriculum/dropped_solved"] == 5 and told["curriculum/dropped_unsolved"] == 1
  problems, _ = draw(MIXED, 0, 500, RULE, seen)
  assert {problem.source for problem in problems} == {"a", "c"}


def test_problems_are_taken_in_proportion_to_what_their_rewards_vary() -> None:
  rule = CurriculumConfig("pass_rate", min_probability=0.25, rate=0.5)
  seen = {"a/0": Record(4, 0, 0.9), "a/1": Record(4, 0, 0.0)}  # taken with probability 0.36 and 0.25
  problems, behind = draw(ALONE, 0, 7000, rule, seen)
  counts = collections.Counter(problem.id for problem in problems)
  offered = behind / 7
  assert abs(counts["0"] / offered - 0.36) < 0.04 and abs(counts["1"] / offered - 0.25) < 0.04
  assert all(abs(counts[str(i)] - offered) <= 1 for i in range(2, 7))


def test_what_is_taken_does_not_depend_on_how_it_is_asked_for() -> None:
  seen = {name_of(problem): Record(4, 0, 0.9) for problem in ALONE.parts[0]}
  whole, behind = draw(ALONE, 5, 24, RULE, seen)
  parts: list[Problem] = []
  position = 5
  for count in (1, 10, 13):
    came, position = draw(ALONE, position, count, RULE, seen)
    parts += came
  assert parts == whole and position == behind


def test_a_stream_that_has_nothing_left_says_so() -> None:
  seen = {name_of(problem): Record(2, 2, 1.0) for problem in ALONE.parts[0]}
  with pytest.raises(ConfigError, match="every training problem is dropped"):
    draw(ALONE, 0, 1, RULE, seen)

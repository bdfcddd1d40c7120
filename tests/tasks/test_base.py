"""What holds for every task: sampling keys of their own, and demonstrations that fit their rows."""

import dataclasses

import pytest

from o1jax.config import ConfigError, CountdownConfig
from o1jax.tasks import base
from o1jax.tasks.base import Task, check_demonstrations, problem_hash, rehash
from o1jax.tasks.countdown import build
from o1jax.verifiers.base import Problem


@pytest.fixture(scope="module")
def task() -> Task:
  return build(CountdownConfig(count=2, max_number=6, held_out=16))


def problems(*names: str) -> list[Problem]:
  return [Problem(name, name, "", "test") for name in names]


def test_problems_that_share_no_hash_keep_theirs(task: Task) -> None:
  everything = [*task.train, *task.held_out]
  assert rehash(everything) == {} and task.rehashed == {}
  assert [task.hash_of(p) for p in everything] == [problem_hash(p) for p in everything]
  assert problem_hash(Problem("2 3 5", "", "", "countdown")) == 1568836126


def few(problem: Problem, salt: int = 0) -> int:
  """A hash that everything without salt shares."""
  return 10 + salt


def test_problems_that_share_a_hash_get_keys_of_their_own(monkeypatch, task: Task) -> None:
  monkeypatch.setattr(base, "problem_hash", few)
  a, b, c = some = problems("a", "b", "c")
  changed = rehash(some)
  assert changed == {"test/b": 11, "test/c": 12} == rehash(some)
  assert [dataclasses.replace(task, rehashed=changed).hash_of(p) for p in some] == [10, 11, 12]
  assert rehash([c, b, a]) == {"test/b": 11, "test/a": 12}


def test_a_real_collision_is_resolved_and_only_the_later_problem_changes() -> None:
  some = problems("90407", "127256", "1")
  first, second, other = map(problem_hash, some)
  assert first == second != other
  (changed,) = rehash(some).items()
  assert changed[0] == "test/127256" and changed[1] not in (first, other) and 0 <= changed[1] < 2**32
  assert list(rehash(some[::-1])) == ["test/90407"]


def test_an_id_given_twice_is_named() -> None:
  with pytest.raises(ValueError, match="test have the id 'a'"):
    rehash(problems("a", "b", "a"))


def test_a_demonstration_longer_than_a_row_names_its_problem(task: Task) -> None:
  told = {p.id: "3 + 4 = 7 off 0 yes" for p in task.train} | {task.train[5].id: "3 + 4 = 7 off 1 no quit"}
  fixed = dataclasses.replace(task, one_demonstration=True, demonstrate=lambda problem, rng: told[problem.id])
  size = 4 + 9 + 1  # the prompt `a b -> t`, the text, and the end
  check_demonstrations(fixed, size)
  with pytest.raises(ConfigError) as caught:
    check_demonstrations(fixed, size - 1)
  expected = f"sft.length: problem {task.train[5].id!r} and its demonstration have 14 tokens, a row 13"
  assert str(caught.value) == expected


def test_no_demonstrations_or_drawn_ones_are_not_checked(task: Task) -> None:
  assert check_demonstrations(task, 1) is None  # and nothing was raised
  assert check_demonstrations(dataclasses.replace(task, one_demonstration=True, demonstrate=None), 1) is None

"""The countdown task: disjoint splits, sound demonstrations, a tokenizer that loses nothing."""

import collections
import dataclasses
import itertools
import re

import numpy as np
import pytest

from o1jax.config import ConfigError, CountdownConfig
from o1jax.io.tokenizer import train_tokenizer
from o1jax.tasks import base, countdown
from o1jax.tasks.base import Task
from o1jax.tasks.countdown import build, chains, reachable
from o1jax.verifiers.base import Problem
from o1jax.verifiers.countdown import GIVE_UP, OPERATIONS, OTHER, SKIP, count_tries, lexemes

CFG = CountdownConfig(count=3, max_number=6, held_out=100, max_tries=5)


@pytest.fixture(scope="module")
def task() -> Task:
  return build(CFG)


def canonical(problem: Problem) -> tuple[int, ...]:
  """What makes two problems one: the sorted numbers, and the target."""
  *numbers, target = (int(n) for n in re.findall(r"\d+", problem.prompt))
  return (*sorted(numbers), target)


def test_chains_by_hand() -> None:
  ends = {end for _, end in chains((2, 3), 99)}
  assert ends == {5, 1, 6}  # 2 - 3 is negative
  assert {end for _, end in chains((2, 3), 5)} == {5, 1}


@pytest.mark.parametrize("numbers", [(2, 3), (1, 1, 5), (3, 7, 9), (2, 2, 5, 9), (1, 4, 4, 15)])
def test_what_is_reachable_is_where_the_chains_end(numbers) -> None:
  for max_value in (20, 99):
    assert reachable(numbers, max_value, {}) == {end for _, end in chains(numbers, max_value)}


def test_splits_share_no_canonical_problem(task: Task) -> None:
  train, held_out = ({canonical(p) for p in split} for split in (task.train, task.held_out))
  assert len(held_out) == CFG.held_out and not train & held_out
  assert len(train) == len(task.train)


def test_demonstrations_are_right_or_give_up(task: Task) -> None:
  rng = np.random.default_rng(0)
  problems = list(task.train[:300])
  texts = [task.demonstrate(p, rng) for p in problems]
  for text, verdict in zip(texts, task.verify(problems, texts)):
    assert verdict.correct != text.endswith(GIVE_UP)
    assert 1 <= count_tries(text) <= CFG.max_tries
  given_up = np.mean([text.endswith(GIVE_UP) for text in texts])
  assert 0.3 < given_up < 0.9


def test_the_tokenizer_round_trips(task: Task) -> None:
  rng = np.random.default_rng(1)
  for problem in task.train[:200]:
    for text in (problem.prompt, task.demonstrate(problem, rng)):
      ids = task.tokenizer.encode(text)
      assert task.tokenizer.decode(ids) == text
      assert len(ids) == len(text.split())  # a token a word


def test_a_demonstration_tries_each_chain_once_and_solves_last() -> None:
  sure = build(
    CountdownConfig(count=2, max_number=4, held_out=1, hint_rate=1e-9, give_up_rate=0.0, max_tries=9)
  )
  problem = next(p for p in sure.train if p.prompt == "2 4 -> 8")
  *dropped, last = sure.demonstrate(problem, np.random.default_rng(0)).split(" no wait ")
  assert set(dropped) == {"2 + 4 = 6 off 2", "4 + 2 = 6 off 2", "4 - 2 = 2 off 6"} and len(dropped) == 3
  assert last in ("2 * 4 = 8 off 0 yes", "4 * 2 = 8 off 0 yes")


def test_too_many_problems_are_refused(monkeypatch) -> None:
  everything = countdown.all_problems(CFG)
  assert len({p.id for p in everything}) == len(everything) == 556
  monkeypatch.setattr(countdown, "MAX_PROBLEMS", 556)
  assert countdown.all_problems(CFG) == everything
  monkeypatch.setattr(countdown, "MAX_PROBLEMS", 555)
  with pytest.raises(ConfigError, match="^task.max_number: 6 makes more than 555 problems of 3 numbers$"):
    countdown.all_problems(CFG)


def test_more_held_out_problems_than_there_are() -> None:
  with pytest.raises(ConfigError, match="task.held_out"):
    build(CountdownConfig(count=2, max_number=2, held_out=1000))


def test_a_token_is_a_lexeme_and_two_side_by_side_are_two() -> None:
  tokenizer = countdown.make_tokenizer(CountdownConfig())
  table, size = countdown.lexeme_table(tokenizer), tokenizer.vocab_size
  assert size == 4 + 100 + len(OPERATIONS) + 8 and len(table.kind) == size + 1
  known = np.bincount(table.kind, minlength=OTHER + 1)
  assert known[SKIP] == 3 and known[OTHER] == 3  # padding, begin, end; the unknown, `->`, and ids beyond
  pairs = [(a, b) for a in range(size + 1) for b in range(size + 1)]
  found = lexemes([tokenizer.decode(pair) for pair in pairs])
  for pair, kinds, values in zip(pairs, found.kind, found.value, strict=True):
    seen = [(table.kind[token], table.value[token]) for token in pair if table.kind[token] != SKIP]
    assert list(zip(kinds, values)) == [*seen, (SKIP, 0), (SKIP, 0)][:2]


@pytest.mark.parametrize("symbols", [["▁0", "7"], ["▁0", "▁3 + 4"], ["▁0", "▁yes", "▁-7"]])
def test_a_tokenizer_whose_tokens_are_no_lexemes_is_refused(symbols) -> None:
  with pytest.raises(ValueError, match="is no lexeme of its own"):
    countdown.lexeme_table(train_tokenizer(["0"], vocab_size=99, symbols=symbols))


def test_the_device_knows_problems_by_padded_arrays(task: Task) -> None:
  arrays = task.device.arrays(countdown.problems_of((2, 3), [6]) + countdown.problems_of((3, 7, 9), [34]))
  assert {name: array.tolist() for name, array in arrays.items()} == {
    "numbers": [[2, 3, -1], [3, 7, 9]],
    "target": [6, 34],
  }
  assert all(array.dtype == np.int32 for array in arrays.values())


def test_products_beyond_32_bits_are_graded_on_the_host_alone(task: Task) -> None:
  device = lambda largest: countdown.make_device(task.tokenizer, CountdownConfig(max_value=largest), 3)
  assert device(46_340) is not None and device(46_341) is None


def ids(problems) -> list[str]:
  return [problem.id for problem in problems]


def test_the_split_is_that_of_earlier_versions(task: Task) -> None:
  assert task.data_hash == "e040073513d7ac4dbdc3b98954cdce53a42d8c9e405c2ef41da35776f7a9f4f3"


def test_larger_targets_are_neither_trained_on_nor_held_out(task: Task) -> None:
  cfg = dataclasses.replace(CFG, max_target=20)
  cut = build(cfg)
  inside = [*cut.train, *cut.held_out]
  assert max(p.meta["target"] for p in inside) == 20
  assert set(ids(inside)) == {p.id for p in countdown.all_problems(CFG) if p.meta["target"] <= 20}
  (larger,) = cut.ood.values()
  assert list(cut.ood) == ["larger_targets"] and min(p.meta["target"] for p in larger) > 20
  assert len(set(ids(larger))) == len(larger) == cfg.held_out
  assert cut.data_hash != build(dataclasses.replace(cfg, split_seed=1)).data_hash
  some = build(dataclasses.replace(cfg, max_target=90)).ood["larger_targets"]
  assert set(ids(some)) == {p.id for p in countdown.all_problems(CFG) if p.meta["target"] > 90}
  with pytest.raises(ConfigError, match="^task.max_target: no problem has a target above 98$"):
    build(dataclasses.replace(cfg, max_target=98))


def test_problems_of_one_number_more_are_solvable_and_within_the_targets_of_training(task: Task) -> None:
  cfg = dataclasses.replace(CFG, max_target=20, more_numbers=150)
  more = build(cfg).ood["more_numbers"]
  assert len(set(ids(more))) == 150 and ids(more) == ids(build(cfg).ood["more_numbers"])
  for problem in more:
    numbers, target = tuple(problem.meta["numbers"]), problem.meta["target"]
    assert len(numbers) == 4 and list(numbers) == sorted(numbers) and 1 <= min(numbers) <= max(numbers) <= 6
    assert target <= 20 and any(end == target for _, end in chains(numbers, CFG.max_value))
  other = build(dataclasses.replace(CFG, more_numbers=150))
  assert list(other.ood) == ["more_numbers"] and ids(other.train) == ids(task.train)
  assert len({other.hash_of(p) for p in [*other.train, *other.held_out, *other.ood["more_numbers"]]}) == 706
  assert other.device.arrays(other.train[:1])["numbers"].shape == (1, 4)


def test_every_problem_of_one_number_more_is_as_likely() -> None:
  cfg = CountdownConfig(count=2, max_number=3, max_value=12, held_out=1)
  listed = ids(countdown.all_problems(dataclasses.replace(cfg, count=3)))
  seen = collections.Counter(
    problem.id
    for seed in range(600)
    for problem in countdown.draw_problems(dataclasses.replace(cfg, split_seed=seed), 3, 1)
  )
  assert set(seen) == set(listed) and max(seen.values()) < 3 * 600 / len(listed)
  with pytest.raises(
    ConfigError, match=f"^task.more_numbers: only {len(listed)} problems of 3 numbers were found"
  ):
    countdown.draw_problems(cfg, 3, len(listed) + 1)


def test_a_collision_among_problems_out_of_distribution_is_resolved(monkeypatch) -> None:
  monkeypatch.setattr(base, "problem_hash", lambda problem, salt=0: len(problem.prompt) + 1000 * salt)
  cut = build(dataclasses.replace(CFG, held_out=20, max_target=20, more_numbers=10))
  everything = [*cut.train, *cut.held_out, *itertools.chain(*cut.ood.values())]
  assert len({cut.hash_of(problem) for problem in everything}) == len(everything)

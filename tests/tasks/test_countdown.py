"""The countdown task: disjoint splits, sound demonstrations, a tokenizer that loses nothing."""

import numpy as np
import pytest

from o1jax.config import ConfigError, CountdownConfig
from o1jax.io.tokenizer import train_tokenizer
from o1jax.tasks import countdown
from o1jax.tasks.base import Task
from o1jax.tasks.countdown import build, canonical, chains, reachable
from o1jax.verifiers.countdown import GIVE_UP, OPERATIONS, OTHER, SKIP, count_tries, lexemes

CFG = CountdownConfig(count=3, max_number=6, held_out=100, max_tries=5)


@pytest.fixture(scope="module")
def task() -> Task:
  return build(CFG, seed=0)


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


def test_the_split_does_not_depend_on_the_run(task: Task) -> None:
  assert [p.id for p in build(CFG, seed=1).held_out] == [p.id for p in task.held_out]


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
    CountdownConfig(count=2, max_number=4, held_out=1, hint_rate=1e-9, give_up_rate=0.0, max_tries=9), 0
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
    build(CountdownConfig(count=2, max_number=2, held_out=1000), seed=0)


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

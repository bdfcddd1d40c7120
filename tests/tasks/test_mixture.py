"""Many tasks as one: each problem keeps its verifier, its demonstrations and a sampling key of its own."""

import dataclasses
import pathlib
import threading

import numpy as np
import pytest

from o1jax.config import ConfigError, CountdownConfig, Gsm8kConfig, MixtureConfig, Part, TextConfig
from o1jax.tasks.base import Task
from o1jax.tasks.catalog import build_task
from o1jax.tasks.mixture import verify_by_source
from o1jax.verifiers.base import Problem, Verdict

ROWS = pathlib.Path(__file__).parent.parent / "data" / "gsm8k_rows.jsonl"


def config(folder: pathlib.Path, weight: float = 3.0) -> MixtureConfig:
  words = Gsm8kConfig(path=str(ROWS), data_dir=str(folder), held_out=4)
  numbers = CountdownConfig(count=2, max_number=5, max_value=25, held_out=6)
  return MixtureConfig((Part(words, weight), Part(numbers)), text=TextConfig(vocab=420), data_dir=str(folder))


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Task:
  return build_task(config(tmp_path_factory.mktemp("mixture")))


def test_problems_of_all_sources_come_by_their_weights(task: Task) -> None:
  assert task.shares == {"gsm8k": 0.75, "countdown": 0.25}
  stream = task.stream(0, None)
  assert [len(part) for part in stream.parts] == [8, len(task.train) - 8] and stream.shares == (0.75, 0.25)
  assert [problem.source for problem in task.held_out] == [*["gsm8k", "countdown"] * 4, *["countdown"] * 2]


def test_a_demonstration_is_right_by_its_own_verifier(task: Task) -> None:
  rng = np.random.default_rng(0)
  words, numbers = task.train[0], task.train[-1]
  assert (words.source, numbers.source) == ("gsm8k", "countdown")
  solved = task.demonstrate(words, rng)
  tries = next(text for text in iter(lambda: task.demonstrate(numbers, rng), None) if text.endswith("yes"))
  verdicts = task.verify([numbers, words, words, numbers], [tries, tries, solved, solved])
  assert [verdict.correct for verdict in verdicts] == [True, False, True, False]
  assert task.count_tries(words, solved) == 1 and task.well_formed(numbers, tries)
  assert not task.well_formed(numbers, solved)


def test_text_of_all_sources_comes_back_and_no_two_problems_share_a_key(task: Task) -> None:
  problems = [*task.train, *task.held_out]
  assert len({task.hash_of(problem) for problem in problems}) == len(problems)
  for problem in problems:
    assert task.tokenizer.decode(task.tokenizer.encode(problem.prompt)) == problem.prompt


def test_the_data_hash_is_of_all_sources(task: Task, tmp_path) -> None:
  cfg = config(tmp_path)
  assert build_task(cfg).data_hash == task.data_hash
  other = dataclasses.replace(cfg.parts[1].task, split_seed=1)
  changed = dataclasses.replace(cfg, parts=(cfg.parts[0], Part(other)))
  assert build_task(changed).data_hash != task.data_hash


def test_verifiers_work_side_by_side_and_verdicts_keep_their_order() -> None:
  both = threading.Barrier(2, timeout=20)

  def named(name: str):
    def verify(problems, completions):
      both.wait()  # passed by two at once, or not at all
      return [
        Verdict(0.0, False, f"{name} {problem.id} {text}") for problem, text in zip(problems, completions)
      ]

    return verify

  problems = [Problem(str(i), "", "", source) for i, source in enumerate("abba")]
  verdicts = verify_by_source({"a": named("a"), "b": named("b")})(problems, ["w", "x", "y", "z"])
  assert [verdict.parsed for verdict in verdicts] == ["a 0 w", "b 1 x", "b 2 y", "a 3 z"]


def test_mistakes_are_named(tmp_path) -> None:
  cfg = config(tmp_path)
  with pytest.raises(ConfigError, match=r"task.parts\[1\].task: is a second gsm8k"):
    build_task(dataclasses.replace(cfg, parts=(cfg.parts[0], cfg.parts[0])))

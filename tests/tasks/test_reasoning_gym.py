"""Datasets of reasoning-gym as tasks: made in a process of their own, scored in the pool."""

import json
import subprocess
import sys

import pytest

from o1jax.config import ConfigError, ReasoningGymConfig
from o1jax.tasks import pooled, reasoning_gym


def config(data_dir, dataset="leg_counting", **fields):
  return ReasoningGymConfig(dataset, data_dir=str(data_dir), **{"size": 6, "held_out": 4, **fields})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("gym")


@pytest.fixture(scope="module")
def made(folder):
  yield reasoning_gym.build(config(folder))
  pooled.close()


@pytest.mark.full
def test_splits_are_of_the_asked_sizes_and_disjoint(made):
  questions = [problem.prompt for problem in (*made.train, *made.held_out)]
  assert (len(made.train), len(made.held_out), len(set(questions))) == (6, 4, 10)
  assert made.name == "gym_leg_counting" and made.demonstrate is None and list(made.sft_problems) == []
  assert all(problem.source == made.name for problem in made.train)


@pytest.mark.full
def test_its_own_answers_score_and_others_do_not(made):
  problems = list(made.train)
  right = made.verify(problems, [f"Legs: <answer>{problem.answer}</answer>" for problem in problems])
  assert [verdict.correct for verdict in right] == [True] * 6
  assert [verdict.correct for verdict in made.verify(problems, ["<answer>-1</answer>"] * 6)] == [False] * 6
  assert [made.count_tries(problems[0], text) for text in ("", "4", "<answer>4</answer>", "</answer></answer>")] == [
    0, 1, 1, 2,
  ]  # fmt: skip


def test_two_builds_are_one_and_the_second_makes_nothing(made, folder, monkeypatch):
  monkeypatch.delattr(subprocess, "run")
  again = reasoning_gym.build(config(folder))
  assert (again.train, again.held_out, again.data_hash) == (made.train, made.held_out, made.data_hash)


@pytest.mark.full
def test_seeds_options_and_sizes_make_other_problems(made, tmp_path):
  others = [{"split_seed": 1}, {"size": 5, "options": (("max_animals", "3"),)}]
  hashes = {reasoning_gym.build(config(tmp_path, **fields)).data_hash for fields in others}
  assert len(hashes | {made.data_hash}) == 3


def run(order: dict, hash_seed: str) -> str:
  command = [sys.executable, "-m", reasoning_gym.__name__]
  done = subprocess.run(
    command, input=json.dumps(order), capture_output=True, text=True, check=True,
    env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
  )  # fmt: skip
  return done.stdout


@pytest.mark.full
def test_why_entries_are_made_in_a_process_with_a_fixed_hash_seed():
  order = {"dataset": "isomorphic_strings", "options": {}, "splits": {"train": {"seed": 5, "count": 4}}}
  assert run(order, "0") != run(order, "1")


@pytest.mark.full
def test_modules_of_the_working_directory_are_not_taken_for_others(made, tmp_path, monkeypatch):
  (tmp_path / "json.py").write_text("raise SystemExit('not me')")
  monkeypatch.chdir(tmp_path)
  assert len(reasoning_gym.build(config(tmp_path / "data", size=3)).train) == 3


REFUSED = {
  "task.dataset: reasoning-gym has no 'chess'; it has ab, ": {"dataset": "chess"},
  "task.options: leg_counting cannot be made with {'colour': 1}: TypeError": {"options": (("colour", "1"),)},
  "task.options: leg_counting cannot be made with {'min_animals': 0}: AssertionError": {
    "options": (("min_animals", "0"),)
  },
  "task.options: composite cannot be made with {}: AssertionError": {"dataset": "composite"},
  "task.size: coin_flip gives only": {
    "dataset": "coin_flip",
    "size": 400,
    "options": (("min_trials", "3"), ("max_trials", "3")),
  },
}


@pytest.mark.full
@pytest.mark.parametrize("told", REFUSED)
def test_what_cannot_be_made_is_refused_in_one_line(tmp_path, told):
  with pytest.raises(ConfigError) as error:
    reasoning_gym.build(config(tmp_path, **REFUSED[told]))
  assert str(error.value).startswith(told) and "\n" not in str(error.value)


@pytest.mark.slow
def test_every_dataset_becomes_a_task_by_its_name(tmp_path):
  from reasoning_gym.factory import DATASETS

  told = {}
  for name in sorted(set(DATASETS) - {"composite"}):
    try:
      made = reasoning_gym.build(config(tmp_path, name, size=3, held_out=2))
      told[name] = len(made.train)
    except ConfigError as error:
      told[name] = str(error)
  pooled.close()
  assert {name: what for name, what in told.items() if what != 3} == {}

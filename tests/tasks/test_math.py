"""MATH-style rows as a task."""

import json
import pathlib

import numpy as np
import pytest

from o1jax.config import ConfigError, MathConfig
from o1jax.tasks import math
from o1jax.tasks.catalog import build_problems

ROWS = pathlib.Path(__file__).parents[1] / "data" / "math_rows.jsonl"

pytestmark = pytest.mark.usefixtures("in_process")


def build(tmp_path, path=ROWS, **fields):
  return build_problems(
    MathConfig(str(path), data_dir=str(tmp_path / "d"), **{"held_out": 3, "unverified": 0, **fields})
  )


def write(path: pathlib.Path, *rows: dict) -> pathlib.Path:
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def test_the_last_rows_are_held_out_and_all_solutions_verify(tmp_path):
  made = build(tmp_path)
  assert [problem.id for problem in made.train] == [f"train/{n}" for n in range(1, 6)]
  assert [problem.id for problem in made.held_out] == [f"train/{n}" for n in range(6, 9)]
  problems = [*made.train, *made.held_out]
  texts = [made.demonstrate(problem, np.random.default_rng(0)) for problem in problems]
  assert [verdict.error for verdict in made.verify(problems, texts)] == [None] * 8
  assert [made.count_tries(*pair) for pair in zip(problems, texts)] == [1] * 8
  assert all(made.well_formed(*pair) for pair in zip(problems, texts))


def test_the_gold_answer_is_the_given_one_or_the_last_box(tmp_path):
  made = build(tmp_path)
  assert [problem.answer for problem in made.train] == [
    r"\frac{15}{2}", "7,-7", "15", r"6\sqrt{2}", r"\frac{5}{2}",
  ]  # fmt: skip
  assert made.train[0].prompt.endswith("and $\\frac{5}{2}$?\nSolution:\n")


def test_a_solution_without_a_box_gets_one(tmp_path):
  made = build(tmp_path)
  assert made.train[4].meta["solution"].endswith("whose slope is $\\frac52$.\n\\boxed{\\frac{5}{2}}")


def test_an_answer_may_be_a_number_and_stand_alone(tmp_path):
  rows = [{"problem": "one", "answer": 17}, {"problem": "two", "answer": 0.5, "solution": None}]
  made = build(
    tmp_path, write(tmp_path / "a.json", *rows, {"problem": "three", "solution": r"\boxed{3}"}), held_out=1
  )
  assert [(p.answer, p.meta["solution"]) for p in made.train] == [
    ("17", r"\boxed{17}"),
    ("0.5", r"\boxed{0.5}"),
  ]


def test_two_builds_are_one_and_the_hash_follows_the_content(tmp_path):
  first, second = build(tmp_path), build(tmp_path)
  assert (first.train, first.held_out, first.data_hash) == (second.train, second.held_out, second.data_hash)
  lines = ROWS.read_text().replace("$35$ marbles", "$35$ pearls")
  (tmp_path / "other.jsonl").write_text(lines)
  assert build(tmp_path, tmp_path / "other.jsonl").data_hash != first.data_hash
  assert build(tmp_path, held_out=2).data_hash != first.data_hash


BAD = {
  "field 'problem' is empty": {"problem": " ", "solution": r"\boxed{1}"},
  r"has neither a field 'answer' nor a \boxed{} in its solution": {"problem": "a", "solution": "one"},
  r"its last \boxed{} is empty or does not close": {"problem": "a", "solution": r"\boxed{1"},
  "its reference does not verify: wrong": {"problem": "a", "solution": r"\boxed{1}", "answer": "2"},
  "nothing can be graded by it: problem train/2: the gold answer": {
    "problem": "a",
    "solution": r"\boxed{1}",
    "answer": "???",
  },
  "field 'answer' is list, not str": {"problem": "a", "solution": r"\boxed{1}", "answer": [1]},
}


@pytest.mark.parametrize("told", BAD)
def test_a_bad_row_is_named(tmp_path, told):
  good = {"problem": "one", "solution": r"\boxed{1}"}
  path = write(tmp_path / "a.jsonl", good, BAD[told], good)
  with pytest.raises(ConfigError) as error:
    build(tmp_path, path, held_out=1)
  assert str(error.value).startswith(f"{path} row 2: ") and told in str(error.value)


TRIES = {
  "": 0,
  "I do not know": 0,
  r"so \boxed{3}": 1,
  r"\boxed{3}, no: \boxed{4}": 2,
  r"\boxed{3}</think> The answer is \boxed{4}": 1,
  "#### 3": 1,
  "The answer is 5.": 1,
}


@pytest.mark.parametrize("text", TRIES)
def test_answers_are_counted_as_they_are_read(text):
  assert math.count_answers(text) == TRIES[text]

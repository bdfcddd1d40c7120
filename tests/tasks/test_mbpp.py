"""MBPP-style rows as a task, judged in the sandbox."""

import json
import logging
import pathlib

import numpy as np
import pytest

from o1jax.config import ConfigError, MbppConfig
from o1jax.tasks import dataset, mbpp
from o1jax.tasks.catalog import build_problems
from o1jax.tasks.mbpp import count_blocks, fenced, is_program, tidy

ROWS = pathlib.Path(__file__).parents[1] / "data" / "mbpp_rows.jsonl"

pytestmark = pytest.mark.usefixtures("in_process")


def build(tmp_path, path=ROWS, **fields):
  return build_problems(
    MbppConfig(str(path), data_dir=str(tmp_path / "d"), **{"held_out": 2, "unverified": 0, **fields})
  )


def rows() -> list[dict]:
  return [json.loads(line) for line in ROWS.read_text().splitlines()]


def write(path: pathlib.Path, some: list[dict]) -> pathlib.Path:
  path.write_text("".join(json.dumps(row) + "\n" for row in some))
  return path


def test_the_split_is_the_published_one_and_all_references_pass(tmp_path):
  made = build(tmp_path)
  assert [problem.id for problem in made.train] == ["601", "602", "603", "604"]
  assert [problem.id for problem in made.held_out] == ["11", "12"]
  problems = [*made.train, *made.held_out]
  texts = [made.demonstrate(problem, np.random.default_rng(0)) for problem in problems]
  assert [verdict.error for verdict in made.verify(problems, texts)] == [None] * 6
  assert all(made.count_tries(p, t) == 1 and made.well_formed(p, t) for p, t in zip(problems, texts))


def test_the_sanitized_form_is_the_same_problems(tmp_path):
  some = [row | {"prompt": row["text"], "test_imports": ["import math"]} for row in rows()]
  some = [{k: v for k, v in row.items() if k not in ("text", "challenge_test_list")} for row in some]
  imported = [{k: v for k, v in row.items() if k != "test_setup_code"} for row in some[:1]] + [
    row | {"test_setup_code": row["test_setup_code"] or None} for row in some[1:]
  ]
  made, published = build(tmp_path, write(tmp_path / "a.jsonl", imported)), build(tmp_path)
  assert [problem.prompt for problem in made.train] == [problem.prompt for problem in published.train]
  assert all(problem.meta["test_setup"].startswith("import math") for problem in made.train)


def test_a_prompt_tells_the_text_and_one_test(tmp_path):
  problem = build(tmp_path).train[1]
  assert problem.prompt == (
    "Write a function that subtracts the smaller of two numbers from the larger.\n"
    "Your code should pass this test:\nassert gap(2, 9) == 7\nAnswer:\n"
  )
  assert problem.meta["tests"] == ["assert gap(2, 9) == 7", "assert gap(9, 2) == 7", "assert gap(4, 4) == 0"]
  assert (problem.meta["entry_point"], problem.meta["test_setup"]) == ("gap", "")
  assert "\r" not in problem.meta["solution"]


def test_wrong_programs_fail_and_setup_code_is_there_for_the_tests(tmp_path):
  made = build(tmp_path)
  gap, root = made.train[1], made.train[3]
  texts = [fenced("def gap(a, b):\n  return b - a"), fenced("def root(n):\n  return int(n ** 0.5)")]
  assert [verdict.error for verdict in made.verify([gap, root], texts)] == ["wrong", None]


def test_two_builds_are_one_and_the_second_runs_no_program(tmp_path, monkeypatch):
  first = build(tmp_path)

  def refuse(problems, texts):
    raise AssertionError("something was verified")

  monkeypatch.setattr(dataset, "pooled", lambda name: refuse)
  second = build(tmp_path)
  assert (first.train, first.held_out, first.data_hash) == (second.train, second.held_out, second.data_hash)
  assert build(tmp_path, held_out=1).data_hash != first.data_hash


def test_the_hash_follows_the_tests(tmp_path):
  some = rows()
  some[-1]["test_list"].append("assert root(square(9)) == 9")
  assert build(tmp_path, write(tmp_path / "a.jsonl", some)).data_hash != build(tmp_path).data_hash


BAD = {
  "field 'code' is no Python program": {"code": "def gap(a, b:\n"},
  "field 'test_list' is no Python program": {"test_list": ["assert gap("]},
  "field 'test_setup_code' is no Python program": {"test_setup_code": "import"},
  "field 'text' (or 'prompt') is empty": {"text": " "},
  "field 'test_list' has no test, or an empty one": {"test_list": []},
  "field 'test_list' item 1 is int, not str": {"test_list": [1]},
  "field 'test_list' is str, not list": {"test_list": "assert True"},
  "field 'task_id': there is a 603 before": {"task_id": 603},
  "its reference does not verify: wrong": {"test_list": ["assert root(square(5)) == 6"]},
}


@pytest.mark.parametrize("told", BAD)
def test_a_bad_row_is_named(tmp_path, told):
  some = rows()
  some[-1].update(BAD[told])
  path = write(tmp_path / "a.jsonl", some)
  with pytest.raises(ConfigError) as error:
    build(tmp_path, path)
  assert str(error.value).startswith(f"{path} row {len(some)}: ") and told in str(error.value)


def test_references_that_fail_may_be_left_out(tmp_path, caplog):
  some = rows()
  some[-1]["test_list"] = ["assert root(square(5)) == 6"]
  with caplog.at_level(logging.WARNING):
    made = build(tmp_path, write(tmp_path / "a.jsonl", some), unverified=1)
  assert [problem.id for problem in made.train] == ["601", "602", "603"]
  assert "1 rows whose reference does not verify are left out" in caplog.text


def test_too_few_rows_are_an_error_that_names_the_field(tmp_path):
  with pytest.raises(ConfigError, match=r"^task\.held_out: only 3 rows of .* are of the test split"):
    build(tmp_path, held_out=4)
  some = [row for row in rows() if row["task_id"] < 600]
  with pytest.raises(ConfigError, match=r"^task\.path: no row of .* has a task_id in 601\.\.974"):
    build(tmp_path, write(tmp_path / "a.jsonl", some))


ENTRY = {
  "def f(x): return g(x)\ndef g(x): return x": "f",
  "def f(x): return x\ndef f2(x): return x": None,
  "class f:\n  pass": None,
}


@pytest.mark.parametrize("code", ENTRY)
def test_the_entry_point_is_the_one_function_that_all_tests_call(code):
  other = "f2" if "f2" in code else "len"
  assert mbpp.entry_point(code, [f"assert f(1) == {other}(2)", f"assert {other}(f(2))"]) == ENTRY[code]


def test_tidy_leaves_the_program_what_it_is():
  assert tidy("\r\ndef f(x): \r\n  return x  \r\n\r\n") == "def f(x):\n  return x"
  inside = 'TEXT = """a  \nb"""'
  assert tidy(inside) == inside
  assert tidy("def f(:  ") == "def f(:  "


BLOCKS = {
  "": (0, False),
  "  \n": (0, False),
  "def f(): pass": (1, True),
  "It is simple.": (1, False),
  "```python\ndef f(): pass\n```": (1, True),
  "So:\n```\nx = 1\n```\nor\n```python\nx = 2\n```\n": (2, True),
  "```python\ndef f(): pass": (1, True),
  "```python\ndef f(:\n```": (1, False),
  "```python\n```": (1, False),
}


@pytest.mark.parametrize("text", BLOCKS)
def test_programs_of_a_response_are_counted_and_known(text):
  assert (count_blocks(text), is_program(text)) == BLOCKS[text]

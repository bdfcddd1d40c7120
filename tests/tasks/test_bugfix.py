"""Buggy programs made of MBPP-style rows, judged in the sandbox."""

import pathlib

import numpy as np
import pytest

from o1jax.config import BugfixConfig, ConfigError
from o1jax.tasks import bugfix, dataset, mbpp
from o1jax.tasks.base import Example
from o1jax.tasks.mbpp import fenced
from o1jax.tasks.mutants import Mutant, normal
from o1jax.verifiers.base import Problem, Verdict

ROWS = pathlib.Path(__file__).parents[1] / "data" / "mbpp_rows.jsonl"

pytestmark = pytest.mark.usefixtures("in_process")


def config(data_dir, **fields) -> BugfixConfig:
  return BugfixConfig(str(ROWS), data_dir=str(data_dir), **{"held_out": 4, "unverified": 0, **fields})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """A folder in which the buggy programs are made once for all tests."""
  return tmp_path_factory.mktemp("bugfix")


@pytest.fixture
def made(prepared, in_process):
  return bugfix.build(config(prepared))


def test_buggy_programs_fail_some_tests_and_pass_the_others(made):
  problems = [*made.train, *made.held_out]
  buggy = [fenced(problem.meta["buggy"]) for problem in problems]
  assert [verdict.error for verdict in made.verify(problems, buggy)] == ["wrong"] * len(problems)
  for problem in problems:
    told = problem.prompt.partition("\n```\n")[2].removesuffix("\nAnswer:\n").split("\n")
    for test in problem.meta["tests"]:
      alone = Problem("", "", "", "bugfix", {**problem.meta, "tests": [test]})
      assert made.verify([alone], [fenced(problem.meta["buggy"])])[0].correct == (test not in told)


def test_the_reference_repairs_them(made):
  problems = [*made.train, *made.held_out]
  texts = [made.demonstrate(problem, np.random.default_rng(0)) for problem in problems]
  assert [verdict.error for verdict in made.verify(problems, texts)] == [None] * len(problems)
  assert all(made.count_tries(p, t) == 1 and made.well_formed(p, t) for p, t in zip(problems, texts))


def test_a_prompt_holds_the_buggy_program_and_the_tests_that_it_fails(made):
  problem = made.train[0]
  head, _, rest = problem.prompt.partition("```python\n")
  assert head == "This program fails the tests below it. Correct it.\n"
  assert rest.startswith(problem.meta["buggy"] + "\n```\nassert ") and rest.endswith("\nAnswer:\n")
  assert normal(problem.meta["buggy"]) == problem.meta["buggy"] != problem.meta["solution"]


def test_splits_are_those_of_the_rows(made):
  rows = lambda some: {problem.id.partition("/")[0] for problem in some}
  assert rows(made.train) <= {"601", "602", "603", "604"} and len(made.train) >= 6
  assert rows(made.held_out) <= {"11", "12", "13"} and len(made.held_out) == 4
  ids = [problem.id for problem in (*made.train, *made.held_out)]
  assert len(ids) == len(set(ids)) and {name.partition("/")[2] for name in ids} == {"1", "2"}


def test_what_was_made_is_read_back_and_no_program_is_run(prepared, made, monkeypatch):
  def refuse(problems, texts):
    raise AssertionError("something was verified")

  for module in (dataset, bugfix):
    monkeypatch.setattr(module, "pooled", lambda name, **settings: refuse)
  again = bugfix.build(config(prepared))
  assert (again.train, again.held_out, again.data_hash) == (made.train, made.held_out, made.data_hash)


def test_the_same_bugs_are_made_again_and_another_seed_makes_others(prepared, made):
  rows = mbpp.in_split(dataset.accepted(mbpp.DATASET, config(prepared), made.verify), mbpp.TRAIN)[:2]
  same, other = (bugfix.make(made.verify, rows, 2, 4, seed) for seed in (0, 1))
  told = [problem.meta["buggy"] for problem in made.train if problem.id[:3] in ("601", "602")]
  assert [bug["buggy"] for bug in same] == told and other != same


def test_too_few_buggy_programs_are_an_error_that_names_the_field(prepared):
  with pytest.raises(
    ConfigError, match=r"^task\.held_out: only [3-6] buggy programs can be made of the test split"
  ):
    bugfix.build(config(prepared, held_out=7))


def row(*tests: str) -> Example:
  meta = {"tests": list(tests), "test_setup": "", "entry_point": None, "solution": "def f(x):\n  return x"}
  return Example("file row 1", "text", Problem("601", "", "", "mbpp", meta), None)


def judged(told):
  """A verifier that says of a test what `told` holds; of many, what the first says that does not pass."""

  def verify(problems, texts):
    failed = [[told[test] for test in problem.meta["tests"] if told[test]] for problem in problems]
    errors = [some[0] if some else None for some in failed]
    return [Verdict(float(error is None), error is None, None, error) for error in errors]

  return verify


FAILING = {
  "some": ({"a": None, "b": "wrong"}, ["b"]),
  "all": ({"a": "wrong", "b": "wrong"}, ["a", "b"]),
  "none": ({"a": None, "b": None}, []),
  "one in time's end": ({"a": "wrong", "b": "timeout"}, []),
  "one in a crash": ({"a": None, "b": "crashed"}, []),
  "one in a crash at first": ({"a": "crashed", "b": "wrong"}, []),
  "one refused": ({"a": "wrong", "b": "policy"}, []),
}


@pytest.mark.parametrize("which", FAILING)
def test_only_wrong_answers_make_a_bug(which):
  told, wanted = FAILING[which]
  found = bugfix.failing_tests(judged(told), [row("a", "b"), row("b")], [Mutant("kind", "x = 1")] * 2)
  assert found == [wanted, ["b"] if told["b"] == "wrong" else []]

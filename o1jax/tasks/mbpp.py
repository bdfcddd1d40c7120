"""MBPP: small Python functions from a sentence and a test (Austin et al. 2021, section 2.1).

    JSONL (text or prompt, code, test_list, ...) -> prepared rows -> published split by task_id -> references that pass -> Source

The published split: 1-10 few-shot prompts, 11-510 test, 511-600 validation, 601-974 train. As in the paper, the prompt
tells the sentence and a test, from which the function's name can be read (the paper tells all tests). Code and tests
have their carriage returns taken out, and code its spaces at the ends of lines.
The sanitized form is read too, which calls the text `prompt` and has a list `test_imports` in place of `test_setup_code`.
Left out: few-shot prompts, the validation split, the challenge tests, which few rows have.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from o1jax.config import BugfixConfig, MbppConfig, require
from o1jax.io.data import jsonl_splits
from o1jax.tasks.base import Source
from o1jax.tasks.pooled import called, chosen, pooled
from o1jax.tasks.programs import count_blocks, fenced, is_program, parses, tidy
from o1jax.tasks.rows import Kind, Row, is_correct, letters_and_digits, make_source, single_file, verified
from o1jax.verifiers.base import Problem

NAME = "mbpp"
FIELDS = {
  "task_id": int, "text": str | None, "prompt": str | None, "code": str, "test_list": list[str],
  "test_setup_code": str | None, "test_imports": list[str] | None,
}  # fmt: skip
TEST, TRAIN = range(11, 511), range(601, 975)  # task_id of the published split
# How nearly all texts begin: with it, "... find the sum of" would make one problem a repetition of another.
_STEM = re.compile(r"write an? (?:python )?(?:function|program)(?: to| that| which| for)?\b", re.IGNORECASE)


def source(cfg: MbppConfig) -> Source:
  """The problems of the published train split, and the first `cfg.held_out` of the test split.

  Raises ConfigError naming the file and row of a bad row, `--task.path` of a file that cannot be had, and
  `task.held_out` where too few rows are left.
  """
  rows = accepted(cfg)
  train, held_out = rows["train"], rows["test"][: cfg.held_out]
  enough = len(held_out) == cfg.held_out
  require(enough, "task.held_out", f"only {len(held_out)} rows of {cfg.path} are of the test split")
  require(bool(train), "task.path", f"no row of {cfg.path} has a task_id in {TRAIN.start}..{TRAIN.stop - 1}")
  return make_source(kind(cfg), train, held_out, held_out, cfg.decontaminate, cfg.data_dir)


def kind(cfg: MbppConfig | BugfixConfig) -> Kind:
  """What MBPP's problems have in common."""
  return Kind(
    NAME, pooled("code", **chosen(cfg)), called("code", cfg), is_correct, demonstrate, count_blocks,
    coherent=lambda problem, text: is_program(text), key=letters_and_digits,
  )  # fmt: skip


def accepted(cfg: MbppConfig | BugfixConfig) -> Mapping[str, list[Row]]:
  """`train` and `test` of the published split: the rows whose reference passes its tests. Raises ConfigError."""
  file = single_file(cfg.path, cfg.sha256)
  data = jsonl_splits(NAME, {"rows": file}, FIELDS, cfg.data_dir, option="--task.path")
  rows = verified(list(_rows(cfg.path, data.splits["rows"])), kind(cfg), cfg.unverified, cfg.data_dir)
  number = lambda row: int(row.problem.id)
  return {
    "train": [row for row in rows if number(row) in TRAIN],
    "test": [row for row in rows if number(row) in TEST],
  }


def demonstrate(problem: Problem, rng: np.random.Generator) -> str:
  """The reference in a fence. Draws nothing: `rng` is left as it was."""
  del rng
  return fenced(problem.meta["solution"])


def entry_point(code: str, tests: Iterable[str]) -> str | None:
  """The function of `code` that all tests call; None where there is not just one."""
  defined = {node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)}
  names = [{node.id for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Name)} for test in tests]
  called = defined.intersection(*names)
  return next(iter(called)) if len(called) == 1 else None


def _rows(location: str, rows: Iterable[dict]) -> Iterator[Row]:
  """The rows of the train and test splits. Raises ConfigError naming file and row of a bad one."""
  known: set[int] = set()
  for number, row in enumerate(rows, start=1):
    where, task = f"{location} row {number}", row["task_id"]
    require(task not in known, where, f"field 'task_id': there is a {task} before")
    known.add(task)
    if task in TEST or task in TRAIN:
      yield _row(where, row)


def _row(where: str, row: dict) -> Row:
  text, code = (row["text"] or row["prompt"] or "").strip(), tidy(row["code"])
  tests = [test.replace("\r\n", "\n").strip() for test in row["test_list"]]
  setup = tidy("\n".join([*(row["test_imports"] or ()), row["test_setup_code"] or ""]))
  require(bool(text), where, "field 'text' (or 'prompt') is empty")
  require(bool(tests) and all(tests), where, "field 'test_list' has no test, or an empty one")
  for field, source in {"code": code, "test_setup_code": setup, "test_list": "\n".join(tests)}.items():
    require(parses(source), where, f"field {field!r} is no Python program")
  meta = {"tests": tests, "test_setup": setup, "entry_point": entry_point(code, tests), "solution": code}
  prompt = f"{text}\nYour code should pass this test:\n{tests[0]}\nAnswer:\n"
  return Row(where, _STEM.sub("", text), Problem(str(row["task_id"]), prompt, "", NAME, meta), fenced(code))

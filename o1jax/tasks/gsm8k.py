"""GSM8K: grade-school word problems with a worked solution that ends in `#### N` (Cobbe et al. 2021, section 2).

    JSONL (question, answer) -> prepared splits -> rows whose own solution verifies -> Source

The calculator annotations of the published solutions (`48/2 = <<48/2=24>>24`) are taken out: no calculator answers
them while sampling, and each repeats what the text around it says at the price of a quarter more tokens.
Left out: few-shot prompts, the calculator, a token to retry with (forced budgets need a task that knows one).
"""

import re
from collections.abc import Iterable, Iterator

import numpy as np

from o1jax.config import Gsm8kConfig, require
from o1jax.io.data import JsonlData, jsonl_splits
from o1jax.tasks.base import Source
from o1jax.tasks.pooled import called
from o1jax.tasks.rows import (
  Kind,
  Row,
  is_correct,
  last_or_test,
  letters_and_digits,
  make_source,
  split_files,
  verified,
)
from o1jax.verifiers.base import Problem
from o1jax.verifiers.gsm8k import count_answers, make_verify, parse_answer

NAME = "gsm8k"
FIELDS = {"question": str, "answer": str | float}
MARK = "####"

_ANNOTATION = re.compile(r"<<[^<>\n]*>>")


def source(cfg: Gsm8kConfig) -> Source:
  """The problems, from prepared files below `cfg.data_dir`.

  Of a folder or URL with train.jsonl and test.jsonl, the first `cfg.held_out` rows of test.jsonl are held out; of one
  .jsonl file, its last ones. A training row that asks or repeats a held-out question is left out, and their number
  logged. Raises ConfigError naming the file and row of a bad row, `--task.path` of a source that cannot be had, and
  `task.held_out` where too few rows are left.
  """
  data, files = load(cfg), split_files(cfg.path, cfg.sha256)
  kind = Kind(
    NAME, make_verify(cfg.policy), called("gsm8k", cfg), is_correct, demonstrate, count_answers,
    coherent=lambda problem, text: count_answers(text) == 1, key=letters_and_digits,
  )  # fmt: skip
  rows = [row for split, some in data.splits.items() for row in _rows(files[split].location, split, some)]
  train, held_out = last_or_test(verified(rows, kind, cfg.unverified, cfg.data_dir), cfg.held_out, cfg.path)
  return make_source(kind, train, held_out, held_out, cfg.decontaminate, cfg.data_dir)


def load(cfg: Gsm8kConfig) -> JsonlData:
  """Prepared splits of `cfg.path`: `train` and `test`, or `train` alone of one file. `data_hash` names their content.

  Raises ConfigError as `jsonl_splits` does, and where `cfg.sha256` does not fit the source.
  """
  return jsonl_splits(NAME, split_files(cfg.path, cfg.sha256), FIELDS, cfg.data_dir, option="--task.path")


def demonstrate(problem: Problem, rng: np.random.Generator) -> str:
  """The published solution without its annotations, `#### N` at its end. Draws nothing: `rng` is left as it was."""
  del rng
  return problem.meta["solution"]


def _rows(location: str, split: str, rows: Iterable[dict]) -> Iterator[Row]:
  """One problem a row. Raises ConfigError naming file and row where it is none."""
  for number, row in enumerate(rows, start=1):
    where = f"{location} row {number}"
    question = row["question"].strip()
    require(bool(question), where, "field 'question' is empty")
    solution = "\n".join(line.rstrip() for line in _ANNOTATION.sub("", row["answer"]).strip().split("\n"))
    if MARK not in solution and parse_answer(solution):  # the result alone
      solution = f"{MARK} {solution}"
    gold = solution.rpartition(MARK)[2].strip()
    require(MARK in solution, where, f"field 'answer' has no {MARK!r} before its result")
    values = parse_answer(gold)
    single = values is not None and len(values) == 1
    require(single, where, f"field 'answer': {gold[:80]!r} is not one number")
    problem = Problem(f"{split}/{number}", f"{question}\nAnswer:\n", gold, NAME, {"solution": solution})
    yield Row(where, question, problem, solution)

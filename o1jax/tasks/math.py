r"""Competition maths in the form of MATH: problems with a worked solution that ends in `\boxed{...}` (Hendrycks et al. 2021).

    JSONL (problem, solution or answer or both) -> prepared splits -> rows whose own solution verifies -> Source

The gold answer is the field `answer` where there is one, else the last box of the solution. A solution without a box
gets one line more, with the answer boxed: that is the form in which a response states it.
Left out: subject and level, diagrams drawn in code are text like any other.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from o1jax.config import MathConfig, require
from o1jax.io.data import jsonl_splits
from o1jax.tasks.base import Source
from o1jax.tasks.pooled import called, chosen, pooled
from o1jax.tasks.rows import (
  Kind,
  Row,
  is_correct,
  last_or_test,
  make_source,
  split_files,
  verified,
  without_spacing,
)
from o1jax.verifiers.base import Problem
from o1jax.verifiers.math.extract import DEFAULT_ORDER, EXTRACTORS, boxed, final_part

NAME = "math"
FIELDS = {"problem": str, "solution": str | None, "answer": str | float | None}


def source(cfg: MathConfig) -> Source:
  """The problems, from prepared files below `cfg.data_dir`.

  Of a folder or URL with train.jsonl and test.jsonl, the first `cfg.held_out` rows of test.jsonl are held out; of one
  .jsonl file, its last ones. A training row that asks or repeats a held-out question is left out, and their number
  logged. Raises ConfigError naming the file and row of a bad row, `--task.path` of a source that cannot be had, and
  `task.held_out` where too few rows are left.
  """
  files = split_files(cfg.path, cfg.sha256)
  data = jsonl_splits(NAME, files, FIELDS, cfg.data_dir, option="--task.path")
  kind = Kind(
    NAME, pooled("math", **chosen(cfg)), called("math", cfg), is_correct, demonstrate, count_answers,
    coherent=lambda problem, text: count_answers(text) == 1, key=without_spacing,
  )  # fmt: skip
  rows = [row for split, some in data.splits.items() for row in _rows(files[split].location, split, some)]
  train, held_out = last_or_test(verified(rows, kind, cfg.unverified, cfg.data_dir), cfg.held_out, cfg.path)
  return make_source(kind, train, held_out, held_out, cfg.decontaminate, cfg.data_dir)


def demonstrate(problem: Problem, rng: np.random.Generator) -> str:
  """The published solution. Draws nothing: `rng` is left as it was."""
  del rng
  return problem.meta["solution"]


def count_answers(text: str) -> int:
  """Final answers that a response states, by the first way of stating one that it uses."""
  stated = (EXTRACTORS[name](final_part(text)) for name in DEFAULT_ORDER)
  return len(next(filter(None, stated), []))


def _rows(location: str, split: str, rows: Iterable[dict]) -> Iterator[Row]:
  """One problem a row. Raises ConfigError naming file and row where it is none."""
  for number, row in enumerate(rows, start=1):
    where = f"{location} row {number}"
    question, solution = row["problem"].strip(), (row["solution"] or "").strip()
    require(bool(question), where, "field 'problem' is empty")
    boxes = boxed(solution)
    given = (row["answer"] or "").strip()
    require(bool(given or boxes), where, r"has neither a field 'answer' nor a \boxed{} in its solution")
    gold = given or boxes[-1].text
    require(bool(gold.strip()), where, r"field 'solution': its last \boxed{} is empty or does not close")
    if not boxes:
      solution = f"{solution}\n\\boxed{{{gold}}}".strip()
    problem = Problem(f"{split}/{number}", f"{question}\nSolution:\n", gold, NAME, {"solution": solution})
    yield Row(where, question, problem, solution)

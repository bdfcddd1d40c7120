"""HumanEval: Python functions to complete from their signature and docstring (Chen et al. 2021, section 2.2).

    JSONL (prompt, canonical_solution, test, entry_point) -> prepared rows -> references that pass -> Source

An evaluation set: all of it is held out, unless a number to hold out is asked for. The prompt is the published one as
it stands: code to go on with. A response may do that, or state the whole function in a fence, as a demonstration does.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from o1jax.config import HumanevalConfig, require
from o1jax.io.data import jsonl_splits
from o1jax.tasks.base import Source
from o1jax.tasks.pooled import called, chosen, pooled
from o1jax.tasks.programs import count_blocks, fenced, is_program, parses, tidy
from o1jax.tasks.rows import (
  Kind,
  Row,
  is_correct,
  letters_and_digits,
  make_source,
  single_file,
  some_held_out,
  verified,
)
from o1jax.verifiers.base import Problem
from o1jax.verifiers.code import extract

NAME = "humaneval"
FIELDS = {"task_id": str | float, "prompt": str, "canonical_solution": str, "test": str, "entry_point": str}


def source(cfg: HumanevalConfig) -> Source:
  """All problems held out, or `cfg.held_out` of them and the others to train on.

  Raises ConfigError naming the file and row of a bad row, `--task.path` of a file that cannot be had, and
  `task.held_out` where there are too few rows.
  """
  file = single_file(cfg.path, cfg.sha256)
  data = jsonl_splits(NAME, {"rows": file}, FIELDS, cfg.data_dir, option="--task.path")
  kind = Kind(
    NAME,
    pooled("code", **chosen(cfg)),
    called("code", cfg),
    is_correct,
    demonstrate,
    count_blocks,
    coherent,
    key=letters_and_digits,
  )
  rows = verified(list(_rows(cfg.path, data.splits["rows"])), kind, cfg.unverified, cfg.data_dir)
  train, held_out = some_held_out(rows, cfg.held_out, cfg.split_seed, cfg.path)
  return make_source(kind, train, held_out, held_out, cfg.decontaminate, cfg.data_dir)


def demonstrate(problem: Problem, rng: np.random.Generator) -> str:
  """The prompt completed by the reference, in a fence. Draws nothing: `rng` is left as it was."""
  del rng
  return fenced(problem.meta["solution"])


def coherent(problem: Problem, text: str) -> bool:
  """Whether a response is a program by itself, or makes one of the prompt's function."""
  return is_program(text) or parses(problem.prompt + extract(text)) and bool(text.strip())


def _rows(location: str, rows: Iterable[dict]) -> Iterator[Row]:
  """One problem a row. Raises ConfigError naming file and row where it is none."""
  known: set[str] = set()
  for number, row in enumerate(rows, start=1):
    where = f"{location} row {number}"
    name, prompt, entry_point = row["task_id"], row["prompt"], row["entry_point"]
    require(bool(name) and name not in known, where, "field 'task_id' is empty, or that of a row before")
    known.add(name)
    require(entry_point.isidentifier(), where, f"field 'entry_point': {entry_point[:80]!r} is no name")
    solution = tidy(prompt + row["canonical_solution"])
    require(
      parses(solution), where, "field 'canonical_solution' does not complete 'prompt' to a Python program"
    )
    require(parses(row["test"]), where, "field 'test' is no Python program")
    meta = {"tests": row["test"], "entry_point": entry_point, "solution": solution}
    yield Row(where, prompt, Problem(name, prompt, "", NAME, meta), fenced(solution))

"""Programs to repair: a buggy program and the tests that it fails, made by mutating the references of MBPP-style rows.

    rows whose reference passes -> programs with one bug -> those that fail a test -> kept on disk -> Source

A mutant is kept where at least one of its row's tests fails on it and all others pass. One that runs out of time or
memory on a test, or that the sandbox refuses, is dropped: whether it does may depend on more than the program. Held-out
programs come from the rows of the published test split, those to train on from its train split.

Making them runs many programs, so that it is done once: what was made is kept below the data's folder, under the hash
of the rows, the options and the code that it hangs on, and is read back as any other data.
"""

import dataclasses
import json
import logging
import pathlib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from o1jax.config import BugfixConfig, require
from o1jax.io import data as io_data
from o1jax.io.data import jsonl_splits, write_atomically
from o1jax.tasks import mbpp, mutants
from o1jax.tasks.base import Source
from o1jax.tasks.pooled import called, chosen, pooled
from o1jax.tasks.programs import count_blocks, fenced, is_program
from o1jax.tasks.rows import (
  Kind,
  Row,
  content_hash,
  is_correct,
  letters_and_digits,
  make_source,
  verifiers_hash,
)
from o1jax.verifiers.base import Problem, Verify
from o1jax.verifiers.sandbox.service import Limits

NAME = "bugfix"
FIELDS = {"task_id": str, "number": int, "kind": str, "buggy": str, "failing": list[str]}
TRIES = 8  # mutants of a row that are tried beyond those that are wanted
BATCH = 64  # rows that are tried at once
CPU_SECONDS = (
  1  # of all tests of a mutant: many have loops that do not end, and a correct program takes milliseconds
)
_LOG = logging.getLogger(__name__)


def source(cfg: BugfixConfig) -> Source:
  """The problems. Raises ConfigError naming the file and row of a bad row, `--task.path` of a file that cannot be had,
  and `task.held_out` where too few buggy programs can be made."""
  rows = mbpp.accepted(cfg)
  kind = Kind(
    NAME, pooled("code", **chosen(cfg)), called("code", cfg), is_correct, demonstrate, count_blocks,
    coherent=lambda problem, text: is_program(text), key=letters_and_digits,
  )  # fmt: skip
  quick = pooled("code", limits=Limits(cpu_seconds=CPU_SECONDS), allow_unsandboxed_code=False)
  files = {split: io_data.Source(str(path)) for split, path in _made(cfg, quick, rows).items()}
  data = jsonl_splits(NAME, files, FIELDS, cfg.data_dir, option="--task.data-dir")
  known = {row.problem.id: row for some in rows.values() for row in some}
  train, held_out = (list(_rows(known, data.splits[split])) for split in ("train", "test"))
  enough = len(held_out) >= cfg.held_out
  told = f"only {len(held_out)} buggy programs can be made of the test split of {cfg.path}"
  require(enough, "task.held_out", told)
  held_out = held_out[: cfg.held_out]
  return make_source(kind, train, held_out, held_out, cfg.decontaminate, cfg.data_dir)


def demonstrate(problem: Problem, rng: np.random.Generator) -> str:
  """The correct program in a fence. Draws nothing: `rng` is left as it was."""
  del rng
  return fenced(problem.meta["solution"])


def _rows(known: dict[str, Row], made: Iterable[dict]) -> Iterator[Row]:
  for bug in made:
    row = known[bug["task_id"]]
    meta = row.problem.meta
    failing = "\n".join(bug["failing"])
    prompt = (
      f"This program fails the tests below it. Correct it.\n{fenced(bug['buggy'])}\n{failing}\nAnswer:\n"
    )
    own = {**meta, "solution": mutants.normal(meta["solution"]), "buggy": bug["buggy"], "kind": bug["kind"]}
    problem = Problem(f"{row.problem.id}/{bug['number']}", prompt, "", NAME, own)
    yield Row(row.where, row.asks, problem, fenced(own["solution"]))


def _made(cfg: BugfixConfig, verify: Verify, rows: Mapping[str, list[Row]]) -> dict[str, pathlib.Path]:
  """Split -> JSONL file of its buggy programs, made where they are not there yet. Raises ConfigError where there is none."""
  asked = {split: [[row.problem.id, row.problem.meta] for row in some] for split, some in rows.items()}
  files = [pathlib.Path(module).read_text(encoding="utf-8") for module in (__file__, mutants.__file__)]
  key = content_hash([asked, cfg.bugs, cfg.held_out, cfg.split_seed, verifiers_hash(), files])[:16]
  wanted = {"train": len(rows["train"]) * cfg.bugs, "test": cfg.held_out}
  paths = {split: pathlib.Path(cfg.data_dir) / NAME / "made" / key / f"{split}.jsonl" for split in wanted}
  for split, path in paths.items():
    if not path.is_file():
      _LOG.warning("%s: making buggy programs of the %s split, this once", NAME, split)
      bugs = make(verify, rows[split], cfg.bugs, wanted[split], cfg.split_seed)
      require(bool(bugs), "task.path", f"no buggy program can be made of the {split} split of {cfg.path}")
      write_atomically(path, "".join(json.dumps(bug) + "\n" for bug in bugs).encode())
  return paths


# Making them


def make(verify: Verify, rows: Sequence[Row], bugs: int, wanted: int, seed: int) -> list[dict]:
  """Up to `bugs` buggy programs of each of the first rows, until there are `wanted`, as FIELDS has them."""
  made: list[dict] = []
  for start in range(0, len(rows), BATCH):
    if len(made) >= wanted:
      break
    made += _of_batch(verify, rows[start : start + BATCH], bugs, seed)
  return made[:wanted]


def _of_batch(verify: Verify, rows: Sequence[Row], bugs: int, seed: int) -> list[dict]:
  """The buggy programs of some rows, in their order."""
  drawn = lambda row: mutants.mutants(row.problem.meta["solution"], random.Random(f"{seed} {row.problem.id}"))
  left = {row.problem.id: drawn(row)[: bugs + TRIES] for row in rows}
  found: dict[str, list[dict]] = {row.problem.id: [] for row in rows}
  while trying := [row for row in rows if left[row.problem.id] and len(found[row.problem.id]) < bugs]:
    tried = [left[row.problem.id].pop(0) for row in trying]
    for row, mutant, failing in zip(trying, tried, failing_tests(verify, trying, tried), strict=True):
      mine = found[row.problem.id]
      bug = {"task_id": row.problem.id, "number": len(mine) + 1, "kind": mutant.kind, "buggy": mutant.code}
      mine += [bug | {"failing": failing}] if failing else []
  return [bug for row in rows for bug in found[row.problem.id]]


def failing_tests(verify: Verify, rows: Sequence[Row], tried: Sequence[mutants.Mutant]) -> list[list[str]]:
  """The tests of each row that its mutant fails; [] where it fails none, or one in another way than a wrong answer."""
  programs = [fenced(mutant.code) for mutant in tried]
  verdicts = verify([row.problem for row in rows], programs)
  bad = [place for place, verdict in enumerate(verdicts) if verdict.error == "wrong"]
  each = [(place, test) for place in bad for test in rows[place].problem.meta["tests"]]
  alone = [_with_tests(rows[place].problem, [test]) for place, test in each]
  told = verify(alone, [programs[place] for place, _ in each])
  out: list[list[str]] = [[] for _ in rows]
  for (place, test), verdict in zip(each, told, strict=True):
    out[place] += [test] if verdict.error == "wrong" else []
  for (place, _), verdict in zip(each, told, strict=True):
    if verdict.error not in (None, "wrong"):
      out[place] = []
  return out


def _with_tests(problem: Problem, tests: list[str]) -> Problem:
  return dataclasses.replace(problem, meta={**problem.meta, "tests": tests})

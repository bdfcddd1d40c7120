"""Programs to repair: buggy programs and the tests that they fail, made by mutating MBPP's references.

    MBPP's accepted examples -> programs with one bug -> those that fail a test -> kept on disk -> ProblemSet

A mutant is kept where at least one of its row's tests fails on it and all others pass. One that runs out of
time or memory on a test, or that the sandbox refuses, is dropped: whether it does may depend on more than the
program. Held-out programs come from the published test split, those to train on from its train split.

Making them runs many programs, so that it is done once: what was made is kept below the data's folder, under
the hash of the rows, the options and the code that it hangs on, and is read back as any other data.
"""

import dataclasses
import functools
import json
import logging
import pathlib
import random
from collections.abc import Mapping, Sequence

from o1jax.config import BugfixConfig, require
from o1jax.io import data as io_data
from o1jax.io.data import write_atomically
from o1jax.tasks import mbpp, mutants
from o1jax.tasks.base import Example, ProblemSet
from o1jax.tasks.dataset import (
  Dataset,
  accepted,
  content_hash,
  make_problem_set,
  read_examples,
  verifiers_hash,
)
from o1jax.tasks.mbpp import count_blocks, fenced, is_program, program_of
from o1jax.tasks.pooled import pooled
from o1jax.verifiers.base import Problem, Verify
from o1jax.verifiers.sandbox.service import Limits

NAME = "bugfix"
TRIES = 8  # mutants of a row that are tried beyond those that it may have
BATCH = 64  # rows that are tried at once
# Of all tests of a mutant: many have loops that do not end, and a correct program takes milliseconds.
CPU_SECONDS = 1
_LOG = logging.getLogger(__name__)


def build(cfg: BugfixConfig) -> ProblemSet:
  """The problems.

  Raises ConfigError naming the file and row of a bad row, `--task.path` of a file that cannot be had, and
  `task.held_out` where too few buggy programs can be made.
  """
  verify = mbpp.DATASET.verify(cfg)
  examples = accepted(mbpp.DATASET, cfg, verify)
  splits = {"train": mbpp.in_split(examples, mbpp.TRAIN), "test": mbpp.in_split(examples, mbpp.TEST)}
  dataset = Dataset(
    name=NAME,
    fields={"task_id": str, "number": int, "kind": str, "buggy": str, "failing": list[str]},
    path_option="--task.data-dir",
    parse_row=functools.partial(parse_row, {example.problem.id: example for example in examples}),
    verifier="code",
    count_tries=count_blocks,
    well_formed=lambda problem, text: is_program(text),
    demonstrate=program_of,
  )
  quick = pooled("code", limits=Limits(cpu_seconds=CPU_SECONDS), allow_unsandboxed_code=False)
  files = _made(cfg, quick, splits)
  train, held_out = (read_examples(dataset, {split: file}, cfg.data_dir) for split, file in files.items())
  too_few = f"only {len(held_out)} buggy programs can be made of the test split of {cfg.path}"
  require(len(held_out) >= cfg.held_out, "task.held_out", too_few)
  return make_problem_set(dataset, verify, train, held_out[: cfg.held_out], cfg.decontaminate, cfg.data_dir)


def parse_row(references: Mapping[str, Example], row: dict, where: str, row_id: str) -> Example:
  """A buggy program to repair, made of one of MBPP's `references` by problem id."""
  example = references[row["task_id"]]
  meta = example.problem.meta
  failing = "\n".join(row["failing"])
  prompt = f"This program fails the tests below it. Correct it.\n{fenced(row['buggy'])}\n{failing}\nAnswer:\n"
  own = {**meta, "solution": mutants.normal(meta["solution"]), "buggy": row["buggy"], "kind": row["kind"]}
  problem = Problem(f"{example.problem.id}/{row['number']}", prompt, "", NAME, own)
  return Example(example.where, example.question, problem, program_of(problem))


def _made(
  cfg: BugfixConfig, verify: Verify, splits: Mapping[str, Sequence[Example]]
) -> dict[str, io_data.Source]:
  """Split -> JSONL file of its buggy programs, made where it is not there yet. Raises ConfigError of none."""
  references = {name: [[e.problem.id, e.problem.meta] for e in split] for name, split in splits.items()}
  files = [pathlib.Path(module).read_text(encoding="utf-8") for module in (__file__, mutants.__file__)]
  key = content_hash([references, cfg.bugs, cfg.held_out, cfg.split_seed, verifiers_hash(), files])[:16]
  counts = {"train": len(splits["train"]) * cfg.bugs, "test": cfg.held_out}
  paths = {split: pathlib.Path(cfg.data_dir) / NAME / "made" / key / f"{split}.jsonl" for split in counts}
  for split, path in paths.items():
    if not path.is_file():
      _LOG.warning("%s: making buggy programs of the %s split, this once", NAME, split)
      bugs = make(verify, splits[split], cfg.bugs, counts[split], cfg.split_seed)
      require(bool(bugs), "task.path", f"no buggy program can be made of the {split} split of {cfg.path}")
      write_atomically(path, "".join(json.dumps(bug) + "\n" for bug in bugs).encode())
  return {split: io_data.Source(str(path)) for split, path in paths.items()}


# Making them


def make(verify: Verify, examples: Sequence[Example], bugs: int, count: int, seed: int) -> list[dict]:
  """Up to `bugs` buggy programs of each of the first examples, `count` in all: rows for `parse_row`."""
  made: list[dict] = []
  for start in range(0, len(examples), BATCH):
    if len(made) >= count:
      break
    made += _of_batch(verify, examples[start : start + BATCH], bugs, seed)
  return made[:count]


def _of_batch(verify: Verify, examples: Sequence[Example], bugs: int, seed: int) -> list[dict]:
  """The buggy programs of a batch, in its order."""
  left: dict[str, list[mutants.Mutant]] = {}
  for example in examples:
    rng = random.Random(f"{seed} {example.problem.id}")
    left[example.problem.id] = mutants.mutants(example.problem.meta["solution"], rng)[: bugs + TRIES]
  made: dict[str, list[dict]] = {name: [] for name in left}
  while trying := [e for e in examples if left[e.problem.id] and len(made[e.problem.id]) < bugs]:
    tried = [left[example.problem.id].pop(0) for example in trying]
    for example, mutant, failing in zip(trying, tried, failing_tests(verify, trying, tried), strict=True):
      name = example.problem.id
      bug = {"task_id": name, "number": len(made[name]) + 1, "kind": mutant.kind, "buggy": mutant.code}
      made[name] += [bug | {"failing": failing}] if failing else []
  return [bug for example in examples for bug in made[example.problem.id]]


def failing_tests(
  verify: Verify, examples: Sequence[Example], tried: Sequence[mutants.Mutant]
) -> list[list[str]]:
  """The tests of each example that its mutant fails; [] where it fails none, or one not by a wrong answer."""
  programs = [fenced(mutant.code) for mutant in tried]
  verdicts = verify([example.problem for example in examples], programs)
  bad = [place for place, verdict in enumerate(verdicts) if verdict.error == "wrong"]
  each = [(place, test) for place in bad for test in examples[place].problem.meta["tests"]]
  alone = [_with_tests(examples[place].problem, [test]) for place, test in each]
  by_test = verify(alone, [programs[place] for place, _ in each])
  out: list[list[str]] = [[] for _ in examples]
  for (place, test), verdict in zip(each, by_test, strict=True):
    out[place] += [test] if verdict.error == "wrong" else []
  for (place, _), verdict in zip(each, by_test, strict=True):
    if verdict.error not in (None, "wrong"):
      out[place] = []
  return out


def _with_tests(problem: Problem, tests: list[str]) -> Problem:
  return dataclasses.replace(problem, meta={**problem.meta, "tests": tests})

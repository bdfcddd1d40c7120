"""GSM8K: grade-school word problems with a worked solution that ends in `#### N` (Cobbe et al. 2021, section 2).

    JSONL (question, answer) -> prepared splits -> Problems whose own solution verifies -> Source

The calculator annotations of the published solutions (`48/2 = <<48/2=24>>24`) are taken out: no calculator answers
them while sampling, and each repeats what the text around it says at the price of a quarter more tokens.
Left out: few-shot prompts, the calculator, a token to retry with (forced budgets need a task that knows one).
"""

import logging
import re
from collections.abc import Iterable, Iterator

import numpy as np

from o1jax.config import ConfigError, Gsm8kConfig, require
from o1jax.io import data as io_data
from o1jax.io.data import JsonlData, is_url, jsonl_splits
from o1jax.tasks.base import Source
from o1jax.verifiers.base import Problem
from o1jax.verifiers.gsm8k import count_answers, verify

NAME = "gsm8k"
FIELDS = {"question": str, "answer": str}
MARK = "####"

_ANNOTATION = re.compile(r"<<[^<>\n]*>>")
_LOG = logging.getLogger(__name__)


def source(cfg: Gsm8kConfig) -> Source:
  """The problems, from prepared files below `cfg.data_dir`.

  Of a folder or URL with train.jsonl and test.jsonl, the first `cfg.held_out` rows of test.jsonl are held out; of one
  .jsonl file, its last ones. A training row that asks a held-out question again is left out, and their number logged.
  Raises ConfigError naming the file and row of a bad row, `--task.path` of a source that cannot be had, and
  `task.held_out` where too few rows are left.
  """
  data = load(cfg)
  train, held_out = _split(cfg, data)
  return Source(
    name=NAME, train=train, held_out=held_out, demonstrated=train, shifted={}, verify=verify,
    demonstrate=demonstrate, one_demonstration=True,
    count_tries=lambda problem, text: count_answers(text), coherent=lambda problem, text: count_answers(text) == 1,
    data_hash=data.data_hash, shares={},
  )  # fmt: skip


def load(cfg: Gsm8kConfig) -> JsonlData:
  """Prepared splits of `cfg.path`: `train` and `test`, or `train` alone of one file. `data_hash` names their content.

  Raises ConfigError as `jsonl_splits` does, and where `cfg.sha256` does not fit the source.
  """
  return jsonl_splits(NAME, _files(cfg), FIELDS, cfg.data_dir, option="--task.path")


def demonstrate(problem: Problem, rng: np.random.Generator) -> str:
  """The published solution without its annotations, `#### N` at its end. Draws nothing: `rng` is left as it was."""
  del rng
  return problem.meta["solution"]


def _files(cfg: Gsm8kConfig) -> dict[str, io_data.Source]:
  """Split -> file."""
  if cfg.path.endswith(".jsonl"):
    checked = is_url(cfg.path) and cfg.sha256 is not None
    require(not checked, "--task.sha256", f"holds two hashes, and {cfg.path} is one file: set it to None")
    return {"train": io_data.Source(cfg.path)}
  hashes = cfg.sha256 if is_url(cfg.path) and cfg.sha256 is not None else (None, None)
  folder = cfg.path.rstrip("/")
  return {
    split: io_data.Source(f"{folder}/{split}.jsonl", sha) for split, sha in zip(("train", "test"), hashes)
  }


def _split(cfg: Gsm8kConfig, data: JsonlData) -> tuple[list[Problem], list[Problem]]:
  """(train, held out), with no question in both."""
  files = _files(cfg)
  problems = {
    split: list(_problems(files[split].location, split, rows)) for split, rows in data.splits.items()
  }
  train = problems["train"]
  if "test" in problems:
    held_out = problems["test"][: cfg.held_out]
  else:
    train, held_out = train[: -cfg.held_out], train[-cfg.held_out :]
  rows = sum(len(rows) for rows in problems.values())
  enough = len(held_out) == cfg.held_out and bool(train)
  require(enough, "task.held_out", f"{cfg.held_out} rows cannot be held out of the {rows} in {cfg.path}")
  asked = {_canonical(problem) for problem in held_out}
  kept = [problem for problem in train if _canonical(problem) not in asked]
  if len(kept) < len(train):
    _LOG.warning(
      "%s: %d training rows ask a held-out question and are left out", cfg.path, len(train) - len(kept)
    )
  require(bool(kept), "task.path", f"every training row of {cfg.path} asks a held-out question")
  return kept, held_out


def _canonical(problem: Problem) -> str:
  """What two askings of one question share: letters and digits, without case."""
  return "".join(letter for letter in problem.prompt.casefold() if letter.isalnum())


def _problems(location: str, split: str, rows: Iterable[dict]) -> Iterator[Problem]:
  """One problem a row, its gold solution verified against its gold answer. Raises ConfigError naming file and row."""
  for number, row in enumerate(rows, start=1):
    where = f"{location} row {number}"
    question = row["question"].strip()
    require(bool(question), where, "field 'question' is empty")
    solution = "\n".join(line.rstrip() for line in _ANNOTATION.sub("", row["answer"]).strip().split("\n"))
    gold = solution.rpartition(MARK)[2].strip()
    require(MARK in solution, where, f"field 'answer' has no {MARK!r} before its result")
    problem = Problem(
      id=f"{split}/{number}",
      prompt=f"{question}\nAnswer:\n",
      answer=gold,
      source=NAME,
      meta={"solution": solution},
    )
    try:
      verdict = verify([problem], [solution])[0]
    except ValueError as error:
      raise ConfigError(f"{where}: field 'answer': {gold[:80]!r} is not one number") from error
    require(verdict.correct, where, f"field 'answer': the solution does not verify against {gold!r}")
    yield problem

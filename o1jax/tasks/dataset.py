"""Data sets as problem sets: references that verify, splits that share nothing, one hash of all.

    files -> prepared rows -> parse_row -> Example -> those whose reference verifies -> train, held out
          -> train without what evaluation sets hold -> ProblemSet

Whether references verify is found out once: the outcome is kept below the data's folder, under the hash of
what it hangs on, which is the problems, their references and the verifiers' code.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from o1jax.config import ConfigError, JsonlTaskConfig, RowsConfig, VerifiedTaskConfig, require
from o1jax.io.data import Source, inside, is_file, is_url, jsonl_splits, write_atomically
from o1jax.io.json_rows import Fields
from o1jax.io.run_config import read_json
from o1jax.tasks.base import Example, ProblemSet
from o1jax.tasks.contamination import without_contamination
from o1jax.tasks.pooled import called, chosen, in_process, pooled
from o1jax.verifiers import base
from o1jax.verifiers.base import Problem, Verdict, Verify

NAMED = 5  # rows that are named one by one where more are left out
_LOG = logging.getLogger(__name__)

Split = tuple[list[Example], list[Example]]  # train, held out


def letters_and_digits(text: str) -> str:
  """A question without its case, punctuation and spaces; all of a text that is nothing else."""
  return "".join(letter for letter in text.casefold() if letter.isalnum()) or text.strip()


def without_spacing(text: str) -> str:
  """A question but for its spacing, where signs tell questions apart."""
  return " ".join(text.split())


# Files


def one_file(cfg: RowsConfig) -> dict[str, Source]:
  """The file of `cfg.path`; the hash is that of a download."""
  assert not isinstance(cfg.sha256, tuple)  # of two files
  return {"rows": Source(cfg.path, cfg.sha256 if is_url(cfg.path) else None)}


def train_and_test_files(cfg: RowsConfig) -> dict[str, Source]:
  """`train` alone of one file, else `train` and `test` of a folder. A URL's query goes with each file.

  Raises ConfigError where hashes do not fit.
  """
  path, sha256 = cfg.path, cfg.sha256 if is_url(cfg.path) else None
  if is_file(path):
    require(sha256 is None, "--task.sha256", f"holds two hashes, and {path} is one file: set it to None")
    return {"train": Source(path)}
  hashes = zip(("train", "test"), sha256 or (None, None))
  return {split: Source(inside(path, f"{split}.jsonl"), sha) for split, sha in hashes}


# Splits


def last_or_test(examples: Sequence[Example], cfg: RowsConfig) -> Split:
  """Of `train_and_test_files`, the first `cfg.held_out` of `test` are held out, or else the last of all.

  Raises ConfigError where there are too few.
  """
  count = cfg.held_out
  assert count is not None  # by the type of such a field
  train = [example for example in examples if example.problem.id.startswith("train/")]
  test = list(examples[len(train) :])
  held_out = test[:count] if test else train[-count:]
  train = train if test else train[:-count]
  enough = len(held_out) == count and bool(train)
  require(enough, "task.held_out", f"{count} rows cannot be held out of the {len(examples)} in {cfg.path}")
  return train, held_out


def drawn_by_seed(examples: Sequence[Example], cfg: Any) -> Split:
  """All examples are held out, or `cfg.held_out` that `cfg.split_seed` draws; both in the order of the file.

  Raises ConfigError where there are too few.
  """
  count = cfg.held_out
  if count is None:
    return [], list(examples)
  too_few = f"{count} of the {len(examples)} rows in {cfg.path}; None is all"
  require(count < len(examples), "task.held_out", too_few)
  chosen_rows = set(np.random.default_rng(cfg.split_seed).permutation(len(examples))[:count].tolist())
  train = [example for row, example in enumerate(examples) if row not in chosen_rows]
  return train, [example for row, example in enumerate(examples) if row in chosen_rows]


# The declaration of a data set


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
  """A data set of one row a problem: what its rows hold, how they become problems, what grades a response."""

  name: str  # in snake case; also `Problem.source`
  # a row's fields with their types; others are left out
  fields: Fields = dataclasses.field(default_factory=dict)
  # (row, its file and number, an id made of its split and number) -> its example, None: it is of no split.
  # Raises ConfigError naming the place and the field of a row that is none.
  parse_row: Callable[[dict[str, Any], str, str], Example | None] | None = None
  verifier: str  # its name in verifiers/catalog.py
  in_process: bool = False  # grades in this process, not in the pool: of a verifier whose time has a bound
  count_tries: Callable[[str], int]  # answers that a response states
  well_formed: Callable[[Problem, str], bool] | None = None  # None: a response that states one answer
  demonstrate: Callable[[Problem], str] | None = None  # a response to imitate; None: there is none
  question_key: Callable[[str], str] = letters_and_digits  # equal of questions that ask the same
  # Whether problems differ in more than numbers, so that a run of words which two share makes them copies.
  distinct_words: bool = True
  unique: str | None = None  # a field of which no two rows have the same
  files: Callable[[Any], dict[str, Source]] = one_file
  path_option: str = "--task.path"  # the option that errors about the files name
  split: Callable[[Sequence[Example], Any], Split] = drawn_by_seed
  config: type = JsonlTaskConfig  # the configuration that selects it; a JsonlTaskConfig does so by its name

  def verify(self, cfg: Any) -> Verify:
    """The verifier under the settings of the task's configuration."""
    make = in_process if self.in_process else pooled
    return make(self.verifier, **chosen(cfg))


def build(dataset: Dataset, cfg: Any) -> ProblemSet:
  """The problems of a data set, from prepared files below `cfg.data_dir`.

  Raises ConfigError naming the file and row of a bad row, `--task.path` of a source that cannot be had, and
  `task.held_out` where too few rows are left.
  """
  verify = dataset.verify(cfg)
  train, held_out = dataset.split(accepted(dataset, cfg, verify), cfg)
  return make_problem_set(dataset, verify, train, held_out, cfg.decontaminate, cfg.data_dir)


def accepted(dataset: Dataset, cfg: Any, verify: Verify) -> list[Example]:
  """The examples of a data set whose references `verify` accepts. Raises ConfigError as `build` does."""
  examples = read_examples(dataset, dataset.files(cfg), cfg.data_dir)
  unverified = cfg.unverified if isinstance(cfg, VerifiedTaskConfig) else 0
  settings = called(dataset.verifier, cfg)
  return verified(examples, dataset.name, verify, settings, unverified, cfg.data_dir)


def read_examples(dataset: Dataset, files: Mapping[str, Source], data_dir: str) -> list[Example]:
  """The examples of prepared files, split by split. Raises ConfigError naming file and row of a bad one."""
  data = jsonl_splits(dataset.name, files, dataset.fields, data_dir, option=dataset.path_option)
  assert dataset.parse_row is not None  # of a data set that has files
  examples: list[Example] = []
  for split, rows in data.splits.items():
    known: set[Any] = set()
    for number, row in enumerate(rows, start=1):
      where = f"{files[split].location} row {number}"
      if dataset.unique is not None:
        key = row[dataset.unique]
        require(key not in known, where, f"field {dataset.unique!r}: there is a {key} before")
        known.add(key)
      example = dataset.parse_row(row, where, f"{split}/{number}")
      examples += [] if example is None else [example]
  return examples


def make_problem_set(
  dataset: Dataset,
  verify: Verify,
  train: Sequence[Example],
  held_out: Sequence[Example],
  decontaminate: Sequence[str],
  data_dir: str,
) -> ProblemSet:
  """The problems `held_out`, and those of `train` that neither ask nor repeat what an evaluation set holds.

  Raises ConfigError where no training problem is left of some.
  """
  name = dataset.name
  keys = {dataset.question_key(example.question) for example in held_out}
  unasked = [example for example in train if dataset.question_key(example.question) not in keys]
  if len(unasked) < len(train):
    repeated = len(train) - len(unasked)
    _LOG.warning("%s: %d training rows ask a held-out question and are left out", name, repeated)
  own = [example.question for example in held_out] if dataset.distinct_words else []
  kept, compared = without_contamination(name, unasked, own, decontaminate, data_dir)
  require(bool(kept) or not train, "task.path", f"every training problem of {name} is held out or tested")
  splits = {"train": [example.problem for example in kept], "held_out": [e.problem for e in held_out]}
  demonstrate = dataset.demonstrate

  def well_formed(problem: Problem, text: str) -> bool:
    return dataset.count_tries(text) == 1

  return ProblemSet(
    name=name,
    train=splits["train"],
    held_out=splits["held_out"],
    sft_problems=[] if demonstrate is None else splits["train"],
    verify=verify,
    demonstrate=None if demonstrate is None else lambda problem, rng: demonstrate(problem),
    count_tries=lambda problem, text: dataset.count_tries(text),
    well_formed=dataset.well_formed or well_formed,
    data_hash=problems_hash(splits, compared),
  )


# References


def verified(
  examples: Sequence[Example], name: str, verify: Verify, settings: str, unverified: int, data_dir: str
) -> list[Example]:
  """The examples of the data set `name` whose reference `verify` accepts, or that have none.

  Up to `unverified` others are left out and the first of them named in the log; `settings` is the verifier's
  name with its settings. Raises ConfigError naming the first where there are more.
  """
  referenced = [example for example in examples if example.reference is not None]
  faults = _faults(referenced, name, verify, settings, data_dir)
  bad = [example for example in examples if example.problem.id in faults]
  if len(bad) > unverified:
    more = f"such rows: {len(bad)}, task.unverified={unverified}"
    raise ConfigError(f"{bad[0].where}: {faults[bad[0].problem.id]} ({more})")
  for example in bad[:NAMED]:
    _LOG.warning("%s: %s", example.where, faults[example.problem.id])
  if bad:
    _LOG.warning("%s: %d rows whose reference does not verify are left out", name, len(bad))
  return [example for example in examples if example.problem.id not in faults]


def _faults(
  examples: Sequence[Example], name: str, verify: Verify, settings: str, data_dir: str
) -> dict[str, str]:
  """Problem id -> why its reference is none, of those of which it is none."""
  references = [(_content(example.problem), example.reference) for example in examples]
  key = content_hash([settings, verifiers_hash(), references])
  path = pathlib.Path(data_dir) / name / "verified" / f"{key[:16]}.json"
  if path.is_file():
    return read_json(path)
  if len(examples) > 1000:
    _LOG.warning("%s: verifying %d references, this once", name, len(examples))
  faults: dict[str, str] = {}
  graded = grade(verify, [example.problem for example in examples], [e.reference or "" for e in examples])
  for example, verdict in zip(examples, graded, strict=True):
    if isinstance(verdict, str):
      faults[example.problem.id] = f"nothing can be graded by it: {verdict}"
    elif example.reference and not verdict.correct:
      faults[example.problem.id] = f"its reference does not verify: {verdict.error}"
  write_atomically(path, json.dumps(faults).encode())
  return faults


def grade(verify: Verify, problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict | str]:
  """Verdicts, and what is wrong with a problem that nothing can be graded by.

  A verifier refuses a batch for one such problem: halves of it are asked again.
  """
  try:
    return list(verify(problems, texts))
  except ValueError as error:
    if len(problems) == 1:
      return [" ".join(str(error).split())[:300]]
  half = len(problems) // 2
  return grade(verify, problems[:half], texts[:half]) + grade(verify, problems[half:], texts[half:])


# Hashes


@functools.cache
def verifiers_hash() -> str:
  """Hex SHA-256 of the verifiers' code and the Python that runs it: others have to verify again."""
  folder = pathlib.Path(base.__file__).parent
  files = sorted(folder.rglob("*.py"))
  code = [[str(path.relative_to(folder)), path.read_text(encoding="utf-8")] for path in files]
  return content_hash([sys.version_info[:2], code])


def problems_hash(splits: Mapping[str, Sequence[Problem]], compared: Mapping[str, str]) -> str:
  """Hex SHA-256 of all problems in their order, and of the evaluation sets that they were compared with."""
  content = {name: [_content(problem) for problem in problems] for name, problems in splits.items()}
  return content_hash([content, dict(compared)])


def _content(problem: Problem) -> list[Any]:
  return [problem.id, problem.prompt, problem.answer, problem.source, problem.meta]


def content_hash(content: Any) -> str:
  """Hex SHA-256 of plain values, equal for equal ones; the order of a dict counts, that of a set does not."""
  return hashlib.sha256(json.dumps(plain(content)).encode()).hexdigest()


# Plain values as JSON, and back: tuples, sets, fractions and dicts of any keys, which JSON does not have


def plain(value: Any) -> Any:
  """A value as JSON that `from_plain` gives back: what JSON has not is an object of one key, its type.

  A set is in the order of its items' JSON, so that equal sets are equal text; scalars of numpy become
  Python's. Raises TypeError naming the type of what is none of these.
  """
  if isinstance(value, str):
    return str.__str__(value)
  if value is None or type(value) in (bool, int, float):
    return value
  if type(value) is list:
    return [plain(item) for item in value]
  if type(value) is tuple:
    return {"tuple": [plain(item) for item in value]}
  if type(value) in (set, frozenset):
    return {type(value).__name__: sorted(map(plain, value), key=json.dumps)}
  if type(value) is Fraction:
    return {"Fraction": [value.numerator, value.denominator]}
  if isinstance(value, Mapping):
    return {"dict": [[plain(key), plain(item)] for key, item in value.items()]}
  if isinstance(value, (np.generic, np.ndarray)):
    return plain(value.item())
  raise TypeError(f"it holds a {type(value).__name__}")


def from_plain(value: Any) -> Any:
  """What `plain` was given."""
  if isinstance(value, list):
    return [from_plain(item) for item in value]
  if not isinstance(value, dict):
    return value
  ((kind, parts),) = value.items()
  items = from_plain(parts)
  return Fraction(*items) if kind == "Fraction" else _PLAIN_TYPES[kind](items)


_PLAIN_TYPES: dict[str, Callable[[list[Any]], Any]] = {
  "tuple": tuple,
  "set": set,
  "frozenset": frozenset,
  "dict": dict,
}

"""Rows of a data set on their way to problems: references that verify, splits that share nothing, one hash of all.

    rows -> those whose reference verifies -> train, held out -> train without what is asked or seen there -> Source

Whether references verify is found out once: the outcome is kept below the data's folder, under the hash of what it
hangs on, which is the problems, their references and the verifiers' code.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from o1jax.config import ConfigError, require
from o1jax.io import data as io_data
from o1jax.io.data import is_file, is_url, jsonl_rows, write_atomically
from o1jax.io.run_config import read_json
from o1jax.tasks.base import Source
from o1jax.tasks.contamination import contaminated, run_size
from o1jax.tasks.plain import plain
from o1jax.verifiers import base
from o1jax.verifiers.base import Problem, Verdict, Verify

OWN = "held-out problems of its own"  # the name of that evaluation set
TOLD = 5  # rows that are named one by one where some are left out
_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Row:
  """A problem, and where it comes from."""

  where: str  # its file and row, or what else it was made from
  asks: str  # what it says itself, without the words that all prompts of its task have in common
  problem: Problem
  reference: str | None  # a response that must be graded as it should be; None: there is none


@dataclasses.dataclass(frozen=True)
class Kind:
  """What a task's problems have in common."""

  name: str
  verify: Verify
  verifier: str  # the verifier's name and settings
  accepts: Callable[[Verdict], bool]  # whether a verdict on a reference is as it should be
  demonstrate: Callable[[Problem, np.random.Generator], str] | None  # draws nothing
  count_tries: Callable[[str], int]
  coherent: Callable[[Problem, str], bool]
  key: Callable[[str], str]  # what two askings of one question share


# Files


def split_files(path: str, sha256: tuple[str, str] | None) -> dict[str, io_data.Source]:
  """Split -> file: `train` alone of one file, else `train` and `test` of a folder. A URL's query goes with each file.

  Raises ConfigError where hashes do not fit.
  """
  if is_file(path):
    checked = is_url(path) and sha256 is not None
    require(not checked, "--task.sha256", f"holds two hashes, and {path} is one file: set it to None")
    return {"train": io_data.Source(path)}
  hashes = sha256 if is_url(path) and sha256 is not None else (None, None)
  inside = lambda name: io_data.inside(path, name)
  return {
    split: io_data.Source(inside(f"{split}.jsonl"), sha) for split, sha in zip(("train", "test"), hashes)
  }


def last_or_test(rows: Sequence[Row], count: int, path: str) -> tuple[list[Row], list[Row]]:
  """(train, held out) of the rows of `split_files`: the first `count` of `test`, or else the last of all.

  Raises ConfigError where there are too few.
  """
  train = [row for row in rows if row.problem.id.startswith("train/")]
  test = rows[len(train) :]
  held_out = list(test[:count]) if test else train[-count:]
  train = train if test else train[:-count]
  enough = len(held_out) == count and bool(train)
  require(enough, "task.held_out", f"{count} rows cannot be held out of the {len(rows)} in {path}")
  return train, held_out


def some_held_out(
  rows: Sequence[Row], count: int | None, seed: int, path: str
) -> tuple[list[Row], list[Row]]:
  """(train, held out) of an evaluation set: all are held out, or `count` that `seed` fixes, in the order of the file.

  Raises ConfigError where there are too few.
  """
  if count is None:
    return [], list(rows)
  require(count < len(rows), "task.held_out", f"{count} of the {len(rows)} rows in {path}; None is all")
  chosen = set(np.random.default_rng(seed).permutation(len(rows))[:count].tolist())
  pick = lambda held: [row for place, row in enumerate(rows) if (place in chosen) == held]
  return pick(False), pick(True)


def single_file(path: str, sha256: str | None) -> io_data.Source:
  """A file; the hash is that of a download."""
  return io_data.Source(path, sha256 if is_url(path) else None)


# References


def verified(rows: Sequence[Row], kind: Kind, allowed: int, data_dir: str) -> list[Row]:
  """The rows whose reference its verifier accepts, or that have none.

  Up to `allowed` others are left out and the first of them named in the log. Raises ConfigError naming the first where
  there are more, so that 0 makes each of them an error.
  """
  faults = _faults([row for row in rows if row.reference is not None], kind, data_dir)
  bad = [row for row in rows if row.problem.id in faults]
  if len(bad) > allowed:
    more = f"such rows: {len(bad)}, task.unverified={allowed}"
    raise ConfigError(f"{bad[0].where}: {faults[bad[0].problem.id]} ({more})")
  for row in bad[:TOLD]:
    _LOG.warning("%s: %s", row.where, faults[row.problem.id])
  if bad:
    _LOG.warning("%s: %d rows whose reference does not verify are left out", kind.name, len(bad))
  return [row for row in rows if row.problem.id not in faults]


def _faults(rows: Sequence[Row], kind: Kind, data_dir: str) -> dict[str, str]:
  """Problem id -> why its reference is none, of those of which it is none."""
  asked = [(_content(row.problem), row.reference) for row in rows]
  key = content_hash([kind.verifier, verifiers_hash(), asked])
  path = pathlib.Path(data_dir) / kind.name / "verified" / f"{key[:16]}.json"
  if path.is_file():
    return read_json(path)
  if len(rows) > 1000:
    _LOG.warning("%s: verifying %d references, this once", kind.name, len(rows))
  faults: dict[str, str] = {}
  graded = grade(kind.verify, [row.problem for row in rows], [row.reference or "" for row in rows])
  for row, verdict in zip(rows, graded, strict=True):
    if isinstance(verdict, str):
      faults[row.problem.id] = f"nothing can be graded by it: {verdict}"
    elif not kind.accepts(verdict):
      faults[row.problem.id] = f"its reference does not verify: {verdict.error}"
  write_atomically(path, json.dumps(faults).encode())
  return faults


def grade(verify: Verify, problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict | str]:
  """Verdicts, and what is wrong with a problem that nothing can be graded by.

  A verifier refuses a whole batch for one such problem: halves of it are asked again.
  """
  try:
    return list(verify(problems, texts))
  except ValueError as error:
    if len(problems) == 1:
      return [" ".join(str(error).split())[:300]]
  half = len(problems) // 2
  return grade(verify, problems[:half], texts[:half]) + grade(verify, problems[half:], texts[half:])


def is_correct(verdict: Verdict) -> bool:
  return verdict.correct


@functools.cache
def verifiers_hash() -> str:
  """Of the verifiers' code and the Python that runs it: what was verified by other has to be verified again."""
  folder = pathlib.Path(base.__file__).parent
  files = sorted(folder.rglob("*.py"))
  code = [[str(path.relative_to(folder)), path.read_text(encoding="utf-8")] for path in files]
  return content_hash([sys.version_info[:2], code])


# Splits


def make_source(
  kind: Kind, train: Sequence[Row], held_out: Sequence[Row], own: Sequence[Row], decontaminate: Sequence[str],
  data_dir: str,
) -> Source:  # fmt: skip
  """The task's problems: `held_out`, and those of `train` that neither ask nor repeat what an evaluation holds.

  `own` are the held-out rows of which no training row may repeat a run of words: all, or none where a task's problems
  are alike but for their numbers. Raises ConfigError where no training problem is left of some.
  """
  others, hashes = _evaluation_sets(decontaminate, data_dir)
  kept = _apart(kind, train, held_out, {OWN: [row.asks for row in own], **others})
  require(
    bool(kept) or not train, "task.path", f"every training problem of {kind.name} is held out or tested"
  )
  splits = {"train": [row.problem for row in kept], "held_out": [row.problem for row in held_out]}
  return Source(
    name=kind.name, **splits, demonstrated=splits["train"] if kind.demonstrate else [], shifted={},
    verify=kind.verify, demonstrate=kind.demonstrate, one_demonstration=True,
    count_tries=lambda problem, text: kind.count_tries(text), coherent=kind.coherent,
    data_hash=problems_hash(splits, hashes), shares={}, spent=dict,
  )  # fmt: skip


def problems_hash(splits: Mapping[str, Sequence[Problem]], compared: Mapping[str, str]) -> str:
  """Hex SHA-256 of all problems in their order, and of the evaluation sets that they were compared with."""
  return content_hash([{name: list(map(_content, some)) for name, some in splits.items()}, dict(compared)])


def content_hash(content: Any) -> str:
  """Hex SHA-256 of plain values, equal for equal ones; the order of a dict counts, that of a set does not."""
  return hashlib.sha256(json.dumps(plain(content)).encode()).hexdigest()


def _content(problem: Problem) -> list[Any]:
  return [problem.id, problem.prompt, problem.answer, problem.source, problem.meta]


def letters_and_digits(text: str) -> str:
  """A question without its case, punctuation and spaces; all of a text that is nothing else."""
  return "".join(letter for letter in text.casefold() if letter.isalnum()) or text.strip()


def without_spacing(text: str) -> str:
  """A question but for its spacing, where signs tell questions apart."""
  return " ".join(text.split())


def _evaluation_sets(names: Sequence[str], data_dir: str) -> tuple[dict[str, list[str]], dict[str, str]]:
  """(name -> its texts, name -> hash of the file), of evaluation sets named `FILE_OR_URL#FIELD`."""
  texts: dict[str, list[str]] = {}
  hashes: dict[str, str] = {}
  for name in names:
    location, _, field = name.rpartition("#")
    rows, told = jsonl_rows(io_data.Source(location), {field: str}, data_dir, "--task.decontaminate")
    texts[name] = [row[field] for row in rows]
    hashes[f"{field} {told}"] = str(run_size(texts[name]))
  return texts, hashes


def _apart(
  kind: Kind, train: Sequence[Row], held_out: Sequence[Row], evaluation: Mapping[str, Sequence[str]]
) -> list[Row]:
  """The training rows that share nothing with an evaluation set; the numbers of the others are logged by set."""
  asked = {kind.key(row.asks) for row in held_out}
  kept = [row for row in train if kind.key(row.asks) not in asked]
  again = len(train) - len(kept)
  if again:
    _LOG.warning("%s: %d training rows ask a held-out question and are left out", kind.name, again)
  found = contaminated([row.asks for row in kept], evaluation)
  for tested, places in found.items():
    if places:
      first, other = next(iter(places.items()))
      told = (
        "%s: %d training rows share %d words in a row with %s and are left out; the first: %s, with text %d"
      )
      size = run_size(evaluation[tested])
      _LOG.warning(told, kind.name, len(places), size, tested, kept[first].where, other + 1)
  dropped = {place for places in found.values() for place in places}
  return [row for place, row in enumerate(kept) if place not in dropped]

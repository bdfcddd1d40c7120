"""IFEval: prompts whose constraints a program can check (Zhou et al. 2023, arXiv 2311.07911).

An evaluation set: all of it is held out, unless a number to hold out is asked for. The prompt is the
published one as it stands. There are no reference responses: a cold start needs another task.
"""

import json
from typing import Any

from o1jax.config import IfevalConfig, require
from o1jax.tasks.base import Example
from o1jax.tasks.dataset import Dataset
from o1jax.verifiers.base import Problem

NAME = "ifeval"

_WORD_LISTS = ("keywords", "forbidden_words")  # arguments that are lists themselves


def parse_row(row: dict, where: str, row_id: str) -> Example:
  """A prompt with its instructions. Raises ConfigError naming the field of a bad row.

  The reference is the empty response, which any instruction that the verifier knows can grade.
  """
  require(bool(row["prompt"].strip()), where, "field 'prompt' is empty")
  names = row["instruction_id_list"]
  kwargs = _arguments(row["kwargs"], len(names))
  require(kwargs is not None, where, "field 'kwargs' is no list of objects, one an instruction")
  assert kwargs is not None  # required
  matched = 0 < len(names) == len(kwargs)
  counts = f"fields 'instruction_id_list' and 'kwargs' have {len(names)} and {len(kwargs)} items"
  require(matched, where, counts)
  meta = {"instruction_id_list": names, "kwargs": kwargs}
  return Example(where, row["prompt"], Problem(str(row["key"]), row["prompt"], "", NAME, meta), reference="")


def _arguments(kwargs: Any, count: int) -> list[dict[str, Any]] | None:
  """One object an instruction, from the forms that exports have; None of another.

  They are a list of objects; an object of lists (of tables); the object of a lone instruction; JSON of these.
  """
  if isinstance(kwargs, str):
    try:
      kwargs = json.loads(kwargs)
    except (ValueError, RecursionError):
      return None
  if isinstance(kwargs, dict):
    in_columns = all(isinstance(column, list) and len(column) == count for column in kwargs.values())
    words = [word for name in _WORD_LISTS for word in kwargs.get(name, ()) or ()]
    if kwargs and in_columns and not any(isinstance(word, str) for word in words):
      return [{name: column[place] for name, column in kwargs.items()} for place in range(count)]
    kwargs = [kwargs]
  fits = isinstance(kwargs, list) and all(isinstance(item, dict) for item in kwargs)
  return kwargs if fits else None


DATASET = Dataset(
  name=NAME,
  config=IfevalConfig,
  fields={"key": str | float, "prompt": str, "instruction_id_list": list[str], "kwargs": object},
  unique="key",
  parse_row=parse_row,
  verifier="constraints",
  count_tries=lambda text: int(bool(text.strip())),
)

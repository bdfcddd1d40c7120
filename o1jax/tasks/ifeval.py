"""IFEval: prompts whose constraints a program can check (Zhou et al. 2023, arXiv 2311.07911).

    JSONL (key, prompt, instruction_id_list, kwargs) -> prepared rows -> those that the verifier can grade by -> Source

An evaluation set: all of it is held out, unless a number to hold out is asked for. The prompt is the published one as
it stands. There are no reference responses, so that nothing can be imitated: a cold start needs another task.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from o1jax.config import IfevalConfig, require
from o1jax.io.data import jsonl_splits
from o1jax.tasks.base import Source
from o1jax.tasks.pooled import called, chosen, pooled
from o1jax.tasks.rows import Kind, Row, letters_and_digits, make_source, single_file, some_held_out, verified
from o1jax.verifiers.base import Problem

NAME = "ifeval"
FIELDS = {"key": str | float, "prompt": str, "instruction_id_list": list[str], "kwargs": object}

_WORD_LISTS = ("keywords", "forbidden_words")  # arguments that are lists themselves


def source(cfg: IfevalConfig) -> Source:
  """All problems held out, or `cfg.held_out` of them and the others to train on.

  Raises ConfigError naming the file and row of a bad row, `--task.path` of a file that cannot be had, and
  `task.held_out` where there are too few rows.
  """
  file = single_file(cfg.path, cfg.sha256)
  data = jsonl_splits(NAME, {"rows": file}, FIELDS, cfg.data_dir, option="--task.path")
  kind = Kind(
    NAME, pooled("constraints", **chosen(cfg)), called("constraints", cfg),
    accepts=lambda verdict: True,  # any: the empty response is graded, which shows that the instructions are known
    demonstrate=None, count_tries=lambda text: int(bool(text.strip())),
    coherent=lambda problem, text: bool(text.strip()), key=letters_and_digits,
  )  # fmt: skip
  rows = verified(list(_rows(cfg.path, data.splits["rows"])), kind, 0, cfg.data_dir)
  train, held_out = some_held_out(rows, cfg.held_out, cfg.split_seed, cfg.path)
  return make_source(kind, train, held_out, held_out, cfg.decontaminate, cfg.data_dir)


def _rows(location: str, rows: Iterable[dict]) -> Iterator[Row]:
  """One problem a row. Raises ConfigError naming file and row where it is none."""
  known: set[int] = set()
  for number, row in enumerate(rows, start=1):
    where, key = f"{location} row {number}", row["key"]
    require(key not in known, where, f"field 'key': there is a {key} before")
    known.add(key)
    require(bool(row["prompt"].strip()), where, "field 'prompt' is empty")
    names = row["instruction_id_list"]
    kwargs = _arguments(row["kwargs"], len(names))
    require(kwargs is not None, where, "field 'kwargs' is no list of objects, one an instruction")
    assert kwargs is not None  # required
    matched = 0 < len(names) == len(kwargs)
    told = f"fields 'instruction_id_list' and 'kwargs' have {len(names)} and {len(kwargs)} items"
    require(matched, where, told)
    meta = {"instruction_id_list": names, "kwargs": kwargs}
    yield Row(where, row["prompt"], Problem(str(key), row["prompt"], "", NAME, meta), "")


def _arguments(kwargs: Any, count: int) -> list[dict[str, Any]] | None:
  """One object an instruction, from the forms that exports have; None of another.

  They are a list of objects; an object of lists, as tables keep it; the object of a lone instruction; JSON text of these.
  """
  if isinstance(kwargs, str):
    try:
      kwargs = json.loads(kwargs)
    except (ValueError, RecursionError):
      return None
  if isinstance(kwargs, dict):
    in_columns = all(isinstance(some, list) and len(some) == count for some in kwargs.values())
    words = [word for name in _WORD_LISTS for word in kwargs.get(name, ()) or ()]
    if kwargs and in_columns and not any(isinstance(word, str) for word in words):
      return [{name: some[place] for name, some in kwargs.items()} for place in range(count)]
    kwargs = [kwargs]
  fits = isinstance(kwargs, list) and all(isinstance(some, dict) for some in kwargs)
  return kwargs if fits else None

"""Entries of a reasoning-gym dataset, made in a process of their own: `python -m o1jax.tasks.gym_entries < ORDER`.

    order (JSON) on standard input -> entries of each split, no question twice -> one line of JSON each on standard output

A process of its own, since some generators walk through sets of text, whose order is fixed by PYTHONHASHSEED alone; the
caller sets it. What is wrong with the order is one line on standard error and exit code 2.
"""

import json
import sys
import warnings
from collections.abc import Mapping
from typing import Any

from o1jax.tasks.plain import plain

ROUNDS = 5  # a split is made of 1, 2, 4, 8, 16 times as many entries as are wanted, until enough of them are distinct
# Entry i of a dataset is made from seed + i: these are further apart than any i comes to.
SEEDS_OF_SPLIT = 2_000_000


class Refused(Exception):
  """An order that cannot be met; its text is one line that begins with the option."""


def distinct(name: str, options: Mapping[str, Any], seed: int, count: int, known: set[str]) -> list[dict]:
  """`count` entries of different questions, none of them in `known`, to which they are added. Raises Refused."""
  from reasoning_gym.factory import create_dataset

  for factor in (2**round_ for round_ in range(ROUNDS)):
    try:
      dataset = create_dataset(name, **options, seed=seed, size=count * factor)
      found = _new(dataset, count, known)
    except Exception as error:  # a generator's own, of any kind
      told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
      raise Refused(f"task.options: {name} cannot be made with {dict(options)}: {told}") from error
    if len(found) == count:
      known |= set(found)
      return list(found.values())
  raise Refused(f"task.size: {name} gives only {len(found)} different questions, {count} are wanted")


def _new(dataset: Any, count: int, known: set[str]) -> dict[str, dict]:
  """The first `count` entries of questions that are not known, by question."""
  found: dict[str, dict] = {}
  for place in range(len(dataset)):
    if len(found) == count:
      break
    entry = dataset[place]
    question = " ".join(entry["question"].split())
    if question not in known and question not in found:
      found[question] = {"entry": entry, "place": place}
  return found


def main() -> None:
  """Reads the order: {dataset, options: {name: value}, splits: {split: {seed, count}}}."""
  order = json.load(sys.stdin)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", SyntaxWarning)  # in a library of the library
    from reasoning_gym.factory import DATASETS
  try:
    name = order["dataset"]
    if name not in DATASETS:
      raise Refused(f"task.dataset: reasoning-gym has no {name!r}; it has {', '.join(sorted(DATASETS))}")
    known: set[str] = set()
    for split, wanted in order["splits"].items():
      for made in distinct(name, order["options"], wanted["seed"], wanted["count"], known):
        entry = made["entry"]
        row = {
          "split": split,
          "place": made["place"],
          "question": entry["question"],
          "answer": entry["answer"],
        }
        print(json.dumps(row | {"entry": json.dumps(plain(entry))}))
  except (Refused, TypeError) as error:
    print(error, file=sys.stderr)
    raise SystemExit(2) from error


if __name__ == "__main__":
  main()

"""Datasets of reasoning-gym by name (Stojanovski et al. 2025): generated problems, scored by their generator.

    dataset, options, seeds -> entries made in a process of their own -> answers that score 1 -> ProblemSet

Entries are made in a process of their own, since some generators walk through sets of text, whose order is
fixed by PYTHONHASHSEED alone. Held-out and training entries come from seeds far apart, and no question comes
twice. The scorers run in the pool: some evaluate text. Some datasets have no reference answers, and theirs
are not verified.
Left out: demonstrations (there are answers, but no ways to them), `composite`, which mixes other datasets.
"""

import functools
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from o1jax.config import ConfigError, ReasoningGymConfig
from o1jax.io import data as io_data
from o1jax.io.data import write_atomically
from o1jax.tasks import dataset as datasets
from o1jax.tasks.base import Example, ProblemSet
from o1jax.tasks.dataset import Dataset, content_hash, from_plain, plain, without_spacing
from o1jax.verifiers.base import Problem

# Modules are looked for where this process does: `-m` would take a json.py of the working directory first.
_PROGRAM = """\
import sys
sys.path[:] = {path!r}
from {module} import main
main()
"""
SPLITS = ("held_out", "train")  # in the order in which they are made: what is held out is not made again
ROUNDS = 5  # a split is made of 1, 2, 4, 8, 16 times as many entries as it needs, until enough are distinct
# Entry i of a dataset is made from seed + i: these are further apart than any i comes to.
SEEDS_OF_SPLIT = 2_000_000


def build(cfg: ReasoningGymConfig) -> ProblemSet:
  """The problems, from prepared files below `cfg.data_dir`.

  Raises ConfigError naming `task.dataset`, `task.options` or `task.size` where the dataset cannot be made.
  """
  name = f"gym_{cfg.dataset}"
  dataset = Dataset(
    name=name,
    fields={"place": int, "question": str, "answer": str | None, "entry": str},
    files=_made,
    path_option="--task.data-dir",
    parse_row=functools.partial(parse_row, name, cfg.dataset),
    split=_by_split,
    verifier="gym",
    count_tries=count_answers,
    question_key=without_spacing,
    distinct_words=False,
  )
  return datasets.build(dataset, cfg)


def count_answers(text: str) -> int:
  """Answers that a response states: its <answer> tags, or itself where it has none and is not empty."""
  return text.count("</answer>") or int(bool(text.strip()))


def parse_row(name: str, dataset: str, row: dict, where: str, row_id: str) -> Example:
  """An entry of the generator `dataset`, of the task `name`."""
  entry, answer = from_plain(json.loads(row["entry"])), row["answer"]
  meta = {"dataset": dataset, "entry": entry}
  problem = Problem(row_id, f"{row['question'].strip()}\nAnswer:\n", answer or "", name, meta)
  made_from = f"reasoning-gym's {dataset}, entry {row['place']} of {row_id.partition('/')[0]}"
  reference = None if answer is None else f"<answer>{answer}</answer>"
  return Example(made_from, row["question"], problem, reference)


def _by_split(examples: Sequence[Example], cfg: ReasoningGymConfig) -> datasets.Split:
  held_out, train = ([e for e in examples if e.problem.id.startswith(f"{split}/")] for split in SPLITS)
  return train, held_out


def _made(cfg: ReasoningGymConfig) -> dict[str, io_data.Source]:
  """Split -> JSONL file of its entries, made where they are not there yet."""
  counts = {"held_out": cfg.held_out, "train": cfg.size}
  first = cfg.split_seed * len(SPLITS) * SEEDS_OF_SPLIT
  splits = {
    split: {"seed": first + place * SEEDS_OF_SPLIT, "count": counts[split]}
    for place, split in enumerate(SPLITS)
  }
  options = {option: json.loads(value) for option, value in cfg.options}
  order = {"dataset": cfg.dataset, "options": options, "splits": splits}
  code = [pathlib.Path(str(file)).read_text(encoding="utf-8") for file in (__file__, datasets.__file__)]
  key = content_hash([order, importlib.metadata.version("reasoning-gym"), code])[:16]
  folder = pathlib.Path(cfg.data_dir) / "reasoning_gym" / "made" / key
  paths = {split: folder / f"{split}.jsonl" for split in SPLITS}
  if not all(path.is_file() for path in paths.values()):
    lines = _run(json.dumps(order))
    for split, path in paths.items():
      rows = [line for line in lines if json.loads(line)["split"] == split]
      write_atomically(path, "".join(f"{line}\n" for line in rows).encode())
  return {split: io_data.Source(str(path)) for split, path in paths.items()}


def _run(order: str) -> list[str]:
  """What `main` prints in a process of its own. Raises ConfigError with the last line of its errors."""
  command = [sys.executable, "-c", _PROGRAM.format(path=sys.path, module=__name__)]
  environment = {**os.environ, "PYTHONHASHSEED": "0"}
  done = subprocess.run(command, input=order, capture_output=True, text=True, env=environment)
  if done.returncode:
    errors = done.stderr.strip().splitlines() or [f"the generator ended with status {done.returncode}"]
    raise ConfigError(errors[-1][:2000])
  return done.stdout.splitlines()


# In a process of its own


class Refused(Exception):
  """An order that cannot be met; its text is one line that begins with the option."""


def main() -> None:
  """Reads an order (JSON) from standard input, and prints its entries, a line of JSON each.

  An order is {dataset, options: {name: value}, splits: {split: {seed, count}}}. What is wrong with it is one
  line on standard error, and exit code 2.
  """
  order = json.load(sys.stdin)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", SyntaxWarning)  # in a library of the library
    from reasoning_gym.factory import DATASETS
  try:
    name = order["dataset"]
    if name not in DATASETS:
      raise Refused(f"task.dataset: reasoning-gym has no {name!r}; it has {', '.join(sorted(DATASETS))}")
    known: set[str] = set()
    for split, part in order["splits"].items():
      for made in distinct(name, order["options"], part["seed"], part["count"], known):
        entry = made["entry"]
        row = {"split": split, "place": made["place"], "entry": json.dumps(plain(entry))}
        print(json.dumps(row | {field: entry[field] for field in ("question", "answer")}))
  except (Refused, TypeError) as error:
    print(error, file=sys.stderr)
    raise SystemExit(2) from error


def distinct(name: str, options: Mapping[str, Any], seed: int, count: int, known: set[str]) -> list[dict]:
  """`count` entries of different questions that are not in `known`, and are added to it. Raises Refused."""
  from reasoning_gym.factory import create_dataset

  for factor in (2**round_ for round_ in range(ROUNDS)):
    try:
      dataset = create_dataset(name, **options, seed=seed, size=count * factor)
      entries = _new(dataset, count, known)
    except Exception as error:  # a generator's own, of any kind
      message = " ".join(f"{type(error).__name__}: {error}".split())[:300]
      raise Refused(f"task.options: {name} cannot be made with {dict(options)}: {message}") from error
    if len(entries) == count:
      known |= set(entries)
      return list(entries.values())
  raise Refused(f"task.size: {name} gives only {len(entries)} different questions, {count} are wanted")


def _new(dataset: Any, count: int, known: set[str]) -> dict[str, dict]:
  """The first `count` entries of questions that are not known, by question."""
  entries: dict[str, dict] = {}
  for place in range(len(dataset)):
    if len(entries) == count:
      break
    entry = dataset[place]
    question = " ".join(entry["question"].split())
    if question not in known and question not in entries:
      entries[question] = {"entry": entry, "place": place}
  return entries


if __name__ == "__main__":
  main()

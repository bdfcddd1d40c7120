"""Every dataset of reasoning-gym by its name (Stojanovski et al. 2025): generated problems, scored by their generator.

    dataset, options, seeds -> entries made in a process of their own -> prepared splits -> answers that score 1 -> Source

Held-out and training entries come from seeds far apart, and no question comes twice. The scorers run in the pool: some
evaluate text. Some datasets have no reference answers, and theirs are not verified.
Left out: demonstrations (there are answers, but no ways to them), `composite`, which mixes other datasets.
"""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterable, Iterator

from o1jax.config import ConfigError, ReasoningGymConfig
from o1jax.io import data as io_data
from o1jax.io.data import jsonl_splits, write_atomically
from o1jax.tasks import gym_entries, plain
from o1jax.tasks.base import Source
from o1jax.tasks.pooled import called, chosen, pooled
from o1jax.tasks.rows import Kind, Row, content_hash, is_correct, make_source, verified, without_spacing
from o1jax.verifiers.base import Problem

NAME = "reasoning_gym"
FIELDS = {"place": int, "question": str, "answer": str | None, "entry": str}
# Modules are looked for where this process does: `-m` would begin with the working directory, and take a json.py there.
_PROGRAM = """\
import sys
sys.path[:] = {path!r}
from {module} import main
main()
"""
SPLITS = ("held_out", "train")  # in the order in which they are made: what is held out is not made again


def source(cfg: ReasoningGymConfig) -> Source:
  """The problems, from prepared files below `cfg.data_dir`.

  Raises ConfigError naming `task.dataset`, `task.options` or `task.size` where the dataset cannot be made.
  """
  name = f"gym_{cfg.dataset}"
  kind = Kind(
    name, pooled("gym", **chosen(cfg)), called("gym", cfg), is_correct, None, count_answers,
    coherent=lambda problem, text: count_answers(text) == 1, key=without_spacing,
  )  # fmt: skip
  files = {split: io_data.Source(str(path)) for split, path in _made(cfg).items()}
  data = jsonl_splits(NAME, files, FIELDS, cfg.data_dir, option="--task.data-dir")
  rows = [row for split in SPLITS for row in _rows(name, cfg.dataset, split, data.splits[split])]
  rows = verified(rows, kind, cfg.unverified, cfg.data_dir)
  held_out, train = ([row for row in rows if row.problem.id.startswith(split)] for split in SPLITS)
  return make_source(kind, train, held_out, (), cfg.decontaminate, cfg.data_dir)


def count_answers(text: str) -> int:
  """Answers that a response states: its <answer> tags; where there is none, all of it is one, if there is anything."""
  return text.count("</answer>") or int(bool(text.strip()))


def _rows(name: str, dataset: str, split: str, rows: Iterable[dict]) -> Iterator[Row]:
  for number, row in enumerate(rows, start=1):
    entry, answer = plain.from_plain(json.loads(row["entry"])), row["answer"]
    meta = {"dataset": dataset, "entry": entry}
    problem = Problem(f"{split}/{number}", f"{row['question'].strip()}\nAnswer:\n", answer or "", name, meta)
    where = f"reasoning-gym's {dataset}, entry {row['place']} of {split}"
    yield Row(where, row["question"], problem, None if answer is None else f"<answer>{answer}</answer>")


def _made(cfg: ReasoningGymConfig) -> dict[str, pathlib.Path]:
  """Split -> JSONL file of its entries, made where they are not there yet."""
  counts = {"held_out": cfg.held_out, "train": cfg.size}
  first = cfg.split_seed * len(SPLITS) * gym_entries.SEEDS_OF_SPLIT
  splits = {
    split: {"seed": first + place * gym_entries.SEEDS_OF_SPLIT, "count": counts[split]}
    for place, split in enumerate(SPLITS)
  }
  options = {option: json.loads(value) for option, value in cfg.options}
  order = {"dataset": cfg.dataset, "options": options, "splits": splits}
  code = [pathlib.Path(str(module.__file__)).read_text(encoding="utf-8") for module in (gym_entries, plain)]
  key = content_hash([order, importlib.metadata.version("reasoning-gym"), code])[:16]
  paths = {split: pathlib.Path(cfg.data_dir) / NAME / "made" / key / f"{split}.jsonl" for split in SPLITS}
  if not all(path.is_file() for path in paths.values()):
    lines = _run(json.dumps(order))
    for split, path in paths.items():
      mine = [line for line in lines if json.loads(line)["split"] == split]
      write_atomically(path, "".join(f"{line}\n" for line in mine).encode())
  return paths


def _run(order: str) -> list[str]:
  """What `gym_entries` prints. Raises ConfigError with the last line of what it says is wrong."""
  command = [sys.executable, "-c", _PROGRAM.format(path=sys.path, module=gym_entries.__name__)]
  environment = {**os.environ, "PYTHONHASHSEED": "0"}
  done = subprocess.run(command, input=order, capture_output=True, text=True, env=environment)
  if done.returncode:
    told = done.stderr.strip().splitlines() or [f"the generator ended with status {done.returncode}"]
    raise ConfigError(told[-1][:2000])
  return done.stdout.splitlines()

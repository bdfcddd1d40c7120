"""A JSONL data set costs one file and one line: riddles.py beside this, and an entry of the catalog."""

import importlib.util
import json
import pathlib
import sys

import numpy as np
import pytest

from o1jax.config import ConfigError, JsonlTaskConfig, TextConfig
from o1jax.tasks import catalog

HERE = pathlib.Path(__file__).parent
ROWS = [{"riddle": f"I am {n} twice. What am I?", "answer": 2 * n} for n in range(8)]


@pytest.fixture
def riddles(monkeypatch):
  spec = importlib.util.spec_from_file_location("riddles", HERE / "riddles.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  monkeypatch.setitem(catalog.DATASETS, "riddles", module.DATASET)  # the line
  return module


def config(folder: pathlib.Path, rows: list[dict] = ROWS, **fields) -> JsonlTaskConfig:
  path = folder / "riddles.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  text = TextConfig(vocab=300)
  return JsonlTaskConfig(
    **{
      "dataset": "riddles",
      "path": str(path),
      "data_dir": str(folder),
      "held_out": 2,
      "text": text,
      **fields,
    }
  )


def test_its_rows_are_a_task_and_their_answers_verify(riddles, tmp_path) -> None:
  cfg = config(tmp_path)
  cfg.validate("task")
  task = catalog.build_task(cfg)
  assert (task.name, len(task.train), len(task.held_out)) == ("riddles", 6, 2)
  problem = task.train[0]
  assert task.question(problem).endswith("What am I?\nAnswer:\n")
  texts = [task.demonstrate(problem, np.random.default_rng(0)), "#### 1"]
  assert [verdict.correct for verdict in task.verify([problem] * 2, texts)] == [True, False]
  assert [task.well_formed(problem, text) for text in (texts[0], "no number")] == [True, False]
  assert task.tokenizer.decode(task.tokenizer.encode(texts[0])) == texts[0]


def test_a_bad_row_and_an_unknown_name_are_told_in_one_line(riddles, tmp_path) -> None:
  bad = config(tmp_path, [*ROWS, {"riddle": " ", "answer": 1}])
  with pytest.raises(ConfigError, match=r"riddles\.jsonl row 9: field 'riddle' is empty$"):
    catalog.build_problems(bad)
  with pytest.raises(ConfigError, match=r"^task\.dataset: is 'rebuses'; there are riddles$"):
    catalog.build_problems(config(tmp_path, dataset="rebuses"))
  with pytest.raises(ConfigError, match=r"^task\.dataset: is 'gsm8k'; there are riddles$"):
    catalog.build_problems(config(tmp_path, dataset="gsm8k"))  # it has a configuration of its own


def test_it_costs_one_file(riddles) -> None:
  """No file of the package knows of it, and it is itself the only one that this test adds."""
  package = pathlib.Path(sys.modules["o1jax.tasks"].__file__).parents[1]
  assert [path for path in package.rglob("*.py") if "riddles" in path.read_text()] == []
  assert [path.name for path in HERE.glob("*.py") if path.name == f"{riddles.NAME}.py"] == ["riddles.py"]
  assert riddles.DATASET is catalog.DATASETS["riddles"]

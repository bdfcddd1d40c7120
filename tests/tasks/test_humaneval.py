"""HumanEval-style rows as a task, judged in the sandbox."""

import gzip
import json
import pathlib

import numpy as np
import pytest

from o1jax.config import ConfigError, HumanevalConfig, TextConfig
from o1jax.tasks.base import text_task
from o1jax.tasks.catalog import build_problems

ROWS = pathlib.Path(__file__).parents[1] / "data" / "humaneval_rows.jsonl"

pytestmark = pytest.mark.usefixtures("in_process")


def build(tmp_path, path=ROWS, **fields):
  return build_problems(HumanevalConfig(str(path), data_dir=str(tmp_path / "d"), **fields))


def rows() -> list[dict]:
  return [json.loads(line) for line in ROWS.read_text().splitlines()]


def test_all_is_held_out_unless_a_number_is_asked_for(tmp_path):
  made = build(tmp_path)
  assert list(made.train) == [] and [problem.id for problem in made.held_out] == [
    f"Own/{n}" for n in range(4)
  ]
  part = build(tmp_path, held_out=3)
  assert (len(part.train), len(part.held_out)) == (1, 3)
  assert {problem.id for problem in (*part.train, *part.held_out)} == {f"Own/{n}" for n in range(4)}
  assert list(part.sft_problems) == list(part.train)
  assert len({made.data_hash, part.data_hash, build(tmp_path, held_out=2).data_hash}) == 3
  others = [build(tmp_path, held_out=3, split_seed=seed).train[0].id for seed in range(8)]
  assert len(set(others)) > 1 and build(tmp_path, held_out=3).train == part.train


def test_references_pass_as_whole_functions_and_as_what_goes_on(tmp_path):
  made = build(tmp_path)
  whole = [made.demonstrate(problem, np.random.default_rng(0)) for problem in made.held_out]
  on = [row["canonical_solution"] for row in rows()]
  for texts in (whole, on):
    assert [verdict.error for verdict in made.verify(made.held_out, texts)] == [None] * 4
    assert all(made.count_tries(p, t) == 1 and made.well_formed(p, t) for p, t in zip(made.held_out, texts))
  wrong = ["    return word[by:]", "    return n", "    return [1", "Sorry."]
  assert [verdict.correct for verdict in made.verify(made.held_out, wrong)] == [False] * 4
  assert [made.well_formed(p, t) for p, t in zip(made.held_out, wrong)] == [True, True, False, False]


def test_the_prompt_is_the_published_one(tmp_path):
  assert build(tmp_path).held_out[1].prompt == rows()[1]["prompt"]


def test_a_packed_file_holds_the_same_problems(tmp_path):
  packed = tmp_path / "rows.jsonl.gz"
  packed.write_bytes(gzip.compress(ROWS.read_bytes(), mtime=7))
  assert build(tmp_path, packed).data_hash == build(tmp_path).data_hash


BAD = {
  "field 'task_id': there is a Own/0 before": {"task_id": "Own/0"},
  "field 'entry_point': 'a b' is no name": {"entry_point": "a b"},
  "field 'canonical_solution' does not complete 'prompt' to a Python program": {
    "canonical_solution": "  return ("
  },
  "field 'test' is no Python program": {"test": "def check("},
  "has no field 'test'": {"test": ...},
  "its reference does not verify: wrong": {"canonical_solution": "    return 0\n"},
}


@pytest.mark.parametrize("told", BAD)
def test_a_bad_row_is_named(tmp_path, told):
  some = rows()
  some[3].update(BAD[told])
  some[3] = {name: value for name, value in some[3].items() if value is not ...}
  path = tmp_path / "a.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in some))
  with pytest.raises(ConfigError) as error:
    build(tmp_path, path)
  assert str(error.value).startswith(f"{path} row 4: ") and told in str(error.value)


def test_without_training_problems_a_tokenizer_has_to_be_named(tmp_path):
  with pytest.raises(ConfigError, match=r"^task\.text\.tokenizer: task humaneval has no training problems"):
    text_task(build(tmp_path), TextConfig(), str(tmp_path))

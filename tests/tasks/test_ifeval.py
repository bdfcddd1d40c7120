"""IFEval-style rows as a task."""

import json
import pathlib

import pytest

from o1jax.config import ConfigError, IfevalConfig
from o1jax.tasks.catalog import build_problems

ROWS = pathlib.Path(__file__).parents[1] / "data" / "ifeval_rows.jsonl"

pytestmark = pytest.mark.usefixtures("in_process")


def build(tmp_path, path=ROWS, **fields):
  return build_problems(IfevalConfig(str(path), data_dir=str(tmp_path / "d"), **fields))


def test_all_is_held_out_unless_a_number_is_asked_for(tmp_path):
  made = build(tmp_path)
  assert list(made.train) == [] and [problem.id for problem in made.held_out] == ["1", "2", "3", "4"]
  assert made.demonstrate is None
  part = build(tmp_path, held_out=2)
  assert (len(part.train), len(part.held_out), list(part.sft_problems)) == (2, 2, [])
  assert not {problem.id for problem in part.train} & {problem.id for problem in part.held_out}
  assert part.data_hash != made.data_hash == build(tmp_path).data_hash


def test_responses_are_judged_by_the_constraints(tmp_path):
  made = build(tmp_path)
  problems = [made.held_out[1], made.held_out[1], made.held_out[3]]
  verdicts = made.verify(
    problems, ["The sea is full of salt.", "The sea is wide.", "Soft, and the stone is green"]
  )
  assert [verdict.correct for verdict in verdicts] == [True, False, True]
  assert made.held_out[0].meta["kwargs"] == [{}, {"relation": "at least", "num_words": 20}]
  assert [made.count_tries(problems[0], text) for text in ("", " \n", "a")] == [0, 0, 1]
  assert [made.well_formed(problems[0], text) for text in ("", " \n", "a")] == [False, False, True]


BAD = {
  "field 'key': there is a 1 before": {"key": 1},
  "field 'prompt' is empty": {"prompt": "\n"},
  "fields 'instruction_id_list' and 'kwargs' have 1 and 2 items": {"kwargs": [{}, {}]},
  "fields 'instruction_id_list' and 'kwargs' have 0 and 0 items": {"kwargs": [], "instruction_id_list": []},
  "field 'kwargs' is no list of objects": {"kwargs": [None]},
  "field 'kwargs' is no list of objects, one an instruction": {"kwargs": "{not json"},
  "nothing can be graded by it: problem 4": {"instruction_id_list": ["startend:middle_checker"]},
  "nothing can be graded by it: problem 4: instruction 'startend:end_checker'": {
    "kwargs": [{"end_phrase": 3}]
  },
}


END = {"instruction_id_list": ["startend:end_checker"]}
SALT = {"instruction_id_list": ["keywords:existence"]}
BOTH = {"instruction_id_list": ["keywords:existence", "length_constraints:number_words"]}
FORMS = [  # the row's fields, and its arguments as the verifier has them
  ({"key": "r-1"}, [{}, {"relation": "at least", "num_words": 20}]),
  (END | {"kwargs": {"end_phrase": "Bye."}}, [{"end_phrase": "Bye."}]),
  (END | {"kwargs": {"end_phrase": ["Bye."]}}, [{"end_phrase": "Bye."}]),
  (END | {"kwargs": '[{"end_phrase": "Bye."}]'}, [{"end_phrase": "Bye."}]),
  (END | {"kwargs": '{"end_phrase": "Bye."}'}, [{"end_phrase": "Bye."}]),
  (SALT | {"kwargs": {"keywords": ["salt"]}}, [{"keywords": ["salt"]}]),
  (SALT | {"kwargs": {"keywords": [["salt"]]}}, [{"keywords": ["salt"]}]),
  (
    BOTH | {"kwargs": {"keywords": [["salt"], None], "num_words": [None, 9], "relation": [None, "at least"]}},
    [
      {"keywords": ["salt"], "num_words": None, "relation": None},
      {"keywords": None, "num_words": 9, "relation": "at least"},
    ],
  ),
]


@pytest.mark.parametrize("fields, arguments", FORMS)
def test_exports_may_have_arguments_and_keys_in_other_forms(tmp_path, fields, arguments):
  row = json.loads(ROWS.read_text().splitlines()[0]) | fields
  path = tmp_path / "a.jsonl"
  path.write_text(json.dumps(row) + "\n")
  (problem,) = build(tmp_path, path).held_out
  assert (problem.id, problem.meta["kwargs"]) == (str(row["key"]), arguments)


@pytest.mark.parametrize("told", BAD)
def test_a_bad_row_is_named(tmp_path, told):
  rows = [json.loads(line) for line in ROWS.read_text().splitlines()]
  rows[3].update(BAD[told])
  path = tmp_path / "a.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  with pytest.raises(ConfigError) as error:
    build(tmp_path, path)
  assert str(error.value).startswith(f"{path} row 4: ") and told in str(error.value)

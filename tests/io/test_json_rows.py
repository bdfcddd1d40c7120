"""Rows of JSON are read in the forms that people have them in, and their fields by type."""

import json
import pathlib

import pytest

from o1jax.config import ConfigError
from o1jax.io.data import Source, jsonl_splits

ROWS = [{"text": "zero\x00", "n": 0}, {"text": "é\u2028\n", "n": -5}, {"text": "", "n": 2**63 - 1}]


def write(path: pathlib.Path, rows) -> str:
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


def prepared(location: str, fields, folder: pathlib.Path):
  return jsonl_splits("rows", {"train": Source(location)}, fields, str(folder / "d"), option="path").splits[
    "train"
  ]


ROWS_AS_PEOPLE_HAVE_THEM = {
  "a byte order mark": "\ufeff" + "".join(json.dumps(row) + "\n" for row in ROWS),
  "blank lines": "\n" + "\n \r\n".join(json.dumps(row) for row in ROWS) + "\n\n",
  "Windows ends": "\r\n".join(json.dumps(row) for row in ROWS),
  "an array": json.dumps(ROWS),
  "an array over lines": "\ufeff\n" + json.dumps(ROWS, indent=2),
  "a long number unused": "".join(json.dumps(row)[:-1] + ', "more": 1' + "0" * 5000 + "}\n" for row in ROWS),
  "nulls unused": "".join(json.dumps({**row, "more": None}) + "\n" for row in ROWS),
}


@pytest.mark.parametrize("form", ROWS_AS_PEOPLE_HAVE_THEM)
def test_a_file_is_read_in_the_forms_that_people_have(tmp_path, form):
  path = tmp_path / "a.JSON"
  path.write_bytes(ROWS_AS_PEOPLE_HAVE_THEM[form].encode())
  assert list(prepared(str(path), {"text": str, "n": int}, tmp_path)) == ROWS


def test_a_number_where_text_may_stand_is_its_digits(tmp_path):
  fields = {"answer": str | float, "hint": str | float | None, "any": object}
  values = [(17, None, {"a": [None]}), (-1e-05, 2.50, "x"), ("1e-05", 10**30, 3)]
  path = write(tmp_path / "a.jsonl", [dict(zip(fields, row)) for row in values])
  read = [
    ("17", None, {"a": [None]}),
    ("-0.00001", "2.5", "x"),
    ("1e-05", "1" + "0" * 30, 3),
  ]
  for _ in range(2):  # as prepared, and as read from disk
    rows = prepared(path, fields, tmp_path)
    assert [tuple(row[name] for name in fields) for row in rows] == read
  for bad, fault in (
    (True, "is bool, not str"),
    (float("inf"), "is inf, no number"),
    ([1], "is list, not str"),
  ):
    write(tmp_path / "a.jsonl", [{"answer": bad, "any": 0}])
    with pytest.raises(ConfigError, match=f"row 1: field 'answer' {fault}"):
      prepared(path, fields, tmp_path)

"""JSONL files become array_record once, whole or not at all, and every bad row is named."""

import functools
import gzip
import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest

from o1jax.config import ConfigError
from o1jax.io import data
from o1jax.io.data import Source, jsonl_rows, jsonl_splits, write_atomically
from o1jax.io.log import write_json

FIELDS = {"text": str, "n": int}
ROWS = [{"text": "zero\x00", "n": 0}, {"text": "é\u2028\n", "n": -5}, {"text": "", "n": 2**63 - 1}]


def write(path: pathlib.Path, rows) -> str:
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


def prepare(location: str, folder: pathlib.Path, sha256: str | None = None):
  return jsonl_splits("rows", {"train": Source(location, sha256)}, FIELDS, str(folder), option="--task.path")


def leftovers(folder: pathlib.Path) -> list[str]:
  """Names of temporary files and folders below `folder`."""
  return [path.name for path in folder.rglob("*") if path.name.startswith((".preparing-", ".writing-"))]


def test_rows_come_back_in_order_and_exactly(tmp_path):
  rows = prepare(write(tmp_path / "a.jsonl", ROWS), tmp_path / "d").splits["train"]
  assert list(rows) == ROWS
  assert (len(rows), rows[-1], rows[1:]) == (3, ROWS[-1], ROWS[1:])
  with pytest.raises(IndexError):
    rows[3]


def test_splits_keep_apart_and_other_fields_are_left_out(tmp_path):
  one = Source(write(tmp_path / "a.jsonl", [{**row, "more": [1]} for row in ROWS]))
  two = Source(write(tmp_path / "b.jsonl", ROWS[:1]))
  splits = jsonl_splits(
    "rows", {"train": one, "test": two}, FIELDS, str(tmp_path / "d"), option="path"
  ).splits
  assert list(splits["train"]) == ROWS
  assert list(splits["test"]) == ROWS[:1]


def test_the_last_row_may_lack_its_line_feed(tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_text("\n".join(json.dumps(row) for row in ROWS))
  assert list(prepare(str(path), tmp_path / "d").splits["train"]) == ROWS


def test_two_splits_of_one_content_are_refused(tmp_path):
  here, there = write(tmp_path / "a.jsonl", ROWS), write(tmp_path / "b.jsonl", ROWS)
  with pytest.raises(ConfigError, match="^path: .*a.jsonl and .*b.jsonl hold the same rows; name one file"):
    jsonl_splits(
      "rows", {"train": Source(here), "test": Source(there)}, FIELDS, str(tmp_path / "d"), option="path"
    )


def test_the_second_call_reads_the_first_ones_files(tmp_path, monkeypatch):
  path = write(tmp_path / "a.jsonl", ROWS)
  first = prepare(path, tmp_path / "d")
  monkeypatch.delattr(data, "_prepare")
  second = prepare(path, tmp_path / "d")
  assert (second.folder, second.data_hash) == (first.folder, first.data_hash)
  assert list(second.splits["train"]) == ROWS


def test_a_changed_file_is_never_served_stale(tmp_path):
  path = tmp_path / "a.jsonl"
  before = prepare(write(path, ROWS), tmp_path / "d")
  after = prepare(write(path, ROWS[:2]), tmp_path / "d")
  assert list(after.splits["train"]) == ROWS[:2]
  assert after.data_hash != before.data_hash
  assert list(before.splits["train"]) == ROWS


def test_the_hash_knows_the_content_and_the_fields_but_not_the_place(tmp_path):
  here, there = write(tmp_path / "a.jsonl", ROWS), write(tmp_path / "b.jsonl", ROWS)
  assert prepare(here, tmp_path / "d").data_hash == prepare(there, tmp_path / "e").data_hash
  source = {"train": Source(here)}
  fewer = jsonl_splits("rows", source, {"text": str}, str(tmp_path / "d"), option="path")
  assert fewer.data_hash != prepare(here, tmp_path / "d").data_hash
  assert len(fewer.data_hash) == 64 and int(fewer.data_hash, 16) > 0


def test_tensorflow_is_not_imported(tmp_path):
  path = write(tmp_path / "a.jsonl", ROWS)
  code = (
    "import sys; from o1jax.io.data import Source, jsonl_splits\n"
    f"jsonl_splits('rows', {{'train': Source({path!r})}}, {{'text': str}},"
    f" {str(tmp_path / 'd')!r}, option='path')\n"
    "print('tensorflow' in sys.modules, 'tensorflow_datasets' in sys.modules)"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stdout == "False True\n"


NESTED = {"tests": list[str], "kwargs": list[dict], "hint": str | None}
NESTED_ROWS = [
  {
    "tests": ["é", "", "a\x00b"],
    "kwargs": [{}, {"n": 1.5, "deep": [None, {"x": [True, 10**30]}]}],
    "hint": "yes",
  },
  {"tests": [], "kwargs": [], "hint": None},
]


def test_lists_of_text_and_of_objects_come_back_exactly(tmp_path):
  given = [NESTED_ROWS[0], {name: value for name, value in NESTED_ROWS[1].items() if name != "hint"}]
  source = {"train": Source(write(tmp_path / "a.jsonl", given))}
  for _ in range(2):  # as prepared, and as read from disk
    assert (
      list(jsonl_splits("rows", source, NESTED, str(tmp_path / "d"), option="path").splits["train"])
      == NESTED_ROWS
    )


NESTED_BAD = {
  "field 'tests' is str, not list": {"tests": "a"},
  "field 'tests' item 2 is int, not str": {"tests": ["a", 1]},
  "field 'tests' item 1 holds half of a surrogate pair": {"tests": ["\ud800"]},
  "field 'kwargs' is dict, not list": {"kwargs": {}},
  "field 'kwargs' item 1 is NoneType, not dict": {"kwargs": [None]},
  "field 'kwargs' item 2: ValueError": {"kwargs": [{}, {"x": float("nan")}]},
  "field 'kwargs' item 1 holds half of a surrogate pair": {"kwargs": [{"x": ["\ud800"]}]},
  "field 'hint' is int, not str": {"hint": 1},
}


@pytest.mark.parametrize("fault", NESTED_BAD)
def test_a_bad_list_is_named(tmp_path, fault):
  source = {
    "train": Source(write(tmp_path / "a.jsonl", [NESTED_ROWS[0], {**NESTED_ROWS[0], **NESTED_BAD[fault]}]))
  }
  with pytest.raises(ConfigError) as error:
    jsonl_splits("rows", source, NESTED, str(tmp_path / "d"), option="path")
  assert f"a.jsonl row 2: {fault}" in str(error.value) and "\n" not in str(error.value)


def test_a_packed_file_is_the_file_that_it_packs(tmp_path):
  plain = pathlib.Path(write(tmp_path / "a.jsonl", ROWS))
  packed = tmp_path / "a.jsonl.gz"
  packed.write_bytes(gzip.compress(plain.read_bytes()))
  assert list(prepare(str(packed), tmp_path / "d").splits["train"]) == ROWS
  assert prepare(str(packed), tmp_path / "d").data_hash == prepare(str(plain), tmp_path / "e").data_hash
  packed.write_bytes(packed.read_bytes()[:-9])
  with pytest.raises(ConfigError, match=r"^--task\.path: .*a\.jsonl\.gz cannot be unpacked: EOFError"):
    prepare(str(packed), tmp_path / "d")


def test_rows_of_a_file_that_is_not_prepared(tmp_path):
  path = pathlib.Path(write(tmp_path / "a.jsonl", ROWS))
  rows, sha256 = jsonl_rows(Source(str(path)), {"text": str}, str(tmp_path / "d"), "--task.decontaminate")
  assert rows == [{"text": row["text"]} for row in ROWS]
  assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest() and not (tmp_path / "d").exists()
  with pytest.raises(ConfigError, match=r"^--task\.decontaminate: .*b\.jsonl cannot be read"):
    jsonl_rows(Source(str(tmp_path / "b.jsonl")), {"text": str}, str(tmp_path), "--task.decontaminate")


BAD = {
  "": "a.jsonl: is empty",
  "\n\n": "a.jsonl: is empty",
  '{"text": "a", "n": 1}\n{"text": "b"': "a.jsonl row 2: is not JSON",
  '\n{"text": "a", "n": 1}\n\n{"text": "a"}\n': "a.jsonl row 2 (line 4): has no field 'n'",
  '[{"text": "a", "n": 1}, 7]': "a.jsonl row 2: is int, not an object",
  '[{"text": "a", "n": 1}': "a.jsonl: is not JSON",
  " [] ": "a.jsonl: is empty",
  '{"text": "a", "n": 1}\n[1]\n': "a.jsonl row 2: is list, not an object",
  '{"text": "a"}\n': "a.jsonl row 1: has no field 'n'",
  '{"text": 7, "n": 1}\n': "a.jsonl row 1: field 'text' is int, not str",
  '{"text": null, "n": 1}\n': "a.jsonl row 1: field 'text' is NoneType, not str",
  '{"text": "a", "n": true}\n': "a.jsonl row 1: field 'n' is bool, not int",
  '{"text": "a", "n": 1.0}\n': "a.jsonl row 1: field 'n' is float, not int",
  '{"text": "a", "n": 9223372036854775808}\n': "a.jsonl row 1: field 'n' does not fit 64 bits",
  '{"text": "a", "n": 1' + "0" * 5000 + "}\n": "a.jsonl row 1: field 'n' does not fit 64 bits",
  '{"text": "\\ud800", "n": 1}\n': "a.jsonl row 1: field 'text' holds half of a surrogate pair",
  "[" * 100_000 + "\n": "a.jsonl: is not JSON: RecursionError",
}


@pytest.mark.parametrize("content", BAD, ids=list(BAD.values()))
def test_a_bad_row_is_named_in_one_line_and_nothing_is_written(tmp_path, content):
  path = tmp_path / "a.jsonl"
  path.write_text(content)
  with pytest.raises(ConfigError) as error:
    prepare(str(path), tmp_path / "d")
  assert BAD[content] in str(error.value)
  assert "\n" not in str(error.value) and len(str(error.value)) < 600
  assert not (tmp_path / "d").exists()


def test_bytes_that_are_no_text_are_named(tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_bytes(b'{"text": "a", "n": 1}\n{"text": "\xff", "n": 1}\n')
  with pytest.raises(ConfigError, match=r"a\.jsonl row 2: is not JSON: UnicodeDecodeError"):
    prepare(str(path), tmp_path / "d")


def test_a_missing_file_names_the_option_and_the_path(tmp_path):
  with pytest.raises(ConfigError, match=r"^--task\.path: .*absent\.jsonl cannot be read: No such file"):
    prepare(str(tmp_path / "absent.jsonl"), tmp_path / "d")


def test_a_damaged_prepared_file_is_an_error_that_names_the_folder(tmp_path):
  path = write(tmp_path / "a.jsonl", ROWS)
  folder = prepare(path, tmp_path / "d").folder
  (records,) = folder.glob("*array_record*")
  content = bytearray(records.read_bytes())
  content[: len(content) // 2] = bytes(len(content) // 2)
  records.write_bytes(content)
  with pytest.raises(ConfigError, match=f"{folder.name}.*delete the folder"):
    list(prepare(path, tmp_path / "d").splits["train"])


def test_a_damaged_description_is_an_error_that_names_the_folder(tmp_path):
  path = write(tmp_path / "a.jsonl", ROWS)
  folder = prepare(path, tmp_path / "d").folder
  (folder / "dataset_info.json").write_text("{")
  with pytest.raises(ConfigError, match=f"{folder.name}.*delete the folder"):
    prepare(path, tmp_path / "d")


def test_a_disk_that_refuses_leaves_nothing_half_written(tmp_path):
  path = write(tmp_path / "a.jsonl", [{"text": "many words " * 200, "n": i} for i in range(200)])
  # A file-size limit fails writes as a full disk does, and needs no privilege.
  code = (
    "import resource; from o1jax.config import ConfigError; from o1jax.io.data import Source, jsonl_splits\n"
    "import tensorflow_datasets\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
    "try:\n"
    f"  jsonl_splits('rows', {{'train': Source({path!r})}}, {{'text': str}},"
    f" {str(tmp_path / 'd')!r}, option='path')\n"
    "except ConfigError as error:\n"
    "  print(error)\n"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert "cannot be prepared: " in done.stdout and done.stdout.count("\n") == 1
  assert list((tmp_path / "d" / "rows").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
  path = write(tmp_path / "a.jsonl", ROWS)
  (tmp_path / "d").write_text("a file")
  with pytest.raises(ConfigError, match="rows/[0-9a-f]{16}: cannot be prepared"):
    prepare(path, tmp_path / "d")


def test_an_interrupted_preparation_is_not_read(tmp_path, monkeypatch):
  path = write(tmp_path / "a.jsonl", ROWS)

  def interrupt(source, target):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(data, "_rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
      prepare(path, tmp_path / "d")
  assert leftovers(tmp_path / "d") == []
  assert list(prepare(path, tmp_path / "d").splits["train"]) == ROWS


def test_who_prepares_second_keeps_the_firsts_folder(tmp_path, monkeypatch):
  path = write(tmp_path / "a.jsonl", ROWS)
  rename = data._rename

  def lose_the_race(source, target):
    monkeypatch.setattr(data, "_rename", rename)
    prepare(path, tmp_path / "d")
    rename(source, target)

  monkeypatch.setattr(data, "_rename", lose_the_race)
  assert list(prepare(path, tmp_path / "d").splits["train"]) == ROWS
  assert leftovers(tmp_path / "d") == []


@pytest.fixture
def server(tmp_path):
  """A loopback file server of `tmp_path/www`: (its URL, the paths it was asked for)."""
  (tmp_path / "www").mkdir()
  requested: list[str] = []

  class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
      requested.append(self.path)

  handler = functools.partial(Handler, directory=str(tmp_path / "www"))
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
    threading.Thread(target=http_server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{http_server.server_address[1]}", requested
    http_server.shutdown()


def test_a_url_with_a_hash_is_downloaded_once(tmp_path, server):
  url, requested = server
  path = pathlib.Path(write(tmp_path / "www" / "a.jsonl", ROWS))
  sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
  for _ in range(2):
    assert list(prepare(f"{url}/a.jsonl", tmp_path / "d", sha256).splits["train"]) == ROWS
  assert requested == ["/a.jsonl"]
  kept = tmp_path / "d" / "downloads" / f"{sha256}.jsonl"
  kept.write_bytes(b"damaged")
  assert list(prepare(f"{url}/a.jsonl", tmp_path / "d", sha256).splits["train"]) == ROWS
  assert kept.read_bytes() == path.read_bytes()
  assert leftovers(tmp_path / "d") == []


def test_a_url_without_a_hash_is_downloaded_anew(tmp_path, server):
  url, requested = server
  write(tmp_path / "www" / "a.jsonl", ROWS)
  assert len(prepare(f"{url}/a.jsonl", tmp_path / "d").splits["train"]) == 3
  write(tmp_path / "www" / "a.jsonl", ROWS[:1])
  assert len(prepare(f"{url}/a.jsonl", tmp_path / "d").splits["train"]) == 1
  assert len(requested) == 2


def test_a_download_with_another_hash_is_refused(tmp_path, server):
  url, _ = server
  write(tmp_path / "www" / "a.jsonl", ROWS)
  with pytest.raises(ConfigError, match=r"^--task\.path: .*a\.jsonl has SHA-256 [0-9a-f]{64}, expected 000"):
    prepare(f"{url}/a.jsonl", tmp_path / "d", "0" * 64)
  assert not (tmp_path / "d").exists()


def test_a_file_url_works(tmp_path):
  path = pathlib.Path(write(tmp_path / "a.jsonl", ROWS))
  assert list(prepare(path.as_uri(), tmp_path / "d").splits["train"]) == ROWS


def test_an_unreachable_url_is_one_line_that_names_the_option(tmp_path, server):
  url, _ = server
  unreachable = [
    "http://127.0.0.1:9/a.jsonl",
    f"{url}/absent.jsonl",
    "nonsense://a/b.jsonl",
    "http://[/a.jsonl",
  ]
  for location in [*unreachable, (tmp_path / "absent.jsonl").as_uri()]:
    with pytest.raises(ConfigError) as error:
      prepare(location, tmp_path / "d")
    assert str(error.value).startswith(f"--task.path: cannot download {location} (")
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(ConfigError, match="a.model: cannot be written"):
    write_atomically(tmp_path / "file" / "a.model", b"x")


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_what_is_written_has_the_mode_that_open_gives(tmp_path, mask):
  """A new file follows the umask, one that is replaced keeps its mode; a link leads to the file that is
  replaced."""
  before = os.umask(mask)
  try:
    for put in (write_atomically, lambda path, content: write_json(path, content.decode())):
      for name in ("report.html", "link.html"):
        put(tmp_path / name, b"x")
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~mask
        (tmp_path / name).chmod(0o664)
        put(tmp_path / name, b"y")
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o664
      (tmp_path / "link.html").unlink()
      (tmp_path / "link.html").symlink_to("report.html")
      put(tmp_path / "link.html", b"z")
      assert (tmp_path / "link.html").is_symlink() and "z" in (tmp_path / "report.html").read_text()
      (tmp_path / "report.html").unlink()
      (tmp_path / "link.html").unlink()
  finally:
    os.umask(before)
  assert list(tmp_path.iterdir()) == []

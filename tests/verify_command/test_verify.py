"""`o1jax verify` as others run it: a process, lines in, lines out, an exit code."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import pytest
from processes import DEADLINE, below, gone

from o1jax import cli
from o1jax.verifiers import completion
from o1jax.verifiers.catalog import CATALOG
from o1jax.verify_command.jsonl import WINDOW_LINES, LineError, Window, parse_line, read_lines
from o1jax.verify_command.options import SETTINGS, VerifyOptions

ROOT = pathlib.Path(__file__).parents[2]
SUMMARY = re.compile(r"[a-z0-9]+, (?:strict|standard): [0-9,]+ graded, |warning: .*unparsable is high")
COMMAND = [sys.executable, "-m", "o1jax", "verify", "--workers", "2", "--verifier"]
GOOD = {"id": 1, "answer": "18", "completion": "#### 18"}


def lines(*rows: Any) -> bytes:
  """Rows as JSON lines; text stays as it is."""
  texts = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
  return b"".join(text + b"\n" for text in texts)


def run(given: bytes, verifier: str = "gsm8k", *options: str) -> tuple[list[dict], list[str], int]:
  """(rows of standard output, lines of standard error but for the summary, exit code)."""
  done = subprocess.run(
    [*COMMAND, verifier, *options], cwd=ROOT, input=given, capture_output=True, timeout=DEADLINE
  )
  assert done.stdout == b"" or done.stdout.endswith(b"\n")
  return (
    [json.loads(line) for line in done.stdout.splitlines()],
    [line for line in done.stderr.decode().splitlines() if not SUMMARY.match(line)],
    done.returncode,
  )


def start(verifier: str = "gsm8k") -> subprocess.Popen:
  pipe = subprocess.PIPE
  return subprocess.Popen([*COMMAND, verifier], cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)


def test_ids_order_and_verdicts():
  ids = [7, "seven", None, True, 1.5, [1, {"a": []}], {"b": None}, 7, "\u2603 \ud800", 10**30]
  rows = [{**GOOD, "id": each, "completion": f"#### {18 + i % 2}"} for i, each in enumerate(ids)]
  told, errors, code = run(lines(*rows))
  assert (errors, code) == ([], 0)
  assert [row["id"] for row in told] == ids
  assert [type(row["id"]) for row in told] == [type(each) for each in ids]
  assert all(list(row) == ["id", "reward", "correct", "parsed", "error", "seconds"] for row in told)
  assert [tuple(row.values())[1:5] for row in told] == [
    (1.0, True, "18", None) if i % 2 == 0 else (0.0, False, "19", "wrong") for i in range(len(ids))
  ]
  assert all(isinstance(row["seconds"], float) and 0 <= row["seconds"] < 1 for row in told)


def test_nothing_in_nothing_out():
  assert run(b"") == ([], [], 0)


def test_a_malformed_line_is_named_and_the_rest_is_graded():
  bad = [
    (b"", "is not JSON: Expecting value at column 1"),
    (b"{", "is not JSON: Expecting property name enclosed in double quotes at column 2"),
    (b"[1]", "wants an object, has a list, [1]"),
    (b"3", "wants an object, has a number, 3"),
    (b"null", "wants an object, has null"),
    (b'{"answer": "1", "completion": "x"}', "field 'id' is missing"),
    (b'{"id": 1, "answer": "1"}', "field 'completion' is missing"),
    (b'{"id": 1, "completion": "x"}', "field 'answer' is missing"),
    (b'{"id": 1, "answer": ["1"], "completion": "x"}',
      "field 'answer' wants a string or a number, has a list, [\"1\"]"),
    (b'{"id": 1, "answer": true, "completion": "x"}',
      "field 'answer' wants a string or a number, has a boolean, true"),
    (b'{"id": 1, "answer": "1", "completion": null}', "field 'completion' wants a string, has null"),
    (b'{"id": NaN, "answer": "1", "completion": "x"}', "is not JSON: NaN is no number of JSON"),
    (b'{"id": 1e999, "answer": "1", "completion": "x"}', "is not JSON: 1e999 is no number of JSON"),
    (b'{"id": "\xff", "answer": "1", "completion": "x"}', "is not UTF-8: byte 9 of it"),
    (b"[" * 100_000, "is nested too deep"),
    (b'{"id": 1, "answer": "many", "completion": "#### 1"}', "the gold answer 'many' is not one number"),
  ]  # fmt: skip
  rows = [row for text, _ in bad for row in (text, GOOD)]
  told, errors, code = run(lines(*rows))
  assert code == 2
  assert errors == [f"error: line {2 * i + 1}: {what}" for i, (_, what) in enumerate(bad)]
  assert [row["correct"] for row in told] == [True] * len(bad)


@pytest.mark.full
def test_ends_of_lines_and_files():
  row = json.dumps(GOOD).encode()
  for given in (row, row + b"\n", row + b"\r\n", b"\xef\xbb\xbf" + row, b"  " + row + b"\t"):
    told, errors, code = run(given)
    assert (len(told), errors, code) == (1, [], 0)


def test_a_number_is_an_answer_and_a_line_may_be_long():
  rows = [
    {**GOOD, "answer": 18},
    {**GOOD, "answer": 18.0},
    {**GOOD, "completion": "x" * 3_000_000 + "\n#### 18"},
  ]
  told, errors, code = run(lines(*rows))
  assert ([row["correct"] for row in told], errors, code) == ([True] * 3, [], 0)


def test_countdown():
  rows = [
    {"id": 1, "numbers": [3, 4], "target": 7, "completion": "3 + 4 = 7 yes"},
    {"id": 2, "numbers": [3, 4], "target": 8, "completion": "3 + 4 = 7 yes"},
    {"id": 3, "numbers": [3, "4"], "target": 7, "completion": ""},
    {"id": 4, "numbers": [3, 4], "target": 7.0, "completion": ""},
    {"id": 5, "numbers": [], "target": 7, "completion": ""},
    {"id": 6, "numbers": [3, 10**20], "target": 7, "completion": ""},
  ]
  told, errors, code = run(lines(*rows), "countdown")
  assert [(row["id"], row["correct"], row["parsed"]) for row in told] == [
    (1, True, "3 + 4 = 7"),
    (2, False, "3 + 4 = 7"),
  ]
  assert code == 2 and [error.partition(" wants")[0] for error in errors] == [
    "error: line 3: field 'numbers'", "error: line 4: field 'target'", "error: line 5: field 'numbers'",
    "error: line 6: field 'numbers'",
  ]  # fmt: skip


@pytest.mark.full
def test_gym():
  entry = {"answer": "12", "metadata": {"source_dataset": "basic_arithmetic"}}
  rows = [
    {"id": 1, "dataset": "basic_arithmetic", "entry": entry, "completion": "<answer>12</answer>"},
    {"id": 2, "dataset": "basic_arithmetic", "entry": entry, "completion": "13"},
    {"id": 3, "dataset": "no_such", "entry": entry, "completion": "13"},
    {"id": 4, "dataset": "basic_arithmetic", "entry": [], "completion": "13"},
  ]
  told, errors, code = run(lines(*rows), "gym")
  assert [(row["reward"], row["parsed"]) for row in told] == [(1.0, "12"), (0.0, "13")]
  assert code == 2 and errors == [
    "error: line 3: reasoning-gym has no dataset 'no_such'",
    "error: line 4: field 'entry' wants an object, has a list, []",
  ]


def test_an_answer_comes_before_the_next_question():
  with start() as process:
    for i in range(3):
      process.stdin.write(lines({**GOOD, "id": i}))
      assert json.loads(process.stdout.readline())["id"] == i
    process.stdin.close()
    assert (process.stdout.read(), process.wait(DEADLINE)) == (b"", 0)


@pytest.mark.full
def test_what_nobody_takes_is_not_read():
  row = lines({**GOOD, "completion": "y" * 1000 + "#### 18"})
  count = 3 * WINDOW_LINES
  with start() as process:
    assert process.stdin is not None and process.stdout is not None
    os.set_blocking(process.stdin.fileno(), False)
    left, written, quiet = row * count, 0, time.monotonic()
    while time.monotonic() < quiet + 1.5:
      try:
        sent = os.write(process.stdin.fileno(), left)
        left, written, quiet = left[sent:], written + sent, time.monotonic()
      except BlockingIOError:
        time.sleep(0.01)
    assert WINDOW_LINES * len(row) // 2 < written < (WINDOW_LINES + 1000) * len(row)
    os.set_blocking(process.stdin.fileno(), True)
    told: list[bytes] = []
    taker = threading.Thread(target=lambda: told.extend(process.stdout))
    taker.start()
    while left:
      left = left[os.write(process.stdin.fileno(), left) :]
    process.stdin.close()
    taker.join()
    assert (len(told), process.wait(DEADLINE)) == (count, 0)


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_whole_lines_and_no_process(number):
  with start() as process:
    process.stdin.write(lines(*[{**GOOD, "id": i} for i in range(500)]))
    first = process.stdout.readline()
    workers = below(process.pid)
    assert len(workers) == 3  # the fork server and two workers
    process.send_signal(number)
    rest = process.stdout.read()
    assert process.wait(DEADLINE) == 128 + number
    assert gone(workers)
    told = [json.loads(line)["id"] for line in (first + rest).splitlines()]
    assert told == list(range(len(told))) and (first + rest).endswith(b"\n")
    assert process.stderr.read() == b""
    process.stdin.close()


def test_no_worker_outlives_a_killed_command():
  with start() as process:
    process.stdin.write(lines(GOOD))
    process.stdout.readline()
    workers = below(process.pid)
    process.kill()
    assert len(workers) == 3 and gone(workers)


def test_a_reader_that_goes_away_is_no_fault():
  with start() as process:
    process.stdin.write(lines(GOOD))
    process.stdout.readline()
    process.stdout.close()
    process.stdin.write(lines(GOOD))
    assert process.wait(DEADLINE) == 128 + signal.SIGPIPE
    assert process.stderr.read() == b""
    process.stdin.close()


SUITE = ["#### 18", "#### 17", "The answer is 18.", "18", *["\\boxed{18}"] * 16]


@pytest.mark.full
@pytest.mark.parametrize(
  ("completions", "options", "told"),
  [
    (SUITE[:2], (), ["gsm8k, strict: 2 graded, 50.0% correct, 0.0% unparsable"]),
    (SUITE, (), ["gsm8k, strict: 20 graded, 85.0% correct, 10.0% unparsable"]),
    (SUITE[:5], (), ["gsm8k, strict: 5 graded, 40.0% correct, 40.0% unparsable",
      "warning: 40.0% unparsable is high"]),
    (SUITE, ("--policy", "standard"), ["gsm8k, standard: 20 graded, 95.0% correct, 0.0% unparsable"]),
  ],
)  # fmt: skip
def test_the_share_that_is_unparsable_is_told_and_a_high_one_named(completions, options, told):
  given = lines(*({**GOOD, "id": i, "completion": text} for i, text in enumerate(completions)))
  done = subprocess.run(
    [*COMMAND, "gsm8k", *options], cwd=ROOT, input=given, capture_output=True, timeout=DEADLINE
  )
  shown = done.stderr.decode().splitlines()
  assert len(shown) == len(told) and all(line.startswith(start) for line, start in zip(shown, told))
  assert done.returncode == 0


def test_help_prints_the_table_of_policies(capsys):
  with pytest.raises(SystemExit):
    cli.main(["verify", "--help"])
  shown = "".join(capsys.readouterr().out.split())
  assert completion.__doc__ is not None
  assert all("".join(line.split()) in shown for line in completion.__doc__.splitlines())
  assert all(
    re.search(rf"^  {name} +(?:strict|either) ", completion.__doc__, re.MULTILINE) for name in CATALOG
  )


def test_a_progress_bar_where_asked():
  told, errors, code = run(lines(GOOD, b"x"), "gsm8k", "--progress")
  assert (len(told), code) == (1, 2)
  assert any(error.startswith("error: line 2: is not JSON") for error in errors)
  assert any("1 graded, 100.0% correct" in error for error in errors)


def test_it_starts_without_jax():
  program = (
    "import sys; from o1jax.cli import main; code = main(sys.argv[1:]); print(code, 'jax' in sys.modules)"
  )
  command = [sys.executable, "-c", program, "verify", "--verifier", "gsm8k", "--workers", "1"]
  done = subprocess.run(command, cwd=ROOT, input=b"", capture_output=True, timeout=DEADLINE)
  assert (done.stdout, done.stderr) == (b"0 False\n", b"")


@pytest.mark.parametrize(
  ("arguments", "line"),
  [
    ("", "--verifier: is missing (see o1jax verify --help)"),
    ("--verifier none", f"--verifier: wants one of {', '.join(CATALOG)}, has 'none'"),
    ("--verifier gsm8k --workers -1", "--workers: must not be negative; 0 is one for each core"),
    ("--verifier gsm8k --cpu_limit 0", "--cpu_limit: must lie between 0 and 86400"),
    ("--verifier gsm8k --cpu_limit nan", "--cpu_limit: must lie between 0 and 86400"),
    ("--verifier gsm8k --reading loose", "--reading: is an option of constraints; gsm8k does not read it"),
    ("--verifier code --extractors boxed", "--extractors: is an option of math; code does not read it"),
    ("--verifier math --block first", "--block: is an option of code; math does not read it"),
    ("--verifier gsm8k --policy lax", "--policy: wants one of strict, standard, has 'lax'"),
    ("--verifier math --extractors", "--extractors: is empty"),
    ("--verifier math --allow_unsandboxed_code",
      "--allow_unsandboxed_code: is an option of code; math does not read it"),
    ("--verifier math in.jsonl", "in.jsonl: unexpected argument (see o1jax verify --help)"),
  ],
)  # fmt: skip
def test_a_mistake_in_an_option_is_one_line(capsys, arguments, line):
  assert cli.main(["verify", *arguments.split()]) == 2
  assert capsys.readouterr() == ("", f"error: {line}\n")


def test_every_verifier_of_the_catalog_has_its_fields():
  assert get_args(get_type_hints(VerifyOptions)["verifier"]) == tuple(CATALOG)
  assert all(entry.reads for entry in CATALOG.values())
  assert set(SETTINGS) <= set(get_type_hints(VerifyOptions)) and set(SETTINGS.values()) <= set(CATALOG)


@pytest.mark.parametrize(
  ("verifier", "fields"),
  [
    ("code", {"tests": "assert f(1) == 2"}),
    ("code", {"tests": ["assert f(1) == 2"], "prompt": "def f(x):", "entry_point": None}),
    ("code", {"tests": [{"input": "1", "output": "2"}], "entry_point": "f", "test_setup": "import math"}),
    ("constraints", {"prompt": "p", "instruction_id_list": ["a:b"], "kwargs": [{"n": None}]}),
    ("gym", {"dataset": "d", "entry": {"answer": "1"}}),
    ("countdown", {"numbers": [1], "target": 1, "operations": ["+", "/"]}),
  ],
)
def test_fields_travel(verifier, fields):
  name, problem, completion = parse_line(
    verifier, lines({"id": "x", "completion": "c", "more": 1, **fields})[:-1], 4
  )
  assert (name, completion, problem.id) == ("x", "c", "4")
  assert {**problem.meta, "prompt": problem.prompt} == {"prompt": "", **fields}


@pytest.mark.parametrize(
  ("verifier", "fields", "wrong"),
  [
    ("code", {}, "'tests' is missing"),
    ("code", {"tests": []}, "'tests' wants"),
    ("code", {"tests": [1]}, "'tests' wants"),
    ("code", {"tests": "x", "entry_point": 3}, "'entry_point' wants"),
    (
      "constraints",
      {"prompt": "p", "instruction_id_list": "a", "kwargs": [{}]},
      "'instruction_id_list' wants",
    ),
    ("constraints", {"prompt": "p", "instruction_id_list": ["a"], "kwargs": {}}, "'kwargs' wants"),
    ("constraints", {"instruction_id_list": ["a"], "kwargs": [{}]}, "'prompt' is missing"),
    ("gym", {"dataset": 1, "entry": {}}, "'dataset' wants"),
    ("math", {"answer": None}, "'answer' wants"),
    ("countdown", {"numbers": [1], "target": 1, "operations": ["**"]}, "'operations' wants"),
  ],
)
def test_a_field_of_the_wrong_kind_is_named(verifier, fields, wrong):
  with pytest.raises(LineError, match=wrong):
    parse_line(verifier, lines({"id": 1, "completion": "c", **fields})[:-1], 1)


def test_a_window_takes_lines_and_bytes_or_one_line():
  window = Window(3, 100)
  full: Callable[[int], bool] = window.full
  assert not full(1000) and window.take(1000) and full(1)
  window.release(1000)
  assert [window.take(40), window.take(40), full(40), full(20), window.take(20), full(0)] == [
    True, True, True, False, True, True,
  ]  # fmt: skip
  window.close()
  assert not window.take(1)


def test_lines_are_read_as_they_come():
  source, target = os.pipe()
  stopped, stop = os.pipe()
  reading = read_lines(source, stopped)
  os.write(target, b"one\ntwo\nthr")
  assert next(reading) == [b"one", b"two"]
  os.write(target, b"ee\n\nfour")
  assert next(reading) == [b"three", b""]
  os.close(target)
  assert list(reading) == [[b"four"]]
  os.close(stop)
  assert list(read_lines(source, stopped)) == []
  os.close(source)
  os.close(stopped)


def test_programs_are_graded_in_a_sandbox_that_is_told_of():
  task = {"prompt": "", "entry_point": "f", "tests": ["assert f(2) == 4"]}
  programs = ["def f(n): return n + n", "def f(n):\n  while True: pass", "import os\ndef f(n): os.fork()"]
  rows = [{"id": i, "completion": text, **task} for i, text in enumerate(programs)]
  told, errors, code = run(lines(*rows), "code", "--cpu_limit", "1")
  assert [row["error"] for row in told] == [None, "timeout", "policy"] and code == 0
  assert len(errors) == 1 and errors[0].startswith("code sandbox: user, mount, pid")

"""`o1jax verify` where its streams, its limits or its lines are not what they should be: it grades on, or
says why not.
"""

import json
import os
import pathlib
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from processes import DEADLINE

from o1jax.verify_command.jsonl import MAX_NESTING, LineError, parse_line
from o1jax.verify_command.meter import complain

pytestmark = pytest.mark.full

ROOT = pathlib.Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "o1jax", "verify", "--workers", "2", "--verifier", "gsm8k"]
GOOD = b'{"id": 1, "answer": "18", "completion": "#### 18"}\n'


def run(given: bytes, *options: str, **process: Any) -> tuple[int, int, str]:
  """(exit code, verdicts on standard output, standard error) of the command."""
  streams = {"input": given, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **process}
  done = subprocess.run([*COMMAND, *options], cwd=ROOT, timeout=DEADLINE, **streams)
  told = [json.loads(line) for line in (done.stdout or b"").splitlines()]
  assert all(row["correct"] for row in told)
  return done.returncode, len(told), (done.stderr or b"").decode()


def limited(which: int, value: int) -> Callable[[], None]:
  return lambda: resource.setrlimit(which, (value, value))


def test_complaints_go_nowhere_where_standard_error_is_closed():
  closed = subprocess.run(
    ["sh", "-c", 'exec "$@" 2>&-', "sh", *COMMAND], cwd=ROOT, input=b"x\n" + GOOD, stdout=subprocess.PIPE
  )
  assert closed.returncode == 2
  assert [json.loads(line)["id"] for line in closed.stdout.splitlines()] == [1]
  command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *COMMAND, "--no_such_option"]
  refused = subprocess.run(command, cwd=ROOT, input=b"", stdout=subprocess.PIPE)
  assert (refused.returncode, refused.stdout) == (2, b"")


def test_complaints_that_nobody_takes_stop_nothing():
  read, write = os.pipe()
  os.close(read)
  with open("/dev/full", "wb") as full:
    for stderr in (write, full):
      assert run(b"x\n" + GOOD, stderr=stderr)[:2] == (2, 1)
  os.close(write)


def test_a_complaint_is_one_line(capfd):
  complain("error: line 1: ValueError: a\n  b \ud800")
  assert capfd.readouterr().err == "error: line 1: ValueError: a b \\ud800\n"


def test_input_that_cannot_be_read_is_one_line(tmp_path):
  with open(tmp_path / "written", "wb") as source:
    told = run(b"", input=None, stdin=source)
  assert told == (2, 0, "error: standard input: cannot be read: Bad file descriptor\n")


def test_output_that_cannot_be_written_is_one_line():
  with open("/dev/full", "wb") as full:
    told = run(GOOD, stdout=full)
  assert told == (2, 0, "error: standard output: cannot be written: No space left on device\n")


def test_output_that_does_not_wait_is_written_whole():
  count, (read, write) = 3000, os.pipe()
  os.set_blocking(write, False)
  with subprocess.Popen(
    COMMAND, cwd=ROOT, stdin=subprocess.PIPE, stdout=write, stderr=subprocess.PIPE
  ) as process:
    os.close(write)
    assert process.stdin is not None and process.stderr is not None
    process.stdin.write(GOOD * 1000)
    process.stdin.flush()
    with open(read, "rb") as source:
      first = source.readline()
      process.stdin.write(GOOD * (count - 1000))
      process.stdin.close()
      told = [first, *source]
    errors = process.stderr.read()
    assert (len(told), errors.count(b"\n"), process.wait(DEADLINE)) == (count, 1, 0)
    assert errors.startswith(b"gsm8k, strict: 3,000 graded, 100.0% correct")


def test_a_lower_limit_of_address_space_is_kept_to():
  assert run(GOOD, preexec_fn=limited(resource.RLIMIT_AS, 3 << 30))[:2] == (0, 1)


def test_a_process_that_cannot_be_started_is_one_line():
  code, graded, told = run(GOOD, preexec_fn=limited(resource.RLIMIT_NOFILE, 8))
  assert (code, graded) == (2, 0)
  assert told.startswith("error: nothing more can be graded: ") and told.count("\n") == 1


def test_programs_are_run_with_few_open_files():
  row = {"id": 1, "tests": ["assert f(1) == 1"], "completion": "def f(x): return x"}
  few = limited(resource.RLIMIT_NOFILE, 64)
  code, graded, _ = run(json.dumps(row).encode(), "--verifier", "code", "--workers", "1", preexec_fn=few)
  assert (code, graded) == (0, 1)


def nested(depth: int) -> bytes:
  return b"[" * depth + b"]" * depth


@pytest.mark.parametrize("depth", [MAX_NESTING + 1, 500, 900])
def test_what_is_nested_too_deep_is_a_fault_of_its_line(depth):
  """Deeper than 100 and not as deep as the parser goes: pickling, or writing the id, gives up before."""
  entry = b'{"id": 1, "completion": "", "dataset": "d", "entry": {"x": ' + nested(depth) + b"}}"
  name = b'{"answer": "18", "completion": "#### 18", "id": ' + nested(depth) + b"}"
  for verifier, text in (("gym", entry), ("gsm8k", name)):
    with pytest.raises(LineError, match="is nested too deep"):
      parse_line(verifier, text, 1)


def test_brackets_in_texts_and_side_by_side_are_not_nested():
  text = b'{"id": [[' + b"[]," * 500 + b'[]]], "answer": "18", "completion": "' + b"[{" * 500 + b'"}'
  assert parse_line("gsm8k", text, 1)[2] == "[{" * 500


@pytest.mark.parametrize(
  ("given", "answer"),
  [
    ("0.00001", "0.00001"), ("1e-7", "0.0000001"), ("1e16", "10000000000000000"), ("18.50", "18.5"),
    ("18.0", "18.0"),
    ("-0.5", "-0.5"), ("18", "18"), (str(10**30), str(10**30)), ('"1e-7"', "1e-7"),
  ],
)  # fmt: skip
def test_an_answer_that_is_a_number_is_digits(given, answer):
  text = f'{{"id": 1, "completion": "", "answer": {given}}}'.encode()
  assert parse_line("gsm8k", text, 1)[1].answer == answer

"""What a command shows is a luxury: streams that fail, or lack a letter, stop nothing."""

import os
import subprocess
import sys

import pytest

SHOWING = """
import os, subprocess, sys
from o1jax.io.screen import lasting_screen
with lasting_screen(results={results}):
  print("ü → 1", flush=True)
  print("and to the end" * 1000)
  sys.stderr.write("so does stderr\\n")
  subprocess.run(["echo", "a child too"])
  sys.stdout.flush()
with open(os.environ["DONE"], "w") as file:
  file.write("done")
"""


def shown(tmp_path, stdout, results=False, **environment: str) -> tuple[int, str, bool]:
  """(exit code, standard error, whether it came to its end) of a process that shows something on `stdout`."""
  env = {**os.environ, **environment, "DONE": str(tmp_path / "done")}
  command = [sys.executable, "-c", SHOWING.format(results=results)]
  ended = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, env=env, text=True, errors="replace")
  return ended.returncode, ended.stderr, (tmp_path / "done").exists()


def test_what_a_stream_cannot_spell_is_escaped(tmp_path) -> None:
  with open(tmp_path / "out", "w") as file:
    assert shown(tmp_path, file, PYTHONIOENCODING="ascii") == (0, "so does stderr\n", True)
  lines = (tmp_path / "out").read_text().splitlines()
  assert lines[0] == r"\xfc \u2192 1" and lines[1] == "and to the end" * 1000 and lines[2] == "a child too"


@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_pipe_whose_reader_has_gone_is_dropped(tmp_path, buffered) -> None:
  reader, writer = os.pipe()
  os.close(reader)
  assert shown(tmp_path, writer, PYTHONUNBUFFERED=buffered) == (0, "so does stderr\n", True)
  os.close(writer)


def test_a_terminal_that_was_closed_is_dropped(tmp_path) -> None:
  ours, theirs = os.openpty()
  os.close(ours)
  assert shown(tmp_path, theirs) == (0, "so does stderr\n", True)
  os.close(theirs)


def test_a_full_disk_is_an_error_where_what_is_shown_is_the_result(tmp_path) -> None:
  with open("/dev/full", "w") as full:
    assert shown(tmp_path, full) == (0, "so does stderr\n", True)
    (tmp_path / "done").unlink()
    code, error, ended = shown(tmp_path, full, results=True)
    assert code == 1 and not ended and error.splitlines()[-1] == "OSError: [Errno 28] No space left on device"


def test_a_closed_standard_output_lends_its_number_to_no_file(tmp_path) -> None:
  command = [sys.executable, "-c", SHOWING.format(results=False)]
  quoted = " ".join(f"'{word}'" for word in (sys.executable, "-c")) + ' "$SCRIPT" >&-'
  env = {**os.environ, "DONE": str(tmp_path / "done"), "SCRIPT": command[-1]}
  ended = subprocess.run(["sh", "-c", quoted], env=env, stderr=subprocess.PIPE, text=True)
  assert (ended.returncode, ended.stderr) == (0, "so does stderr\n")
  assert (tmp_path / "done").read_text() == "done"

"""A folder is one process's at a time, and what gets to no step leaves none."""

import errno
import fcntl
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from o1jax.config import ConfigError
from o1jax.io.run_folder import LOCK, locked, new_run

IN_USE = """
import pathlib, sys
from o1jax.io.run_folder import locked
with locked(pathlib.Path(sys.argv[1])):
  print("locked", flush=True)
  sys.stdin.read()
"""


@pytest.mark.full
@pytest.mark.parametrize("killed", [True, False])
def test_a_folder_that_another_process_uses_is_refused_until_that_has_ended(tmp_path, killed) -> None:
  """Killed, it leaves its mark, and no lock."""
  command = [sys.executable, "-c", IN_USE, str(tmp_path)]
  with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
    assert user.stdout is not None and user.stdout.readline() == b"locked\n"
    with pytest.raises(ConfigError) as error, locked(tmp_path):
      raise AssertionError
    line = f"{tmp_path}: is in use by process {user.pid} on {socket.gethostname()}: wait for it or stop it, "
    assert str(error.value) == line + "or take another name"
    if killed:
      user.kill()
  assert (tmp_path / LOCK).exists() == killed
  with locked(tmp_path):
    pass
  assert list(tmp_path.iterdir()) == []


def test_a_process_has_a_folder_once(tmp_path) -> None:
  with locked(tmp_path / "a" / "b"):
    with (
      pytest.raises(ConfigError, match=f"b: is in use by process {os.getpid()}"),
      locked(tmp_path / "a" / "b"),
    ):
      raise AssertionError
    assert (tmp_path / "a" / "b" / LOCK).exists()
  assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, capsys) -> None:
  def refuse(*args: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")

  monkeypatch.setattr(fcntl, "lockf", refuse)
  with locked(tmp_path):
    assert (
      capsys.readouterr().err == f"{tmp_path}: its file system has no locks: start no second process there\n"
    )


@pytest.mark.parametrize("error", [ConfigError, OSError, RuntimeError, KeyboardInterrupt])
def test_what_ends_before_its_first_step_is_taken_back(tmp_path, error) -> None:
  folder = tmp_path / "run"
  with pytest.raises(error), locked(folder), new_run(folder):
    (folder / "config.json").write_text("{}")
    raise error
  assert list(tmp_path.iterdir()) == []


def test_a_run_that_has_made_a_step_stays(tmp_path: pathlib.Path) -> None:
  with pytest.raises(RuntimeError), locked(tmp_path), new_run(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    raise RuntimeError
  assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]

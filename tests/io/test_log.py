"""Run logs: valid JSON, whole lines, resume without stale points, a full disk in one line, the progress
display."""

import io
import json
import math
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from o1jax.config import ConfigError
from o1jax.io import log
from o1jax.io.log import (
  CLOCK_METRICS,
  RunLog,
  environment,
  progress,
  read_lines,
  read_metrics,
  write_json,
)


def read_events(folder: pathlib.Path) -> list[Event]:
  """Every event of the one event file, its checksums verified."""
  (path,) = folder.glob("*tfevents*")
  data, events = path.read_bytes(), []
  while data:
    (length,) = struct.unpack("<Q", data[:8])
    assert struct.unpack("<I", data[8:12])[0] == masked_crc32c(data[:8])
    body, data = data[12 : 12 + length], data[12 + length :]
    assert struct.unpack("<I", data[:4])[0] == masked_crc32c(body)
    events.append(Event.FromString(body))
    data = data[4:]
  assert events[0].file_version == "brain.Event:2"
  return events[1:]


def points(folder: pathlib.Path) -> list[tuple[int, str, float]]:
  return [
    (event.step, value.tag, value.simple_value)
    for event in read_events(folder)
    for value in event.summary.value
  ]


def without_clock(lines: list[dict]) -> list[dict]:
  return [{k: v for k, v in line.items() if k not in CLOCK_METRICS} for line in lines]


def one_line(error: pytest.ExceptionInfo) -> str:
  assert "\n" not in str(error.value)
  return str(error.value)


def strict(text: str):
  def refuse(constant: str):
    raise AssertionError(f"{constant} is not JSON")

  return json.loads(text, parse_constant=refuse)


def run_steps(run: RunLog, first: int, last: int, offset: float = 0.0) -> None:
  for step in range(first, last + 1):
    run.metrics(step, "rl", {"reward": step / 8 + offset, "step_time": 0.1 * step})
    run.rollouts(step, "rl", [{"prompt": f"p{step}", "reward": offset}, {"prompt": "▁π", "reward": 1.0}])


def test_lines_and_events_are_readable_while_the_run_goes_on(tmp_path):
  with RunLog(tmp_path / "run", resume_step=None) as run:
    run.metrics(1, "sft", {"loss": 0.1, "grad_norm": 2})
    run.rollouts(1, "sft", [{"prompt": "1 + 2", "verdict": {"reward": 1.0}}, {"prompt": "3"}])
    (line,) = [strict(text) for text in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert line.pop("time") > 1.6e9
    assert line == {"step": 1, "stage": "sft", "loss": 0.1, "grad_norm": 2.0}
    expected = [(1, "sft/loss", struct.unpack("f", struct.pack("f", 0.1))[0]), (1, "sft/grad_norm", 2.0)]
    assert points(tmp_path / "run") == expected
    rows = read_lines(tmp_path / "run" / "rollouts.jsonl")
    assert rows[0] == {"step": 1, "stage": "sft", "prompt": "1 + 2", "verdict": {"reward": 1.0}}
    assert rows[1] == {"step": 1, "stage": "sft", "prompt": "3"}
  run.close()


def test_numbers_that_json_lacks(tmp_path):
  values = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 5e-324}
  with RunLog(tmp_path, resume_step=None) as run:
    run.metrics(1, "rl", values)
    run.rollouts(1, "rl", [{"completion": "NaN", "logp": [math.nan, 0.5]}])
  line = strict((tmp_path / "metrics.jsonl").read_text())
  assert [line[name] for name in "abcd"] == ["NaN", "Infinity", "-Infinity", 5e-324]
  read = read_metrics(tmp_path / "metrics.jsonl")[0]
  assert math.isnan(read["a"]) and [read[name] for name in "bcd"] == [math.inf, -math.inf, 5e-324]
  assert strict((tmp_path / "rollouts.jsonl").read_text())["logp"] == ["NaN", 0.5]
  assert math.isnan(points(tmp_path)[0][2]) and points(tmp_path)[1][2] == math.inf
  with RunLog(tmp_path, resume_step=1):
    assert strict((tmp_path / "metrics.jsonl").read_text()) == line
    assert math.isnan(points(tmp_path)[0][2]) and points(tmp_path)[1][2] == math.inf


def test_a_metric_may_not_take_a_field_of_the_line(tmp_path):
  with RunLog(tmp_path, resume_step=None) as run, pytest.raises(ValueError, match="'time'"):
    run.metrics(1, "rl", {"time": 1.0})


def test_a_fresh_run_never_writes_over_another(tmp_path):
  with RunLog(tmp_path, resume_step=None) as run:
    run_steps(run, 1, 2)
  before = (tmp_path / "metrics.jsonl").read_bytes()
  with pytest.raises(ConfigError) as error:
    RunLog(tmp_path, resume_step=None)
  assert one_line(error).startswith(f"{tmp_path}: holds a run already") and "--resume" in one_line(error)
  assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_resume_equals_the_run_that_never_stopped(tmp_path):
  complete, resumed = tmp_path / "complete", tmp_path / "resumed"
  with RunLog(complete, resume_step=None) as run:
    run_steps(run, 1, 9)
  with RunLog(resumed, resume_step=None) as run:
    run_steps(run, 1, 4)
    run_steps(run, 5, 7, offset=100.0)  # what the checkpoint of step 4 knows nothing of
  (stale,) = resumed.glob("*tfevents*")
  stale.rename(
    resumed / "events.out.tfevents.0000000001.elsewhere"
  )  # as if begun at another time, on another machine
  with RunLog(resumed, resume_step=4) as run:
    assert [line["step"] for line in read_metrics(resumed / "metrics.jsonl")] == [1, 2, 3, 4]
    assert [step for step, _, _ in points(resumed)] == [1, 1, 2, 2, 3, 3, 4, 4]
    run_steps(run, 5, 9)
  assert (resumed / "rollouts.jsonl").read_bytes() == (complete / "rollouts.jsonl").read_bytes()
  assert without_clock(read_metrics(resumed / "metrics.jsonl")) == without_clock(
    read_metrics(complete / "metrics.jsonl")
  )
  assert points(resumed) == points(complete)
  times = [line["time"] for line in read_metrics(resumed / "metrics.jsonl")]
  assert [event.wall_time for event in read_events(resumed)] == times
  assert not list(resumed.glob(".*")), "temporary files are left"


@pytest.mark.parametrize("tear", [b'{"step": 3, "stage": "rl", "rew', b"\xff\xfe", b'{"step": 3'])
def test_a_torn_last_line_is_dropped(tmp_path, tear):
  with RunLog(tmp_path, resume_step=None) as run:
    run_steps(run, 1, 2)
  before = {name: (tmp_path / name).read_bytes() for name in ("metrics.jsonl", "rollouts.jsonl")}
  (event_file,) = tmp_path.glob("*tfevents*")
  for path in (*(tmp_path / name for name in before), event_file):
    with open(path, "ab") as file:
      file.write(tear)
  assert len(read_metrics(tmp_path / "metrics.jsonl")) == 2
  with RunLog(tmp_path, resume_step=2):
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert [step for step, _, _ in points(tmp_path)] == [1, 1, 2, 2]


def test_damage_elsewhere_is_named_by_row_and_changes_nothing(tmp_path):
  with RunLog(tmp_path, resume_step=None) as run:
    run_steps(run, 1, 3)
  path = tmp_path / "metrics.jsonl"
  lines = path.read_bytes().splitlines(keepends=True)
  for broken in (b'{"step": 2,\n', b"[2]\n", b'{"reward": 1.0}\n'):
    damaged = b"".join([lines[0], broken, lines[2]])
    path.write_bytes(damaged)
    with pytest.raises(ConfigError) as error:
      RunLog(tmp_path, resume_step=3)
    assert one_line(error) == f"{path}: row 2 is not a JSON object with a step"
    assert path.read_bytes() == damaged


def test_there_must_be_a_run_to_resume(tmp_path):
  with pytest.raises(ConfigError) as error:
    RunLog(tmp_path, resume_step=5)
  assert one_line(error) == f"{tmp_path / 'metrics.jsonl'}: is missing: no run to resume at step 5"
  with RunLog(tmp_path, resume_step=0) as run:  # killed before anything was written
    run_steps(run, 1, 1)
  assert points(tmp_path) == [(1, "rl/reward", 0.125), (1, "rl/step_time", pytest.approx(0.1))]


def test_kill_loses_no_line(tmp_path):
  """What `metrics` returned from is there after kill -9, in the file and in the events."""
  script = (
    "import os, signal, sys\n"
    "from o1jax.io.log import RunLog\n"
    "run = RunLog(sys.argv[1], resume_step=None)\n"
    "for step in range(1, 51):\n"
    "  run.metrics(step, 'rl', {'reward': float(step)})\n"
    "os.kill(os.getpid(), signal.SIGKILL)\n"
  )
  root = pathlib.Path(log.__file__).parents[2]
  done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=root, timeout=60)
  assert done.returncode == -signal.SIGKILL
  assert [line["reward"] for line in read_metrics(tmp_path / "metrics.jsonl")] == list(range(1, 51))
  assert [step for step, _, _ in points(tmp_path)] == list(range(1, 51))


# a full disk


def fill(disk: pathlib.Path) -> pathlib.Path:
  filler = disk / "filler"
  filler.write_bytes(bytes(shutil.disk_usage(disk).free))
  return filler


@pytest.mark.parametrize("small_disk", ["256k"], indirect=True)
def test_a_full_disk_leaves_whole_lines_and_says_which_file(small_disk):
  folder = small_disk / "run"
  with RunLog(folder, resume_step=None) as run:
    run_steps(run, 1, 2)
    write_json(folder / "summary.json", {"a": 1})
    filler = fill(small_disk)
    with pytest.raises(ConfigError) as error:
      for step in range(3, 200):
        run.metrics(step, "rl", {"reward": 0.0})
    assert one_line(error).endswith("cannot be written: No space left on device")
    assert one_line(error).startswith(str(folder))
    with pytest.raises(ConfigError) as error:
      run.rollouts(3, "rl", [{"completion": "x" * 100_000}])
    assert one_line(error) == f"{folder / 'rollouts.jsonl'}: cannot be written: No space left on device"
    with pytest.raises(ConfigError) as error:
      write_json(folder / "summary.json", {"a": "x" * 100_000})
    assert one_line(error) == f"{folder / 'summary.json'}: cannot be written: No space left on device"
    with pytest.raises(ConfigError, match=r"metrics.jsonl: cannot be written: No space left on device"):
      RunLog(folder, resume_step=2)
    filler.unlink()
    run.rollouts(3, "rl", [{"completion": "short"}])
  for name in ("metrics.jsonl", "rollouts.jsonl"):
    for text in (folder / name).read_text().splitlines():
      strict(text)
  assert [row["step"] for row in read_lines(folder / "rollouts.jsonl")] == [1, 1, 2, 2, 3]
  assert json.loads((folder / "summary.json").read_text()) == {"a": 1}
  assert [step for step, _, _ in points(folder)][:4] == [1, 1, 2, 2]  # and each of its records is whole
  assert not list(folder.glob(".*"))


# config.json, progress


def test_write_json_replaces_whole_files(tmp_path):
  path = tmp_path / "summary.json"
  write_json(path, {"pass@1": 0.5, "bad": math.nan, "list": (1, math.inf)})
  assert strict(path.read_text()) == {"pass@1": 0.5, "bad": "NaN", "list": [1, "Infinity"]}
  with pytest.raises(TypeError):
    write_json(path, {"pass@1": object()})
  assert strict(path.read_text())["pass@1"] == 0.5
  assert os.listdir(tmp_path) == ["summary.json"]
  with pytest.raises(ConfigError) as error:
    write_json(tmp_path / "nowhere" / "x.json", {})
  assert one_line(error) == f"{tmp_path / 'nowhere' / 'x.json'}: cannot be written: No such file or directory"


def test_environment_is_plain_json():
  described = environment()
  assert strict(json.dumps(described)) == described
  assert described["device"]["platform"] == "cpu" and described["device"]["count"] >= 1
  assert set(described["packages"]) == {
    "o1jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
  }
  assert described["python"].startswith("3.")


def test_git_state(tmp_path):
  if shutil.which("git") is None:
    pytest.skip("needs git")
  assert log._git(tmp_path) is None

  def git(*words: str) -> str:
    identity = ["-c", "user.name=o", "-c", "user.email=o@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
      ["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()

  git("init", "-q")
  git("commit", "-q", "--allow-empty", "-m", "first")
  assert log._git(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
  (tmp_path / "new.py").write_text("x = 1\n")
  assert log._git(tmp_path)["dirty"] is True


def test_progress_is_plain_lines_off_a_terminal(capsys):
  with progress(25, "rl", enabled=True) as update:
    for step in range(1, 26):
      update(step, {"reward": step / 100, "tokens/s": 12345.6, **({"accuracy": 0.625} if step == 12 else {})})
  assert capsys.readouterr().out.splitlines() == [
    "rl 10/25  reward 0.100  tokens/s 12,346",
    "rl 20/25  reward 0.200  accuracy 62.5%  tokens/s 12,346",
    "rl 25/25  reward 0.250  accuracy 62.5%  tokens/s 12,346",
  ]


class Terminal(io.StringIO):
  def isatty(self) -> bool:
    return True


@pytest.mark.parametrize("enabled, bar", [(True, True), (False, False)])
def test_progress_on_a_terminal(monkeypatch, enabled, bar):
  monkeypatch.setenv("TERM", "xterm")
  monkeypatch.setenv("COLUMNS", "140")
  monkeypatch.setattr(sys, "stdout", terminal := Terminal())
  with progress(2, "rl", enabled=enabled) as update:
    update(1, {"reward": 0.5, "length": 31.26})
    update(2, {"reward": 0.75})
  text = terminal.getvalue()
  assert ("\x1b[" in text) == bar
  assert "reward 0.750  length 31.3" in text and "2/2" in text


def test_progress_shows_known_fields_alone():
  with progress(2, "rl", enabled=False) as update, pytest.raises(KeyError, match="rewrd"):
    update(1, {"rewrd": 1.0})

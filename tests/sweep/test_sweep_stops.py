"""A sweep that a signal stops, or that kill -9 ends between a log and its checkpoint, goes on bitwise; another one does not."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest

from o1jax import train as train_module
from o1jax.cli import main
from o1jax.config import ConfigError
from o1jax.dist.hosts import EXIT_PREEMPTED
from o1jax.io.checkpoint import latest_step
from o1jax.sweep.folder import read_layouts

# An experiment is Python, so that the real command can be made to meet its fate. It has as many devices as this process.
SIGTERM = """
import os, signal, jax
from o1jax.sweep import device
jax.devices()
calls, advance = [], device.Fleet.advance

def stopping(*args):
  calls.append(args)
  if len(calls) == 2:  # the first measures
    os.kill(os.getpid(), signal.SIGTERM)
  return advance(*args)

device.Fleet.advance = stopping
"""

KILL = """
import os, signal, jax
from o1jax.io.checkpoint import Checkpoints
jax.devices()
save = Checkpoints.save

def dying(self, step, *rest):
  if step == 64:
    self.wait()
    os.kill(os.getpid(), signal.SIGKILL)
  return save(self, step, *rest)

Checkpoints.save = dying
"""

COLD = """
import os, signal, jax
from o1jax.sweep import cold
jax.devices()
step_of = cold.sft_step

def stopping(setup, stage, state, step, cursor):
  if (setup.config.seed, step) == (1, 20):
    os.kill(os.getpid(), signal.SIGTERM)
  return step_of(setup, stage, state, step, cursor)

cold.sft_step = stopping
"""
FATES = {
  "SIGTERM in the first chunk": (SIGTERM, EXIT_PREEMPTED, "SIGTERM: saved step 62 of 4 members; go on with --resume", 62),
  "kill -9 between log and checkpoint": (KILL, -9, "block0-0 4/4", 62),
  "SIGTERM in a cold start": (COLD, EXIT_PREEMPTED, "SIGTERM: saved step 20 of the cold start, seed 1", None),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory, experiment):
  """A sweep that nothing stops."""
  folder = tmp_path_factory.mktemp("whole")
  assert main(["sweep", experiment(folder)]) == 0
  return folder / "runs" / "tiny"


@pytest.mark.parametrize("kind", FATES)
def test_a_sweep_that_was_ended_goes_on_bitwise(
  whole, tmp_path, experiment, logged, found, capsys, kind
) -> None:
  fate, code, told, saved = FATES[kind]
  command = [sys.executable, "-m", "o1jax", "sweep", experiment(tmp_path, more=fate)]
  root = pathlib.Path(train_module.__file__).parents[1]
  ended = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=240)
  assert ended.returncode == code, ended.stderr
  assert told in " ".join(ended.stdout.split()) and ended.stderr == ""
  folder = tmp_path / "runs" / "tiny"
  assert latest_step(folder / "checkpoints" / "block0-0") == saved
  assert main(["sweep", experiment(tmp_path), "--resume"]) == 0
  assert ("layout, as before: lax.map" in capsys.readouterr().out) == (saved is not None)
  assert logged(folder) == logged(whole)
  assert found(folder) == found(whole)


@pytest.fixture
def copied(whole, tmp_path, experiment):
  """A finished sweep of which a test may do what it likes; its experiment lies two folders above."""
  shutil.copytree(whole.parent, tmp_path / "runs")
  experiment(tmp_path)
  return tmp_path / "runs" / "tiny"


def test_a_finished_sweep_is_read_again_and_changes_no_line(
  whole, copied, logged, found, monkeypatch
) -> None:
  monkeypatch.setattr("o1jax.sweep.run.cold_starts", lambda *args: pytest.fail("nothing is left to run"))
  assert main(["sweep", str(copied.parents[1] / "experiment.py"), "--resume"]) == 0
  assert logged(copied) == logged(whole) and found(copied) == found(whole)


def test_final_tests_that_were_cut_off_are_made_again(whole, copied, logged, found) -> None:
  (copied / "results.json").unlink()
  (copied / "strong-seed1" / "final.json").unlink()
  assert main(["sweep", str(copied.parents[1] / "experiment.py"), "--resume"]) == 0
  assert logged(copied) == logged(whole) and found(copied) == found(whole)


def with_changed(path: pathlib.Path, **fields) -> None:
  path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


# Options; a change of the folder before; what the line says.
REFUSED = [
  ("", None, "{run}: holds a run already: give it another name, or pass --resume"),
  ("--resume --seeds 0 2", None, "{run}: was started with other `seeds`"),
  ("--resume --rl.optim.lr 0.1", None, "{run}: was started with another `rl.optim.lr`"),
  ("--resume --diagnostics.every 4", None, "{run}: was started with another `diagnostics.every`"),
  ("--resume --chunk 1", None, "{run}: was started with other `chunk`"),
  ("--resume --vmapped 2", None, "{run}: was started with other `vmapped`"),
  ("--resume --name other", None, "{out}/other: holds no sweep to resume"),
  ("--resume", lambda run: with_changed(run / "sweep.json", arms=[]), "{run}: was started with other `arms`"),
  ("--resume", lambda run: with_changed(run / "sweep.json", base={}), "{run}/sweep.json: base: name: is missing"),
  ("--resume", lambda run: (run / "sweep.json").write_text("{"), "{run}/sweep.json: cannot be read as JSON"),
  ("--resume", lambda run: (run / "layouts.json").write_text('{"0": {"size": 4}}'), "{run}/layouts.json: is not a sweep's"),
  ("--resume", lambda run: (run / "layouts.json").write_text('{"0": {"devices": 99, "vmapped": 1, "size": 4}}'),
   "devices: the sweep was begun on 99, and here are only 8"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "change", "line"), REFUSED)
def test_another_sweep_does_not_go_on_in_a_folder(copied, capsys, options, change, line) -> None:
  if change is not None:
    change(copied)
  before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
  assert main(["sweep", str(copied.parents[1] / "experiment.py"), *options.split()]) == 2
  err = capsys.readouterr().err
  assert err.startswith("error: " + line.format(run=copied, out=copied.parent)) and err.count("\n") == 1
  assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before


def test_a_run_does_not_start_in_a_sweeps_folder(copied, capsys) -> None:
  assert main(["train", str(copied.parents[1] / "experiment.py")]) == 2
  assert capsys.readouterr().err.startswith(f"error: {copied}: holds a run already")


def test_other_data_behind_the_same_options_are_refused(copied, capsys) -> None:
  (copied / "strong-seed1" / "final.json").unlink()
  path = copied / "weak-seed0" / "config.json"
  saved = json.loads(path.read_text())
  path.write_text(json.dumps({**saved, "meta": {**saved["meta"], "data_hash": "of other problems"}}))
  assert main(["sweep", str(copied.parents[1] / "experiment.py"), "--resume"]) == 2
  assert "config.json: has the data_hash of other problems" in capsys.readouterr().err


def test_layouts_of_a_folder_without_any_are_none(tmp_path) -> None:
  assert read_layouts(tmp_path) == {}
  (tmp_path / "layouts.json").write_text("[]")
  with pytest.raises(ConfigError, match="must hold one JSON object"):
    read_layouts(tmp_path)

"""A sweep that a signal stops, or that kill -9 ends between a log and its checkpoint, goes on bitwise; another one does not."""

import json
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

from o1jax import train as train_module
from o1jax.cli import main
from o1jax.config import ConfigError
from o1jax.io.checkpoint import latest_step
from o1jax.parallel.hosts import EXIT_PREEMPTED
from o1jax.sweep import cold
from o1jax.sweep.folder import read_layouts

pytestmark = pytest.mark.full

# An experiment is Python, so that the real command can be made to meet its fate. It has as many devices as this process.
SIGTERM = """
import os, signal, jax
from o1jax.sweep import population
jax.devices()
calls, advance = [], population.Population.advance

def stopping(*args):
  calls.append(args)
  if len(calls) == 2:  # the first measures
    os.kill(os.getpid(), signal.SIGTERM)
  return advance(*args)

population.Population.advance = stopping
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


def ended(path: str, *options: str) -> subprocess.CompletedProcess:
  """`o1jax sweep` in a process of its own, with the settings of this one."""
  command = [sys.executable, "-m", "o1jax", "sweep", path, *options]
  root = pathlib.Path(train_module.__file__).parents[1]
  return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=240)


def stopped_in_the_cold_start(path: str, monkeypatch, capsys) -> None:
  step_of = cold.sft_step

  def stopping(setup, stage, state, step, cursor):
    if (setup.config.seed, step) == (1, 20):
      signal.raise_signal(signal.SIGTERM)
    return step_of(setup, stage, state, step, cursor)

  with monkeypatch.context() as patch:
    patch.setattr(cold, "sft_step", stopping)
    assert main(["sweep", path]) == EXIT_PREEMPTED
  told = "SIGTERM: saved step 20 of the cold start, seed 1; go on with --resume"
  assert told in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_a_sweep_that_is_ended_again_and_again_goes_on_bitwise(
  whole, tmp_path, experiment, logged, found, monkeypatch, capsys
) -> None:
  folder = tmp_path / "runs" / "tiny"
  stopped_in_the_cold_start(experiment(tmp_path), monkeypatch, capsys)

  stopped = ended(experiment(tmp_path, more=SIGTERM), "--resume")
  assert (stopped.returncode, stopped.stderr) == (EXIT_PREEMPTED, "")
  assert "SIGTERM: saved step 62 of 4 members; go on with --resume" in " ".join(stopped.stdout.split())
  assert latest_step(folder / "checkpoints" / "block0-0") == 62

  killed = ended(experiment(tmp_path, more=KILL), "--resume")
  assert (killed.returncode, killed.stderr) == (-9, "")
  assert "layout, as before: lax.map" in killed.stdout
  assert [row["step"] for row in logged(folder)["weak-seed0"]] == [61, 62, 63, 64]
  assert latest_step(folder / "checkpoints" / "block0-0") == 62

  assert main(["sweep", experiment(tmp_path), "--resume"]) == 0
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
  assert main(["train", str(copied.parents[1] / "experiment.py"), "--rl.prompts", "8"]) == 2
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

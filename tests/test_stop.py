"""Real processes: a run that SIGTERM stops, or that kill -9 ends in the midst of a save, goes on bitwise."""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from o1jax import evaluate as ev
from o1jax import train as train_module
from o1jax.cli import main
from o1jax.dist.hosts import EXIT_PREEMPTED
from o1jax.io.checkpoint import TEMPORARY, Checkpoints, latest_step
from o1jax.io.log import CLOCK_METRICS, read_lines, read_metrics
from o1jax.io.run_config import read_run_config
from o1jax.rl.stages import rl_stage

EXPERIMENT = """
from o1jax.config import *

def get_config():
  return TrainConfig(
    name="run", out={out!r}, model=ModelConfig(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=32),
    task=CountdownConfig(count=2, max_number=6, max_value=12, held_out=16, max_tries=2),
    sft=SftConfig(steps=3, rows=8, length=48),
    rl=RLConfig(
      steps=4, prompts=8, samples=2, max_prompt=5, max_tokens=16, epochs=2,
      loss=LossConfig("reinforce", logp_old="learner"), importance=ImportanceConfig(2.0),
      kl=KLConfig(coef=0.1, reference="ema", ema=0.5, target=0.01, horizon=32), entropy_target=1.0, entropy_rate=0.01,
      l2_init=0.1, cov=CovConfig("clip_cov", fraction=0.1, low=-9.0, high=9.0), overlong=OverlongConfig(buffer=8),
    ),
    eval=EvalConfig(problems=8, final_problems=8, samples=2, batch=8, max_tokens=16, bootstrap=50),
    diagnostics=DiagnosticsConfig(every=0), checkpoint=CheckpointConfig(every=2), log=LogConfig(rollouts_every=2, progress=False),
  )
"""

# What XLA says of a program on 8 devices when it compiles it, and does not when the cache has it.
XLA_LOG = re.compile(r"[IW]\d{4} [\d:.]+ +\d+ \w+\.cc:\d+\] ")

# An experiment is Python, so that the real command can be made to meet its fate at a given step.
SIGTERM = """
import os, signal
from o1jax import train
rl_step = train.rl_step

def stopping(*args, **given):
  if args[3] == 5:
    os.kill(os.getpid(), signal.SIGTERM)
  return rl_step(*args, **given)

train.rl_step = stopping
"""

# Step 6 is killed when all its files are written, and only the last rename is missing.
KILL = """
import os, signal
from o1jax.io.checkpoint import Checkpoints
from orbax.checkpoint._src.path import atomicity
save, rename, paths = Checkpoints.save, atomicity.async_path.rename, []

async def dying(*args):
  paths.append(args)
  if len(paths) == 4:
    os.kill(os.getpid(), signal.SIGKILL)
  return await rename(*args)

def armed(self, step, *rest):
  self.wait()
  if step == 6:
    atomicity.async_path.rename = dying
  return save(self, step, *rest)

Checkpoints.save = armed
"""


def experiment(folder: pathlib.Path, fate: str = "") -> str:
  """An experiment file whose run is `folder`/run."""
  path = folder / "experiment.py"
  path.write_text(EXPERIMENT.format(out=str(folder)) + fate)
  return str(path)


def ended_by(folder: pathlib.Path, fate: str) -> subprocess.CompletedProcess:
  """`o1jax train` in a process of its own, with the settings of this one."""
  command = [sys.executable, "-m", "o1jax", "train", experiment(folder, fate)]
  root = pathlib.Path(train_module.__file__).parents[1]
  return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=240)


def made(run: pathlib.Path) -> tuple[list[dict], list[dict], dict]:
  """Metrics without those of the clock, rollouts, and figures of the end."""
  rows = [
    {k: v for k, v in row.items() if k not in CLOCK_METRICS} for row in read_metrics(run / "metrics.jsonl")
  ]
  final = json.loads((run / "summary.json").read_text())["final"]
  return rows, read_lines(run / "rollouts.jsonl"), {k: v for k, v in final.items() if k != "seconds"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """A run that nothing stops."""
  folder = tmp_path_factory.mktemp("whole")
  assert main(["train", experiment(folder)]) == 0
  return folder / "run"


@pytest.mark.parametrize(("fate", "code", "saved"), [(SIGTERM, EXIT_PREEMPTED, 5), (KILL, -9, 4)])
def test_a_run_that_was_ended_goes_on_bitwise(whole, tmp_path, fate, code, saved) -> None:
  ended, run = ended_by(tmp_path, fate), tmp_path / "run"
  assert ended.returncode == code, ended.stderr
  assert latest_step(run / "checkpoints") == saved
  if code == EXIT_PREEMPTED:
    assert "SIGTERM: saved step 5; go on with --resume\n" in ended.stdout
    assert [line for line in ended.stderr.splitlines() if not XLA_LOG.match(line)] == []
  else:
    half_written = run / "checkpoints" / f"6{TEMPORARY}"
    assert {path.name for path in half_written.iterdir()} >= {"params", "rest", "meta"}
  assert main(["train", experiment(tmp_path), "--resume"]) == 0
  assert made(run) == made(whole)
  assert [row["step"] for row in made(run)[0]] == [1, 2, 3, 4, 5, 6, 7]
  assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["6", "7"]

  setup = ev.prepare(read_run_config(str(run)))
  like = ev.fresh_state(setup, rl_stage(setup.config), None)
  states = []
  for folder in (run, whole):
    assert latest_step(folder / "checkpoints") == 7
    with Checkpoints(folder / "checkpoints", keep=2) as checkpoints:
      states.append(checkpoints.restore(7, like))
  where = [{k: v for k, v in saved.items() if k != "seconds"} for _, saved in states]
  assert where[0] == where[1]
  (new, old) = (jax.tree_util.tree_leaves_with_path(state) for state, _ in states)
  # Parameters, two moments, reference, the stage's first parameters; and two coefficients that have moved.
  assert len(new) > 5 * len(jax.tree.leaves(like.params))
  coefficients = states[0][0].controllers
  assert coefficients.keys() == {"kl", "entropy"} and coefficients["kl"] != like.controllers["kl"]
  for (path, x), (_, y) in zip(new, old, strict=True):
    assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), path


def test_a_run_that_was_killed_before_its_first_step_can_be_resumed(whole, tmp_path) -> None:
  (tmp_path / "run").mkdir()
  for name in ("tokenizer.model", "config.json"):  # what is written first
    shutil.copy(whole / name, tmp_path / "run")
  assert main(["train", experiment(tmp_path), "--resume"]) == 0
  assert made(tmp_path / "run") == made(whole)

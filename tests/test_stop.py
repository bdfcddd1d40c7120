"""Real processes: a run that SIGTERM stops, or that kill -9 ends in the midst of a save, goes on bitwise."""

import json
import os
import pathlib
import random
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event
from xla_flags import as_users_have_it

from o1jax import train as train_module
from o1jax.cli import main
from o1jax.io.checkpoint import TEMPORARY, Checkpoints, latest_step
from o1jax.io.log import CLOCK_METRICS, read_lines, read_metrics
from o1jax.io.run_config import read_run_config
from o1jax.io.run_folder import locked
from o1jax.parallel.hosts import EXIT_PREEMPTED
from o1jax.rl.learner import rl_learner
from o1jax.rollout import setup as preparation

pytestmark = pytest.mark.full

EXPERIMENT = """
from o1jax.config import *

def get_config():
  return TrainConfig(
    name="run", out={out!r}, model=ModelConfig(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=32),
    task=CountdownConfig(count=2, max_number=6, max_value=12, held_out=16, max_tries=2),
    sft=SftConfig(steps=3, rows=8, length=48),
    rl=RLConfig(
      steps=4, prompts=8, samples=2, max_prompt=5, max_tokens=16, epochs=2,
      loss=LossConfig("sapo", logp_old="learner"), importance=ImportanceConfig(2.0),
      kl=KLConfig(coef=0.1, reference="ema", ema=0.5, target=0.01, horizon=32),
      entropy_target=1.0, entropy_rate=0.01, l2_init=0.1,
      cov=CovConfig("clip_cov", fraction=0.1, low=-9.0, high=9.0), overlong=OverlongConfig(buffer=8),
    ),
    eval=EvalConfig(problems=8, final_problems=8, samples=2, batch=8, max_tokens=16, bootstrap=50),
    diagnostics=DiagnosticsConfig(every=0), checkpoint=CheckpointConfig(every=2),
    log=LogConfig(rollouts_every=2, progress=False),
  )
"""

ROOT = pathlib.Path(train_module.__file__).parents[1]

# What XLA says of a program on 8 devices when it compiles it, and does not when the cache has it.
XLA_LOG = re.compile(r"[IW]\d{4} [\d:.]+ +\d+ \w+\.cc:\d+\] ")

# An experiment is Python, so that the real command can be made to meet its fate at a given step.
SIGNAL = """
import os, signal
from o1jax import train
rl_step = train.rl_step

def stopping(*args, **given):
  if args[3] == STEP:
    os.kill(os.getpid(), signal.NAME)
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
  """`o1jax train` in a process of its own, with the settings of this one; it resumes the run if there is one."""
  resume = ["--resume"] * (folder / "run").exists()
  command = [sys.executable, "-m", "o1jax", "train", experiment(folder, fate), *resume]
  return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)


def made(run: pathlib.Path) -> tuple[list[dict], list[dict], dict]:
  """Metrics without those of the clock, rollouts, and figures of the end."""
  rows = [
    {k: v for k, v in row.items() if k not in CLOCK_METRICS} for row in read_metrics(run / "metrics.jsonl")
  ]
  final = json.loads((run / "summary.json").read_text())["final"]
  return rows, read_lines(run / "rollouts.jsonl"), {k: v for k, v in final.items() if k != "seconds"}


def last(run: pathlib.Path, step: int) -> tuple[dict[str, bytes], dict]:
  """(bytes of every array of the state after the last step, the cursor without the clock's figures)."""
  assert latest_step(run / "checkpoints") == step
  setup = preparation.prepare(read_run_config(str(run)))
  like = preparation.fresh_state(setup, rl_learner(setup.config), None)
  with Checkpoints(run / "checkpoints", keep=2) as checkpoints:
    state, cursor = checkpoints.restore(step, like)
  arrays = jax.tree_util.tree_leaves_with_path(state)
  held = {jax.tree_util.keystr(path): np.asarray(x).tobytes() for path, x in arrays}
  return held, {name: value for name, value in cursor.items() if name != "seconds"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """A run that nothing stops."""
  folder = tmp_path_factory.mktemp("whole")
  assert main(["train", experiment(folder)]) == 0
  return folder / "run"


def test_a_run_that_is_ended_again_and_again_goes_on_bitwise(whole, tmp_path) -> None:
  run = tmp_path / "run"
  for step, name in ((4, "SIGTERM"), (5, "SIGHUP")):
    ended = ended_by(tmp_path, SIGNAL.replace("NAME", name).replace("STEP", str(step)))
    assert ended.returncode == EXIT_PREEMPTED, ended.stderr
    assert latest_step(run / "checkpoints") == step
    assert f"{name}: saved step {step}; go on with --resume\n" in ended.stdout
    assert [line for line in ended.stderr.splitlines() if not XLA_LOG.match(line)] == []
  killed = ended_by(tmp_path, KILL)
  assert killed.returncode == -9, killed.stderr
  assert latest_step(run / "checkpoints") == 5
  half_written = run / "checkpoints" / f"6{TEMPORARY}"
  assert {path.name for path in half_written.iterdir()} >= {"params", "rest", "meta"}

  assert main(["train", experiment(tmp_path), "--resume"]) == 0
  assert made(run) == made(whole)
  assert [row["step"] for row in made(run)[0]] == [1, 2, 3, 4, 5, 6, 7]
  assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["6", "7"]

  (new, where), (old, expected) = last(run, 7), last(whole, 7)
  assert where == expected
  # Parameters, two moments, reference, the stage's first parameters; and two coefficients that have moved.
  assert len(new) > 5 * sum(path.startswith(".params") for path in new)
  coefficients = {path: value for path, value in new.items() if path.startswith(".controllers")}
  assert len(coefficients) == 2 and np.frombuffer(coefficients[".controllers['kl.coef']"], np.float32)[
    0
  ] != np.float32(0.1)
  assert new == old


def test_a_run_outlives_its_screen(whole, tmp_path) -> None:
  """A pipe that nobody reads, and letters that the stream lacks."""
  reader, writer = os.pipe()
  os.close(reader)
  command = [
    sys.executable,
    "-m",
    "o1jax",
    "train",
    experiment(tmp_path),
    "--name",
    "ünï",
    "--log.progress",
    "True",
  ]
  env = {**os.environ, "PYTHONIOENCODING": "ascii"}
  ended = subprocess.run(command, cwd=ROOT, env=env, stdout=writer, stderr=writer, timeout=240)
  os.close(writer)
  assert ended.returncode == 0
  assert made(tmp_path / "ünï") == made(whole) and (tmp_path / "ünï" / "report.html").exists()


# Starts a command for each line that it reads, in a process that has everything imported; tells its id and
# its end.
STARTER = """
import os, sys
from o1jax import cli, train
for arguments in sys.stdin:
  child = os.fork()
  if child == 0:
    out = os.open("out.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1), os.dup2(out, 2)
    os._exit(cli.main(arguments.split()))
  print(child, flush=True)
  print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
LONGER = "--eval.every 3 2 --checkpoint.every 1 --rl.steps 8 --log.rollouts_every 1 --out"
STEPS, RUNS = 11, 25


class Starter:
  """Runs of LONGER in `folder`, killed or not."""

  def __init__(self, folder: pathlib.Path):
    env = {**os.environ, "XLA_FLAGS": as_users_have_it(1), "JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
    env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    self.folder, self.path = folder, experiment(folder)
    self.process = subprocess.Popen(
      [sys.executable, "-c", STARTER], cwd=folder, env={**env, "PYTHONPATH": str(ROOT)}, bufsize=0,
      stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip

  def train(self, out: pathlib.Path, kill_when=lambda elapsed: False) -> tuple[int, bool]:
    """(exit code, whether a checkpoint was half written) of one process, killed once `kill_when(seconds)`
    says so."""
    resume = ["--resume"] * (out / "run" / "config.json").exists()
    self.process.stdin.write(
      " ".join(["train", self.path, *LONGER.split(), str(out), *resume, "\n"]).encode()
    )
    pid, began = int(self.process.stdout.readline()), time.monotonic()
    while not select.select([self.process.stdout], [], [], 0.001)[0]:
      if kill_when(time.monotonic() - began):
        os.kill(pid, signal.SIGKILL)
        break
    return int(self.process.stdout.readline()), bool(half_written(out / "run"))


def half_written(run: pathlib.Path) -> list[str]:
  """Checkpoints that have no name yet."""
  return [
    path.name for path in (*run.glob("checkpoints/*"), *run.glob("cold_start/*")) if TEMPORARY in path.name
  ]


def kill_at(run: pathlib.Path, rng: random.Random):
  """A random moment: by the clock, behind a number of steps, or within a save."""
  kind, steps, pause = rng.choice(["clock", "step", "save", "save"]), rng.randint(1, 4), rng.random()
  seen, due = set(), []

  def kill_when(elapsed: float) -> bool:
    if kind == "clock":
      return elapsed > 8 * pause
    lines = run / "metrics.jsonl"
    seen.update(half_written(run) if kind == "save" else [lines.stat().st_size] if lines.exists() else [])
    if len(seen) >= steps and not due:
      due.append(elapsed + pause * (0.02 if kind == "save" else 0.2))
    return bool(due) and elapsed >= due[0]

  return kill_when


def events(run: pathlib.Path) -> list[tuple]:
  """(step, tag, value) of the event file, without the clock's."""
  (path,) = run.glob("events.out.tfevents.*")
  content, at, out = path.read_bytes(), 0, []
  while at < len(content):
    (size,) = struct.unpack_from("<Q", content, at)
    event = Event.FromString(content[at + 12 : at + 12 + size])
    values = [
      (v.tag, v.simple_value) for v in event.summary.value if v.tag.split("/", 1)[1] not in CLOCK_METRICS
    ]
    out += [(event.step, *value) for value in values]
    at += 16 + size
  return out


@pytest.mark.slow
def test_runs_that_are_killed_at_random_moments_go_on_bitwise(tmp_path) -> None:
  starter = Starter(tmp_path)
  assert starter.train(tmp_path / "whole") == (0, False), (tmp_path / "out.log").read_text()
  whole = tmp_path / "whole" / "run"
  expected = (made(whole), events(whole), last(whole, STEPS))
  assert [row["step"] for row in expected[0][0]] == list(range(1, STEPS + 1))
  kills = half = 0
  for seed in range(RUNS):
    rng, out = random.Random(seed), tmp_path / str(seed)
    for _ in range(rng.randint(1, 3)):
      code, torn = starter.train(out, kill_at(out / "run", rng))
      assert code in (0, -signal.SIGKILL), (tmp_path / "out.log").read_text()
      kills, half = kills + (code != 0), half + (torn and code != 0)
    assert starter.train(out) == (0, False), (tmp_path / "out.log").read_text()
    run = out / "run"
    assert (made(run), events(run), last(run, STEPS)) == expected, seed
    shutil.rmtree(out)
  starter.process.stdin.close()
  assert starter.process.wait() == 0
  print(f"{RUNS} runs, {kills} kills, {half} of them with a half-written checkpoint")
  assert kills >= RUNS and half >= RUNS // 5


def test_a_run_that_was_killed_before_its_first_step_can_be_resumed(whole, tmp_path) -> None:
  (tmp_path / "run").mkdir()
  for name in ("tokenizer.model", "config.json"):  # what is written first
    shutil.copy(whole / name, tmp_path / "run")
  assert main(["train", experiment(tmp_path), "--resume"]) == 0
  assert made(tmp_path / "run") == made(whole)


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_a_second_process_is_refused_and_changes_nothing(whole, tmp_path, capfd, resume) -> None:
  run = shutil.copytree(whole, tmp_path / "run")
  before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
  with locked(run):
    assert main(["train", experiment(tmp_path), *resume]) == 2
  assert capfd.readouterr().err.startswith(f"error: {run}: is in use by process {os.getpid()} on ")
  assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before

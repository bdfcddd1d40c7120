"""A tiny sweep as an experiment file, and what it has written, for all tests of the package."""

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import pytest

from o1jax.cli import main
from o1jax.io.log import CLOCK_METRICS, read_metrics
from o1jax.io.run_config import load_sweep
from o1jax.rollout import setup as preparation
from o1jax.sweep.members import members_of
from o1jax.train import train

TEXT = """
import dataclasses
from o1jax.config import *

def get_config():
  base = TrainConfig(
    name="tiny", out={out!r}, model=ModelConfig(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=32),
    task=CountdownConfig(count=2, max_number=4, max_value=8, held_out=8, max_tries=2, hint_rate=0.9),
    sft=SftConfig(steps=60, rows=8, length=48, optim=OptimConfig(lr=2e-2)),
    rl=RLConfig(
      steps=4, prompts=4, samples=2, max_prompt=5, max_tokens=12, pad_multiple=0, kl=KLConfig(0.1), entropy=0.02,
      overlong=OverlongConfig(buffer=10), optim=OptimConfig(lr=3e-3),
    ),
    eval=EvalConfig(final_problems=8, samples=2, batch=8, max_tokens=12),
    diagnostics=DiagnosticsConfig(every=2, problems=4), checkpoint=CheckpointConfig(every=2), log=LogConfig(progress=False),
  )
  return {config}

def sweep(full):
  arms = (Arm("weak", {{"rl.kl.coef": 0.01}}, 0.01), Arm("strong", {{"rl.kl.coef": 1.0}}, 1.0))
  checks = (Check("falling", "kl_reverse"), Check("greater", "held_out/pass@1", ("weak", "strong")))
  claim = Claim("Less KL", "a paper", "a figure", checks)
  declared = SweepConfig(get_config(), arms, claim, seeds=(0, 1), vmapped=1, devices=1, chunk=2)
  return {sweep}
{more}
"""


@pytest.fixture(scope="session", autouse=True)
def backend() -> int:
  """Starts the backend with the suite's devices: a sweep that starts it gives it as many as it wants itself."""
  return jax.device_count()


@pytest.fixture(scope="session")
def experiment() -> Callable[..., str]:
  """(folder, config, sweep, more) -> path of an experiment file whose runs go below folder/runs.

  config, sweep: expressions in `base` and `declared`; more: Python behind all else.
  """

  def write(folder: pathlib.Path, *, config: str = "base", sweep: str = "declared", more: str = "") -> str:
    (folder / "runs").mkdir(exist_ok=True)
    path = folder / "experiment.py"
    path.write_text(TEXT.format(out=str(folder / "runs"), config=config, sweep=sweep, more=more))
    return str(path)

  return write


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
  return {name: value for name, value in row.items() if name not in CLOCK_METRICS}


@pytest.fixture(scope="session")
def logged() -> Callable[[pathlib.Path], dict[str, list[dict[str, Any]]]]:
  """Folder of a sweep -> member -> its metrics without those of the clock."""
  return lambda folder: {
    path.parent.name: [_timeless(row) for row in read_metrics(path)]
    for path in sorted(folder.glob("*/metrics.jsonl"))
  }


@pytest.fixture(scope="session")
def found() -> Callable[[pathlib.Path], dict[str, Any]]:
  """Folder of a sweep -> results.json without what the clock and the command made."""

  def read(folder: pathlib.Path) -> dict[str, Any]:
    results = json.loads((folder / "results.json").read_text())
    return {name: results[name] for name in ("members", "findings", "layout", "arms", "seeds", "steps")}

  return read


@pytest.fixture(scope="session")
def whole(tmp_path_factory, experiment) -> pathlib.Path:
  """The folder of a sweep under lax.map on one device, which nothing stopped."""
  folder = tmp_path_factory.mktemp("whole")
  assert main(["sweep", experiment(folder)]) == 0
  return folder / "runs" / "tiny"


@pytest.fixture(scope="session")
def alone(tmp_path_factory, experiment) -> pathlib.Path:
  """The folder of the member weak-seed1 as `o1jax train` runs it, on one device as a member has one."""
  folder = tmp_path_factory.mktemp("alone")
  member = members_of(load_sweep(experiment(folder), full=False))[1]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(preparation, "prepare", functools.partial(preparation.prepare, devices=jax.devices()[:1]))
    assert train(member.config, resume=False) == 0
  return folder / "runs" / "weak-seed1"

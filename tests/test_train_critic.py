"""A run with a critic, from its cold start to its evaluation: logged, resumed, evaluated, sampled from."""

import json
import pathlib
import shutil

import pytest

from o1jax.cli import main
from o1jax.config import (
  AdvantageConfig,
  CheckpointConfig,
  CountdownConfig,
  CriticConfig,
  DiagnosticsConfig,
  EvalConfig,
  KLConfig,
  LogConfig,
  LossConfig,
  ModelConfig,
  OptimConfig,
  RLConfig,
  SftConfig,
  TrainConfig,
)
from o1jax.io.checkpoint import latest_step
from o1jax.io.log import CLOCK_METRICS, read_metrics
from o1jax.train import train

pytestmark = pytest.mark.full


def config(out: str, kind: str, steps: int = 3) -> TrainConfig:
  clip = {"head": None, "own": 0.2}[kind]
  return TrainConfig(
    name="tiny", out=out,
    model=ModelConfig(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=32),
    task=CountdownConfig(count=2, max_number=6, max_value=12, held_out=8, max_tries=2),
    sft=SftConfig(steps=1, rows=8, length=48),
    rl=RLConfig(
      steps=steps, prompts=8, samples=1, max_prompt=5, max_tokens=16, pad_multiple=0, epochs=2,
      loss=LossConfig("ppo_clip", clip_low=0.2, clip_high=0.2),
      advantage=AdvantageConfig("gae"), critic=CriticConfig(kind, clip=clip),
      kl=KLConfig(0.1, "k1", placement="reward"), entropy=0.1, optim=OptimConfig(lr=1e-2),  # no answer is right yet
    ),
    eval=EvalConfig(final_problems=8, samples=2, batch=8, max_tokens=16, bootstrap=10),
    diagnostics=DiagnosticsConfig(every=0), checkpoint=CheckpointConfig(every=2), log=LogConfig(progress=False),
  )  # fmt: skip


def written(folder: pathlib.Path) -> list[dict]:
  """The metrics of a run without what the clock made."""
  rows = read_metrics(folder / "metrics.jsonl")
  return [{k: v for k, v in row.items() if k not in CLOCK_METRICS} for row in rows]


@pytest.mark.parametrize("kind", ["head", pytest.param("own", marks=pytest.mark.slow)])
def test_a_run_with_a_critic(kind, tmp_path, capsys) -> None:
  folder = tmp_path / "tiny"
  assert train(config(str(tmp_path), kind), resume=False) == 0
  rows = written(folder)
  assert "value/mean" not in rows[0]
  assert rows[1]["value/explained_variance"] == 0.0  # its head is zero at first
  assert rows[-1]["value/mean"] != 0.0 and rows[-1]["loss/value"] > 0.0
  assert ("value/clip_ratio" in rows[-1]) == (kind == "own")
  assert rows[-1]["logp_gap/max"] < 1e-4

  summary = json.loads((folder / "summary.json").read_text())
  assert main(["eval", str(folder)]) == 0
  assert json.loads((folder / "eval.json").read_text())["pass@1"] == summary["final"]["pass@1"]
  assert main(["sample", str(folder), "--prompt", "2 3 -> 5"]) == 0 and capsys.readouterr().out

  last = latest_step(folder / "checkpoints")
  assert last == 4
  shutil.rmtree(folder / "checkpoints" / str(last))
  (folder / "summary.json").unlink()
  assert train(config(str(tmp_path), kind), resume=True) == 0
  assert written(folder) == rows
  assert json.loads((folder / "summary.json").read_text())["final"]["curves"] == summary["final"]["curves"]

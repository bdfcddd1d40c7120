"""The host verifies beside the device's work, and no number depends on it; a curriculum's memory survives a stop."""

import dataclasses
import pathlib
import shutil
import threading

import jax
import numpy as np
import pytest

from o1jax import train as train_module
from o1jax.config import (
  CheckpointConfig,
  CountdownConfig,
  CurriculumConfig,
  DiagnosticsConfig,
  EvalConfig,
  KLConfig,
  LogConfig,
  ModelConfig,
  OptimConfig,
  RLConfig,
  TrainConfig,
)
from o1jax.io.checkpoint import latest_step
from o1jax.io.log import CLOCK_METRICS, read_lines, read_metrics
from o1jax.rollout import collect as collect_module
from o1jax.rollout import setup as preparation
from o1jax.train import train
from o1jax.verifiers.base import Verdict

pytestmark = pytest.mark.full

WAIT = 60.0  # seconds after which a test that waits for something that does not come fails
graded_by_the_task = collect_module.grade


def config(out: pathlib.Path, **changes) -> TrainConfig:
  rl = dict(
    steps=3, prompts=16, samples=2, max_prompt=5, max_tokens=12, chunks=2, kl=KLConfig(0.1),
    optim=OptimConfig(lr=1e-2),
  )  # fmt: skip
  return TrainConfig(
    name="tiny", out=str(out),
    model=ModelConfig(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=32),
    task=CountdownConfig(count=2, max_number=6, max_value=12, held_out=8, max_tries=2),
    rl=RLConfig(**{**rl, **changes}), diagnostics=DiagnosticsConfig(every=0),
    eval=EvalConfig(final_problems=8, samples=2, batch=8, max_tokens=12, bootstrap=10),
    checkpoint=CheckpointConfig(every=2), log=LogConfig(progress=False, rollouts_every=1, rollouts=99),
  )  # fmt: skip


def even(runtime, problems, tokens, lengths):
  """Right where a response has an even number of tokens, so that an untrained policy has something to learn from."""
  graded = graded_by_the_task(runtime, problems, tokens, lengths)
  right = graded.length % 2 == 0
  verdicts = [[Verdict(float(r), bool(r), None) for r in row] for row in right]
  return dataclasses.replace(graded, reward=right.astype(float), correct=right, verdicts=verdicts)


@pytest.fixture(autouse=True)
def _by_length(monkeypatch):
  monkeypatch.setattr(collect_module, "grade", even)


def written(folder: pathlib.Path) -> tuple[list[dict], list[dict], list[bytes]]:
  """(metrics without the clock's, rollouts, the last parameters) of a run."""
  rows = [
    {k: v for k, v in row.items() if k not in CLOCK_METRICS} for row in read_metrics(folder / "metrics.jsonl")
  ]
  _, params, _ = preparation.load_run(str(folder))
  return (
    rows,
    read_lines(folder / "rollouts.jsonl"),
    [np.asarray(a).tobytes() for a in jax.tree.leaves(params)],
  )


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
  """A run whose verifier works beside the device."""
  out = tmp_path_factory.mktemp("beside")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(collect_module, "grade", even)
    assert train(config(out), resume=False) == 0
  return out / "tiny"


def test_every_number_is_that_of_a_device_that_waits(tmp_path) -> None:
  for name, overlap in (("beside", True), ("waits", False)):
    assert train(config(tmp_path / name, chunks=1, overlap=overlap), resume=False) == 0
  ours, waited = (written(tmp_path / name / "tiny") for name in ("beside", "waits"))
  assert ours == waited
  assert len({row["reward"] for row in ours[0]}) > 1


def test_a_rollout_in_parts_is_the_whole_one(beside, tmp_path) -> None:
  """Rounding apart: programs of other shapes. The first step is sampled from the same policy."""
  assert train(config(tmp_path, chunks=1), resume=False) == 0
  parts, whole = (read_lines(folder / "rollouts.jsonl") for folder in (beside, tmp_path / "tiny"))
  first = lambda rows: [(row["problem_id"], row["completion"]) for row in rows if row["step"] == 1]
  assert len(first(whole)) == 32 and first(parts) == first(whole)


def test_verdicts_are_made_while_the_device_has_something_to_do(monkeypatch, tmp_path) -> None:
  """The first part's verdicts wait for the second to be sampled, the second's for the forward passes of the update."""
  sampled, passed, verified, parts = threading.Event(), threading.Event(), [], []
  generate, score_rollout = collect_module.generate, train_module.score_rollout

  def sampling(*args, **given):
    out = generate(*args, **given)
    parts.append(args[1].earlier)  # an array for the first part too, so that one program draws both
    if len(parts) == 2:
      sampled.set()
    return out

  def looking(*args, **given):
    out = score_rollout(*args, **given)
    passed.set()
    return out

  def grading(runtime, problems, tokens, lengths):
    waits_for = (sampled, passed)[len(verified)]
    assert waits_for.wait(WAIT) and threading.current_thread() is not threading.main_thread()
    verified.append(len(problems))
    return even(runtime, problems, tokens, lengths)

  monkeypatch.setattr(collect_module, "generate", sampling)
  monkeypatch.setattr(train_module, "score_rollout", looking)
  monkeypatch.setattr(collect_module, "grade", grading)
  with pytest.raises(IndexError):  # of the second step, whose verdicts nothing is left to wait for
    train(config(tmp_path, steps=2), resume=False)
  assert verified == [8, 8]


def test_a_verifier_that_fails_ends_the_run_with_its_error(monkeypatch, tmp_path) -> None:
  def failing(runtime, problems, tokens, lengths):
    raise ValueError("gold is no number")

  monkeypatch.setattr(collect_module, "grade", failing)
  with pytest.raises(ValueError, match="gold is no number"):
    train(config(tmp_path), resume=False)


RULE = CurriculumConfig("pass_rate", min_probability=0.2, rate=0.5, drop_solved=1, drop_unsolved=1)


def test_a_curriculum_goes_on_bitwise_behind_a_stop(tmp_path) -> None:
  changes = {"curriculum": RULE, "steps": 5, "chunks": 1}
  assert train(config(tmp_path / "a", **changes), resume=False) == 0
  whole = tmp_path / "a" / "tiny"
  shutil.copytree(whole, tmp_path / "b" / "tiny")
  again = tmp_path / "b" / "tiny"
  (again / "summary.json").unlink()
  shutil.rmtree(again / "checkpoints" / "5")
  assert latest_step(again / "checkpoints") == 4
  assert train(config(tmp_path / "b", **changes), resume=True) == 0
  assert written(again) == written(whole)
  rows = read_metrics(whole / "metrics.jsonl")
  dropped = [row["curriculum/dropped_solved"] + row["curriculum/dropped_unsolved"] for row in rows]
  assert dropped[0] > 0 and dropped == sorted(dropped) and dropped[-1] > dropped[0]
  assert rows[-1]["curriculum/passed_over"] > 0


def test_a_dropped_problem_does_not_come_again(tmp_path) -> None:
  assert train(config(tmp_path, curriculum=RULE, steps=5, chunks=1), resume=False) == 0
  rows = read_lines(tmp_path / "tiny" / "rollouts.jsonl")
  dropped: set[str] = set()
  for step in range(1, 6):
    groups: dict[str, list[bool]] = {}
    for row in rows:
      if row["step"] == step:
        groups.setdefault(row["problem_id"], []).append(row["correct"])
    assert groups and dropped & groups.keys() == set()
    dropped |= {name for name, correct in groups.items() if len(set(correct)) == 1}

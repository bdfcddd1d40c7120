"""Members that refill: fused steps come to the problems, counts and metrics of the loop, each member at its own cursor."""

import dataclasses
import pathlib
import signal

import numpy as np
import pytest

from o1jax.config import (
  Arm,
  CheckpointConfig,
  Claim,
  CountdownConfig,
  DiagnosticsConfig,
  EvalConfig,
  KLConfig,
  LogConfig,
  ModelConfig,
  RLConfig,
  SweepConfig,
  TrainConfig,
)
from o1jax.io.log import CLOCK_METRICS, read_metrics
from o1jax.io.tokenizer import EOS
from o1jax.rollout import collect as collect_module
from o1jax.rollout import setup as preparation
from o1jax.sweep import population
from o1jax.sweep import run as sweep_module

pytestmark = pytest.mark.full

P, G, STEPS, REFILL = 4, 2, 4, 2
MEMBERS = ("arm-seed0", "arm-seed1")
graded_by_the_task, prepare = collect_module.grade, preparation.prepare


def declared(out: pathlib.Path) -> SweepConfig:
  base = TrainConfig(
    name="tiny", out=str(out),
    model=ModelConfig(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=32),
    task=CountdownConfig(count=2, max_number=6, max_value=12, held_out=8, max_tries=2),
    rl=RLConfig(steps=STEPS, prompts=P, samples=G, max_prompt=5, max_tokens=16, pad_multiple=0, dynamic_sampling=REFILL,
      kl=KLConfig(0.01)),
    diagnostics=DiagnosticsConfig(every=0),
    eval=EvalConfig(final_problems=8, samples=2, batch=8, max_tokens=16),
    checkpoint=CheckpointConfig(every=2), log=LogConfig(progress=False),
  )  # fmt: skip
  claim = Claim("a text", "a source", "a figure", ())
  return SweepConfig(
    base, (Arm("arm", {"rl.optim.lr": 1e-2}),), claim, seeds=(0, 1), vmapped=2, devices=1, chunk=2
  )


def even_on_the_host(runtime, problems, tokens, lengths):
  """Right where a response begins with an even token, so that groups differ in what an untrained policy writes."""
  graded = graded_by_the_task(runtime, problems, tokens, lengths)
  first = np.array([(row or [EOS])[0] for row in tokens])
  even = (first % 2 == 0).reshape(graded.correct.shape)
  return dataclasses.replace(graded, reward=even.astype(float), correct=even)


def even_on_the_device(tokens, valid, arrays):
  even = tokens[:, 0] % 2 == 0
  return even.astype(np.float32), even, even


def sweep(out: pathlib.Path, fused: bool = True, resume: bool = False) -> int:
  """A sweep whose members are graded on the device or, not `fused`, by the host."""

  def prepared(config, devices=None):
    setup = prepare(config, devices)
    known = dataclasses.replace(setup.task.device, verify=even_on_the_device) if fused else None
    return dataclasses.replace(setup, task=dataclasses.replace(setup.task, device=known))

  config = declared(out) if fused else dataclasses.replace(declared(out), vmapped=0, chunk=0)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(preparation, "prepare", prepared)
    patch.setattr(collect_module, "grade", even_on_the_host)
    return sweep_module.sweep(config, experiment="x.py", command="", record=False, full=False, resume=resume)


def logged(out: pathlib.Path) -> dict[str, list[dict]]:
  """Each member's metrics without what the clock made."""
  rows = {member: read_metrics(out / "tiny" / member / "metrics.jsonl") for member in MEMBERS}
  plain = lambda row: {k: v for k, v in row.items() if k not in CLOCK_METRICS}
  return {member: [plain(row) for row in some] for member, some in rows.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  out = tmp_path_factory.mktemp("whole")
  assert sweep(out) == 0
  return logged(out)


COUNTS = (
  "dynamic_sampling/rounds",
  "dynamic_sampling/samples",
  "dynamic_sampling/unfilled",
  "samples/extra",
  "num_tokens",
  "reward",
)
NEAR = ("flops/prefill", "flops/decode", "flops/reference", "flops/update", "loss")


def test_vmapped_members_are_those_of_the_loop(whole, tmp_path) -> None:
  assert sweep(tmp_path, fused=False) == 0
  for member, rows in logged(tmp_path).items():
    for ours, theirs in zip(whole[member], rows, strict=True):
      assert {n: ours.get(n) for n in COUNTS} == {n: theirs.get(n) for n in COUNTS}
      np.testing.assert_allclose([ours[n] for n in NEAR], [theirs[n] for n in NEAR], rtol=1e-4, atol=1e-7)


def test_members_are_at_cursors_of_their_own(whole) -> None:
  rounds = [[row["dynamic_sampling/rounds"] for row in whole[member]] for member in MEMBERS]
  assert rounds[0] != rounds[1] and 0 < sum(map(sum, rounds)) < len(MEMBERS) * REFILL * STEPS
  for rows, made in zip(whole.values(), rounds, strict=True):
    extra = [row.get("samples/extra", 0) for row in rows]
    np.testing.assert_array_equal(extra, np.cumsum(made) * P * G)


def test_a_stopped_sweep_goes_on_bitwise(whole, tmp_path, monkeypatch) -> None:
  advance = population.Population.advance

  def stopping(self, states, done, cursors, bad=()):
    if states.step[0] == 0 and (tmp_path / "tiny" / MEMBERS[0] / "config.json").exists():
      signal.raise_signal(signal.SIGTERM)
    return advance(self, states, done, cursors, bad)

  monkeypatch.setattr(population.Population, "advance", stopping)
  assert sweep(tmp_path) != 0
  monkeypatch.undo()
  assert [row["step"] for row in logged(tmp_path)[MEMBERS[0]]] == [1, 2]
  assert sweep(tmp_path, resume=True) == 0
  assert logged(tmp_path) == whole

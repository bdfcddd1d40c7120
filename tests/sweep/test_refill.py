"""Members that refill: fused steps come to the problems, counts and metrics of the loop, each member at its own cursor."""

import dataclasses
import pathlib
import signal

import numpy as np
import pytest

from o1jax import evaluate as ev
from o1jax.config import (
  Arm,
  CheckpointConfig,
  Claim,
  CountdownConfig,
  DiagnosticsConfig,
  EvalConfig,
  LogConfig,
  ModelConfig,
  RLConfig,
  SweepConfig,
  TrainConfig,
)
from o1jax.evaluate import groups as groups_module
from o1jax.io.log import CLOCK_METRICS, read_metrics
from o1jax.sweep import device
from o1jax.sweep import run as sweep_module

P, G, STEPS, REFILL = 4, 2, 4, 2
MEMBERS = ("slow-seed0", "slow-seed1", "fast-seed0", "fast-seed1")
graded_by_the_task, prepare = groups_module.grade, ev.prepare


def declared(out: pathlib.Path, vmapped: int) -> SweepConfig:
  base = TrainConfig(
    name="tiny", out=str(out),
    model=ModelConfig(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=32),
    task=CountdownConfig(count=2, max_number=6, max_value=12, held_out=8, max_tries=2),
    rl=RLConfig(steps=STEPS, prompts=P, samples=G, max_prompt=5, max_tokens=16, trim=0, refill=REFILL),
    diagnostics=DiagnosticsConfig(every=2, problems=8),
    eval=EvalConfig(final_problems=8, samples=2, batch=8, max_tokens=16, bootstrap=10),
    checkpoint=CheckpointConfig(every=2), log=LogConfig(progress=False),
  )  # fmt: skip
  arms = tuple(Arm(name, {"rl.optim.lr": lr}) for name, lr in (("slow", 1e-3), ("fast", 1e-2)))
  claim = Claim("a text", "a source", "a figure", ())
  return SweepConfig(base, arms, claim, seeds=(0, 1), vmapped=vmapped, devices=1, chunk=2)


def even_on_the_host(setup, problems, tokens, lengths):
  """Right where a response has an even number of tokens, so that groups differ in what an untrained policy writes."""
  graded = graded_by_the_task(setup, problems, tokens, lengths)
  even = graded.length % 2 == 0
  return dataclasses.replace(graded, reward=even.astype(float), correct=even)


def even_on_the_device(tokens, valid, arrays):
  even = valid.sum(1) % 2 == 0
  return even.astype(np.float32), even, even


def sweep(out: pathlib.Path, vmapped: int, fused: bool, resume: bool = False) -> int:
  """A sweep whose members are right where a response is even, on the device or, not `fused`, by the host."""

  def prepared(config, devices=None):
    setup = prepare(config, devices)
    known = dataclasses.replace(setup.task.device, verify=even_on_the_device) if fused else None
    return dataclasses.replace(setup, task=dataclasses.replace(setup.task, device=known))

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(ev, "prepare", prepared)
    patch.setattr(groups_module, "grade", even_on_the_host)
    return sweep_module.sweep(
      declared(out, vmapped), experiment="x.py", command="", record=False, full=False, resume=resume
    )


def logged(out: pathlib.Path) -> dict[str, list[dict]]:
  """Each member's metrics without what the clock made."""
  rows = {member: read_metrics(out / "tiny" / member / "metrics.jsonl") for member in MEMBERS}
  plain = lambda row: {k: v for k, v in row.items() if k not in CLOCK_METRICS}
  return {member: [plain(row) for row in some] for member, some in rows.items()}


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
  out = tmp_path_factory.mktemp("mapped")
  assert sweep(out, 1, True) == 0
  return logged(out)


COUNTS = ("refill/rounds", "refill/samples", "refill/unfilled", "samples/extra", "num_tokens", "reward")


@pytest.mark.parametrize(("vmapped", "fused"), [(1, False), (4, True)])
def test_fused_members_are_those_of_the_loop(mapped, tmp_path, vmapped, fused) -> None:
  assert sweep(tmp_path, vmapped, fused) == 0
  for member, rows in logged(tmp_path).items():
    for ours, theirs in zip(mapped[member], rows, strict=True):
      assert {n: ours.get(n) for n in COUNTS} == {n: theirs.get(n) for n in COUNTS}
      for name in (
        "flops/prefill",
        "flops/decode",
        "flops/reference",
        "flops/update",
        "loss",
        "kl_of_step",
        "ess",
      ):
        assert ours.get(name) == pytest.approx(theirs.get(name), rel=1e-4, abs=1e-7), name


def test_members_are_at_cursors_of_their_own(mapped) -> None:
  rounds = {member: tuple(row["refill/rounds"] for row in rows) for member, rows in mapped.items()}
  assert len(set(rounds.values())) > 1
  for member, rows in mapped.items():
    np.testing.assert_array_equal(
      [row.get("samples/extra", 0) for row in rows], np.cumsum(rounds[member]) * P * G
    )
    assert ["kl_of_step" in row for row in rows] == [True, False, True, False]


def test_a_stopped_sweep_goes_on_bitwise(mapped, tmp_path, monkeypatch) -> None:
  advance = device.Fleet.advance

  def stopping(self, states, done, cursors):
    if states.step[0] == 0 and (tmp_path / "tiny" / MEMBERS[0] / "config.json").exists():
      signal.raise_signal(signal.SIGTERM)
    return advance(self, states, done, cursors)

  monkeypatch.setattr(device.Fleet, "advance", stopping)
  assert sweep(tmp_path, 1, True) != 0
  monkeypatch.undo()
  assert [row["step"] for row in logged(tmp_path)[MEMBERS[0]]] == [1, 2]
  assert sweep(tmp_path, 1, True, resume=True) == 0
  assert logged(tmp_path) == mapped

"""Diagnostics of `o1jax train`: off at 0, and what they measure changes nothing that is learned, nor what it costs."""

import pytest

from o1jax.config import (
  CountdownConfig,
  DiagnosticsConfig,
  EvalConfig,
  KLConfig,
  LogConfig,
  ModelConfig,
  RLConfig,
  TrainConfig,
)
from o1jax.io.log import CLOCK_METRICS, read_metrics
from o1jax.train import train

pytestmark = pytest.mark.full

FIGURES = {
  "kl_reverse",
  "kl_forward",
  "kl_of_step",
  "ess",
  "grad_norm/policy",
  "grad_norm/kl",
}
TESTS = {"held_out/pass@1", "held_out/parsed", "ood/larger_targets/pass@1", "ood/larger_targets/mean_length"}


def rows_of(folder, every: int) -> list[dict[str, float]]:
  """The metrics of a run without those of the clock."""
  config = TrainConfig(
    name="tiny", out=str(folder), model=ModelConfig(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=32),
    task=CountdownConfig(count=2, max_number=4, max_value=8, max_target=6, held_out=8),
    rl=RLConfig(steps=3, prompts=8, samples=2, max_prompt=5, max_tokens=12, kl=KLConfig(0.1), entropy=0.02),
    eval=EvalConfig(final_problems=8, samples=1, batch=8, max_tokens=12, bootstrap=50),
    diagnostics=DiagnosticsConfig(every=every, problems=4), log=LogConfig(progress=False),
  )  # fmt: skip
  assert train(config, resume=False) == 0
  rows = read_metrics(folder / "tiny" / "metrics.jsonl")
  return [{name: value for name, value in row.items() if name not in CLOCK_METRICS} for row in rows]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """(metrics of a run with diagnostics before its first and third step, of one without)."""
  return tuple(rows_of(tmp_path_factory.mktemp("runs"), every) for every in (2, 0))


def test_diagnostics_come_every_so_many_steps_and_never_at_0(runs) -> None:
  watched, plain = runs
  assert [FIGURES | TESTS <= row.keys() for row in watched] == [True, False, True]
  assert not any((FIGURES | TESTS | {"flops/diagnostics"}) & row.keys() for row in plain)
  assert watched[0]["kl_reverse"] == 0 < watched[2]["kl_reverse"]


def test_a_diagnosed_step_learns_what_it_would_learn_anyway(runs) -> None:
  watched, plain = runs
  for mine, other in zip(watched, plain, strict=True):
    assert {name: mine[name] for name in other} == other  # to the last bit


def test_what_diagnostics_take_stands_under_their_own_name_alone(runs) -> None:
  watched, plain = runs
  first, second, third = (row["flops/diagnostics"] for row in watched)
  assert 0 < first == second < third
  for mine, other in zip(watched, plain, strict=True):
    for name in (name for name in other if name.startswith("flops/")):
      assert mine[name] == other[name]

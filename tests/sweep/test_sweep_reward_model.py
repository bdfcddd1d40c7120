"""A sweep against learned rewards, end to end: RL sees the proxy, everything that is told of accuracy is the verifier's."""

import dataclasses
import pathlib
import shutil

import numpy as np
import pytest

from o1jax.config import (
  Arm,
  Check,
  CheckpointConfig,
  Claim,
  CountdownConfig,
  DiagnosticsConfig,
  EvalConfig,
  LogConfig,
  ModelConfig,
  RewardModelConfig,
  RLConfig,
  SweepConfig,
  TrainConfig,
  replaced,
)
from o1jax.io.log import CLOCK_METRICS, read_metrics
from o1jax.io.run_config import read_json
from o1jax.rollout import reward_model as reward_model_module
from o1jax.scaling.passk import best_of_n
from o1jax.sweep.members import groups_of, members_of
from o1jax.sweep.reward_model import best_of_figures, reward_model_key
from o1jax.sweep.run import sweep
from o1jax.train import train

pytestmark = pytest.mark.full

SEEDS = (0, 1)


def declared(out: pathlib.Path) -> SweepConfig:
  base = TrainConfig(
    name="tiny", out=str(out),
    model=ModelConfig(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=32),
    task=CountdownConfig(count=2, max_number=6, max_value=12, held_out=8, max_tries=2),
    rl=RLConfig(steps=4, prompts=2, samples=2, max_prompt=5, max_tokens=16, pad_multiple=0,
      reward_model=RewardModelConfig("outcome", examples=24, noise=0.1, steps=6, rows=8, best_of=5)),
    diagnostics=DiagnosticsConfig(every=2, problems=8),
    eval=EvalConfig(final_problems=8, samples=2, batch=8, max_tokens=16),
    checkpoint=CheckpointConfig(every=2), log=LogConfig(progress=False),
  )  # fmt: skip
  arms = (Arm("few", {"rl.reward_model.examples": 8}, 8), Arm("many", {}, 24))
  claim = Claim("a text", "a source", "a figure", (Check("rising", "bon/4"), Check("fit_gao_bon", "bon")))
  return SweepConfig(base, arms, claim, seeds=SEEDS, vmapped=2, devices=1, chunk=2)


def run(config: SweepConfig, resume: bool = False) -> dict:
  done = sweep(config, experiment="x.py", command="x", record=False, full=False, resume=resume)
  assert done == 0
  return read_json(pathlib.Path(config.base.out) / "tiny" / "results.json")


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> tuple[SweepConfig, dict]:
  config = declared(tmp_path_factory.mktemp("sweep"))
  return config, run(config)


def test_arms_of_one_proxy_kind_are_one_program_and_have_proxies_of_their_own() -> None:
  members = members_of(declared(pathlib.Path("out")))
  assert len(groups_of(members)) == 1
  assert len({reward_model_key(member) for member in members}) == 4
  other = dataclasses.replace(members[0].config.rl.reward_model, best_of=3)
  config = dataclasses.replace(
    members[0].config, rl=dataclasses.replace(members[0].config.rl, reward_model=other)
  )
  assert reward_model_key(dataclasses.replace(members[0], config=config)) == reward_model_key(members[0])


@pytest.mark.slow
def test_rl_sees_the_proxy_and_accuracies_are_the_verifiers(swept) -> None:
  config, _ = swept
  rewards = []
  for member in members_of(config):
    lines = read_metrics(pathlib.Path(config.base.out) / "tiny" / member.name / "metrics.jsonl")
    assert len(lines) == 4
    for line in lines:
      assert line["rewards/countdown/mean"] == pytest.approx(line["accuracy"])
      assert 0.2 < line["reward"] < 0.8 and line["accuracy"] * 4 == pytest.approx(round(line["accuracy"] * 4))
      assert line["reward_std"] > 0 and line["frac_reward_zero_std"] == 0.0
      assert line["flops/judge"] > 0
    assert "kl_sequence" in lines[0] and "grad_noise/trace" in lines[0]
    rewards.append(lines[0]["reward"])
  assert len(set(rewards)) == 4


@pytest.mark.slow
def test_best_of_n_is_told_of_each_member(swept) -> None:
  _, results = swept
  for row in results["members"]:
    final = row["final"]
    assert {n for n in final if n.startswith(("bon/", "bon_proxy/"))} == {
      f"{kind}/{n}" for kind in ("bon", "bon_proxy") for n in (1, 2, 4)
    }
    assert np.mean(row["by_problem"]["bon/4"]) == pytest.approx(final["bon/4"])
    chosen = [final[f"bon_proxy/{n}"] for n in (1, 2, 4)]
    assert (
      chosen == sorted(chosen) and chosen[0] < chosen[2]
    )  # the more to choose from, the better it likes the best
    assert final["first/reward"] == pytest.approx(0.5, abs=0.3) and 0 <= final["proxy/accuracy"] <= 1
  by_seed = {(row["arm"], row["seed"]): row["final"]["bon/1"] for row in results["members"]}
  for seed in SEEDS:
    assert by_seed["few", seed] == by_seed["many", seed]  # one completion, whoever judges it


@pytest.mark.slow
def test_a_proxy_that_was_saved_is_not_taught_again(swept, monkeypatch) -> None:
  config, before = swept
  (pathlib.Path(config.base.out) / "tiny" / "results.json").unlink()
  monkeypatch.setattr(reward_model_module, "fit", lambda *given, **options: pytest.fail("taught again"))
  after = run(config, resume=True)
  for old, new in zip(before["members"], after["members"]):
    assert {n: v for n, v in old["final"].items() if n.startswith("bon")} == {
      n: v for n, v in new["final"].items() if n.startswith("bon")
    }


def test_figures_of_best_of_n_by_hand() -> None:
  told, correct = np.array([[2.0, -1.0], [0.0, 1.0]]), np.array([[False, True], [False, True]])
  figures, by_problem = best_of_figures(told, correct)
  assert figures["bon/1"] == 0.5 and figures["bon/2"] == 0.5  # wrong, then right
  assert by_problem["bon/1"] == pytest.approx(correct.mean(1)) and len(by_problem["bon/2"]) == len(told)
  assert figures["proxy/accuracy"] == 0.5 and figures["proxy/auc"] == 0.25
  chance = 1 / (1 + np.exp(-told))
  assert figures["bon_proxy/2"] == pytest.approx((chance[0, 0] + chance[1, 1]) / 2)
  assert figures["bon_proxy/1"] == pytest.approx(best_of_n(told, chance, 1).mean())


def test_a_run_that_the_host_verifies_is_paid_by_a_reward_model(tmp_path) -> None:
  """`o1jax train` fits it between its stages, keeps it in the run's folder, and a resumed run reads it there."""
  changes = {"rl.prompts": 8, "rl.reward_model.noise": 0.0, "eval.batch": 8}
  config = replaced(declared(tmp_path).base, changes)
  assert train(config, resume=False) == 0
  folder = tmp_path / "tiny"
  lines = read_metrics(folder / "metrics.jsonl")
  assert len(lines) == 4
  for line in lines:
    assert line["rewards/countdown/mean"] == pytest.approx(line["accuracy"])
    assert 0.2 < line["reward"] < 0.8 and line["frac_reward_zero_std"] == 0.0 and line["flops/judge"] > 0
  shutil.rmtree(folder / "checkpoints" / "4")
  (folder / "summary.json").unlink()
  assert train(config, resume=True) == 0
  plain = [[{k: v for k, v in line.items() if k not in CLOCK_METRICS} for line in rows]
           for rows in (lines, read_metrics(folder / "metrics.jsonl"))]  # fmt: skip
  assert plain[0] == plain[1]


@pytest.mark.slow
def test_members_that_the_host_verifies_have_the_rewards_and_figures_of_fused_ones(swept, tmp_path) -> None:
  fused_config, fused_results = swept
  config = dataclasses.replace(declared(tmp_path), fused=False, vmapped=0, devices=0, chunk=0)
  results = run(config)
  for ours, theirs in zip(results["members"], fused_results["members"], strict=True):
    name = f"{ours['arm']}-seed{ours['seed']}"
    first = [
      read_metrics(pathlib.Path(c.base.out) / "tiny" / name / "metrics.jsonl")[0]
      for c in (config, fused_config)
    ]
    assert first[0]["reward"] == pytest.approx(first[1]["reward"], rel=1e-4)
    assert first[0]["flops/judge"] == first[1]["flops/judge"]
    figures = [name for name in theirs["final"] if name.startswith(("bon", "proxy/"))]
    assert len(figures) == 8
    for figure in figures:
      assert ours["final"][figure] == pytest.approx(theirs["final"][figure], abs=1e-4), figure

"""Advantages, losses, gradients and scores against TRL and torch, through the golden files of scripts/make_golden.py.

The default suite reads the files. The marker `parity` derives them anew and compares; it runs the script with the
interpreter named by PARITY_PYTHON, or this one, which must have the extra `parity`.
"""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o1jax.config import (
  AdvantageConfig,
  CountdownConfig,
  KLConfig,
  LossConfig,
  ModelConfig,
  RLConfig,
  TrainConfig,
)
from o1jax.rl.advantages import ADVANTAGES, reward_stats
from o1jax.rl.learner import hyperparams, rl_learner
from o1jax.rl.losses import global_norms, objective, sft_terms
from o1jax.rl.regularisers import kl_penalty
from o1jax.rl.scoring import Packed, score
from o1jax.types import Credit, Experience, TokenScores, resolve_stats

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "data" / "golden"
MODEL = ModelConfig(width=8, layers=1, heads=1, kv_heads=1, head_dim=8, mlp=8, vocab=5)


def golden(name: str) -> dict:
  return json.loads((GOLDEN / f"{name}.json").read_text())


def f32(value) -> np.ndarray:
  return np.asarray(value, np.float32)


# Losses: case of the golden file -> our options

CLIP = {"clip_low": 0.2, "clip_high": 0.3}
SEQ, TOKEN, BUDGET = "seq_mean_token_mean", "token_mean", "dr_grpo"
K3 = KLConfig(0.25, "k3")
LOSSES = {
  "grpo": (LossConfig("ppo_clip", SEQ, **CLIP), KLConfig(), 0.0),
  "grpo, k3": (LossConfig("ppo_clip", SEQ, **CLIP), K3, 0.0),
  "grpo, k3 times ratio": (LossConfig("ppo_clip", SEQ, **CLIP), KLConfig(0.25, "k3", times_ratio=True), 0.0),
  "grpo, two-sided": (LossConfig("dual_clip", SEQ, dual_clip=1.5, **CLIP), KLConfig(), 0.0),
  "bnpo": (LossConfig("ppo_clip", TOKEN, **CLIP), KLConfig(), 0.0),
  "dapo": (LossConfig("ppo_clip", TOKEN, **CLIP), KLConfig(), 0.0),
  "dapo, k3 and entropy": (LossConfig("ppo_clip", TOKEN, **CLIP), K3, 0.5),
  "dr_grpo": (LossConfig("ppo_clip", BUDGET, **CLIP), KLConfig(), 0.0),
  "dr_grpo, k3": (LossConfig("ppo_clip", BUDGET, **CLIP), K3, 0.0),
  "grpo, entropy": (LossConfig("ppo_clip", SEQ, **CLIP), KLConfig(), 0.5),
  "cispo": (LossConfig("cispo", TOKEN, clip_high=0.25), KLConfig(), 0.0),  # TRL's cap is absolute: 1.25
  "gspo": (LossConfig("gspo", SEQ, **CLIP), KLConfig(), 0.0),
  "gspo, dapo": (LossConfig("gspo", TOKEN, **CLIP), KLConfig(), 0.0),
  "gspo, k3": (LossConfig("gspo", SEQ, **CLIP), K3, 0.0),
  "sapo": (LossConfig("sapo", SEQ), KLConfig(), 0.0),
  "rloo": (LossConfig("rloo", SEQ, **CLIP), KLConfig(), 0.0),
  "on-policy": (LossConfig("reinforce", TOKEN), KLConfig(), 0.0),
  "reinforce": (LossConfig("reinforce", TOKEN), KLConfig(), 0.0),
  "reinforce, k1": (LossConfig("reinforce", TOKEN), KLConfig(0.25, "k1"), 0.0),
  "reinforce, k2": (LossConfig("reinforce", TOKEN), KLConfig(0.25, "k2"), 0.0),
  "reinforce, k1 times ratio": (LossConfig("reinforce", TOKEN), KLConfig(0.25, "k1", times_ratio=True), 0.0),
  "dual clip": (LossConfig("dual_clip", TOKEN, dual_clip=1.5, **CLIP), KLConfig(), 0.0),
}
# TRL's name of a metric -> ours. What else its trainers tell is either a minimum or maximum, or is checked elsewhere.
METRICS = {f"clip_ratio/{side}_mean": f"clip_ratio/{side}_mean" for side in ("low", "high", "region")}
METRICS |= {"entropy": "entropy", "kl": "kl/k3", "policy_loss": "loss/policy"}


def place(value) -> np.ndarray:
  """TRL's [4, 4] behind two columns of prompt and before two of padding."""
  return np.pad(value, [(0, 0), (2, 2)])


def experience_of(inputs: dict) -> Experience:
  """TRL's completions behind prompts."""
  mask = np.asarray(inputs["mask"], bool)
  action, zero = place(mask), np.zeros((4, 8), np.int32)
  advantage = np.where(mask, f32(inputs["advantage"])[:, None], 0.0)
  segment = (action | (np.arange(8) < 2)).astype(np.int32)
  old, ref = place(f32(inputs["logp_old"])), place(f32(inputs["logp_ref"]))
  return Experience(zero, segment, zero, action, old, old, place(advantage), f32(action), ref)


def ours(loss: LossConfig, kl: KLConfig, entropy: float, inputs: dict):
  """(loss, gradients, metrics) of our objective. Not validated: the other side has k1 in the loss, and no run here."""
  rl = RLConfig(
    steps=1, prompts=2, samples=2, max_tokens=inputs["r_max"], epochs=2, loss=loss, kl=kl, entropy=entropy
  )
  run = TrainConfig("test", MODEL, CountdownConfig(), rl=rl)
  learner, experience = rl_learner(run), experience_of(inputs)
  norms = global_norms(experience, learner.max_tokens)
  scores = TokenScores(*(place(f32(inputs[name])) for name in ("logp", "entropy")))
  value = jax.value_and_grad(objective(learner.terms), has_aux=True)
  (total, stats), grads = value(scores, experience, hyperparams(run, learner, 1), norms)
  return float(total), grads, resolve_stats(stats)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients(name) -> None:
  file = golden("losses")
  case, inputs = file["cases"][name], file["inputs"]
  loss, grads, told = ours(*LOSSES[name], inputs)
  # On-policy TRL's ratio is 1 by construction, so that its loss is -A where ours is -A lp: gradients alone agree.
  if name != "on-policy":
    assert loss == pytest.approx(case["loss"], rel=1e-6, abs=3e-7)
  np.testing.assert_allclose(grads.logp, place(case["d_logp"]), rtol=2e-6, atol=1e-7)
  np.testing.assert_allclose(grads.entropy, place(case["d_entropy"]), rtol=2e-6, atol=1e-7)
  shared = [theirs for theirs in METRICS if theirs in case["metrics"] and METRICS[theirs] in told]
  # TRL's KL metric is multiplied by the ratio where its loss is; its policy loss holds the KL, where there is one.
  held = {"kl"} if LOSSES[name][1].times_ratio else {"policy_loss"} if LOSSES[name][1].coef else set()
  for theirs in set(shared) - held:
    assert told[METRICS[theirs]] == pytest.approx(case["metrics"][theirs], rel=1e-6)
  assert name.startswith(("reinforce", "dual")) or "entropy" in shared


def test_the_golden_losses_reach_every_branch() -> None:
  cases = golden("losses")["cases"]
  assert set(cases) == set(LOSSES)
  for name in ("grpo", "gspo", "rloo"):
    assert cases[name]["metrics"]["clip_ratio/low_mean"] > 0
    assert cases[name]["metrics"]["clip_ratio/high_mean"] > 0
  assert cases["cispo"]["metrics"]["cispo_clip_ratio"] > 0
  for name, other in {
    "grpo, two-sided": "grpo",
    "dual clip": "dapo",
    "grpo, k3 times ratio": "grpo, k3",
  }.items():
    assert cases[name]["d_logp"] != cases[other]["d_logp"]


# Advantages: case of the golden file -> our options

ESTIMATORS = {
  "grpo": AdvantageConfig("grpo"),
  "dr_grpo": AdvantageConfig("dr_grpo"),
  "rloo": AdvantageConfig("rloo"),
  "rloo, k1 in the reward": AdvantageConfig("rloo"),
  "reinforce": AdvantageConfig("reinforce"),
  "remax": AdvantageConfig("remax"),
  "opo": AdvantageConfig("opo"),
  "maxrl": AdvantageConfig("maxrl"),
  "pass@k": AdvantageConfig("pass@k"),
  "reinforce++": AdvantageConfig("reinforce++"),
  "reinforce++, group baseline": AdvantageConfig("reinforce++", group_baseline=True),
}


STATS = jax.jit(reward_stats)


def credit_of(inputs: dict, kl: float) -> Credit:
  """The golden rewards, less `kl` times k1 by token."""
  length = np.asarray(inputs["length"], np.int32)
  action = np.arange(4) < length.reshape(-1, 1)
  widen = lambda value: np.pad(f32(value), [(0, 0), (0, 1)])
  token = -kl * kl_penalty(widen(inputs["logp"]), widen(inputs["logp_ref"]), action, "k1") if kl else None
  return Credit(f32(inputs["reward"]), length, length > 0, action, token, f32(inputs["greedy"]))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_advantages(name) -> None:
  file, cfg = golden("advantages"), ESTIMATORS[name]
  case = file["cases"][name]
  credit = credit_of(file["inputs"], 0.25 if name == "rloo, k1 in the reward" else 0.0)
  expected = np.where(credit.is_action, f32(case["advantage"]).reshape(-1, 1), 0.0)
  got = jax.jit(ADVANTAGES[cfg.kind].fn, static_argnums=1)(credit, RLConfig(advantage=cfg))
  np.testing.assert_allclose(got, expected, rtol=2e-6, atol=3e-7)
  # Equal rewards that a KL tells apart are level for our statistic, which looks at the outcomes alone.
  told = {k: v for k, v in case["metrics"].items() if credit.token is None or k != "frac_reward_zero_std"}
  stats = resolve_stats(STATS(credit))
  assert {k: stats[k] for k in told} == pytest.approx(told, rel=1e-6)


def test_every_golden_advantage_is_read() -> None:
  assert set(golden("advantages")["cases"]) == set(ESTIMATORS)


# Scores


class Bigram:
  """A language model whose logits are a row of a table, behind the interface that `score` asks of a Decoder."""

  cfg = MODEL

  def apply(self, variables, states, segment=None, position=None, method=None):
    if method == "head":
      return states
    return variables["params"]["table"][states], None


def score_golden(needs: frozenset[str], chunk: int):
  """Function of the table: TokenScores of the golden text's tokens but the first, [5]."""
  given = golden("scores")["inputs"]
  tokens = jnp.asarray(given["tokens"], jnp.int32)[None]
  reference = {"table": f32(given["reference"])}

  def scores(table) -> TokenScores:
    told = score(
      {"table": table}, reference, tokens, jnp.ones_like(tokens), jnp.arange(6)[None], model=Bigram(),
      temperature=jnp.float32(given["temperature"]), needs=needs, layout=Packed(), chunk=chunk,
    )  # fmt: skip
    return jax.tree.map(lambda a: a[0, 1:], told)

  return scores, f32(given["table"])


@pytest.mark.parametrize("chunk", [8, 2])
def test_scores_and_gradients(chunk) -> None:
  file = golden("scores")
  scores, table = score_golden(frozenset({"entropy", "kl_reverse", "kl_forward"}), chunk)
  ramp = np.arange(1.0, 6.0, dtype=np.float32)

  @jax.jit
  def both(table):
    weighted = lambda table: jax.tree.map(lambda a: ramp @ a, scores(table))
    return scores(table), jax.jacrev(weighted)(table)

  told, slopes = both(table)
  for name in ("logp", "entropy", "kl_reverse", "kl_forward"):
    np.testing.assert_allclose(vars(told)[name], file[name], rtol=2e-6, atol=3e-7)
    np.testing.assert_allclose(vars(slopes)[name], file[f"d_{name}"], rtol=5e-6, atol=2e-6)


def test_nll_is_torch_cross_entropy() -> None:
  file = golden("scores")
  scores, table = score_golden(frozenset(), 8)
  ones = np.ones((1, 5), np.int32)
  experience = Experience(ones, ones, ones, ones > 0, *(np.zeros((1, 5), np.float32),) * 3, f32(ones))
  norms = global_norms(experience, 5, 1)
  whole = lambda table: jax.tree.map(lambda a: a[None], scores(table))
  loss = lambda table: objective(sft_terms())(whole(table), experience, None, norms)[0]
  value, slope = jax.jit(jax.value_and_grad(loss))(table)
  assert float(value) == pytest.approx(file["nll"], rel=1e-6)
  np.testing.assert_allclose(slope, file["d_nll"], rtol=5e-6, atol=2e-7)


# The files themselves


@pytest.mark.parity
def test_golden_files_are_what_the_script_derives(tmp_path) -> None:
  python = os.environ.get("PARITY_PYTHON", sys.executable)
  subprocess.run([python, ROOT / "scripts" / "make_golden.py", "--out", tmp_path], check=True, timeout=300)
  names = sorted(path.name for path in GOLDEN.iterdir())
  assert sorted(path.name for path in tmp_path.iterdir()) == names
  for name in names:
    fresh, kept = (json.loads((folder / name).read_text()) for folder in (tmp_path, GOLDEN))
    assert jax.tree.structure(fresh) == jax.tree.structure(kept)
    np.testing.assert_allclose(jax.tree.leaves(fresh), jax.tree.leaves(kept), rtol=1e-6, atol=1e-9)

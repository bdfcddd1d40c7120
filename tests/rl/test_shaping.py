"""Lengths, truncation and the sampler's mismatch: rewards, masks and weights by hand, and the gradients they lead to.

`learned` goes the way of a training step: verified rewards -> shaped -> advantages -> weights -> REINFORCE's gradient.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o1jax.config import (
  AdvantageConfig,
  CountdownConfig,
  ImportanceConfig,
  KLConfig,
  LossConfig,
  ModelConfig,
  OverlongConfig,
  RLConfig,
  TrainConfig,
)
from o1jax.rl.experience import credit_and_experience, length_reward
from o1jax.rl.learner import hyperparams, rl_learner
from o1jax.rl.losses import AGGREGATIONS, global_norms, objective, rl_terms
from o1jax.rl.metrics import rollout_stats
from o1jax.rl.regularisers import moved, rl_controllers
from o1jax.types import Experience, Rollout, TokenScores, resolve_stats

R = 6
LENGTHS = np.array(
  [6, 3, 6, 5]
)  # of two groups of two; the first row is truncated, the third stops at its last token
FINISHED = np.array([False, True, True, True])
REWARD = np.float32([[1.0, 0.25], [0.0, 0.75]])
ACTION = (np.arange(2 + R) >= 2) & (np.arange(2 + R) < 2 + LENGTHS[:, None])
RNG = np.random.default_rng(4)
SAMPLER = np.where(ACTION, RNG.normal(-1, 0.2, ACTION.shape), 0).astype(np.float32)
LEARNER = np.where(ACTION, SAMPLER + RNG.normal(0, 0.4, ACTION.shape), 0).astype(np.float32)


def rollout_of(finished=FINISHED) -> Rollout:
  valid = ACTION | (np.arange(2 + R) < 2)
  return Rollout(np.zeros(ACTION.shape, np.int32), valid, ACTION, SAMPLER, finished, 2)


def config(overlong=OverlongConfig(), importance=ImportanceConfig(), **changes) -> RLConfig:
  old = "learner" if importance.cap is not None else "sampler"
  fields = {"loss": LossConfig("reinforce", logp_old=old), "advantage": AdvantageConfig("dr_grpo"), **changes}
  cfg = RLConfig(
    steps=2, prompts=2, samples=2, max_tokens=R, overlong=overlong, importance=importance, **fields
  )
  cfg.validate("rl")
  return cfg


def learned(
  cfg: RLConfig, rollout=None, logp_old=SAMPLER, logp_ref=None, reward=REWARD, greedy=None
) -> tuple[np.ndarray, Experience, dict]:
  """(d loss / d log-probs, the experience, metrics)."""
  strength = np.float32(cfg.kl.coef)
  rollout = rollout_of() if rollout is None else rollout
  experience, told = credit_and_experience(rollout, reward, greedy, logp_old, logp_ref, strength, cfg=cfg)
  norms = global_norms(experience, R, 1)
  scores = TokenScores(LEARNER, np.abs(LEARNER), np.abs(LEARNER), np.abs(LEARNER))
  zero = jnp.float32(0.0)
  strengths = STRENGTHS | {"kl.coef": jnp.float32(strength), "entropy": zero}
  grads, stats = jax.grad(objective(rl_terms(cfg)), has_aux=True)(scores, experience, strengths, norms)
  return np.asarray(grads.logp), experience, resolve_stats({**told, **stats})


MODEL = ModelConfig(width=8, layers=1, heads=1, kv_heads=1, head_dim=8, mlp=8, vocab=8)
RUN = TrainConfig("test", MODEL, CountdownConfig(), rl=config())
STRENGTHS = hyperparams(RUN, rl_learner(RUN), 1) | {"loss.clip_low": 0.0, "loss.clip_high": 0.0}


def centred(reward) -> np.ndarray:
  """f32[4, 1] advantages R - mean over the group."""
  reward = np.float32(reward)
  return (reward - reward.mean(1, keepdims=True)).reshape(-1, 1)


# Length rewards


@pytest.mark.parametrize(
  ("cfg", "expected"),
  [
    (OverlongConfig(), [0, 0, 0, 0]),
    (OverlongConfig(buffer=2), [-1, 0, -1, -0.5]),
    (OverlongConfig(buffer=4, penalty=2.0), [-2, -0.5, -2, -1.5]),
    (OverlongConfig(truncation_penalty=-10.0), [-10, 0, 0, 0]),
    (OverlongConfig(buffer=2, truncation_penalty=-10.0), [-11, 0, -1, -0.5]),
  ],
)
def test_length_rewards_by_hand(cfg, expected) -> None:
  np.testing.assert_array_equal(length_reward(rollout_of(), cfg, R), np.float32(expected))


def test_the_soft_penalty_at_every_length() -> None:
  # R = 6, C = 3: nothing up to 3 tokens, then a third a token, -1 at 6.
  action = np.arange(R) < np.arange(R + 1)[:, None]
  rollout = Rollout(
    np.zeros(action.shape, np.int32), action, action, np.zeros(action.shape), np.ones(7, bool), 0
  )
  got = length_reward(rollout, OverlongConfig(buffer=3), R)
  np.testing.assert_allclose(got, [0, 0, 0, 0, -1 / 3, -2 / 3, -1], rtol=1e-6)


@pytest.mark.parametrize(
  ("cfg", "added"),
  [
    (OverlongConfig(buffer=2), [[-1, 0], [-1, -0.5]]),
    (OverlongConfig(truncation_penalty=-3.0), [[-3, 0], [0, 0]]),
  ],
)
def test_a_length_reward_leads_the_gradient(cfg, added) -> None:
  gradient, _, told = learned(config(cfg))
  expected = -np.where(ACTION, centred(REWARD + added), 0.0) / LENGTHS.sum()
  np.testing.assert_allclose(gradient, expected, rtol=1e-6)
  assert told["reward"] == pytest.approx(np.mean(REWARD + added))
  assert told["rewards/length/mean"] == pytest.approx(np.mean(added))


def test_length_rewards_follow_tokens_not_columns() -> None:
  # The same completions in rows twice as wide.
  wide = jax.tree.map(lambda a: np.pad(a, [(0, 0), (3, 5)]) if a.ndim == 2 else a, rollout_of())
  cfg = OverlongConfig(buffer=2, truncation_penalty=-1.0)
  np.testing.assert_array_equal(length_reward(wide, cfg, R), length_reward(rollout_of(), cfg, R))


# Truncated completions left out


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_truncated_completion_enters_neither_baseline_nor_loss(aggregation) -> None:
  cfg = config(OverlongConfig(mask=True))
  cfg = dataclasses.replace(cfg, loss=LossConfig("reinforce", aggregation))
  gradient, experience, told = learned(cfg)
  # Its group is left with one completion, whose advantage is 0; 14 of the 20 tokens and 3 completions are counted.
  advantage = np.float32([[0], [0], [-0.375], [0.375]])
  norm = {"token_mean": 3 + 6 + 5, "seq_mean_token_mean": 3 * LENGTHS[:, None], "dr_grpo": 3 * R}[aggregation]
  np.testing.assert_allclose(gradient, -np.where(ACTION, advantage / norm, 0.0), rtol=1e-6)
  assert not experience.is_action[0].any() and not experience.weight[0].any()
  assert not np.any(experience.logp_old[0]) and not np.any(experience.logp_sampler[0])
  np.testing.assert_array_equal(experience.segment, rollout_of().valid)  # the forward pass is the same
  assert told["reward"] == pytest.approx((0.25 + 0.0 + 0.75) / 3)
  gap = np.abs(LEARNER - SAMPLER)[1:][ACTION[1:]]
  assert told["logp_gap/mean"] == pytest.approx(gap.mean(), rel=1e-6)
  assert told["logp_gap/max"] == pytest.approx(gap.max(), rel=1e-6)


def test_a_batch_of_truncated_completions_teaches_nothing() -> None:
  gradient, _, told = learned(config(OverlongConfig(mask=True)), rollout_of(np.zeros(4, bool)))
  np.testing.assert_array_equal(gradient, 0.0)
  assert not {"reward", "loss/policy"} & told.keys()


def test_a_truncated_completion_pays_no_kl() -> None:
  cfg = config(OverlongConfig(mask=True), kl=KLConfig(0.5, "k1", placement="reward"))
  reference = np.where(ACTION, SAMPLER - np.float32([[9.0], [0.5], [0.25], [0.5]]), 0)
  gradient, _, _ = learned(cfg, logp_ref=reference)
  paid = REWARD.reshape(-1) - 0.5 * LENGTHS * [9.0, 0.5, 0.25, 0.5]
  advantage = np.float32([[0], [0], [paid[2] - paid[2:].mean()], [paid[3] - paid[2:].mean()]])
  np.testing.assert_allclose(gradient, -np.where(ACTION, advantage, 0.0) / 14, rtol=1e-5, atol=1e-8)


# The sampler's mismatch

GAP = np.where(ACTION, np.float64(LEARNER) - SAMPLER, 0.0)
TOKEN = np.exp(GAP)
SEQUENCE = np.broadcast_to(np.exp(GAP.sum(1, keepdims=True)), ACTION.shape)
CORRECTIONS = {
  ("token", "clamp"): lambda cap: np.minimum(TOKEN, cap),
  ("token", "mask"): lambda cap: np.where(TOKEN > cap, 0.0, TOKEN),
  ("sequence", "clamp"): lambda cap: np.minimum(SEQUENCE, cap),
  ("sequence", "mask"): lambda cap: np.where(SEQUENCE > cap, 0.0, SEQUENCE),
}


@pytest.mark.parametrize(("level", "excess"), CORRECTIONS)
@pytest.mark.parametrize("cap", [1.2, 99.0])
def test_importance_weights_multiply_the_gradient(level, excess, cap) -> None:
  cfg = config(importance=ImportanceConfig(cap, level, excess))
  gradient, experience, told = learned(cfg, logp_old=LEARNER)
  weight = CORRECTIONS[level, excess](cap)
  cut = {"token": TOKEN, "sequence": SEQUENCE}[level][ACTION]
  assert (cut > 1.2).any() and (cut < 1.2).any() and cut.max() < 99.0
  np.testing.assert_allclose(experience.weight, np.where(ACTION, weight, 0.0), rtol=2e-6)
  expected = -np.where(ACTION, weight * centred(REWARD), 0.0) / LENGTHS.sum()
  np.testing.assert_allclose(gradient, expected, rtol=2e-6)
  assert told["importance/mean"] == pytest.approx(cut.mean(), rel=1e-5)
  assert told["importance/max"] == pytest.approx(cut.max(), rel=1e-5)


def test_importance_weights_make_the_samplers_mean_the_learners() -> None:
  # One token a row, each token of the vocabulary once and weighted by the SAMPLER's probability: without a correction the
  # gradient of its mean is that of another policy; with one it is the learner's exactly.
  logits, other = np.float32([0.3, -0.7, 1.1, 0.2]), np.float32([0.1, 0.2, 0.4, -0.5])
  learner, sampler = jax.nn.log_softmax(logits), jax.nn.log_softmax(other)
  reward = jnp.float32([1.0, 0.0, 0.5, -1.0])
  exact = jax.grad(lambda table: -jax.nn.softmax(table) @ reward)(logits)
  action = np.ones((4, 1), bool)
  rollout = Rollout(np.zeros((4, 1), np.int32), action, action, sampler[:, None], np.ones(4, bool), 0)
  cfg = dataclasses.replace(config(importance=ImportanceConfig(99.0)), advantage=AdvantageConfig("remax"))
  experience, _ = credit_and_experience(
    rollout, reward.reshape(2, 2), np.zeros(2, np.float32), learner[:, None], None, 0.0, cfg=cfg
  )

  def loss(table, weight):
    scores = TokenScores(jax.nn.log_softmax(table)[:, None], jnp.ones((4, 1)))
    drawn = experience.replace(weight=weight * jnp.exp(sampler)[:, None])
    norms = global_norms(experience, R, 1)
    return 4 * objective(rl_terms(cfg))(scores, drawn, STRENGTHS, norms)[0]

  corrected = jax.grad(loss)(jnp.asarray(logits), experience.weight)
  np.testing.assert_allclose(corrected, exact, atol=2e-7)
  assert np.abs(jax.grad(loss)(jnp.asarray(logits), jnp.ones((4, 1))) - exact).max() > 0.05


def test_a_ratio_beyond_all_numbers_is_cut() -> None:
  far = np.where(ACTION, SAMPLER + 20.0, 0).astype(np.float32)  # exp(120) of a sequence is no f32
  for excess, expected in (("clamp", 2.0), ("mask", 0.0)):
    cfg = config(importance=ImportanceConfig(2.0, "sequence", excess))
    _, experience, told = learned(cfg, logp_old=far)
    assert np.isfinite(told["importance/mean"]) and np.isfinite(told["importance/max"])
    np.testing.assert_array_equal(experience.weight[0], np.where(ACTION[0], expected, 0.0))


# Without strength


def test_without_strength_the_gradient_is_bitwise_that_without_it() -> None:
  plain, corrected = (
    learned(config())[0],
    LossConfig("ppo_clip", clip_low=9.0, clip_high=9.0, logp_old="learner"),
  )
  np.testing.assert_array_equal(learned(config(OverlongConfig(buffer=2, penalty=1e-30)))[0], plain)
  np.testing.assert_array_equal(learned(config(OverlongConfig(truncation_penalty=-0.0)))[0], plain)
  whole = rollout_of(np.ones(4, bool))
  np.testing.assert_array_equal(learned(config(OverlongConfig(mask=True)), whole)[0], plain)
  off, on = (
    dataclasses.replace(config(importance=i), loss=corrected)
    for i in (ImportanceConfig(), ImportanceConfig(1.0))
  )
  np.testing.assert_array_equal(
    learned(on)[0], learned(off)[0]
  )  # sampler and learner agree: every weight is 1


# Completions that nobody judged


def test_a_completion_that_was_not_judged_is_left_out_of_its_group_and_the_loss() -> None:
  reward = np.float32([[1.0, np.nan], [0.0, 0.75]])
  gradient, experience, told = learned(config(), reward=reward)
  assert not np.any(gradient[:2]) and np.any(gradient[2])  # alone in its group, the other one has no baseline
  assert experience.is_action.any(1).tolist() == [True, False, True, True]
  np.testing.assert_allclose(gradient[2:], -np.where(ACTION, centred(REWARD), 0.0)[2:] / 17, rtol=1e-6)
  assert told["reward"] == pytest.approx(1.75 / 3)
  remax = config(advantage=AdvantageConfig("remax"))
  gradient, _, told = learned(remax, reward=REWARD, greedy=np.float32([np.nan, 0.5]))
  assert not np.any(gradient[:2]) and np.isfinite(gradient).all() and np.any(gradient[2:])


# Means over nothing


def test_a_step_without_an_action_tells_no_figure_that_it_did_not_measure() -> None:
  cfg = config(
    OverlongConfig(mask=True), kl=KLConfig(0.1, "k3", target=0.1, horizon=32), entropy=0.01, entropy_target=1.0,
    entropy_rate=0.01,
  )  # fmt: skip
  rollout = rollout_of(np.zeros(4, bool))
  experience, told = credit_and_experience(rollout, REWARD, None, SAMPLER, LEARNER, np.float32(0.1), cfg=cfg)
  strengths = STRENGTHS | {"kl.coef": jnp.float32(0.1), "entropy": jnp.float32(0.01)}
  scores = TokenScores(LEARNER, np.abs(LEARNER))
  _, stats = objective(rl_terms(cfg))(scores, experience, strengths, global_norms(experience, R, 1))
  told = resolve_stats({**told, **stats})
  assert told.keys() == {"kl/coef", "entropy/coef"}
  held = {"kl.coef": jnp.float32(0.1), "entropy": jnp.float32(0.01)}
  after = moved(rl_controllers(cfg), held, stats, 4)
  assert {name: float(value) for name, value in after.items()} == {n: float(v) for n, v in held.items()}


def test_lengths_of_no_completion_are_not_told() -> None:
  told = resolve_stats(rollout_stats(rollout_of(), np.ones((2, 2), np.float32), np.ones(4, bool)))
  assert "incorrect/mean_length" not in told and told["correct/mean_length"] == LENGTHS.mean()
  reward = np.float32([[np.nan, 0.0], [1.0, np.nan]])
  told = resolve_stats(rollout_stats(rollout_of(), reward, np.array([False, False, True, False])))
  assert (told["accuracy"], told["rewards/task/mean"], told["incorrect/mean_length"]) == (
    0.5,
    0.5,
    LENGTHS[1],
  )

"""What rounding and overflow must not do: nothing has moved before anything is learned, and no ratio is beyond numbers.

Gradients in bfloat16: test_update. Norms, biases and queries in it: test_transformer. Draws: test_sample.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o1jax.config import CountdownConfig, CovConfig, KLConfig, LossConfig, ModelConfig, RLConfig, TrainConfig
from o1jax.model.transformer import Decoder, init_params
from o1jax.rl.draw import stream_key
from o1jax.rl.experience import prompt_batch
from o1jax.rl.generate import generate
from o1jax.rl.learner import first_state, gradients, hyperparams, rl_learner, run_epochs
from o1jax.rl.losses import global_norms, objective
from o1jax.rl.sampler import SampleConfig
from o1jax.rl.step import LearnerInputs, make_experience
from o1jax.types import Experience, Reward, TokenScores, resolve_stats

P, G, LP, R = 4, 8, 3, 64
SEQ = "seq_mean_token_mean"

# The first optimiser step


@functools.cache
def rolled(dtype: str) -> tuple:
  """(decoder, its parameters, a rollout of it)."""
  shape = dict(width=64, layers=3, heads=4, kv_heads=2, head_dim=16, mlp=128, vocab=64, scan_layers=True)
  model = Decoder(ModelConfig(**shape, dtype=dtype))
  params = nn.meta.unbox(jax.jit(functools.partial(init_params, model))(jax.random.key(0)))
  batch = prompt_batch([[4, 5, 6 + i] for i in range(P)], range(P), "abcd", LP)
  cfg, key = SampleConfig(R, (2,)), stream_key(0, "train", 1)
  given = (params, batch, key, jnp.float32(1.0))
  return model, params, generate(*given, model=model, samples=G, cfg=cfg)


def begun(dtype: str, reward: np.ndarray, **changes) -> tuple:
  """(learner, state, strengths, experience) of a valid run's first training step."""
  model, params, rollout = rolled(dtype)
  rl = RLConfig(steps=2, prompts=P, samples=G, max_prompt=LP, max_tokens=R, epochs=2, **changes)
  run = TrainConfig("test", model.cfg, CountdownConfig(), rl=rl)
  run.validate()
  learner = rl_learner(run)
  state, told = first_state(learner, jax.tree.map(jnp.copy, params)), hyperparams(run, learner, 1)
  inputs = LearnerInputs(rollout, Reward(reward), None, None, told)
  experience, _ = make_experience(state, inputs, learner=learner)
  return learner, state, told, experience


SOLVED = np.random.default_rng(0).integers(0, 2, (P, G)).astype(np.float32)


@pytest.mark.full
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("advantage", ["grpo", "reinforce++"])
def test_a_kl_of_nothing_in_the_reward_pays_nothing(dtype, advantage) -> None:
  kl = KLConfig(0.05, "k1", placement="reward")
  changes = dict(kl=kl, loss=LossConfig("ppo_clip", clip_low=0.2, clip_high=0.2, logp_old="learner"))
  changes["advantage"] = dataclasses.replace(RLConfig().advantage, kind=advantage)
  _, _, _, experience = begun(dtype, np.ones((P, G), np.float32), **changes)
  np.testing.assert_array_equal(experience.advantage, 0.0)


@pytest.mark.full
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nothing_is_clipped_before_anything_is_learned(dtype) -> None:
  loss = LossConfig("gspo", SEQ, clip_low=3e-4, clip_high=4e-4, logp_old="learner")
  learner, state, told, experience = begun(dtype, SOLVED, loss=loss)
  one = dataclasses.replace(learner, epochs=1)
  _, stats = run_epochs(state, experience, jax.random.key(0), told, learner=one)
  assert resolve_stats(stats)["clip_ratio/region_mean"] == 0.0
  assert np.any(experience.advantage)


@pytest.mark.full
@pytest.mark.parametrize("logp_old", ["sampler", "learner"])
def test_kl_cov_pushes_nothing_before_anything_is_learned(logp_old) -> None:
  loss = LossConfig("ppo_clip", clip_low=0.2, clip_high=0.2, logp_old=logp_old)
  cov = CovConfig("kl_cov", fraction=0.1, coef=1.0)
  learner, state, told, experience = begun("float32", SOLVED, loss=loss, cov=cov)
  held = experience.replace(cov_mask=learner.token_mask(experience, jax.random.key(0)))
  assert held.cov_mask.sum() > 10
  norms = global_norms(held, R, 1)

  def size(name: str) -> float:
    (term,) = (term for term in learner.terms if term.name == name)
    cfg = dataclasses.replace(learner, terms=(term,), exact_start=False)
    grads = gradients(state.params, None, held, told, norms, learner=cfg)[1]
    return float(jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads))))

  assert size("cov") < 1e-3 * size("policy")


# Extreme ratios

CLIPS = {"clip_low": 0.2, "clip_high": 0.3}
KINDS = [LossConfig(kind, SEQ, **CLIPS) for kind in ("ppo_clip", "gspo", "rloo")]
KINDS += [
  LossConfig("dual_clip", dual_clip=3.0, **CLIPS),
  LossConfig("cispo", clip_high=1.0),
  LossConfig("sapo"),
]
KLS = [KLConfig(0.1, name) for name in ("k2", "k3")]
KLS += [KLConfig(0.1, name, times_ratio=True) for name in ("k1", "k2", "k3")]
EXTREME = [(loss, KLConfig()) for loss in KINDS] + [(KINDS[0], kl) for kl in KLS]


def far(loss: LossConfig, kl: KLConfig, gap: np.ndarray, advantage: float, **clips: float) -> tuple:
  """(loss, its gradient by the log-probs) of completions whose log-probs lie `gap` f32[2, 4] above old and reference."""
  rl = RLConfig(steps=2, prompts=1, samples=2, max_tokens=4, epochs=2, loss=loss, kl=kl)
  run = TrainConfig("test", rolled("float32")[0].cfg, CountdownConfig(), rl=rl)
  run.validate()
  learner, ones = rl_learner(run), np.ones((2, 4), np.float32)
  told = hyperparams(run, learner, 1) | {f"loss.{name}": value for name, value in clips.items()}
  row = ones.astype(np.int32)
  experience = Experience(
    row, row, row, row > 0, -ones - gap, -ones - gap, advantage * ones, ones, -ones - gap
  )
  term = lambda logp: objective(learner.terms)(
    TokenScores(logp, ones), experience, told, global_norms(experience, 4, 1)
  )[0]
  return tuple(map(np.asarray, jax.value_and_grad(term)(-ones)))


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize("gap", [100.0, -100.0])
@pytest.mark.parametrize(("loss", "kl"), EXTREME)
def test_extreme_ratios_leave_loss_and_gradient_finite(loss, kl, gap, tokens, advantage) -> None:
  gaps = np.where(np.arange(4) < tokens, np.float32(gap), 0) * np.ones((2, 1), np.float32)
  value, slope = far(loss, kl, gaps, advantage)
  assert np.isfinite(value) and np.isfinite(slope).all()


@pytest.mark.parametrize(("gap", "bounded"), [(19.5, 19.5), (-19.5, -19.5), (30.0, 20.0), (-30.0, -20.0)])
def test_ratios_are_bounded_at_20_nats_and_not_before(gap, bounded) -> None:
  value, slope = far(KINDS[0], KLConfig(), np.full((2, 4), gap, np.float32), -1.0, clip_low=jnp.float32(2.0))
  assert value == pytest.approx(np.exp(bounded), rel=1e-6)
  np.testing.assert_allclose(slope, value / 8 if gap == bounded else 0.0, rtol=1e-6)

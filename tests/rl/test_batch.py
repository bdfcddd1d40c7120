"""Prompts become left-padded rows, and one that cannot names its problem; before anything is learned nothing has moved."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o1jax.config import (
  ConfigError,
  CountdownConfig,
  CovConfig,
  KLConfig,
  LossConfig,
  ModelConfig,
  RLConfig,
  TrainConfig,
)
from o1jax.model.transformer import Decoder, init_params
from o1jax.rl.batch import prompt_batch, response_width
from o1jax.rl.objective import global_norms
from o1jax.rl.sample import SampleConfig, generate, stream_key
from o1jax.rl.stages import first_state, rl_stage, strengths_at
from o1jax.rl.step import recall
from o1jax.rl.update import gradients, learn
from o1jax.types import resolve_stats

P, G, LP, R = 4, 4, 3, 48


def test_prompts_lie_at_the_right_end_of_their_rows() -> None:
  batch = prompt_batch([[5, 6], [7]], [2**32 - 1, 3], ["a", "b"], 3)
  np.testing.assert_array_equal(batch.tokens, [[0, 5, 6], [0, 0, 7]])
  np.testing.assert_array_equal(batch.mask, [[False, True, True], [False, False, True]])
  assert batch.problem_id.dtype == np.uint32 and batch.problem_id.tolist() == [2**32 - 1, 3]


@pytest.mark.parametrize(
  ("prompt", "message"),
  [
    ([], "prompt: problem 'b' has no prompt tokens"),
    ([5, 6, 7, 8], "rl.max_prompt: problem 'b' has 4 prompt tokens, the limit is 3"),
  ],
)
def test_a_prompt_that_fits_no_row_names_its_problem(prompt, message) -> None:
  with pytest.raises(ConfigError) as caught:
    prompt_batch([[5], prompt], [1, 2], ["a", "b"], 3)
  assert str(caught.value) == message


@pytest.mark.parametrize("trim", [1, 16, 48])
@pytest.mark.parametrize("most", [1, 15, 16, 64, 96, 1000, 8192, 32768])
def test_the_update_has_six_widths_at_most(most, trim) -> None:
  cfg = RLConfig(max_tokens=most, trim=trim)
  widths = {longest: response_width(cfg, longest) for longest in range(1, most + 1)}
  assert len(set(widths.values())) <= 6
  assert all(longest <= width <= most for longest, width in widths.items())
  assert all(width % trim == 0 or width == most for width in widths.values())
  if most <= 6 * trim:  # as little padding as there can be
    assert all(width - longest < trim for longest, width in widths.items())


# The first optimiser step


@functools.cache
def rolled(dtype: str) -> tuple:
  """(decoder, its parameters, a rollout of it)."""
  shape = dict(width=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp=64, vocab=32)
  model = Decoder(ModelConfig(**shape, dtype=dtype))
  params = nn.meta.unbox(jax.jit(functools.partial(init_params, model))(jax.random.key(0)))
  batch = prompt_batch([[4, 5, 6 + i] for i in range(P)], range(P), "abcd", LP)
  cfg, key = SampleConfig(R, (2,)), stream_key(0, "train", 1)
  run = TrainConfig("test", model.cfg, CountdownConfig(), rl=RLConfig(steps=2))
  given = (params, batch, key, strengths_at(run, rl_stage(run), 1))
  return model, params, generate(*given, model=model, samples=G, cfg=cfg)


def begun(dtype: str, reward: np.ndarray, **changes) -> tuple:
  """(stage, state, strengths, experience) of a valid run's first training step."""
  model, params, rollout = rolled(dtype)
  rl = RLConfig(steps=2, prompts=P, samples=G, max_prompt=LP, max_tokens=R, epochs=2, **changes)
  run = TrainConfig("test", model.cfg, CountdownConfig(), rl=rl)
  run.validate()
  stage = rl_stage(run)
  state, told = first_state(stage, jax.tree.map(jnp.copy, params)), strengths_at(run, stage, 1)
  experience, _ = recall(state, rollout, reward, None, told, model=model, stage=stage, cfg=rl)
  return stage, state, told, experience


SOLVED = np.random.default_rng(0).integers(0, 2, (P, G)).astype(np.float32)
SEQ = "seq_mean_token_mean"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("advantage", ["grpo", "reinforce++"])
def test_a_kl_of_nothing_in_the_reward_pays_nothing(dtype, advantage) -> None:
  kl = KLConfig(0.05, "k1", placement="reward")
  changes = dict(kl=kl, loss=LossConfig("ppo_clip", clip_low=0.2, clip_high=0.2, logp_old="learner"))
  changes["advantage"] = dataclasses.replace(RLConfig().advantage, kind=advantage)
  _, _, _, experience = begun(dtype, np.ones((P, G), np.float32), **changes)
  np.testing.assert_array_equal(experience.advantage, 0.0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nothing_is_clipped_before_anything_is_learned(dtype) -> None:
  loss = LossConfig("gspo", SEQ, clip_low=3e-4, clip_high=4e-4, logp_old="learner")
  stage, state, told, experience = begun(dtype, SOLVED, loss=loss)
  one = dataclasses.replace(stage.update, epochs=1)
  model = rolled(dtype)[0]
  _, stats = learn(state, experience, jax.random.key(0), told, model=model, tx=stage.tx, cfg=one)
  assert resolve_stats(stats)["clip_ratio/region_mean"] == 0.0
  assert np.any(experience.advantage)


@pytest.mark.parametrize("logp_old", ["sampler", "learner"])
def test_kl_cov_pushes_nothing_before_anything_is_learned(logp_old) -> None:
  loss = LossConfig("ppo_clip", clip_low=0.2, clip_high=0.2, logp_old=logp_old)
  cov = CovConfig("kl_cov", fraction=0.1, coef=1.0)
  stage, state, told, experience = begun("float32", SOLVED, loss=loss, cov=cov)
  held = experience.replace(held_back=stage.update.hold_back(experience, jax.random.key(0)))
  assert held.held_back.sum() > 10
  norms = global_norms(held, R, 1)

  def size(name: str) -> float:
    (term,) = (term for term in stage.update.terms if term.name == name)
    cfg = dataclasses.replace(stage.update, terms=(term,), exact_start=False)
    grads = gradients(state.params, None, held, told, norms, model=rolled("float32")[0], cfg=cfg)[1]
    return float(jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads))))

  assert size("cov") < 1e-3 * size("policy")

"""Prompts in, G responses to each out: the sampler as one compiled program, and its Rollout."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from o1jax.model.transformer import Decoder
from o1jax.rl.draw import row_noise
from o1jax.rl.sampler import SampleConfig, SamplerState, begin, by_row, decode, prefill, sampling_params
from o1jax.rl.slots import decode_slots
from o1jax.types import PromptBatch, Rollout


def rollout_of(
  batch: PromptBatch, state: SamplerState, pad: int, policy_step: jax.Array | int | None
) -> Rollout:
  """Prompts and what stands behind them, as rows of one width."""
  rows = state.done.shape[0]
  valid = jnp.arange(state.tokens.shape[0])[:, None] < state.length

  def join(prompt: jax.Array, response: jax.Array) -> jax.Array:
    return jnp.concatenate([by_row(prompt, state.prompt_row, rows), response.T], axis=1)

  return Rollout(
    tokens=join(jnp.where(batch.mask, batch.tokens, pad), jnp.where(valid, state.tokens, pad)),
    valid=join(batch.mask, valid),
    is_action=join(jnp.zeros_like(batch.mask), state.is_action),
    logp_sampler=join(jnp.zeros(batch.tokens.shape, jnp.float32), state.logp),
    finished=state.done,
    prompt_width=batch.tokens.shape[1],
    policy_step=None if policy_step is None else jnp.full((rows,), policy_step, jnp.int32),
  )


@functools.partial(jax.jit, static_argnames=("model", "samples", "cfg"))
def generate(
  params: Any,
  batch: PromptBatch,
  key: jax.Array,
  temperature: jax.Array,
  *,
  model: Decoder,
  samples: int,
  cfg: SampleConfig,
  token_map: jax.Array | None = None,
  forced: jax.Array | None = None,
  policy_step: jax.Array | int | None = None,
) -> Rollout:
  """`samples` responses to each prompt at temperature f32[]. Consumes the key (`stream_key`).

  `token_map` i32[V] says what stands in the place of each token drawn: itself, or another that forbids
  stopping. `forced` i32[B, R] has tokens that stand whatever is drawn, UNFORCED where the policy chooses.
  Tokens forced or replaced are no actions: they carry no log-prob and no loss. `policy_step` as in `Rollout`.
  """
  params = sampling_params(params, model)
  prompts = prefill(params, batch, model=model)
  noise = row_noise(key, batch.problem_id, samples, cfg.max_tokens, batch.earlier)
  state = begin(
    params, prompts, noise, temperature, model=model, cfg=cfg,
    token_map=token_map, forced=None if forced is None else forced.T,
  )  # fmt: skip
  rows = batch.tokens.shape[0] * samples
  decode_rows = decode_slots if 0 < cfg.slots < rows else decode
  state = decode_rows(params, state, prompts, temperature, model=model, cfg=cfg)
  return rollout_of(batch, state, cfg.pad, policy_step)

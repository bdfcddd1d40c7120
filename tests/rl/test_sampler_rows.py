"""The sampler as a state and a step: rows at positions of their own, and tokens that others put into them."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import compiled

from o1jax.config import ModelConfig
from o1jax.model.transformer import Decoder, init_params
from o1jax.rl import sampler
from o1jax.rl.draw import row_noise, stream_key
from o1jax.rl.generate import generate, rollout_of
from o1jax.rl.sampler import PromptCache, SampleConfig, SamplerState, prompts_of
from o1jax.rl.scoring import Grouped, Packed, score
from o1jax.types import PromptBatch, Rollout

P, G, LP, R = 3, 4, 6, 90
CFG = SampleConfig(R, (2,))
BASE = dict(width=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp=64, vocab=30)
KINDS = {"plain": {}, "scanned": {"scan_layers": True, "window": (0, 7), "qk_norm": "full"}}
KEY, WARM = stream_key(0, "train", 1), jnp.float32(0.8)


@functools.cache
def policy(kind: str = "plain") -> tuple[Decoder, Any]:
  """(decoder, variables as the sampler takes them)."""
  model = Decoder(ModelConfig(**BASE, **KINDS[kind]))
  with jax.ensure_compile_time_eval():  # it may first be asked for while a program is traced
    params = nn.meta.unbox(jax.jit(functools.partial(init_params, model))(jax.random.key(0)))
    return model, sampler.sampling_params(params, model)


def problems() -> PromptBatch:
  """Prompts of 6, 4 and 3 tokens."""
  tokens = np.random.default_rng(0).integers(4, 30, (P, LP)).astype(np.int32)
  mask = np.arange(LP) >= np.array([[0], [2], [3]])
  return PromptBatch(jnp.asarray(tokens), jnp.asarray(mask), jnp.arange(7, 7 + P, dtype=jnp.uint32))


def noise_of(batch: PromptBatch) -> jax.Array:
  return row_noise(KEY, batch.problem_id, G, R)


@functools.partial(jax.jit, static_argnames=("kind", "cfg"))
def begun(temperature=WARM, *, kind: str = "plain", cfg=CFG) -> tuple[PromptCache, SamplerState]:
  """(the prompts, G rows of each with their first token)."""
  model, params = policy(kind)
  prompts = sampler.prefill(params, problems(), model=model)
  state = sampler.begin(params, prompts, noise_of(problems()), temperature, model=model, cfg=cfg)
  return prompts, state


@functools.partial(jax.jit, static_argnames=("kind", "cfg"))
def decoded(state, prompts, temperature=WARM, *, kind: str = "plain", cfg=CFG) -> SamplerState:
  model, params = policy(kind)
  return sampler.decode(params, state, prompts, temperature, model=model, cfg=cfg)


@jax.jit
def stepped(state, prompts) -> SamplerState:
  model, params = policy()
  return sampler.decode_step(params, state, prompts, WARM, model=model, cfg=CFG)


@functools.partial(jax.jit, static_argnames="kind")
def extended(state, prompts, tokens, mask, *, kind: str = "plain") -> SamplerState:
  model, params = policy(kind)
  return sampler.extend(params, state, prompts, tokens, mask, model=model)


def apart(state: SamplerState, **changes) -> SamplerState:
  """The state with a position for each row."""
  return dataclasses.replace(state, step=None, **changes)


def rows_of(state: SamplerState, other: SamplerState, chosen: np.ndarray) -> SamplerState:
  """Rows bool[B] of `state`, the others of `other`; layers are not scanned."""
  pick = lambda a, b: jnp.where(chosen, a, b)
  pick_cache = lambda a, b: jnp.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b)
  mixed = jax.tree.map(pick, dataclasses.replace(state, cache=None), dataclasses.replace(other, cache=None))
  return dataclasses.replace(mixed, cache=jax.tree.map(pick_cache, state.cache, other.cache))


def others_tokens(seed: int = 3, most: int = 7) -> tuple[jax.Array, jax.Array]:
  """(tokens i32[B, most], mask with holes, some rows without any)."""
  rng = np.random.default_rng(seed)
  mask = rng.random((P * G, most)) < rng.random((P * G, 1))
  mask[::5] = False
  mask[1] = True
  return jnp.asarray(rng.integers(4, 30, mask.shape)), jnp.asarray(mask)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_at_own_positions_draw_what_rows_in_step_draw(kind) -> None:
  model, params = policy(kind)
  expected = generate(params["params"], problems(), KEY, WARM, model=model, samples=G, cfg=CFG)
  prompts, state = begun(kind=kind)
  state = decoded(apart(state), prompts, kind=kind)
  rollout = rollout_of(problems(), state, CFG.pad, None)
  for name in ("tokens", "valid", "is_action", "finished"):
    np.testing.assert_array_equal(getattr(rollout, name), getattr(expected, name))
  np.testing.assert_allclose(rollout.logp_sampler, expected.logp_sampler, atol=1e-5, rtol=0)
  lengths = set(np.asarray(state.length).tolist())
  assert len(lengths) > 4 and max(lengths) > sampler.KEY_BLOCK  # so that the cache grew


def test_a_row_does_not_depend_on_slot_or_neighbours() -> None:
  prompts, state = begun()
  plain = decoded(apart(state), prompts)
  older = apart(state)
  for _ in range(5):
    older = stepped(older, prompts)
  young = apart(state)
  mixed = rows_of(older, young, np.arange(P * G) % 3 == 0)
  assert len(set(np.asarray(mixed.length).tolist())) > 1
  order = np.random.default_rng(1).permutation(P * G)[: P * G - 2]  # in other slots, and two rows less
  moved = dataclasses.replace(
    jax.tree.map(lambda a: a[..., order], dataclasses.replace(mixed, cache=None)),
    cache=jax.tree.map(lambda a: a[order], mixed.cache), prompt_row=jnp.asarray(order // G),
  )  # fmt: skip
  for got, rows in ((decoded(mixed, prompts), np.arange(P * G)), (decoded(moved, prompts), order)):
    for name in ("tokens", "is_action", "length", "done"):
      np.testing.assert_array_equal(getattr(got, name), np.asarray(getattr(plain, name))[..., rows])
    np.testing.assert_allclose(got.logp, np.asarray(plain.logp)[:, rows], atol=1e-5, rtol=0)


def test_a_step_reads_the_prompt_of_its_row() -> None:
  prompts, state = begun()
  rows = jnp.arange(P * G) // G
  shared, by_row = stepped(apart(state), prompts), stepped(apart(state, prompt_row=rows), prompts)
  np.testing.assert_array_equal(by_row.tokens, shared.tokens)
  np.testing.assert_allclose(by_row.logp, shared.logp, atol=1e-5, rtol=0)
  copied = stepped(apart(state), prompts_of(prompts, rows))
  np.testing.assert_array_equal(copied.tokens, shared.tokens)


def rescored(kind: str, rollout: Rollout, layout: Any) -> jax.Array:
  """The learner's log-probs of the actions."""
  model, params = policy(kind)
  segment = rollout.valid.astype(jnp.int32)
  position = jnp.maximum(jnp.cumsum(segment, axis=1) - 1, 0)
  scores = score(
    params["params"], None, rollout.tokens, segment, position, model=model, temperature=WARM,
    needs=frozenset(), layout=layout, chunk=4096,
  )  # fmt: skip
  return jnp.where(rollout.is_action, scores.logp, 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_extended_rows_agree_with_the_learner(kind) -> None:
  prompts, state = begun(kind=kind)
  first = decoded(state, prompts, kind=kind)  # in step
  tokens, mask = others_tokens()
  given = extended(first, prompts, tokens, mask, kind=kind)
  count = np.minimum(np.asarray(mask).sum(1), R - np.asarray(first.length))
  np.testing.assert_array_equal(given.length, first.length + count)
  np.testing.assert_array_equal(given.done, first.done & (count == 0))
  last = decoded(given, prompts, kind=kind)
  rollout = rollout_of(problems(), last, CFG.pad, 4)
  response, action = (np.asarray(a)[:, LP:] for a in (rollout.tokens, rollout.is_action))
  for row, (start, n) in enumerate(zip(np.asarray(first.length), count)):
    np.testing.assert_array_equal(response[row, start : start + n], np.asarray(tokens)[row, mask[row]][:n])
    assert not action[row, start : start + n].any() and action[row, :start].all()
  assert (np.asarray(last.length) > np.asarray(given.length)).sum() > 3  # rows went on
  assert (np.asarray(rollout.logp_sampler)[~np.asarray(rollout.is_action)] == 0).all()
  for layout in (Packed(), Grouped(rollout.prompt_width, G)):
    np.testing.assert_allclose(rescored(kind, rollout, layout), rollout.logp_sampler, atol=1e-4, rtol=0)
  np.testing.assert_array_equal(rollout.policy_step, np.full(P * G, 4))


def test_a_row_counts_the_tokens_it_drew_and_not_those_of_others() -> None:
  """So hot that the noise alone decides: others' tokens in between change no draw."""
  hot, cfg = jnp.float32(1e6), SampleConfig(R, (99,))
  prompts, state = begun(hot, cfg=cfg)
  plain = np.asarray(decoded(state, prompts, hot, cfg=cfg).tokens)
  tokens, mask = others_tokens()
  last = decoded(extended(state, prompts, tokens, mask), prompts, hot, cfg=cfg)
  for row, n in enumerate(np.asarray(mask).sum(1)):
    drawn = np.asarray(last.tokens)[np.asarray(last.is_action)[:, row], row]
    assert len(drawn) == R - n == last.sampled[row]
    np.testing.assert_array_equal(drawn, plain[: R - n, row])


def test_a_row_without_room_keeps_what_fits_and_is_full() -> None:
  prompts, state = begun()
  first = decoded(state, prompts)
  tokens = jnp.full((P * G, R), 5)
  full = extended(first, prompts, tokens, jnp.ones(tokens.shape, bool))
  assert (full.length == R).all() and not full.going().any()
  assert (np.asarray(full.tokens)[np.arange(R)[:, None] >= np.asarray(first.length)] == 5).all()
  np.testing.assert_array_equal(decoded(full, prompts).tokens, full.tokens)


def test_a_temperature_is_traced() -> None:
  model, params = policy()
  given = dict(model=model, samples=G, cfg=CFG)
  draw = lambda t: generate(params["params"], problems(), KEY, jnp.float32(t), **given).logp_sampler
  first, before = draw(0.5), compiled()["jit(generate)"]
  assert not np.array_equal(draw(1.5), first) and compiled()["jit(generate)"] == before

"""Slot refill draws the tokens of the static batch, whatever the slots, the devices and the lengths."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o1jax.config import MeshConfig, ModelConfig
from o1jax.model.transformer import Decoder, init_params
from o1jax.parallel.mesh import make_mesh
from o1jax.parallel.sharding import RULES, param_shardings, put_rows
from o1jax.rl.draw import stream_key
from o1jax.rl.generate import generate
from o1jax.rl.sampler import KEY_BLOCK, UNFORCED, SampleConfig
from o1jax.types import PromptBatch, Rollout

P, G, LP, R, STOP = 4, 4, 5, 90, 2
BASE = dict(width=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp=64, vocab=30)
GEMMA = dict(window=(0, 7), attention_softcap=20.0, rope_theta=(1e4, 1e6), scan_layers=True)


@functools.cache
def policy(kind: str = "plain") -> tuple[Decoder, Any]:
  """(decoder, parameters boxed with their logical axes)."""
  model = Decoder(ModelConfig(**BASE, **{"plain": {}, "gemma": GEMMA}[kind]))
  return model, jax.jit(functools.partial(init_params, model))(jax.random.key(0))


def problems() -> PromptBatch:
  """Prompts of 5, 4, 3 and 2 tokens."""
  tokens = np.random.default_rng(0).integers(4, 30, (P, LP)).astype(np.int32)
  mask = np.arange(LP) >= np.arange(P)[:, None]
  return PromptBatch(tokens, mask, np.arange(7, 7 + P, dtype=np.uint32))


def draw(slots: int, kind: str = "plain", **options) -> Rollout:
  model, boxed = policy(kind)
  return generate(
    nn.meta.unbox(boxed), jax.tree.map(jnp.asarray, problems()), stream_key(0, "train", 1), jnp.float32(0.8),
    model=model, samples=G, cfg=SampleConfig(R, (STOP,), slots=slots), **options,
  )  # fmt: skip


def assert_same(left: Rollout, right: Rollout) -> None:
  for name in ("tokens", "valid", "is_action", "finished"):
    np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
  np.testing.assert_allclose(left.logp_sampler, right.logp_sampler, atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", ["plain", "gemma"])
def test_slots_draw_what_the_static_batch_draws(kind) -> None:
  static = draw(0, kind)
  lengths = np.asarray(static.is_action).sum(1)
  assert len(set(lengths.tolist())) > 4 and lengths.max() > KEY_BLOCK  # slots are refilled, blocks are full
  for slots in (1, 3):
    assert_same(draw(slots, kind), static)


def test_as_many_slots_as_rows_are_the_static_batch() -> None:
  np.testing.assert_array_equal(draw(P * G).logp_sampler, draw(0).logp_sampler)


def test_forced_and_replaced_tokens_stand_in_slots_too() -> None:
  forced = jnp.full((P * G, R), UNFORCED).at[::2, 3].set(9).at[1, 0].set(STOP)
  token_map = jnp.arange(BASE["vocab"]).at[4].set(5)
  static, slots = (draw(n, forced=forced, token_map=token_map) for n in (0, 3))
  assert_same(slots, static)
  assert static.finished[1] and static.valid[1, LP:].sum() == 1  # over before it gets a slot
  assert not (static.tokens[:, LP:] == 4).any()


@pytest.mark.full
@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2)])
def test_eight_devices_refill_their_own_slots(shape) -> None:
  model, boxed = policy()
  mesh = make_mesh(MeshConfig(*shape))
  params = jax.device_put(nn.meta.unbox(boxed), param_shardings(boxed, mesh))
  batch = jax.tree.map(lambda a: np.concatenate([a, a + 1 if a.dtype == np.uint32 else a]), problems())
  given: Any = dict(
    key=stream_key(0, "train", 1), temperature=jnp.float32(0.8), model=model, samples=G,
    cfg=SampleConfig(R, (STOP,), slots=8),
  )  # fmt: skip
  one = generate(nn.meta.unbox(boxed), jax.tree.map(jnp.asarray, batch), **given)
  with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
    assert_same(generate(params, put_rows(batch, mesh), **given), one)

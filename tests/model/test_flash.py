"""Attention by blocks of queries and keys against all scores at once: values and gradients."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o1jax.config import ModelConfig
from o1jax.model import flash
from o1jax.model.attention import KV, attend, visible
from o1jax.model.flash import KeyRows, attend_long
from o1jax.model.transformer import Decoder, init_params

pytestmark = pytest.mark.full

N, M, K, GROUP, H = 4, 2, 2, 2, 8
WIDE = 2**30


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch) -> None:
  monkeypatch.setattr(flash, "BLOCKS", (16,))


def case(kind: str) -> tuple:
  """(q, sources, (segment, position) of the queries); lengths are no multiples of a block."""
  rng = np.random.default_rng(0)
  f = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  length = 53
  segment, position = np.ones((N, length), np.int32), np.tile(np.arange(length, dtype=np.int32), (N, 1))
  if kind == "packed":
    ends = [[7, 30, 31, 50], [53, 53, 53, 53], [20, 40, 53, 53], [1, 2, 3, 40]]
    for row, cuts in enumerate(ends):
      starts = [0, *cuts[:-1]]
      segment[row], position[row] = 0, 0
      for index, (start, end) in enumerate(zip(starts, cuts)):
        segment[row, start:end], position[row, start:end] = index + 1, np.arange(end - start)
  sources = [KeyRows(KV(f(N, K, H, length), f(N, K, length, H)), jnp.asarray(segment), jnp.asarray(position))]
  if kind == "shared":  # prompts of 40 and 25 tokens, padded on the left
    width, lengths = 40, np.array([[40], [25]])
    there = (np.arange(width) >= width - lengths).astype(np.int32)
    at = np.maximum(np.cumsum(there, 1) - 1, 0)
    position += np.repeat(lengths, N // M, axis=0).astype(np.int32)
    segment[:, 45:] = 0
    sources[0] = sources[0]._replace(segment=jnp.asarray(segment), position=jnp.asarray(position))
    kv = KV(f(M, K, H, width), f(M, K, width, H))
    sources.append(KeyRows(kv, jnp.asarray(there), jnp.asarray(at, jnp.int32)))
  return f(N, K, GROUP, length, H), tuple(sources), (jnp.asarray(segment), jnp.asarray(position))


def all_at_once(q, kvs, sources, own, window, cap):
  blocks = []
  for kv, source in zip(kvs, sources):
    keys = tuple(jnp.repeat(a, N // a.shape[0], axis=0) for a in source[1:])
    blocks.append((kv, visible(own, keys, window)))
  return attend(q, blocks, cap)


def by_blocks(q, kvs, sources, own, window, cap):
  return attend_long(q, tuple(s._replace(kv=kv) for kv, s in zip(kvs, sources)), own, window, cap)


@pytest.mark.parametrize(("window", "cap"), [(WIDE, 0.0), (9, 0.0), (WIDE, 3.0), (20, 3.0)])
@pytest.mark.parametrize("kind", ["plain", "packed", "shared"])
def test_blocks_give_the_values_and_gradients_of_all_scores(kind, window, cap) -> None:
  q, sources, own = case(kind)
  kvs = tuple(source.kv for source in sources)
  there = (own[0] > 0)[:, None, None, :, None]
  weight = jnp.asarray(np.random.default_rng(1).normal(size=q.shape), jnp.float32) * there

  def total(attention, q, kvs):
    out = attention(q, kvs, sources, own, jnp.int32(window), cap)
    return (out * weight).sum(), out

  results = []
  for attention in (all_at_once, by_blocks):
    run = jax.jit(jax.value_and_grad(functools.partial(total, attention), argnums=(0, 1), has_aux=True))
    results.append(run(q, kvs))
  ((_, out), grads), ((_, blocks_out), blocks_grads) = results
  np.testing.assert_allclose(jnp.where(there, blocks_out, 0), jnp.where(there, out, 0), atol=2e-6, rtol=0)
  assert bool(jnp.isfinite(blocks_out).all())
  norm = np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(grads)))
  for a, b in zip(jax.tree.leaves(blocks_grads), jax.tree.leaves(grads)):
    assert float(jnp.abs(a - b).max()) <= 1e-6 * norm


def test_blocks_that_no_query_sees_are_not_read() -> None:
  """Packed rows and windows: three blocks of 16 queries read their own segment's blocks alone."""
  segment = jnp.asarray([[1] * 16 + [2] * 32])
  position = jnp.asarray([[*range(16), *range(32)]])
  source = KeyRows(KV(jnp.zeros((1, 1, 2, 48)), jnp.zeros((1, 1, 48, 2))), segment, position)
  extent = flash._extent(segment, position, 16)
  wide = flash._range(extent, source, jnp.int32(WIDE), 16)
  np.testing.assert_array_equal(wide.first, [0, 1, 1])
  np.testing.assert_array_equal(wide.end, [1, 2, 3])
  near = flash._range(extent, source, jnp.int32(1), 16)
  np.testing.assert_array_equal(near.first, [0, 1, 2])


def test_blocks_are_as_large_as_their_scores_allow() -> None:
  assert [flash.block_size(rows, 4096) for rows in (1, 10**9)] == [16, 16]


def test_no_program_of_a_long_row_holds_all_scores() -> None:
  model = Decoder(ModelConfig(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=16, vocab=32))
  params = jax.eval_shape(lambda: nn.meta.unbox(init_params(model, jax.random.key(0))))
  for length, long in ((512, False), (1024, True)):
    row = jax.ShapeDtypeStruct((1, length), jnp.int32)
    loss = lambda params, *rows: model.apply({"params": params}, *rows)[0].sum()
    text = jax.jit(jax.grad(loss)).lower(params, row, row, row).as_text()
    assert (f"{length}x{length}x" in text) != long

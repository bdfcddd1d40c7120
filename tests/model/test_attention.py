"""Writes into a cache: one place of all rows, and each row's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o1jax.model.attention import KV, write_keys

N, K, H, BLOCK = 3, 2, 4, 4


def cache_of(blocks: int, seed: int) -> KV:
  """A cache of `blocks` blocks of keys; one: keys in one piece."""
  rng = np.random.default_rng(seed)
  size = blocks * BLOCK
  k = rng.normal(size=(N, K, H, size) if blocks == 1 else (N, K, blocks, H, BLOCK))
  return KV(jnp.asarray(k, jnp.float32), jnp.asarray(rng.normal(size=(N, K, size, H)), jnp.float32))


def flat(cache: KV) -> tuple[np.ndarray, np.ndarray]:
  """Keys and values [N, K, S, h]."""
  k = np.asarray(cache.k)
  k = k.swapaxes(2, 3) if k.ndim == 4 else k.swapaxes(3, 4).reshape(N, K, -1, H)
  return k, np.asarray(cache.v)


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("length", [1, 3])
def test_each_row_is_written_at_its_own_place_and_nothing_past_the_end(blocks, length) -> None:
  size = blocks * BLOCK
  cache, made = cache_of(blocks, 0), cache_of(1, 1)
  new = KV(made.k[..., :length], made.v[:, :, :length])
  index = np.array([0, size - 2, size - 1])
  new_k, new_v = new.k.swapaxes(2, 3), new.v
  expected = [a.copy() for a in flat(cache)]
  for row, start in enumerate(index):
    count = min(length, size - start)
    for full, part in zip(expected, (new_k, new_v)):
      full[row, :, start : start + count] = part[row, :, :count]
  for got, full in zip(flat(jax.jit(write_keys)(cache, new, jnp.asarray(index))), expected):
    np.testing.assert_array_equal(got, full)


@pytest.mark.parametrize("blocks", [1, 3])
def test_rows_in_step_are_written_as_each_at_its_own_place(blocks) -> None:
  cache, made = cache_of(blocks, 0), cache_of(1, 1)
  new = KV(made.k[..., :1], made.v[:, :, :1])
  for index in (0, blocks * BLOCK - 1):
    together = write_keys(cache, new, jnp.int32(index))
    apart = write_keys(cache, new, jnp.full((N,), index))
    for left, right in zip(together, apart):
      np.testing.assert_array_equal(left, right)

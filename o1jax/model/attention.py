"""Attention over explicit keys and values: what a query sees, softmax over blocks of keys, cache writes."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

MASKED = -1e30  # finite, so that a row with nothing to attend to gives no NaN


class KV(NamedTuple):
  """Keys and values of one layer; with a leading layer axis where layers are scanned.

  Keys lie with their positions last, and a large cache of them in C blocks of b positions, S = C b: both
  products of a decoded token then stream through memory.
  """

  k: jax.Array  # f[N, K, h, S], or f[N, K, C, h, b]
  v: jax.Array  # f[N, K, S, h]


class Context(NamedTuple):
  """Keys a call attends to besides its own."""

  layers: Any  # one KV a layer: a tuple, or stacked where layers are scanned
  segment: jax.Array  # i32[M, S], 0 = not to be seen; M divides the call's N rows
  position: jax.Array  # i32[M, S]


def softcap(x: jax.Array, cap: float) -> jax.Array:
  """cap * tanh(x / cap), or x where cap is 0 (Gemma 2, section 2)."""
  return cap * jnp.tanh(x / cap) if cap else x


def visible(query: tuple, key: tuple, window: Any) -> jax.Array:
  """bool[N, T, S]: same segment, no padding, not later, in the window. query, key: (segment, position)."""
  (q_segment, q_position), (k_segment, k_position) = query, key
  distance = q_position[:, :, None] - k_position[:, None, :]
  same = (q_segment[:, :, None] == k_segment[:, None, :]) & (k_segment[:, None, :] > 0)
  return same & (distance >= 0) & (distance < window)


def _scores(q: jax.Array, k: jax.Array, mask: jax.Array, cap: float) -> jax.Array:
  """Masked scores f32[M, K, s, g, T, S] of q f[M, K, s, g, T, h] against a KV's keys; mask bool[N, T, S]."""
  rows, heads, share, group, length, dim = q.shape
  flat = q.reshape(rows, heads, -1, dim)
  if k.ndim == 4:
    scores = jnp.einsum("mkqh,mkhs->mkqs", flat, k, preferred_element_type=jnp.float32)
  else:
    each = jnp.broadcast_to(flat[:, :, None], (*k.shape[:3], *flat.shape[2:]))
    scores = jnp.einsum("mkcqh,mkchb->mkcqb", each, k, preferred_element_type=jnp.float32).swapaxes(2, 3)
  scores = softcap(scores, cap).reshape(rows, heads, share, group, length, -1)
  return jnp.where(mask.reshape(rows, 1, share, 1, length, -1), scores, MASKED)


def _weighted(weights: jax.Array, v: jax.Array) -> jax.Array:
  """Values f32[M, K, s, g, T, h] summed under `weights` f32[M, K, s, g, T, S]; v f[M, K, S, h]."""
  flat = weights.reshape(*weights.shape[:2], -1, weights.shape[-1]).astype(v.dtype)
  out = jnp.einsum("mkqs,mksh->mkqh", flat, v, preferred_element_type=jnp.float32)
  return out.reshape(*weights.shape[:-1], v.shape[-1])


def attend(q: jax.Array, blocks: list[tuple[KV, jax.Array]], cap: float) -> jax.Array:
  """Softmax attention over the union of blocks of keys; q f[N, K, g, T, h] scaled; returns f32 of q's shape.

  A block has keys of M rows, M | N, and a mask bool[N, T, S]. s = N / M consecutive rows read the same keys:
  one product for all of them.
  """
  scores = [_scores(_share(q, kv), kv.k, mask, cap) for kv, mask in blocks]
  top = functools.reduce(jnp.maximum, (_unshare(s.max(-1)) for s in scores))
  top = jax.lax.stop_gradient(top)[..., None]
  weights = [jnp.exp(s - _share(top, kv)) for s, (kv, _) in zip(scores, blocks)]
  total = functools.reduce(jnp.add, (_unshare(w.sum(-1)) for w in weights))
  out = functools.reduce(jnp.add, (_unshare(_weighted(w, kv.v)) for w, (kv, _) in zip(weights, blocks)))
  return out / total[..., None]


def _share(x: jax.Array, kv: KV) -> jax.Array:
  """[M, K, s, ...] of x [N, K, ...]: the s = N / M rows that read each of M rows of keys, side by side."""
  return x.reshape(kv.v.shape[0], -1, *x.shape[1:]).swapaxes(1, 2)


def _unshare(x: jax.Array) -> jax.Array:
  """[N, K, ...] of x [M, K, s, ...]."""
  x = x.swapaxes(1, 2)
  return x.reshape(-1, *x.shape[2:])


def write_keys(cache: KV, new: KV, index: jax.Array) -> KV:
  """The cache with the keys and values of T positions from `index` on; none past its end.

  index: i32[] of all rows, where T is 1, written in place where donated; or i32[N], a row's own.
  """
  if index.ndim == 0:
    return _write_column(cache, new, index)
  # As bits: on a CPU XLA scatters bfloat16 by way of float32, and converts all of the cache for it.
  dtype = cache.v.dtype
  bits = jnp.dtype(f"uint{8 * dtype.itemsize}")
  cache, new = (KV(*(jax.lax.bitcast_convert_type(a.astype(dtype), bits) for a in kv)) for kv in (cache, new))
  written = jax.vmap(_write_row)(cache, new, index)
  return KV(*(jax.lax.bitcast_convert_type(a, dtype) for a in written))


def _write_column(cache: KV, new: KV, index: jax.Array) -> KV:
  k, v = new.k.astype(cache.k.dtype), new.v.astype(cache.v.dtype)
  v = jax.lax.dynamic_update_slice(cache.v, v, (0, 0, index, 0))
  if cache.k.ndim == 4:
    return KV(jax.lax.dynamic_update_slice(cache.k, k, (0, 0, 0, index)), v)
  size = cache.k.shape[4]
  at = (0, 0, index // size, 0, index % size)
  return KV(jax.lax.dynamic_update_slice(cache.k, k[:, :, None], at), v)


def _write_row(cache: KV, new: KV, index: jax.Array) -> KV:
  at = index + jnp.arange(new.v.shape[1])
  v = cache.v.at[:, at].set(new.v, mode="drop")
  if cache.k.ndim == 3:
    return KV(cache.k.at[:, :, at].set(new.k, mode="drop"), v)
  size = cache.k.shape[3]
  return KV(cache.k.at[:, at // size, :, at % size].set(new.k.transpose(2, 0, 1), mode="drop"), v)

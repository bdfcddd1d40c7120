"""Attention over explicit keys and values: what a query sees, softmax over blocks of keys, cache writes.

`attend` computes the scores of all keys at once. `attend_filled` is for a decoded token of rows whose caches
are filled unequally: it reads the blocks of keys that are filled, however long the longest row is.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

MASKED = -1e30  # finite, so that a row with nothing to attend to gives no NaN
PAIRS = 16  # (row, block of keys) that `attend_filled` reads at once, at most


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
  # i32[M], keys of each row that are filled, of a cache in blocks that a token of each row reads; None: all
  # keys are read.
  filled: jax.Array | None = None


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


class _Partial(NamedTuple):
  """Softmax attention over the keys read so far (Milakov & Gimelshein 2018, algorithm 3)."""

  top: jax.Array  # f32[N, K, g], largest score
  total: jax.Array  # f32[N, K, g], sum of exp(score - top)
  out: jax.Array  # f32[N, K, g, h], values summed under exp(score - top)


def attend_filled(
  q: jax.Array, kv: KV, own: tuple, keys: tuple, filled: jax.Array, window: Any, cap: float
) -> jax.Array:
  """Softmax attention of one query a row over its filled keys; q f[N, K, g, 1, h] scaled, f32 likewise out.

  kv: in C blocks of b positions; own, keys: (segment, position) of the queries i32[N, 1] and keys i32[N, S];
  filled i32[N], keys from the first on; a row without any gets zeros. The (row, block) pairs that hold keys
  stand in one list and are read PAIRS at a time, so that the cost is that of the sum of the rows' lengths.
  """
  rows, heads, count, _, size = kv.k.shape
  at_once = min(PAIRS, rows)
  ends = jnp.cumsum(-(-filled // size))
  starts = ends - -(-filled // size)
  segment, position = (a.reshape(rows, count, size) for a in keys)

  def keys_of(row: jax.Array, block: jax.Array) -> KV:
    k = jax.lax.dynamic_slice(kv.k, (row, 0, block, 0, 0), (1, heads, 1, *kv.k.shape[3:]))
    v = jax.lax.dynamic_slice(kv.v, (row, 0, block * size, 0), (1, heads, size, kv.v.shape[3]))
    return KV(k[0, :, 0], v[0])

  def read(carry: tuple[jax.Array, _Partial]) -> tuple[jax.Array, _Partial]:
    """The next pairs of the list."""
    first, sums = carry
    pair = first + jnp.arange(at_once)
    row = jnp.minimum((pair[:, None] >= ends).sum(1), rows - 1)
    block = jnp.minimum(pair - starts[row], count - 1)
    query, (k, v) = tuple(a[row] for a in own), jax.vmap(keys_of)(row, block)
    mask = visible(query, (segment[row, block], position[row, block]), window)
    mask = (mask & (pair < ends[-1])[:, None, None])[:, :, None]
    scores = jnp.einsum("wkgh,wkhb->wkgb", q[row, :, :, 0], k, preferred_element_type=jnp.float32)
    scores = jnp.where(mask, softcap(scores, cap), MASKED)
    of_row = (row == jnp.arange(rows)[:, None])[:, :, None, None]  # [N, W, 1, 1]
    top = jnp.maximum(sums.top, jnp.where(of_row, scores.max(-1), MASKED).max(1))
    weights = jnp.where(mask, jnp.exp(scores - top[row][..., None]), 0.0)
    values = jnp.einsum("wkgb,wkbh->wkgh", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    kept = jnp.exp(sums.top - top)
    total = sums.total * kept + jnp.where(of_row, weights.sum(-1), 0.0).sum(1)
    out = sums.out * kept[..., None] + jnp.einsum(
      "nw,wkgh->nkgh", of_row[:, :, 0, 0].astype(jnp.float32), values
    )
    return first + at_once, _Partial(top, total, out)

  zeros = jnp.zeros((*q.shape[:3],), jnp.float32)
  start = _Partial(zeros + MASKED, zeros, jnp.zeros((*q.shape[:3], q.shape[-1]), jnp.float32))
  _, sums = jax.lax.while_loop(lambda carry: carry[0] < ends[-1], read, (jnp.zeros((), jnp.int32), start))
  return (sums.out / jnp.maximum(sums.total, 1e-30)[..., None])[:, :, :, None]


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
  if new.v.shape[2] == 1:
    return _write_tokens(cache, new, index)
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


def _write_tokens(cache: KV, new: KV, index: jax.Array) -> KV:
  """One position of each row, in place: XLA copies all of a cache that it scatters into on a CPU."""
  size, room = cache.k.shape[-1], cache.v.shape[2]
  k, v = new.k.astype(cache.k.dtype), new.v.astype(cache.v.dtype)

  def write(row: jax.Array, cache: KV) -> KV:
    """The cache with one row's position; past its end it stays as it is."""
    at = jnp.minimum(index[row], room - 1)
    kept = index[row] >= room
    k_at = (row, 0, 0, at) if cache.k.ndim == 4 else (row, 0, at // size, 0, at % size)
    v_at = (row, 0, at, 0)

    def put(array: jax.Array, new: jax.Array, start: tuple) -> jax.Array:
      piece = jax.lax.dynamic_slice_in_dim(new, row, 1, 0)
      piece = piece if array.ndim == 4 else piece[:, :, None]
      old = jax.lax.dynamic_slice(array, start, piece.shape)
      return jax.lax.dynamic_update_slice(array, jnp.where(kept, old, piece), start)

    return KV(put(cache.k, k, k_at), put(cache.v, v, v_at))

  return jax.lax.fori_loop(0, index.shape[0], write, cache)


def _write_row(cache: KV, new: KV, index: jax.Array) -> KV:
  at = index + jnp.arange(new.v.shape[1])
  v = cache.v.at[:, at].set(new.v, mode="drop")
  if cache.k.ndim == 3:
    return KV(cache.k.at[:, :, at].set(new.k, mode="drop"), v)
  size = cache.k.shape[3]
  return KV(cache.k.at[:, at // size, :, at % size].set(new.k.transpose(2, 0, 1), mode="drop"), v)

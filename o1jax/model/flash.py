"""Attention of long rows in plain JAX: blocks of queries over blocks of keys, never T x S (Dao et al. 2022).

  forward: for each block of queries an online softmax over the blocks of keys that any row sees
  backward: the weights are made again from the scores and the saved log-sum-exp (algorithm 4 there)

Memory grows with T + S, and blocks that no query sees (later ones, other segments, beyond the window) cost
nothing. Equal to `attention.attend` within rounding. Left out: dropout, forward-mode derivatives.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from o1jax.model.attention import KV, MASKED, softcap

LONG = 2**20  # query-key pairs of a row from which `attend_long` is taken
SCORES = 2**21  # scores that exist at once, at most, where the smallest block allows
BLOCKS = (512, 256, 128)  # positions in a block of queries, and of keys
FAR = 2**30


class KeyRows(NamedTuple):
  """Keys of M rows, M | N; s = N / M consecutive rows of queries read the same."""

  kv: KV  # keys f[M, K, h, S], in one piece
  segment: jax.Array  # i32[M, S], 0 = not to be seen
  position: jax.Array  # i32[M, S]


class _Sums(NamedTuple):
  """Softmax over the keys read so far, of one block of b queries."""

  top: jax.Array  # f32[N, K, g, b], largest score
  total: jax.Array  # f32[N, K, g, b], sum of exp(score - top)
  out: jax.Array  # f32[N, K, g, b, h], values summed under exp(score - top)


def block_size(rows: int, length: int) -> int:
  """Positions in a block, for `rows` rows times heads of queries of one length."""
  fits = [size for size in BLOCKS if rows * size * size <= SCORES and size <= length]
  return fits[0] if fits else BLOCKS[-1]


def attend_long(q: jax.Array, sources: tuple[KeyRows, ...], own: tuple, window: Any, cap: float) -> jax.Array:
  """Softmax attention over the union of `sources`; q f[N, K, g, T, h] scaled; returns f32 of q's shape.

  own: (segment, position) of the queries, i32[N, T]; a query sees what `attention.visible` says. One of
  padding, which sees nothing, gets zeros.
  """
  rows, heads, group, length, _ = q.shape
  size = block_size(rows * heads * group, length)
  segment, position = (_pad(a, 1, size) for a in own)
  padded = tuple(_padded(source, size) for source in sources)
  q = _pad(q, 3, size)
  return _attend(q, padded, segment, position, jnp.asarray(window, jnp.int32), cap, size)[:, :, :, :length]


def _pad(a: jax.Array, axis: int, size: int) -> jax.Array:
  return jnp.pad(a, [(0, -n % size if i == axis else 0) for i, n in enumerate(a.shape)])


def _padded(source: KeyRows, size: int) -> KeyRows:
  kv = KV(_pad(source.kv.k, 3, size), _pad(source.kv.v, 2, size))
  return KeyRows(kv, _pad(source.segment, 1, size), _pad(source.position, 1, size))


def _slice(a: jax.Array, axis: int, block: jax.Array, size: int) -> jax.Array:
  return jax.lax.dynamic_slice_in_dim(a, block * size, size, axis)


class _Range(NamedTuple):
  """Blocks of keys that each block of queries reads: first i32[n], and behind the last i32[n]."""

  first: jax.Array
  end: jax.Array


def _extent(segment: jax.Array, position: jax.Array, size: int) -> tuple[jax.Array, ...]:
  """(least segment, largest, least position, largest) of each block, i32[M, blocks]; padding left out."""
  split = lambda a: a.reshape(a.shape[0], -1, size)
  there = split(segment) > 0
  least = lambda a: jnp.where(there, split(a), FAR).min(-1)
  most = lambda a: jnp.where(there, split(a), -FAR).max(-1)
  return least(segment), most(segment), least(position), most(position)


def _range(queries: tuple[jax.Array, ...], source: KeyRows, window: jax.Array, size: int) -> _Range:
  """The blocks of keys that may be seen, judged by what the blocks extend over."""
  low, high, early, late = (a[:, :, None] for a in queries)
  keys = _extent(source.segment, source.position, size)
  share = low.shape[0] // source.segment.shape[0]
  k_low, k_high, k_early, k_late = (jnp.repeat(a, share, axis=0)[:, None] for a in keys)
  near = (k_early <= late) & (early - k_late < window)
  needed = ((low <= k_high) & (k_low <= high) & near).any(0)
  first = jnp.argmax(needed, axis=1)
  end = needed.shape[1] - jnp.argmax(needed[:, ::-1], axis=1)
  return _Range(first, jnp.where(needed.any(1), end, first))


def _share(x: jax.Array, count: int) -> jax.Array:
  """[M, K, s, ...] of x [N, K, ...]."""
  return x.reshape(count, -1, *x.shape[1:]).swapaxes(1, 2)


def _unshare(x: jax.Array) -> jax.Array:
  """[N, K, ...] of x [M, K, s, ...]."""
  x = x.swapaxes(1, 2)
  return x.reshape(-1, *x.shape[2:])


class _Scores(NamedTuple):
  """A block of queries against a block of keys of M rows."""

  scores: jax.Array  # f32[M, K, s, g, b, c], soft-capped
  mask: jax.Array  # bool[M, 1, s, 1, b, c]
  k: jax.Array  # f[M, K, h, c]
  v: jax.Array  # f[M, K, c, h]


class _Queries(NamedTuple):
  """A block of queries."""

  q: jax.Array  # f[N, K, g, b, h]
  segment: jax.Array  # i32[N, b]
  position: jax.Array  # i32[N, b]


def _scores(queries: _Queries, source: KeyRows, block: jax.Array, window: jax.Array, cap: float) -> _Scores:
  count, size = source.segment.shape[0], queries.q.shape[3]
  k, v = _slice(source.kv.k, 3, block, size), _slice(source.kv.v, 2, block, size)
  k_segment, k_position = (_slice(a, 1, block, size)[:, None, None] for a in source[1:])
  segment, position = (a.reshape(count, -1, size, 1) for a in queries[1:])
  distance = position - k_position
  mask = (segment == k_segment) & (k_segment > 0) & (distance >= 0) & (distance < window)
  scores = jnp.einsum("mksgbh,mkhc->mksgbc", _share(queries.q, count), k, preferred_element_type=jnp.float32)
  return _Scores(softcap(scores, cap), mask[:, None, :, None], k, v)


def _cut(q: jax.Array, segment: jax.Array, position: jax.Array, block: jax.Array, size: int) -> _Queries:
  return _Queries(
    _slice(q, 3, block, size), _slice(segment, 1, block, size), _slice(position, 1, block, size)
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _attend(q, sources, segment, position, window, cap: float, size: int) -> jax.Array:
  return _forward(q, sources, segment, position, window, cap, size)[0]


def _join(blocks: jax.Array) -> jax.Array:
  """[N, K, g, T, ...] of blocks [n, N, K, g, b, ...]."""
  blocks = jnp.moveaxis(blocks, 0, 3)
  return blocks.reshape(*blocks.shape[:3], -1, *blocks.shape[5:])


def _forward(q, sources, segment, position, window, cap: float, size: int) -> tuple[jax.Array, tuple]:
  """(f32[N, K, g, T, h], what the backward pass reads)."""
  extent = _extent(segment, position, size)
  ranges = [_range(extent, source, window, size) for source in sources]

  def one_block(block: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(output, log-sum-exp) of one block of queries."""
    queries = _cut(q, segment, position, block, size)
    zeros = jnp.zeros(queries.q.shape[:-1], jnp.float32)
    sums = _Sums(zeros + MASKED, zeros, jnp.zeros(queries.q.shape, jnp.float32))
    for source, blocks in zip(sources, ranges):
      read = functools.partial(_read, queries=queries, source=source, window=window, cap=cap)
      sums = jax.lax.fori_loop(blocks.first[block], blocks.end[block], read, sums)
    total = jnp.maximum(sums.total, 1e-30)
    return sums.out / total[..., None], sums.top + jnp.log(total)

  out, lse = (_join(a) for a in jax.lax.map(one_block, jnp.arange(q.shape[3] // size)))
  return out, (q, sources, segment, position, window, out, lse)


def _read(
  block: jax.Array, sums: _Sums, *, queries: _Queries, source: KeyRows, window: jax.Array, cap: float
) -> _Sums:
  """The sums with one block of keys more."""
  scores, mask, _, v = _scores(queries, source, block, window, cap)
  scores = jnp.where(mask, scores, MASKED)
  top = jnp.maximum(sums.top, _unshare(scores.max(-1)))
  weights = jnp.where(mask, jnp.exp(scores - _share(top, v.shape[0])[..., None]), 0.0)
  kept = jnp.exp(sums.top - top)
  values = jnp.einsum("mksgbc,mkch->mksgbh", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
  total = sums.total * kept + _unshare(weights.sum(-1))
  return _Sums(top, total, sums.out * kept[..., None] + _unshare(values))


class _Rest(NamedTuple):
  """What the backward pass reads of a block of queries besides themselves."""

  slope: jax.Array  # f32[N, K, g, b, h], of the output
  lse: jax.Array  # f32[N, K, g, b], log-sum-exp of the scores
  inner: jax.Array  # f32[N, K, g, b], slope . output


class _Slopes(NamedTuple):
  """Gradients while they are summed, in float32."""

  q: jax.Array  # [N, K, g, b, h], of one block of queries
  k: jax.Array  # [M, K, h, S]
  v: jax.Array  # [M, K, S, h]


def _backward(cap: float, size: int, saved: tuple, slope: jax.Array) -> tuple:
  q, sources, segment, position, window, out, lse = saved
  extent = _extent(segment, position, size)
  ranges = [_range(extent, source, window, size) for source in sources]
  inner = (slope * out).sum(-1)  # f32[N, K, g, T]

  def one_block(carry: list[tuple], block: jax.Array) -> tuple[list[tuple], jax.Array]:
    """The slopes of one block of queries, and of keys and values the sums so far."""
    queries = _cut(q, segment, position, block, size)
    rest = _Rest(*(_slice(a, 3, block, size) for a in (slope, lse, inner)))
    of_q, summed = jnp.zeros(queries.q.shape, jnp.float32), []
    for source, blocks, (of_k, of_v) in zip(sources, ranges, carry):
      back = functools.partial(_read_back, queries=queries, rest=rest, source=source, window=window, cap=cap)
      slopes = jax.lax.fori_loop(blocks.first[block], blocks.end[block], back, _Slopes(of_q, of_k, of_v))
      of_q = slopes.q
      summed.append((slopes.k, slopes.v))
    return summed, of_q

  start = [tuple(jnp.zeros(a.shape, jnp.float32) for a in source.kv) for source in sources]
  summed, of_q = jax.lax.scan(one_block, start, jnp.arange(q.shape[3] // size))
  of_sources = tuple(
    KeyRows(KV(*(a.astype(b.dtype) for a, b in zip(pair, source.kv))), None, None)  # type: ignore[arg-type]
    for pair, source in zip(summed, sources)
  )
  return _join(of_q).astype(q.dtype), of_sources, None, None, None


def _read_back(
  block: jax.Array,
  slopes: _Slopes,
  *,
  queries: _Queries,
  rest: _Rest,
  source: KeyRows,
  window: jax.Array,
  cap: float,
) -> _Slopes:
  """The slopes with those of one block of keys."""
  scores, mask, k, v = _scores(queries, source, block, window, cap)
  count, size = v.shape[0], v.shape[2]
  slope, lse, inner = (_share(a, count) for a in rest)
  weights = jnp.where(mask, jnp.exp(scores - lse[..., None]), 0.0)
  low = slope.astype(v.dtype)
  product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
  of_v = product("mksgbc,mksgbh->mkch", weights.astype(v.dtype), low)
  of_scores = weights * (product("mksgbh,mkch->mksgbc", low, v) - inner[..., None])
  if cap:
    of_scores = of_scores * (1.0 - jnp.where(mask, scores / cap, 0.0) ** 2)
  of_scores = of_scores.astype(k.dtype)
  of_q = _unshare(product("mksgbc,mkhc->mksgbh", of_scores, k))
  of_k = product("mksgbc,mksgbh->mkhc", of_scores, _share(queries.q, count))

  def add(total: jax.Array, part: jax.Array, axis: int) -> jax.Array:
    part = part + _slice(total, axis, block, size)
    return jax.lax.dynamic_update_slice_in_dim(total, part, block * size, axis)

  return _Slopes(slopes.q + of_q, add(slopes.k, of_k, 3), add(slopes.v, of_v, 2))


_attend.defvjp(_forward, _backward)

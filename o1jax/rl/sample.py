"""The sampler: prompts in, G responses each out, in one compiled program.

Flow: prefill each prompt once -> draw the first token of its G samples -> a while loop of (one token through the
decoder, draw the next) until every row has stopped. The samples of a prompt read its keys together; keys of the
responses live in a buffer that grows as it fills, one compiled body a size, so that attention reads about what
is there. The noise of a draw depends on run, stream, step, problem, sample and position alone, never on the batch:
one uniform number a token, and the CDF is inverted.
"""

import dataclasses
import functools
from typing import Any, Callable

import jax
import jax.numpy as jnp

from o1jax.model.transformer import KV, Context, Decoder, cast_params, gathered
from o1jax.types import PromptBatch, Rollout

# Streams of random numbers, one a use, so that no two uses share a key.
STREAMS = {
  "train": 0,
  "refill": 1,
  "eval": 2,
  "judge": 3,
  "branch": 4,
  "init": 5,
  "minibatch": 6,
  "sft": 7,
  "proxy": 8,
}
MAX_BODIES = 6  # compiled sizes of the response's key buffer
KEY_BLOCK = 64  # positions in a block of keys; sizes are multiples of it
CDF_BLOCK = 64  # tokens in a block of the CDF
FREE = -1  # in `forced`: the policy chooses


def stream_key(seed: int, stream: str, step: jax.Array | int) -> jax.Array:
  """The key of one use at one step: fold_in(run seed, stream, step)."""
  return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), STREAMS[stream]), step)


def inverse_cdf(scaled: jax.Array, uniform: jax.Array) -> jax.Array:
  """Token whose share of the CDF holds `uniform`. scaled f32[B, V] logits / temperature, uniform f32[B] in [0, 1).

  The block of tokens is found first, then the token in it, so that one block's CDF is made and not the vocabulary's.
  """
  weights = jnp.exp(scaled - scaled.max(-1, keepdims=True))
  weights = jnp.pad(weights, [(0, 0), (0, -weights.shape[1] % CDF_BLOCK)])
  blocks = weights.reshape(weights.shape[0], -1, CDF_BLOCK)
  sizes = blocks.sum(-1)
  ends = jnp.cumsum(sizes, axis=-1)
  threshold = uniform * ends[:, -1]
  block = _first_above(sizes, ends, threshold)
  before = jnp.take_along_axis(jnp.pad(ends, [(0, 0), (1, 0)]), block[:, None], axis=-1)
  inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
  return block * CDF_BLOCK + _first_above(inside, jnp.cumsum(inside, axis=-1), threshold - before[:, 0])


def _first_above(mass: jax.Array, cumulative: jax.Array, threshold: jax.Array) -> jax.Array:
  """i32[B] index of the first entry with mass whose sum is above `threshold` f32[B]; mass f32[B, n], cumulative its sums.

  XLA adds in a tree: over entries without mass its sums go up and down by rounding, so that a sum alone tells nothing.
  """
  held = mass > 0
  most = jnp.where(held, cumulative, 0.0).max(-1)
  threshold = jnp.clip(threshold, 0.0, jnp.nextafter(most, 0.0))
  found = held & (cumulative > threshold[:, None])
  count = mass.shape[-1]
  return jnp.where(found, jnp.arange(count, dtype=jnp.int32), count).min(-1)


def greedy(scaled: jax.Array, uniform: jax.Array) -> jax.Array:
  """The likeliest token, i32[B]; the noise is not looked at."""
  del uniform
  return jnp.argmax(scaled, axis=-1).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class SampleConfig:
  """What is static about sampling."""

  max_tokens: int  # R
  stop_tokens: tuple[int, ...]  # drawing one ends the row
  draw: Callable[[jax.Array, jax.Array], jax.Array] = inverse_cdf
  top_k: int = 0  # evaluation alone; 0 = off
  top_p: float = 1.0  # evaluation alone; 1 = off
  pad: int = 0  # stands behind a row's end
  member_axis: str | None = None  # mapped axis over which all stop together: one unbatched predicate


def row_noise(
  key: jax.Array, problem_id: jax.Array, samples: int, length: int, before: jax.Array | None = None
) -> jax.Array:
  """f32[length, P * samples] uniforms; a row's depend on its problem, its sample and the position alone.

  `sample` counts the occurrences of a problem in the batch, and those `before` it (i32[P], None: none), so that a
  problem drawn twice gets fresh noise.
  """
  earlier = jnp.tril(problem_id[:, None] == problem_id[None, :], -1).sum(-1)
  earlier = earlier if before is None else earlier + before
  sample = (earlier[:, None] * samples + jnp.arange(samples)).astype(jnp.uint32)
  fold = jax.random.fold_in
  rows = jax.vmap(lambda i, s: jax.vmap(lambda g: fold(fold(key, i), g))(s))(problem_id, sample).reshape(-1)
  at = jax.vmap(lambda t: jax.vmap(lambda row: jax.random.uniform(fold(row, t)))(rows))
  return at(jnp.arange(length))


def keep_top(scaled: jax.Array, top_k: int, top_p: float) -> jax.Array:
  """Logits f32[B, V] with all but the top k, and all past the top-p mass, at -inf (Holtzman et al. 2020).

  With both, the mass is that of the top k alone, which sum to 1 again, as in Hugging Face's and vLLM's samplers.
  """
  ranked = jnp.sort(scaled, axis=-1, descending=True)
  if top_k:
    ranked = ranked[:, :top_k]
    scaled = jnp.where(scaled >= ranked[:, -1:], scaled, -jnp.inf)
  if top_p < 1.0:
    share = jax.nn.softmax(ranked, axis=-1)
    before = jnp.cumsum(share, axis=-1) - share
    kept = jnp.where(before < top_p, ranked, jnp.inf).min(-1, keepdims=True)
    scaled = jnp.where(scaled >= kept, scaled, -jnp.inf)
  return scaled


def _draw(logits, uniform, temperature, replace, forced, cfg: SampleConfig):
  """(token i32[B], its log-prob f32[B], whether the policy chose it bool[B]) from logits f32[B, V]."""
  scaled = logits / temperature
  filtered = keep_top(scaled, cfg.top_k, cfg.top_p) if cfg.top_k or cfg.top_p < 1.0 else scaled
  token = cfg.draw(filtered, uniform)
  chosen = token
  if replace is not None:
    token = replace[chosen]
  if forced is not None:
    token = jnp.where(forced == FREE, token, forced)
  free = (token == chosen) if forced is None else (token == chosen) & (forced == FREE)
  picked = jnp.take_along_axis(scaled, token[:, None], axis=-1)[:, 0]
  return token, picked - jax.nn.logsumexp(scaled, axis=-1), free


def buffer_sizes(max_tokens: int, block: int = KEY_BLOCK) -> list[int]:
  """Ascending sizes of the response's key buffer, up to `max_tokens`; at most MAX_BODIES of them.

  Downwards from the largest: three quarters of it, half of it, three quarters of that, ..., in whole blocks.
  """
  if max_tokens <= block:
    return [max_tokens]
  largest = -(-max_tokens // block)
  halves = [-(-largest // 2**i) for i in range(largest.bit_length())]
  blocks = {n for half in halves for n in (half, -(-3 * half // 4))}
  return [n * block for n in sorted(blocks)[-MAX_BODIES:]]


def _empty_cache(prefix: Any, rows: int, size: int) -> Any:
  """Room for `size` positions of `rows` rows, in one block, for layers as the prompt's."""

  def empty(kv: KV) -> KV:
    *layers, _, heads, _, dim = kv.v.shape
    k, v = (*layers, rows, heads, dim, size), (*layers, rows, heads, size, dim)
    return KV(jnp.zeros(k, kv.k.dtype), jnp.zeros(v, kv.v.dtype))

  return _each_kv(empty, prefix)


def _grow(cache: Any, size: int) -> Any:
  """The same cache with room for `size` positions, in blocks of its first size."""
  pad = lambda a, axis, room: jnp.pad(a, [(0, room - n if i == axis else 0) for i, n in enumerate(a.shape)])

  def grow(kv: KV) -> KV:
    k = kv.k if kv.k.ndim > kv.v.ndim else jnp.expand_dims(kv.k, -3)
    return KV(pad(k, k.ndim - 3, size // k.shape[-1]), pad(kv.v, kv.v.ndim - 2, size))

  return _each_kv(grow, cache) if size > cache_size(cache) else cache


def _each_kv(change: Callable[[KV], KV], layers: Any) -> Any:
  return jax.tree.map(change, layers, is_leaf=lambda x: isinstance(x, KV))


def in_any_member(here: jax.Array, axis: str | None) -> jax.Array:
  """bool[]: whether `here` holds in any member of the mapped axis; None: in this one, the only one.

  A loop over it has one unbatched predicate, so that no member's carry is selected anew at every turn.
  """
  return here if axis is None else jax.lax.pmax(here.astype(jnp.int32), axis) > 0


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
  replace: jax.Array | None = None,
  forced: jax.Array | None = None,
) -> Rollout:
  """Draws `samples` responses a prompt at `temperature` f32[]. Consumes the key (`stream_key`).

  `replace` i32[V] says what stands in the place of each drawn token: its identity, or another that forbids stopping.
  `forced` i32[B, R] holds tokens that stand whatever is drawn, FREE (-1) where the policy chooses. Tokens forced or
  replaced are no actions: they carry no log-prob and no loss.
  """
  params = {"params": gathered(cast_params(params, model.cfg), model)}
  rows, budget = batch.tokens.shape[0] * samples, cfg.max_tokens
  repeat = lambda a: jnp.repeat(a, samples, axis=0)
  segment = batch.mask.astype(jnp.int32)
  position = jnp.maximum(jnp.cumsum(segment, axis=1) - 1, 0)
  hidden, keys = model.apply(params, batch.tokens, segment, position)
  prefix = Context(keys, segment, position)
  start = repeat(segment.sum(1))  # position of a row's first response token
  noise = row_noise(key, batch.problem_id, samples, budget, batch.earlier)
  forced_at = lambda t: None if forced is None else jax.lax.dynamic_index_in_dim(forced, t, 1, keepdims=False)
  stops = lambda token: functools.reduce(jnp.logical_or, (token == s for s in cfg.stop_tokens))

  def record(state, t, logits):
    token, logp, free = _draw(logits, noise[t], temperature, replace, forced_at(t), cfg)
    alive = ~state["done"]
    put = lambda name, value: jax.lax.dynamic_update_index_in_dim(state[name], value, t, axis=0)
    return {
      "tokens": put("tokens", jnp.where(alive, token, cfg.pad)),
      "logp": put("logp", jnp.where(alive & free, logp, 0.0)),
      "alive": put("alive", alive),
      "action": put("action", alive & free),
      "done": state["done"] | stops(token),
      "last": token,
    }

  def decode(carry):
    t, cache, state = carry
    size = cache_size(cache)
    written = jnp.broadcast_to((jnp.arange(size) < t).astype(jnp.int32), (rows, size))
    context = Context(cache, written, start[:, None] + jnp.arange(size))
    own = (state["last"][:, None], jnp.ones((rows, 1), jnp.int32), (start + t - 1)[:, None])
    hidden, cache = model.apply(params, *own, prefix=prefix, cache=context, index=t - 1)
    logits = model.apply(params, hidden[:, 0], method="head")
    return t + 1, cache, record(state, t, logits)

  state = record(_blank(budget, rows), 0, repeat(model.apply(params, hidden[:, -1], method="head")))
  cache, t = _empty_cache(keys, rows, min(KEY_BLOCK, budget)), jnp.ones((), jnp.int32)
  unfinished = lambda state: in_any_member(~state["done"].all(), cfg.member_axis)
  for size in buffer_sizes(budget):
    going = lambda carry, size=size: (carry[0] < jnp.minimum(size + 1, budget)) & unfinished(carry[2])
    t, cache, state = jax.lax.while_loop(going, decode, (t, _grow(cache, size), state))
  return _assemble(batch, state, samples, cfg.pad)


def _blank(budget: int, rows: int) -> dict[str, jax.Array]:
  """The record of a response before its first token; per-token arrays are [R, B], so that a step writes one row."""
  return {
    "tokens": jnp.zeros((budget, rows), jnp.int32),
    "logp": jnp.zeros((budget, rows), jnp.float32),
    "alive": jnp.zeros((budget, rows), bool),
    "action": jnp.zeros((budget, rows), bool),
    "done": jnp.zeros((rows,), bool),
    "last": jnp.zeros((rows,), jnp.int32),
  }


def _assemble(batch: PromptBatch, state: dict[str, jax.Array], samples: int, pad: int) -> Rollout:
  """Prompts and what was drawn for them, as rows of one width."""
  join = lambda left, right: jnp.concatenate([jnp.repeat(left, samples, axis=0), right.T], axis=1)
  return Rollout(
    tokens=join(jnp.where(batch.mask, batch.tokens, pad), jnp.where(state["alive"], state["tokens"], pad)),
    valid=join(batch.mask, state["alive"]),
    is_action=join(jnp.zeros_like(batch.mask), state["action"]),
    logp_sampler=join(jnp.zeros(batch.tokens.shape, jnp.float32), state["logp"]),
    finished=state["done"],
  )


def cache_size(cache: Any) -> int:
  """Positions a key buffer holds."""
  leaf: KV = jax.tree.leaves(cache, is_leaf=lambda x: isinstance(x, KV))[0]
  return leaf.v.shape[-2]

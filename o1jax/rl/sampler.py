"""The sampler as a state and a step: prompts in, G responses to each out.

  prefill (each prompt once) -> begin (first tokens) -> decode (decode_step until all rows stop) -> rollout_of
                                                        extend (tokens of others) -> decode -> ...

The first line is what `generate` compiles. Its rows stand in step: one position for all, so that their keys
are written at one place of the cache. After `extend` each row has a position of its own. The kernel is chosen
statically, by `SamplerState.step`. The cache grows as it fills, one compiled body a size, so that attention
reads about what is there. `slots.decode_slots` is the `decode` of more rows than slots.
"""

import dataclasses
import functools
from typing import Any, Callable, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from o1jax.model.transformer import KV, Context, Decoder, cast_params, gathered
from o1jax.rl.draw import inverse_cdf, keep_top
from o1jax.types import PromptBatch

MAX_BODIES = 6  # compiled sizes of the response's key buffer
KEY_BLOCK = 64  # positions in a block of keys; sizes are multiples of it
UNFORCED = -1  # in `forced`, where the policy chooses


@dataclasses.dataclass(frozen=True)
class SampleConfig:
  """Static options of sampling."""

  max_tokens: int  # R
  stop_tokens: tuple[int, ...]  # drawing one ends the row
  draw: Callable[[jax.Array, jax.Array], jax.Array] = inverse_cdf
  top_k: int = 0  # evaluation alone; 0 = off
  top_p: float = 1.0  # evaluation alone; 1 = off
  pad: int = 0  # stands behind a row's end
  slots: int = 0  # rows decoded at once (`slots.decode_slots`); 0, or as many as there are: all
  member_axis: str | None = None  # mapped axis over which all stop together: one unbatched predicate


# The state


@flax.struct.dataclass
class PromptCache:
  """M prompts, each read once: what the rows that answer them attend to, and begin from."""

  keys: Context  # keys and values by layer; segment and position i32[M, Lp]
  hidden: jax.Array  # f[M, D], of the last prompt token

  def length(self) -> jax.Array:
    """i32[M] tokens of each prompt."""
    return self.keys.segment.sum(1)


@flax.struct.dataclass
class SamplerState:
  """B rows being decoded, each with room for R tokens behind its prompt; per-token arrays are [R, B].

  `cache` has the keys and values of a row's tokens but the last one's, which the next decode step writes.
  """

  cache: Any  # one KV of S positions a layer
  tokens: jax.Array  # i32[R, B]
  logp: jax.Array  # f32[R, B], of logits / temperature; 0 where not is_action
  is_action: jax.Array  # bool[R, B], tokens the policy chose (its stop token included)
  length: jax.Array  # i32[B], tokens of each row, sampled or given
  sampled: jax.Array  # i32[B], those of them that were sampled: the position of a row's next noise
  done: jax.Array  # bool[B], rows that end in a stop token
  noise: jax.Array  # f32[R, B], uniforms by position
  prompt_row: jax.Array | None = None  # i32[B]; None: B / M consecutive rows share a prompt's keys
  step: jax.Array | None = None  # i32[], length of all rows that are not done; None: each row has its own
  token_map: jax.Array | None = None  # i32[V], stands in the place of each token the policy draws
  forced: jax.Array | None = None  # i32[R, B], tokens that stand whatever is drawn; UNFORCED elsewhere

  def position(self) -> jax.Array:
    """Where the next token goes: i32[] of rows in step, else i32[B]."""
    return self.length if self.step is None else self.step

  def going(self) -> jax.Array:
    """bool[B]: rows that have not stopped, and have room."""
    return ~self.done & (self.length < self.tokens.shape[0])


def _take(array: jax.Array, position: jax.Array) -> jax.Array:
  """[B] of an array [R, B] at position i32[] or i32[B]."""
  if position.ndim:
    return jnp.take_along_axis(array, position[None], axis=0, mode="clip")[0]
  return jax.lax.dynamic_index_in_dim(array, position, 0, keepdims=False)


def _put(array: jax.Array, value: jax.Array, position: jax.Array) -> jax.Array:
  """An array [R, B] with value [B] at position i32[] or i32[B]; a position from R on writes nothing."""
  if position.ndim:
    return jnp.where(jnp.arange(array.shape[0])[:, None] == position, value, array)
  return jax.lax.dynamic_update_index_in_dim(array, value, position, axis=0)


def by_row(array: jax.Array, prompt_row: jax.Array | None, rows: int) -> jax.Array:
  """[B, ...] of an array [M, ...]: for each of B rows what belongs to its prompt."""
  return jnp.repeat(array, rows // array.shape[0], axis=0) if prompt_row is None else array[prompt_row]


# The cache


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


def cache_size(cache: Any) -> int:
  """Positions a key buffer has."""
  leaf: KV = jax.tree.leaves(cache, is_leaf=is_kv)[0]
  return leaf.v.shape[-2]


def is_kv(node: Any) -> bool:
  return isinstance(node, KV)


def _empty_cache(prefix: Any, rows: int, size: int) -> Any:
  """Room for `size` positions of `rows` rows, in one block, for layers as the prompt's."""

  def empty(kv: KV) -> KV:
    *layers, _, heads, _, dim = kv.v.shape
    k, v = (*layers, rows, heads, dim, size), (*layers, rows, heads, size, dim)
    return KV(jnp.zeros(k, kv.k.dtype), jnp.zeros(v, kv.v.dtype))

  return jax.tree.map(empty, prefix, is_leaf=is_kv)


def _grow(cache: Any, size: int) -> Any:
  """The same cache with room for `size` positions, in blocks of its first size."""

  def pad(array: jax.Array, axis: int, room: int) -> jax.Array:
    return jnp.pad(array, [(0, room - n if i == axis else 0) for i, n in enumerate(array.shape)])

  def grow(kv: KV) -> KV:
    k = kv.k if kv.k.ndim > kv.v.ndim else jnp.expand_dims(kv.k, -3)
    return KV(pad(k, k.ndim - 3, size // k.shape[-1]), pad(kv.v, kv.v.ndim - 2, size))

  return jax.tree.map(grow, cache, is_leaf=is_kv) if size > cache_size(cache) else cache


# Decoding. `params` are as `sampling_params` makes them; callers compile.


def sampling_params(params: Any, model: Decoder) -> Any:
  """The decoder's variables, cast and gathered once rather than at every token."""
  return {"params": gathered(cast_params(params, model.cfg), model)}


def prefill(params: Any, batch: PromptBatch, *, model: Decoder) -> PromptCache:
  """Reads M prompts, once each."""
  segment = batch.mask.astype(jnp.int32)
  position = jnp.maximum(jnp.cumsum(segment, axis=1) - 1, 0)
  hidden, keys = model.apply(params, batch.tokens, segment, position)
  return PromptCache(Context(keys, segment, position), hidden[:, -1])


def begin(
  params: Any,
  prompts: PromptCache,
  noise: jax.Array,
  temperature: jax.Array,
  *,
  model: Decoder,
  cfg: SampleConfig,
  prompt_row: jax.Array | None = None,
  token_map: jax.Array | None = None,
  forced: jax.Array | None = None,
) -> SamplerState:
  """B rows with their first token, in step. noise f32[R, B], of `row_noise`; others as in `SamplerState`."""
  budget, rows = noise.shape
  zeros = jnp.zeros((rows,), jnp.int32)
  state = SamplerState(
    cache=_empty_cache(prompts.keys.layers, rows, min(KEY_BLOCK, budget)),
    tokens=jnp.zeros((budget, rows), jnp.int32), logp=jnp.zeros((budget, rows), jnp.float32),
    is_action=jnp.zeros((budget, rows), bool), length=zeros, sampled=zeros, done=jnp.zeros((rows,), bool),
    noise=noise, prompt_row=prompt_row, step=jnp.zeros((), jnp.int32), token_map=token_map, forced=forced,
  )  # fmt: skip
  logits: Any = model.apply(params, prompts.hidden, method="head")
  return _append(state, by_row(logits, prompt_row, rows), temperature, cfg)


class Drawn(NamedTuple):
  """A token more of each of N rows."""

  token: jax.Array  # i32[N], `pad` where the row is not going
  logp: jax.Array  # f32[N], 0 where not is_action
  is_action: jax.Array  # bool[N]
  stops: jax.Array  # bool[N], rows that it ends


def next_token(
  logits: Any,
  noise: jax.Array,
  going: jax.Array,
  temperature: jax.Array,
  *,
  cfg: SampleConfig,
  token_map: jax.Array | None,
  forced: jax.Array | None,
) -> Drawn:
  """A token of each row that is going, bool[N]: from logits f32[N, V] by noise f32[N], or forced i32[N]."""
  scaled = logits / temperature
  filtered = keep_top(scaled, cfg.top_k, cfg.top_p) if cfg.top_k or cfg.top_p < 1.0 else scaled
  chosen = cfg.draw(filtered, noise)
  token = chosen if token_map is None else token_map[chosen]
  action = going
  if forced is not None:
    token = jnp.where(forced == UNFORCED, token, forced)
    action &= forced == UNFORCED
  action &= token == chosen
  picked = jnp.take_along_axis(scaled, token[:, None], axis=-1)[:, 0]
  logp = picked - jax.nn.logsumexp(scaled, axis=-1)
  stops = functools.reduce(jnp.logical_or, (token == stop for stop in cfg.stop_tokens))
  return Drawn(jnp.where(going, token, cfg.pad), jnp.where(action, logp, 0.0), action, going & stops)


def _append(state: SamplerState, logits: Any, temperature: jax.Array, cfg: SampleConfig) -> SamplerState:
  """The state with a token more in each row that is going, drawn from logits f32[B, V]."""
  at, going = state.position(), state.going()
  new = next_token(
    logits, _take(state.noise, state.sampled if state.step is None else at), going, temperature, cfg=cfg,
    token_map=state.token_map, forced=None if state.forced is None else _take(state.forced, at),
  )  # fmt: skip
  return dataclasses.replace(
    state,
    tokens=_put(state.tokens, new.token, at),
    logp=_put(state.logp, new.logp, at),
    is_action=_put(state.is_action, new.is_action, at),
    length=state.length + going,
    sampled=state.sampled + going,
    done=state.done | new.stops,
    step=None if state.step is None else state.step + 1,
  )


def _read(
  params: Any, state: SamplerState, prompts: PromptCache, tokens: jax.Array, *, model: Decoder
) -> tuple[jax.Array, Any]:
  """(hidden states f[B, T, D], the cache with their keys) of tokens i32[B, T]: each row's last, and more."""
  rows, size = tokens.shape[0], cache_size(state.cache)
  index = state.position() - 1
  start = by_row(prompts.length(), state.prompt_row, rows)[:, None]
  own = index[..., None] + jnp.arange(tokens.shape[1])  # positions behind the prompt: i32[T], or i32[B, T]
  written = jnp.broadcast_to((jnp.arange(size) <= own[..., -1:]).astype(jnp.int32), (rows, size))
  cache = Context(state.cache, written, start + jnp.arange(size))
  prefix = prompts if state.prompt_row is None else prompts_of(prompts, state.prompt_row)
  segment = jnp.ones(tokens.shape, jnp.int32)
  return model.apply(params, tokens, segment, start + own, prefix=prefix.keys, cache=cache, index=index)


def prompts_of(prompts: PromptCache, prompt_row: jax.Array) -> PromptCache:
  """The prompts in another order, i32[B]: a copy of the keys for each row."""
  keys = prompts.keys
  layers = jax.tree.map(lambda a: jnp.take(a, prompt_row, axis=a.ndim - 4), keys.layers)
  keys = Context(layers, keys.segment[prompt_row], keys.position[prompt_row])
  return PromptCache(keys, prompts.hidden[prompt_row])


def decode_step(
  params: Any,
  state: SamplerState,
  prompts: PromptCache,
  temperature: jax.Array,
  *,
  model: Decoder,
  cfg: SampleConfig,
) -> SamplerState:
  """A token more in each row that is going; the cache must have room for all of the rows' tokens."""
  tokens = _take(state.tokens, state.position() - 1)[:, None]
  hidden, cache = _read(params, state, prompts, tokens, model=model)
  logits = model.apply(params, hidden[:, 0], method="head")
  return _append(dataclasses.replace(state, cache=cache), logits, temperature, cfg)


def decode(
  params: Any,
  state: SamplerState,
  prompts: PromptCache,
  temperature: jax.Array,
  *,
  model: Decoder,
  cfg: SampleConfig,
) -> SamplerState:
  """Steps until each row has stopped or is full. Keys by `prompt_row` are copied once, before the loop."""
  prompt_row = state.prompt_row
  if prompt_row is not None:
    prompts, state = prompts_of(prompts, prompt_row), dataclasses.replace(state, prompt_row=None)
  step = functools.partial(
    decode_step, params, prompts=prompts, temperature=temperature, model=model, cfg=cfg
  )

  def unfinished(state: SamplerState) -> jax.Array:
    full = (state.position() > cache_size(state.cache)).any()
    return in_any_member(state.going().any(), cfg.member_axis) & ~in_any_member(full, cfg.member_axis)

  for size in buffer_sizes(state.tokens.shape[0]):
    if size >= cache_size(state.cache):
      state = dataclasses.replace(state, cache=_grow(state.cache, size))
      state = jax.lax.while_loop(unfinished, step, state)
  return dataclasses.replace(state, prompt_row=prompt_row)


def in_any_member(here: jax.Array, axis: str | None) -> jax.Array:
  """bool[]: whether `here` is true in any member of the mapped axis; None: in this one, the only one.

  A loop over it has one unbatched predicate, so that no member's carry is selected anew at every turn.
  """
  return here if axis is None else jax.lax.pmax(here.astype(jnp.int32), axis) > 0


def extend(
  params: Any,
  state: SamplerState,
  prompts: PromptCache,
  tokens: jax.Array,
  mask: jax.Array,
  *,
  model: Decoder,
) -> SamplerState:
  """The state with tokens of others behind each row's last one: i32[B, T] where mask bool[B, T].

  They are no actions and use up no noise. A row that gets any goes on, done or not; one without room for
  all of them gets the first ones, and is full.
  """
  budget, most = state.tokens.shape[0], tokens.shape[1]
  order = jnp.argsort(~mask, axis=1, stable=True)
  given = jnp.take_along_axis(tokens, order, axis=1).T
  count = jnp.minimum(mask.sum(1), budget - state.length)
  offset = jnp.arange(budget)[:, None] - state.length
  placed = jnp.take_along_axis(given, jnp.clip(offset, 0, most - 1), axis=0)
  state = dataclasses.replace(state, cache=_grow(state.cache, buffer_sizes(budget)[-1]), step=None)
  last = _take(state.tokens, state.length - 1)
  _, cache = _read(params, state, prompts, jnp.concatenate([last[None], given[:-1]]).T, model=model)
  return dataclasses.replace(
    state,
    cache=cache,
    tokens=jnp.where((offset >= 0) & (offset < count), placed, state.tokens),
    length=state.length + count,
    done=state.done & (count == 0),
  )

"""Slot refill: B rows decoded in N < B slots; one whose row has ended takes the next (Yu et al. 2022, Orca).

  prefill (each prompt once: the store) -> begin (first tokens of all rows) -> refill (free slots take rows,
  and a copy of their prompts' keys) -> slot_step -> refill -> ... until no row is left

A long row keeps its own slot alone busy, and attention reads what each slot has filled, so that the cost is
about that of the tokens sampled. Tokens are those of `decode`: the noise knows no slot. Over several devices
each decodes the rows of its own prompts in its own slots. Rows are taken in their order: lengths are not
known beforehand.
"""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from o1jax.model.transformer import KV, Context, Decoder
from o1jax.parallel.sharding import batch_axes, rules_within
from o1jax.rl.sampler import KEY_BLOCK, PromptCache, SampleConfig, SamplerState, is_kv, next_token


@flax.struct.dataclass
class Slots:
  """N rows in decoding, with room for a prompt's keys and a response's, each in whole blocks."""

  cache: Any  # one KV of N rows a layer, keys in blocks
  row: jax.Array  # i32[N], which of the B rows a slot decodes; B: it is free
  taken: jax.Array  # i32[], rows of `order` that have had a slot
  order: jax.Array  # i32[B], the rows as they come, those behind `count` have ended already
  count: jax.Array  # i32[]


@flax.struct.dataclass
class PromptStore:
  """M prompts in whole blocks of keys: Lp rounded up, padded on the left."""

  layers: Any  # one KV of M rows a layer, keys in blocks
  segment: jax.Array  # i32[M, Lp]
  position: jax.Array  # i32[M, Lp]
  length: jax.Array  # i32[M]


def prompt_store(prompts: PromptCache) -> PromptStore:
  """The prompts' keys as slots hold them."""
  fill = -prompts.keys.segment.shape[1] % KEY_BLOCK

  def blocks(kv: KV) -> KV:
    k = jnp.pad(kv.k, [(0, 0)] * (kv.k.ndim - 1) + [(fill, 0)])
    v = jnp.pad(kv.v, [(0, 0)] * (kv.v.ndim - 2) + [(fill, 0), (0, 0)])
    return KV(k.reshape(*k.shape[:-1], -1, KEY_BLOCK).swapaxes(-3, -2), v)

  segment, position = (jnp.pad(a, [(0, 0), (fill, 0)]) for a in prompts.keys[1:3])
  layers = jax.tree.map(blocks, prompts.keys.layers, is_leaf=is_kv)
  return PromptStore(layers, segment, position, prompts.length())


def empty_slots(state: SamplerState, store: PromptStore, count: int) -> Slots:
  """`count` free slots, and the rows that are to be decoded."""
  budget, rows = state.tokens.shape
  room = -(-budget // KEY_BLOCK)

  def empty(kv: KV) -> KV:
    *layers, _, heads, blocks, dim, size = kv.k.shape
    k, v = (blocks + room, dim, size), ((blocks + room) * size, dim)
    return KV(*(jnp.zeros((*layers, count, heads, *end), kv.k.dtype) for end in (k, v)))

  going = state.going()
  return Slots(
    cache=jax.tree.map(empty, store.layers, is_leaf=is_kv),
    row=jnp.full((count,), rows, jnp.int32),
    taken=jnp.zeros((), jnp.int32),
    order=jnp.argsort(~going, stable=True).astype(jnp.int32),
    count=going.sum(dtype=jnp.int32),
  )


def _prompt_of(state: SamplerState, store: PromptStore, row: jax.Array) -> jax.Array:
  """The prompts' rows in the store of rows i32[...]."""
  if state.prompt_row is not None:
    return state.prompt_row[row]
  return row // (state.tokens.shape[1] // store.length.shape[0])


def refill(state: SamplerState, slots: Slots, store: PromptStore) -> Slots:
  """The slots with those whose rows have ended free, or taken by the next rows."""
  rows = state.tokens.shape[1]
  ended = ~state.going()[jnp.minimum(slots.row, rows - 1)]
  slots = dataclasses.replace(slots, row=jnp.where(ended, rows, slots.row))

  def waiting(slots: Slots) -> jax.Array:
    return (slots.row == rows).any() & (slots.taken < slots.count)

  def take(slots: Slots) -> Slots:
    """The first free slot taken by the next row."""
    slot, row = jnp.argmax(slots.row == rows), slots.order[slots.taken]
    prompt = _prompt_of(state, store, row)

    def copy(cache: jax.Array, source: jax.Array, axis: int) -> jax.Array:
      piece = jax.lax.dynamic_slice_in_dim(source, prompt, 1, axis)
      return jax.lax.dynamic_update_slice(cache, piece, [slot if i == axis else 0 for i in range(cache.ndim)])

    def copy_layer(cache: KV, source: KV) -> KV:
      return KV(copy(cache.k, source.k, cache.k.ndim - 5), copy(cache.v, source.v, cache.v.ndim - 4))

    return dataclasses.replace(
      slots,
      cache=jax.tree.map(copy_layer, slots.cache, store.layers, is_leaf=is_kv),
      row=slots.row.at[slot].set(row),
      taken=slots.taken + 1,
    )

  return jax.lax.while_loop(waiting, take, slots)


def slot_step(
  params: Any,
  state: SamplerState,
  slots: Slots,
  store: PromptStore,
  temperature: jax.Array,
  *,
  model: Decoder,
  cfg: SampleConfig,
) -> tuple[SamplerState, Slots]:
  """A token more of each row that has a slot."""
  rows, width = state.tokens.shape[1], store.segment.shape[1]
  busy, row = slots.row < rows, jnp.minimum(slots.row, rows - 1)
  at, prompt = state.length[row], _prompt_of(state, store, row)
  start = store.length[prompt][:, None]
  ahead = -(-state.tokens.shape[0] // KEY_BLOCK) * KEY_BLOCK
  position = jnp.concatenate([store.position[prompt], start + jnp.arange(ahead)], axis=1)
  segment = jnp.pad(store.segment[prompt], [(0, 0), (0, ahead)], constant_values=1)
  filled = jnp.where(busy, width + at, 0)
  hidden, cache = model.apply(
    params, state.tokens[at - 1, row][:, None], jnp.ones_like(start), start + at[:, None] - 1,
    cache=Context(slots.cache, segment, position, filled), index=width + at - 1,
  )  # fmt: skip
  logits: Any = model.apply(params, hidden[:, 0], method="head")
  # Gathered once over `tensor`: collectives of all devices, such as XLA's shift of a split vocabulary, would
  # wait for devices whose loops have ended.
  logits = nn.with_logical_constraint(logits, ("batch", None))
  new = next_token(
    logits, state.noise[state.sampled[row], row], busy, temperature, cfg=cfg, token_map=state.token_map,
    forced=None if state.forced is None else state.forced[at, row],
  )  # fmt: skip

  def put(array: jax.Array, value: jax.Array) -> jax.Array:
    return array.at[at, slots.row].set(value, mode="drop")

  state = dataclasses.replace(
    state,
    tokens=put(state.tokens, new.token),
    logp=put(state.logp, new.logp),
    is_action=put(state.is_action, new.is_action),
    length=state.length.at[slots.row].add(1, mode="drop"),
    sampled=state.sampled.at[slots.row].add(1, mode="drop"),
    done=state.done.at[slots.row].set(new.stops, mode="drop"),
  )
  return state, dataclasses.replace(slots, cache=cache)


def _decode_here(
  params: Any,
  state: SamplerState,
  prompts: PromptCache,
  temperature: jax.Array,
  *,
  model: Decoder,
  cfg: SampleConfig,
  count: int,
) -> SamplerState:
  """`decode_slots` of the rows of one device, in `count` slots."""
  store, rows = prompt_store(prompts), state.tokens.shape[1]
  slots = refill(state, empty_slots(state, store, count), store)

  def turn(carry: tuple[SamplerState, Slots]) -> tuple[SamplerState, Slots]:
    state, slots = slot_step(params, *carry, store, temperature, model=model, cfg=cfg)
    return state, refill(state, slots, store)

  return jax.lax.while_loop(lambda carry: (carry[1].row < rows).any(), turn, (state, slots))[0]


def decode_slots(
  params: Any,
  state: SamplerState,
  prompts: PromptCache,
  temperature: jax.Array,
  *,
  model: Decoder,
  cfg: SampleConfig,
) -> SamplerState:
  """Steps until each row has stopped or is full, `cfg.slots` rows at a time; of `begin`'s state, all of it.

  The state comes back without a cache. Raises ValueError in a member of a mapped axis, whose loops would turn
  as often as the slowest member's, and where the slots do not divide over the shards of the batch.
  """
  if cfg.member_axis is not None:
    raise ValueError("slots: members of a mapped axis cannot refill theirs on their own")
  state = dataclasses.replace(state, cache=None, step=None)
  axes = batch_axes(prompts.hidden.shape[0])
  shards = math.prod(jax.sharding.get_abstract_mesh().shape[axis] for axis in axes)
  if cfg.slots % shards:
    raise ValueError(f"slots: {cfg.slots} does not divide over the mesh's {shards} shards of the batch")
  decode = functools.partial(_decode_here, model=model, cfg=cfg, count=cfg.slots // shards)
  if not axes:
    return decode(params, state, prompts, temperature)
  by_row: Any = PartitionSpec(axes)
  by_column, replicated = PartitionSpec(None, axes), PartitionSpec()
  state_spec = jax.tree.map(lambda a: by_column if a.ndim == 2 else by_row, state)
  state_spec = dataclasses.replace(state_spec, token_map=None if state.token_map is None else replicated)
  layers = by_column if model.cfg.scan_layers else by_row  # one spec for the keys of all of them
  prompts_spec = PromptCache(Context(layers, by_row, by_row), by_row)

  def decode_shard(*given: Any) -> SamplerState:
    with nn.logical_axis_rules(rules_within(axes) if nn.get_logical_axis_rules() else ()):
      return decode(*given)

  # Unchecked: the loops of the devices turn as often as each one's rows ask.
  mapped = jax.shard_map(
    decode_shard, in_specs=(replicated, state_spec, prompts_spec, replicated), out_specs=state_spec,
    axis_names=set(axes), check_vma=False,
  )  # fmt: skip
  return mapped(params, state, prompts, temperature)

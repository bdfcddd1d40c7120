"""The learner's forward pass: log-probs, entropies and exact KLs of an Experience, without f32[B, L, V].

A layout says how rows relate. `Packed` is the general case. `Grouped` rows are a rollout's: each of P
prompts is encoded once, and its G responses read its keys, as they do in the sampler.
"""

import dataclasses
import functools
from typing import Any, Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from o1jax.model.transformer import Context, Decoder, cast_params
from o1jax.model.vocabulary import Head, make_blocks, score_by_blocks
from o1jax.parallel.sharding import batch_axes
from o1jax.rl.critic import values
from o1jax.types import TokenScores


@dataclasses.dataclass(frozen=True)
class Packed:
  """Any rows: every position attends within its segment."""


@dataclasses.dataclass(frozen=True)
class Grouped:
  """Rows p * samples + g share the prompt in their first `prompt` columns; the last is no padding."""

  prompt: int
  samples: int


def _hidden_packed(model: Decoder, params: Any, tokens, segment, position, layout: Packed):
  hidden, _ = model.apply(params, tokens, segment, position)
  return hidden[:, :-1], tokens[:, 1:], 1


def _hidden_grouped(model: Decoder, params: Any, tokens, segment, position, layout: Grouped):
  split, samples = layout.prompt, layout.samples
  prompt = [a[::samples, :split] for a in (tokens, segment, position)]
  first, keys = model.apply(params, *prompt)
  prefix = Context(keys, prompt[1], prompt[2])
  rest, _ = model.apply(params, *(a[:, split:] for a in (tokens, segment, position)), prefix=prefix)
  first = jnp.repeat(first[:, -1:], samples, axis=0)
  return jnp.concatenate([first, rest[:, :-1]], axis=1), tokens[:, split:], split


KERNELS = ("embedding", "head")  # parameters of the decoder, one of which is its head's

HIDDEN: dict[type, Callable] = {Packed: _hidden_packed, Grouped: _hidden_grouped}


def _token_scores(logits, reference, target, needs: frozenset[str]) -> TokenScores:
  """Scores of N tokens from logits f32[N, V] / temperature; `reference` likewise, or None."""
  logp_all = jax.nn.log_softmax(logits, axis=-1)
  logp = jnp.take_along_axis(logp_all, target[:, None], axis=-1)[:, 0]
  probs = jnp.exp(logp_all)
  entropy = -jnp.sum(probs * logp_all, axis=-1) if "entropy" in needs else None
  if reference is None:
    return TokenScores(logp, entropy)
  ref_all = jax.nn.log_softmax(reference, axis=-1)
  gap = logp_all - ref_all
  reverse = jnp.sum(probs * gap, axis=-1) if "kl_reverse" in needs else None
  forward = -jnp.sum(jnp.exp(ref_all) * gap, axis=-1) if "kl_forward" in needs else None
  return TokenScores(logp, entropy, reverse, forward)


def _in_chunks(
  weights: list[Any],
  temperature: jax.Array,
  inputs: list[jax.Array],
  *,
  model: Decoder,
  needs: frozenset,
  chunk: int,
) -> TokenScores:
  """Scores f32[N, T] of hidden states f[N, T, D], targets i32[N, T] and the reference's hidden states.

  weights: variables of the policy and, with a reference, its own.
  """
  rows, length = inputs[1].shape

  def head(variables, states) -> Any:
    logits: Any = model.apply(variables, states, method="head")
    return logits / temperature

  def one_chunk(piece: list[jax.Array]) -> TokenScores:
    reference = head(weights[1], piece[2]) if len(weights) > 1 else None
    return _token_scores(head(weights[0], piece[0]), reference, piece[1], needs)

  flat = [a.reshape(-1, *a.shape[2:]) for a in inputs]
  count = rows * length
  pieces = -(-count // chunk)
  blocks = make_blocks(model, weights[0]["params"], needs, min(chunk, count))
  if blocks is not None:
    states = [flat[0], *flat[2:]]
    heads = [Head(v["params"][blocks.kernel], hidden) for v, hidden in zip(weights, states)]
    scores = score_by_blocks(heads, flat[1], temperature, blocks)
  elif pieces == 1:
    scores = one_chunk(flat)
  else:
    fill = pieces * chunk - count

    def fold(a: jax.Array) -> jax.Array:
      return jnp.pad(a, [(0, fill)] + [(0, 0)] * (a.ndim - 1)).reshape(pieces, chunk, *a.shape[1:])

    scores = jax.lax.map(jax.checkpoint(one_chunk), [fold(a) for a in flat])
  return jax.tree.map(lambda a: a.reshape(-1)[:count].reshape(rows, length), scores)


def _change_kernels(change: Callable[[jax.Array], jax.Array], variables: Any) -> Any:
  """The variables with the matrices [V, D] that the head may read changed."""
  params = variables["params"]
  return {"params": {**params, **{name: change(params[name]) for name in KERNELS if name in params}}}


def _by_shard(
  score_rows: Callable[..., TokenScores], weights: list[Any], temperature: jax.Array, inputs: list[jax.Array]
) -> TokenScores:
  """`score_rows` of each shard's own rows, with the kernels gathered once; of all rows on one device.

  As a program for all devices each would run all of a loop over chunks: its chunks cut across what they hold.
  """
  axes = batch_axes(inputs[0].shape[0])
  if not axes:
    return score_rows(weights, temperature, inputs)
  weights = [
    {"params": {name: v["params"][name] for name in KERNELS if name in v["params"]}} for v in weights
  ]
  parts = "fsdp" if "fsdp" in axes else None  # of a kernel's columns

  def gather(kernel: jax.Array) -> jax.Array:
    return jax.lax.all_gather(kernel, "fsdp", axis=1, tiled=True) if parts else kernel

  def here(weights: list[Any], temperature: jax.Array, inputs: list[jax.Array]) -> TokenScores:
    return score_rows([_change_kernels(gather, variables) for variables in weights], temperature, inputs)

  kernel, along = PartitionSpec(None, parts), PartitionSpec(axes)
  # Unchecked, as the check would have the kernel's gradient added over `data` in each chunk.
  mapped = jax.shard_map(
    here, in_specs=(kernel, PartitionSpec(), along), out_specs=along, axis_names=set(axes), check_vma=False
  )
  return mapped(weights, temperature, inputs)


def score(
  params: Any,
  ref_params: Any | None,
  tokens: jax.Array,
  segment: jax.Array,
  position: jax.Array,
  *,
  model: Decoder,
  temperature: jax.Array,
  needs: frozenset[str],
  layout: Packed | Grouped,
  chunk: int,
) -> TokenScores:
  """tokens, segment, position i32[B, L] -> TokenScores f32[B, L], 0 in the columns no token precedes.

  `ref_params` is read where `needs` holds "kl_reverse" or "kl_forward" alone, and the critic in `params`
  where it holds "value". Logits exist for `chunk` tokens of a device at a time, and of a large vocabulary for
  a block of it (`score_by_blocks`); they are made again in the backward pass where there is more
  than one chunk or block.
  """
  exact = bool(needs & {"kl_reverse", "kl_forward"})
  if exact and ref_params is None:
    raise ValueError("an exact KL needs ref_params")
  variables = {"params": cast_params(params, model.cfg)}
  ref_variables = {"params": cast_params(ref_params, model.cfg)} if exact else None
  hidden_of = HIDDEN[type(layout)]
  hidden, target, start = hidden_of(model, variables, tokens, segment, position, layout)
  inputs, weights = [hidden, target], [{"params": _with_wide_head(params)}]
  if exact:
    ref_hidden = hidden_of(model, ref_variables, tokens, segment, position, layout)[0]
    inputs.append(jax.lax.stop_gradient(ref_hidden))
    weights.append({"params": ref_params})
  score_rows = functools.partial(_in_chunks, model=model, needs=needs, chunk=chunk)
  scores = _by_shard(score_rows, weights, temperature, inputs)

  def place(a: jax.Array) -> jax.Array:
    return jnp.pad(a, [(0, 0), (start, 0)])

  scores = jax.tree.map(place, scores)
  if "value" not in needs:
    return scores

  def encode(weights: Any) -> jax.Array:
    cast = {"params": cast_params(weights, model.cfg)}
    return hidden_of(model, cast, tokens, segment, position, layout)[0]

  return dataclasses.replace(scores, value=place(values(params, hidden, encode)))


def _with_wide_head(params: Any) -> Any:
  """The parameters with a float32 head, cast within a chunk, so that gradients add up in float32."""
  return params | {name: params[name].astype(jnp.float32) for name in KERNELS if name in params}

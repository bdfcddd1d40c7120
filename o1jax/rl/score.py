"""The learner's forward pass: log-probs, entropies and exact KLs of an Experience, never holding f32[B, L, V].

A layout says how rows relate. `Packed` is the general case. `Grouped` rows are a rollout's: each of P prompts is
encoded once, and its G responses read its keys, as they do in the sampler.
"""

import dataclasses
from typing import Any, Callable

import jax
import jax.numpy as jnp

from o1jax.model.transformer import Context, Decoder, cast_params
from o1jax.rl.value import values
from o1jax.types import TokenScores


@dataclasses.dataclass(frozen=True)
class Packed:
  """Any rows: every position attends within its segment."""


@dataclasses.dataclass(frozen=True)
class Grouped:
  """Rows p * samples + g share the prompt in their first `prompt` columns; its last column is never padding."""

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
  """tokens, segment, position i32[B, L] -> TokenScores, each f32[B, L] and 0 in the columns no token precedes.

  `ref_params` is read where `needs` holds "kl_reverse" or "kl_forward" alone, and the critic in `params` where it holds
  "value". Logits exist for `chunk` tokens at a
  time, and are made again in the backward pass where there is more than one chunk.
  """
  exact = bool(needs & {"kl_reverse", "kl_forward"})
  if exact and ref_params is None:
    raise ValueError("an exact KL needs ref_params")
  variables = {"params": cast_params(params, model.cfg)}
  ref_variables = {"params": cast_params(ref_params, model.cfg)} if exact else None
  hidden_of = HIDDEN[type(layout)]
  hidden, target, start = hidden_of(model, variables, tokens, segment, position, layout)
  rows, length, width = hidden.shape
  inputs = [hidden.reshape(-1, width), target.reshape(-1)]
  if exact:
    ref_hidden = hidden_of(model, ref_variables, tokens, segment, position, layout)[0]
    inputs.append(jax.lax.stop_gradient(ref_hidden).reshape(-1, width))

  def head(weights, states) -> Any:
    return model.apply(weights, states, method="head")

  # The head casts its float32 kernel itself, within a chunk, so that the chunks' gradients are added in float32.
  def one_chunk(piece):
    logits = head({"params": params}, piece[0]) / temperature
    reference = head(ref_variables, piece[2]) / temperature if exact else None
    return _token_scores(logits, reference, piece[1], needs)

  count = rows * length
  pieces = -(-count // chunk)
  if pieces == 1:
    scores = one_chunk(inputs)
  else:
    fill = pieces * chunk - count
    fold = lambda a: jnp.pad(a, [(0, fill)] + [(0, 0)] * (a.ndim - 1)).reshape(pieces, chunk, *a.shape[1:])
    scores = jax.lax.map(jax.checkpoint(one_chunk), [fold(a) for a in inputs])
  place = lambda a: jnp.pad(a.reshape(-1)[:count].reshape(rows, length), [(0, 0), (start, 0)])
  scores = jax.tree.map(place, scores)
  if "value" not in needs:
    return scores
  encode = lambda weights: hidden_of(
    model, {"params": cast_params(weights, model.cfg)}, tokens, segment, position, layout
  )[0]
  return dataclasses.replace(scores, value=place(values(params, hidden, encode)))

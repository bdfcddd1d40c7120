"""Drawing a token: streams of random numbers, one uniform a token, filters of the logits, the inverse CDF.

The noise of a token depends on run, stream, step, problem, sample and position alone, never on the batch.
"""

import jax
import jax.numpy as jnp

# Streams of random numbers, one a use, so that no two uses share a key. 4 is free.
STREAMS = {
  "train": 0,
  "dynamic_sampling": 1,
  "eval": 2,
  "judge": 3,
  "init": 5,
  "minibatch": 6,
  "sft": 7,
  "proxy": 8,
}
CDF_BLOCK = 64  # tokens in a block of the CDF


def stream_key(seed: int, stream: str, step: jax.Array | int) -> jax.Array:
  """The key of one use at one step: fold_in(run seed, stream, step)."""
  return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), STREAMS[stream]), step)


def row_noise(
  key: jax.Array, problem_id: jax.Array, samples: int, length: int, before: jax.Array | None = None
) -> jax.Array:
  """f32[length, P * samples] uniforms; a row's depend on its problem, its sample and the position alone.

  `sample` counts the occurrences of a problem in the batch, and those `before` it (i32[P], None: none), so
  that a problem that occurs twice gets fresh noise.
  """
  earlier = jnp.tril(problem_id[:, None] == problem_id[None, :], -1).sum(-1)
  earlier = earlier if before is None else earlier + before
  sample = (earlier[:, None] * samples + jnp.arange(samples)).astype(jnp.uint32)
  fold = jax.random.fold_in

  def row_key(problem: jax.Array, sample: jax.Array) -> jax.Array:
    return fold(fold(key, problem), sample)

  def uniform(row: jax.Array, position: jax.Array) -> jax.Array:
    return jax.random.uniform(fold(row, position))

  rows = jax.vmap(jax.vmap(row_key, (None, 0)))(problem_id, sample).reshape(-1)
  return jax.vmap(jax.vmap(uniform, (0, None)), (None, 0))(rows, jnp.arange(length))


def keep_top(scaled: jax.Array, top_k: int, top_p: float) -> jax.Array:
  """Logits f32[B, V] with all but the top k, and all past the top-p mass, at -inf (Holtzman et al. 2020).

  With both, the mass is that of the top k alone, scaled to 1 again, as in Hugging Face's and vLLM's samplers.
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


def inverse_cdf(scaled: jax.Array, uniform: jax.Array) -> jax.Array:
  """i32[B]: the token whose share of the CDF contains `uniform`.

  scaled f32[B, V] logits / temperature, uniform f32[B] in [0, 1).

  The block of tokens is chosen first, then the token in it: one block's CDF is made and not the vocabulary's.
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
  """i32[B]: first entry with mass whose sum is above `threshold` f32[B]; mass, cumulative f32[B, n].

  XLA adds in a tree: over entries without mass its sums go up and down by rounding, and say nothing.
  """
  has_mass = mass > 0
  most = jnp.where(has_mass, cumulative, 0.0).max(-1)
  threshold = jnp.clip(threshold, 0.0, jnp.nextafter(most, 0.0))
  above = has_mass & (cumulative > threshold[:, None])
  count = mass.shape[-1]
  return jnp.where(above, jnp.arange(count, dtype=jnp.int32), count).min(-1)


def greedy(scaled: jax.Array, uniform: jax.Array) -> jax.Array:
  """i32[B]: the most probable token; `uniform` is not read."""
  return jnp.argmax(scaled, axis=-1).astype(jnp.int32)

"""The embedding's look-up, with a gradient that is summed in float32."""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def embed(table: jax.Array, tokens: jax.Array) -> jax.Array:
  """Rows f[..., D] of `table` f[V, D] at `tokens` i32[...], in the table's dtype.

  The gradient is summed in float32 and rounded once: in bfloat16 a sum stalls when an addend is below 1/256 of it, which
  a frequent token's row reaches at once.
  """
  return table[tokens]


def _embed_back(saved: tuple[jax.Array, jax.Array], slope: jax.Array) -> tuple[jax.Array, None]:
  table, tokens = saved
  total = jnp.zeros(table.shape, jnp.float32).at[tokens].add(slope.astype(jnp.float32))
  return total.astype(table.dtype), None


embed.defvjp(lambda table, tokens: (table[tokens], (table, tokens)), _embed_back)

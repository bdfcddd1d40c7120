"""A token from logits and noise: filters and the inverse CDF."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o1jax.rl.draw import inverse_cdf, keep_top


@pytest.mark.parametrize(
  ("top_k", "top_p", "kept"),
  [
    (0, 0.49, [0]),
    (0, 0.51, [0, 2]),  # the token that takes the mass past top_p stays
    (0, 0.76, [0, 2, 3]),
    (0, 0.91, [0, 1, 2, 3]),
    (2, 1.0, [0, 2]),
    (3, 0.51, [0]),  # of the three left the first has 5/9
    (3, 0.56, [0, 2]),
    (1, 0.91, [0]),
    (2, 0.6, [0]),  # of the two left the first has 2/3
    (9, 0.76, [0, 2, 3]),  # more than there are
  ],
)
def test_top_k_and_top_p_by_hand(top_k, top_p, kept) -> None:
  logits = jnp.log(jnp.asarray([[0.5, 0.1, 0.25, 0.15]]))
  left = np.asarray(keep_top(logits, top_k, top_p))
  assert list(np.flatnonzero(np.isfinite(left[0]))) == kept
  np.testing.assert_array_equal(left[0, kept], logits[0, np.asarray(kept)])


def test_inverse_cdf_by_hand() -> None:
  logits = jnp.log(jnp.asarray([[0.5, 0.25, 0.25]] * 4))
  uniform = jnp.asarray([0.0, 0.49, 0.51, 0.99999994])
  np.testing.assert_array_equal(inverse_cdf(logits, uniform), [0, 0, 1, 2])


def test_inverse_cdf_never_draws_what_has_no_mass() -> None:
  logits = jnp.asarray([[-jnp.inf, 0.0, -jnp.inf]] * 2)
  np.testing.assert_array_equal(inverse_cdf(logits, jnp.asarray([0.0, 0.99999994])), [1, 1])


@pytest.mark.parametrize("vocab", [30, 64, 200])
def test_inverse_cdf_draws_each_token_for_its_share_of_the_noise(vocab) -> None:
  """Where the plain CDF puts a token, clear of its edges by rounding, there it is drawn."""
  shares = np.random.default_rng(vocab).dirichlet(np.full(vocab, 0.3)).astype(np.float32)
  ends = np.cumsum(shares.astype(np.float64))
  uniform = np.linspace(0.0, 0.9999, 5000)
  clear = np.abs(uniform[:, None] - ends).min(1) > 1e-6
  logits = jnp.broadcast_to(jnp.log(shares) + 3.0, (len(uniform), vocab))
  drawn = np.asarray(inverse_cdf(logits, jnp.asarray(uniform, jnp.float32)))
  np.testing.assert_array_equal(drawn[clear], np.searchsorted(ends, uniform, side="right")[clear])
  assert clear.mean() > 0.95


def test_inverse_cdf_keeps_to_tokens_with_mass_across_blocks() -> None:
  mass = np.zeros((1, 200), bool)
  mass[0, [70, 130]] = True
  uniform = jnp.linspace(0.0, 0.99999994, 1001)
  drawn = inverse_cdf(jnp.broadcast_to(jnp.where(mass, 0.0, -jnp.inf), (1001, 200)), uniform)
  np.testing.assert_array_equal(drawn, np.where(np.asarray(uniform) < 0.5, 70, 130))


@pytest.mark.parametrize(("vocab", "top_k", "rows"), [(50_257, 50, 32), (151_936, 20, 8)])
def test_inverse_cdf_keeps_to_tokens_with_mass_beside_the_edges_of_blocks(vocab, top_k, rows) -> None:
  """Without care the CDF over a long vocabulary dips behind a block, and the dip is another one's edge."""
  noise = np.random.default_rng(0).normal(0, 2, (rows, vocab)).astype(np.float32)
  scaled = jax.jit(keep_top, static_argnums=(1, 2))(noise, top_k, 1.0)

  @jax.jit
  def edges(scaled):
    weights = jnp.pad(jnp.exp(scaled - scaled.max(-1, keepdims=True)), [(0, 0), (0, -vocab % 64)])
    ends = jnp.cumsum(weights.reshape(rows, -1, 64).sum(-1), axis=-1)
    return ends / ends[:, -1:]

  found, draw = np.asarray(edges(scaled)), jax.jit(inverse_cdf)
  for at in np.linspace(0, found.shape[1] - 1, 40).astype(int):
    for side in (0.0, 1.0):
      uniform = np.clip(np.nextafter(found[:, at], np.float32(side)), 0, np.float32(0.99999994))
      drawn = np.asarray(draw(scaled, uniform))
      assert np.isfinite(np.asarray(scaled)[np.arange(rows), drawn]).all()

"""Scores by blocks of the vocabulary against all logits at once: values and gradients."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o1jax.config import ModelConfig
from o1jax.model import vocabulary
from o1jax.model.transformer import Decoder, init_params
from o1jax.rl.scoring import Packed, score

B, L, V = 3, 30, 700
NEEDS = frozenset({"entropy", "kl_reverse", "kl_forward"})


@pytest.mark.parametrize("options", [{}, {"tied_head": False, "head_softcap": 5.0}])
def test_blocks_give_the_scores_and_gradients_of_all_logits(options, monkeypatch) -> None:
  model = Decoder(
    ModelConfig(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=16, vocab=V, **options)
  )
  params = nn.meta.unbox(jax.jit(functools.partial(init_params, model))(jax.random.key(0)))
  ref = jax.tree.map(lambda a: 0.8 * a, params)
  tokens = jnp.asarray(np.random.default_rng(0).integers(0, V, (B, L))).at[0, :3].set(V - 1)
  rows = (tokens, jnp.ones_like(tokens), jnp.broadcast_to(jnp.arange(L), tokens.shape))
  weight = jnp.asarray(np.random.default_rng(1).normal(size=(4, B, L)), jnp.float32)

  def loss(params):
    scores = score(
      params, ref, *rows, model=model, temperature=jnp.float32(0.7), needs=NEEDS, layout=Packed(), chunk=40
    )
    parts = [scores.logp, scores.entropy, scores.kl_reverse, scores.kl_forward]
    return sum((w * part).sum() for w, part in zip(weight, parts)), parts

  run = lambda: jax.jit(lambda params: jax.value_and_grad(loss, has_aux=True)(params))(params)
  (_, expected), grads = run()
  monkeypatch.setattr(vocabulary, "LOGITS", 40 * 300)  # blocks of 256 tokens, the last of which overlaps
  assert vocabulary.make_blocks(model, params, NEEDS, 40).block == 256
  (_, parts), blocks_grads = run()
  for part, other in zip(parts, expected):
    np.testing.assert_allclose(part, other, atol=3e-6, rtol=0)
  norm = np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(grads)))
  for a, b in zip(jax.tree.leaves(blocks_grads), jax.tree.leaves(grads)):
    assert float(jnp.abs(a - b).max()) <= 1e-6 * norm


def test_a_small_vocabulary_is_not_cut() -> None:
  model = Decoder(ModelConfig(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=16, vocab=V))
  params = {"embedding": jnp.zeros((V, 16))}
  assert vocabulary.make_blocks(model, params, NEEDS, 4096) is None


def test_no_program_holds_logits_of_the_vocabulary(monkeypatch) -> None:
  model = Decoder(ModelConfig(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=16, vocab=V))
  params = nn.meta.unbox(jax.jit(functools.partial(init_params, model))(jax.random.key(0)))
  monkeypatch.setattr(vocabulary, "LOGITS", 64 * 128)
  tokens = jnp.zeros((1, 65), jnp.int32)

  def loss(params):
    given = dict(temperature=jnp.float32(1.0), needs=frozenset({"entropy"}), layout=Packed(), chunk=64)
    return score(params, None, tokens, tokens + 1, jnp.arange(65)[None], model=model, **given).logp.sum()

  text = jax.jit(jax.grad(loss)).lower(params).as_text()
  assert "tensor<64x128xf32>" in text and f"tensor<64x{V}xf32>" not in text

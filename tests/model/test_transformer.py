"""One forward path: a whole row, a prompt's shared keys, and token by token must agree; devices change nothing."""

import functools
from typing import Any, Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o1jax.config import ConfigError, MeshConfig, ModelConfig, RopeScaling
from o1jax.model.transformer import (
  Context,
  Decoder,
  cast_params,
  embed,
  init_params,
  rope_frequencies,
  rotate,
)
from o1jax.parallel.mesh import make_mesh
from o1jax.parallel.sharding import RULES, param_shardings, put_rows

BASE = dict(width=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp=64, vocab=30)
GEMMA = dict(
  norm_placement="sandwich", norm_plus_one=True, activation="gelu_tanh", attention_softcap=20.0, head_softcap=10.0,
  window=(4, 0), rope_theta=(1e4, 1e6), embed_scale=5.7, qk_norm="head",
)  # fmt: skip
OTHER = dict(norm_placement="post", qkv_bias=True, qk_norm="full", tied_head=False, remat="full")
P, G, LP, R = 2, 2, 4, 5


def batch() -> tuple[jax.Array, jax.Array, jax.Array]:
  rng = np.random.default_rng(0)
  prompt, response = rng.integers(1, 30, (P, LP)), rng.integers(1, 30, (P * G, R))
  valid = np.ones((P * G, LP + R), np.int32)
  valid[:G, :2] = 0
  tokens = jnp.asarray(np.concatenate([np.repeat(prompt, G, 0), response], 1))
  return tokens, jnp.asarray(valid), jnp.maximum(jnp.cumsum(jnp.asarray(valid), 1) - 1, 0)


def made(**options) -> tuple[Decoder, Callable, Any]:
  """A decoder, its compiled forward pass, and parameters with their logical axes."""
  model = Decoder(ModelConfig(**BASE, **options))
  params = jax.jit(functools.partial(init_params, model))(jax.random.key(0))
  return model, jax.jit(lambda p, *rows, **prefix: model.apply({"params": p}, *rows, **prefix)), params


@pytest.mark.parametrize("options", [{}, GEMMA, OTHER, {**GEMMA, "scan_layers": True}])
def test_shared_prompt_keys_give_the_whole_rows_states(options) -> None:
  _, forward, boxed = made(**options)
  params = nn.meta.unbox(boxed)
  tokens, segment, position = batch()
  whole, _ = forward(params, tokens, segment, position)
  prompt = [a[::G, :LP] for a in (tokens, segment, position)]
  _, keys = forward(params, *prompt)
  rest = (a[:, LP:] for a in (tokens, segment, position))
  split, _ = forward(params, *rest, prefix=Context(keys, prompt[1], prompt[2]))
  np.testing.assert_allclose(split, whole[:, LP:], atol=2e-5, rtol=0)


def test_packed_rows_do_not_see_each_other() -> None:
  _, forward, boxed = made()
  params = nn.meta.unbox(boxed)
  tokens = jnp.asarray([[5, 6, 7, 8, 9, 10]])
  packed, _ = forward(params, tokens, jnp.asarray([[1, 1, 1, 2, 2, 2]]), jnp.asarray([[0, 1, 2, 0, 1, 2]]))
  alone, _ = forward(params, tokens[:, 3:], jnp.ones((1, 3), jnp.int32), jnp.arange(3)[None])
  np.testing.assert_allclose(packed[:, 3:], alone, atol=1e-5, rtol=0)


def test_eight_devices_give_the_states_of_one() -> None:
  model, forward, boxed = made()
  tokens, segment, position = (jnp.concatenate([a, a]) for a in batch())
  params = nn.meta.unbox(boxed)
  one, _ = forward(params, tokens, segment, position)
  mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
  sharded = jax.device_put(params, param_shardings(boxed, mesh))
  assert not sharded["layer_0"]["attention"]["qkv"].sharding.is_fully_replicated
  with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
    many, _ = jax.jit(lambda p, *rows: model.apply({"params": p}, *rows))(
      sharded, *put_rows((tokens, segment, position), mesh)
    )
  np.testing.assert_allclose(many, one, atol=2e-5, rtol=0)


def learned(**options) -> tuple[Any, float, int]:
  """(the gradient of a sum of squared states, the compiled program's FLOPs, the barriers that XLA was given)."""
  model, _, boxed = made(**options)
  loss = lambda p, *rows: jnp.square(model.apply({"params": p}, *rows)[0]).sum()
  params = nn.meta.unbox(boxed)
  lowered = jax.jit(jax.grad(loss)).lower(params, *batch())
  compiled = lowered.compile()
  flops = compiled.cost_analysis()["flops"]
  return compiled(params, *batch()), flops, lowered.as_text().count("optimization_barrier")


@pytest.mark.full
@pytest.mark.parametrize("scan_layers", [False, True])
def test_remat_computes_again_in_the_compiled_program_and_changes_no_gradient(scan_layers) -> None:
  kept, least, none = learned(scan_layers=scan_layers)
  full, most, fences = learned(scan_layers=scan_layers, remat="full")
  dots, some, others = learned(scan_layers=scan_layers, remat="dots")
  assert most > 1.2 * least and least <= some < most
  # Not every backend merges what is computed twice, so that FLOPs alone would not tell of a missing barrier.
  assert (none, fences, others) == ((0, 0, 0) if scan_layers else (0, BASE["layers"], BASE["layers"]))
  for other in (full, dots):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-5), other, kept)


# bfloat16


def test_the_gradient_of_a_row_that_many_tokens_read_is_their_sum() -> None:
  read = lambda table, tokens: embed(table, tokens).astype(jnp.float32).sum()
  for dtype in (jnp.bfloat16, jnp.float32):
    slope = jax.grad(read)(jnp.zeros((4, 8), dtype), jnp.zeros(4096, jnp.int32))
    assert slope.dtype == dtype
    np.testing.assert_array_equal(slope, np.float32([[4096.0]] + [[0.0]] * 3) * np.ones((1, 8)))


@pytest.mark.parametrize(
  ("name", "options", "near"),
  [
    ("scale", {"norm_plus_one": True}, (0.0, 0.003)),  # 1 + 0.003 is 1 in bfloat16
    ("scale", {}, (1.0, 1.003)),
    ("qkv_bias", {"qkv_bias": True}, (1.0, 1.003)),
  ],
)
def test_norms_and_biases_are_not_rounded_to_bfloat16(name, options, near) -> None:
  model, _, boxed = made(**options, dtype="bfloat16")
  params = nn.meta.unbox(boxed)

  def states(value):
    put = lambda path, p: jnp.full_like(p, value) if path[-1].key == name else p
    cast = cast_params(jax.tree_util.tree_map_with_path(put, params), model.cfg)
    assert {p.dtype for p in jax.tree.leaves(cast)} == {jnp.dtype(t) for t in ("float32", "bfloat16")}
    return np.asarray(model.apply({"params": cast}, *batch())[0], np.float32)

  left, right = (states(value) for value in near)
  assert np.any(left != right)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_stored_matrices_have_their_own_dtype(scan_layers) -> None:
  options = {**OTHER, "remat": "none", "dtype": "bfloat16", "scan_layers": scan_layers}
  _, forward, wide = made(**options)
  _, _, narrow = made(**options, param_dtype="bfloat16")
  wide, narrow = nn.meta.unbox(wide), nn.meta.unbox(narrow)
  dtypes = {path[-1].key: a.dtype for path, a in jax.tree_util.tree_leaves_with_path(narrow)}
  vectors = {name for name, dtype in dtypes.items() if dtype == jnp.float32}
  assert vectors == {"scale", "qkv_bias"} and set(dtypes.values()) == {
    jnp.dtype("float32"),
    jnp.dtype("bfloat16"),
  }
  assert jax.tree.all(jax.tree.map(lambda a, b: (a.astype(b.dtype) == b).all(), wide, narrow))
  np.testing.assert_array_equal(forward(wide, *batch())[0], forward(narrow, *batch())[0])


def test_queries_are_scaled_before_they_are_rounded() -> None:
  # 1/12 is 0.0835 in bfloat16, 0.2% too large; a rotation by no angle leaves x as it is.
  still = (jnp.ones((1, 1, 4)), jnp.zeros((1, 1, 4)))
  x = (1 + jnp.arange(128.0) / 128).astype(jnp.bfloat16).reshape(1, 1, 1, 16, 8)
  expected = (x.astype(jnp.float32) / 12).astype(jnp.bfloat16)
  np.testing.assert_array_equal(rotate(x, still, 1 / 12), expected)
  assert np.any(expected != x * jnp.bfloat16(1 / 12))


@pytest.mark.parametrize(
  ("cfg", "rows", "shape"),
  [
    (MeshConfig(), 0, (8, 1, 1)),
    (MeshConfig(data=1), 0, (1, 1, 1)),
    (MeshConfig(data=3), 0, (3, 1, 1)),
    (MeshConfig(tensor=3), 0, (2, 1, 3)),
    (MeshConfig(data=1, tensor=-1), 3, (1, 1, 8)),
    (MeshConfig(), 6, (6, 1, 1)),
    (MeshConfig(), 4, (4, 1, 1)),
    (MeshConfig(), 9, (3, 1, 1)),
    (MeshConfig(fsdp=2), 6, (3, 2, 1)),
    (MeshConfig(data=1, fsdp=-1), 12, (1, 6, 1)),
    (MeshConfig(fsdp=2), 3, (4, 2, 1)),  # no number of shards divides the rows: whoever asks names them
  ],
)
def test_a_mesh_takes_what_it_says_or_as_many_devices_as_divide_the_rows(cfg, rows, shape) -> None:
  mesh = make_mesh(cfg, rows=rows)
  assert tuple(mesh.shape.values()) == shape


def test_an_impossible_mesh_names_itself() -> None:
  for cfg, told in (
    (MeshConfig(data=16), "data=16 x fsdp=1 x tensor=1 wants 16 devices or more, here are 8"),
    (MeshConfig(tensor=9), "data=-1 x fsdp=1 x tensor=9 wants 9 devices or more, here are 8"),
  ):
    with pytest.raises(ConfigError, match=f"mesh: {told}"):
      make_mesh(cfg)


def test_llama3_scaling_keeps_short_waves_and_slows_long_ones() -> None:
  plain = ModelConfig(**{**BASE, "head_dim": 64}, rope_theta=(5e5,))
  scaled = ModelConfig(**{**BASE, "head_dim": 64}, rope_theta=(5e5,), rope_scaling=RopeScaling())
  ratio = rope_frequencies(plain)[0] / rope_frequencies(scaled)[0]
  assert ratio[0] == 1.0 and ratio[-1] == pytest.approx(8.0) and (np.diff(ratio) >= -1e-6).all()

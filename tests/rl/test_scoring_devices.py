"""The learner's head on a mesh: each device scores its own rows, in chunks, and adds its gradient in float32."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from o1jax.config import MeshConfig, ModelConfig
from o1jax.model.transformer import Decoder, init_params
from o1jax.parallel.mesh import make_mesh
from o1jax.parallel.sharding import RULES, param_shardings, put_rows
from o1jax.rl.scoring import Grouped, Packed, score

B, G, LP, R, V, D, CHUNKS = 32, 4, 8, 64, 1920, 32, 8
MODEL = Decoder(ModelConfig(D, layers=1, heads=2, kv_heads=2, head_dim=16, mlp=48, vocab=V, tied_head=False))
TOKENS = np.random.default_rng(0).integers(0, V, (B, LP + R)).astype(np.int32)
TOKENS[:, :LP] = np.repeat(TOKENS[::G, :LP], G, axis=0)
ROWS = (TOKENS, np.ones_like(TOKENS), np.broadcast_to(np.arange(LP + R, dtype=np.int32), TOKENS.shape))
NEEDS = frozenset({"entropy", "kl_reverse"})


@functools.cache
def parameters():
  return jax.jit(functools.partial(init_params, MODEL))(jax.random.key(0))


def loss(head, params, rows, chunk: int) -> jax.Array:
  weights = params | {"head": head}
  scores = score(
    weights, jax.tree.map(lambda a: 0.9 * a, params), *rows, model=MODEL, temperature=jnp.float32(0.9), needs=NEEDS,
    layout=Grouped(LP, G), chunk=chunk,
  )  # fmt: skip
  return (scores.kl_reverse - scores.logp + 0.1 * scores.entropy).mean()


gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), static_argnames="chunk")
of_the_head = jax.jit(jax.grad(loss), static_argnames="chunk")


def on_a_mesh(data: int, fsdp: int, run):
  """`run` of (head, parameters, rows) on a mesh, in chunks of an eighth of a device's tokens."""
  mesh = make_mesh(MeshConfig(data, fsdp, 1))
  params = jax.device_put(nn.meta.unbox(parameters()), param_shardings(parameters(), mesh))
  with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
    return run(params["head"], params, put_rows(ROWS, mesh), chunk=B * R // 8 // CHUNKS)


@pytest.mark.full
@pytest.mark.parametrize("shape", [(8, 1), (1, 8), (4, 2)])
def test_gradients_are_those_of_one_chunk_on_one_device(shape) -> None:
  params = nn.meta.unbox(parameters())
  value, one = gradient(params["head"], params, ROWS, chunk=B * R)
  told, many = on_a_mesh(*shape, gradient)
  assert float(told) == pytest.approx(float(value), rel=1e-6)
  gap = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), many, one)
  assert float(optax.tree.norm(gap)) <= 1e-6 * float(optax.tree.norm(one))


@pytest.mark.parametrize("shape", [(8, 1), (1, 8)])
def test_each_device_scores_its_own_rows_alone(shape) -> None:
  program = on_a_mesh(*shape, lambda *given, **chunk: of_the_head.lower(*given, **chunk).compile().as_text())
  made = lambda kind: re.findall(rf"= (.*?) {kind}(?:-start)?\(", program)
  sizes = lambda kind: {
    tuple(map(int, dims.split(","))) for told in made(kind) for dims in re.findall(r"\[([\d,]+)\]", told)
  }
  trips = {int(n) for n in re.findall(r'known_trip_count":\{"n":"(\d+)"', program)}
  assert CHUNKS in trips and 8 * CHUNKS not in trips and (B * R // 8 // CHUNKS, V) in sizes("dot")
  if shape == (8, 1):  # no hidden states, and no tokens
    assert sizes("all-gather") == set()
  else:  # neither logits nor the kernel's gradient, of which each device gets its part alone
    assert {dims for dims in sizes("all-reduce") if V in dims} == set()
    assert sizes("reduce-scatter") == {(V, D // 8)}


def test_the_kernels_gradient_is_added_in_float32() -> None:
  """1,024 chunks of one token, each of which adds 1: in bfloat16 the sum stalls at 256."""

  class Head:
    cfg = ModelConfig(1, 1, 1, 1, 2, 1, dtype="bfloat16")

    def apply(self, variables, tokens, *rest, method=None):
      if method is None:
        return jnp.ones((*tokens.shape, 1), jnp.bfloat16), None
      return jnp.einsum("...d,vd->...v", tokens, variables["params"]["head"].astype(tokens.dtype)).astype(
        jnp.float32
      )

  def total(head):
    row = jnp.zeros((1, 1025), jnp.int32)
    given = dict(model=Head(), temperature=1.0, needs=frozenset(), layout=Packed(), chunk=1)
    return score({"head": head}, None, row, row + 1, row, **given).logp.sum()

  grad = jax.grad(total)(jnp.zeros((2, 1), jnp.float32))
  np.testing.assert_array_equal(grad, [[512.0], [-512.0]])

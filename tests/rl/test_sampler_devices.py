"""The sampler on a mesh of eight devices draws what one device draws."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from o1jax.config import MeshConfig, ModelConfig
from o1jax.model.transformer import Decoder, init_params
from o1jax.parallel.mesh import make_mesh
from o1jax.parallel.sharding import RULES, param_shardings, put_rows
from o1jax.rl.draw import stream_key
from o1jax.rl.generate import generate
from o1jax.rl.sampler import SampleConfig
from o1jax.types import PromptBatch

P, G, LP, R, STOP = 4, 2, 5, 12, 2


def test_eight_devices_draw_the_tokens_of_one() -> None:
  model = Decoder(ModelConfig(width=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp=64, vocab=30))
  boxed = jax.jit(functools.partial(init_params, model))(jax.random.key(0))
  params = nn.meta.unbox(boxed)
  tokens = np.random.default_rng(0).integers(4, 30, (P, LP)).astype(np.int32)
  mask = np.arange(LP) >= np.arange(P)[:, None]
  batch = PromptBatch(tokens, mask, np.arange(7, 7 + P, dtype=np.uint32))
  draw = functools.partial(
    generate, key=stream_key(0, "train", 1), temperature=jnp.float32(1.0), model=model, samples=G,
    cfg=SampleConfig(max_tokens=R, stop_tokens=(STOP,)),
  )  # fmt: skip
  one = draw(params, jax.tree.map(jnp.asarray, batch))
  mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
  sharded = jax.device_put(params, param_shardings(boxed, mesh))
  assert not sharded["layer_0"]["attention"]["qkv"].sharding.is_fully_replicated
  with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
    many = draw(sharded, put_rows(batch, mesh))
  assert one.is_action.sum() > P * G  # no empty agreement
  for name in ("tokens", "valid", "is_action", "finished"):
    np.testing.assert_array_equal(getattr(many, name), getattr(one, name))
  np.testing.assert_allclose(many.logp_sampler, one.logp_sampler, atol=1e-4, rtol=0)

"""One decoder for the Llama, Qwen and Gemma families, by configuration.

  embed -> layers of (attention, gated MLP) with RMSNorm before, after or around each -> final norm -> head

Keys and values are explicit: a call may attend to a `prefix` (a prompt's keys, shared by N / M consecutive
rows, not copied for each) and to a `cache` it writes into, and always returns the keys and values it made.
The sampler and the learner run this one path. Query, key and value products are one matrix product, and so
are gate and up. Left out: encoder attention, mixture of experts, dropout.
"""

import dataclasses
import functools
from typing import Any, Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from o1jax.config import ModelConfig, RopeScaling
from o1jax.model import flash
from o1jax.model.attention import KV, Context, attend, attend_filled, softcap, visible, write_keys

ALL_KEYS = 2**30  # a window wider than any sequence
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
VECTORS = ("scale", "qkv_bias")  # parameters that are no matrices: never cast, and without weight decay
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  "silu": nn.silu,
  "gelu_tanh": functools.partial(nn.gelu, approximate=True),
}
REMAT_POLICIES = {"full": None, "dots": jax.checkpoint_policies.dots_saveable}
QK_NORM_AXES = {"head": ("head_dim",), "full": ("kv_heads", "q_per_kv", "head_dim")}
NORM_SITES = {"pre": (True, False), "post": (False, True), "sandwich": (True, True)}


def logical(init: Callable, names: tuple[str, ...]) -> Any:
  """An initialiser whose array is boxed with its logical axis names; it is drawn in float32 and rounded."""

  def rounded(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    return init(key, shape, jnp.float32).astype(dtype)

  return nn.with_logical_partitioning(rounded, names)


def rope_frequencies(cfg: ModelConfig) -> np.ndarray:
  """f32[layers, head_dim / 2] radians a position (Su et al. 2021, 3.2.2; Llama 3's scaling if set)."""
  half = np.arange(0, cfg.head_dim, 2, dtype=np.float64) / cfg.head_dim
  thetas = np.broadcast_to(np.asarray(cfg.rope_theta, np.float64), (cfg.layers,))
  frequencies = 1.0 / thetas[:, None] ** half[None]
  if cfg.rope_scaling is not None:
    frequencies = _llama3_scaling(frequencies, cfg.rope_scaling)
  return frequencies.astype(np.float32)


def _llama3_scaling(frequencies: np.ndarray, scaling: RopeScaling) -> np.ndarray:
  """Slows long wavelengths by `factor`, keeps short ones, and blends between."""
  turns = scaling.original_length * frequencies / (2 * np.pi)  # full turns within the original length
  low, high = scaling.low_freq_factor, scaling.high_freq_factor
  blend = np.clip((turns - low) / (high - low), 0.0, 1.0)
  return frequencies * (blend + (1 - blend) / scaling.factor)


def rotations(frequencies: np.ndarray, position: jax.Array, bound: int) -> tuple[tuple, np.ndarray]:
  """((cos, sin) f32[D, N, T, h / 2] of the D distinct rows of `frequencies`, each layer's row i32[layers]).

  Looked up in a constant table of `bound` positions: XLA would compute a cosine anew wherever it is read.
  """
  distinct, which = np.unique(frequencies, axis=0, return_inverse=True)
  angle = np.arange(bound, dtype=np.float64)[:, None] * distinct[:, None].astype(np.float64)
  cos, sin = (jnp.asarray(table, jnp.float32)[:, position] for table in (np.cos(angle), np.sin(angle)))
  return (cos, sin), which.reshape(-1).astype(np.int32)


def rotate(x: jax.Array, rotation: tuple[jax.Array, jax.Array], scale: float = 1.0) -> jax.Array:
  """Rotary positions on x f[N, T, K, g, h], x[i] paired with x[i + h/2]; rotation: (cos, sin) f32[N, T, h/2].

  The result is multiplied by `scale` while it is float32 still: 1/12 is 0.0835 in bfloat16.
  """
  cos, sin = (a[:, :, None, None] for a in rotation)
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
  return (turned * scale).astype(x.dtype)


@jax.custom_vjp
def embed(table: jax.Array, tokens: jax.Array) -> jax.Array:
  """Rows f[..., D] of `table` f[V, D] at `tokens` i32[...], in the table's dtype.

  The gradient is summed in float32 and rounded once: in bfloat16 a sum stalls when an addend is below 1/256
  of it, which a frequent token's row reaches at once.
  """
  return table[tokens]


def _embed_forward(table: jax.Array, tokens: jax.Array) -> tuple[jax.Array, tuple]:
  return table[tokens], (table, tokens)


def _embed_backward(saved: tuple[jax.Array, jax.Array], slope: jax.Array) -> tuple[jax.Array, None]:
  table, tokens = saved
  total = jnp.zeros(table.shape, jnp.float32).at[tokens].add(slope.astype(jnp.float32))
  return total.astype(table.dtype), None


embed.defvjp(_embed_forward, _embed_backward)


class RMSNorm(nn.Module):
  """x / rms(x) * w (Zhang & Sennrich 2019, eq. 4), or * (1 + w); over the last `axes` axes, in float32."""

  cfg: ModelConfig
  names: tuple[str, ...] = ("embed",)

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    axes = tuple(range(-len(self.names), 0))
    init = nn.initializers.zeros_init() if self.cfg.norm_plus_one else nn.initializers.ones_init()
    shape = x.shape[len(x.shape) - len(axes) :]
    scale = self.param("scale", logical(init, self.names), shape, jnp.float32)
    value = x.astype(jnp.float32)
    value = value * jax.lax.rsqrt(jnp.mean(jnp.square(value), axes, keepdims=True) + self.cfg.norm_eps)
    return (value * (scale + 1.0 if self.cfg.norm_plus_one else scale)).astype(x.dtype)


class Attention(nn.Module):
  """Grouped-query attention with rotary positions (Ainslie et al. 2023)."""

  cfg: ModelConfig

  @nn.compact
  def __call__(self, x, own, rotation, window, prefix, cache, index):
    cfg = self.cfg
    group = cfg.heads // cfg.kv_heads
    shape = (cfg.width, cfg.kv_heads, group + 2, cfg.head_dim)
    names = ("embed", "kv_heads", "q_per_kv", "head_dim")
    init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=0, out_axis=(1, 2, 3))
    kernel = self.param("qkv", logical(init, names), shape, DTYPES[cfg.param_dtype])
    mixed = jnp.einsum("ntd,dkgh->ntkgh", x, kernel.astype(x.dtype))
    if cfg.qkv_bias:
      zeros = logical(nn.initializers.zeros_init(), names[1:])
      bias = self.param("qkv_bias", zeros, shape[1:], jnp.float32)
      mixed = (mixed.astype(jnp.float32) + bias).astype(x.dtype)  # so that its gradient is summed in float32
    q, k, v = jax.lax.split(mixed, (group, 1, 1), axis=3)
    if cfg.qk_norm != "none":
      axes = QK_NORM_AXES[cfg.qk_norm]
      q, k = RMSNorm(cfg, axes, name="q_norm")(q), RMSNorm(cfg, axes, name="k_norm")(k)
    scale = cfg.head_dim**-0.5 if cfg.query_scale is None else cfg.query_scale
    q, k = rotate(q, rotation, scale).transpose(0, 2, 3, 1, 4), rotate(k, rotation)[:, :, :, 0]
    made = KV(k.transpose(0, 2, 3, 1), v[:, :, :, 0].transpose(0, 2, 1, 3))
    if cache is not None:
      made, (own_keys, filled) = write_keys(cache[0], made, index), cache[1]
    else:
      own_keys, filled = own, None
    keys_count = made.v.shape[2] + (0 if prefix is None else prefix[0].v.shape[2])
    if filled is not None:
      out = attend_filled(q, made, own, own_keys, filled, window, cfg.attention_softcap).astype(x.dtype)
    elif cache is None and x.shape[1] * keys_count >= flash.LONG:
      sources = (
        (flash.KeyRows(made, *own),)
        if prefix is None
        else (flash.KeyRows(made, *own), flash.KeyRows(prefix[0], *prefix[1]))
      )
      out = flash.attend_long(q, sources, own, window, cfg.attention_softcap).astype(x.dtype)
    else:
      blocks = [(made, visible(own, own_keys, window))]
      if prefix is not None:
        keys = jax.tree.map(lambda a: jnp.repeat(a, x.shape[0] // a.shape[0], axis=0), prefix[1])
        blocks.append((prefix[0], visible(own, keys, window)))
      out = attend(q, blocks, cfg.attention_softcap).astype(x.dtype)
    names = ("kv_heads", "q_per_kv", "head_dim", "embed")
    scale_down = (2 * cfg.layers) ** -1.0  # keeps the residual stream's variance independent of depth
    init = nn.initializers.variance_scaling(
      scale_down, "fan_in", "truncated_normal", in_axis=(0, 1, 2), out_axis=3
    )
    shape = (cfg.kv_heads, group, cfg.head_dim, cfg.width)
    kernel = self.param("out", logical(init, names), shape, DTYPES[cfg.param_dtype])
    out = out.transpose(0, 3, 1, 2, 4).reshape(*x.shape[:2], -1)
    return out @ kernel.astype(x.dtype).reshape(-1, cfg.width), made


class MLP(nn.Module):
  """down(act(gate(x)) * up(x)) (Shazeer 2020, section 2)."""

  cfg: ModelConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    cfg = self.cfg
    init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=0, out_axis=(1, 2))
    names = ("embed", "gate_up", "mlp")
    kernel = self.param("gate_up", logical(init, names), (cfg.width, 2, cfg.mlp), DTYPES[cfg.param_dtype])
    both = jnp.einsum("ntd,dcf->ntcf", x, kernel.astype(x.dtype))
    gate, up = (half[:, :, 0] for half in jax.lax.split(both, (1, 1), axis=2))
    hidden = ACTIVATIONS[cfg.activation](gate) * up
    hidden = nn.with_logical_constraint(hidden, ("batch", "length", "mlp"))
    init = nn.initializers.variance_scaling((2 * cfg.layers) ** -1.0, "fan_in", "truncated_normal")
    kernel = self.param(
      "down", logical(init, ("mlp", "embed")), (cfg.mlp, cfg.width), DTYPES[cfg.param_dtype]
    )
    return hidden @ kernel.astype(x.dtype)


class Layer(nn.Module):
  """Attention and MLP, each with a residual and norms where the configuration places them."""

  cfg: ModelConfig

  @nn.compact
  def __call__(self, x, own, keys, shared):
    """x f[N, T, D]; own (segment, position); keys: this layer's (rotation, window, prefix KV, cache KV)."""
    which, window, prefix, cache = keys
    rotations, prefix_keys, cache_keys, index = shared
    rotation = jax.tree.map(lambda a: a[which], rotations)
    pre, post = NORM_SITES[self.cfg.norm_placement]

    def norm(active: bool, name: str, y: jax.Array) -> jax.Array:
      return RMSNorm(self.cfg, name=name)(y) if active else y

    prefix = None if prefix is None else (prefix, prefix_keys)
    cache = None if cache is None else (cache, cache_keys)
    y = norm(pre, "attention_norm", x)
    y, made = Attention(self.cfg, name="attention")(y, own, rotation, window, prefix, cache, index)
    x = x + norm(post, "attention_post_norm", y)
    y = MLP(self.cfg, name="mlp")(norm(pre, "mlp_norm", x))
    x = x + norm(post, "mlp_post_norm", y)
    return nn.with_logical_constraint(x, ("batch", "length", "embed_act")), made


class Decoder(nn.Module):
  """tokens -> hidden states and keys; `head` turns hidden states into logits."""

  cfg: ModelConfig

  def setup(self):
    """Makes the parameters and layers."""
    cfg = self.cfg
    init = logical(nn.initializers.normal(cfg.width**-0.5), ("vocab", "embed"))
    self.embedding = self.param("embedding", init, (cfg.vocab, cfg.width), DTYPES[cfg.param_dtype])
    self.final_norm = RMSNorm(cfg)
    if not cfg.tied_head:
      init = logical(nn.initializers.normal(cfg.width**-0.5), ("vocab", "embed"))
      self.head_kernel = self.param("head", init, (cfg.vocab, cfg.width), DTYPES[cfg.param_dtype])
    layer: Any = Layer
    if cfg.remat != "none":
      # XLA cannot merge what a scan computes again with the first computation; elsewhere it is kept from it.
      layer = nn.remat(Layer, prevent_cse=not cfg.scan_layers, policy=REMAT_POLICIES[cfg.remat])
    if cfg.scan_layers:
      self.layers = nn.scan(
        layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=cfg.layers,
        in_axes=(nn.broadcast, 0, nn.broadcast), out_axes=0, metadata_params={nn.PARTITION_NAME: "layers"},
      )(cfg)  # fmt: skip
    else:
      self.layers = [layer(cfg, name=f"layer_{i}") for i in range(cfg.layers)]

  def __call__(
    self,
    tokens: jax.Array,
    segment: jax.Array,
    position: jax.Array,
    *,
    prefix: Context | None = None,
    cache: Context | None = None,
    index: jax.Array | None = None,
  ) -> tuple[jax.Array, Any]:
    """tokens, segment, position i32[N, T] -> (hidden f[N, T, D] after the final norm, KV by layer).

    `prefix` has M rows, M | N: row n reads prefix row n // (N / M). With a `cache` the tokens' keys are
    written into it from `index` on, as `write_keys` does, and it is returned; its `segment`, `position` and
    `filled` are those after the write. A cache with `filled` is read without a prefix. Positions lie below
    the number of keys there is room for: T, or the cache's, and the prefix's.
    """
    cfg = self.cfg
    x = embed(self.embedding, tokens).astype(DTYPES[cfg.dtype])
    # In bfloat16 the factor is rounded too (sqrt 3072 to 55.5), as in the published Gemma.
    x = nn.with_logical_constraint(x * cfg.embed_scale, ("batch", "length", "embed_act"))
    windows = np.broadcast_to(np.asarray([w or ALL_KEYS for w in cfg.window], np.int32), (cfg.layers,))
    room = tokens.shape[1] if cache is None else cache.position.shape[1]
    room += 0 if prefix is None else prefix.position.shape[1]
    turned, which = rotations(rope_frequencies(cfg), position, room)
    prefix_layers, prefix_keys = (None, None) if prefix is None else (prefix.layers, prefix[1:3])
    cache_layers, cache_keys = (None, None) if cache is None else (cache.layers, (cache[1:3], cache.filled))
    own, shared = (segment, position), (turned, prefix_keys, cache_keys, index)
    if cfg.scan_layers:
      per_layer = (jnp.asarray(which), jnp.asarray(windows), prefix_layers, cache_layers)
      x, made = self.layers(x, own, per_layer, shared)
    else:
      made = ()
      for i, layer in enumerate(self.layers):
        prefix_kv, cache_kv = (None if kvs is None else kvs[i] for kvs in (prefix_layers, cache_layers))
        x, kv = layer(x, own, (which[i], windows[i], prefix_kv, cache_kv), shared)
        made += (kv,)
    return self.final_norm(x), made

  def head(self, hidden: jax.Array) -> jax.Array:
    """hidden f[..., D] -> logits f32[..., V], before any temperature."""
    kernel = (self.embedding if self.cfg.tied_head else self.head_kernel).astype(hidden.dtype)
    logits = jnp.einsum("...d,vd->...v", hidden, kernel, preferred_element_type=jnp.float32)
    return softcap(logits, self.cfg.head_softcap)


def init_params(model: Decoder, key: jax.Array) -> Any:
  """Fresh parameters, boxed with their logical axis names. Consumes the key.

  The layers are drawn in one loop even where they are unrolled: random bits are slow to compile, and so both
  forms begin with the same numbers.
  """
  cfg, dummy = model.cfg, jnp.zeros((1, 2), jnp.int32)
  scanned = Decoder(dataclasses.replace(cfg, scan_layers=True))
  params = scanned.init(key, dummy, dummy + 1, dummy)["params"]
  if cfg.scan_layers:
    return params
  layers = params.pop("layers")
  for i in range(cfg.layers):
    take = lambda box, i=i: box.replace(value=box.value[i], names=box.names[1:])
    params[f"layer_{i}"] = jax.tree.map(take, layers, is_leaf=nn.meta.is_axis_metadata)
  return params


def gathered(params: Any, model: Decoder) -> Any:
  """The decoder's parameters unsharded over the mesh axes of `embed`: gathered here once, not at every token.

  Nothing changes where logical axis names mean no mesh axes.
  """
  if not nn.get_logical_axis_rules():
    return params
  boxed = jax.eval_shape(functools.partial(init_params, model), jax.random.key(0))

  def constrain(leaf: jax.Array, names: tuple[str, ...]) -> jax.Array:
    return nn.with_logical_constraint(leaf, tuple(None if name == "embed" else name for name in names))

  return jax.tree.map(constrain, params, nn.get_partition_spec(boxed))


def cast_params(params: Any, cfg: ModelConfig) -> Any:
  """Matrices in the dtype of the computation, cast once rather than at every decoded token; `VECTORS` kept.

  Norms and biases meet float32 numbers: near 1 a bfloat16 scale moves in steps of 2^-8, and 1 + 0.003 is 1.
  """

  def cast(path: tuple, leaf: jax.Array) -> jax.Array:
    return leaf if path[-1].key in VECTORS else leaf.astype(DTYPES[cfg.dtype])

  return jax.tree_util.tree_map_with_path(cast, params)

"""One decoder for the Llama / Qwen / Gemma family, by configuration.

Flow: embed -> layers of (attention, gated MLP) with RMSNorm before, after or around each -> final norm -> head.
Keys and values are explicit: a call may attend to a `prefix` (a prompt's keys, shared by N / M consecutive rows,
never copied per row) and to a `cache` it writes into, and always returns the keys and values it made. The sampler
and the learner run this one path. Query, key and value products are one matrix product, and so are gate and up.

Left out: encoder attention, mixture of experts, dropout.
"""

import dataclasses
import functools
from typing import Any, Callable, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from o1jax.config import ModelConfig, RopeScaling
from o1jax.model.embedding import embed

MASKED = -1e30  # finite, so that a row with nothing to attend to gives no NaN
ALL_KEYS = 2**30  # a window wider than any sequence

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
VECTORS = ("scale", "qkv_bias")  # parameters that are no matrices: never cast, and without weight decay
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  "silu": nn.silu,
  "gelu_tanh": functools.partial(nn.gelu, approximate=True),
}
# XLA cannot merge what a scan computes again with the first computation; elsewhere it might, and is kept from it.
REMAT: dict[str, Callable[[Any, bool], Any]] = {
  "none": lambda layer, scanned: layer,
  "full": lambda layer, scanned: nn.remat(layer, prevent_cse=not scanned),
  "dots": lambda layer, scanned: nn.remat(
    layer, prevent_cse=not scanned, policy=jax.checkpoint_policies.dots_saveable
  ),
}
NORM_SITES = {"pre": (True, False), "post": (False, True), "sandwich": (True, True)}


class KV(NamedTuple):
  """Keys and values of one layer; with a leading layer axis where layers are scanned.

  Keys lie with their positions last, and a large cache of them in C blocks of b positions, S = C b: both products of a
  decoded token then stream through memory.
  """

  k: jax.Array  # f[N, K, h, S], or f[N, K, C, h, b]
  v: jax.Array  # f[N, K, S, h]


class Context(NamedTuple):
  """Keys a call attends to besides its own: `layers` is one KV a layer (a tuple, or stacked where scanned)."""

  layers: Any
  segment: jax.Array  # i32[M, S], 0 = not to be seen; M divides the call's N rows
  position: jax.Array  # i32[M, S]


def logical(init: Callable, names: tuple[str, ...]) -> Any:
  """An initialiser whose array is boxed with its logical axis names."""
  return nn.with_logical_partitioning(init, names)


def rope_frequencies(cfg: ModelConfig) -> np.ndarray:
  """f32[layers, head_dim / 2] radians a position (Su et al. 2021, section 3.2.2; Llama 3's scaling where set)."""
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
  """((cos, sin) f32[D, N, T, h / 2] of the D distinct rows of `frequencies`, which row each layer takes i32[layers]).

  Looked up in a constant table of `bound` positions: XLA would compute a cosine anew wherever it is read.
  """
  distinct, which = np.unique(frequencies, axis=0, return_inverse=True)
  angle = np.arange(bound, dtype=np.float64)[:, None] * distinct[:, None].astype(np.float64)
  look_up = lambda table: jnp.asarray(table, jnp.float32)[:, position]
  return (look_up(np.cos(angle)), look_up(np.sin(angle))), which.reshape(-1).astype(np.int32)


def rotate(x: jax.Array, rotation: tuple[jax.Array, jax.Array], scale: float = 1.0) -> jax.Array:
  """Rotary positions on x f[N, T, K, g, h], halves paired (x[i], x[i + h/2]); rotation (cos, sin) f32[N, T, h / 2].

  The result is multiplied by `scale` while it is float32 still: 1/12 is 0.0835 in bfloat16.
  """
  cos, sin = (a[:, :, None, None] for a in rotation)
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
  return (turned * scale).astype(x.dtype)


def softcap(x: jax.Array, cap: float) -> jax.Array:
  """cap * tanh(x / cap), or x where cap is 0 (Gemma 2, section 2)."""
  return cap * jnp.tanh(x / cap) if cap else x


def visible(query: tuple, key: tuple, window: Any) -> jax.Array:
  """bool[N, T, S]: same segment, not padding, not later, within the window. query, key: (segment, position)."""
  (q_segment, q_position), (k_segment, k_position) = query, key
  distance = q_position[:, :, None] - k_position[:, None, :]
  same = (q_segment[:, :, None] == k_segment[:, None, :]) & (k_segment[:, None, :] > 0)
  return same & (distance >= 0) & (distance < window)


def _scores(q: jax.Array, k: jax.Array, mask: jax.Array, cap: float) -> jax.Array:
  """Masked scores f32[M, K, s, g, T, S] of q f[M, K, s, g, T, h] against the keys of a KV; mask bool[N, T, S]."""
  rows, heads, share, group, length, dim = q.shape
  flat = q.reshape(rows, heads, -1, dim)
  if k.ndim == 4:
    scores = jnp.einsum("mkqh,mkhs->mkqs", flat, k, preferred_element_type=jnp.float32)
  else:
    each = jnp.broadcast_to(flat[:, :, None], (*k.shape[:3], *flat.shape[2:]))
    scores = jnp.einsum("mkcqh,mkchb->mkcqb", each, k, preferred_element_type=jnp.float32).swapaxes(2, 3)
  scores = softcap(scores, cap).reshape(rows, heads, share, group, length, -1)
  return jnp.where(mask.reshape(rows, 1, share, 1, length, -1), scores, MASKED)


def _weighted(weights: jax.Array, v: jax.Array) -> jax.Array:
  """Values f32[M, K, s, g, T, h] summed under `weights` f32[M, K, s, g, T, S]; v f[M, K, S, h]."""
  flat = weights.reshape(*weights.shape[:2], -1, weights.shape[-1]).astype(v.dtype)
  out = jnp.einsum("mkqs,mksh->mkqh", flat, v, preferred_element_type=jnp.float32)
  return out.reshape(*weights.shape[:-1], v.shape[-1])


def attend(q: jax.Array, blocks: list[tuple[KV, jax.Array]], cap: float) -> jax.Array:
  """Softmax attention over the union of blocks of keys; q f[N, K, g, T, h] scaled; returns f32 of q's shape.

  A block has keys of M rows, M | N, and a mask bool[N, T, S]. s = N / M consecutive rows read the same keys: one
  product for all of them.
  """
  n, heads = q.shape[:2]
  fold = lambda x, kv: x.reshape(kv.v.shape[0], -1, heads, *x.shape[2:]).swapaxes(1, 2)
  unfold = lambda x: x.swapaxes(1, 2).reshape(n, heads, *x.shape[3:])
  scores = [_scores(fold(q, kv), kv.k, mask, cap) for kv, mask in blocks]
  top = functools.reduce(jnp.maximum, (unfold(s.max(-1)) for s in scores))
  top = jax.lax.stop_gradient(top)[..., None]
  weights = [jnp.exp(s - fold(top, kv)) for s, (kv, _) in zip(scores, blocks)]
  total = sum(unfold(w.sum(-1)) for w in weights)
  out = sum(unfold(_weighted(w, kv.v)) for w, (kv, _) in zip(weights, blocks))
  return out / total[..., None]


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
    kernel = self.param("qkv", logical(init, names), shape, jnp.float32)
    mixed = jnp.einsum("ntd,dkgh->ntkgh", x, kernel.astype(x.dtype))
    if cfg.qkv_bias:
      zeros = logical(nn.initializers.zeros_init(), names[1:])
      bias = self.param("qkv_bias", zeros, shape[1:], jnp.float32)
      mixed = (mixed.astype(jnp.float32) + bias).astype(x.dtype)  # so that its gradient is summed in float32
    q, k, v = jax.lax.split(mixed, (group, 1, 1), axis=3)
    q, k = QK_NORMS[cfg.qk_norm](cfg, q, k)
    scale = cfg.head_dim**-0.5 if cfg.query_scale is None else cfg.query_scale
    q, k = rotate(q, rotation, scale).transpose(0, 2, 3, 1, 4), rotate(k, rotation)[:, :, :, 0]
    made = KV(k.transpose(0, 2, 3, 1), v[:, :, :, 0].transpose(0, 2, 1, 3))
    if cache is not None:
      made, own_keys = _write(cache[0], made, index), cache[1]
    else:
      own_keys = own
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
    kernel = self.param("out", logical(init, names), shape, jnp.float32)
    out = out.transpose(0, 3, 1, 2, 4).reshape(*x.shape[:2], -1)
    return out @ kernel.astype(x.dtype).reshape(-1, cfg.width), made


def _write(cache: KV, new: KV, index: jax.Array) -> KV:
  """Writes one position's keys and values into a cache at `index`, in place where donated."""
  put = lambda buffer, value, at: jax.lax.dynamic_update_slice(buffer, value.astype(buffer.dtype), at)
  v = put(cache.v, new.v, (0, 0, index, 0))
  if cache.k.ndim == 4:
    return KV(put(cache.k, new.k, (0, 0, 0, index)), v)
  size = cache.k.shape[4]
  return KV(put(cache.k, new.k[:, :, None], (0, 0, index // size, 0, index % size)), v)


def _norm_heads(cfg: ModelConfig, q: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array]:
  names = ("head_dim",)
  return RMSNorm(cfg, names, name="q_norm")(q), RMSNorm(cfg, names, name="k_norm")(k)


def _norm_full(cfg: ModelConfig, q: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array]:
  names = ("kv_heads", "q_per_kv", "head_dim")
  return RMSNorm(cfg, names, name="q_norm")(q), RMSNorm(cfg, names, name="k_norm")(k)


QK_NORMS = {"none": lambda cfg, q, k: (q, k), "head": _norm_heads, "full": _norm_full}


class MLP(nn.Module):
  """down(act(gate(x)) * up(x)) (Shazeer 2020, section 2)."""

  cfg: ModelConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    cfg = self.cfg
    init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=0, out_axis=(1, 2))
    names = ("embed", "gate_up", "mlp")
    kernel = self.param("gate_up", logical(init, names), (cfg.width, 2, cfg.mlp), jnp.float32)
    both = jnp.einsum("ntd,dcf->ntcf", x, kernel.astype(x.dtype))
    gate, up = (half[:, :, 0] for half in jax.lax.split(both, (1, 1), axis=2))
    hidden = ACTIVATIONS[cfg.activation](gate) * up
    hidden = nn.with_logical_constraint(hidden, ("batch", "length", "mlp"))
    init = nn.initializers.variance_scaling((2 * cfg.layers) ** -1.0, "fan_in", "truncated_normal")
    kernel = self.param("down", logical(init, ("mlp", "embed")), (cfg.mlp, cfg.width), jnp.float32)
    return hidden @ kernel.astype(x.dtype)


class Layer(nn.Module):
  """Attention and MLP, each with a residual and norms where the configuration places them."""

  cfg: ModelConfig

  @nn.compact
  def __call__(self, x, own, keys, shared):
    """x f[N, T, D]; own (segment, position); keys (which rotation, window, prefix KV, cache KV) of this layer."""
    which, window, prefix, cache = keys
    rotations, prefix_keys, cache_keys, index = shared
    rotation = jax.tree.map(lambda a: a[which], rotations)
    pre, post = NORM_SITES[self.cfg.norm_placement]
    norm = lambda active, name, y: RMSNorm(self.cfg, name=name)(y) if active else y
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
    self.embedding = self.param("embedding", init, (cfg.vocab, cfg.width), jnp.float32)
    self.final_norm = RMSNorm(cfg)
    if not cfg.tied_head:
      init = logical(nn.initializers.normal(cfg.width**-0.5), ("vocab", "embed"))
      self.head_kernel = self.param("head", init, (cfg.vocab, cfg.width), jnp.float32)
    layer = REMAT[cfg.remat](Layer, cfg.scan_layers)
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
    """tokens, segment, position i32[N, T] -> (hidden f[N, T, D] after the final norm, keys and values by layer).

    `prefix` holds M rows, M | N: row n reads prefix row n // (N / M). With a `cache`, T is 1, and the token's keys
    are written at `index` (the cache's `segment` and `position` must already tell of it); the written cache returns.
    Positions lie below the number of keys there is room for: T, or the cache's, and the prefix's.
    """
    cfg = self.cfg
    x = embed(self.embedding, tokens).astype(DTYPES[cfg.dtype])
    # In bfloat16 the factor is rounded too (sqrt 3072 to 55.5), as in the published Gemma.
    x = nn.with_logical_constraint(x * cfg.embed_scale, ("batch", "length", "embed_act"))
    windows = np.broadcast_to(np.asarray([w or ALL_KEYS for w in cfg.window], np.int32), (cfg.layers,))
    layers_of = lambda context: None if context is None else context.layers
    keys_of = lambda context: None if context is None else (context.segment, context.position)
    seen = tokens.shape[1:] if cache is None else cache.position.shape[1:]
    bound = sum(seen) + (0 if prefix is None else prefix.position.shape[1])
    turned, which = rotations(rope_frequencies(cfg), position, bound)
    own, shared = (segment, position), (turned, keys_of(prefix), keys_of(cache), index)
    if cfg.scan_layers:
      per_layer = (jnp.asarray(which), jnp.asarray(windows), layers_of(prefix), layers_of(cache))
      x, made = self.layers(x, own, per_layer, shared)
    else:
      made = []
      for i, layer in enumerate(self.layers):
        prefix_kv, cache_kv = (None if c is None else c.layers[i] for c in (prefix, cache))
        x, kv = layer(x, own, (which[i], windows[i], prefix_kv, cache_kv), shared)
        made.append(kv)
      made = tuple(made)
    return self.final_norm(x), made

  def head(self, hidden: jax.Array) -> jax.Array:
    """hidden f[..., D] -> logits f32[..., V], before any temperature."""
    kernel = (self.embedding if self.cfg.tied_head else self.head_kernel).astype(hidden.dtype)
    logits = jnp.einsum("...d,vd->...v", hidden, kernel, preferred_element_type=jnp.float32)
    return softcap(logits, self.cfg.head_softcap)


def init_params(model: Decoder, key: jax.Array) -> Any:
  """Fresh float32 parameters, boxed with their logical axis names. Consumes the key.

  The layers are drawn in one loop even where they are unrolled: random bits are slow to compile, and so both forms
  begin with the same numbers.
  """
  cfg, dummy = model.cfg, jnp.zeros((1, 2), jnp.int32)
  scanned = Decoder(dataclasses.replace(cfg, scan_layers=True))
  params = scanned.init(key, dummy, dummy + 1, dummy)["params"]
  if cfg.scan_layers:
    return params
  layers = params.pop("layers")
  take = lambda i: lambda box: box.replace(value=box.value[i], names=box.names[1:])
  is_box = lambda leaf: isinstance(leaf, nn.meta.AxisMetadata)
  return params | {f"layer_{i}": jax.tree.map(take(i), layers, is_leaf=is_box) for i in range(cfg.layers)}


def gathered(params: Any, model: Decoder) -> Any:
  """The decoder's parameters laid out whole over the mesh axes of `embed`, gathered once where this stands in a program.

  Else a loop over tokens gathers them at each one. Nothing changes where logical axis names mean no mesh axes.
  """
  if not nn.get_logical_axis_rules():
    return params
  boxed = jax.eval_shape(functools.partial(init_params, model), jax.random.key(0))
  keep = lambda names: tuple(None if name == "embed" else name for name in names)
  lay = lambda leaf, names: nn.with_logical_constraint(leaf, keep(names))
  return jax.tree.map(lay, params, nn.get_partition_spec(boxed))


def cast_params(params: Any, cfg: ModelConfig) -> Any:
  """Matrices in the dtype of the computation, cast once rather than at every decoded token; `VECTORS` as they are.

  Norms and biases meet float32 numbers: near 1 a scale in bfloat16 moves in steps of 2^-8, and 1 + 0.003 is 1.
  """
  cast = lambda path, p: p if path[-1].key in VECTORS else p.astype(DTYPES[cfg.dtype])
  return jax.tree_util.tree_map_with_path(cast, params)

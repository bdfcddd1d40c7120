"""Hugging Face models by names and shapes: config.json <-> ModelConfig, tensors <-> parameters. Pure.

    config.json -> model_config -> ModelConfig -> layout -> {parameter: pieces of it, each a tensor's rows}
    ModelConfig -> hf_config -> config.json

A folder's linear maps are [out, in] with a head's rows together; here queries, keys and values are one array
[width, kv_heads, group + 2, head_dim], and so are gate and up. Families: FAMILIES. Left out: YaRN and linear
scaling of positions, biases but those of queries, keys and values, mixture of experts, images.
"""

import dataclasses
import math
from typing import Any, Mapping, NamedTuple

from o1jax.config import ConfigError, ModelConfig, RopeScaling, require

FULL, SLIDING = "full_attention", "sliding_attention"
ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
# Fields of config.json that change no logit of a model that is loaded to be trained, or that others repeat.
IGNORED = frozenset(
  "architectures attention_dropout bos_token_id cache_implementation dtype eos_token_id initializer_range "
  "is_llama_config max_position_embeddings max_window_layers model_type pad_token_id pretraining_tp "
  "sliding_window_pattern _sliding_window_pattern torch_dtype transformers_version transformers.js_config "
  "use_cache _name_or_path".split()
)
READ = frozenset(
  "attn_logit_softcapping final_logit_softcapping head_dim hidden_act hidden_activation hidden_size "
  "intermediate_size layer_types num_attention_heads num_hidden_layers num_key_value_heads "
  "query_pre_attn_scalar rms_norm_eps rope_local_base_freq rope_parameters rope_scaling rope_theta "
  "sliding_window tie_word_embeddings use_sliding_window vocab_size".split()
)
# Fields of ModelConfig that say how a model is computed, not which.
COMPUTATION = ("dtype", "param_dtype", "scan_layers", "remat")


class Family(NamedTuple):
  """What a model_type of transformers stands for."""

  architecture: str
  fields: Mapping[str, Any]  # of ModelConfig
  defaults: Mapping[str, Any]  # of config.json, whose writers leave fields with these values out
  # Every period-th layer sees all keys; 0: those before max_window_layers do; None: there are no windows.
  period: int | None = None


_GEMMA = {"norm_placement": "sandwich", "norm_plus_one": True}
_GEMMA_DEFAULTS = {"tie_word_embeddings": True, "hidden_activation": "gelu_pytorch_tanh", "head_dim": 256,
                   "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-6}  # fmt: skip
_PLAIN = {"tie_word_embeddings": False, "hidden_act": "silu", "rope_theta": 1e4, "rms_norm_eps": 1e-6}
_OLMO = {"norm_placement": "post", "qk_norm": "full"}
FAMILIES: dict[str, Family] = {
  "llama": Family("LlamaForCausalLM", {}, _PLAIN),
  "qwen2": Family("Qwen2ForCausalLM", {"qkv_bias": True}, _PLAIN, 0),
  "qwen3": Family("Qwen3ForCausalLM", {"qk_norm": "head"}, {**_PLAIN, "head_dim": 128}, 0),
  "olmo2": Family("Olmo2ForCausalLM", _OLMO, {**_PLAIN, "rms_norm_eps": 1e-5}),
  "olmo3": Family("Olmo3ForCausalLM", _OLMO, {**_PLAIN, "rms_norm_eps": 1e-5, "rope_theta": 5e5}, 4),
  "gemma2": Family("Gemma2ForCausalLM", _GEMMA, {
    **_GEMMA_DEFAULTS, "rope_theta": 1e4, "sliding_window": 4096, "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0}, 2),
  "gemma3_text": Family("Gemma3ForCausalLM", {**_GEMMA, "qk_norm": "head"}, {
    **_GEMMA_DEFAULTS, "rope_theta": 1e6, "rope_local_base_freq": 1e4, "sliding_window": 4096,
    "sliding_window_pattern": 6}, 6),
}  # fmt: skip


# config.json -> ModelConfig


def model_config(config: Mapping[str, Any], file: str) -> ModelConfig:
  """The model of a config.json. Raises ConfigError naming `file` and the field that is not supported."""
  kind = config.get("model_type")
  known = ", ".join(FAMILIES)
  require(kind in FAMILIES, file, f"model_type: {kind!r} is not supported; there are {known}")
  family = FAMILIES[str(kind)]
  for name, value in config.items():
    off = value is None or value is False or value == 0
    require(name in READ | IGNORED or off, file, f"{name}: {value!r} is not supported")
  fields = {**family.defaults, **config}
  try:
    model = _model(str(kind), family, fields, file)
  except ConfigError:
    raise
  except KeyError as error:
    raise ConfigError(f"{file}: {error.args[0]}: is missing") from error
  except (TypeError, ValueError, AttributeError) as error:
    raise ConfigError(f"{file}: has a field of another type: {error}") from error
  model.validate(f"{file}: model")
  return model


def _model(kind: str, family: Family, fields: Mapping[str, Any], file: str) -> ModelConfig:
  width, layers, heads = fields["hidden_size"], fields["num_hidden_layers"], fields["num_attention_heads"]
  head_dim = fields.get("head_dim") or width // heads
  gemma = kind.startswith("gemma")
  activation = fields.get("hidden_activation") or fields["hidden_act"]
  require(activation in ACTIVATIONS, file, f"hidden_act: {activation!r} is not supported")
  scalar = fields.get("query_pre_attn_scalar") or head_dim
  window = _windows(family, fields, file)
  thetas, scaling = _rope(kind, fields, window, file)
  return ModelConfig(
    width=width,
    layers=layers,
    heads=heads,
    kv_heads=fields.get("num_key_value_heads") or heads,
    head_dim=head_dim,
    mlp=fields["intermediate_size"],
    vocab=fields["vocab_size"],
    activation=ACTIVATIONS[activation],  # type: ignore[arg-type]
    norm_eps=float(fields["rms_norm_eps"]),
    tied_head=fields["tie_word_embeddings"],
    embed_scale=width**0.5 if gemma else 1.0,
    query_scale=None if scalar == head_dim else scalar**-0.5,
    rope_theta=_shortest(thetas),
    rope_scaling=scaling,
    window=_shortest(window),
    attention_softcap=float(fields.get("attn_logit_softcapping") or 0.0),
    head_softcap=float(fields.get("final_logit_softcapping") or 0.0),
    **family.fields,
  )


def _shortest(values: tuple) -> tuple:
  """One value where all layers have the same."""
  return values[:1] if len(set(values)) == 1 else values


def _windows(family: Family, fields: Mapping[str, Any], file: str) -> tuple[int, ...]:
  """Keys that each layer's queries see; 0 is all."""
  layers, kinds = fields["num_hidden_layers"], fields.get("layer_types")
  if kinds is None:
    period = fields.get("sliding_window_pattern") or family.period
    first = fields.get("max_window_layers", layers) if fields.get("use_sliding_window") else layers
    slides = [(i + 1) % period != 0 if period else i >= first for i in range(layers)]
    kinds = [SLIDING if slide else FULL for slide in slides]
  require(len(kinds) == layers, file, f"layer_types: has {len(kinds)} of {layers} layers")
  others = sorted(set(kinds) - {FULL, SLIDING})
  require(not others, file, f"layer_types: {others} are not supported")
  if SLIDING not in kinds:
    return (0,) * layers
  require(family.period is not None, file, f"layer_types: {family.architecture} has no sliding windows")
  size = fields["sliding_window"]
  require(isinstance(size, int) and size > 0, file, f"sliding_window: must be positive, is {size}")
  return tuple(size if kind == SLIDING else 0 for kind in kinds)


def _rope(
  kind: str, fields: Mapping[str, Any], window: tuple[int, ...], file: str
) -> tuple[tuple[float, ...], RopeScaling | None]:
  """Each layer's theta, and the scaling of all. Fields of transformers 5 (rope_parameters) or before it."""
  parameters = fields.get("rope_parameters")
  if parameters is None:
    full = {"rope_theta": fields["rope_theta"], **(fields.get("rope_scaling") or {})}
    # The sliding layers of Gemma 3 and OLMo 3 are not scaled.
    local = {"rope_theta": fields.get("rope_local_base_freq") or fields["rope_theta"]}
    sliding = local if kind in ("gemma3_text", "olmo3") else full
  elif FULL in parameters or SLIDING in parameters:
    full, sliding = parameters[FULL], parameters[SLIDING]
  else:
    full = sliding = {"rope_theta": fields.get("rope_theta"), **parameters}
  by_layer = [sliding if size else full for size in window]
  scalings = {_scaling(one, file) for one in by_layer}
  require(len(scalings) == 1, file, "rope_scaling: of the layers that see all keys alone is not supported")
  return tuple(float(one["rope_theta"]) for one in by_layer), scalings.pop()


def _scaling(rope: Mapping[str, Any], file: str) -> RopeScaling | None:
  kind = rope.get("rope_type") or rope.get("type") or "default"
  require(kind in ("default", "llama3"), file, f"rope_scaling: rope_type {kind!r} is not supported")
  if kind == "default":
    return None
  return RopeScaling(
    factor=float(rope["factor"]),
    low_freq_factor=float(rope["low_freq_factor"]),
    high_freq_factor=float(rope["high_freq_factor"]),
    original_length=rope["original_max_position_embeddings"],
  )


# ModelConfig -> config.json


def hf_config(model: ModelConfig) -> dict[str, Any]:
  """The config.json of a model, without its tokens' ids and its longest text.

  The first family whose config.json reads back as this model is the one. Raises ConfigError naming what no
  family has.
  """
  differing: list[list[str]] = []
  for kind, family in FAMILIES.items():
    config = _config_of(kind, family, model)
    try:
      back = model_config(config, kind)
    except ConfigError:
      continue
    fields = [field.name for field in dataclasses.fields(model) if field.name not in COMPUTATION]
    wrong = [name for name in fields if vars(back)[name] != vars(model)[name]]
    if not wrong:
      return config
    differing.append(wrong)
  closest = min(differing, key=len, default=["norm_placement"])
  values = ", ".join(f"{name}={vars(model)[name]}" for name in closest)
  raise ConfigError(f"model: no model_type of transformers computes it: none has {values}")


def _config_of(kind: str, family: Family, model: ModelConfig) -> dict[str, Any]:
  """What a config.json of this family can say of a model."""
  windows = _each(model.window, model.layers)
  thetas = _each(model.rope_theta, model.layers)
  full = [theta for size, theta in zip(windows, thetas, strict=True) if not size]
  sliding = [theta for size, theta in zip(windows, thetas, strict=True) if size]
  activation = next(name for name, ours in ACTIVATIONS.items() if ours == model.activation)
  config: dict[str, Any] = {
    "architectures": [family.architecture],
    "model_type": kind,
    "hidden_size": model.width,
    "num_hidden_layers": model.layers,
    "num_attention_heads": model.heads,
    "num_key_value_heads": model.kv_heads,
    "head_dim": model.head_dim,
    "intermediate_size": model.mlp,
    "vocab_size": model.vocab,
    "rms_norm_eps": model.norm_eps,
    "tie_word_embeddings": model.tied_head,
    "rope_theta": (full or sliding)[0],
    "rope_scaling": None if model.rope_scaling is None else _scaling_config(model.rope_scaling),
    "torch_dtype": model.param_dtype,
    "attention_bias": False,
  }
  if family.period is not None:
    config["layer_types"] = [SLIDING if size else FULL for size in windows]
    config["sliding_window"] = max(windows) or None
    config |= {"use_sliding_window": any(windows)} if family.period == 0 else {}
  if not kind.startswith("gemma"):
    return {**config, "hidden_act": activation}
  config["hidden_activation"] = activation
  scalar = model.head_dim if model.query_scale is None else model.query_scale**-2
  config["query_pre_attn_scalar"] = round(scalar) if math.isclose(scalar, round(scalar)) else scalar
  if kind == "gemma3_text":
    config["rope_local_base_freq"] = (sliding or full)[0]
  softcaps = {
    "attn_logit_softcapping": model.attention_softcap,
    "final_logit_softcapping": model.head_softcap,
  }
  return {**config, **{name: cap or None for name, cap in softcaps.items()}}


def _each(values: tuple, layers: int) -> tuple:
  return values * layers if len(values) == 1 else values


def _scaling_config(scaling: RopeScaling) -> dict[str, Any]:
  return {
    "rope_type": "llama3",
    "factor": scaling.factor,
    "low_freq_factor": scaling.low_freq_factor,
    "high_freq_factor": scaling.high_freq_factor,
    "original_max_position_embeddings": scaling.original_length,
  }


# Tensors <-> parameters


class Piece(NamedTuple):
  """A tensor of the folder as part of a parameter."""

  tensor: str
  view: tuple[int, ...]  # the axes that the tensor's own axes are products of, in its order
  rows: int  # how many of them the tensor's first axis is; the others are its columns, a vector has none
  order: tuple[int, ...]  # axes of `view` in the parameter's order
  part: tuple[slice, ...]  # where it lies in the parameter; a leading axis of layers is not in `order`

  @property
  def shape(self) -> tuple[int, ...]:
    """The tensor's shape."""
    groups = (self.view[: self.rows], self.view[self.rows :])
    return tuple(math.prod(group) for group in groups if group)


_ALL = slice(None)
_NORMS = {  # of a layer, by norm_placement
  "pre": {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"},
  "post": {"attention_post_norm": "post_attention_layernorm", "mlp_post_norm": "post_feedforward_layernorm"},
  "sandwich": {
    "attention_norm": "input_layernorm",
    "attention_post_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
  },
}


def layout(model: ModelConfig) -> dict[str, list[Piece]]:
  """{parameter's path, as in layer_0/mlp/down: the pieces that fill it}."""
  table = {
    "embedding": [_matrix("model.embed_tokens.weight", model.vocab, model.width)],
    "final_norm/scale": [_vector("model.norm.weight", model.width)],
  }
  if not model.tied_head:
    table["head"] = [_matrix("lm_head.weight", model.vocab, model.width)]
  for i in range(model.layers):
    for path, pieces in _layer(model, f"model.layers.{i}").items():
      if model.scan_layers:
        stacked = [piece._replace(part=(slice(i, i + 1), *piece.part)) for piece in pieces]
        table.setdefault(f"layers/{path}", []).extend(stacked)
      else:
        table[f"layer_{i}/{path}"] = pieces
  return table


def _matrix(tensor: str, rows: int, columns: int) -> Piece:
  return Piece(tensor, (rows, columns), 1, (0, 1), (_ALL, _ALL))


def _vector(tensor: str, *view: int) -> Piece:
  return Piece(tensor, view, len(view), tuple(range(len(view))), (_ALL,) * len(view))


def _layer(model: ModelConfig, prefix: str) -> dict[str, list[Piece]]:
  """The pieces of one layer's parameters."""
  width, group, heads, size = model.width, model.heads // model.kv_heads, model.kv_heads, model.head_dim
  attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
  places = {"q": slice(0, group), "k": slice(group, group + 1), "v": slice(group + 1, group + 2)}
  rows = {name: (heads, place.stop - place.start, size) for name, place in places.items()}
  table = {
    "attention/qkv": [
      Piece(f"{attention}.{n}_proj.weight", (*rows[n], width), 3, (3, 0, 1, 2), (_ALL, _ALL, place, _ALL))
      for n, place in places.items()
    ],
    "attention/out": [
      Piece(f"{attention}.o_proj.weight", (width, heads, group, size), 1, (1, 2, 3, 0), (_ALL,) * 4)
    ],
    "mlp/gate_up": [
      Piece(f"{mlp}.{n}_proj.weight", (model.mlp, 1, width), 2, (2, 1, 0), (_ALL, slice(i, i + 1), _ALL))
      for i, n in enumerate(("gate", "up"))
    ],
    "mlp/down": [Piece(f"{mlp}.down_proj.weight", (width, model.mlp), 1, (1, 0), (_ALL, _ALL))],
  }
  if model.qkv_bias:
    table["attention/qkv_bias"] = [
      Piece(f"{attention}.{n}_proj.bias", rows[n], 3, (0, 1, 2), (_ALL, place, _ALL))
      for n, place in places.items()
    ]
  if model.qk_norm != "none":
    for n in ("q", "k"):
      shape = (size,) if model.qk_norm == "head" else rows[n]
      table[f"attention/{n}_norm/scale"] = [_vector(f"{attention}.{n}_norm.weight", *shape)]
  for ours, theirs in _NORMS[model.norm_placement].items():
    table[f"{ours}/scale"] = [_vector(f"{prefix}.{theirs}.weight", width)]
  return table

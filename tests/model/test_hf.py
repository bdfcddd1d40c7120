"""Hugging Face models in and out: transformers' logits, greedy tokens and config.json of its families.

The golden models are transformers' own (scripts/make_golden_models.py), tiny and random.
"""

import dataclasses
import functools
import json
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from o1jax.config import PRESETS, ConfigError, ModelConfig, RopeScaling, replaced
from o1jax.io.weights import load_params, read_model_config, tensors_of, write_tensors
from o1jax.model.attention import KV, Context
from o1jax.model.hf import COMPUTATION, FAMILIES, hf_config, layout, model_config
from o1jax.model.transformer import Decoder, init_params
from o1jax.rl.draw import greedy
from o1jax.rl.generate import generate
from o1jax.rl.sampler import SampleConfig
from o1jax.types import PromptBatch

GOLDEN = pathlib.Path(__file__).parents[1] / "data" / "golden" / "hf"
NAMES = sorted(folder.name for folder in GOLDEN.iterdir())


def like(model: ModelConfig) -> Any:
  """Shapes of the model's parameters on one device."""
  boxed = jax.eval_shape(functools.partial(init_params, Decoder(model)), jax.random.key(0))
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  place = lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here)
  return jax.tree.map(place, nn.meta.unbox(boxed))


@functools.cache
def loaded(name: str, scan_layers: bool = False) -> tuple[Decoder, Any, dict[str, np.ndarray]]:
  """(decoder, parameters, what transformers computed) of a golden model."""
  model = dataclasses.replace(read_model_config(GOLDEN / name), scan_layers=scan_layers)
  expected = safetensors.numpy.load_file(GOLDEN / name / "expected.safetensors")
  return Decoder(model), load_params(GOLDEN / name, model, like(model)), expected


def differ(logits: Any, expected: dict[str, np.ndarray]) -> float:
  """The largest difference of logits, in their scale."""
  gap = np.abs(np.asarray(logits) - expected["logits"])[expected["mask"]]
  return float(gap.max() / np.abs(expected["logits"]).max())


@functools.partial(jax.jit, static_argnums=0)
def by_row(model: Decoder, params: Any, tokens: jax.Array, mask: jax.Array) -> jax.Array:
  """Logits of whole rows."""
  segment = mask.astype(jnp.int32)
  position = jnp.maximum(jnp.cumsum(segment, 1) - 1, 0)
  hidden, _ = model.apply({"params": params}, tokens, segment, position)
  return model.apply({"params": params}, hidden, method="head")


@functools.partial(jax.jit, static_argnums=0)
def by_token(model: Decoder, params: Any, tokens: jax.Array, mask: jax.Array) -> jax.Array:
  """The same, each token read with the cache of those before it."""
  cfg, (rows, length) = model.cfg, tokens.shape
  segment = mask.astype(jnp.int32)
  position = jnp.maximum(jnp.cumsum(segment, 1) - 1, 0)
  k, v = ((rows, cfg.kv_heads, *shape) for shape in ((cfg.head_dim, length), (length, cfg.head_dim)))
  empty = tuple(KV(jnp.zeros(k), jnp.zeros(v)) for _ in range(cfg.layers))

  def step(cache: Any, i: jax.Array) -> tuple[Any, jax.Array]:
    own = (jax.lax.dynamic_slice_in_dim(a, i, 1, 1) for a in (tokens, segment, position))
    written = jnp.where(jnp.arange(length) <= i, segment, 0)
    context = Context(cache, written, position)
    hidden, cache = model.apply({"params": params}, *own, cache=context, index=i)
    return cache, model.apply({"params": params}, hidden[:, 0], method="head")

  return jax.lax.scan(step, empty, jnp.arange(length))[1].swapaxes(0, 1)


def test_all_families_have_a_golden_model() -> None:
  kinds = {json.loads((GOLDEN / name / "config.json").read_text())["model_type"] for name in NAMES}
  assert kinds == set(FAMILIES)


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_greedy_tokens_are_those_of_transformers(name: str) -> None:
  model, params, expected = loaded(name)
  tokens, mask = jnp.asarray(expected["tokens"], jnp.int32), jnp.asarray(expected["mask"])
  assert differ(by_row(model, params, tokens, mask), expected) < 2e-5
  assert differ(by_token(model, params, tokens, mask), expected) < 2e-5
  new = expected["greedy"].shape[1]
  cfg = SampleConfig(new, stop_tokens=(model.cfg.vocab,), draw=greedy)
  batch = PromptBatch(tokens, mask, jnp.arange(len(tokens), dtype=jnp.uint32))
  rollout = generate(params, batch, jax.random.key(0), jnp.ones(()), model=model, samples=1, cfg=cfg)
  np.testing.assert_array_equal(rollout.tokens[:, -new:], expected["greedy"])


def test_scanned_layers_hold_the_same_numbers() -> None:
  model, params, expected = loaded("gemma3", scan_layers=True)
  assert differ(by_row(model, params, expected["tokens"], expected["mask"]), expected) < 2e-5


def test_packed_rows_have_the_logits_of_rows_by_themselves() -> None:
  model, params, expected = loaded("qwen2")
  rows = [expected["tokens"][i][expected["mask"][i]] for i in range(3)]
  segment = np.concatenate([np.full(len(row), i + 1) for i, row in enumerate(rows)])
  position = np.concatenate([np.arange(len(row)) for row in rows])
  packed = (jnp.asarray(a, jnp.int32)[None] for a in (np.concatenate(rows), segment, position))
  hidden, _ = model.apply({"params": params}, *packed)
  logits = model.apply({"params": params}, hidden, method="head")[0]
  flat = np.concatenate([expected["logits"][i][expected["mask"][i]] for i in range(3)])
  assert np.abs(logits - flat).max() / np.abs(flat).max() < 2e-5


@pytest.mark.parametrize("name", [*PRESETS, *NAMES])
def test_a_model_reads_back_from_its_config_json(name: str) -> None:
  model = PRESETS[name] if name in PRESETS else read_model_config(GOLDEN / name)
  assert model_config(hf_config(model), "config.json") == model


@pytest.mark.parametrize("scan_layers", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_pieces_fill_each_parameter_once(name: str, scan_layers: bool) -> None:
  model = dataclasses.replace(read_model_config(GOLDEN / name), scan_layers=scan_layers)
  table = layout(model)
  leaves = jax.tree_util.tree_leaves_with_path(like(model))
  shapes = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}
  assert shapes.keys() == table.keys()
  for path, shape in shapes.items():
    count = np.zeros(shape, int)
    for piece in table[path]:
      count[piece.part] += 1
      assert count[piece.part].size == np.prod(piece.shape)
    assert (count == 1).all(), path


LLAMA = {
  "model_type": "llama", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
  "intermediate_size": 8, "vocab_size": 8, "rope_theta": 1e4,
}  # fmt: skip
REFUSED = {
  "model_type: 'mixtral' is not supported": {"model_type": "mixtral"},
  "attention_bias: True is not supported": {"attention_bias": True},
  "quantization_config: {'bits': 4} is not supported": {"quantization_config": {"bits": 4}},
  "rope_scaling: rope_type 'yarn' is not supported": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
  "hidden_act: 'gelu' is not supported": {"hidden_act": "gelu"},
  "hidden_size: is missing": {"hidden_size": ...},
  "has a field of another type": {"hidden_size": "8"},
  "layer_types: ['chunked_attention'] are not supported": {"layer_types": ["chunked_attention"] * 2},
  "layer_types: has 1 of 2 layers": {"layer_types": ["full_attention"]},
  "LlamaForCausalLM has no sliding windows": {"layer_types": ["sliding_attention"] * 2, "sliding_window": 4},
  "model.kv_heads: does not divide heads=2": {"num_key_value_heads": 3},
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_not_supported_is_refused_by_its_name(why: str) -> None:
  config = {name: value for name, value in {**LLAMA, **REFUSED[why]}.items() if value is not ...}
  with pytest.raises(ConfigError) as error:
    model_config(config, "config.json")
  assert str(error.value).startswith("config.json: ") and why in str(error.value)


def test_a_model_that_transformers_lacks_is_refused_by_its_fields() -> None:
  with pytest.raises(ConfigError, match="none has embed_scale=3.0$"):
    hf_config(replaced(PRESETS["qwen3-0.6b"], {"embed_scale": 3.0}))
  with pytest.raises(ConfigError, match="none has window=\\(8, 0"):
    hf_config(replaced(PRESETS["smollm2-135m"], {"window": (8, 0) * 15}))


def test_fields_of_older_versions_read_as_those_of_newer_ones() -> None:
  scaling = {"type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
             "original_max_position_embeddings": 64}  # fmt: skip
  old = model_config({**LLAMA, "rope_scaling": scaling}, "")
  new = model_config({**LLAMA, "rope_theta": None, "rope_parameters": {**scaling, "rope_theta": 1e4}}, "")
  assert old == new and old.rope_scaling == RopeScaling(8.0, 1.0, 4.0, 64)
  assert {field.name for field in dataclasses.fields(ModelConfig)} > set(COMPUTATION) - {"param_dtype"}


@pytest.mark.parity
@pytest.mark.parametrize("name", NAMES)
def test_transformers_loads_what_is_written(name: str, tmp_path: pathlib.Path) -> None:
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  model, params, expected = loaded(name)
  write_tensors(tmp_path, hf_config(model.cfg), tensors_of(model.cfg, params))
  theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
  mask = torch.from_numpy(expected["mask"])
  position = (mask.cumsum(1) - 1).clamp(min=0)
  with torch.no_grad():
    tokens = torch.from_numpy(expected["tokens"])
    logits = theirs(tokens, attention_mask=mask.long(), position_ids=position).logits
  assert differ(logits.numpy(), expected) < 1e-6

"""Shapes of published language models by name, as ModelConfig values whose fields an experiment may replace.

Each has its published number of parameters (tests/model/test_presets.py). Left out: the layout of memory
(`scan_layers`, `remat`) and dtypes, which are the run's choice.
"""

from typing import Any

from o1jax.config.model import ModelConfig, RopeScaling


def _smollm2(**fields: Any) -> ModelConfig:
  """SmolLM2: the block of Llama 2."""
  return ModelConfig(**fields, head_dim=64, vocab=49_152, norm_eps=1e-5, rope_theta=(1e5,))


def _llama3(**fields: Any) -> ModelConfig:
  """Llama 3.2: longer positions by frequency scaling of factor 32."""
  return ModelConfig(
    **fields, vocab=128_256, norm_eps=1e-5, rope_theta=(5e5,), rope_scaling=RopeScaling(factor=32.0)
  )


def _qwen2(**fields: Any) -> ModelConfig:
  """Qwen 2.5: biases of queries, keys and values."""
  return ModelConfig(**fields, qkv_bias=True, rope_theta=(1e6,), tied_head=fields["width"] < 2048)


def _qwen3(**fields: Any) -> ModelConfig:
  """Qwen 3: queries and keys normalised a head."""
  return ModelConfig(
    **fields, head_dim=128, vocab=151_936, qk_norm="head", rope_theta=(1e6,), tied_head=fields["width"] < 4096
  )


GEMMA3_LAYERS = 26

PRESETS: dict[str, ModelConfig] = {
  "smollm2-135m": _smollm2(width=576, layers=30, heads=9, kv_heads=3, mlp=1536),
  "smollm2-360m": _smollm2(width=960, layers=32, heads=15, kv_heads=5, mlp=2560),
  "qwen2.5-0.5b": _qwen2(width=896, layers=24, heads=14, kv_heads=2, head_dim=64, mlp=4864, vocab=151_936),
  "qwen2.5-1.5b": _qwen2(width=1536, layers=28, heads=12, kv_heads=2, head_dim=128, mlp=8960, vocab=151_936),
  "qwen2.5-7b": _qwen2(width=3584, layers=28, heads=28, kv_heads=4, head_dim=128, mlp=18_944, vocab=152_064),
  "qwen3-0.6b": _qwen3(width=1024, layers=28, heads=16, kv_heads=8, mlp=3072),
  "qwen3-1.7b": _qwen3(width=2048, layers=28, heads=16, kv_heads=8, mlp=6144),
  "qwen3-8b": _qwen3(width=4096, layers=36, heads=32, kv_heads=8, mlp=12_288),
  "llama3.2-1b": _llama3(width=2048, layers=16, heads=32, kv_heads=8, head_dim=64, mlp=8192),
  "llama3.2-3b": _llama3(width=3072, layers=28, heads=24, kv_heads=8, head_dim=128, mlp=8192),
  "gemma2-2b": ModelConfig(
    width=2304,
    layers=26,
    heads=8,
    kv_heads=4,
    head_dim=256,
    mlp=9216,
    vocab=256_000,
    activation="gelu_tanh",
    norm_placement="sandwich",
    norm_plus_one=True,
    embed_scale=2304**0.5,
    window=(4096, 0) * 13,
    attention_softcap=50.0,
    head_softcap=30.0,
  ),
  "gemma3-1b": ModelConfig(
    width=1152,
    layers=GEMMA3_LAYERS,
    heads=4,
    kv_heads=1,
    head_dim=256,
    mlp=6912,
    vocab=262_144,
    activation="gelu_tanh",
    norm_placement="sandwich",
    norm_plus_one=True,
    qk_norm="head",
    embed_scale=1152**0.5,
    rope_theta=tuple(1e6 if i % 6 == 5 else 1e4 for i in range(GEMMA3_LAYERS)),  # every sixth sees all keys
    window=tuple(0 if i % 6 == 5 else 512 for i in range(GEMMA3_LAYERS)),
  ),
  "olmo2-1b": ModelConfig(
    width=2048,
    layers=16,
    heads=16,
    kv_heads=16,
    head_dim=128,
    mlp=8192,
    vocab=100_352,
    norm_placement="post",
    qk_norm="full",
    tied_head=False,
    rope_theta=(5e5,),
  ),
}

"""Named sizes. `vocab` is the tokenizer's; a benchmark gives its own."""

from o1jax.config import ModelConfig

PRESETS: dict[str, ModelConfig] = {
  "XS": ModelConfig(width=64, layers=2, heads=2, kv_heads=2, head_dim=32, mlp=192, qk_norm="head"),
  "S": ModelConfig(
    width=256, layers=4, heads=4, kv_heads=2, head_dim=64, mlp=1024, qk_norm="head", rope_theta=(1e6,)
  ),
  "M": ModelConfig(
    width=512, layers=8, heads=8, kv_heads=4, head_dim=64, mlp=2048, qk_norm="head", rope_theta=(1e6,)
  ),
}

"""Options of the decoder."""

import dataclasses
from typing import Literal

from o1jax.config.base import require


@dataclasses.dataclass(frozen=True)
class RopeScaling:
  """Llama 3's frequency scaling (Llama 3 model card; `rope_scaling` of type llama3)."""

  factor: float = 8.0
  low_freq_factor: float = 1.0
  high_freq_factor: float = 4.0
  original_length: int = 8192

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field` is this group's dotted name."""
    for name in ("factor", "original_length"):
      require(vars(self)[name] > 0, f"{field}.{name}", f"must be positive, is {vars(self)[name]}")
    low, high = self.low_freq_factor, self.high_freq_factor
    require(low < high, f"{field}.high_freq_factor", f"must be above low_freq_factor={low}, is {high}")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """A decoder of the Llama / Qwen / Gemma family."""

  width: int
  layers: int
  heads: int
  kv_heads: int
  head_dim: int
  mlp: int
  vocab: int = 0  # 0: the tokenizer's size, written into the run's config.json
  activation: Literal["silu", "gelu_tanh"] = "silu"
  norm_eps: float = 1e-6
  norm_placement: Literal["pre", "post", "sandwich"] = "pre"  # on a sublayer's input, output, or both
  norm_plus_one: bool = False  # RMSNorm multiplies by (1 + w), as Gemma does
  qk_norm: Literal["none", "head", "full"] = "none"  # per head (Qwen 3) or over the full width (OLMo 2)
  qkv_bias: bool = False
  tied_head: bool = True
  embed_scale: float = 1.0  # Gemma: sqrt(width)
  query_scale: float | None = None  # multiplies q.k; None: head_dim ** -0.5
  rope_theta: tuple[float, ...] = (10_000.0,)  # one for all layers, or one a layer
  rope_scaling: RopeScaling | None = None
  window: tuple[int, ...] = (0,)  # keys a query sees, itself included; 0 = all; one, or one a layer
  attention_softcap: float = 0.0  # c * tanh(x / c) on attention scores; 0 = off
  head_softcap: float = 0.0  # the same on logits; 0 = off
  dtype: Literal["float32", "bfloat16"] = "float32"  # of the computation
  # Of the stored matrices, their gradients and the optimiser's moments; norms and biases are float32.
  param_dtype: Literal["float32", "bfloat16"] = "float32"
  scan_layers: bool = False  # one compiled layer (fast to compile), or unrolled (fast on a CPU)
  remat: Literal["none", "full", "dots"] = "none"  # keeps all activations, none, or the products'

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field` is this group's dotted name."""
    for name in ("width", "layers", "heads", "kv_heads", "head_dim", "mlp"):
      require(vars(self)[name] > 0, f"{field}.{name}", f"must be positive, is {vars(self)[name]}")
    require(self.norm_eps > 0, f"{field}.norm_eps", f"must be positive, is {self.norm_eps}")
    for name in ("attention_softcap", "head_softcap"):
      require(vars(self)[name] >= 0, f"{field}.{name}", "must not be negative; 0 is off")
    require(self.heads % self.kv_heads == 0, f"{field}.kv_heads", f"does not divide heads={self.heads}")
    require(self.head_dim % 2 == 0, f"{field}.head_dim", f"must be even, is {self.head_dim}")
    for name in ("rope_theta", "window"):
      count = len(vars(self)[name])
      require(count in (1, self.layers), f"{field}.{name}", f"wants 1 or {self.layers} values, has {count}")
    require(all(theta > 0 for theta in self.rope_theta), f"{field}.rope_theta", "must be positive")
    require(all(keys >= 0 for keys in self.window), f"{field}.window", "must not be negative; 0 is all keys")
    if self.rope_scaling is not None:
      self.rope_scaling.validate(f"{field}.rope_scaling")

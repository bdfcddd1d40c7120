"""Whole configurations that several experiments begin with."""

from typing import Any, Mapping

from o1jax.config.base import replaced
from o1jax.config.learning import OptimConfig, RLConfig, SftConfig
from o1jax.config.model import ModelConfig
from o1jax.config.run import CheckpointConfig, DiagnosticsConfig, EvalConfig, TrainConfig
from o1jax.config.tasks import CountdownConfig


def xs(name: str, fields: Mapping[str, Any]) -> TrainConfig:
  """XS, for studies of many members: 0.1M parameters, 16 rows of up to 48 tokens, seconds of RL a member.

  Countdown with three numbers of 1..9: RL sees targets up to 12 alone, the cold start larger ones too, so
  that what RL does to problems it never sees can be measured. `fields` are replaced by their dotted names.
  """
  config = TrainConfig(
    name=name,
    model=ModelConfig(
      width=64, layers=2, heads=2, kv_heads=2, head_dim=32, mlp=128, qk_norm="head", embed_scale=3.0
    ),
    task=CountdownConfig(
      count=3, max_number=9, max_value=20, max_target=12, wide_cold_start=True, held_out=256, max_tries=3
    ),
    sft=SftConfig(steps=1200, rows=6, length=160, optim=OptimConfig(lr=3e-3, warmup=30, schedule="cosine")),
    rl=RLConfig(
      steps=400,
      prompts=4,
      samples=4,
      max_prompt=6,
      max_tokens=48,
      trim=0,
      optim=OptimConfig(lr=1e-4, warmup=5),
    ),
    diagnostics=DiagnosticsConfig(every=40, problems=128),
    eval=EvalConfig(final_problems=256, samples=8, batch=128, max_tokens=48),
    checkpoint=CheckpointConfig(every=80),
  )
  return replaced(config, fields)

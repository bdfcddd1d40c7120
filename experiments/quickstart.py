"""A tiny decoder learns to search in text, from a checker's verdicts alone.

Claim: outcome-reward RL makes one long chain of thought longer and better, with no search and no process
  rewards.
Source: Nathan Lambert, 'OpenAI's o1 using "search" was a PSYOP'; the task is TinyZero's countdown, the cold
  start a Stream of Search (Gandhi et al. 2024) that gives up early.
Command: o1jax train experiments/quickstart.py
Expected: held-out pass@1 rises by 15 points or more from the cold start; responses lengthen; accuracy rises
  with a forced budget. LOG.md holds the measured figures of three seeds.
"""

from o1jax.config import (
  CheckpointConfig,
  CountdownConfig,
  EvalConfig,
  LogConfig,
  ModelConfig,
  OptimConfig,
  RLConfig,
  SftConfig,
  TrainConfig,
)


def get_config() -> TrainConfig:
  return TrainConfig(
    name="quickstart",
    controls=True,
    model=ModelConfig(
      width=96, layers=3, heads=3, kv_heads=3, head_dim=32, mlp=256, qk_norm="head", embed_scale=3.0
    ),
    task=CountdownConfig(count=3, max_number=12, max_value=20, held_out=512, max_tries=10),
    sft=SftConfig(
      steps=850, rows=6, length=160, optim=OptimConfig(lr=3e-3, warmup_steps=30, schedule="cosine")
    ),
    rl=RLConfig(
      steps=32, prompts=32, samples=8, max_prompt=6, max_tokens=112, micro_batches=4,
      optim=OptimConfig(lr=3e-4, warmup_steps=3)
    ),
    eval=EvalConfig(
      every=(170, 8), problems=64, final_problems=512, samples=8, control_samples=1, batch=64, max_tokens=112,
      budgets=(16, 32, 48, 64, 80, 96, 112),
    ),
    checkpoint=CheckpointConfig(every=100, keep=2),
    log=LogConfig(rollouts_every=10, rollouts=8),
  )  # fmt: skip

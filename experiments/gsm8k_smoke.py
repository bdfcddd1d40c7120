"""Real text through every stage: GSM8K, SentencePiece, the `####` verifier, a few SFT and RL steps.

Claim: none about reasoning. A random decoder of 0.2M parameters trained for seconds solves nothing; what this
shows is that the published files are prepared, tokenised, learnt from, sampled for and judged without a
special case.
Source: Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems" (7,473 training and 1,319 test
  problems).
Command: o1jax train experiments/gsm8k_smoke.py [--task.path FOLDER_OR_FILE]
Expected: about a minute on 2 cores. The SFT loss starts at ln 1024 = 6.9 nats a token and ends below 5.2;
every verdict is "unparsable" or "wrong", so that pass@1 is 0 before and after RL.

Limits: with the 1,024-piece vocabulary the longest prompt has 387 tokens, and the longest problem with its
solution fits the SFT row of 1,024; files of one's own with longer ones need `--rl.max-prompt` and
`--sft.length` to match.
"""

from o1jax.config import (
  CheckpointConfig,
  EvalConfig,
  Gsm8kConfig,
  LogConfig,
  ModelConfig,
  OptimConfig,
  RLConfig,
  SftConfig,
  TrainConfig,
)


def get_config() -> TrainConfig:
  """A run whose every stage is as small as real prompts allow."""
  return TrainConfig(
    name="gsm8k_smoke",
    model=ModelConfig(width=64, layers=2, heads=4, kv_heads=2, head_dim=16, mlp=192),
    task=Gsm8kConfig(),
    sft=SftConfig(
      steps=30, rows=4, length=1024, optim=OptimConfig(lr=3e-3, warmup_steps=5, schedule="cosine")
    ),
    rl=RLConfig(steps=4, prompts=4, samples=4, max_prompt=400, max_tokens=64),
    eval=EvalConfig(problems=8, final_problems=16, samples=8, batch=8, max_tokens=64, bootstrap=200),
    checkpoint=CheckpointConfig(every=10),
    log=LogConfig(rollouts_every=1, rollouts=4),
  )

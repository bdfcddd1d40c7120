"""Five tasks in one run: a countdown, sums, equations, programs to repair and puzzles, each with its own
verifier.

Claim: none about reasoning. A decoder of 0.2M parameters trained for a minute solves next to nothing of this;
what it shows is that tasks whose verifiers are a parser, a computer algebra, a sandbox and a library of
scorers train as one, by weight, with their host verifiers at work beside the device.
Source: Lambert, the PSYOP essay: "a large swath of prompts where a verifiable answer is present".
Command: o1jax train experiments/mixture_smoke.py [--log.profile 155 156]
Expected: about two minutes on 2 cores, no download. `prompts/<task>` follows the weights,
`rewards/<task>/mean` is each task's own, and with `--rl.chunks 1 --rl.overlap False` every number but the
clock's is the same, rounding apart. A profile of two steps shows the spans `verify` beside the device's work.

The rows of equations and programs lie beside this file; they are few and simple, and nothing is evaluated on
them.
"""

import pathlib

from o1jax.config import (
  ArithmeticConfig,
  BugfixConfig,
  CheckpointConfig,
  CountdownConfig,
  CurriculumConfig,
  EvalConfig,
  KLConfig,
  LogConfig,
  MathConfig,
  MixtureConfig,
  ModelConfig,
  OptimConfig,
  Part,
  ReasoningGymConfig,
  RLConfig,
  SftConfig,
  TextConfig,
  TrainConfig,
)

DATA = pathlib.Path(__file__).parent / "data"


def get_config() -> TrainConfig:
  """A run whose every stage is as small as five tasks allow."""
  parts = (
    Part(CountdownConfig(count=3, max_number=9, held_out=16), weight=2.0),
    Part(ArithmeticConfig(digits=2, size=512, held_out=16), weight=2.0),
    Part(MathConfig(path=str(DATA / "mathematics.jsonl"), sha256=None, held_out=8, unverified=0)),
    Part(BugfixConfig(path=str(DATA / "programs.jsonl"), sha256=None, held_out=8, unverified=0)),
    Part(ReasoningGymConfig(dataset="leg_counting", size=64, held_out=16)),
  )
  return TrainConfig(
    name="mixture_smoke",
    model=ModelConfig(width=64, layers=2, heads=4, kv_heads=2, head_dim=16, mlp=192),
    task=MixtureConfig(parts, text=TextConfig(vocab=512)),
    sft=SftConfig(
      steps=150, rows=8, length=512, optim=OptimConfig(lr=3e-3, warmup_steps=5, schedule="cosine")
    ),
    rl=RLConfig(
      steps=12, prompts=16, samples=4, max_prompt=320, max_tokens=96, chunks=2, kl=KLConfig(0.01),
      curriculum=CurriculumConfig("pass_rate", min_probability=0.2, rate=0.5),
    ),
    eval=EvalConfig(problems=8, final_problems=32, samples=2, batch=16, max_tokens=96, bootstrap=200),
    checkpoint=CheckpointConfig(every=20),
    log=LogConfig(rollouts_every=1, rollouts=8),
  )  # fmt: skip

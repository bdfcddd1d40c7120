"""How strong should the leash to the reference be?

Claim: a weaker KL penalty lets the policy go further from its reference and do worse out of its training distribution, even
  though the rewards are verified and cannot be gamed.
Source: Tulu 3 (Lambert et al. 2024), section 6 (RLVR), the sweep over beta.
Command: o1jax sweep experiments/kl_ablation.py [--full]
Expected: KL to the reference falls with beta; accuracy out of distribution rises with beta, or at the least does not fall.
  The measured figures stand in RESULTS.md, where the command puts them.
"""

from o1jax.config import (
  Arm,
  Check,
  CheckpointConfig,
  Claim,
  CountdownConfig,
  DiagnosticsConfig,
  EvalConfig,
  KLConfig,
  ModelConfig,
  OptimConfig,
  RLConfig,
  SftConfig,
  SweepConfig,
  TrainConfig,
)

BETAS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3)


def get_config() -> TrainConfig:
  """One member: XS, 16 rows of up to 48 tokens, problems whose targets stay small."""
  return TrainConfig(
    name="kl_ablation",
    model=ModelConfig(width=48, layers=2, heads=2, kv_heads=2, head_dim=24, mlp=96, qk_norm="head", embed_scale=3.0),
    task=CountdownConfig(count=3, max_number=9, max_value=20, max_target=12, held_out=256, max_tries=3),
    sft=SftConfig(steps=600, rows=6, length=160, optim=OptimConfig(lr=4e-3, warmup=30, schedule="cosine")),
    rl=RLConfig(
      steps=200, prompts=4, samples=4, max_prompt=6, max_tokens=48, trim=0, kl=KLConfig(0.01),
      optim=OptimConfig(lr=5e-4, warmup=5),
    ),
    diagnostics=DiagnosticsConfig(every=20, problems=64),
    eval=EvalConfig(final_problems=256, samples=4, batch=64, max_tokens=48),
    checkpoint=CheckpointConfig(every=40),
  )  # fmt: skip


def sweep(full: bool) -> SweepConfig:
  """Six strengths and four seeds; in full three times the steps and eight seeds."""
  base = get_config()
  arms = tuple(Arm(f"beta={beta:g}", {"rl.kl.coef": beta}, strength=beta) for beta in BETAS)
  claim = Claim(
    text="Lower beta: more KL, and worse out of distribution, though rewards are verified",
    source="Tulu 3 (Lambert et al. 2024), section 6",
    figure="beta in 0.01 .. 0.1: the lower, the more KL and the lower the average",
    checks=(
      Check("falling", "kl_reverse"),
      Check("rising", "ood/larger_targets/pass@1"),
      Check("falling", "held_out/pass@1"),
    ),
  )
  seeds = tuple(range(8 if full else 4))
  overrides = {"steps": 600} if full else {}
  import dataclasses

  return SweepConfig(
    dataclasses.replace(base, rl=dataclasses.replace(base.rl, **overrides)), arms, claim, seeds=seeds
  )

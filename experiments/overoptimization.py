"""What does RL reach when its reward is learned, and how far does more data push the point where it turns?

Claim: against a learned reward the true one rises and then falls with the distance d = sqrt KL from the first policy, as
  d (a - b log d) for RL and d (a - b d) for best-of-n; a proxy of more examples holds longer.
Source: Gao et al. 2022 (Scaling laws for reward model overoptimization), sections 3.1 and 3.3.
Command: o1jax sweep experiments/overoptimization.py [--full]
Expected: the proxy's reward rises in all arms, the exact accuracy less the fewer examples the proxy had, and b > 0 in both
  forms. The measured figures stand in RESULTS.md, where the command puts them.

The gold reward is countdown's exact verifier. A proxy is a classifier of completions that begins as the cold-start policy and
learns from that policy's own completions of training problems, a share of their labels flipped. RL has no KL penalty. KL is
of whole completions, nats: exact token by token for RL (`kl_sequence`), log n - (n - 1) / n for best-of-n, which is sampled
at RL's own temperature from the policy that RL begins with.
"""

import dataclasses

from o1jax.config import (
  Arm,
  Check,
  CheckpointConfig,
  Claim,
  CountdownConfig,
  DiagnosticsConfig,
  EvalConfig,
  ModelConfig,
  OptimConfig,
  ProxyConfig,
  RLConfig,
  SftConfig,
  SweepConfig,
  TrainConfig,
)

EXAMPLES = (256, 1024, 4096)
NOISE = 0.15


def get_config() -> TrainConfig:
  """One member: XS, 16 rows of up to 48 tokens, problems whose targets stay small, a proxy in the verifier's place."""
  return TrainConfig(
    name="overoptimization",
    model=ModelConfig(width=48, layers=2, heads=2, kv_heads=2, head_dim=24, mlp=96, qk_norm="head", embed_scale=3.0),
    task=CountdownConfig(count=3, max_number=9, max_value=20, max_target=12, wide_cold_start=True, held_out=256, max_tries=3),
    sft=SftConfig(steps=600, rows=6, length=160, optim=OptimConfig(lr=4e-3, warmup=30, schedule="cosine")),
    rl=RLConfig(
      steps=200, prompts=4, samples=4, max_prompt=6, max_tokens=48, trim=0,
      proxy=ProxyConfig("outcome", examples=1024, noise=NOISE, steps=400, rows=32, lr=1e-3, best_of=64),
      optim=OptimConfig(lr=5e-4, warmup=5),
    ),
    diagnostics=DiagnosticsConfig(every=10, problems=64, samples=2),
    eval=EvalConfig(final_problems=256, samples=4, batch=64, max_tokens=48),
    checkpoint=CheckpointConfig(every=40),
  )  # fmt: skip


def sweep(full: bool) -> SweepConfig:
  """Proxies of three sizes of data and three seeds; in full four times the steps and eight seeds."""
  base = get_config()
  arms = tuple(Arm(f"examples={n}", {"rl.proxy.examples": n}, strength=n) for n in EXAMPLES)
  few, many = arms[0].name, arms[-1].name
  claim = Claim(
    text="Against a learned reward the true one bends down with distance, later for a proxy of more examples",
    source="Gao et al. 2022, sections 3.1 and 3.3",
    figure="RL: d (a - b log d), best-of-n: d (a - b d), b > 0; more data, more gold reward",
    checks=(
      Check("fit_gao", "held_out/pass@1", (few,)),
      Check("fit_gao", "held_out/pass@1", (many,)),
      Check("fit_gao_bon", "bon", (few,)),
      Check("fit_gao_bon", "bon", (many,)),
      Check("rising", "last/accuracy"),
      Check("rising", "bon/64"),
      Check("declines", "accuracy", (few,)),
    ),
  )
  rl = dataclasses.replace(base.rl, steps=800 if full else base.rl.steps)
  return SweepConfig(dataclasses.replace(base, rl=rl), arms, claim, seeds=tuple(range(8 if full else 3)))

"""What does RL reach when its reward is learned, and how far does more data push the point where it turns?

Claim: against a learned reward the true one rises and then falls with the distance d = sqrt KL from the first
  policy, as d (a - b log d) for RL and d (a - b d) for best-of-n; a proxy of more examples holds longer.
Source: Gao et al. 2022 (Scaling laws for reward model overoptimization), sections 3.1 and 3.3.
Command: o1jax sweep experiments/overoptimization.py [--full]
Expected: the proxy's reward rises in all arms, the exact accuracy less the fewer examples the proxy had, and
  b > 0 in both forms. The measured figures stand in RESULTS.md, where the command puts them.

The gold reward is countdown's exact verifier. A proxy is a classifier of completions that begins as the
cold-start policy and learns from that policy's own completions of training problems, a share of their labels
flipped. RL has no KL penalty. KL is of whole completions, nats: exact token by token for RL (`kl_sequence`),
log n - (n - 1) / n for best-of-n, which is sampled at RL's own temperature from the policy that RL begins
with.
"""

from o1jax.config import Arm, Check, Claim, RewardModelConfig, SweepConfig, TrainConfig, replaced, xs

EXAMPLES = (256, 1024, 4096)
PROXY = RewardModelConfig("outcome", examples=1024, noise=0.1, steps=500, rows=32, lr=1e-3, best_of=64)


def get_config() -> TrainConfig:
  """One member, paid by the proxy of middling data."""
  fields = {"rl.reward_model": PROXY, "rl.steps": 200}  # by then the exact accuracy has turned
  diagnoses = {"diagnostics.every": 10, "diagnostics.problems": 256}
  return xs("overoptimization", {**fields, **diagnoses})


def sweep(full: bool) -> SweepConfig:
  """Proxies of three sizes of data and four seeds; in full four times the steps and eight seeds."""
  arms = tuple(Arm(f"examples={n}", {"rl.reward_model.examples": n}, strength=n) for n in EXAMPLES)
  least, most = arms[0].name, arms[-1].name
  claim = Claim(
    text="Against a learned reward the true one bends down with distance, later for a proxy of more examples",
    source="Gao et al. 2022, sections 3.1 and 3.3",
    figure="RL: d (a - b log d), best-of-n: d (a - b d), b > 0; more data, more gold reward",
    checks=(
      Check("fit_gao", "held_out/pass@1", (least,)),
      Check("fit_gao", "held_out/pass@1", (most,)),
      Check("fit_gao_bon", "bon", (least,)),
      Check("fit_gao_bon", "bon", (most,)),
      Check("rising", "last/accuracy"),
      Check("rising", "bon/64"),
      *(Check("declines", "held_out/pass@1", (name,)) for name in (least, most)),
    ),
  )
  base = replaced(get_config(), {"rl.steps": 800} if full else {})
  return SweepConfig(base, arms, claim, seeds=tuple(range(8 if full else 4)))

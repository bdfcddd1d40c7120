"""How strong should the leash to the reference be?

Claim: a weaker KL penalty lets the policy go further from its reference and do worse out of its training
  distribution, even though the rewards are verified and cannot be gamed.
Source: Tulu 3 (Lambert et al. 2024), the sweep over beta of its RL with verifiable rewards.
Command: o1jax sweep experiments/kl_ablation.py [--full]
Expected: KL to the reference falls with beta; accuracy out of distribution (targets RL never saw) rises with
  it. The measured figures stand in RESULTS.md, where the command puts them.
"""

from o1jax.config import Arm, Check, Claim, SweepConfig, TrainConfig, replaced, xs

BETAS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3)


def get_config() -> TrainConfig:
  """One member of the middle of the sweep."""
  return xs("kl_ablation", {"rl.kl.coef": 0.01})


def sweep(full: bool) -> SweepConfig:
  """Six strengths and four seeds; in full three times the steps and eight seeds."""
  claim = Claim(
    text="A lower beta brings more KL and does worse out of distribution, though the rewards are verified",
    source="Tulu 3, Lambert et al. 2024",
    figure="beta 0.1, 0.05, 0.03, 0.01: the lower, the more KL and the lower the average over held-out tasks",
    checks=(Check("falling", "kl_reverse"), Check("rising", "ood/larger_targets/pass@1")),
  )
  arms = tuple(Arm(f"beta={beta:g}", {"rl.kl.coef": beta}, strength=beta) for beta in BETAS)
  base = replaced(get_config(), {"rl.steps": 1200} if full else {})
  return SweepConfig(base, arms, claim, seeds=tuple(range(8 if full else 4)))

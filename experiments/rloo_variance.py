"""How much of REINFORCE's noise does a leave-one-out baseline take away?

Claim: the variance of RLOO's gradient falls with k, the completions of a prompt, and at equal k a
  leave-one-out baseline leaves less of it than no baseline does.
Source: RLOO (Ahmadian et al. 2024); Kool et al. 2019.
Command: o1jax sweep experiments/rloo_variance.py [--full]
Expected: `grad_noise/trace` of the first diagnosis, at which all arms of a seed hold the same cold-start
  policy, falls about as 1 / (k - 1): k samples, and a baseline of k - 1. Whether no baseline is noisier is
  the open part: rewards are 0 and 1, and at a low accuracy 0 is near the best constant baseline already, so
  that RLOO's may add more noise than it takes away. The measured figures stand in RESULTS.md, where the
  command puts them.

The number of prompts is the same for all arms, so that more completions are more samples too: that is how the
paper varies k. The arm without a baseline is plain REINFORCE, A = R, at the largest k, whose samples rloo-k8
has as well: nothing but the baseline tells the two apart. reinforce++ would be no such arm, as it subtracts
the batch's mean and divides by its deviation, which is a baseline and another scale of the gradient, nor
would remax, whose greedy completion is a baseline. What the arms learn is compared in the longer form alone.
"""

from o1jax.config import Arm, Check, Claim, SweepConfig, TrainConfig, replaced, xs

KS = (2, 4, 8)
TRACE = "first/grad_noise/trace"


def get_config() -> TrainConfig:
  """One member of the middle of the sweep, with prompts enough to see a variance between them."""
  fields = {"rl.advantage.kind": "rloo", "rl.prompts": 32, "rl.samples": 4, "rl.steps": 10}
  return xs(
    "rloo_variance", {**fields, "diagnostics.every": 10, "diagnostics.problems": 64, "eval.samples": 1}
  )


def sweep(full: bool) -> SweepConfig:
  """Three k of RLOO and one arm without a baseline, four seeds, hardly trained; in full eight seeds, trained
  to the end."""
  arms = [Arm(f"rloo-k{k}", {"rl.samples": k}, strength=k) for k in KS]
  plain = f"none-k{KS[-1]}"
  arms.append(Arm(plain, {"rl.samples": KS[-1], "rl.advantage.kind": "reinforce"}))
  rloo = tuple(arm.name for arm in arms[:-1])
  checks = [Check("falling", TRACE, rloo), Check("greater", TRACE, (plain, rloo[-1]))]
  learned = [Check("rising", "last/accuracy", rloo), Check("greater", "last/accuracy", (rloo[-1], plain))]
  claim = Claim(
    text="RLOO's gradient varies less the larger k, and less than without a baseline",
    source="RLOO (Ahmadian et al. 2024)",
    figure="in reward k = 4 above k = 2, and both above REINFORCE whose baseline is a running mean",
    checks=(*checks, *(learned if full else ())),
  )
  base = replaced(get_config(), {"rl.steps": 400} if full else {})
  return SweepConfig(base, tuple(arms), claim, seeds=tuple(range(8 if full else 4)), vmapped=1)

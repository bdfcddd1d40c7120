"""Does GRPO's normalisation lengthen wrong answers?

Claim: dividing a completion's loss by its own length, and the advantage by the group's deviation, favours
  long wrong answers; without both (Dr. GRPO) wrong answers stay shorter at the same accuracy.
Source: Liu et al. 2025, Understanding R1-Zero-like training, section 3.
Command: o1jax sweep experiments/dr_grpo_length.py [--full]
Expected: incorrect completions are longer under grpo than under dr_grpo; accuracies do not differ.
  The measured figures stand in RESULTS.md, where the command puts them.
"""

from o1jax.config import Arm, Check, Claim, SweepConfig, TrainConfig, replaced, xs


def get_config() -> TrainConfig:
  """One member under GRPO as published: mean over each completion's tokens, then over completions."""
  return xs("dr_grpo_length", {"rl.loss.aggregation": "seq_mean_token_mean"})


def sweep(full: bool) -> SweepConfig:
  """Both and five seeds; in full three times the steps and ten seeds."""
  plain = {"rl.advantage.kind": "dr_grpo", "rl.loss.aggregation": "dr_grpo"}
  claim = Claim(
    text="GRPO's normalisation by length and deviation makes incorrect answers longer than Dr. GRPO's",
    source="Liu et al. 2025, section 3",
    figure="incorrect answers grow under GRPO and stay short under Dr. GRPO, at equal accuracy",
    checks=(
      Check("greater", "last/incorrect/mean_length", ("grpo", "dr_grpo")),
      Check("greater", "held_out/pass@1", ("dr_grpo", "grpo")),
    ),
  )
  base = replaced(get_config(), {"rl.steps": 1200} if full else {})
  return SweepConfig(
    base, (Arm("grpo", {}), Arm("dr_grpo", plain)), claim, seeds=tuple(range(10 if full else 5))
  )

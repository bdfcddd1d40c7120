"""Are many problems once better than few problems many times?

Claim: diversity of the training problems is itself a regulariser: at equal steps, few problems are learned by
  heart, many are generalised from.
Source: Nathan Lambert, 'OpenAI's o1 using "search" was a PSYOP': RL that runs long needs large and diverse
  data.
Command: o1jax sweep experiments/diversity.py [--full]
Expected: the training reward falls with the number of distinct problems, held-out accuracy rises with it.
  The measured figures stand in RESULTS.md, where the command puts them.
"""

from o1jax.config import Arm, Check, Claim, SweepConfig, TrainConfig, replaced, xs

PROBLEMS = (4, 16, 64, 256)


def get_config() -> TrainConfig:
  """One member with few problems."""
  return xs("diversity", {"rl.problems": 16, "rl.steps": 800, "diagnostics.every": 80})


def sweep(full: bool) -> SweepConfig:
  """Four sizes and three seeds; in full three times the steps and six seeds."""
  arms = tuple(Arm(f"problems={n}", {"rl.problems": n}, strength=float(n)) for n in PROBLEMS)
  claim = Claim(
    text="At equal steps, many distinct problems are generalised from and few are learned by heart",
    source="Lambert, the PSYOP essay",
    figure="no figure: large and diverse data let RL run long",
    checks=(
      Check("rising", "held_out/pass@1"),
      Check("falling", "last/reward"),
      Check("rising", "ood/larger_targets/pass@1"),
    ),
  )
  base = replaced(get_config(), {"rl.steps": 2400} if full else {})
  return SweepConfig(base, arms, claim, seeds=tuple(range(6 if full else 3)))

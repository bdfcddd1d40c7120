"""Can RL just run longer, and what keeps it from degrading?

Claim: without regularisation a long run degrades; a KL penalty whose reference is reset now and then keeps it
  improving.
Source: ProRL (Liu et al. 2025), prolonged RL with reference resets; it resets the optimiser's moments with
  the reference.
Command: o1jax sweep experiments/long_run.py [--full]
Expected: held-out accuracy of `none` ends below its best; that of `kl+reset+optimizer` does not, and ends
  above `none`. The measured figures stand in RESULTS.md, where the command puts them.
"""

from o1jax.config import Arm, Check, Claim, SweepConfig, TrainConfig, replaced, xs

RESET = {"rl.kl.coef": 0.01, "rl.kl.reference": "reset"}


def get_config() -> TrainConfig:
  """The longest of the XS runs, at a learning rate that makes trouble soon."""
  return xs("long_run", {"rl.steps": 1200, "rl.optim.lr": 3e-4, "diagnostics.every": 60})


def sweep(full: bool) -> SweepConfig:
  """Four ways to hold on and three seeds; in full four times the steps and six seeds."""
  every = {"rl.kl.reset_every": 600 if full else 150}
  arms = (
    Arm("none", {}),
    Arm("kl", {"rl.kl.coef": 0.01}),
    Arm("kl+reset", {**RESET, **every}),
    Arm("kl+reset+optimizer", {**RESET, **every, "rl.kl.reset_optimizer": True}),
  )
  claim = Claim(
    text="A long run degrades without a leash, and improves on with a KL to a reference that is reset",
    source="ProRL, Liu et al. 2025",
    figure="more than 2,000 steps of steady gains with KL and resets; stagnation or collapse without",
    checks=(
      Check("declines", "held_out/pass@1", ("none",)),
      Check("lasts", "held_out/pass@1", ("kl+reset+optimizer",)),
      Check("greater", "held_out/pass@1", ("kl+reset+optimizer", "none")),
      Check("greater", "ood/larger_targets/pass@1", ("kl+reset+optimizer", "none")),
    ),
  )
  base = replaced(get_config(), {"rl.steps": 4800, "diagnostics.every": 240} if full else {})
  return SweepConfig(base, arms, claim, seeds=tuple(range(6 if full else 3)))

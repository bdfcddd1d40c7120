"""Does accuracy trade against entropy, and what keeps entropy from collapsing?

Claim: accuracy follows R = -a exp(H) + b while entropy H collapses; a higher clip, an entropy bonus, clip-cov
  and kl-cov each keep entropy up.
Source: Cui et al. 2025, The entropy mechanism of RL for reasoning language models.
Command: o1jax sweep experiments/entropy_collapse.py [--full]
Expected: the fit has R^2 near 1 without intervention, and each intervention ends with more entropy than none.
  Four optimiser steps a rollout, so that clips act. The measured figures stand in RESULTS.md, where the
  command puts them.
"""

from o1jax.config import Arm, Check, Claim, SweepConfig, TrainConfig, replaced, xs

CLIP_COV = {"rl.cov.kind": "clip_cov", "rl.cov.fraction": 0.02, "rl.cov.low": 0.2, "rl.cov.high": 5.0}
KL_COV = {"rl.cov.kind": "kl_cov", "rl.cov.fraction": 0.02, "rl.cov.coef": 1.0}


def get_config() -> TrainConfig:
  """PPO's symmetric clip without an intervention."""
  fields = {"rl.loss.kind": "ppo_clip", "rl.loss.clip_low": 0.2, "rl.loss.clip_high": 0.2}
  steps = {"rl.epochs": 2, "rl.minibatches": 2, "rl.steps": 320}
  return xs("entropy_collapse", {**fields, **steps})


def sweep(full: bool) -> SweepConfig:
  """Five arms and three seeds; in full three times the steps and six seeds."""
  arms = (
    Arm("none", {}),
    Arm("clip-higher", {"rl.loss.clip_high": 0.4}),
    Arm("bonus", {"rl.entropy": 0.01}),
    Arm("clip-cov", CLIP_COV),
    Arm("kl-cov", KL_COV),
  )
  claim = Claim(
    text="Accuracy pays with entropy, R = -a exp(H) + b; clip-higher, a bonus, clip-cov and kl-cov keep"
    " entropy up",
    source="Cui et al. 2025",
    figure="the fit predicts the ceiling R = b - a at H = 0; clip-cov and kl-cov keep entropy several times"
    " higher",
    checks=(
      Check("fit_entropy", "accuracy", ("none",)),
      *(
        Check("greater", "last/entropy", (name, "none"))
        for name in ("clip-higher", "bonus", "clip-cov", "kl-cov")
      ),
    ),
  )
  base = replaced(get_config(), {"rl.steps": 960} if full else {})
  return SweepConfig(base, arms, claim, seeds=tuple(range(6 if full else 3)))

"""What does each of DAPO's four changes to GRPO add?

Claim: a higher upper clip, dynamic sampling, a loss by token and a soft penalty of overlong answers each add
  to GRPO.
Source: DAPO (Yu et al. 2025), table 1: 30 on AIME 2024 with GRPO, 50 with all of it.
Command: o1jax sweep experiments/dapo_ladder.py [--full]
Expected: accuracy rises rung by rung; the higher clip keeps entropy up. Four optimiser steps a rollout, so
  that clips act. The measured figures stand in RESULTS.md, where the command puts them.
"""

from o1jax.config import Arm, Check, Claim, SweepConfig, TrainConfig, replaced, xs

HIGHER = {"rl.loss.clip_high": 0.28}
SAMPLED = {**HIGHER, "rl.dynamic_sampling": 3}
TOKENS = {**SAMPLED, "rl.loss.aggregation": "token_mean"}
ALL = {**TOKENS, "rl.overlong.buffer": 12}


def get_config() -> TrainConfig:
  """The lowest rung: GRPO with a symmetric clip, two passes of two minibatches over each rollout."""
  loss = {"kind": "ppo_clip", "aggregation": "seq_mean_token_mean", "clip_low": 0.2, "clip_high": 0.2}
  fields = {f"rl.loss.{name}": value for name, value in loss.items()}
  return xs("dapo_ladder", {**fields, "rl.epochs": 2, "rl.minibatches": 2, "rl.steps": 320})


def sweep(full: bool) -> SweepConfig:
  """Five rungs and three seeds; in full three times the steps and six seeds."""
  arms = (
    Arm("grpo", {}),
    Arm("clip-higher", HIGHER),
    Arm("+dynamic-sampling", SAMPLED),
    Arm("+token-loss", TOKENS),
    Arm("+overlong", ALL),
  )
  claim = Claim(
    text="Clip-higher, dynamic sampling, a token-level loss and overlong shaping each add to GRPO",
    source="DAPO, Yu et al. 2025, table 1",
    figure="AIME 2024: 30 (GRPO), 36 (overlong filtering), 38 (clip-higher), 41 (soft overlong),"
    " 42 (token loss), 50 (dynamic sampling)",
    checks=(
      Check("greater", "held_out/pass@1", ("+overlong", "grpo")),
      Check("greater", "last/entropy", ("clip-higher", "grpo")),
      Check("greater", "held_out/pass@1", ("+dynamic-sampling", "clip-higher")),
    ),
  )
  base = replaced(get_config(), {"rl.steps": 960} if full else {})
  return SweepConfig(base, arms, claim, seeds=tuple(range(6 if full else 3)))

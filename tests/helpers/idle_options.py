"""Options that cannot act, or that do not do what they say: what is changed in a valid run or sweep, and how
it is refused."""

from typing import Any

HELD: dict[str, Any] = {"rl.kl.coef": 0.1, "rl.steps": 9}
K1 = {**HELD, "rl.kl.estimator": "k1"}
TWICE: dict[str, Any] = {"rl.epochs": 2}
COV = {"rl.cov.kind": "clip_cov", "rl.cov.fraction": 2e-4, "rl.cov.low": 1.0, "rl.cov.high": 5.0}
CAPPED = {"rl.loss.logp_old": "learner", "rl.importance.cap": 2.0}
CRITIC = {"rl.critic.kind": "head", "rl.advantage.kind": "gae"}
GREEDY: dict[str, Any] = {"eval.temperature": 0.0}
NAN, INF = float("nan"), float("inf")

OFF_POLICY = (
  "rl.loss.kind: reinforce has no ratio, and of"
  " {} optimiser steps a rollout all but the first are off-policy: use ppo_clip,"
)
REFERENCE = "rl.kl.reference: is the policy with one optimiser step a rollout"

IDLE: list[tuple[dict[str, Any], str]] = [
  ({"rl.epochs": 4, "rl.minibatches": 4}, OFF_POLICY.format(16)),
  ({"rl.epochs": 2}, OFF_POLICY.format(2)),
  ({"rl.minibatches": 4}, OFF_POLICY.format(4)),
  *(({**TWICE, **more}, OFF_POLICY.format(2)) for more in (COV, CAPPED, CRITIC)),
  (K1,
   "rl.kl.estimator: k1 in the loss has a gradient of mean 0, whatever the reference: use k2, k3, reverse"),
  ({**K1, "rl.kl.target": 0.1, "rl.kl.horizon": 100}, "rl.kl.estimator: k1 in the loss"),
  ({**K1, "rl.kl.schedule": "linear"}, "rl.kl.estimator: k1 in the loss"),
  ({**K1, "rl.kl.reference": "ema", "rl.kl.ema": 0.1}, "rl.kl.estimator: k1 in the loss"),
  ({**HELD, "rl.kl.reference": "reset", "rl.kl.reset_every": 1}, REFERENCE),
  ({**HELD, "rl.kl.reference": "ema", "rl.kl.ema": 1.0}, REFERENCE),
  (
    {**HELD, "rl.kl.placement": "reward", "rl.kl.reference": "ema", "rl.kl.ema": 1.0},
    REFERENCE,
  ),
  *(
    ({**TWICE, "rl.loss.kind": "gspo", "rl.loss.clip_low": low, "rl.loss.clip_high": 0.2},
     f"rl.loss.clip_low: must be below 1, is {low}")
    for low in (1.0, 1.5)
  ),
  ({"rl.overlong.buffer": 8, "rl.overlong.penalty": 0.0}, "rl.overlong.penalty: must be positive, is 0.0"),
  ({"sft.steps": 5, "sft.optim.warmup_steps": 50}, "sft.optim.warmup_steps: must be below the stage's steps=5, is 50"),
  ({"rl.steps": 1, "rl.optim.warmup_steps": 3}, "rl.optim.warmup_steps: must be below the stage's steps=1, is 3"),
  ({"rl.steps": 3, "rl.optim.warmup_steps": 3}, "rl.optim.warmup_steps: must be below the stage's steps=3, is 3"),
  ({"sft.steps": 1, "sft.optim.schedule": "cosine"}, "sft.optim.schedule: cosine cannot act in the one step"),
  (
    {"rl.steps": 4, "rl.optim.warmup_steps": 3, "rl.optim.schedule": "linear"},
    "rl.optim.schedule: linear cannot act in the one step that warmup_steps leaves of 4",
  ),
  ({"rl.pad_multiple": 64}, "rl.pad_multiple: must be below max_tokens=64, is 64"),
  ({"rl.pad_multiple": 99}, "rl.pad_multiple: must be below max_tokens=64, is 99"),
  ({"rl.chunks": 2, "rl.overlap": False}, "rl.chunks: cannot act with overlap=False"),
  ({**GREEDY, "eval.samples": 8}, "eval.samples: must be 1 with temperature=0"),
  ({**GREEDY, "eval.samples": 1, "eval.budgets": (4, 8)},
   "eval.control_samples: must be 1 with temperature=0"),
  ({**GREEDY, "eval.samples": 1, "controls": True},
   "eval.control_samples: must be 1 with eval.temperature=0"),
  ({**GREEDY, "eval.samples": 1, "diagnostics.samples": 2},
   "diagnostics.samples: must be 1 with eval.temperature=0"),
  ({"rl.optim.eps": -1.0}, "rl.optim.eps: must be positive, is -1.0"),
  *(
    ({"rl.steps": 9, "rl.optim.schedule": "linear", "rl.optim.final_fraction": share},
     f"rl.optim.final_fraction: must lie in [0, 1], is {share}")
    for share in (5.0, -1.0)
  ),
  ({"rl.optim.lr": INF}, "rl.optim.lr: must be finite, is inf"),
  ({"rl.temperature": INF}, "rl.temperature: must be finite, is inf"),
  ({"rl.entropy": NAN}, "rl.entropy: must be finite, is nan"),
  ({"model.rope_theta": (NAN,)}, "model.rope_theta[0]: must be finite, is nan"),
  *(
    ({"name": name}, f"name: must be a folder's name, is {name!r}")
    for name in ("a\nb", "a\x1b[31m", "a\x00", "a\u2028b", "a\ud800")
  ),
  ({"out": ""}, "out: is empty: the current folder is `.`"),
]  # fmt: skip

IDLE_IN_A_SWEEP: list[tuple[dict[str, Any], str]] = [
  ({"base.checkpoint.keep": 3}, "checkpoint.keep: cannot act in a sweep"),
  ({"base.eval.problems": 32}, "eval.problems: cannot act in a sweep"),
  ({"base.eval.control_samples": 1}, "eval.control_samples: cannot act in a sweep"),
  ({"base.eval.bootstrap": 50}, "eval.bootstrap: cannot act in a sweep"),
]

# What is close to the above, and acts.
ACTS: list[dict[str, Any]] = [
  *({**TWICE, "rl.loss.kind": "sapo", **more} for more in (COV, CAPPED, CRITIC)),
  {**K1, "rl.kl.times_ratio": True},
  {**K1, "rl.kl.placement": "reward"},
  {**K1, "rl.kl.coef": 0.0},
  {**TWICE, **HELD, "rl.loss.kind": "sapo", "rl.kl.reference": "reset", "rl.kl.reset_every": 1},
  {**HELD, "rl.kl.reference": "ema", "rl.kl.ema": 0.99},
  {"sft.steps": 51, "sft.optim.warmup_steps": 49, "sft.optim.schedule": "cosine"},
  {"sft.steps": 0, "sft.optim.warmup_steps": 50, "sft.optim.schedule": "cosine"},
  {"rl.max_tokens": 8, "rl.overlong.buffer": 4},
  {"rl.chunks": 2},
  {"rl.overlap": False},
  {"name": "ünï 1"},
]  # fmt: skip

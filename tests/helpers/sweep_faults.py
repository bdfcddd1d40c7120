"""Sweeps that cannot work: what is changed in a valid one, and how it is refused."""

from typing import Any

from config_changes import not_negative
from idle_options import IDLE_IN_A_SWEEP

from o1jax.config import Arm, Check, Claim

ARMS = (Arm("weak", {"rl.entropy": 0.1}, 0.1), Arm("strong", {"rl.entropy": 0.2}, 0.2))


def checked(kind: Any, metric: str = "reward", arms: tuple[str, ...] = ()) -> dict[str, Any]:
  """A change of SWEEP that gives it one check."""
  return {"claim": Claim("text", "source", "figure", (Check(kind, metric, arms),))}


THREE, KINDS = (*ARMS, Arm("third", {}, 0.3)), (Arm("one", {}), Arm("other", {}))
SWEEP_FAULTS: list[tuple[dict[str, Any], str]] = [
  *IDLE_IN_A_SWEEP,
  ({"arms": ()}, "arms: are none"),
  ({"arms": (ARMS[0], ARMS[0])}, "arms: two have one name"),
  *(({"arms": (Arm(name, {}),)}, "arms[0].name: must be a folder's name")
    for name in ("", "..", "a/b", "a b")),
  ({"seeds": ()}, "seeds: are none"),
  ({"seeds": (1, 1)}, "seeds: hold one twice"),
  *not_negative("vmapped", "devices", "chunk"),
  (checked("greater", ""), "claim.checks[0].metric: is empty"),
  (checked("lasts", arms=("absent",)), "claim.checks[0].arms: 'absent' is no arm"),
  (checked("greater", arms=("weak", "weak")), "claim.checks[0].arms: name one twice"),
  (checked("greater", arms=("weak",)), "claim.checks[0].arms: greater takes 2, not 1"),
  ({**checked("greater"), "arms": THREE}, "claim.checks[0].arms: greater takes 2, not 3"),
  (checked("declines"), "claim.checks[0].arms: declines takes 1, not 2"),
  (checked("lasts", arms=("weak", "strong")), "claim.checks[0].arms: lasts takes 1, not 2"),
  ({**checked("rising"), "arms": KINDS}, "claim.checks[0].arms: rising takes arms of two strengths or more"),
  ({**checked("falling"), "arms": (*ARMS, KINDS[0])},
   "claim.checks[0].arms: falling takes arms of two strengths"),
  (checked("falling", arms=("weak",)), "claim.checks[0].arms: falling takes arms of two strengths"),
  ({"base.rl.samples": 1}, "rl.samples: grpo needs at least 2"),
  ({"base.rl.steps": 0}, "rl.steps: must be positive in a sweep"),
  ({"base.controls": True}, "controls: cannot act in a sweep"),
  ({"base.eval.every": (0, 1)}, "eval.every: cannot act in a sweep"),
  ({"base.eval.budgets": (8,)}, "eval.budgets: cannot act in a sweep"),
  ({"base.log.profile": (1, 2)}, "log.profile: cannot act in a sweep"),
  ({"base.log.wandb": "project"}, "log.wandb: cannot act in a sweep"),
  ({"base.mesh.data": 1}, "mesh: cannot act in a sweep"),
]  # fmt: skip

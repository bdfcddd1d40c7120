"""Options of a learned reward that stands in for the verifier's."""

import dataclasses
from typing import Literal

from o1jax.config.base import require


@dataclasses.dataclass(frozen=True)
class ProxyConfig:
  """A reward learned from the verifier's verdicts, which RL sees in place of them; accuracies stay the verifier's.

  It begins as the policy that RL begins with, and learns from that policy's completions of training problems (Cobbe et al.
  2021, section 4; Gao et al. 2022, section 2).
  """

  kind: Literal["none", "outcome"] = "none"  # outcome: P(correct), read off a whole completion
  examples: int = 1024  # completions that it learns from
  noise: float = 0.0  # share of their labels that are flipped
  steps: int = 300  # of its own optimiser
  rows: int = 32  # examples a step
  lr: float = 1e-3  # of Adam, falling to 0 along a cosine
  best_of: int = (
    64  # completions of each final held-out problem, of which best-of-n picks: n = 1, 2, 4, ..., best_of
  )

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field` is the dotted name of this group."""
    idle = self.kind == "none" and self != ProxyConfig()
    require(not idle, f"{field}.kind", "is none, so that no other field of the proxy can act")
    for name in ("examples", "steps", "rows", "lr", "best_of"):
      require(vars(self)[name] > 0, f"{field}.{name}", f"must be positive, is {vars(self)[name]}")
    require(0 <= self.noise <= 0.5, f"{field}.noise", "must lie in [0, 0.5]")
    require(self.rows <= self.examples, f"{field}.rows", f"must not exceed examples={self.examples}")

"""Options of a learned reward that stands in for the verifier's."""

import dataclasses
from typing import Literal

from o1jax.config.base import host, require


@dataclasses.dataclass(frozen=True)
class ProxyConfig:
  """A reward model, trained on the verifier's verdicts, that pays; accuracies stay the verifier's.

  It begins as the policy that RL begins with, and learns from that policy's completions of training problems
  (Cobbe et al. 2021, section 4; Gao et al. 2022, section 2).
  """

  kind: Literal["none", "outcome"] = "none"  # outcome: P(correct), read off a whole completion
  examples: int = host(1024)  # completions that it learns from
  noise: float = host(0.0)  # share of their labels that are flipped
  steps: int = host(300)  # of its own optimiser
  rows: int = host(32)  # examples a step
  lr: float = host(1e-3)  # of Adam, falling to 0 along a cosine
  # Completions of each final held-out problem, of which best-of-n picks: n = 1, 2, 4, ..., best_of.
  best_of: int = host(64)

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field`: this group's dotted name."""
    idle = self.kind == "none" and self != ProxyConfig()
    require(not idle, f"{field}.kind", "is none, so that no other field of the proxy can act")
    for name in ("examples", "steps", "rows", "lr", "best_of"):
      require(vars(self)[name] > 0, f"{field}.{name}", f"must be positive, is {vars(self)[name]}")
    require(0 <= self.noise <= 0.5, f"{field}.noise", "must lie in [0, 0.5]")
    require(self.rows <= self.examples, f"{field}.rows", f"must not exceed examples={self.examples}")

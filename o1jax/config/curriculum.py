"""Which of the training problems an RL step takes."""

import dataclasses
from typing import Literal

from o1jax.config.base import require


@dataclasses.dataclass(frozen=True)
class CurriculumConfig:
  """A curriculum by pass rate, and filters of what is always or never solved."""

  # "pass_rate": a problem met before comes with probability max(floor, 4 p (1 - p)), p its running pass rate.
  kind: Literal["none", "pass_rate"] = "none"
  # pass_rate: the least probability, in [0.01, 1], so that a step finds its problems soon.
  floor: float | None = None
  rate: float | None = None  # pass_rate: weight of the newest group in the running pass rate, in [0.01, 1]
  drop_solved: int = 0  # groups in a row, all correct, after which a problem comes no more; 0: never
  drop_unsolved: int = 0  # groups in a row, none correct, after which a problem comes no more; 0: never

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field`: this group's dotted name."""
    for name, least in (("floor", 0.01), ("rate", 0.01)):
      value = vars(self)[name]
      acts = (value is not None) == (self.kind == "pass_rate")
      require(acts, f"{field}.{name}", "goes with kind=pass_rate, and is needed there")
      within = value is None or least <= value <= 1
      require(within, f"{field}.{name}", f"must lie in [{least}, 1], is {value}")
    for name in ("drop_solved", "drop_unsolved"):
      require(vars(self)[name] >= 0, f"{field}.{name}", "must not be negative; 0 is never")

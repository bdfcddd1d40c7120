"""Options of countdown, and which tasks there are; those of free text stand in `text_tasks`."""

import dataclasses

from o1jax.config.base import require
from o1jax.config.text_tasks import (
  ArithmeticConfig,
  BugfixConfig,
  Gsm8kConfig,
  HumanevalConfig,
  IfevalConfig,
  JudgedConfig,
  MathConfig,
  MbppConfig,
  ReasoningGymConfig,
)


@dataclasses.dataclass(frozen=True)
class CountdownConfig:
  """Reach the target with every number once, by + - *; intermediate results stay within [0, max_value]."""

  # Numbers in a problem, 2..4. All problems are listed at the start: 4 numbers from 1..15 make 115,955 in 2 s and
  # 100 MB. More cannot be: a demonstration looks at every chain, of which 5 numbers have up to 233,280.
  count: int = 3
  max_number: int = 15  # numbers are drawn from 1..max_number
  max_value: int = 99  # largest target and intermediate result; the vocabulary has a token for each up to it
  held_out: int = 1024  # problems kept from training, disjoint by canonical form (sorted numbers and target)
  # Largest target trained on and held out. Problems with larger ones, up to max_value, are out of distribution: as many
  # as are held out are tested, if there are. None: no such problems.
  max_target: int | None = None
  wide_cold_start: bool = (
    False  # the cold start also imitates problems with larger targets, those tested left out
  )
  more_numbers: int = (
    0  # problems with one number more than `count`, out of distribution; targets as in training
  )
  max_tries: int = 10  # tries in a cold-start trace at most
  hint_rate: float = 0.15  # probability that a cold-start try is a solution
  give_up_rate: float = 0.35  # probability of giving up after each failed try of a cold-start trace
  split_seed: int = 0  # which problems are held out

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field` is the dotted name of this group."""
    require(2 <= self.count <= 4, f"{field}.count", f"must lie in 2..4, is {self.count}")
    require(self.max_number >= 1, f"{field}.max_number", "must be positive")
    require(self.max_value >= self.max_number, f"{field}.max_value", "must be at least max_number")
    require(0.0 <= self.give_up_rate < 1.0, f"{field}.give_up_rate", "must lie in [0, 1)")
    require(0.0 < self.hint_rate <= 1.0, f"{field}.hint_rate", "must lie in (0, 1]")
    require(self.max_tries >= 1, f"{field}.max_tries", "must be positive")
    require(self.held_out >= 1, f"{field}.held_out", "must be positive")
    within = self.max_target is None or 1 <= self.max_target < self.max_value
    told = f"must be positive and below max_value={self.max_value}, is {self.max_target}"
    require(within, f"{field}.max_target", told)
    acts = self.max_target is not None or not self.wide_cold_start
    require(acts, f"{field}.wide_cold_start", "cannot act without max_target")
    require(self.more_numbers >= 0, f"{field}.more_numbers", "must not be negative")
    require(self.split_seed >= 0, f"{field}.split_seed", "must not be negative")


SourceConfig = (  # what a mixture can have as a part
  CountdownConfig
  | Gsm8kConfig
  | MathConfig
  | MbppConfig
  | HumanevalConfig
  | BugfixConfig
  | IfevalConfig
  | JudgedConfig
  | ArithmeticConfig
  | ReasoningGymConfig
)

"""Options of the tasks."""

import dataclasses

from o1jax.config.base import require


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


@dataclasses.dataclass(frozen=True)
class TextConfig:
  """How a task of free text becomes tokens."""

  tokenizer: str | None = None  # a SentencePiece model file; None: trained on what is learned from alone
  vocab: int = 1024  # of a trained tokenizer

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field` is the dotted name of this group."""
    require(self.vocab >= 300, f"{field}.vocab", "must be at least 300: 256 bytes and some pieces")


@dataclasses.dataclass(frozen=True)
class Gsm8kConfig:
  """Grade-school maths (Cobbe et al. 2021), from the published JSONL files."""

  # A folder or URL that holds train.jsonl and test.jsonl, or one .jsonl file.
  path: str = "https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math/data"
  sha256: tuple[str, str] | None = (
    "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
    "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
  )  # of train.jsonl and test.jsonl, checked on a download; None: unchecked
  data_dir: str = "data"  # where the prepared array_record files go
  held_out: int = 256  # rows held out of a single file; with two files, the first of test.jsonl
  text: TextConfig = TextConfig()

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field` is the dotted name of this group."""
    require(self.held_out >= 1, f"{field}.held_out", "must be positive")
    self.text.validate(f"{field}.text")


SourceConfig = CountdownConfig | Gsm8kConfig  # what a mixture can have as a part

"""Options of tasks: their problems, how these are split, what grades responses, and how text becomes tokens.

Where a task has them, `path` is a file, a folder or a URL, and `sha256` what a download must be.
"""

import dataclasses
import json
import re
from typing import Literal

from o1jax.config.base import require
from o1jax.config.judge import JudgeConfig
from o1jax.config.text import TextConfig

_GOOGLE = "https://raw.githubusercontent.com/google-research/google-research/master"
MAX_DIGITS = 100  # of an operand: its products stay far below the 400 characters of an answer
# Seeds of reasoning-gym lie below 2 ** 32; these bounds keep those of all splits apart
# (`tasks.reasoning_gym`).
MAX_GYM_SEED, MAX_GYM_SIZE = 1000, 100_000
# Of a mixture's part: its problems come in proportion within as many positions as make two of them.
LEAST_SHARE = 1e-4


@dataclasses.dataclass(frozen=True)
class CountdownConfig:
  """Reach the target with every number once, by + - *; intermediate results stay within [0, max_value]."""

  # Numbers in a problem, 2..4. All problems are listed at the start: 4 numbers from 1..15 make 115,955 in 2 s
  # and 100 MB. More cannot be: a demonstration looks at every chain, of which 5 numbers have up to 233,280.
  count: int = 3
  max_number: int = 15  # numbers are drawn from 1..max_number
  max_value: int = 99  # largest target and intermediate result; the vocabulary has a token for each up to it
  held_out: int = 1024  # problems kept from training, disjoint by canonical form (sorted numbers and target)
  # Largest target trained on and held out. Problems with larger ones, up to max_value, are out of
  # distribution: as many as are held out are tested, if there are. None: no such problems.
  max_target: int | None = None
  # the cold start also imitates problems with larger targets, those tested left out
  wide_cold_start: bool = False
  # problems with one number more than `count`, out of distribution; targets as in training
  more_numbers: int = 0
  max_tries: int = 10  # tries in a cold-start trace at most
  hint_rate: float = 0.15  # probability that a cold-start try is a solution
  give_up_rate: float = 0.35  # probability of giving up after each failed try of a cold-start trace
  split_seed: int = 0  # which problems are held out

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work, below the dotted name `field`."""
    require(2 <= self.count <= 4, f"{field}.count", f"must lie in 2..4, is {self.count}")
    require(self.max_number >= 1, f"{field}.max_number", "must be positive")
    require(self.max_value >= self.max_number, f"{field}.max_value", "must be at least max_number")
    require(0.0 <= self.give_up_rate < 1.0, f"{field}.give_up_rate", "must lie in [0, 1)")
    require(0.0 < self.hint_rate <= 1.0, f"{field}.hint_rate", "must lie in (0, 1]")
    require(self.max_tries >= 1, f"{field}.max_tries", "must be positive")
    require(self.held_out >= 1, f"{field}.held_out", "must be positive")
    within = self.max_target is None or 1 <= self.max_target < self.max_value
    problem = f"must be positive and below max_value={self.max_value}, is {self.max_target}"
    require(within, f"{field}.max_target", problem)
    acts = self.max_target is not None or not self.wide_cold_start
    require(acts, f"{field}.wide_cold_start", "cannot act without max_target")
    require(self.more_numbers >= 0, f"{field}.more_numbers", "must not be negative")
    require(self.split_seed >= 0, f"{field}.split_seed", "must not be negative")


# What tasks of free text share


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTaskConfig:
  """What every task of free text has."""

  data_dir: str = "data"  # where prepared array_record files and trained tokenizers go
  text: TextConfig = TextConfig()

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work, below the dotted name `field`."""
    self.text.validate(f"{field}.text")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparedTaskConfig(TextTaskConfig):
  """What every task has whose problems are kept apart from evaluation sets, its own and others."""

  # More of them, as FILE_OR_URL#FIELD: a training problem that shares words with a text there is left out.
  decontaminate: tuple[str, ...] = ()

  def validate(self, field: str) -> None:
    for name in self.decontaminate:
      complete = all(name.rpartition("#"))
      require(complete, f"{field}.decontaminate", f"wants FILE_OR_URL#FIELD, has {name!r}")
    once = len(set(self.decontaminate)) == len(self.decontaminate)
    require(once, f"{field}.decontaminate", "names an evaluation set twice")
    super().validate(field)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifiedTaskConfig(ComparedTaskConfig):
  """What every task has whose rows come with a reference that its own verifier must accept."""

  # rows of which it need not: they are left out and named in the log; one more is an error
  unverified: int = 0

  def validate(self, field: str) -> None:
    require(self.unverified >= 0, f"{field}.unverified", "must not be negative")
    super().validate(field)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyConfig:
  """What every task has whose verifier reads a completion by policy."""

  # strict: what stands in doubt is not paid; standard: as the field's common graders read it.
  # `o1jax verify --help` has the table.
  policy: Literal["strict", "standard"] = "strict"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgramConfig(PolicyConfig):
  """What every task has whose answers are programs."""

  block: Literal["last", "first"] = "last"  # which block of code in a completion is its program


# Data sets of JSONL rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowsConfig(ComparedTaskConfig):
  """What every task has whose problems are rows of JSONL files."""

  path: str = dataclasses.field(kw_only=False)  # a JSONL file or its URL
  sha256: str | tuple[str, str] | None = None
  held_out: int | None = 256

  def validate(self, field: str) -> None:
    require(self.held_out is None or self.held_out >= 1, f"{field}.held_out", "must be positive")
    published = type(self).__dataclass_fields__["sha256"].default
    acts = self.sha256 in (None, published) or "://" in self.path
    require(acts, f"{field}.sha256", f"is of a download, and {self.path} is a local file: set it to None")
    super().validate(field)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitRowsConfig(RowsConfig):
  """What every task has of whose rows any may be held out."""

  sha256: str | None = None  # checked on a download; None: unchecked
  held_out: int | None = 256  # problems held out; the others are trained on. None: all are held out
  split_seed: int = 0  # which problems are held out, where not all are

  def validate(self, field: str) -> None:
    positive = self.held_out is None or self.held_out >= 1
    require(positive, f"{field}.held_out", "must be positive, or None for all")
    require(self.split_seed >= 0, f"{field}.split_seed", "must not be negative")
    splits = self.held_out is not None or self.split_seed == 0
    require(splits, f"{field}.split_seed", "cannot act with held_out=None, which holds all out")
    super().validate(field)


@dataclasses.dataclass(frozen=True, kw_only=True)
class JsonlTaskConfig(SplitRowsConfig, PolicyConfig, VerifiedTaskConfig):
  """Any data set of `tasks/catalog.py`, by its name; those below have their published files as defaults."""

  dataset: str  # its name


@dataclasses.dataclass(frozen=True)
class Gsm8kConfig(RowsConfig, PolicyConfig, VerifiedTaskConfig):
  """Grade-school maths (Cobbe et al. 2021), from the published JSONL files."""

  # A folder or URL that holds train.jsonl and test.jsonl, or one .jsonl file.
  path: str = "https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math/data"
  sha256: tuple[str, str] | None = (
    "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
    "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
  )  # of train.jsonl and test.jsonl, checked on a download; None: unchecked
  held_out: int = 256  # rows held out of a single file; with two files, the first of test.jsonl


@dataclasses.dataclass(frozen=True)
class MathConfig(RowsConfig, PolicyConfig, VerifiedTaskConfig):
  """Competition maths with worked solutions (Hendrycks et al. 2021).

  JSONL with `problem`, `solution`, perhaps `answer`.
  """

  # A folder or URL that holds train.jsonl and test.jsonl, or one .jsonl file. The published files are those
  # of Lightman et al. 2023: 12,000 problems to train on, 500 to test on.
  path: str = "https://media.githubusercontent.com/media/openai/prm800k/main/prm800k/math_splits"
  sha256: tuple[str, str] | None = (
    "90d96daeac3fe343ebb1e22ce93dd99690f75983e957f88de42f87cffe1e8076",
    "35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132",
  )  # of train.jsonl and test.jsonl, checked on a download; None: unchecked
  held_out: int = 256  # rows held out of a single file; with two files, the first of test.jsonl
  unverified: int = dataclasses.field(default=625, kw_only=True)  # one in twenty


@dataclasses.dataclass(frozen=True)
class MbppConfig(RowsConfig, ProgramConfig, VerifiedTaskConfig):
  """Small Python functions with their tests (Austin et al. 2021), in the published split by `task_id`."""

  path: str = f"{_GOOGLE}/mbpp/mbpp.jsonl"  # a JSONL file or its URL
  # checked on a download; None: unchecked
  sha256: str | None = "ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f"
  held_out: int = 256  # the first of the test split
  # Three published rows' tests need objects, which the sandbox refuses; another Python may differ in others.
  unverified: int = dataclasses.field(default=20, kw_only=True)


@dataclasses.dataclass(frozen=True)
class BugfixConfig(MbppConfig):
  """Programs to repair: references of MBPP-style rows with a bug put in, and the tests that it fails."""

  bugs: int = 2  # buggy programs made of one row at most
  held_out: int = 256  # problems held out, made of the first rows of the test split
  split_seed: int = 0  # which bugs are tried

  def validate(self, field: str) -> None:
    require(self.bugs >= 1, f"{field}.bugs", "must be positive")
    require(self.split_seed >= 0, f"{field}.split_seed", "must not be negative")
    super().validate(field)


@dataclasses.dataclass(frozen=True)
class HumanevalConfig(SplitRowsConfig, ProgramConfig, VerifiedTaskConfig):
  """Python functions to complete, with tests (Chen et al. 2021): an evaluation set, all of it held out."""

  # a JSONL file or URL
  path: str = "https://raw.githubusercontent.com/openai/human-eval/master/data/HumanEval.jsonl.gz"
  # checked on a download; None: unchecked
  sha256: str | None = "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"
  held_out: int | None = None  # problems held out; the others are trained on. None: all are held out


@dataclasses.dataclass(frozen=True)
class IfevalConfig(SplitRowsConfig, PolicyConfig):
  """Prompts with constraints that a program can check (Zhou et al. 2023): an evaluation set, all held out."""

  path: str = f"{_GOOGLE}/instruction_following_eval/data/input_data.jsonl"  # a JSONL file or its URL
  # checked on a download
  sha256: str | None = "0ca6d445a430b5dfe2a9657492fa058ff83fce61c7ed1a3b5f74c3a746d2160b"
  held_out: int | None = None  # problems held out; the others are trained on. None: all are held out


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgedConfig(SplitRowsConfig):
  """Prompts of a domain that no rule decides, graded by a judge behind an HTTP endpoint.

  JSONL with `prompt`, perhaps `answer` (the reference that a judge with `sees="reference"` is shown) and
  `response` (what a cold start imitates).
  """

  judge: JudgeConfig = dataclasses.field(kw_only=False)
  name: str = "judged"  # of the task; two of them in a mixture need two

  def validate(self, field: str) -> None:
    named = re.fullmatch(r"[a-z][a-z0-9_]*", self.name) is not None
    require(named, f"{field}.name", f"must be letters, digits and _ in lower case, is {self.name!r}")
    self.judge.validate(f"{field}.judge")
    super().validate(field)


# Generated problems


@dataclasses.dataclass(frozen=True)
class ArithmeticConfig(PolicyConfig, TextTaskConfig):
  """Exact integer arithmetic with two operands."""

  digits: int = 2  # operands lie in 0 .. 10 ** digits - 1
  operations: tuple[str, ...] = ("+", "-", "*")
  size: int = 4096  # problems to train on, as many of each operation
  held_out: int = 256  # problems kept from training; `a + b` and `b + a` are one problem
  more_digits: int = 0  # problems of which an operand has one digit more, out of distribution
  split_seed: int = 0  # which problems there are, and which of them are held out

  def validate(self, field: str) -> None:
    """Raises ConfigError as its base's does."""
    within = 1 <= self.digits <= MAX_DIGITS
    require(within, f"{field}.digits", f"must lie in 1..{MAX_DIGITS}, is {self.digits}")
    known = 0 < len(self.operations) == len(set(self.operations)) and set(self.operations) <= set("+-*")
    require(known, f"{field}.operations", f"must be distinct ones of + - *, are {' '.join(self.operations)}")
    for name in ("size", "held_out"):
      enough = vars(self)[name] >= len(self.operations)
      require(enough, f"{field}.{name}", f"must be at least one of each of {len(self.operations)} operations")
    require(self.more_digits >= 0, f"{field}.more_digits", "must not be negative")
    require(self.split_seed >= 0, f"{field}.split_seed", "must not be negative")
    super().validate(field)


@dataclasses.dataclass(frozen=True)
class ConstrainedWritingConfig(PolicyConfig, TextTaskConfig):
  """Sentences about a topic under one constraint each, which IFEval's instructions grade."""

  held_out: int = 16  # topics kept from training
  topic: bool = False  # whether the verifier also asks that the answer names its topic
  must_end: bool = True  # an answer that is cut off at its budget is wrong
  split_seed: int = 0  # which topics are held out

  def validate(self, field: str) -> None:
    """Raises ConfigError as its base's does."""
    require(self.held_out >= 1, f"{field}.held_out", "must be positive")
    require(self.split_seed >= 0, f"{field}.split_seed", "must not be negative")
    super().validate(field)


@dataclasses.dataclass(frozen=True)
class ReasoningGymConfig(PolicyConfig, VerifiedTaskConfig):
  """Problems of one of reasoning-gym's generators, scored by it (Stojanovski et al. 2025)."""

  dataset: str = "leg_counting"  # its name in reasoning-gym
  options: tuple[tuple[str, str], ...] = ()  # the generator's own: (name, value as JSON text)
  size: int = 1024  # problems to train on
  held_out: int = 128  # problems kept from training, from other seeds
  split_seed: int = 0  # which problems there are
  # Some datasets have entries that their own scorer does not read.
  unverified: int = dataclasses.field(default=128, kw_only=True)

  def validate(self, field: str) -> None:
    """Raises ConfigError as its base's does."""
    require(bool(self.dataset), f"{field}.dataset", "must not be empty")
    names = [name for name, _ in self.options]
    for name, value in self.options:
      free = name not in ("seed", "size") and names.count(name) == 1
      require(free, f"{field}.options", f"{name!r} is given twice, or set by size and split_seed")
      require(_is_json(value), f"{field}.options", f"{name!r} is {value!r}, which is not JSON")
    for name in ("size", "held_out"):
      within = 1 <= vars(self)[name] <= MAX_GYM_SIZE
      require(within, f"{field}.{name}", f"must lie in 1..{MAX_GYM_SIZE:,}, is {vars(self)[name]}")
    within = 0 <= self.split_seed <= MAX_GYM_SEED
    require(within, f"{field}.split_seed", f"must lie in 0..{MAX_GYM_SEED}, is {self.split_seed}")
    super().validate(field)


def _is_json(text: str) -> bool:
  try:
    json.loads(text)
  except (ValueError, RecursionError):
    return False
  return True


# Mixtures

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
  | ConstrainedWritingConfig
  | ReasoningGymConfig
  | JsonlTaskConfig
)


@dataclasses.dataclass(frozen=True)
class Part:
  """One task of a mixture."""

  task: SourceConfig  # without a `text` of its own: the mixture's serves all parts
  weight: float = 1.0  # how often its problems come, against the others' weights


@dataclasses.dataclass(frozen=True)
class MixtureConfig(TextTaskConfig):
  """Problems of many tasks, in proportion to their weights; `text` serves all of them."""

  parts: tuple[Part, ...]

  def validate(self, field: str) -> None:
    """Raises ConfigError as its base's does."""
    require(len(self.parts) > 1, f"{field}.parts", "must be two or more")
    total = sum(part.weight for part in self.parts)
    for i, part in enumerate(self.parts):
      require(part.weight > 0, f"{field}.parts[{i}].weight", f"must be positive, is {part.weight}")
      rare = f"must be at least {LEAST_SHARE} of all weights together, is {part.weight} of {total}"
      require(part.weight / total >= LEAST_SHARE, f"{field}.parts[{i}].weight", rare)
      part.task.validate(f"{field}.parts[{i}].task")
      plain = vars(part.task).get("text", TextConfig()) == TextConfig()
      own = f"cannot act in a mixture: {field}.text serves all parts"
      require(plain, f"{field}.parts[{i}].task.text", own)
    super().validate(field)


TaskConfig = SourceConfig | MixtureConfig

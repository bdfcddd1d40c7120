"""Options of the tasks whose prompts and responses are free text.

Where a task has them, `path` is a file, a folder or a URL, and `sha256` what a download must be, None: unchecked.
"""

import dataclasses
import json
import re
from typing import Any, Literal

from o1jax.config.base import require
from o1jax.config.judge import JudgeConfig

_GOOGLE = "https://raw.githubusercontent.com/google-research/google-research/master"
_MBPP = f"{_GOOGLE}/mbpp/mbpp.jsonl"
_MBPP_SHA256 = "ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f"
MAX_DIGITS = 100  # of an operand: its products stay far below the 400 characters of an answer
# Seeds of reasoning-gym lie below 2 ** 32; these bounds keep those of all splits apart (`tasks.reasoning_gym`).
MAX_GYM_SEED, MAX_GYM_SIZE = 1000, 100_000


@dataclasses.dataclass(frozen=True)
class TextConfig:
  """How a task of free text becomes tokens."""

  tokenizer: str | None = None  # a SentencePiece model file; None: trained on what is learned from alone
  vocab: int = 1024  # of a trained tokenizer
  # How a problem is put to the model: the name of a shipped template (none, lines, plain, qwen3, llama3, gemma, ...), or of one
  # of a file of your own, as FILE.toml:NAME. What stands in `tasks/templates.toml` says which there are.
  template: str = "none"
  instruction: str = (
    "none"  # what the prompt says before the problem: likewise a shipped one's name, or FILE.toml:NAME
  )

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field` is the dotted name of this group."""
    require(self.vocab >= 300, f"{field}.vocab", "must be at least 300: 256 bytes and some pieces")
    trained = self.tokenizer is None or self.vocab == TextConfig.vocab
    require(
      trained,
      f"{field}.vocab",
      f"cannot act with tokenizer={self.tokenizer}, which has a vocabulary of its own",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTaskConfig:
  """What every task of free text has."""

  data_dir: str = "data"  # where prepared array_record files and trained tokenizers go
  text: TextConfig = TextConfig()

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field` is the dotted name of this group."""
    self.text.validate(f"{field}.text")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparedTaskConfig(TextTaskConfig):
  """What every task has whose problems are kept apart from evaluation sets, its own held-out problems among them."""

  # More of them, as FILE_OR_URL#FIELD: a training problem that shares a run of words with a text of that field is left out.
  decontaminate: tuple[str, ...] = ()

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field` is the dotted name of this group."""
    for name in self.decontaminate:
      location, mark, column = name.rpartition("#")
      whole = bool(mark and location and column)
      require(whole, f"{field}.decontaminate", f"wants FILE_OR_URL#FIELD, has {name!r}")
    once = len(set(self.decontaminate)) == len(self.decontaminate)
    require(once, f"{field}.decontaminate", "names an evaluation set twice")
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifiedTaskConfig(ComparedTaskConfig):
  """What every task has whose rows come with a reference that its own verifier must accept."""

  unverified: int = (
    0  # rows of which it need not: they are left out and named in the log; one more is an error
  )

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field` is the dotted name of this group."""
    require(self.unverified >= 0, f"{field}.unverified", "must not be negative")
    super().validate(field)


@dataclasses.dataclass(frozen=True)
class Gsm8kConfig(PolicyConfig, VerifiedTaskConfig):
  """Grade-school maths (Cobbe et al. 2021), from the published JSONL files."""

  # A folder or URL that holds train.jsonl and test.jsonl, or one .jsonl file.
  path: str = "https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math/data"
  sha256: tuple[str, str] | None = (
    "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
    "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
  )  # of train.jsonl and test.jsonl, checked on a download; None: unchecked
  held_out: int = 256  # rows held out of a single file; with two files, the first of test.jsonl

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field` is the dotted name of this group."""
    require(self.held_out >= 1, f"{field}.held_out", "must be positive")
    _validate_hash(self, field)
    super().validate(field)


@dataclasses.dataclass(frozen=True)
class MathConfig(PolicyConfig, VerifiedTaskConfig):
  """Competition maths with worked solutions (Hendrycks et al. 2021), as JSONL: `problem`, `solution`, perhaps `answer`."""

  # A folder or URL that holds train.jsonl and test.jsonl, or one .jsonl file. The published files are those of Lightman
  # et al. 2023: 12,000 problems to train on, 500 to test on.
  path: str = "https://media.githubusercontent.com/media/openai/prm800k/main/prm800k/math_splits"
  sha256: tuple[str, str] | None = (
    "90d96daeac3fe343ebb1e22ce93dd99690f75983e957f88de42f87cffe1e8076",
    "35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132",
  )  # of train.jsonl and test.jsonl, checked on a download; None: unchecked
  held_out: int = 256  # rows held out of a single file; with two files, the first of test.jsonl
  unverified: int = dataclasses.field(default=625, kw_only=True)  # one in twenty

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field` is the dotted name of this group."""
    require(self.held_out >= 1, f"{field}.held_out", "must be positive")
    _validate_hash(self, field)
    super().validate(field)


@dataclasses.dataclass(frozen=True)
class MbppConfig(ProgramConfig, VerifiedTaskConfig):
  """Small Python functions with their tests (Austin et al. 2021), in the published split by `task_id`."""

  path: str = _MBPP  # a JSONL file or its URL
  sha256: str | None = _MBPP_SHA256  # checked on a download; None: unchecked
  held_out: int = 256  # the first of the test split
  # The tests of three published rows need objects, which the sandbox refuses; another Python may differ in others.
  unverified: int = dataclasses.field(default=20, kw_only=True)

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field` is the dotted name of this group."""
    require(self.held_out >= 1, f"{field}.held_out", "must be positive")
    _validate_hash(self, field)
    super().validate(field)


@dataclasses.dataclass(frozen=True)
class HumanevalConfig(ProgramConfig, VerifiedTaskConfig):
  """Python functions to complete, with their tests (Chen et al. 2021): an evaluation set, all of it held out."""

  path: str = "https://raw.githubusercontent.com/openai/human-eval/master/data/HumanEval.jsonl.gz"  # a JSONL file or URL
  sha256: str | None = (
    "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"  # checked on a download; None: unchecked
  )
  held_out: int | None = None  # problems held out; the others are trained on. None: all are held out
  split_seed: int = 0  # which problems are held out, where not all are

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field` is the dotted name of this group."""
    _validate_evaluation_set(self, field)
    super().validate(field)


@dataclasses.dataclass(frozen=True)
class BugfixConfig(ProgramConfig, VerifiedTaskConfig):
  """Programs to repair: references of MBPP-style rows with a bug put in, and the tests that it fails."""

  path: str = _MBPP  # a JSONL file of rows like MBPP's, or its URL
  sha256: str | None = _MBPP_SHA256  # checked on a download; None: unchecked
  bugs: int = 2  # buggy programs made of one row at most
  held_out: int = 256  # problems held out, made of the first rows of the test split
  split_seed: int = 0  # which bugs are tried
  # The tests of three published rows need objects, which the sandbox refuses; another Python may differ in others.
  unverified: int = dataclasses.field(default=20, kw_only=True)

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field` is the dotted name of this group."""
    require(self.bugs >= 1, f"{field}.bugs", "must be positive")
    require(self.held_out >= 1, f"{field}.held_out", "must be positive")
    require(self.split_seed >= 0, f"{field}.split_seed", "must not be negative")
    _validate_hash(self, field)
    super().validate(field)


@dataclasses.dataclass(frozen=True)
class IfevalConfig(PolicyConfig, ComparedTaskConfig):
  """Prompts with constraints that a program can check (Zhou et al. 2023): an evaluation set, all of it held out."""

  path: str = f"{_GOOGLE}/instruction_following_eval/data/input_data.jsonl"  # a JSONL file or its URL
  sha256: str | None = (
    "0ca6d445a430b5dfe2a9657492fa058ff83fce61c7ed1a3b5f74c3a746d2160b"  # checked on a download
  )
  held_out: int | None = None  # problems held out; the others are trained on. None: all are held out
  split_seed: int = 0  # which problems are held out, where not all are

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field` is the dotted name of this group."""
    _validate_evaluation_set(self, field)
    super().validate(field)


@dataclasses.dataclass(frozen=True)
class JudgedConfig(ComparedTaskConfig):
  """Prompts of a domain that no rule decides, graded by a judge behind an HTTP endpoint: JSONL with `prompt`, perhaps `answer`
  (the reference that a judge with `sees="reference"` is shown) and `response` (what a cold start imitates)."""

  path: str  # a JSONL file or its URL
  judge: JudgeConfig
  name: str = "judged"  # of the task; two of them in a mixture need two
  sha256: str | None = None  # checked on a download; None: unchecked
  held_out: int | None = 256  # problems held out; the others are trained on. None: all are held out
  split_seed: int = 0  # which problems are held out, where not all are

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field` is the dotted name of this group."""
    named = re.fullmatch(r"[a-z][a-z0-9_]*", self.name) is not None
    require(named, f"{field}.name", f"must be letters, digits and _ in lower case, is {self.name!r}")
    self.judge.validate(f"{field}.judge")
    _validate_evaluation_set(self, field)
    super().validate(field)


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
    """Raises ConfigError naming the first field that cannot work; `field` is the dotted name of this group."""
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
    """Raises ConfigError naming the first field that cannot work; `field` is the dotted name of this group."""
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


def _validate_hash(cfg: Any, field: str) -> None:
  """What a `sha256` of one's own needs: a download, which alone is looked at."""
  published = type(cfg).__dataclass_fields__["sha256"].default
  acts = cfg.sha256 in (None, published) or "://" in cfg.path
  require(acts, f"{field}.sha256", f"is of a download, and {cfg.path} is a local file: set it to None")


def _validate_evaluation_set(cfg: HumanevalConfig | IfevalConfig | JudgedConfig, field: str) -> None:
  """What holds for every task of one file of which all, or some by a seed, is held out."""
  require(cfg.held_out is None or cfg.held_out >= 1, f"{field}.held_out", "must be positive, or None for all")
  require(cfg.split_seed >= 0, f"{field}.split_seed", "must not be negative")
  splits = cfg.held_out is not None or cfg.split_seed == 0
  require(splits, f"{field}.split_seed", "cannot act with held_out=None, which holds all out")
  _validate_hash(cfg, field)

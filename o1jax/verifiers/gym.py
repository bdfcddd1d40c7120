"""reasoning-gym's own scorers, by the name of the dataset (Stojanovski et al. 2025, Reasoning Gym).

    completion -> text in its last <answer>...</answer>, else all of it -> the dataset's score_answer -> reward

The reward is the score, in [0, 1]; an answer is correct where it is 1. Some scorers pay a little for a bad answer, and
some for a long text that holds the right one: that is the library's choice.

Where that choice would hand the reward to a trick, it is not followed:
  - scorers hand the answer to `eval`, or to sympy's parser, which evaluates Python. A completion is not to run as code:
    `eval` reads literals alone here, and where sympy would read the answer, only a formula gets that far;
    That formula may not state the integral it was asked for, which the scorer would differentiate back;
  - complex_arithmetic gives `nan` full marks: only finite numbers are read;
  - game_of_life_halting gives every answer full marks, and coin_flip every leading part of the right one: both are
    graded here, as text and as a number.
An answer that its scorer cannot read is unparsable.

Left out: datasets made with other settings than the default ones, where the scorer looks at those (puzzle24's range
of numbers), and `composite`, whose entries carry the name of their own dataset.
"""

import ast
import functools
import importlib
import math
import re
import warnings
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from o1jax.verifiers.base import Problem, Verdict, Verify
from o1jax.verifiers.completion import Policy, check_policy

with warnings.catch_warnings():
  warnings.simplefilter("ignore", SyntaxWarning)  # in a library of the library
  import reasoning_gym
  from reasoning_gym.factory import DATASETS

Score = Callable[[str, dict[str, Any]], float]

MAX_FORMULA = 4_000  # characters

_THOUGHTS = "</think>"
_OPEN, _CLOSE = "<answer>", "</answer>"

_WORDS = (
  "sqrt|exp|log|ln|sin|cos|tan|cot|sec|csc|asin|acos|atan|sinh|cosh|tanh|asinh|acosh|atanh|erf|Abs|pi|oo"
)
_FORMULA = re.compile(rf"(?:(?:{_WORDS}|[A-Za-z])(?![A-Za-z0-9_])|\d+\.?\d*|\.\d+|[-+*/^(),!\s])*")
_COMPLEX = re.compile(r"[-+.\d\seEiIjJ()]*")
_INTEGERS = re.compile(r"(?:0[xX][0-9a-fA-F]+|\d+|<<|>>|[-+*()&|^~\s])*")

# What an answer may be made of, where the scorer reads more than it should.
_SHAPES: dict[str, re.Pattern[str]] = {
  "complex_arithmetic": _COMPLEX,
  "countdown": _FORMULA,
  "intermediate_integration": _FORMULA,
  "polynomial_multiplication": _FORMULA,
  "puzzle24": _FORMULA,
  "simple_integration": _FORMULA,
}
# What sympy reads of an entry as it reads the answer.
_READ_TOO: dict[str, Callable[[dict[str, Any]], Any]] = {
  "intermediate_integration": lambda entry: entry["metadata"].get("integrand"),
  "polynomial_multiplication": lambda entry: entry["answer"],
  "simple_integration": lambda entry: entry["metadata"].get("integrand"),
}
_OUTPUT = "output"  # of the metadata: a board as tuples, which JSON makes lists
_BOARDS = ("arc_agi", "rearc")
_COIN_TOLERANCE = 1e-3  # of the probability itself


def _integers(text: str) -> int:
  """The value of a formula of integers. Raises ValueError where it is none."""
  if not _INTEGERS.fullmatch(text):
    raise ValueError(f"{text[:80]!r} is no formula of integers")
  return eval(text, {"__builtins__": {}})


# What `eval` means in the modules whose scorers call it.
_EVALS: dict[str, Callable[[str], Any]] = {
  "algorithmic.binary_matrix": ast.literal_eval,
  "algorithmic.number_sorting": ast.literal_eval,
  "algorithmic.spiral_matrix": ast.literal_eval,
  "algorithmic.string_insertion": ast.literal_eval,
  "arithmetic.bitwise_arithmetic": _integers,
  "games.n_queens": ast.literal_eval,
}
for _module, _eval in _EVALS.items():
  vars(importlib.import_module(f"reasoning_gym.{_module}"))["eval"] = _eval


def extract(text: str) -> str | None:
  """The answer that a completion states, None where that is empty.

  What stands in the last pair of tags behind the thoughts; where there is none, all that stands behind them.
  """
  text = text.rpartition(_THOUGHTS)[2]
  end = text.rfind(_CLOSE)
  start = text.rfind(_OPEN, 0, max(end, 0))
  return (text[start + len(_OPEN) : end] if start >= 0 else text).strip() or None


def is_formula(text: str) -> bool:
  """Whether a text is made of numbers, single letters, known functions and operators alone."""
  return len(text) <= MAX_FORMULA and _FORMULA.fullmatch(text) is not None


def verify(problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
  """Scores completions[i] by `problem.meta`: `dataset`, the name, and `entry`, one of that dataset's.

  Raises ValueError where the lengths differ, there is no such dataset, or the entry is none of it.
  """
  return [_verdict(problem, text) for problem, text in zip(problems, completions, strict=True)]


def make_verify(policy: Policy = "strict") -> Verify:
  """The verifier, which is the same under either policy. Raises ValueError where there is no such policy."""
  check_policy(policy)
  return verify


def _same_text(answer: str, entry: dict[str, Any]) -> float:
  return float(answer.casefold() == str(entry["answer"]).strip().casefold())


def _same_probability(answer: str, entry: dict[str, Any]) -> float:
  given, gold = (float(Fraction(text.replace(",", ""))) for text in (answer, entry["answer"]))
  return float(math.isclose(given, gold, rel_tol=_COIN_TOLERANCE))


_OWN: dict[str, Score] = {"coin_flip": _same_probability, "game_of_life_halting": _same_text}


@functools.cache
def _scorer(dataset: str) -> Score:
  return _OWN.get(dataset) or reasoning_gym.get_score_answer_fn(dataset)


def _verdict(problem: Problem, text: str) -> Verdict:
  name = problem.meta["dataset"]
  if name not in DATASETS or name == "composite":
    raise ValueError(f"problem {problem.id}: reasoning-gym has no dataset {name!r}")
  entry = _checked_entry(problem.id, name, problem.meta["entry"])
  answer = extract(text)
  score = None if answer is None or not _has_shape(name, answer) else _score(problem.id, name, answer, entry)
  if score is None:
    return Verdict(0.0, False, answer, "unparsable")
  return Verdict(score, score == 1.0, answer, None if score == 1.0 else "wrong")


def _has_shape(name: str, text: str) -> bool:
  shape = _SHAPES.get(name)
  return shape is None or len(text) <= MAX_FORMULA and shape.fullmatch(text) is not None


def _score(problem: str, name: str, answer: str, entry: dict[str, Any]) -> float | None:
  """The score; None where the scorer cannot read the answer. Raises ValueError where it cannot read its own either."""
  score = _scorer(name)
  try:
    given = float(score(answer, entry))
  except Exception:
    given = math.nan
  if 0.0 <= given <= 1.0:
    return given
  try:
    score(str(entry["answer"]), entry)
  except Exception as error:
    told = f"{type(error).__name__}: {error}"
    raise ValueError(f"problem {problem}: {name}'s scorer fails on the entry's own answer: {told}") from error
  return None


def _checked_entry(problem: str, name: str, entry: Any) -> dict[str, Any]:
  """The entry as its dataset makes it, also where it has been through JSON.

  Raises ValueError where it lacks what every scorer reads, or holds code where sympy would read it.
  """
  if not isinstance(entry, dict) or not isinstance(entry.get("metadata"), dict) or "answer" not in entry:
    raise ValueError(f"problem {problem}: its entry has no answer and metadata")
  metadata = entry["metadata"]
  given = metadata.get("source_dataset", name)
  if given != name:
    raise ValueError(f"problem {problem}: its entry is of the dataset {given!r}, not {name!r}")
  read = _READ_TOO[name](entry) if name in _READ_TOO else ""
  if not isinstance(read, str) or not _has_shape(name, read):
    raise ValueError(f"problem {problem}: its entry holds {str(read)[:80]!r}, which {name} does not read")
  if name in _BOARDS and isinstance(metadata.get(_OUTPUT), list):
    if not all(isinstance(row, list | tuple) for row in metadata[_OUTPUT]):
      raise ValueError(f"problem {problem}: its entry's {_OUTPUT} is no board")
    return {**entry, "metadata": {**metadata, _OUTPUT: tuple(map(tuple, metadata[_OUTPUT]))}}
  return entry

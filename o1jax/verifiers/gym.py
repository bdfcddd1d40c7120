"""reasoning-gym's own scorers, by the name of the dataset (Stojanovski et al. 2025, Reasoning Gym).

    completion -> text in its last <answer>...</answer>, else all -> the dataset's score_answer -> reward

The reward is the score, in [0, 1]; an answer is correct where it is 1. Scorers may pay a little for a bad
answer, or for a long text that holds the right one: that is the library's choice.

Where that choice would hand the reward to a trick, it is not followed:
  - scorers hand the answer to `eval`, or to sympy's parser, which evaluates Python. A completion is not to
    run as code: `eval` reads literals alone here, and where sympy would read the answer, only a formula gets
    that far; that formula may not state the integral itself, which the scorer would differentiate back;
  - complex_arithmetic gives `nan` full marks: only finite numbers are read;
  - game_of_life_halting gives every answer full marks, and coin_flip every leading part of the right one:
    both are graded here, as text and as a number;
  - puzzle24 gives full marks to any four numbers that make 24, and to what makes 24.5; countdown to what
    comes near its target by a function or a fraction: both want the entry's numbers, each once, under
    + - * / and no more, and the exact value;
  - sokoban passes over moves into a wall, and over every letter but four, so that a long walk solves it: an
    answer is made of L, D, U and R, and each of them is a step;
  - time_intervals takes the first number of an answer for days, whatever follows it: days alone may follow.
An answer that its scorer cannot read is unparsable. End tokens are taken off. Under `policy` "standard" an
answer that does not score 1 as it stands is also read without its dress: `\\boxed{...}`, dollars, asterisks,
backticks, "The answer is ...", what follows `=` behind an arithmetic expression, a list's brackets, blanks
behind its commas.

Left out: datasets made with other settings than the default ones, where the scorer looks at those, and
`composite`, whose entries carry the name of their own dataset.
"""

import ast
import contextlib
import functools
import importlib
import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

from o1jax.verifiers.base import UNPARSABLE, Problem, Verdict, Verify
from o1jax.verifiers.completion import Policy, check_policy, without_end_tokens, without_thoughts
from o1jax.verifiers.countdown import exact_value

with warnings.catch_warnings():
  warnings.simplefilter("ignore", SyntaxWarning)  # in a library of the library
  import reasoning_gym
  from reasoning_gym.factory import DATASETS
  from reasoning_gym.games.contrib.sokoban.src.game import Game

Score = Callable[[str, dict[str, Any]], float]

MAX_FORMULA = 4_000  # characters
MAX_BITS = 1 << 14  # of a number that a formula spells: sympy computes 9**9**9**9 as it reads it

_OPEN, _CLOSE = "<answer>", "</answer>"

_WORDS = (
  "sqrt|exp|log|ln|sin|cos|tan|cot|sec|csc|asin|acos|atan|sinh|cosh|tanh|asinh|acosh|atanh|erf|Abs|pi|oo"
)
_FORMULA = re.compile(rf"(?:(?:{_WORDS}|[A-Za-z])(?![A-Za-z0-9_])|\d+\.?\d*|\.\d+|[-+*/^(),!\s])*")
_ARITHMETIC = re.compile(r"(?:[-+/()\d\s]|(?<!\*)\*(?!\*))*")
_LARGE_FACTORIAL = re.compile(r"\d{4,}\s*!|[)!]\s*!")
_COMPLEX = re.compile(r"[-+.\d\seEiIjJ()]*")
_INTEGERS = re.compile(r"(?:0[xX][0-9a-fA-F]+|\d+|<<|>>|[-+*()&|^~\s])*")

# What an answer may be made of, where the scorer reads more than it should.
_SHAPES: dict[str, re.Pattern[str]] = {
  "complex_arithmetic": _COMPLEX,
  "countdown": _ARITHMETIC,
  "intermediate_integration": _FORMULA,
  "polynomial_multiplication": _FORMULA,
  "puzzle24": _ARITHMETIC,
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
_COUNTER_TOLERANCE = 5e-2  # of the counter-probability, which tells 0.9995 from 1


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
  text = without_thoughts(without_end_tokens(text))
  end = text.rfind(_CLOSE)
  start = text.rfind(_OPEN, 0, max(end, 0))
  return (text[start + len(_OPEN) : end] if start >= 0 else text).strip() or None


def make_verify(policy: Policy = "strict") -> Verify:
  """A verifier that scores completions[i] by `problem.meta`: `dataset`, a name, and `entry`, one of it.

  It raises ValueError where the lengths differ, there is no such dataset, or the entry is none of it; this
  does where there is no such policy.
  """
  check_policy(policy)

  def verify(problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
    return [_verdict(problem, text, policy) for problem, text in zip(problems, completions, strict=True)]

  return verify


verify = make_verify()


def _same_probability(answer: str, entry: dict[str, Any]) -> float:
  value, gold = (float(Fraction(text.replace(",", ""))) for text in (answer, entry["answer"]))
  near = math.isclose(value, gold, rel_tol=_COIN_TOLERANCE)
  return float(near and math.isclose(1.0 - value, 1.0 - gold, rel_tol=_COUNTER_TOLERANCE))


def _makes(answer: str, numbers: Sequence[int], target: int) -> bool:
  """Whether an expression makes a target exactly of the numbers, each of them once."""
  try:
    used: list[int] = []
    value = exact_value(ast.parse(answer.strip(), mode="eval").body, used, "+-*/")
    return value == target and sorted(used) == sorted(numbers)
  except (ValueError, ZeroDivisionError, SyntaxError, RecursionError, TypeError):
    return False


def _is_walk(answer: str, entry: dict[str, Any]) -> bool:
  rows = [list(line) for line in entry["metadata"]["gamestr"].replace(" ", "").strip().split("\n")]
  game = Game(height=len(rows), width=len(rows[0]))
  game.load_puzzle_matrix(rows)
  return all(game.player.update(key=step) for step in answer)


_DAYS = re.compile(r"[-+]?\d+(?:\s*days?)?")
_OWN: dict[str, Score] = {
  "coin_flip": _same_probability,
  "game_of_life_halting": lambda answer, entry: float(
    answer.casefold() == str(entry["answer"]).strip().casefold()
  ),
  "puzzle24": lambda answer, entry: float(_makes(answer, entry["metadata"]["numbers"], 24)),
}
# What the library's full marks require besides.
_REQUIRED_TOO: dict[str, Callable[[str, dict[str, Any]], bool]] = {
  "countdown": lambda answer, entry: _makes(
    answer, entry["metadata"]["numbers"], entry["metadata"]["target"]
  ),
  "sokoban": _is_walk,
  "time_intervals": lambda answer, entry: (
    entry["metadata"]["task_type"] != "date" or _DAYS.fullmatch(answer) is not None
  ),
}


@functools.cache
def _scorer(dataset: str) -> Score:
  return _OWN.get(dataset) or reasoning_gym.get_score_answer_fn(dataset)


def _verdict(problem: Problem, text: str, policy: Policy) -> Verdict:
  name = problem.meta["dataset"]
  if name not in DATASETS or name == "composite":
    raise ValueError(f"problem {problem.id}: reasoning-gym has no dataset {name!r}")
  entry = _checked_entry(problem.id, name, problem.meta["entry"])
  answer = extract(text)
  if answer is None:
    return UNPARSABLE
  score = _score(problem.id, name, answer, entry)
  if policy == "standard" and score != 1.0:
    for bare in _undressed(name, answer):
      if _score(problem.id, name, bare, entry) == 1.0:
        answer, score = bare, 1.0
        break
  if score is None:
    return Verdict(0.0, False, answer, "unparsable")
  return Verdict(score, score == 1.0, answer, None if score == 1.0 else "wrong")


def _undressed(name: str, answer: str) -> Iterator[str]:
  """An answer without what stands around it: each step takes one more piece off."""
  while (match := _DRESS.fullmatch(answer)) is not None:
    answer = next(part for part in match.groups() if part is not None).strip()
    yield answer
  if name in ("countdown", "puzzle24") and "=" in answer:
    yield answer.partition("=")[0].strip()
  if name == "number_sorting" and not answer.startswith("["):
    yield str([number.strip() for number in answer.split(",")])
  if name == "word_sequence_reversal":
    yield re.sub(r"\s*,\s*", ", ", answer)


# What may stand around an answer, one alternative each.
_DRESS = re.compile(
  r"\\boxed\s*\{(.*)\}\.?"
  r"|\$\$?([^$]+)\$\$?\.?"
  r"|\\[(\[](.+)\\[)\]]\.?"
  r"|\\text\{([^{}]*)\}"
  r"|\*\*?([^*]+)\*\*?\.?"
  r"|`+([^`]+)`+\.?"
  r"|(?:so |thus,? |therefore,? |hence,? )?(?:the |my )?(?:final |correct )?answer(?: is|:| is:)\s+(.+?)\.?"
  r"|(.+)\.",
  re.DOTALL | re.IGNORECASE,
)


def has_shape(name: str, text: str) -> bool:
  """Whether an answer is made of what the scorer of a dataset may read."""
  shape = _SHAPES.get(name)
  if shape is None:
    return True
  fits = len(text) <= MAX_FORMULA and shape.fullmatch(text) is not None
  return fits and (shape is not _FORMULA or _is_small(text))


def _is_small(formula: str) -> bool:
  """Whether a formula parses to numbers of at most MAX_BITS, or does not parse: then nobody computes it."""
  if _LARGE_FACTORIAL.search(formula):
    return False
  try:
    return _bits(ast.parse(formula.replace("!", "").strip(), mode="eval").body) <= MAX_BITS
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    return True


def _bits(node: ast.expr) -> float:
  """A bound on the bits of an expression's value, a name counting as one digit."""
  match node:
    case ast.Constant(int(number)):
      return number.bit_length()
    case ast.BinOp(base, ast.Pow(), exponent):
      return _bits(base) * 2.0 ** min(_bits(exponent), 100)
    case ast.BinOp(left, _, right):
      return _bits(left) + _bits(right)
    case ast.UnaryOp(_, operand):
      return _bits(operand)
    case ast.Call(_, arguments):
      return max(map(_bits, arguments), default=1)
  return 1


def _score(problem: str, name: str, answer: str, entry: dict[str, Any]) -> float | None:
  """The score; None where the scorer cannot read the answer. Raises ValueError where not even its own."""
  if not has_shape(name, answer):
    return None
  score = _scorer(name)
  try:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
      value = float(score(answer, entry))
    if value == 1.0 and name in _REQUIRED_TOO and not _REQUIRED_TOO[name](answer, entry):
      value = 0.0
  except Exception:
    value = math.nan
  if 0.0 <= value <= 1.0:
    return value
  try:
    score(str(entry["answer"]), entry)
  except Exception as error:
    why = f"{type(error).__name__}: {error}"
    raise ValueError(f"problem {problem}: {name}'s scorer fails on the entry's own answer: {why}") from error
  return None


def _checked_entry(problem: str, name: str, entry: Any) -> dict[str, Any]:
  """The entry as its dataset makes it, also where it has been through JSON.

  Raises ValueError where it lacks what every scorer reads, or holds code where sympy would read it.
  """
  if not isinstance(entry, dict) or not isinstance(entry.get("metadata"), dict) or "answer" not in entry:
    raise ValueError(f"problem {problem}: its entry has no answer and metadata")
  metadata = entry["metadata"]
  source = metadata.get("source_dataset", name)
  if source != name:
    raise ValueError(f"problem {problem}: its entry is of the dataset {source!r}, not {name!r}")
  read = _READ_TOO[name](entry) if name in _READ_TOO else ""
  if not isinstance(read, str) or not has_shape(name, read):
    raise ValueError(f"problem {problem}: its entry holds {str(read)[:80]!r}, which {name} does not read")
  if name in _BOARDS and isinstance(metadata.get(_OUTPUT), list):
    if not all(isinstance(row, list | tuple) for row in metadata[_OUTPUT]):
      raise ValueError(f"problem {problem}: its entry's {_OUTPUT} is no board")
    return {**entry, "metadata": {**metadata, _OUTPUT: tuple(map(tuple, metadata[_OUTPUT]))}}
  return entry

"""Countdown: reach a target from given numbers, each used once, by + - *, as a chain of exact steps.

A response is a chain of thought made of tries. A try is a comma-separated list of steps `a op b = c`, each
taking two numbers from the pool and putting its result back. It may say how far it is off (`off 8`: working,
not graded), and ends with a mark: `yes` claims it, `no` drops it. The answer is the last claimed try; what
stands behind it, cut off or dropped, changes nothing. It is correct where every step is exact, every number
is used once, and the last result is the target (Gandhi et al. 2024, Stream of Search, section 3; Pan et al.
2025, TinyZero).

A response may also state one expression as TinyZero has it, `<answer>(3 + 5) * 7</answer>`, the last of them:
of + - * and brackets, and of / where `meta["operations"]` names it; `= 56` may stand behind. Division is
exact.

    texts -> lexemes -> array parser under numpy                      (host: verify)
    tokens -> table of lexemes -> the same parser under jax.numpy     (device: make_device_verify)

The parser is array code without data-dependent shapes; `xp` is its namespace. Symbols: N rows, T lexemes a
row, n numbers a problem at most.
"""

import ast
import operator
import re
from fractions import Fraction
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence

import numpy as np

from o1jax.verifiers.base import UNPARSABLE, Problem, Verdict, Verify, right_or_wrong
from o1jax.verifiers.completion import Policy, check_policy, without_end_tokens, without_thoughts

OPERATIONS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}
CLAIM, DROP, RETRY, GIVE_UP, OFF = "yes", "no", "wait", "quit", "off"
MAX_TEXT = 100_000  # characters; a longer completion is unparsable
MAX_EXPRESSION = 200  # characters

# Kinds of lexemes. SKIP is what has no text: padding, control tokens. The four marks stand together.
SKIP, NUMBER, OPERATOR, EQUALS, COMMA, YES, NO, WAIT, QUIT, DISTANCE, OTHER = range(11)
OPERATORS = tuple(OPERATIONS)  # an operator's value is its place here
MINUS = OPERATORS.index("-")
STEP = 6  # lexemes from one step to the next: a op b = c ,
A, OP, B, RESULT = 0, 1, 2, 4  # places within a step
MAX_CELLS = 1 << 18  # N * T of one host batch, which bounds its memory

_KIND_BITS = 4  # a code is value << 4 | kind, so that a text's lexemes travel as one list of int
_LEXEME = re.compile(r"\w+|->|[^\w\s]")  # `->` stands in prompts; it is one token, hence one lexeme
_NUMBER = re.compile(r"[0-9]{1,9}")  # the product of two fits 64 bits
_WORDS = {"=": EQUALS, ",": COMMA, CLAIM: YES, DROP: NO, RETRY: WAIT, GIVE_UP: QUIT, OFF: DISTANCE}
_SYMBOLS = (*zip(OPERATORS, OPERATORS), ("×", "*"), ("\u2212", "-"))
_CODES = {
  **_WORDS,
  **{sign: OPERATORS.index(symbol) << _KIND_BITS | OPERATOR for sign, symbol in _SYMBOLS},
  **{str(n): n << _KIND_BITS | NUMBER for n in range(10_000)},
}  # of words that need no pattern to read


class Lexemes(NamedTuple):
  """Rows of lexemes, padded with SKIP; or the lexeme of each token id, without the row axis."""

  kind: Any  # i[N, T]
  value: Any  # i[N, T], a NUMBER's own, an OPERATOR's place in OPERATORS, 0 of all else


class Reading(NamedTuple):
  """The parser's result on N rows."""

  parsed: Any  # bool[N], whether the last claim is a list of steps
  correct: Any  # bool[N]
  inside: Any  # bool[N, T], lexemes of the last claim's steps
  value: Any  # i[N, T], as in Lexemes, with the sign of results


def _code(word: str) -> int:
  known = _CODES.get(word)
  if known is not None:
    return known
  return int(word) << _KIND_BITS | NUMBER if _NUMBER.fullmatch(word) else OTHER


def _codes(text: str) -> list[int]:
  """The lexemes of a text; none where it is too long."""
  if len(text) > MAX_TEXT:
    return []
  spaced = list(map(_CODES.get, text.split()))
  if None not in spaced:
    return spaced  # type: ignore[return-value]
  return [_code(word) for word in _LEXEME.findall(text)]


def _padded(rows: Sequence[Sequence[int]]) -> Lexemes:
  lengths = np.asarray([len(row) for row in rows], np.int64)
  codes = np.zeros((len(rows), max(1, lengths.max(initial=0))), np.int64)
  codes[np.arange(codes.shape[1]) < lengths[:, None]] = [code for row in rows for code in row]
  return Lexemes((codes & ((1 << _KIND_BITS) - 1)).astype(np.int8), codes >> _KIND_BITS)


def lexemes(texts: Sequence[str]) -> Lexemes:
  """Lexemes of N texts, T of the longest one (at least 1): kind i8, value i64.

  Words and single symbols; whitespace only parts them. A word is a number where it is 1 to 9 ASCII digits.
  """
  return _padded([_codes(text) for text in texts])


def token_lexemes(table: Lexemes, tokens: Any, valid: Any, xp: Any) -> Lexemes:
  """Lexemes [N, T] of tokens i32[N, T], SKIP where not valid bool[N, T].

  `table` has one row a token id, and a last one for all other ids.
  """
  last = len(table.kind) - 1
  row = xp.where((tokens >= 0) & (tokens < last), tokens, last)
  kind, value = (xp.asarray(column)[row] for column in table)
  return Lexemes(xp.where(valid, kind, SKIP), value)


def _shifted(rows: Any, places: int, xp: Any) -> Any:
  """[N, T] rows moved `places` to the right, filled with SKIP."""
  return xp.concatenate([xp.zeros_like(rows[:, :places]), rows[:, :-places]], axis=1)


def _before(kind: Any, xp: Any) -> Any:
  """Kind [N, T] of the lexeme before each, whatever SKIP stands between; SKIP where there is none."""
  before, window = _shifted(kind, 1, xp), 1
  while window < kind.shape[1]:
    before = before + (before == SKIP) * _shifted(before, window, xp)  # SKIP is 0
    window *= 2
  return before


def _signed(row: Lexemes, xp: Any) -> Lexemes:
  """A minus right behind `=` is the sign of what follows: it becomes SKIP, and the number negative."""
  kind, value = row
  sign = (kind == OPERATOR) & (value == MINUS) & (_before(kind, xp) == EQUALS)
  negative = _before(xp.where(sign, OTHER + 1, kind), xp) == OTHER + 1
  return Lexemes(xp.where(sign, SKIP, kind), xp.where(negative, -value, value))


def _first(match: Any, xp: Any) -> Any:
  """The first true one of each row; bool[N, n]."""
  return match & (xp.cumsum(match, axis=1) == 1)


def _reaches(field: Callable[[int, int], Any], steps: Any, numbers: Any, target: Any, xp: Any) -> Any:
  """bool[N]: whether `steps` i[N] steps are exact, use each of `numbers` once and end at the target.

  `field(k, place)` is i[N], what stands at a place of step k.
  """
  pool, last = numbers, target
  good = steps == xp.sum(numbers >= 0, axis=1) - 1  # each step takes two numbers and gives one
  for k in range(numbers.shape[1] - 1):
    a, op, b, result = (field(k, place) for place in (A, OP, B, RESULT))
    from_a = _first(pool == a[:, None], xp)
    rest = xp.where(from_a, -1, pool)
    from_b = _first(rest == b[:, None], xp)
    # An operand is never negative, so that neither an empty place of the pool nor a negative result can be
    # taken.
    pool = xp.where(from_a, result[:, None], xp.where(from_b, -1, rest))
    exact = xp.zeros_like(good)
    for place, apply in enumerate(OPERATIONS.values()):
      exact = exact | ((op == place) & (apply(a, b) == result))
    there = k < steps
    good = good & (~there | (exact & xp.any(from_a, axis=1) & xp.any(from_b, axis=1)))
    last = xp.where(there, result, last)
  return good & (last == target)


def read(rows: Lexemes, numbers: Any, target: Any, xp: Any) -> Reading:
  """Parses and grades N rows: numbers i[N, n] padded with -1, target i[N]."""
  kind, value = _signed(rows, xp)
  at = xp.arange(kind.shape[1], dtype=xp.int32)
  last = lambda mask: xp.max(xp.where(mask, at, -1), axis=1, keepdims=True)
  end = last(kind == YES)
  begin = last((kind >= YES) & (kind <= QUIT) & (at < end))
  claimed = (at > begin) & (at < end) & (kind != SKIP)
  outside = -STEP  # below every place of a step
  place = xp.where(claimed, xp.cumsum(claimed, axis=1, dtype=xp.int32) - 1, outside)
  size = xp.sum(claimed, axis=1, keepdims=True, dtype=xp.int32)
  is_at = lambda which, there: xp.any((kind == which) & (place == there), axis=1, keepdims=True)
  size = size - 2 * (is_at(DISTANCE, size - 2) & is_at(NUMBER, size - 1))
  inside = claimed & (place < size)

  part = place % STEP
  sign = xp.where(part == OP, OPERATOR, xp.where(part == 3, EQUALS, COMMA))
  fits = kind == xp.where(part % 2 == 0, NUMBER, sign)
  parsed = xp.all(fits | ~inside, axis=1) & (size[:, 0] % STEP == STEP - 1)
  field = lambda k, which: xp.sum(xp.where(place == STEP * k + which, value, 0), axis=1)
  correct = parsed & _reaches(field, (size[:, 0] + 1) // STEP, numbers, target, xp)
  return Reading(parsed, correct, inside, value)


def problem_arrays(problems: Sequence[Problem], width: int) -> dict[str, np.ndarray]:
  """P problems as the parser reads them: numbers i64[P, width] padded with -1, and target i64[P]."""
  numbers = [problem.meta["numbers"] for problem in problems]
  padded = [[*row, *[-1] * (width - len(row))] for row in numbers]
  target = np.asarray([problem.meta["target"] for problem in problems], np.int64)
  return {"numbers": np.asarray(padded, np.int64).reshape(-1, width), "target": target}


def make_device_verify(table: Lexemes, xp: Any) -> Callable[[Any, Any, Mapping[str, Any]], tuple]:
  """`device_verify(tokens i32[B, R], is_response bool[B, R], task_arrays) -> (reward f32[B], correct, parsed
  bool[B])`.

  `task_arrays` are those of `problem_arrays` in 32 bits, of P problems; rows are prompt-major, B / P of each.
  `table` is that of `token_lexemes`, and the square of its largest number must fit 32 bits. The verdicts are
  those of `verify` on the decoded tokens, MAX_TEXT apart.
  """

  def device_verify(tokens: Any, is_response: Any, task_arrays: Mapping[str, Any]) -> tuple:
    numbers, target = task_arrays["numbers"], task_arrays["target"]
    samples = tokens.shape[0] // target.shape[0]
    numbers, target = (xp.repeat(array, samples, axis=0) for array in (numbers, target))
    reading = read(token_lexemes(table, tokens, is_response, xp), numbers, target, xp)
    return reading.correct.astype(xp.float32), reading.correct, reading.parsed

  return device_verify


def _answer(values: Sequence[int]) -> str:
  """A claim's steps, of its values by `Reading.inside`, as text in which `4 + 3 = 7` reads `3 + 4 = 7`."""
  steps = []
  for a, place, b, result in zip(*(values[part::STEP] for part in (A, OP, B, RESULT)), strict=True):
    sign = OPERATORS[place]
    first, second = (a, b) if sign == "-" else sorted((a, b))
    steps.append(f"{first} {sign} {second} = {result}")
  return " , ".join(steps)


def make_verify(policy: Policy = "strict") -> Verify:
  """The verifier, which is the same under either policy. Raises ValueError where there is no such policy."""
  check_policy(policy)
  return verify


def verify(problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
  """Exact verdicts, 1.0 or 0.0.

  `problem.meta` holds `numbers` (list of int, none negative), `target` (int) and perhaps `operations` (list
  of the operators that an expression may have).
  """
  if len(problems) != len(completions):
    raise ValueError(f"{len(problems)} problems have {len(completions)} completions")
  texts = [without_thoughts(without_end_tokens(text)) for text in completions]
  rows = [_codes(text) for text in texts]
  verdicts: list[Verdict] = []
  for part in _batches([len(row) for row in rows]):
    verdicts += _verify_batch(problems[part], rows[part])
  for place, text in enumerate(texts):
    if _CLOSE in text and len(text) <= MAX_TEXT:
      verdicts[place] = _verify_expression(problems[place], text)
  return verdicts


_OPEN, _CLOSE = "<answer>", "</answer>"
_SIGNS = str.maketrans("×÷\u2212", "*/-")
_EXPRESSION = re.compile(r"[0-9+\-*/()\s]+")
_APPLY: dict[type, tuple[str, Callable[[Fraction, Fraction], Fraction]]] = {
  ast.Add: ("+", operator.add),
  ast.Sub: ("-", operator.sub),
  ast.Mult: ("*", operator.mul),
  ast.Div: ("/", operator.truediv),
}


def _verify_expression(problem: Problem, text: str) -> Verdict:
  """The verdict on the expression in the last pair of tags."""
  inside = text[: text.rfind(_CLOSE)].rpartition(_OPEN)[2].translate(_SIGNS)
  expression, equals, result = inside.partition("=")
  used: list[int] = []
  try:
    value = exact_value(_parsed(expression), used, problem.meta.get("operations") or OPERATORS)
    claimed = value if not equals else exact_value(_parsed(result), [], "-")
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    return UNPARSABLE
  except ZeroDivisionError:
    return right_or_wrong(False, None)
  right = sorted(used) == sorted(problem.meta["numbers"]) and value == claimed == problem.meta["target"]
  shown = " ".join(re.findall(r"[0-9]+|[^\s0-9]", expression))
  return right_or_wrong(right, shown)


def _parsed(text: str) -> ast.expr:
  """A formula of numbers. Raises SyntaxError or ValueError where a text is none."""
  if len(text) > MAX_EXPRESSION or not _EXPRESSION.fullmatch(text):
    raise ValueError("is no expression")
  return ast.parse(" ".join(text.split()), mode="eval").body


def exact_value(node: ast.expr, used: list[int], operations: Sequence[str]) -> Fraction:
  """The exact value of an expression of these operations; the numbers that it holds are appended to `used`.

  Raises ValueError where it holds anything else, and ZeroDivisionError.
  """
  match node:
    case ast.Constant(int() as number):
      used.append(number)
      return Fraction(number)
    case ast.UnaryOp(ast.USub(), operand):
      return -exact_value(operand, used, operations)
    case ast.BinOp(left, op, right) if type(op) in _APPLY and _APPLY[type(op)][0] in operations:
      values = (exact_value(side, used, operations) for side in (left, right))
      return _APPLY[type(op)][1](*values)
  raise ValueError("is no expression of these operations")


def _batches(lengths: Sequence[int]) -> Iterator[slice]:
  """Consecutive rows that stay within MAX_CELLS once padded to their longest."""
  start = longest = 0
  for i, length in enumerate(lengths):
    longest = max(longest, length)
    if i > start and longest * (i + 1 - start) > MAX_CELLS:
      yield slice(start, i)
      start, longest = i, length
  if lengths:
    yield slice(start, len(lengths))


def _verify_batch(problems: Sequence[Problem], rows: Sequence[Sequence[int]]) -> list[Verdict]:
  known = problem_arrays(problems, max(len(problem.meta["numbers"]) for problem in problems))
  reading = read(_padded(rows), known["numbers"], known["target"], np)
  verdicts = []
  for i, (parsed, correct) in enumerate(zip(reading.parsed.tolist(), reading.correct.tolist())):
    answer = _answer(reading.value[i, reading.inside[i]].tolist()) if parsed else None
    verdicts.append(right_or_wrong(correct, answer) if parsed else UNPARSABLE)
  return verdicts


_STEP = r"\d+ [+*-] \d+ = -?\d+"
_TRY = rf"{_STEP}(?: , {_STEP})*(?: {OFF} \d+)? (?:{CLAIM}|{DROP})"
_TAIL = rf"(?: {RETRY}(?: \d+| [+*=,-]| {OFF})*)?"  # a try that the budget cut off
_TRACE = re.compile(rf"{_TRY}(?: {RETRY} {_TRY})*(?: {GIVE_UP}|{_TAIL})")


def coherent(text: str) -> bool:
  """Whether a response is tries with their marks, each behind a `wait`, the last one perhaps cut off."""
  return _TRACE.fullmatch(text) is not None


def count_tries(text: str) -> int:
  """Marked tries in a response: each `yes` or `no` ends one."""
  return len(re.findall(rf"\b(?:{CLAIM}|{DROP})\b", text))

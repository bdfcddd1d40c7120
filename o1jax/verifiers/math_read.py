r"""What one final answer says: a formula, words, a time of day, a ratio, a number in another base, or nothing but itself.

    text -> cleaned -> percent sign and unit off -> the first form that it has

Formulas are read by math-verify's parser (latex2sympy2_extended), which builds sympy objects from a grammar and
evaluates no Python: what reaches it are the commands and signs that `math_text.latex` lets through, and it is asked to
evaluate nothing. Numbers so large that comparing them would take all memory are no formulas.
"""

import functools
import math
import re
from fractions import Fraction
from typing import NamedTuple

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy

from o1jax.verifiers.math_text import CURRENCY_SIGN, UnreadableError, clean, latex
from o1jax.verifiers.math_units import split_unit

MAX_DIGITS = 3_000  # of a number that a formula may stand for; the largest power of a sum is far below it
MAX_CACHED = 4_096  # answers kept as read: the samples of a prompt repeat each other


class Formula(NamedTuple):
  """A number, expression, equation, interval, set, tuple or matrix."""

  value: sympy.Basic | sympy.MatrixBase
  percent: bool  # whether a percent sign stands behind it, which `value` does not hold


class Words(NamedTuple):
  """Text, an option's letter, or an unordered list of such."""

  items: frozenset[str]  # folded to one case, without punctuation


class Clock(NamedTuple):
  """A time of day."""

  hour: int
  minute: int
  second: int
  half: str  # "a", "p", or "" where it is not said


class Ratio(NamedTuple):
  """`3:2`, `1:2:3`."""

  terms: tuple[int, ...]


class Based(NamedTuple):
  """A number in a named base."""

  digits: str
  base: int


Form = Formula | Words | Clock | Ratio | Based


class Answer(NamedTuple):
  """One final answer as it was read."""

  text: str  # what two answers share that are written alike: no dress, unit or superfluous space
  unit: str | None  # see `math_units`
  form: Form | None  # None: the text alone

  def shown(self) -> str:
    """Text that is the same for numbers of the same value: 1/2, 0.5 and \\frac{2}{4} are "1/2"."""
    if isinstance(self.form, Formula) and isinstance(self.form.value, sympy.Rational):
      return f"{self.form.value}{'%' if self.form.percent else ''}"
    if isinstance(self.form, Words):
      return ", ".join(sorted(self.form.items))
    return self.text


_PERCENT = re.compile(
  r"\s*\\?%|(?<=[0-9}])\s*(?:\\text\{\s*)?(?:percentage|percent|pct)\b\s?\}?", re.IGNORECASE
)
_PERCENT_VALUE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s?\\?%")
_PERCENT_WITHIN = re.compile(  # `5\% + 3`, `\frac{3}{5} = 60\%`: a sign that does not go for all of it
  r"%\s?(?:[-+*/^=<>]|\\(?:cdot|times|div)(?![a-zA-Z]))|[0-9}]\s?=\s?[0-9.]+\s?\\?%$"
)
_QUICK = re.compile(
  r"(?P<sign>[-+]?)\s?(?:(?P<whole>[0-9]{1,40})(?:\.(?P<part>[0-9]{1,40}))?"
  r"|\\frac\{(?P<a>[0-9]{1,40})\}\{(?P<b>[0-9]{1,40})\}|(?P<c>[0-9]{1,40})/(?P<d>[0-9]{1,40}))"
)
_CLOCK = re.compile(
  r"(?P<hour>[01]?[0-9]|2[0-4])(?::(?P<minute>[0-5][0-9])(?::(?P<second>[0-5][0-9]))?)?\s?"
  r"(?:(?P<half>[ap])\.?\s?m\b\.?)?",
  re.IGNORECASE,
)
_RATIO = re.compile(r"[0-9]{1,9}(?:\s?:\s?[0-9]{1,9})+")
_BASED = re.compile(
  r"\(?(?P<digits>[0-9A-F]*[0-9][0-9A-F]*)\)?\s?(?:_\s?(?:\{\s?(?P<base>[0-9]{1,2}|[a-z]+)\s?\}|(?P<one>[0-9]|[a-z]{3,}))"
  r"|\(?(?:in )?base (?P<said>[0-9]{1,2}|[a-z]+)\)?)"
)

_ANNOUNCED = re.compile(
  r"(?P<open>\\text\{)?\s*(?:(?:so|thus|hence|therefore),? )?(?:the )?(?:final |correct )?answer(?: is:?| ?[:=])\s*"
  r"(?P<shut>\})?\s*",
  re.IGNORECASE,
)
_NUMBER_IN_TEXT = re.compile(
  rf"\\text\s?\{{\s*(?P<number>[-+]?[{CURRENCY_SIGN}]?\s?[0-9][0-9.,]*(?:(?:\s[0-9]+)?/[0-9]+)?)(?:\s+(?P<rest>[a-zA-Z][^{{}}]*))?\s*\}}"
)
_BASES = {
  "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "sixteen": 16
}  # fmt: skip
_IDLE_SPACE = re.compile(r" (?![^\W_])|(?<![^\W_])(?<!,) |(?<=,) (?![0-9])")
_TEXT = re.compile(r"\\text\s?\{([^{}]*)\}")
# Text that is no text: joints of a list, or a list of numbers.
_JOINING_TEXT = re.compile(r"\\text\s?\{([^{}a-z]*(?:(?:and|or)\b[^{}a-z]*)*)\}", re.IGNORECASE)
_AROUND_TEXT = re.compile(r"[\s,;:.&0-9'\-]*")
_SEPARATOR = re.compile(r"\s*[,;&]\s*(?:and\s|or\s)?\s*|\s+(?:and|or)\s+", re.IGNORECASE)
_LABEL = re.compile(r"\([A-Za-z]\)|[A-Z][).]?|[IVX]{2,5}")  # of an option or a statement
_OPTION = re.compile(
  r"(?:(?:option|choice) )?(?:\((?P<a>[A-J])\)|(?P<b>[A-J])[).:]) (?P<rest>.+)|(?:option|choice) \(?(?P<c>[A-J])\)?",
  re.IGNORECASE,
)
_OTHER_OPTION = re.compile(r"(?i:\b(?:or|and|not)\b|\b[A-J]\))|\b[A-J]\b(?!')")  # `(C) a square` names one
_TEXT_CHARACTERS = re.compile(r"(?:[^\W_]|[ '\-.,:;&])+")
_PUNCTUATION = re.compile(r"[^\w +\-*/=<>^|.]|(?<=\w)-(?=[^\W\d_])|\.(?![0-9])")
_NUMERIC = re.compile(r"(?<![^\W_])-|-(?![^\W_])|[0-9][^\W\d_]{3}")  # a sign, a coefficient
_TEXT_WORD = re.compile(r"[^\W\d_]{3,}")
_NO_TEXT = frozenset(
  "and or sin cos tan cot sec csc log exp sqrt inf infinity arcsin arccos arctan sinh cosh tanh".split()
)
_NAMED = re.compile(r"(?:\\text\{\s?)?(?P<name>[a-zA-Z][a-zA-Z ]{2,40}?)\s?\}?\s?(?:=|:)\s?(?=\S)")
# `P(\text{red}) = `, `x_{\text{max}} = `, `f^{-1}(2) = `, `f(g(2)) = `: names that the parser does not know as such.
_CALLED = re.compile(
  r"(?:[a-zA-Z]\^\{-1\}\(-?[0-9./]+\)|[a-zA-Z]\([a-zA-Z]\(-?[0-9./]+\)\)"
  r"|[a-zA-Z]\([^()=]*\\text\s?\{[^{}]*\}[^()=]*\)|[a-zA-Z]_\{?\s?\\text\s?\{[^{}]*\}\s?\}?)\s?=\s?(?=[^=]+$)"
)
_NAME_WORD = re.compile(r"[^\W\d_]{4,}")  # shorter ones may be products of unknowns
_NO_NAME = frozenset("not never isn cannot and or either neither if".split()) | _NO_TEXT
_EMPTY = frozenset(
  f"{before}{what}" for before in ("", "no ", "there is ", "there are ", "the ")
  for what in ("no solution", "no solutions", "no real solution", "no real solutions", "empty set", "null set")
)  # fmt: skip
_ALL = frozenset({"all real numbers", "all reals", "all real x", "real numbers", "the real numbers"})


@functools.lru_cache(maxsize=MAX_CACHED)
def read(raw: str) -> Answer:
  """What an answer says. Raises UnreadableError where it says nothing, whatever it may be compared with."""
  text = _unannounced(clean(raw))
  if (number := _NUMBER_IN_TEXT.fullmatch(text)) is not None:
    text = number["number"] + (rf" \text{{ {number['rest']}}}" if number["rest"] else "")
  clock = _clock(_spelt(text))
  if clock is not None:
    return Answer(_key(_spelt(text).casefold()), None, clock)
  if _PERCENT_WITHIN.search(text):
    text = _PERCENT_VALUE.sub(r"\\frac{\1}{100}", text)
  bare = _PERCENT.sub("", text)
  head, unit = split_unit(bare)
  key = _key(head)
  if not key:
    raise UnreadableError("is empty")
  return Answer(key, unit, _form(head, percent=bare != text))


def _unannounced(text: str) -> str:
  r"""`\text{The answer is } 5` and `\text{The answer is 5}` without the announcement."""
  match = _ANNOUNCED.match(text)
  if match is None or match["shut"] and not match["open"]:
    return text
  return ("" if match["shut"] else match["open"] or "") + text[match.end() :]


def _spelt(text: str) -> str:
  r"""The text without `\text`."""
  return re.sub(r"\s+", " ", _TEXT.sub(r"\1", text)).strip()


def _key(text: str) -> str:
  """The text without the spaces that part no letters or digits, and no `1, 234` that is a list."""
  return _IDLE_SPACE.sub("", text.strip())


def _form(text: str, percent: bool) -> Form | None:
  """The first form that the text has."""
  text = _JOINING_TEXT.sub(r" \1 ", text)
  plain = _spelt(text)
  number = quick_number(text)
  if number is not None:
    return Formula(number, percent)
  return _ratio(plain) or _based(plain) or _words(text, plain) or _formula(text, percent)


def quick_number(text: str) -> sympy.Rational | None:
  """The value of a plain number or fraction, as the parser gives it; None for all else."""
  match = _QUICK.fullmatch(text)
  if match is None:
    return None
  if match["whole"] is not None:
    part = match["part"] or ""
    value = Fraction(int(match["whole"] + part), 10 ** len(part))
  else:
    bottom = int(match["b"] or match["d"])
    if bottom == 0:
      return None
    value = Fraction(int(match["a"] or match["c"]), bottom)
  return sympy.Rational(-value if match["sign"] == "-" else value)


def _clock(plain: str) -> Clock | None:
  match = _CLOCK.fullmatch(plain)
  if match is None or match["minute"] is None and match["half"] is None:
    return None
  return Clock(
    int(match["hour"]), int(match["minute"] or 0), int(match["second"] or 0), (match["half"] or "").lower()
  )


def _ratio(plain: str) -> Ratio | None:
  return Ratio(tuple(int(term) for term in plain.split(":"))) if _RATIO.fullmatch(plain) else None


def _based(plain: str) -> Based | None:
  match = _BASED.fullmatch(plain)
  if match is None:
    return None
  name = match["base"] or match["one"] or match["said"]
  base = int(name) if name.isdigit() else _BASES.get(name, 0)
  fits = 2 <= base <= 16 and all(int(digit, 16) < base for digit in match["digits"])
  return Based(match["digits"].lstrip("0") or "0", base) if fits else None


def _words(text: str, plain: str) -> Form | None:
  """Words, or the set that they name. `plain` is the text without `\\text`."""
  folded = _folded(plain)
  if folded in _EMPTY:
    return Formula(sympy.S.EmptySet, percent=False)
  if folded in _ALL:
    return Formula(sympy.S.Reals, percent=False)
  option = _OPTION.fullmatch(plain)
  if option is not None and not _OTHER_OPTION.search(option["rest"] or ""):
    return Words(frozenset({(option["a"] or option["b"] or option["c"]).casefold()}))
  items = [item for item in _SEPARATOR.split(plain) if item]
  if all(map(_LABEL.fullmatch, items)) or _is_text(text, plain):
    return Words(frozenset(map(_folded, items)))
  return None


def _is_text(text: str, plain: str) -> bool:
  r"""Whether words were meant: all stands in `\text`, or there is a word of three letters and nothing but words."""
  if "\\text" in text:
    return _AROUND_TEXT.fullmatch(_TEXT.sub("", text)) is not None
  words = set(_TEXT_WORD.findall(plain.casefold()))
  return (
    bool(words - _NO_TEXT)
    and not words & (_NO_TEXT - {"and", "or"})
    and _TEXT_CHARACTERS.fullmatch(plain) is not None
    and not _NUMERIC.search(plain)
  )


def _folded(item: str) -> str:
  """One case, no punctuation; signs and points of numbers and signs between them stay, which change what is said."""
  return re.sub(r"\s+", " ", _PUNCTUATION.sub(" ", item.casefold())).strip()


def _formula(text: str, percent: bool) -> Formula | None:
  prepared = latex(_unnamed(text))
  value = parsed(prepared) if prepared is not None else None
  if isinstance(value, sympy.Tuple) and text.startswith(
    "["
  ):  # a list as programs write it; `[2, 1]` is nothing
    value = sympy.FiniteSet(*value.args) if len(value.args) > 2 else None
  return None if value is None else Formula(value, percent)


def _unnamed(text: str) -> str:
  """`Area = 25` without the words before the sign."""
  if (called := _CALLED.match(text)) is not None:
    return text[called.end() :]
  named = _NAMED.match(text)
  if named is None or _NO_NAME & set(named["name"].lower().split()) or not _NAME_WORD.search(named["name"]):
    return text
  return text[named.end() :]


def parsed(prepared: str) -> sympy.Basic | sympy.MatrixBase | None:
  """The parser's reading; None where it has none, or none that could be compared."""
  try:
    value = latex2sympy(
      prepared, is_real=True, convert_degrees=False, normalization_config=None,
      conversion_config=ConversionConfig(lowercase_symbols=False),
    )  # fmt: skip
    if not isinstance(value, (sympy.Basic, sympy.MatrixBase)) or value.has(sympy.nan, sympy.zoo, sympy.Float):
      return None
    log10_bound(value)
  except Exception:
    # Broad on purpose: for what is not in its grammar the parser raises bare Exception, and sympy's constructors raise
    # what they like (TypeError, ValueError, AttributeError, RecursionError). Each says the same: no formula. A
    # MemoryError says that the worker's limit is reached, and the answer earns nothing either way.
    return None
  return value.as_immutable() if isinstance(value, sympy.MatrixBase) else value


class TooLargeError(ValueError):
  """A formula whose value has too many digits to be worked out."""


def log10_bound(value: sympy.Basic | sympy.MatrixBase) -> float:
  """A rough bound of log10 |value| for numbers, found without computing them; symbols count as 10.

  Raises TooLargeError above MAX_DIGITS, for any part of the formula.
  """
  if isinstance(value, sympy.Rational):
    return _checked(math.log10(max(abs(value.p), value.q)))
  parts = [
    log10_bound(part) for part in (value.flat() if isinstance(value, sympy.MatrixBase) else value.args)
  ]
  if not parts:
    return 1.0
  if isinstance(value, (sympy.Pow, sympy.exp)) and value.args[-1].is_number:
    return _checked((parts[0] if isinstance(value, sympy.Pow) else 1.0) * _power_of_ten(parts[-1]))
  if isinstance(value, sympy.factorial) and value.args[0].is_number:
    return _checked(_power_of_ten(parts[0]) * max(1.0, parts[0]))
  if isinstance(value, sympy.Mul):
    return _checked(sum(parts))
  return _checked(max(parts) + math.log10(len(parts)))


def _power_of_ten(exponent: float) -> float:
  return 10.0 ** min(exponent, 300.0)


def _checked(bound: float) -> float:
  if bound > MAX_DIGITS:
    raise TooLargeError(f"has more than {MAX_DIGITS} digits")
  return bound

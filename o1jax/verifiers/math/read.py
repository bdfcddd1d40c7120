r"""One final answer read: a formula, words, a time of day, a ratio, digits in a base, or just its text.

    text -> cleaned -> percent sign and unit off -> the first form that it has

Formulas are read by math-verify's parser (latex2sympy2_extended), which builds sympy objects from a grammar,
evaluates no Python, and is to evaluate nothing; `text.latex` vetoes. What it cannot read before an `=`
is a name. Numbers so large that comparing them would take all memory are no formulas; sums, integrals and
limits are compared as text.
"""

import functools
import math
import re
from typing import Any, NamedTuple

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
from latex2sympy2_extended.logic import And
from latex2sympy2_extended.sets import FiniteSet

from o1jax.verifiers.math.text import CURRENCY_SIGN, UnreadableError, clean, latex, parts
from o1jax.verifiers.math.units import split_unit

MAX_DIGITS = 8_000  # of a number that a formula may stand for; the largest power of a sum is far below it
MAX_CACHED = 4_096  # answers kept as read: the samples of a prompt repeat each other


class TooLargeError(ValueError):
  """A formula whose value has too many digits to be worked out."""


class Formula(NamedTuple):
  """A number, expression, equation, interval, set, tuple or matrix."""

  value: sympy.Basic | sympy.MatrixBase
  percent: bool  # whether a percent sign stands behind it, which `value` does not hold


class Words(NamedTuple):
  """Text, an option's letter, or an unordered list of such."""

  items: frozenset[str]  # folded to one case, without punctuation


class Qualified(NamedTuple):
  """A time of day with the half of it, or digits with their base."""

  value: str  # "5:30:00", "1011"
  qualifier: str  # "a", "p", or "" where a time's half is not said; "base 2"
  ratio: Formula | None = None  # of what might be no time


Form = Formula | Words | Qualified
_RATIO = sympy.Function("ratio")  # of three terms or more
_UNCOMPARED = (
  sympy.nan, sympy.zoo, sympy.Float, sympy.Integral, sympy.Sum, sympy.Product, sympy.Limit, sympy.Derivative
)  # fmt: skip


class Answer(NamedTuple):
  """One final answer as it was read."""

  text: str  # what two answers share that are written alike: no dress, unit, idle brace or space
  unit: str | None  # see `units`
  form: Form | None  # None: the text alone

  def shown(self) -> str:
    """Text that is the same for numbers of the same value: 1/2, 0.5 and \\frac{2}{4} are "1/2"."""
    if isinstance(self.form, Formula) and isinstance(self.form.value, sympy.Rational):
      return f"{self.form.value}{'%' if self.form.percent else ''}"
    if isinstance(self.form, Words):
      return ", ".join(sorted(self.form.items))
    return self.text


_PERCENT = re.compile(r"\s*\\?%|(?<=[0-9}])\s*(?:\\text\{\s*)?(?i:percentage|percent|pct)\b\s?\}?")
_PERCENT_VALUE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s?\\?%")
_PERCENT_WITHIN = re.compile(  # `5\% + 3`, `\frac{3}{5} = 60\%`: a sign that does not go for all of it
  r"%\s?(?:[-+*/^=<>]|\\(?:cdot|times|div)(?![a-zA-Z]))|[0-9}]\s?(?:=|\\approx)\s?[0-9.]+\s?\\?%$"
)
_QUICK = re.compile(
  r"(?P<sign>[-+]?)\s?(?:(?P<integer>[0-9]{1,40})(?:\.(?P<part>[0-9]{1,40}))?"
  r"|\\frac\{(?P<a>[0-9]{1,40})\}\{(?P<b>[0-9]{1,40})\}|(?P<c>[0-9]{1,40})/(?P<d>[0-9]{1,40}))"
)
_CLOCK = re.compile(
  r"(?i)(?P<hour>[01]?[0-9]|2[0-4])(?::(?P<minute>[0-5][0-9])(?::(?P<second>[0-5][0-9]))?)?\s?"
  r"(?:(?P<half>[ap])\.?\s?m\b\.?)?"
)
_BASED = re.compile(
  r"\(?(?P<digits>[0-9A-F]*[0-9][0-9A-F]*)\)?\s?(?:_\s?(?:\{\s?\(?(?P<base>[0-9]{1,2}|[a-z]+)\)?\s?\}"
  r"|(?P<one>[0-9]|[a-z]{3,}))|\(?(?:in )?base (?P<said>[0-9]{1,2}|[a-z]+)\)?)"
)
_ANNOUNCEMENT = r"(?:(?:so|thus|hence|therefore),? )?(?:the )?(?:final |correct )?answer(?: is:?| ?[:=])"
_NAMING = r"(?:(?!(?:not|never|neither|nor|or|no)\b)[a-zA-Z]+\s*){1,8}(?::|(?<=\sis)|(?<=\sis\s))"
_ANNOUNCED = re.compile(
  rf"(?i)^(?:\\text\{{\s*(?:{_ANNOUNCEMENT}|{_NAMING})\s*\}}|(?P<open>\\text\{{)?\s*{_ANNOUNCEMENT})\s*(?=\S)"
)
_NUMBER_IN_TEXT = re.compile(
  rf"\\text\s?\{{\s*(?P<number>[-+]?[{CURRENCY_SIGN}]?\s?[0-9][0-9.,]*(?:(?:\s[0-9]+)?/[0-9]+)?)(?:"
  rf"\s+(?P<rest>[^\W\d_][^{{}}]*))?\s*\}}"
)
_APPROXIMATED = re.compile(r"(?<=[0-9}a-z])\s?\(?\s?\\approx\s?-?[0-9.]+\s?\)$")  # `2\sqrt{3} (\approx 3.46)`
_OR = re.compile(r"\s*(?:\\text\{\s*,?\s*or\s*\}|(?<![a-zA-Z\\])or(?![a-zA-Z]))\s*", re.IGNORECASE)
_BASES = "zero one two three four five six seven eight nine ten 11 12 13 14 15 sixteen".split()
_TEXT = re.compile(r"\\text\s?\{([^{}]*)\}")
# Text that is no text: joints of a list, or a list of numbers.
_JOINING_TEXT = re.compile(r"\\text\s?\{([^{}a-z]*(?:(?:and|or)\b[^{}a-z]*)*)\}", re.IGNORECASE)
_AROUND_TEXT = re.compile(r"[\s,;:.&0-9'\-]*")
_SEPARATOR = re.compile(r"\s*[,;&]\s*(?:and\s|or\s)?\s*|\s+(?:and|or)\s+", re.IGNORECASE)
_LABEL = re.compile(r"\([A-Za-z]\)|[A-Z][).]?|[IVX]{2,5}")  # of an option or a statement
_OPTION = re.compile(
  r"(?i)(?:(?:option|choice) )?(?:\((?P<a>[A-J])\)|(?P<b>[A-J])[).:]) (?P<rest>.+)|(?:option"
  r"|choice) \(?(?P<c>[A-J])\)?"
)
# `(C) a square`, `C. A square`, `(C) I think so` name one option.
_OTHER_OPTION = re.compile(r"(?i:\b(?:or|and|not)\b|\b[A-J]\))|\b[B-HJ]\b(?!')|\b[AI]\b(?!'|\s[a-z]{2})")
_TEXT_CHARACTERS = re.compile(r"(?:[^\W_]|[ '\-.,:;&])+")
_PUNCTUATION = re.compile(r"[^\w +\-*/=<>^|.]|(?<=\w)-(?=[^\W\d_])|\.(?![0-9])")
_NUMERIC = re.compile(r"(?<![^\W_])-|-(?![^\W_])|[0-9][^\W\d_]{3}")  # a sign, a coefficient
_NO_TEXT = set(
  "and or sin cos tan cot sec csc log exp sqrt inf infinity arcsin arccos arctan sinh cosh tanh mod".split()
)
_NAMED = re.compile(
  r"(?:\\text\{\s?)?(?P<name>[a-zA-Z][a-zA-Z ]{2,40}?)\s?(?:\}?\s?(?:=|:)|:\s*\})\s?(?=\S)(?P<rest>.+)"
)
# The parser takes these for products.
_CALLED = re.compile(r"(?:[a-zA-Z](?:\^\{-1\}\(-?|\(-)[0-9./]+\)|[a-zA-Z]\([a-zA-Z]\(-?[0-9./]+\)\))\s?=")
_NO_NAME = set("not never isn cannot and or either neither if".split()) | _NO_TEXT
_BRACKETS = re.compile(r"\{[^{}]*\}|\([^()]*\)|\|[^|]*\|")
# What no name of a quantity has outside of brackets.
_NO_QUANTITY = re.compile(r"[,;:?<>!]|\\(?:lor|vee|land|mid|to|approx|pm|mp)(?![a-zA-Z])")
_QUANTITY = re.compile(r"(?!.*\\text\{[^{}]*\b(?:or|and|not|if|no|never)\b)[a-zA-Z\\(|]")
_EMPTY = re.compile(r"(?:there (?:is|are) )?no (?:real )?solutions?|(?:the )?(?:empty|null) set|none")
_ALL = re.compile(r"all real numbers|all reals|all real x|(?:the )?real numbers")


@functools.lru_cache(maxsize=MAX_CACHED)
def read(raw: str) -> Answer:
  """What an answer says. Raises UnreadableError where it says nothing, whatever it may be compared with."""
  if (number := quick_number(raw)) is not None:
    return Answer(_key(raw), None, Formula(number, percent=False))
  text = _ANNOUNCED.sub(lambda match: match["open"] or "", clean(raw))
  if (number_in_text := _NUMBER_IN_TEXT.fullmatch(text)) is not None:
    rest = number_in_text["rest"]
    text = number_in_text["number"] + (rf" \text{{ {rest}}}" if rest else "")
  clock = _clock(_spelt(text))
  if clock is not None:
    return Answer(_key(_spelt(text).casefold()), None, clock)
  text = _APPROXIMATED.sub("", text)
  if _PERCENT_WITHIN.search(text):
    text = _PERCENT_VALUE.sub(r"\\frac{\1}{100}", text)
  bare = _PERCENT.sub("", text)
  head, unit = split_unit(bare)
  key = _key(head)
  if not key:
    raise UnreadableError("is empty")
  percent, text = bare != text, _JOINING_TEXT.sub(r" \1 ", head)
  plain = _spelt(text)
  if (number := quick_number(text)) is not None:
    return Answer(key, unit, Formula(number, percent))
  return Answer(key, unit, _based(plain) or _words(text, plain) or _ratio(plain) or _formula(text, percent))


def _spelt(text: str) -> str:
  r"""The text without `\text`."""
  return re.sub(r"\s+", " ", _TEXT.sub(r"\1", text)).strip()


_IDLE_BRACES = re.compile(r"(?<=[\^_])\s?\{\s?(\w|\\[a-zA-Z]+)\s?\}|(?<=angle)\s?\{([A-Z]+)\}")
_SPACE = re.compile(r"(\\[a-zA-Z]+ (?=[a-zA-Z]))| (?![0-9])|(?<![0-9,]) |(?<=,) (?![0-9]{3}(?![0-9]))")


def _key(text: str) -> str:
  """The text without idle braces and the spaces that part no digits; `1, 234` stays a list."""
  text = _IDLE_BRACES.sub(lambda match: f"{match[1] or ' ' + match[2]} ", text.replace("...", r"\dots "))
  text = " ".join(text.split())
  return _SPACE.sub(lambda match: match[1] or "", text)


def quick_number(text: str) -> sympy.Rational | None:
  """The value of a plain number or fraction, as the parser gives it; None for all else."""
  match = _QUICK.fullmatch(text)
  bottom = "0" if match is None else match["b"] or match["d"] or "1" + "0" * len(match["part"] or "")
  if match is None or int(bottom) == 0:
    return None
  top = match["a"] or match["c"] or match["integer"] + (match["part"] or "")
  return sympy.Rational(int(match["sign"] + top), int(bottom))


def _clock(plain: str) -> Qualified | None:
  match = _CLOCK.fullmatch(plain)
  if match is None or match["minute"] is None and match["half"] is None:
    return None
  time = f"{int(match['hour'])}:{match['minute'] or '00'}:{match['second'] or '00'}"
  return Qualified(time, (match["half"] or "").lower(), _ratio(plain))


def _ratio(plain: str) -> Formula | None:
  """`a : b` as the quotient, `a : b : c` as the quotients by the first of a function of its own."""
  terms = [term.strip() for term in plain.split(":")]
  if not 2 <= len(terms) <= 9 or not all(re.search(r"[0-9]|^.$", term) for term in terms):
    return None
  values: list[Any] = [quick_number(term) or _parsed(term) for term in terms]
  if not all(isinstance(value, sympy.Expr) and value != 0 for value in values):
    return None
  quotients = [value / values[0] for value in values[1:]]
  return Formula(1 / quotients[0] if len(quotients) == 1 else _RATIO(*quotients), percent=False)


def _based(plain: str) -> Qualified | None:
  match = _BASED.fullmatch(plain)
  if match is None:
    return None
  name = match["base"] or match["one"] or match["said"]
  base = int(name) if name.isdigit() else _BASES.index(name) if name in _BASES else 0
  fits = 2 <= base <= 16 and all(int(digit, 16) < base for digit in match["digits"])
  return Qualified(match["digits"].lstrip("0") or "0", f"base {base}") if fits else None


def _words(text: str, plain: str) -> Form | None:
  """Words, or the set that they name. `plain` is the text without `\\text`."""
  folded = _folded(plain)
  if _EMPTY.fullmatch(folded):
    return Formula(sympy.S.EmptySet, percent=False)
  if _ALL.fullmatch(folded):
    return Formula(sympy.S.Reals, percent=False)
  option = _OPTION.fullmatch(plain)
  if option is not None and not _OTHER_OPTION.search(option["rest"] or ""):
    return Words(frozenset({(option["a"] or option["b"] or option["c"]).casefold()}))
  items = [item for item in _SEPARATOR.split(plain) if item]
  words = all(map(_LABEL.fullmatch, items)) or _is_text(text, plain)
  return Words(frozenset(map(_folded, items))) if words else None


def _is_text(text: str, plain: str) -> bool:
  r"""Whether it is words: all stands in `\text`, or there are only words, one of three letters."""
  if "\\text" in text:
    return _AROUND_TEXT.fullmatch(_TEXT.sub("", text)) is not None
  words = set(re.findall(r"[^\W\d_]{3,}", plain.casefold()))
  plain_words = bool(words - _NO_TEXT) and not words & (_NO_TEXT - {"and", "or"})
  return plain_words and _TEXT_CHARACTERS.fullmatch(plain) is not None and not _NUMERIC.search(plain)


def _folded(item: str) -> str:
  """One case, no punctuation, but for signs and points of numbers and signs between them."""
  return re.sub(r"\s+", " ", _PUNCTUATION.sub(" ", item.casefold())).strip()


def _formula(text: str, percent: bool) -> Formula | None:
  if (named := _NAMED.fullmatch(text)) is not None and not _NO_NAME & set(named["name"].lower().split()):
    # `Area = 25`; shorter words without `\\text` may be products of unknowns
    text = named["rest"] if text.startswith("\\text") or re.search(r"[^\W\d_]{4}", named["name"]) else text
  numbers = [
    quick_number(entry) for entry in text.removeprefix(r"\{").removesuffix(r"\}").strip().split(", ")
  ]
  if len(numbers) > 1 and None not in numbers and text.startswith("\\") == text.endswith("}"):
    return Formula(FiniteSet(*numbers), percent)  # as the parser reads it, at once
  value = _quantity(text) if _CALLED.match(text) or (value := _parsed(text)) is None else value
  if value is None and len(entries := parts(_OR.sub(", ", text), ",")) > 1:
    values = [_quantity(entry) if (one := _parsed(entry)) is None else one for entry in entries]
    value = None if any(one is None for one in values) else FiniteSet(*values)
  if isinstance(value, sympy.Tuple) and text.startswith("["):  # as programs write a list; `[2, 1]` is nothing
    value = sympy.FiniteSet(*value.args) if len(value.args) > 2 else None
  return None if value is None else Formula(value, percent)


def _quantity(text: str) -> sympy.Basic | None:
  r"""`P(A \mid B) = 1/2 = 0.5` as equations of a symbol of that name, which the parser cannot read."""
  name, *stated = parts(text, "=")
  if not stated or not _QUANTITY.match(name) or _NO_QUANTITY.search(_BRACKETS.sub("", name)):
    return None
  values = [_parsed(value) for value in stated]
  if any(value is None for value in values) or _parsed(name) is not None and not _CALLED.match(text):
    return None
  left = [sympy.Symbol(_key(name), real=True), *values]
  links = [sympy.Eq(a, b, evaluate=False) for a, b in zip(left, left[1:])]
  return links[0] if len(links) == 1 else And(*links)


def _parsed(text: str) -> sympy.Basic | sympy.MatrixBase | None:
  prepared = latex(text)
  return None if prepared is None else parsed(prepared)


def parsed(prepared: str) -> sympy.Basic | sympy.MatrixBase | None:
  """The parser's reading; None where it has none, or none that could be compared."""
  try:
    value = latex2sympy(
      prepared, is_real=True, convert_degrees=False, normalization_config=None,
      conversion_config=ConversionConfig(lowercase_symbols=False),
    )  # fmt: skip
    if not isinstance(value, (sympy.Basic, sympy.MatrixBase)) or value.has(*_UNCOMPARED):
      return None
    log10_bound(value)
  except Exception:
    # Broad on purpose: the parser raises bare Exception for what is not in its grammar, and sympy's
    # constructors what they like (TypeError, RecursionError, MemoryError at the worker's limit ...). Each
    # says the same: no formula.
    return None
  return value.as_immutable() if isinstance(value, sympy.MatrixBase) else value


def log10_bound(value: sympy.Basic | sympy.MatrixBase) -> float:
  """A rough bound of log10 |value|, symbols as 10. Raises TooLargeError above MAX_DIGITS, for any part."""
  if isinstance(value, sympy.Rational):
    bound = math.log10(max(abs(value.p), value.q))
  elif sizes := list(map(log10_bound, value.flat() if isinstance(value, sympy.MatrixBase) else value.args)):
    size, last = sizes[0], 10.0 ** min(sizes[-1], 300.0)
    if isinstance(value, (sympy.Pow, sympy.exp)) and value.args[-1].is_number:
      bound = (size if isinstance(value, sympy.Pow) else 1.0) * last
    elif isinstance(value, sympy.factorial) and value.args[0].is_number:
      bound = last * max(1.0, size)
    else:
      bound = sum(sizes) if isinstance(value, sympy.Mul) else max(sizes) + math.log10(len(sizes))
  else:
    bound = 1.0
  if bound > MAX_DIGITS:
    raise TooLargeError(f"has more than {MAX_DIGITS} digits")
  return bound

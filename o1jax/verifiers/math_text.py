r"""An answer's text as LaTeX that math-verify's parser reads as people mean it.

The parser takes some of what people write for something else: `2(3)` for the mixed number 2 + 3, `12_3` for 12, `5:30`
for 1/6, `1e5` for 1 * 5 * e, `5 \pmod 7` for 5 +- 7*o*d. What it would misread is written out or refused here, and so
are decimals, which it makes floats of: they become fractions, so that every comparison is exact.
"""

import re
import unicodedata

MAX_LENGTH = 400  # characters; a longer answer is unreadable
MAX_NESTING = 12  # brackets within brackets; parsing takes time quadratic in it

_BAD_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})  # controls, marks of direction, surrogates
_TYPOGRAPHY = {
  "\u2212": "-", "\u2013": "-", "\ufe63": "-", "\uff0d": "-", "\u00a0": " ", "\u2009": " ", "\u202f": r"\,",
  "\u00d7": r"\times ", "\u00b7": r"\cdot ", "\u22c5": r"\cdot ", "\u00f7": r"\div ", "\u00b1": r"\pm ",
  "\u2213": r"\mp ", "\u2264": r"\le ", "\u2265": r"\ge ", "\u2260": r"\ne ", "\u221e": r"\infty ",
  "\u03c0": r"\pi ", "\u03b8": r"\theta ", "\u221a": r"\sqrt ", "\u222a": r"\cup ", "\u2229": r"\cap ",
  "\u2208": r"\in ", "\u2205": r"\emptyset ", "\u211d": r"\mathbb{R}", "\u00b0": r"^\circ ",
  "\u00b2": "^{2}", "\u00b3": "^{3}", "\u2019": "'", "\u201c": "", "\u201d": "",
  "\u00bd": r"\frac{1}{2}", "\u00bc": r"\frac{1}{4}", "\u00be": r"\frac{3}{4}",
  "\u2153": r"\frac{1}{3}", "\u2154": r"\frac{2}{3}",
}  # fmt: skip
_TYPOGRAPHIC = re.compile("[" + "".join(_TYPOGRAPHY) + "]")
_BOX = re.compile(r"\\(?:boxed|fbox)\s?\{(?P<inside>.*)\}")
_FONTS = r"text(?:bf|it|rm|tt|sf|normal)|math(?:rm|bf|it|sf|tt)|mbox|hbox|emph|boldsymbol"
_DRESS = tuple(
  (re.compile(pattern), plain)
  for pattern, plain in (
    (r"(?<=[0-9]),\s?\\!\s?(?=[0-9]{3})", "{,}"),
    (r"\\(?:quad|qquad|thinspace|enspace)(?![a-zA-Z])|(?<!\\)\\[;: ]|~", " "),
    (r"(?<![0-9\\])\\,|(?<!\\)\\,(?![0-9])", " "),
    (r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits)(?![a-zA-Z])\.?|(?<!\\)\\!", ""),
    (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
    (rf"\\(?:{_FONTS})\s?\{{", r"\\text{"),
    (r"\\varnothing(?![a-zA-Z])", r"\\emptyset "),
    (r"\\[lr]vert(?![a-zA-Z])", "|"),
    (r"\\lbrace(?![a-zA-Z])", r"\\{"),
    (r"\\rbrace(?![a-zA-Z])", r"\\}"),
    (r"\\(?:langle|lparen)(?![a-zA-Z])", "("),
    (r"\\(?:rangle|rparen)(?![a-zA-Z])", ")"),
    (r"\\text\{\s*\}", " "),
  )
)
_DELIMITERS = re.compile(r"(?<!\\)\\[()\[\]]|\$")
CURRENCY_SIGN = "\u20ac"  # what any sign of a currency becomes: they are told apart by nobody's gold answers
_ANY_CURRENCY = re.compile(r"\\\$|[€£¥₹]")
_FULL_STOP = re.compile(r"(?<![.,;])[.,;][ *`]*$")  # an ellipsis is none
_CONTENT = re.compile(r"\w|\\\{\s*\\\}")


class UnreadableError(ValueError):
  """Text that cannot be an answer, whatever it is to be compared with."""


def clean(text: str) -> str:
  r"""The text without its typography: delimiters, spacing, sizes, fonts (all of them `\text`), an outer box.

  Raises UnreadableError where it is empty, too long, nested too deeply, unbalanced, or holds control characters.
  """
  if len(text) > MAX_LENGTH:
    raise UnreadableError(f"is longer than {MAX_LENGTH} characters")
  text = re.sub(r"\s+", " ", text)
  if any(unicodedata.category(letter) in _BAD_CATEGORIES for letter in text):
    raise UnreadableError("holds a control character")
  text = _ANY_CURRENCY.sub(CURRENCY_SIGN, text)
  text = _TYPOGRAPHIC.sub(lambda match: _TYPOGRAPHY[match[0]], text)
  for pattern, plain in _DRESS:
    text = pattern.sub(plain, text)
  text = _stripped(text)
  while (box := _BOX.fullmatch(text)) is not None:
    text = _stripped(box["inside"])
  _check_nesting(text)
  if not _CONTENT.search(text):
    raise UnreadableError("is empty")
  return text


def _stripped(text: str) -> str:
  """Delimiters off, and what may stand around an answer: stars of Markdown, a full stop."""
  text = re.sub(r"\s+", " ", _DELIMITERS.sub("", text))
  return _FULL_STOP.sub("", text.strip(" *`")).strip(" *`")


def _check_nesting(text: str) -> None:
  """Raises UnreadableError where braces do not match, or brackets of all kinds nest too deeply."""
  depth = braces = 0
  bare = text.replace("\\\\", "  ")
  for index, letter in enumerate(bare):
    depth += (letter in "([{") - (letter in ")]}")
    if index == 0 or bare[index - 1] != "\\":
      braces += (letter == "{") - (letter == "}")
    if depth > MAX_NESTING:
      raise UnreadableError("is nested too deeply")
    if braces < 0:
      break
  if braces:
    raise UnreadableError("has an unbalanced brace")


# Digits in groups of three. A bare comma groups them only where nothing else is in the answer but a name before it.
_GROUPED = re.compile(r"(?<![0-9.])[0-9]{1,3}(?:(?:\s?\{,\}\s?|,?\\,\s?)[0-9]{3})+(?![0-9])")
_COMMA_NUMBER = re.compile(
  r"(?P<before>(?:[^0-9]*=)?\s*[-+]?\s?)(?P<digits>[1-9][0-9]{0,2}(?:,[0-9]{3})+)(?P<after>(?:\.[0-9]+)?)"
)
_MIXED = re.compile(
  r"(?<![0-9}^_./])(?P<whole>[0-9]+)"
  r"(?:\s?\\frac\{(?P<a>[0-9]+)\}\{(?P<b>[0-9]+)\}|\s(?P<c>[0-9]+)\s?/\s?(?P<d>[0-9]+)(?![0-9./]))"
)
_REPEATING = re.compile(r"(?P<whole>[0-9]*)\.(?P<once>[0-9]*)\\(?:overline|bar|dot)\{(?P<again>[0-9]+)\}")
_DECIMAL = re.compile(r"(?P<whole>[0-9]*)\.(?P<part>[0-9]+)")
_FRACTION = re.compile(r"\\frac\s*(?P<top>\{[^{}]*\}|[0-9a-zA-Z])\s*(?P<bottom>\{[^{}]*\}|[0-9a-zA-Z])")
_AND_OR = re.compile(
  r"\s*,?\s*(?:\\text\{\s*,?\s*(?:and|or)\s*\}|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z]))\s*", re.IGNORECASE
)
_REWRITES = tuple(
  (re.compile(pattern), plain)
  for pattern, plain in (
    (r"\\text\{\s*([a-zA-Z])\s*\}", r"\1"),
    (r"\*\*", "^"),
    (r"(?<![a-zA-Z\\])(?:infinity|inf|oo)(?![a-zA-Z])", r"\\infty "),
    (r"(?<![a-zA-Z\\])pi(?![a-zA-Z])", r"\\pi "),
    (r"(?<![a-zA-Z\\])sqrt(?=\s?[({])", r"\\sqrt"),
    (r"(\\sqrt|\^)\s*\(([^()]*)\)", r"\1{\2}"),
    (r"\\sqrt\s*([0-9a-zA-Z])(?![0-9.])", r"\\sqrt{\1}"),
    (r"\^\s*([0-9]*\.[0-9]+)", r"^{\1}"),
    (r"(?<=[0-9])[eE]([+-]?[0-9]{1,4})(?![0-9.])", r"\\cdot 10^{\1}"),
    (r"\\log_([0-9])(?![0-9])", r"\\log_{\1}"),
    (r"<=", r"\\le "),
    (r">=", r"\\ge "),
    (r"!=", r"\\ne "),
  )
)
# Before decimals are written out: two numbers side by side, a point that is not a decimal's.
_TWO_NUMBERS = re.compile(r"[0-9]\s+\.?[0-9]|\.[0-9]*\s*\.|[a-zA-Z}]\.|\.(?![0-9\\])")
# Factors side by side, of which the parser would make a mixed number.
_PRODUCTS = tuple(
  (re.compile(pattern), plain)
  for pattern, plain in (
    (r"(?<!_[0-9])(?<=[0-9])\s*(?=\(|\\binom|\\frac)", r"\\cdot "),
    (r"(?<=\))\s*(?=[0-9a-zA-Z(]|\\(?:frac|sqrt|binom|pi))", r"\\cdot "),
    (r"((?:\\frac|\\binom)\{[^{}]*\}\{[^{}]*\})\s*(?=[0-9(]|\\(?:frac|binom))", r"\1\\cdot "),
  )
)
_MISREAD = re.compile(
  r"\^\s*(?:[^\s{}^\\]|\{[^{}]*\})\s*\^|[0-9][eE][-+]?[0-9]|[0-9]\s*\{|[0-9)]\s*_|\\sqrt\s*[0-9]|[.'\"?@#:`%~]"
)
_COMMANDS = frozenset(
  r"""frac sqrt cdot times div pm mp cup cap setminus backslash infty le leq leqslant ge geq geqslant lt gt ne neq in
  notin emptyset mathbb log ln exp sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh lfloor rfloor lceil rceil
  binom begin end pi theta alpha beta gamma delta epsilon varepsilon zeta eta iota kappa lambda mu nu xi rho sigma tau
  upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega overline angle approx
  """.split()
)
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)(?!\{[pbv]?matrix\})")
# The parser computes these at once, whatever their size: binomials, and the ends of an interval to order them.
_SMALL = r"\{(?:[a-z+-]|[0-9]{1,4}(?![0-9])){1,6}\}"
_AT_ONCE = re.compile(
  rf"\\binom(?!{_SMALL}{_SMALL})|\\Gamma\s*\(|\^\s*\{{?[-+]?[0-9]{{5}}|\^\s*\{{[-+0-9\s]*\^|!\s*[!)]"
)


def latex(text: str) -> str | None:
  """LaTeX for the parser from a cleaned answer without unit or percent sign; None where the parser would misread it."""
  text = _GROUPED.sub(lambda match: re.sub(r"[^0-9]", "", match[0]), text).replace(r"\,", " ")
  text = re.sub(r"\s+", " ", text).strip()
  number = _COMMA_NUMBER.fullmatch(text)
  if number is not None:
    text = number["before"] + number["digits"].replace(",", "") + number["after"]
  text = _AND_OR.sub(", ", text)
  for pattern, plain in _REWRITES:
    text = pattern.sub(plain, text)
  text = _FRACTION.sub(_braced_fraction, text)
  text = _MIXED.sub(_improper, text)
  if _TWO_NUMBERS.search(text):
    return None
  text = _DECIMAL.sub(_decimal, _REPEATING.sub(_repeating, text))
  for pattern, plain in _PRODUCTS:
    text = pattern.sub(plain, text)
  known = all(command in _COMMANDS for command in _COMMAND.findall(text))
  if not known or _MISREAD.search(text) or _ENVIRONMENT.search(text) or _AT_ONCE.search(text):
    return None
  return re.sub(r",\s*", ", ", text)  # lest `(1,234)` hold one number


def _braced_fraction(match: re.Match[str]) -> str:
  top, bottom = (argument.strip("{}") for argument in (match["top"], match["bottom"]))
  return rf"\frac{{{top}}}{{{bottom}}}"


def _improper(match: re.Match[str]) -> str:
  """A mixed number as one fraction; what is none, since its fraction is above 1, as it stands."""
  whole, top, bottom = int(match["whole"]), int(match["a"] or match["c"]), int(match["b"] or match["d"])
  return rf"\frac{{{whole * bottom + top}}}{{{bottom}}}" if top < bottom else match[0]


def _decimal(match: re.Match[str]) -> str:
  return rf"\frac{{{match['whole']}{match['part']}}}{{1{'0' * len(match['part'])}}}"


def _repeating(match: re.Match[str]) -> str:
  """0.1666... written with a bar: (digits with one period - digits before it) / 99..900..0."""
  before, again = match["whole"] + match["once"], match["again"]
  top = int(before + again) - int(before or "0")
  return rf"\frac{{{top}}}{{{'9' * len(again)}{'0' * len(match['once'])}}}"

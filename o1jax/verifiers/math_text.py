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
  "\u2212": "-", "\u2013": "-", "\ufe63": "-", "\uff0d": "-", "\u2010": "-", "\u2011": "-", "\u00a0": " ", "\u2009": " ", "\u202f": r"\,",
  "\u00d7": r"\times ", "\u00b7": r"\cdot ", "\u22c5": r"\cdot ", "\u00f7": r"\div ", "\u00b1": r"\pm ",
  "\u2213": r"\mp ", "\u2264": r"\le ", "\u2265": r"\ge ", "\u2260": r"\ne ", "\u221e": r"\infty ",
  "\u03c0": r"\pi ", "\u03b8": r"\theta ", "\u221a": r"\sqrt ", "\u222a": r"\cup ", "\u2229": r"\cap ",
  "\u2208": r"\in ", "\u2205": r"\emptyset ", "\u211d": r"\mathbb{R}", "\u00b0": r"^\circ ",
  "\u2019": "'", "\u201c": "", "\u201d": "",
  "\u00bd": r"\frac{1}{2}", "\u00bc": r"\frac{1}{4}", "\u00be": r"\frac{3}{4}",
  "\u2153": r"\frac{1}{3}", "\u2154": r"\frac{2}{3}",
}  # fmt: skip
_TYPOGRAPHIC = re.compile("[" + "".join(_TYPOGRAPHY) + "]")
_RAISED = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b\u207f"
_LOWERED = "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089"
_PLAIN = str.maketrans(_RAISED + _LOWERED, "0123456789+-n0123456789")
_SCRIPTS = re.compile(rf"(?P<up>[{_RAISED}]+)|[{_LOWERED}]+")
_ROOT = re.compile("\u221a\\s?([0-9]+)")  # the sign takes all digits behind it, `\sqrt` only one
_BOX = re.compile(r"\\(?:boxed|fbox)\s?\{(?P<inside>.*)\}")
_FONTS = r"underline|text(?:bf|it|rm|tt|sf|normal)|math(?:rm|bf|it|sf|tt)|mbox|hbox|emph|boldsymbol"
_DRESS = tuple(
  (re.compile(pattern), plain)
  for pattern, plain in (
    (r"(?<=[0-9]),\s?\\!\s?(?=[0-9]{3})", "{,}"),
    (r"\\\\\s?\[[0-9.]{1,4}(?:pt|ex|em|mm|cm)\]", r"\\\\"),
    (r"\\\\\s?(?=\\end\b)", ""),
    (r"\\left\s?<", "("),
    (r"\\right\s?>", ")"),
    (
      r"[(\[]\s?\\begin\s?\{array\}\s?\{[lcr| ]*\}((?:(?!\\end).)*)\\end\s?\{array\}\s?(?:\\right)?\s?[)\]]",
      r"\\begin{pmatrix}\1\\end{pmatrix}",
    ),
    (r"(?<=[)\]}]) ?U ?(?=[(\[{])", r"\\cup "),
    (r"\\mathbb ([NZQRC])(?![a-zA-Z])", r"\\mathbb{\1}"),
    (r"\\(?:quad|qquad|thinspace|enspace)(?![a-zA-Z])|(?<!\\)\\[;: ]|~", " "),
    (r"(?<![0-9\\])\\,|(?<!\\)\\,(?![0-9])", " "),
    (r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits)(?![a-zA-Z])\.?|(?<!\\)\\!", ""),
    (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
    (r"\\[dt]binom(?![a-zA-Z])", r"\\binom"),
    (rf"\\(?:{_FONTS})\s?\{{", r"\\text{"),
    (r"\\varnothing(?![a-zA-Z])", r"\\emptyset "),
    (r"\\[lr]vert(?![a-zA-Z])", "|"),
    (r"\\lbrace(?![a-zA-Z])", r"\\{"),
    (r"\\rbrace(?![a-zA-Z])", r"\\}"),
    (r"\\(?:langle|lparen)(?![a-zA-Z])", "("),
    (r"\\(?:rangle|rparen)(?![a-zA-Z])", ")"),
    (r"\\text\{\s*[.,;]?\s*\}", " "),
  )
)
_DELIMITERS = re.compile(r"(?<!\\)\\[()\[\]]|\$")
CURRENCY_SIGN = "\u20ac"  # what any sign of a currency becomes: they are told apart by nobody's gold answers
_ANY_CURRENCY = re.compile(r"\\\$|[€£¥₹]")
_FULL_STOP = re.compile(r"(?<![.,;])[.,;][ *`]*$")  # an ellipsis is none
_CONTENT = re.compile(r"\w|\\\{\s*\\\}")


_ESCAPED_TWICE = re.compile(r"\\\\(?=(?:[dt]?frac|sqrt|text|pi|left|right|infty|cup|cdot|times)(?![a-zA-Z]))")


class UnreadableError(ValueError):
  """Text that cannot be an answer, whatever it is to be compared with."""


def clean(text: str) -> str:
  r"""The text without its typography: delimiters, spacing, sizes, fonts (all of them `\text`), an outer box.

  Raises UnreadableError where it is empty, too long, nested too deeply, unbalanced, or holds control characters.
  """
  if len(text) > MAX_LENGTH:
    raise UnreadableError(f"is longer than {MAX_LENGTH} characters")
  text = re.sub(r"\s+", " ", text)
  if "\\begin" not in text:  # without rows to end, a second backslash is one that was escaped once too often
    text = _ESCAPED_TWICE.sub(r"\\", text)
  if any(unicodedata.category(letter) in _BAD_CATEGORIES for letter in text):
    raise UnreadableError("holds a control character")
  text = _ANY_CURRENCY.sub(CURRENCY_SIGN, text)
  text = _SCRIPTS.sub(lambda match: f"{'^' if match['up'] else '_'}{{{match[0].translate(_PLAIN)}}}", text)
  text = _ROOT.sub(r"\\sqrt{\1}", text)
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
  text = re.sub(r"\s+", " ", _DELIMITERS.sub(" ", text))  # lest `$3$$4$` be 34
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
  r"(?P<before>(?:[^0-9]*=)?\s*[-+]?\s?)(?P<digits>[1-9][0-9]{0,2}(?:(?:,[0-9]{3})+|(?: [0-9]{3})+))(?P<after>(?:\.[0-9]+)?(?:\s?\\(?:pi|sqrt)[^,]*)?)"
)
_BRACED_NUMBER = re.compile(r"(?<=(?<!\\)\{)[1-9][0-9]{0,2}(?:,[0-9]{3})+(?=\})")  # `\frac{1,000}{3}`
_SET_BUILDER = re.compile(
  r"\\\{\s?(?P<name>[a-z])\s?(?:\\in\s?\\mathbb\{R\}\s?)?(?:\\mid(?![a-zA-Z])|[|:])\s?(?P<rest>.*[^\s\\])\s?\\\}"
)
_MIXED = re.compile(
  r"(?<![0-9}^_./])(?P<whole>[0-9]+)"
  r"(?:\s?\\frac\{(?P<a>[0-9]+)\}\{(?P<b>[0-9]+)\}|\s(?P<c>[0-9]+)\s?/\s?(?P<d>[0-9]+)(?![0-9./]))"
)
_REPEATING = re.compile(r"(?P<whole>[0-9]*)\.(?P<once>[0-9]*)\\(?:overline|bar|dot)\{(?P<again>[0-9]+)\}")
_DECIMAL = re.compile(r"(?P<whole>[0-9]*)\.(?P<part>[0-9]+)")
_ARGUMENT = r"\{(?:[^{}]|\{[^{}]*\})*\}|[0-9a-zA-Z]|\\pi(?![a-zA-Z])"
_FRACTION = re.compile(rf"\\frac\s*(?P<top>{_ARGUMENT})\s*(?P<bottom>{_ARGUMENT})")
_ROOT_OF_FRACTION = re.compile(r"\\sqrt\s?(\\frac\{[^{}]*\}\{[^{}]*\})")
_AND_OR = re.compile(
  r"\s*,?\s*(?:\\text\{\s*,?\s*(?:and|or)\s*\}|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z]))\s*", re.IGNORECASE
)
# Two inequalities at once are no list: that would be read as `x < 1 or x > 5`.
_BOTH = re.compile(
  r"(?:[<>]|\\[lg](?:eq?|t|eqslant)(?![a-zA-Z])).*(?<![a-zA-Z\\])and(?![a-zA-Z]).*(?:[<>]|\\[lg](?:eq?|t|eqslant)(?![a-zA-Z]))",
  re.IGNORECASE,
)
_PLUS_MINUS = re.compile(r"\\(?:pm|mp)(?![a-zA-Z])")
_REWRITES = tuple(
  (re.compile(pattern), plain)
  for pattern, plain in (
    (r"\\text\{\s*([a-zA-Z])\s*\}", r"\1"),
    (r"\*\*", "^"),
    (r"(?<![a-zA-Z\\])(?:infinity|inf|oo)(?![a-zA-Z])", r"\\infty "),
    (r"(?<![a-zA-Z\\])pi(?![a-zA-Z])", r"\\pi "),
    (r"(?<![a-zA-Z\\])sqrt(?=\s?[({])", r"\\sqrt"),
    (r"(?<![a-zA-Z\\])(log|ln|sin|cos|tan|cot|sec|csc)(?![a-zA-Z])", r"\\\1"),
    (r"(\\sqrt|\^)\s*\(([^()]*)\)", r"\1{\2}"),
    (r"\\sqrt\[([0-9]{1,3})\]\s*([0-9a-zA-Z])(?![0-9.])", r"\\sqrt[\1]{\2}"),
    (r"(?<=\})\s*-\s*(?=\\\{)", r"\\setminus "),
    (r"^\s*\\approx(?![a-zA-Z])\s*", ""),
    (r"\\sqrt\s*([0-9a-zA-Z])(?![0-9.])", r"\\sqrt{\1}"),
    (r"\^\s*([0-9]*\.[0-9]+)", r"^{\1}"),
    (r"(?<=[0-9])[eE]([+-]?[0-9]{1,4})(?![0-9.])", r"\\cdot 10^{\1}"),
    (r"\\log_([0-9])(?![0-9])", r"\\log_{\1}"),
    (r"(\\(?:sin|cos|tan|cot|sec|csc|sinh|cosh|tanh|log|ln)\s?\^)\s?([0-9])", r"\1{\2}"),
    (r"(?<=\^[0-9]) (?=[0-9]+\^)", r"\\cdot "),
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
  r"|(?<![a-zA-Z\\])(?<!n\{)(?<!d\{)[a-zA-Z]{5,}"  # words, but for `\begin{pmatrix}`
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
  text = _BRACED_NUMBER.sub(lambda match: match[0].replace(",", ""), text)
  if (described := _SET_BUILDER.fullmatch(text)) is not None:
    text = described["rest"]
  number = _COMMA_NUMBER.fullmatch(text)
  if number is not None:
    text = number["before"] + re.sub("[, ]", "", number["digits"]) + number["after"]
  if _BOTH.search(text):
    return None
  text = _AND_OR.sub(", ", text)
  text = _both_signs(text)
  for pattern, plain in _REWRITES:
    text = pattern.sub(plain, text)
  text = _FRACTION.sub(_braced_fraction, text)
  text = _ROOT_OF_FRACTION.sub(r"\\sqrt{\1}", text)
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


def _both_signs(text: str) -> str:
  r"""`\frac{1 \pm x}{2}` as the two that it stands for: between brackets the parser knows no `\pm`."""
  signs = list(_PLUS_MINUS.finditer(text))
  before = text[: signs[0].start()] if len(signs) == 1 else ""
  # The braces of a set hold a list, in which the parser knows it.
  bare = before.replace(r"\{", "").replace(r"\}", "")
  if sum(bare.count(opened) - bare.count(closed) for opened, closed in ("{}", "()")) <= 0:
    return text
  return f"{before}+{text[signs[0].end() :]}, {before}-{text[signs[0].end() :]}"


def _braced_fraction(match: re.Match[str]) -> str:
  top, bottom = (
    argument[1:-1] if argument[0] == "{" else argument for argument in (match["top"], match["bottom"])
  )
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

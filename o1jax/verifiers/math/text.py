r"""An answer's text without its dress, and as LaTeX that math-verify's parser reads as people mean it.

The parser must not be given everything as written. Text is rewritten where it would be misread (`2(3)` would
be the mixed number 2 + 3) and decimals become fractions, so that comparisons are exact; it is vetoed where
nothing sure can be read off it: numbers side by side, `\frac142`, `[0, \infty]`, words, huge computations.
"""

import functools
import itertools
import re
import unicodedata
from collections.abc import Callable
from typing import Any

MAX_LENGTH = 400  # characters; a longer answer is unreadable
MAX_NESTING = 12  # brackets within brackets; parsing takes time quadratic in it

_BAD_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})  # controls, marks of direction, surrogates
CURRENCY_SIGN = "\u20ac"  # what any sign of a currency becomes: nobody's gold answers distinguish them
_SIGNS = {
  "-": "−–‐‑﹣", "'": "’′", "": "“”\ufe0f", ", ": "、", ".": "。", "/": "⁄", CURRENCY_SIGN: "£¥₹",
  r"\,": "\u202f", r"\times ": "×", r"\cdot ": "·⋅", r"\div ": "÷", r"\pm ": "±", r"\mp ": "∓",
  r"\sqrt ": "√", r"\sqrt[3]": "∛", r"\le ": "≤", r"\ge ": "≥", r"\ne ": "≠", r"\approx ": "≈",
  r"\equiv ": "≡", r"\to ": "→", r"\in ": "∈", r"\cup ": "∪", r"\cap ": "∩", r"\emptyset ": "∅",
  r"\infty ": "∞", r"^\circ ": "°", r"\mathbb{R}": "ℝ", r"\mathbb{Z}": "ℤ", r"\mathbb{N}": "ℕ",
}  # fmt: skip
_TYPOGRAPHY = {letter: plain for plain, letters in _SIGNS.items() for letter in letters}
_RAISED = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b\u207f"
_LOWERED = "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089"
_PLAIN = str.maketrans(_RAISED + _LOWERED, "0123456789+-n0123456789")
_SCRIPTS = re.compile(rf"(?P<up>[{_RAISED}]+)|[{_LOWERED}]+")
_ROOT = re.compile("\u221a\\s?([0-9]+)")  # the sign takes all digits behind it, `\sqrt` only one


def _rules(*pairs: tuple[str, Any]) -> Callable[[str], str]:
  """A function that replaces the first of each pair, a pattern, by the second, in this order."""
  rules = [(re.compile(pattern), plain) for pattern, plain in pairs]
  return lambda text: functools.reduce(lambda rewritten, rule: rule[0].sub(rule[1], rewritten), rules, text)


class UnreadableError(ValueError):
  """Text that cannot be an answer, whatever it is to be compared with."""


def ascii_signs(text: str) -> str:
  """Signs beyond ASCII in LaTeX, full-width ones and letters of maths fonts as plain ones, no pictures."""
  if text.isascii():
    return text
  text = _SCRIPTS.sub(lambda match: f"{'^' if match['up'] else '_'}{{{match[0].translate(_PLAIN)}}}", text)
  return "".join(map(_ascii_sign, _ROOT.sub(r"\\sqrt{\1}", text)))


def _ascii_sign(letter: str) -> str:
  if letter.isascii() or letter in _TYPOGRAPHY:
    return _TYPOGRAPHY.get(letter, letter)
  if letter == "\u220e" or unicodedata.category(letter) == "So" and letter not in "℃℉":
    return " "
  plain = unicodedata.normalize("NFKC", letter)
  if "\u2044" in plain:  # a vulgar fraction
    return r"\frac{" + plain.replace("\u2044", "}{") + "}"
  if plain != letter:
    return r"\{" if plain == "{" else r"\}" if plain == "}" else "".join(map(_ascii_sign, plain))
  name = unicodedata.name(letter, "").replace("LAMDA", "LAMBDA").split()
  if name[:1] == ["GREEK"] and name[2:3] == ["LETTER"] and len(name) == 4:
    return rf"\{name[3].lower() if name[1] == 'SMALL' else name[3].capitalize()} "
  return str(unicodedata.decimal(letter, letter))


# Commands by what is written for them.
_COMMANDS = {
  "": "left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr displaystyle textstyle scriptstyle limits"
      " tiny small normalsize large Large LARGE huge Huge bf it rm sf tt bfseries boldmath",
  " ": "quad qquad thinspace enspace", "|": "lvert rvert vert", "[": "lbrack", "]": "rbrack",
  "(": "langle lparen", ")": "rangle rparen", r"\{": "lbrace", r"\}": "rbrace",
  r"\frac": "dfrac tfrac cfrac", r"\binom": "dbinom tbinom",
  r"\text": "underline textbf textit textrm texttt textsf textsc textup textnormal mathrm mathbf mathit"
            " mathsf mathtt mathnormal mbox hbox emph boldsymbol pmb bm operatorname",
  r"\emptyset ": "varnothing O", r"\text{ or }": "lor vee", r"\equiv ": "iff Leftrightarrow",
  r"\le ": "leq leqslant", r"\ge ": "geq geqslant", r"\ne ": "neq", r"\to ": "rightarrow longrightarrow",
  r"\dots ": "ldots cdots dotsc dotsb", r"\pmod ": "bmod mod",
}  # fmt: skip
_PLAINER = {command: plain for plain, commands in _COMMANDS.items() for command in commands.split()}
_COMMAND = re.compile(r"(?<!\\)\\([a-zA-Z]+)")
_FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|max|min|gcd|lcm|det"
_ROWS = r"(?:aligned|align|alignat|gathered|gather|split|equation|multline|cases|array|eqnarray)"
_before_commands = _rules(
  (r"\\(?:text)?color\s?\{[^{}]*\}\s?|\\[hv]?phantom\s?\{[^{}]*\}|\\(?:left|right)\s?\.", ""),
  (r"\{\s?\\(?:bf|it|rm|sf|tt)\s([^{}]*)\}", r"\\text{\1}"),
  (r"(?<=[0-9]),\s?\\!\s?(?=[0-9]{3})", "{,}"),
  (r"(?<=\\\\)\s?\[[0-9.]{1,4}(?:pt|ex|em|mm|cm)\]|\\\\\s?(?=\\end\b)", ""),
  (r"\\(?:left\s?<|right\s?>)", lambda match: "(" if match[0][-1] == "<" else ")"),
  (r"(?<!\\)\\[;: ]|~|(?<![0-9\\])\\,|(?<!\\)\\,(?![0-9])", " "),
  (r"(?<!\\)\\!|\\operatorname\*(?=\{)", lambda match: match[0].strip("\\!*")),
)
_MATRIX = r"[(\[]\s?\\begin\s?\{array\}\s?\{[lcr| ]*\}((?:(?!\\end).)*)\\end\s?\{array\}\s?[)\]]"
_MODULUS = (
  r"\s?\(\s?(?:\\text\{\s*mod\s*\}|(?:\\p)?mod)\s?([^()]*)\)|\s?\\pmod\s*(?:\{([^{}]*)\}|([0-9a-z]+))"
)
_after_commands = _rules(
  (_MATRIX, r"\\begin{pmatrix}\1\\end{pmatrix}"),
  (r"(?<=[)\]}]) ?U ?(?=[(\[{])", r"\\cup "),
  (r"\\mathbb ([NZQRC])(?![a-zA-Z])", r"\\mathbb{\1}"),
  (rf"\\?text\s?\{{\s*({_FUNCTIONS})\s*\}}\s?", r"\\\1 "),
  (r"\\text\s?\{\s*([abdeiknpqrtuvwxyz])\s*\}", r"\1"),
  (r"\\text\s?\{\s*(?:infinity|infty)\s*\}", r"\\infty "),
  (r"\\text\s?\{\s*[.,;]?\s*\}", " "),
  (r"\{[:,]\}(?![0-9]{3})", lambda match: match[0][1]),
  (r"\{\}\s?(?=\^)", ""),
  (_MODULUS, r"\\pmod{\1\2\3}"),
)  # fmt: skip
_SYSTEM = re.compile(
  rf"(?:\\\{{|\{{)?\s?\\begin\s?\{{{_ROWS}\*?\}}\s?(?:\{{[lcr| ]*\}})?(?P<rows>(?:"
  rf"(?!\\begin).)*)\\end\s?\{{{_ROWS}\*?\}}\s?"
)
_RELATION = r"(?:=|[<>]|\\(?:le|ge|leq|geq|ne|neq|lt|gt|equiv|approx|in|leqslant|geqslant)(?![a-zA-Z]))"
_DELIMITERS = re.compile(r"(?<!\\)\\[()\[\]]|\$")
_ANY_CURRENCY = re.compile(
  r"(?:\bUS\s?)?\\\$|\\text\{\s*(?:US\s?)?\\?\$\s*\}|^\s?(?:\\text\s?\{\s*)?(?:USD|EUR"
  r"|Rs\.?)\s*\}?(?=\s?[0-9])"
)
_FULL_STOP = re.compile(r"(?<![.,;])[.,;][ *`_]*$")  # an ellipsis is none
_END_SIGN = re.compile(r"\s*\\(?:blacksquare|square|checkmark|qed|Box)(?![a-zA-Z])\s*$")
_QUOTED = re.compile(r"(?P<mark>[\"'])(?P<inside>[^\"']*)(?P=mark)")
_QUOTED_LIST = re.compile(r"\[\s*(?P<mark>[\"'])[^\"']*(?P=mark)(?:\s*,\s*(?P=mark)[^\"']*(?P=mark))*\s*\]")
_BOX = re.compile(r"\\(?:boxed|fbox)\s?\{(?P<inside>.*)\}")
_CONTENT = re.compile(r"\w|\\\{\s*\\\}")
_ESCAPED_TWICE = re.compile(r"\\\\(?=(?:[dt]?frac|sqrt|text|pi|left|right|infty|cup|cdot|times)(?![a-zA-Z]))")


def clean(text: str) -> str:
  r"""The text without delimiters, spacing, sizes, colours, an outer box, and with all fonts as `\text`.

  Raises UnreadableError where it is empty, too long, nested too deeply, unbalanced, or not printable.
  """
  if len(text) > MAX_LENGTH:
    raise UnreadableError(f"is longer than {MAX_LENGTH} characters")
  text = re.sub(r"\s+", " ", text)
  if not text.isprintable() and any(unicodedata.category(letter) in _BAD_CATEGORIES for letter in text):
    raise UnreadableError("holds a control character")
  if "\\begin" not in text:  # without rows to end, a second backslash is one that was escaped once too often
    text = _ESCAPED_TWICE.sub(r"\\", text)
  text = ascii_signs(_ANY_CURRENCY.sub(CURRENCY_SIGN, text))
  if _QUOTED_LIST.fullmatch(text.strip()):
    text = re.sub("[\"'\\[\\]]", "", text)
  if re.search(r"[\\{~U]|mod", text):
    text = _COMMAND.sub(lambda match: _PLAINER.get(match[1], match[0]), _before_commands(text))
    text = _after_commands(text)
  text = _stripped(text)
  while (inside := _outer(text)) is not None:
    text = _stripped(inside)
  if "\\begin" in text:
    text = _stripped(_system(text))
  depths = itertools.accumulate((letter in "([{") - (letter in ")]}") for letter in text)
  if max(depths, default=0) > MAX_NESTING or balanced(text + "}") != text:
    raise UnreadableError("is nested too deeply, or has an unbalanced brace")
  if not _CONTENT.search(text):
    raise UnreadableError("is empty")
  return text


def _outer(text: str) -> str | None:
  """The inside of an outer box, outer quotes or outer braces; None where there are none."""
  if (match := _BOX.fullmatch(text) or _QUOTED.fullmatch(text)) is not None:
    return match["inside"]
  return text[1:-1] if text[:1] == "{" and balanced(text[1:]) == text[1:-1] else None


def balanced(text: str) -> str | None:
  r"""`text` up to the brace, `\}` apart, that closes what stands before it; None where none does."""
  depth, escaped = 1, False
  for index, letter in enumerate(text):
    if not escaped:
      depth += (letter == "{") - (letter == "}")
    if depth == 0:
      return text[:index]
    escaped = letter == "\\" and not escaped
  return None


def _stripped(text: str) -> str:
  """Delimiters off, and what may stand around an answer: marks of Markdown, `=` before it, a full stop."""
  text = re.sub(r"\s+", " ", _DELIMITERS.sub(" ", text))  # lest `$3$$4$` be 34
  text = _FULL_STOP.sub("", _END_SIGN.sub("", text).strip(" *`")).strip(" *`")
  return re.sub(r"^__+|__+$|^(?:=|\\therefore(?![a-zA-Z]))(?!=)\s?", "", text)


def _system(text: str) -> str:
  """Rows of equations as a list, those that go on with `=` as one chain; all else (cases) as it is."""
  match = _SYSTEM.fullmatch(text)
  if match is None or re.search(rf"[^\s&\\=<>]\s*&\s*(?!{_RELATION}|\s|$)", match["rows"]):
    return text
  rows = re.sub(r"[\s,;.]*\\\\\s*", ", ", match["rows"].replace("&", " "))
  return re.sub(rf",\s*(?={_RELATION})", " ", re.sub(r"\s+", " ", rows)).strip(" ,;.")


def parts(text: str, marks: str) -> list[str]:
  """The text parted at each of these characters that stands in no bracket."""
  pieces, depth, start = [], 0, 0
  for index, letter in enumerate(text):
    depth += (letter in "([{") - (letter in ")]}")
    if letter in marks and depth <= 0:
      pieces.append(text[start:index].strip())
      start = index + 1
  return [*pieces, text[start:].strip()]


# Digits in groups of three: a bare comma groups them where it is the only one, or where `, ` parts entries.
_GROUPED = re.compile(r"(?<![0-9.])[0-9]{1,3}(?:(?:\s?\{,\}\s?|,?\\,\s?)[0-9]{3})+(?![0-9])")
_BARE_GROUPS = re.compile(
  r"(?<![0-9.,])(?<![0-9.] )[1-9][0-9]{0,2}(?:(?:,[0-9]{3})+|(?: [0-9]{3})+)(?![0-9]|,[0-9]| [0-9])"
)
_BRACKETED_NUMBER = re.compile(r"(?:[(\[]|\\\{)\s?[0-9]+\s?(?:[)\]]|\\\})")
_SPACED_COMMA = re.compile(r", |[0-9]\s(?:and|or)\s|;|\\text\{\s*,?\s*(?:and|or)\s*\}")
_SET_BUILDER = re.compile(
  r"\\\{\s?(?P<name>[a-z])\s?(?:\\in\s?\\mathbb\{R\}\s?)?(?:\\mid(?![a-zA-Z])"
  r"|[|:])\s?(?P<rest>.*[^\s\\])\s?\\\}"
)
_REPEATING = re.compile(
  r"(?P<integer>[0-9]*)\.(?P<once>[0-9]*)\\(?:overline|bar|dot)\s?(?:\{(?P<again>[0-9]+)\}|(?P<one>[0-9]))"
  r"(?!\s?(?:[0-9({\[]|\\(?:overline|bar|dot|frac|sqrt)(?![a-zA-Z])))"
)
_DECIMAL = re.compile(r"([0-9]*)\.([0-9]+)")
_ARGUMENT = r"\{(?:[^{}]|\{[^{}]*\})*\}|[0-9a-zA-Z]|\\pi(?![a-zA-Z])"
# A digit behind one that stands without braces: `\frac142` is neither 1/42 nor twice 1/4 to be sure.
_BESIDE = re.compile(
  rf"\\frac\s*(?:{_ARGUMENT})\s*(?:[0-9]|\{{[0-9]+\}})\s*[0-9]|[0-9)\]}}]\s?\\\{{|\\sqrt\s?[0-9]\s?[0-9]"
)
_SIDE = r"((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*?)"
_OVER, _CHOOSE = (rf"{_SIDE}\\{name}(?![a-zA-Z]){_SIDE}" for name in ("over", "choose"))
_AND_OR = re.compile(
  r"\s*,?\s*(?:\\text\{\s*,?\s*(?:and|or)\s*\}|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z]))\s*", re.IGNORECASE
)
_ORDER = r"(?:[<>]|\\[lg](?:eq?|t|eqslant)(?![a-zA-Z]))"  # two at once are no list, as `x < 1 or x > 5` is
_BOTH = re.compile(rf"{_ORDER}.*(?<![a-zA-Z\\])and(?![a-zA-Z]).*{_ORDER}", re.IGNORECASE)
_PLUS_MINUS = re.compile(r"\\(?:pm|mp)(?![a-zA-Z])")
_SCRIPT = r"(\{[^{}]*\}|[0-9a-zA-Z])"


def _braced(match: re.Match[str]) -> str:
  top, bottom = (part if part[0] == "{" else f"{{{part}}}" for part in match.group(2, 3))
  return rf"\{match[1]}{top}{bottom}"


def _primed(match: re.Match[str]) -> str:
  return f"{match[1]}_{{{match[2] or ''}{'prime' * len(match[3])}}}"


_joined_digits = lambda match: re.sub(r"[^0-9]", "", match[0])
_rewritten = _rules(
  (r"\\text\{\s*([a-zA-Z])\s*\}", r"\1"),
  (r"\*\*", "^"),
  (r"(?<![a-zA-Z\\])(?:infinity|inf|oo)(?![a-zA-Z])", r"\\infty "),
  (r"(?<![a-zA-Z\\])((?:pi|log|ln|(?:arc)?(?:sin|cos|tan)|cot|sec|csc)(?![a-zA-Z]))", r"\\\1 "),
  (r"(?<![a-zA-Z\\])sqrt(?=\s?[({])", r"\\sqrt "),
  (r"(?<![0-9}^_./])([0-9]+)\s([0-9]+)\s?/\s?([0-9]+)(?![0-9./])", r"\1\\frac{\2}{\3}"),  # a mixed number
  (rf"\{{{_OVER}\}}|^{_OVER}$", r"\\frac{\1\3}{\2\4}"),
  (rf"\{{{_CHOOSE}\}}|^{_CHOOSE}$", r"\\binom{\1\3}{\2\4}"),
  (r"\^\{\s*\\prime\s*\}|\^\s?\\prime(?![a-zA-Z])", "'"),
  (r"([a-zA-Z])(?:_\{?([0-9a-z])\}?)?('+)", _primed),
  (rf"(?<=[a-zA-Z])\^{_SCRIPT}_{_SCRIPT}", r"_\2^\1"),
  (r"\\log_(?:e|\{e\})(?![a-zA-Z])", r"\\ln "),
  (r"(\\sqrt|\^)\s*\(([^()]*)\)", r"\1{\2}"),
  (r"(?<!\\sqrt)(?<!\\sqrt )\[([^\[\],;]*)\]", r"(\1)"),
  (r"(?<=\})\s*-\s*(?=\\\{)", r"\\setminus "),
  (r"^\s*\\approx(?![a-zA-Z])\s*", ""),
  (r"\\sqrt(\[[0-9]{1,3}\])?\s*([0-9a-zA-Z])(?![0-9.])", r"\\sqrt\1{\2}"),
  (r"\^\s*([0-9]*\.[0-9]+)", r"^{\1}"),
  (r"(?<=[0-9])[eE]([+-]?[0-9]{1,4})(?![0-9.])", r"\\cdot 10^{\1}"),
  (r"\\log_([0-9])(?![0-9])", r"\\log_{\1}"),
  (r"(\\(?:sin|cos|tan|cot|sec|csc|sinh|cosh|tanh|log|ln)\s?\^)\s?([0-9])", r"\1{\2}"),
  (r"(?<=\^[0-9]) (?=[0-9]+\^)", r"\\cdot "),
  (r"(?<=[0-9])\{(\\frac\{[^{}]*\}\{[^{}]*\})\}", r"\1"),
  (rf"\\(frac|binom)\s*({_ARGUMENT})\s*({_ARGUMENT})", _braced),
  (r"[<>!]=", lambda match: {"<": r"\le ", ">": r"\ge ", "!": r"\ne "}[match[0][0]]),
)  # fmt: skip
# Before decimals are written out: two numbers side by side, a point that is not a decimal's.
_TWO_NUMBERS = re.compile(r"[0-9]\s+\.?[0-9]|\.[0-9]*\s*\.|[a-zA-Z}]\.|\.(?![0-9\\])")
# Factors side by side, of which the parser would make a mixed number.
_multiplied = _rules(
  (r"\\sqrt\s?(\\frac\{[^{}]*\}\{[^{}]*\})", r"\\sqrt{\1}"),
  (r"(?<!_[0-9])(?<=[0-9])\s*(?=\(|\\binom)", r"\\cdot "),
  (r"(?<=\))\s*(?=[0-9a-zA-Z(]|\\(?:frac|sqrt|binom|pi))", r"\\cdot "),
  (r"((?:\\frac|\\binom)\{[^{}]*\}\{[^{}]*\})\s*(?=[0-9(]|\\(?:frac|binom))", r"\1\\cdot "),
)
_VETOED = re.compile(
  r"\^\s*(?:[^\s{}^\\]|\{[^{}]*\})\s*\^|[0-9][eE][-+]?[0-9]|[0-9]\s*\{|[0-9)]\s*_|\\sqrt\s*[0-9]"
  r"|[.'\"?@#:`%~]|\\(?:text|operatorname|phantom|boxed|fbox|mathit|xrightarrow|circ|degree|dots|equiv|pmod"
  r"|to|ldots|cdots|nabla)(?![a-zA-Z])"
  r"|(?<![a-zA-Z\\])(?<!n\{)(?<!d\{)(?<!_\{)[a-zA-Z]{5,}"  # words, but for `\begin{pmatrix}` and `x_{prime}`
  r"|[fghF]\^\{?-1\}?\s*\(|\\(?:begin|end)(?!\{[pbv]?matrix\})|(?<!\\)\[[^\[\]()]*-\s?\\infty|\\infty\s*\]"
  r"|\\(?:overline|bar|dot)\s?\{?[0-9]"
)  # fmt: skip
_ROW_END = re.compile(r"\\\\|&")
# The parser computes these at once, whatever their size: binomials, divisors, the ends of an interval to
# order them.
_SMALL = r"\{(?:[a-z+ -]|[0-9]{1,4}(?![0-9])){1,8}\}"
_AT_ONCE = re.compile(
  rf"\\binom(?!{_SMALL}{_SMALL})|\\Gamma\s*\(|\\(?:gcd|lcm)(?=.*[\^!])|!\s*!|\\(?:det|eye|zeros|ones|Re"
  rf"|Im)(?![a-zA-Z])"
)
_TOWER = re.compile(r"\^\s*\{?[-+]?[0-9]{5}|\^\s*\{[-+0-9\s]*\^")
_ORDERED = re.compile(r",|\\sqrt\s?\[|\\c[au]p(?![a-zA-Z])")


def latex(text: str) -> str | None:
  """LaTeX for the parser from a clean answer without unit or percent sign; None where it would be misread."""
  text = _GROUPED.sub(_joined_digits, text).replace(r"\,", " ")
  text = re.sub(r"\s+", " ", text).strip()
  bare = _BARE_GROUPS.sub(_joined_digits, text)
  if _SPACED_COMMA.search(text) or "," not in bare and not _BRACKETED_NUMBER.search(bare):
    text = bare
  if (described := _SET_BUILDER.fullmatch(text)) is not None:
    text = described["rest"]
  if _BOTH.search(text) or _BESIDE.search(text):
    return None
  text = _rewritten(_both_signs(_AND_OR.sub(", ", text)))
  if _TWO_NUMBERS.search(text):
    return None
  text = _DECIMAL.sub(
    lambda match: rf"\frac{{{match[1]}{match[2]}}}{{1{'0' * len(match[2])}}}",
    _REPEATING.sub(_repeating, text),
  )
  text = _multiplied(text)
  tall = _TOWER.search(text) and _ORDERED.search(text)
  if tall or _VETOED.search(text) or _AT_ONCE.search(text) or "\\begin" not in text and _ROW_END.search(text):
    return None
  return re.sub(r",\s*", ", ", text)  # lest `(1,234)` hold one number


def _both_signs(text: str) -> str:
  r"""`\frac{1 \pm x}{2}` as the two that it stands for: between brackets the parser knows no `\pm`."""
  before, *behind = _PLUS_MINUS.split(text)
  if len(behind) != 1 or "\\{" in text or len(parts(text, ",")) > 1:
    return text
  return f"{before}+{behind[0]}, {before}-{behind[0]}"


def _repeating(match: re.Match[str]) -> str:
  """0.1666... written with a bar: (digits with one period - digits before it) / 99..900..0."""
  before, again = match["integer"] + match["once"], match["again"] or match["one"]
  top = int(before + again) - int(before or "0")
  return rf"\frac{{{top}}}{{{'9' * len(again)}{'0' * len(match['once'])}}}"

r"""Numeric final answers: `#### 1,234` (Cobbe et al. 2021, section 2) and `\boxed{1234}`, compared exactly.

A completion with neither may state its answer in a line `A: 1234`, as the model solutions published with the data do.

    completion -> marked answers -> one exact value each -> one distinct value -> equal to the gold answer?

A marked answer is a number with, at most, a known lead-in ("The answer is", "x =", a currency) and a unit or remark
without digits behind it. Whatever could change its value (an operator, "million", "not", an exponent) makes it
unparsable rather than half read, so that `5-3` is never -3 and `1e5` never 1. Several answers with different values
are a hedge, and wrong; the same value twice is one answer.

Left out: scientific notation, mixed numbers, expressions, numbers in words, an answer without a marker.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

from o1jax.verifiers.base import Problem, Verdict

MAX_MARKS = 64  # marked answers in one completion; a completion with more is unparsable
MAX_LENGTH = 400  # characters of one marked answer: far below Python's limit on int(str), and quick to parse

END_TOKEN = re.compile(r"(?:<\|[a-z_]{1,40}\|>|</s>|<eos>)\s*$")  # where decoding has kept it
_MARK = re.compile(r"#{4,}|\\(?:boxed|fbox)\s?\{")
_LINE = re.compile(
  r"^A:", re.MULTILINE
)  # looked for where nothing else is marked: "A" may also name a person or a point
_WRAPPERS = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|mbox)\s?\{([^{}]*)\}")
_FRACTION = re.compile(r"\\[dt]?frac\s?\{\s?([0-9,]+)\s?\}\s?\{\s?([0-9,]+)\s?\}")
_LIST = re.compile(r"\s(?:or|and)\s(?=\W{0,3}[0-9])|[,;]\s(?=\W{0,3}[0-9])")

_CURRENCY = r"(?:(?:US|USD|EUR|GBP) ?)?(?:[$€£¥₹]{1,2} ?)?"
_INTEGER = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)"
_LEAD = r"(?:(?:so )?(?:the )?(?:final )?answer(?: is)?(?: ?[:=])? ?|[a-z] ?= ?|= ?)?"
_NUMBER = re.compile(
  rf"{_LEAD}\(?{_CURRENCY}(?P<sign>[+-]?){_CURRENCY}(?=\.?[0-9])"
  rf"(?:(?P<top>{_INTEGER}) ?/ ?(?P<bottom>{_INTEGER})|(?P<whole>{_INTEGER})?(?P<decimals>\.[0-9]+)?)"
  r"(?P<rest>.*)",
  re.IGNORECASE,
)

# A number may be followed by letters and these signs, and by the joints of "5-year" and "$18/hour".
_REMARK_SIGNS = frozenset(" .,;:()'\"$€£¥₹%°&")
_WORD_JOINT = re.compile(r"(?:^|(?<=[^\W\d_]))-(?=[^\W\d_]{2})|/(?= ?[^\W\d_])")
_ELLIPSIS = re.compile(r"\. ?\.")
_ATTACHED = re.compile(r"(?:k|m|b|e|n|x|y|z|mn|bn|mil)\b", re.IGNORECASE)  # factors and unknowns: 18k, 5x
_CHANGES_VALUE = re.compile(
  r"\b(?:hundred|thousand|million|billion|trillion|hundredth|thousandth|tenth|third|fourth|fifth|dozen|half|halves|x"
  r"|or|either|maybe|perhaps|not|no|nor|neither|never|wrong|incorrect|plus|minus|times|negative|squared|cubed)s?\b",
  re.IGNORECASE,
)

_PLAIN = str.maketrans(
  {
    "\u2212": "-",
    "\u2013": "-",
    "\ufe63": "-",
    "\uff0d": "-",
    "\u2009": "",
    "\u202f": "",
    "\u00a0": " ",
    "~": " ",
  }
)
_LATEX = (
  (r"\$", "$"), (r"\%", "%"), (r"\!", ""), (r"\,", " "), (r"\;", " "), (r"\ ", " "), (r"\(", ""), (r"\)", ""),
  (r"\[", ""), (r"\]", ""), (r"\left(", "("), (r"\right)", ")"), (r"^\circ", "°"), (r"^{\circ}", "°"), ("{,}", ","),
)  # fmt: skip
_DIGIT_GROUP = re.compile(r"(?<=[0-9])(?:\\,|\u2009|\u202f)(?=[0-9]{3}(?![0-9]))")


def parse_answer(text: str) -> tuple[Fraction, ...] | None:
  """Distinct exact values that one marked answer states, in order; None where it is not a number or a list of them.

  `18 or 19` states two. Units, currencies and a percent sign do not change a value: `18%` is 18.
  """
  if len(text) > MAX_LENGTH:
    return None
  text = _plain(END_TOKEN.sub("", text))
  values: list[Fraction] = []
  for part in _LIST.split(text):
    value = _parse_number(part.strip())
    if value is None:
      return None
    values.append(value)
  return tuple(dict.fromkeys(values))


def extract(text: str) -> tuple[Fraction, ...] | None:
  """Distinct values of all marked answers of a completion, in order; None where there is none, or one is no number.

  Takes time linear in the text, however it is built.
  """
  marked = list(itertools.islice(_marked(text), MAX_MARKS + 1))
  if not marked or len(marked) > MAX_MARKS:
    return None
  values: list[Fraction] = []
  for answer in marked:
    parsed = parse_answer(answer)
    if parsed is None:
      return None
    values.extend(parsed)
  return tuple(dict.fromkeys(values))


def count_answers(text: str) -> int:
  """Marked answers in a response's text; a box on a `####` line belongs to that line's answer."""
  return sum(1 for _ in _marked(text))


def verify(problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
  """Judges completions[i] against problems[i].answer: reward 1.0 where its one marked value equals the gold one.

  The answer is a number, or a solution with the number behind its last `####` or in its last line `A: 18`, as the data
  set and its model solutions have it.

  `parsed` is the value in lowest terms ("18", "-3", "1/2"), so that equal answers are equal strings.
  Raises ValueError where the lengths differ or a gold answer is not one number.
  """
  return [_verdict(problem, text) for problem, text in zip(problems, completions, strict=True)]


def _verdict(problem: Problem, text: str) -> Verdict:
  gold = parse_answer(re.split(r"####|^A:", problem.answer, flags=re.MULTILINE)[-1])
  if gold is None or len(gold) != 1:
    raise ValueError(f"problem {problem.id}: the gold answer {problem.answer[:80]!r} is not one number")
  values = extract(text)
  if values is None:
    return Verdict(reward=0.0, correct=False, parsed=None, error="unparsable")
  if len(values) > 1:
    return Verdict(reward=0.0, correct=False, parsed=None, error="wrong")
  correct = values == gold
  return Verdict(
    reward=float(correct), correct=correct, parsed=str(values[0]), error=None if correct else "wrong"
  )


def _marked(text: str) -> Iterator[str]:
  """What stands behind each marker: the rest of the line, up to the next `####`, or the inside of a box.

  At most MAX_LENGTH + 1 characters of each are looked at: a longer one is unparsable whatever it says.
  """
  position, marks = 0, _MARK if _MARK.search(text) else _LINE
  while (mark := marks.search(text, position)) is not None:
    start = mark.end()
    window = text[start : start + MAX_LENGTH + 1]
    if text[mark.start()] in "#A":
      answer = re.split(r"[\r\n]|#{4}", window, maxsplit=1)[0]
      position = start + len(answer)
      yield _unbox(answer)
    else:
      inside = _balanced(window)
      position = start + len(inside)
      yield inside.removeprefix("####")


def _unbox(line: str) -> str:
  """A `####` line with its box, if any, replaced by what it holds; a second box stays, and is unparsable."""
  mark = _MARK.search(line)
  if mark is None:
    return line
  inside = _balanced(line[mark.end() :])
  return f"{line[: mark.start()]} {inside} {line[mark.end() + len(inside) + 1 :]}"


def _balanced(text: str) -> str:
  """`text` up to the brace that closes what stands before it; all of it and a brace (unparsable) where none does."""
  depth = 1
  for index, letter in enumerate(text):
    depth += (letter == "{") - (letter == "}")
    if depth == 0:
      return text[:index]
  return text + "{"


def _plain(text: str) -> str:
  """Typography and LaTeX dress taken off; what could carry meaning stays and fails to parse."""
  text = _DIGIT_GROUP.sub("", text)
  for dressed, bare in _LATEX:
    text = text.replace(dressed, bare)
  text = _WRAPPERS.sub(r"\1", text)
  text = _FRACTION.sub(_inline_fraction, text)
  text = re.sub(r"\s+", " ", text.translate(_PLAIN)).strip()
  return text.strip("*`").strip()


def _inline_fraction(match: re.Match[str]) -> str:
  """a/b, kept apart from a digit before it, lest 1\\frac{1}{2} become 11/2."""
  before = match.string[: match.start()][-1:]
  return f"{' ' if before.isdigit() else ''}{match[1]}/{match[2]} "


def _parse_number(text: str) -> Fraction | None:
  """One exact number with its unit, or None."""
  match = _NUMBER.fullmatch(text)
  if match is None or match["top"] is None and match["whole"] is None and match["decimals"] is None:
    return None
  if not _is_remark(match["rest"]):
    return None
  if match["top"] is not None:
    bottom = int(match["bottom"].replace(",", ""))
    size = Fraction(int(match["top"].replace(",", "")), bottom) if bottom else None
  else:
    size = Fraction((match["whole"] or "0").replace(",", "") + (match["decimals"] or ""))
  return -size if size is not None and match["sign"] == "-" else size


def _is_remark(rest: str) -> bool:
  """Whether what follows a number leaves its value alone: a unit, closing punctuation, words."""
  if _ATTACHED.match(rest) is not None or _ELLIPSIS.search(rest) is not None:
    return False
  rest = _WORD_JOINT.sub(" ", re.sub(r"(?<=m)[²³]", "", rest))  # an area or a volume is a unit
  return (
    all(letter.isalpha() or letter in _REMARK_SIGNS for letter in rest)
    and _CHANGES_VALUE.search(rest) is None
  )

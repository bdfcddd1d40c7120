r"""Numeric final answers, by policy: `#### 1,234` (Cobbe et al. 2021, section 2), `\boxed{1234}`.

A completion with neither may state its answer in a line `A: 1234`, as the published model solutions do.

    completion -> marked answers -> one exact value each -> one distinct value, not revoked -> the gold one?

That is the strict policy. A marked answer is a number with, at most, a known lead-in ("The answer is", "x =",
a currency) and a unit or remark without digits behind it. Whatever could change its value (an operator,
"million", "not", an exponent, a number in words) makes it unparsable rather than half read, so that `5-3` is
never -3 and `1e5` never 1. Several answers with different values are a hedge, and wrong, and so is one that
the text takes back; the same value twice is one answer. A mark that holds a placeholder (`\boxed{}`, `####
<answer>`) only speaks of the form.

The standard policy reads as lm-evaluation-harness's flexible-extract does, so that figures compare: the last
mark's answer, or where that is no plain number its last number; without a mark the last number of the text.

Left out: scientific notation, mixed numbers, expressions, numbers in words.
"""

import functools
import itertools
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

from o1jax.verifiers.base import UNPARSABLE, Problem, Verdict, Verify, right_or_wrong
from o1jax.verifiers.completion import Policy, check_policy, in_thoughts, without_end_tokens, without_thoughts
from o1jax.verifiers.gsm8k_remark import is_remark

MAX_MARKS = 64  # marked answers in one completion; one with more is unparsable under the strict policy
MAX_LENGTH = 400  # characters of one marked answer: far below Python's limit on int(str), and quick to parse
TOLERANCE = Fraction(1, 10**6)  # of the standard policy: so far may a value lie from the gold one

_MARK = re.compile(r"#{4,}|\\(?:boxed|fbox)\s?\{")
_LINE = re.compile(r"^A:", re.MULTILINE)  # read where nothing else is marked: "A" may also name a person
_WRAPPERS = re.compile(
  r"\\(?:text(?:bf|it|rm|sf|tt)?|math(?:rm|bf|it|sf|tt)|mbox|pmb|boldsymbol|bm|underline|emph)\s?\{([^{}]*)\}"
)
_STYLES = re.compile(
  r"\\(?:display|text|script)style\b|\\(?:tiny|small|normalsize|[lL]arge|LARGE|[hH]uge|bf|bfseries|rm|it)\b"
  r"|\\(?:text)?color\s?\{[a-zA-Z]{1,20}\}|</?(?:b|i|u|em|strong|answer)>"
)
_FRACTION = re.compile(r"\\[dt]?frac\s?\{\s?([0-9,]+)\s?\}\s?\{\s?([0-9,]+)\s?\}")
_LIST = re.compile(r"\s(?:or|and)\s(?=\W{0,3}[0-9])|[,;]\s(?=\W{0,3}[0-9])")

# What a mark holds that only speaks of the form: nothing, dots, `answer`, in whatever dress.
_FILLING = re.compile(
  r"\\(?:square|Box|q?quad|[lc]?dots|phantom\s?\{[^{}]*\}|[,;:! _]|text(?:bf|it)?|math(?:rm|bf))|[^\w\\]|_"
)
_PLACEHOLDER = re.compile(
  r"(?:insert|put|write|place)?(?:the|your|my|an?)?(?:final|numeric|numerical|correct)?"
  r"(?:answer|ans|result|number|value|solution|integer|n|x{1,3})?(?:(?:goes)?here)?",
  re.IGNORECASE,
)

_CURRENCY = r"(?:(?:US|USD|EUR|GBP) ?)?(?:[$€£¥₹]{1,2} ?)?"
_INTEGER = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)"
_LEAD = r"(?:(?:so )?(?:the )?(?:final )?answer(?: is)?(?: ?[:=])? ?|\$?[a-z] ?= ?|= ?)?"
_NUMBER = re.compile(
  rf"{_LEAD}\(?{_CURRENCY}(?P<sign>[+-]?){_CURRENCY}(?=\.?[0-9])"
  rf"(?:(?P<top>{_INTEGER}) ?/ ?(?P<bottom>{_INTEGER})|(?P<integer>{_INTEGER})?(?P<decimals>\.[0-9]+)?)"
  r"(?P<rest>.*)",
  re.IGNORECASE,
)
# A number as flexible-extract finds it (lm-evaluation-harness, tasks/gsm8k/gsm8k.yaml); it holds a digit.
_ANY_NUMBER = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")

# Behind the last mark: `is incorrect.`, `No, that is wrong.`, `Wait,`.
_BE = r"(?:'s| is| was| are| must be| has to be| seems| looks)"
_BAD = r"(?:wrong|incorrect|false|invalid|mistaken|inaccurate|untrue|impossible|(?:a )?mistake|(?:an )?error)"
_STATED = r"(?:answer|result|value|number|solution)"
_GOOD = rf"(?:right|correct|true|valid|accurate|possible|(?:the|our|my|an?) (?:\w+ ){{0,2}}{_STATED})"
_TAKEN_BACK = re.compile(
  rf"\A\W*(?:{_BAD}\b|no\b(?! (?:more|other|further|need|matter))|not\b|nope\b|wait\b)|\A[\s$.*)\]]*(?:\?|~~)"
  r"|[,.!\n]\W{0,8}no[,.!]"
  r"|(?:\A[^\w\n]*|[0-9]|\b(?:that|this|it|which|answer|result|value|number|calculation|solution|above))"
  rf"(?:{_BE} (?:(?!not\b)\w+ ){{0,2}}{_BAD}\b"
  rf"|(?:{_BE} not|{_BE}n't| (?:can't|cannot|can not|couldn't|could not) be"
  r"| do(?:es)?(?:n't| not) (?:seem|look|sound))"
  rf" (?:\w+ )?{_GOOD}\b)"
  r"|\bi(?: have|'ve)? (?:made|make) (?:an?|some) (?:\w+ )?(?:mistake|error|slip)|\bi(?: was|'m| am) (?:wrong"
  r"|mistaken)\b|\b(?:scratch|strike|forget|ignore) (?:that|it|this)\b|\btake (?:that|it) back\b"
  r"|\bon second thoughts?\b|\b(?:do not|don't) think (?:that|this|it)\b|\bnot (?:sure|certain)\b|\bunsure\b"
  r"|\bdoubt (?:that|this|it)\b|\blet me (?:redo|recalculate|recompute|reconsider|rethink|rework|retry"
  r"|correct|fix|start over|try)\b|\b(?:hold on|oops|never mind)\b|\b(?:wait|correction)\b ?[,.!:…-]"
  r"|\bactually,? (?:no|it|that|the answer)\b",
  re.IGNORECASE,
)
# Before a mark: `it is not \boxed{5}`.
_DENIED = re.compile(
  r"(?:(?:\b(?:not|never|nor|cannot|instead of|rather than|other than)|n't)"
  r" (?:(?:be|equals?|to|just|simply|exactly|the answer) ){0,3}"
  rf"|\b(?:wrong|incorrect|false) {_STATED} ?(?:is|was|would be|=|:)?)[$:(* ]{{0,4}}\Z",
  re.IGNORECASE,
)
_TAIL = 100_000  # characters at a completion's end that the standard policy looks at
_BEFORE, _BEHIND = 80, 4_000  # characters before and behind a mark that are looked at

# Signs of other scripts and keyboards as ASCII; full-width ones stand 0xFEE0 behind theirs. What has no width
# goes.
_PLAIN = str.maketrans(
  {
    **{chr(code + 0xFEE0): chr(code) for code in range(0x21, 0x7F)},
    **dict.fromkeys("✅✓✔\ufe0f\u200b\u200c\u200d\u200e\u200f\u2060\ufeff", ""),
    **dict.fromkeys("\u202a\u202b\u202c\u202d\u202e\u2009\u202f", ""),
    **{"\u2212": "-", "\u2013": "-", "\ufe63": "-", "\u00a0": " ", "\u3000": " "},
    **{"。": ".", "、": ",", "℃": "°C", "℉": "°F", "¢": " cents", "’": "'", "“": '"', "”": '"'},
  }
)
_LATEX = (
  (r"\\", " "), (r"\$", "$"), (r"\%", "%"), (r"\!", ""), (r"\,", " "), (r"\;", " "), (r"\ ", " "),
  (r"\(", ""), (r"\)", ""), (r"\[", ""), (r"\]", ""), (r"\left(", "("), (r"\right)", ")"),
  (r"^\circ", "°"), (r"^{\circ}", "°"), ("{,}", ","),
)  # fmt: skip
_TIE = re.compile(r"(?<=[0-9}])~(?!~)")  # a space in LaTeX; before a number a tilde says `about`
_DIGIT_GROUP = re.compile(r"(?<=[0-9])(?:\\,|\u2009|\u202f)(?=[0-9]{3}(?![0-9]))")


class _Marked(NamedTuple):
  """An answer behind its mark."""

  answer: str
  start: int  # of the mark in the text
  end: int  # of the answer


def parse_answer(text: str) -> tuple[Fraction, ...] | None:
  """Distinct exact values of one marked answer, in order; None where it is no number or list of numbers.

  `18 or 19` states two. Units, currencies and a percent sign do not change a value: `18%` is 18.
  """
  if len(text) > MAX_LENGTH:
    return None
  values: list[Fraction] = []
  for part in _LIST.split(_plain(without_end_tokens(text))):
    value = _parse_number(part.strip())
    if value is None:
      return None
    values.append(value)
  return tuple(dict.fromkeys(values))


def extract(text: str) -> tuple[Fraction, ...] | None:
  """Distinct values of a completion's marked answers, in order; None without any, or where one is no number.

  Takes time linear in the text, however it is built.
  """
  return _values(_marked(without_end_tokens(text), MAX_MARKS + 1))


def count_answers(text: str) -> int:
  """Marked answers in a response's text; a box on a `####` line belongs to that line's answer."""
  return len(_marked(text))


def _verify(policy: Policy, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
  return [_verdict(policy, problem, text) for problem, text in zip(problems, completions, strict=True)]


def make_verify(policy: Policy = "strict") -> Verify:
  """A verifier that judges completions[i] against problems[i].answer, under a policy: see the module.

  The answer is a number, or a solution with the number behind its last `####`, in its last box, or in its
  last line `A: 18`. `parsed` is the value in lowest terms ("18", "-3", "1/2"). It raises ValueError where the
  lengths differ or a gold answer is not one number; this does where there is no such policy.
  """
  return functools.partial(_verify, check_policy(policy))


verify = make_verify()


def _verdict(policy: Policy, problem: Problem, text: str) -> Verdict:
  gold = _gold(problem)
  read = _strict if policy == "strict" else _standard
  values = None if in_thoughts(text) else read(without_end_tokens(text))
  if values is None:
    return UNPARSABLE
  if len(values) != 1:
    return right_or_wrong(False, None)
  value = values[0]
  correct = value == gold if policy == "strict" else abs(value - gold) < TOLERANCE
  return right_or_wrong(correct, str(value))


def _gold(problem: Problem) -> Fraction:
  """The gold answer. Raises ValueError where it is not one number."""
  marked = _marked(problem.answer)
  gold = parse_answer(marked[-1].answer if marked else problem.answer)
  if gold is None or len(gold) != 1:
    raise ValueError(f"problem {problem.id}: the gold answer {problem.answer[:80]!r} is not one number")
  return gold[0]


def _strict(text: str) -> tuple[Fraction, ...] | None:
  """As `extract`, of a text without end tokens; several values, or none, are an answer that is no single one.

  None too where the thoughts alone hold a mark, and no value where the last answer is taken back or denied.
  """
  marked = _marked(text, MAX_MARKS + 1)
  values = _values(marked)
  if values is None or marked[-1].start < len(text) - len(without_thoughts(text)):
    return None
  last = marked[-1]
  before = text[max(0, last.start - _BEFORE) : last.start]
  denied = not before.endswith("\n") and _DENIED.search(before) is not None
  return () if denied or _TAKEN_BACK.search(text[last.end : last.end + _BEHIND]) is not None else values


def _standard(text: str) -> tuple[Fraction, ...] | None:
  """The one value that the text behind the thoughts states at last, None where it holds no number."""
  text = without_thoughts(text)[-_TAIL:]
  if marked := _marked(text):
    stated = parse_answer(marked[-1].answer)
    if stated is not None and len(stated) == 1:
      return stated
    if (number := _last_number(marked[-1].answer)) is not None:
      return (number,)
  number = _last_number(text)
  return None if number is None else (number,)


def _last_number(text: str) -> Fraction | None:
  """The last number of a text as flexible-extract reads it, without `$`, commas and a point at its end."""
  for match in reversed(_ANY_NUMBER.findall(text)):
    number = match.replace("$", "").replace(",", "").rstrip(".")
    if len(number) <= MAX_LENGTH and re.fullmatch(r"-?[0-9]*\.?[0-9]+", number):
      return Fraction(number)
  return None


def _values(marked: Sequence[_Marked]) -> tuple[Fraction, ...] | None:
  """Distinct values of marked answers; None where there is none, too many, or one is no number."""
  if not 0 < len(marked) <= MAX_MARKS:
    return None
  values: list[Fraction] = []
  for answer, _, _ in marked:
    parsed = parse_answer(answer)
    if parsed is None:
      return None
    values.extend(parsed)
  return tuple(dict.fromkeys(values))


def _marked(text: str, most: int | None = None) -> list[_Marked]:
  """The first `most` answers behind `####` and in boxes, or else in lines `A:`; no placeholders."""
  for mark in (_MARK, _LINE):
    behind = itertools.islice(_behind(mark, text), most)
    if answers := [each for each in behind if not _is_placeholder(each.answer)]:
      return answers
  return []


def _is_placeholder(answer: str) -> bool:
  if answer.strip()[:1].isdigit():  # as most do
    return False
  return len(answer) <= MAX_LENGTH and _PLACEHOLDER.fullmatch(_FILLING.sub("", answer)) is not None


def _behind(marks: re.Pattern[str], text: str) -> Iterator[_Marked]:
  """The text behind each mark: the rest of the line, up to the next `####`, or the inside of a box.

  At most MAX_LENGTH + 1 characters of each are looked at: a longer one is unparsable whatever it says.
  """
  position = 0
  while (mark := marks.search(text, position)) is not None:
    start = mark.end()
    window = text[start : start + MAX_LENGTH + 1]
    if text[mark.start()] in "#A":
      answer = re.split(r"[\r\n]|#{4}", window, maxsplit=1)[0]
      position = start + len(answer)
      yield _Marked(_unbox(answer), mark.start(), position)
    else:
      inside = _balanced(window)
      position = start + len(inside)
      yield _Marked(_unbox(inside.removeprefix("####")), mark.start(), position + 1)


def _unbox(line: str) -> str:
  """A marked answer with its box, if any, replaced by its content; a second box stays, and is unparsable."""
  mark = _MARK.search(line)
  if mark is None:
    return line
  inside = _balanced(line[mark.end() :])
  return f"{line[: mark.start()]} {inside} {line[mark.end() + len(inside) + 1 :]}"


def _balanced(text: str) -> str:
  """`text` up to the brace that closes what stands before it; where none does, the text and a brace."""
  depth = 1
  for index, letter in enumerate(text):
    depth += (letter == "{") - (letter == "}")
    if depth == 0:
      return text[:index]
  return text + "{"


def _plain(text: str) -> str:
  """Typography and LaTeX dress taken off; what could carry meaning stays and fails to parse."""
  text = _DIGIT_GROUP.sub("", text)
  if not text.isascii():
    text = text.translate(_PLAIN)
  if "\\" in text or "{" in text or "<" in text:
    text = _STYLES.sub(" ", text)
    for dressed, bare in _LATEX:
      text = text.replace(dressed, bare)
    text = _FRACTION.sub(_inline_fraction, _WRAPPERS.sub(r"\1", text))
    text = re.sub(r"^\s*\{([^{}]*)\}\s*$", r"\1", text)
  text = re.sub(r"\s+", " ", _TIE.sub(" ", text)).strip()
  return text.strip("*`_\"'").strip()


def _inline_fraction(match: re.Match[str]) -> str:
  """a/b, kept apart from a digit before it, lest 1\\frac{1}{2} become 11/2."""
  before = match.string[: match.start()][-1:]
  return f"{' ' if before.isdigit() else ''}{match[1]}/{match[2]} "


def _parse_number(text: str) -> Fraction | None:
  """One exact number with its unit, or None."""
  match = _NUMBER.fullmatch(text)
  if match is None or match["top"] is None and match["integer"] is None and match["decimals"] is None:
    return None
  if not is_remark(match["rest"]):
    return None
  if match["top"] is not None:
    bottom = int(match["bottom"].replace(",", ""))
    size = Fraction(int(match["top"].replace(",", "")), bottom) if bottom else None
  else:
    size = Fraction((match["integer"] or "0").replace(",", "") + (match["decimals"] or ""))
  return -size if size is not None and match["sign"] == "-" else size

r"""Where a completion states its final answers: `\boxed{...}`, `#### ...`, "the answer is ...", its last expression.

Each extractor gives all that it finds, in order, as raw text; what the text means is for `math_read` to say. All take
time linear in the completion, however it is built: no more than MAX_LENGTH characters are looked at per answer.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from o1jax.verifiers.completion import without_end_tokens

MAX_LENGTH = 400  # characters of one answer
MAX_STATED = 64  # answers of one extractor that are looked at

_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s?(?P<brace>\{)?")
# `\boxed 7`: what TeX would box without braces, where nothing follows that could belong to it.
_BARE = re.compile(
  r"(?P<text>-?[0-9]{1,40}|[a-zA-Z]|\\[dt]?frac\s?(?:[0-9]{2}|(?:\{[^{}]{1,80}\}){2}))(?=[.,!]?\s{0,3}(?:\$|\\\)|\\\]|\Z|\n))"
)
_HOLDS = re.compile(r"[^\s.?_]")
_HASHES = re.compile(r"#{4,}")
_LINE_OR_HASHES = re.compile(r"[\r\n]|#{4}")
_PHRASE = re.compile(
  r"(?P<final>\bfinal\s{1,4})?\banswers?(?:\s(?:to|for|of)\s[^.:\n]{1,80}?)?[\s*_]{0,6}"
  r"(?:\b(?:is|are|(?:would|should|must|will) be)\b|=|:)[\s*_:]{0,8}"
  r"(?:(?:therefore|thus|hence|indeed|simply|just|clearly|exactly|then|also|actually|really|now|given by|equal to)\b"
  r",?\s{1,4}){0,3}",
  re.IGNORECASE,
)
_HEADING = re.compile(r"^[#*_\s]{0,8}final\s{1,4}answers?[*_:\s]{0,8}$", re.IGNORECASE | re.MULTILINE)
# Where a statement in words ends. A point inside a number or inside a.m. is not followed by a space and a capital.
_SENTENCE_END = re.compile(
  r"[\r\n]|[.!](?=\s*[*_\"')]{0,4}(?:\s+[A-Z\\$]|\s*$|[\r\n]))|[,;]?\s(?:because|since|which|where|so)\b|,\sas\b"
)
_MATHS = re.compile(
  r"\$\$(?P<dollars>.{1,400}?)\$\$|(?<!\\)\$(?P<dollar>[^$\n]{1,400}?)(?<!\\)\$"
  r"|\\\((?P<round>.{1,400}?)\\\)|\\\[(?P<square>.{1,400}?)\\\]",
  re.DOTALL,
)
_JOINED = re.compile(r"\s*(?:,|;|,?\s*\b(?:and|or)\b)\s*", re.IGNORECASE)
# The words of a line that an expression of numbers is made of, a unit behind it included.
_OPERAND = re.compile(r"[-+(\u2212$€£]{0,4}\.?[0-9][-0-9.,/*^+()×·÷%°:=;\u2212]*")
_OPERATOR = re.compile(r"[-+*/×·÷=\u2212]|or|and", re.IGNORECASE)
_RELATION = re.compile(r"[<>~!\u2248\u2260\u2264\u2265]=?")
_UNIT = re.compile(r"%|°|percent|degrees|dollars|cents|units", re.IGNORECASE)
_NAME = re.compile(r"[(]?[^\W\d_][)]?|.*[)}\]|]")  # what a sign behind it joins to the next number
_EVIDENT = re.compile(r"[0-9$\\=]|^\W*[A-J]\W*$")
# What is said not to be the answer: `it is not 5`, `more than 5`.
_DENIED = re.compile(
  r"(?:\bfrom\s\S{1,40}\sto|\b(?:not|never|cannot|nor|than|least|most|except)|n't)\s+(?:(?:be|equals?|to|equal to)\s+)?$",
  re.IGNORECASE,
)
# `the largest n is 34`: one verb, nothing that denies or conditions it.
_PREDICATE = re.compile(
  r"(?P<subject>.*?\w.*?)\s(?:is|are|equals|was|were)\s(?P<value>.+)", re.IGNORECASE | re.DOTALL
)
_NOT_PLAIN = re.compile(
  r"\b(?:is|are|equals|was|were|be|not|never|no|none|nor|neither|cannot|if|unless|than|least|most|where|when|either|maybe|might)\b|n't",
  re.IGNORECASE,
)
_VALUE = (
  r"(?:(?P<maths>\$[^$\n]{1,80}\$|\\\(.{1,80}?\\\))|(?P<number>[-+\u2212]?(?:\\?\$)?[0-9][0-9.,/]*%?)"
  r"|(?P<latex>\\[df]?frac[^$\n]{1,80}?)(?=\$|\\\)|\\\]|\n))"
)
_OR = r"(?:\bor\b|\\text\{\s*,?\s*or\s*\})"
_OR_BEHIND = re.compile(rf"[\s*.]{{0,3}}(?:\$|\\\)|\\\])?[\s,(]{{0,3}}{_OR}\s{{0,3}}{_VALUE}")
_OR_BEFORE = re.compile(rf"{_VALUE}[\s,]{{0,3}}{_OR}\s{{0,3}}(?:\$|\\\(|\\\[)?\s?(?:[a-zA-Z]\s?=\s?)?$")
_THOUGHT_END = "</think>"


class Stated(NamedTuple):
  """One final answer as it was written."""

  text: str
  start: int  # its place in the completion: [start, end)
  end: int


def final_part(completion: str) -> str:
  """What stands behind the thoughts: the completion from its last `</think>` on, all of it where there is none."""
  return without_end_tokens(completion.rpartition(_THOUGHT_END)[2])


def balanced(text: str) -> str | None:
  r"""`text` up to the brace that closes what stands before it; None where none does. `\{` and `\}` count for nothing."""
  depth, escaped = 1, False
  for index, letter in enumerate(text):
    if not escaped:
      depth += (letter == "{") - (letter == "}")
    if depth == 0:
      return text[:index]
    escaped = letter == "\\" and not escaped
  return None


def boxed(text: str) -> list[Stated]:
  r"""The inside of each outermost `\boxed{}` or `\fbox{}`; the empty text, no answer, for one that never closes.

  A box with nothing in it (`in \boxed{}`, `\boxed{...}`, `in \boxed form`) only speaks of the form, where others hold something.
  """
  found = list(itertools.islice(_boxes(text), MAX_STATED + 1))
  open_ended = lambda box: text[box.end - 1] == "{"
  return [box for box in found if _HOLDS.search(box.text) or open_ended(box)] or found


def _boxes(text: str) -> Iterator[Stated]:
  position = 0
  while (mark := _BOX.search(text, position)) is not None:
    position = mark.end()
    if mark["brace"]:
      inside = balanced(text[position : position + MAX_LENGTH + 1])
      position += 0 if inside is None else len(inside) + 1
    else:
      bare = _BARE.match(text, position)
      inside = None if bare is None else bare["text"]
      position += 0 if bare is None else len(bare["text"])
    yield Stated(inside or "", mark.start(), position)


def alternatives(text: str, boxes: Sequence[Stated]) -> list[Stated]:
  r"""What `or` joins to a box without being in one: `\boxed{5} or 6`, `either $6$ or $\boxed{5}$`."""
  found = []
  for box in boxes:
    before = text[max(0, box.start - MAX_LENGTH) : box.start]
    for match in (_OR_BEFORE.search(before), _OR_BEHIND.match(text, box.end)):
      if match is not None:
        value = match["maths"] or match["number"] or match["latex"]
        found.append(Stated(value.rstrip(" .,"), box.start, box.end))
  return found


def hashes(text: str) -> list[Stated]:
  """The rest of each line behind `####`."""
  found = []
  for mark in itertools.islice(_HASHES.finditer(text), MAX_STATED + 1):
    line = _LINE_OR_HASHES.split(text[mark.end() : mark.end() + MAX_LENGTH + 1], maxsplit=1)[0]
    found.append(Stated(_whole(line), mark.start(), mark.end() + len(line)))
  return found


def _whole(text: str) -> str:
  """Without space around it; what was cut off at MAX_LENGTH + 1 stays longer than an answer may be."""
  return text if len(text) > MAX_LENGTH else text.strip()


def phrase(text: str) -> list[Stated]:
  """What stands behind "the answer is", "Answer:" and their like, to the end of the sentence or line.

  Where something is called the final answer, the others are working; where one holds maths or is an option's letter,
  those that do not are remarks ("the answer is positive").
  """
  marks = list(itertools.islice(_PHRASE.finditer(text), MAX_STATED + 1))
  headings = list(itertools.islice(_HEADING.finditer(text), MAX_STATED + 1))
  final = [mark for mark in marks if mark["final"]]
  chosen = sorted((final or [] if headings else final or marks) + headings, key=lambda mark: mark.end())
  found: list[Stated] = []
  for mark in chosen:
    if found and mark.start() < found[-1].end and not _EVIDENT.search(text, found[-1].start, mark.start()):
      found.pop()  # "Final answer: the answer is" announces once
    if not found or mark.end() > found[-1].end:
      stated = _predicate(_statement(text, mark.end()))
      found += [stated] if stated.text else []
  return [stated for stated in found if _EVIDENT.search(stated.text)] or found


def _statement(text: str, start: int) -> Stated:
  """The sentence from `start` on, without the maths in it being taken for its end."""
  window = text[start : start + MAX_LENGTH + 1]
  skipped = len(window) - len(window.lstrip())
  spans = [match.span() for match in _MATHS.finditer(window)]
  for end in _SENTENCE_END.finditer(window, skipped):
    if not any(first <= end.start() < last for first, last in spans):
      return Stated(_whole(window[skipped : end.start()]), start, start + end.start())
  return Stated(_whole(window[skipped:]), start, start + len(window))


def _predicate(stated: Stated) -> Stated:
  """`The largest n is 34` as the 34 that it says; a statement of another kind as it stands."""
  match = _PREDICATE.fullmatch(stated.text)
  plain = match is not None and not any(map(_NOT_PLAIN.search, match.groups()))
  if match is None or not plain or not re.search(r"[0-9$\\]", match["value"]):
    return stated
  return stated._replace(text=match["value"])


def expression(text: str) -> list[Stated]:
  """The last maths between delimiters that no number follows, with what `or`, `and` or a comma joins to it; else the
  number that ends the last line. One answer at most.
  """
  tail_start = max(0, len(text) - 4 * MAX_LENGTH)
  tail = text[tail_start:]
  segments = list(_MATHS.finditer(tail))
  if segments and not re.search(r"[0-9]", tail[segments[-1].end() :]):
    first = len(segments) - 1
    while first > 0 and _JOINED.fullmatch(tail, segments[first - 1].end(), segments[first].start()):
      first -= 1
    parts = [next(filter(None, segment.groups())) for segment in segments[first:]]
    start, end = segments[first].start(), segments[-1].end()
    if _DENIED.search(tail[max(0, start - 40) : start]):
      return []
    return [Stated(", ".join(parts), tail_start + start, tail_start + end)]
  line = tail.rstrip().rpartition("\n")[2]
  if len(line) > MAX_LENGTH:
    line = line[-MAX_LENGTH:].partition(" ")[2]  # without the word that was cut
  number = _last_number(line.rstrip(" .*!").split())
  return [Stated(number, len(text) - len(line), len(text))] if number else []


def _last_number(words: list[str]) -> str:
  """The words at the end that are an expression of numbers, joined; "" where there are none.

  A sign that joins the first of them to a name makes it none: `x - 3` and `x -3` are not -3, `x > 3` is not 3.
  """
  first = len(words)
  if first and _UNIT.fullmatch(words[-1]):
    first -= 1
  while first > 0 and (_OPERAND.fullmatch(words[first - 1]) or _OPERATOR.fullmatch(words[first - 1])):
    first -= 1
  before = words[first - 1] if first > 0 else ""
  if _RELATION.fullmatch(before) or _DENIED.search(" ".join(words[max(0, first - 3) : first]) + " "):
    return ""
  joins = _NAME.fullmatch(before) is not None
  if words[first : first + 1] == ["="]:
    first, joins = first + 1, False
  run = words[first:]
  if (
    not any(map(_OPERAND.fullmatch, run)) or _OPERATOR.fullmatch(run[0]) or joins and run[0][0] in "-+\u2212"
  ):
    return ""
  return " ".join(run)


Extractor = Callable[[str], list[Stated]]
EXTRACTORS: dict[str, Extractor] = {
  "boxed": boxed,
  "hashes": hashes,
  "phrase": phrase,
  "expression": expression,
}
DEFAULT_ORDER = ("boxed", "hashes", "phrase", "expression")
# What these find claims to be final; a last expression just stands there.
DECLARED = ("boxed", "hashes", "phrase")

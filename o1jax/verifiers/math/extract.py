r"""Where a completion states its final answers: a box, `#### ...`, "the answer is ...", an expression.

Each extractor gives all answers in order, as raw text; what the text means is for `read` to say. All take
time linear in the completion, however it is built: at most MAX_LENGTH characters an answer are looked at.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from o1jax.verifiers.completion import in_thoughts, without_end_tokens, without_next_turn, without_thoughts
from o1jax.verifiers.math.text import MAX_LENGTH, ascii_signs, balanced
from o1jax.verifiers.math.units import CHANGES_VALUE

MAX_STATED = 64  # answers of one extractor that are looked at

# Without braces (`\\boxed 7`) what TeX would box, where nothing follows that could belong to it.
_BOX = re.compile(
  r"\\(?:boxed|fbox)(?![a-zA-Z])\s*(?:\{|(?P<bare>-?[0-9]{1,40}|[a-zA-Z]|\\[dt]?frac\s?(?:[0-9]{2}"
  r"|(?:\{[^{}]{1,80}\}){2}))(?=[.,!]?\s{0,3}(?:\$|\\\)|\\\]|\Z|\n)))?"
)
# What only stands where an answer is to be put.
_PLACEHOLDER = re.compile(
  r"(?:[\s.?_{}$*]|\\(?:[hv]?phantom\s?\{[^{}]*\}|q?quad|square|Box|cdots|[lc]?dots|ldots|underline|text(?:bf"
  r"|it|rm)?|mathrm|[,;:!_ ])|(?i:(?:your|the|my|final|correct|answer|solution|result|value|goes|here|insert"
  r"|put|placeholder)(?![a-z])))*"
)
_BEHIND_BOX = re.compile(
  r"(?i)\s?(?:\$|\\\)|\\\])?\s?(?:(?P<percent>\\?%|percent\b|pct\b)|(?P<scale>(?:hundred|thousand"
  r"|[mbtr]+illion|dozen|lakh|crore)s?\b))"
)
_HASHES = re.compile(r"#{4,}[^\S\r\n]*(?P<line>(?:(?!####)[^\r\n]){0,401})")
# What stands between `the answer is` and the answer.
_LEAD = (
  r"(?:[\s,:*_]{0,8}(?:(?:therefore|thus|hence|indeed|simply|just|clearly|exactly|precisely|then|also"
  r"|actually|really|now|still|again|always|only|obviously|consequently|of course|in fact|as before"
  r"|found to be|given by|given as|equal to|(?:a|the) total of|(?:the|an?)\s(?:(?:open|closed|half-open"
  r"|ordered|whole|real|positive|unique|exact|correct|rational|complex)\s)?(?:number|value|integer|interval"
  r"|point|set|fraction|ratio|function|pair|triple|vector|matrix|polynomial|expression|equation|line))"
  r"\b)){0,4}[\s,:*_]{0,8}"
)
_PHRASE = re.compile(
  r"(?i)(?:(?P<final>\bfinal\s{1,4})?\banswers?(?:\s(?:to|for|of)\s[^.:\n]{1,80}?)?|\bcorrect (?:option"
  r"|choice))[\s*_]{0,6}"
  rf"(?:,?\s?(?:therefore|thus|hence|then),?\s)?(?:\b(?:is|are|(?:would|should|must|will) be)\b|=|:){_LEAD}"
)
_HEADING = re.compile(r"^[#*_\s]{0,8}final\s{1,4}answers?[*_:\s]{0,8}$", re.IGNORECASE | re.MULTILINE)
# Where a statement in words ends. A point inside a number or inside a.m. is not followed by a space and a
# capital.
_SENTENCE_END = re.compile(
  r"[\r\n]|[.!](?=\s*[*_\"')]{0,4}(?:\s+[A-Z\\$]|\s*$|[\r\n]))|[,;]?\s(?:because|since|which|where|so)\b"
  r"|,\sas\b"
)
_MATHS = re.compile(
  r"(?s)\$\$(?P<dollars>.{1,400}?)\$\$|(?<!\\)\$(?P<dollar>[^$\n]{1,400}?)(?<!\\)\$"
  r"|\\\((?P<round>.{1,400}?)\\\)|\\\[(?P<square>.{1,400}?)\\\]|\\begin\{(?P<row>(?:equation|align|gather"
  r"|multline|displaymath|math)\*?)\}(?P<rows>.{1,400}?)\\end\{(?P=row)\}"
)
# `42; see above.`, `42 (six times seven)`, `42 and we are done`: a value and words that add nothing to it.
_REMARK = re.compile(
  r"(?P<value>[*_\"']{0,3}(?:\$[^$\n]{1,80}\$|\\\(.{1,80}?\\\)|[-+\u2212]?[0-9][0-9.,/]*%?)[*_\"']{0,3})"
  r"(?P<remark>\s?;.*|\s\(.*\)|\s?[\u2013\u2014].*|\s-\s.*|,?\s(?:as|for|in|by)\s.*|,?\sand\s(?:we|I|this"
  r"|that|it|so|thus|hence|our|nothing)\b.*)"
)
_HARMLESS = re.compile(r"\b(?:and|is|are|to|from|above|below|through|in)\b|\b\w+ times \w+", re.IGNORECASE)
_JOINED = re.compile(r"\s*(?:,|;|,?\s*\b(?:and|or)\b)\s*", re.IGNORECASE)
_BOXES_JOINED = re.compile(
  r"(?i)(?:[\s,;$*&]|\\[()\[\],;: ]|\\q?quad|\\text\{|[{}]|\b(?:and|or)\b|[a-zA-Z](?:_[0-9])?\s?=)*"
)
# The words of a line that an expression of numbers is made of, a unit behind it included.
_OPERAND = r"[-+(\u2212$€£]{0,4}\.?[0-9][-0-9.,/*^+()×·÷%°:=;\u2212]*\$?"
_OPERATOR = r"(?:[-+*/×·÷=\u2212]|or|and)"
_LAST_NUMBER = re.compile(
  rf"(?i)(?:^|(?P<before>(?<!\S)\S+)\s+)(?P<number>{_OPERAND}(?:\s+(?:{_OPERATOR}|{_OPERAND}))*"
  r"(?:\s+(?:%|°|percent|pct|degrees|dollars|cents|units))?)$"
)
_JOINS = re.compile(rf"{_OPERATOR}|[<>~!\u2248\u2260\u2264\u2265]=?", re.IGNORECASE)
_PICTURES = re.compile(r"[^\x00-\x7f]+$")  # behind the number
_EMPHASIS = re.compile(r"(?<![0-9)])(?:\*{1,3}|_{2,3}|`)(?=\S)|(?<=\S)(?:\*{1,3}|_{2,3}|`)(?![0-9(])")
_NAME = re.compile(r"[(]?[^\W\d_][)]?|.*[)}\]|]")  # what a sign behind it joins to the next number
_FORMULA_LINE = re.compile(r"(?=.*[0-9\\])(?:\\[a-zA-Z]+|\b[a-zA-Z]{1,2}(?![a-zA-Z])|[^\w?#@~]|[\d_])+")
_EVIDENT = re.compile(r"[0-9$\\=]|^\W*[A-J]\W*$")
# What is said not to be the answer, or not to be sure: `it is not 5`, `more than 5`, `it might be 5`.
_DENIED = re.compile(
  r"(?i)(?:\bfrom\s\S{1,40}\sto|\b(?:not|never|cannot|nor|than|least|most|except|might|may|could|maybe"
  r"|perhaps|possibly)|n't)\s+(?:(?:be|equals?|to|equal to)\s+)?$"
)
# `the largest n is 34`: one verb, nothing that denies or conditions it.
_PREDICATE = re.compile(r"(?s)(?P<subject>.*?\w.*?)\s(?i:is|are|equals|was|were)\s(?P<value>.+)")
_NOT_PLAIN = re.compile(
  r"(?i)\b(?:is|are|equals|was|were|be|not|never|no|none|nor|neither|cannot|if|unless|than|least|most|where"
  r"|when|either|maybe|might)\b|n't"
)
_VALUE = (
  r"(?:(?P<maths>\$[^$\n]{1,80}\$|\\\(.{1,80}?\\\))|(?P<number>[-+\u2212]?(?:\\?\$)?[0-9][0-9.,/]*%?)"
  r"|(?P<latex>\\[df]?frac[^$\n]{1,80}?)(?=\$|\\\)|\\\]|\n))"
)
_OR = r"(?:\bor\b|\\text\{\s*,?\s*or\s*\})"
_OR_BEHIND = re.compile(rf"[\s*.]{{0,3}}(?:\$|\\\)|\\\])?[\s,(]{{0,3}}{_OR}\s{{0,3}}{_VALUE}")
_OR_BEFORE = re.compile(rf"{_VALUE}[\s,]{{0,3}}{_OR}\s{{0,3}}(?:\$|\\\(|\\\[)?\s?(?P<name>[a-zA-Z]\s?=\s?)?$")


class Stated(NamedTuple):
  """One final answer as it was written."""

  text: str
  start: int  # its place in the completion: [start, end)
  end: int


def final_part(completion: str) -> str:
  """The text behind the thoughts and before the next turn; empty where it was cut off in its thoughts."""
  text = "" if in_thoughts(completion) else without_thoughts(completion)
  return without_end_tokens(without_next_turn(text))


def boxed(text: str) -> list[Stated]:
  r"""The inside of each outermost `\boxed{}` or `\fbox{}`; empty, no answer, for one that never closes.

  A box with nothing in it, or a placeholder (`in \boxed{}`, `\boxed{your answer}`), only speaks of the form.
  """
  boxes = itertools.islice(_boxes(text), MAX_STATED + 1)
  return [box for box in boxes if text[box.end - 1] == "{" or not _PLACEHOLDER.fullmatch(box.text)]


def _boxes(text: str) -> Iterator[Stated]:
  position = 0
  while (mark := _BOX.search(text, position)) is not None:
    position = mark.end()
    inside = mark["bare"]
    if mark[0].endswith("{"):
      inside = balanced(text[position : position + MAX_LENGTH + 1])
      position += 0 if inside is None else len(inside) + 1
    behind = _BEHIND_BOX.match(text, position) if inside else None
    if behind is not None:
      inside = f"{inside}\\%" if behind["percent"] else rf"{inside} \text{{ {behind['scale']}}}"
    yield Stated(inside or "", mark.start(), position)


def joined(text: str, boxes: Sequence[Stated]) -> list[list[Stated]]:
  """The boxes in groups that only joints part: `\\boxed{1} and \\boxed{2}` is one group."""
  groups: list[list[Stated]] = []
  for box in boxes:
    end = groups[-1][-1].end if groups else 0
    together = groups and _BOXES_JOINED.fullmatch(text, end, min(box.start, end + 80))
    groups = [*groups[:-1], [*groups[-1], box]] if together else [*groups, [box]]
  return groups


def alternatives(text: str, boxes: Sequence[Stated]) -> list[Stated]:
  r"""What `or` joins to a box without being in one: `\boxed{5} or 6`, `either $6$ or $\boxed{5}$`.

  In `\frac92a = 99$ or $a = \boxed{22}` it joins steps.
  """
  others = []
  for box in boxes:
    before = text[max(0, box.start - MAX_LENGTH) : box.start]
    for match in filter(None, (_OR_BEFORE.search(before), _OR_BEHIND.match(text, box.end))):
      value = (match["maths"] or match["number"] or match["latex"]).rstrip(" .,")
      name = (match.groupdict().get("name") or "").strip(" =")
      if not (name and "=" in value and not value.strip("$\\( ").startswith(name)):
        others.append(Stated(value, box.start, box.end))
  return others


def hashes(text: str) -> list[Stated]:
  """The rest of each line behind `####`."""
  marks = itertools.islice(_HASHES.finditer(text), MAX_STATED + 1)
  return [Stated(mark["line"], *mark.span()) for mark in marks]


def phrase(text: str) -> list[Stated]:
  """What stands behind "the answer is", "Answer:" and their like, to the end of the sentence or line.

  Where something is called the final answer, the others are working; where one holds maths or is an option's
  letter, those that do not are remarks ("the answer is positive").
  """
  marks = list(itertools.islice(_PHRASE.finditer(text), MAX_STATED + 1))
  headings = list(itertools.islice(_HEADING.finditer(text), MAX_STATED + 1))
  final = [mark for mark in marks if mark["final"]]
  chosen = sorted((final or [] if headings else final or marks) + headings, key=lambda mark: mark.end())
  answers: list[Stated] = []
  for mark in chosen:
    if answers and mark.start() < answers[-1].end:
      if not _EVIDENT.search(text, answers[-1].start, mark.start()):
        answers.pop()  # "Final answer: the answer is" announces once
    if not answers or mark.end() > answers[-1].end:
      answer = _plain(_statement(text, mark.end()))
      answers += [answer] if answer.text else []
  return [answer for answer in answers if _EVIDENT.search(answer.text)] or answers


def _statement(text: str, start: int) -> Stated:
  """The sentence from `start` on, without the maths in it being taken for its end."""
  window = text[start : start + MAX_LENGTH + 1]
  skipped = len(window) - len(window.lstrip())
  spans = [match.span() for match in _MATHS.finditer(window)]
  for end in _SENTENCE_END.finditer(window, skipped):
    if not any(first <= end.start() < last for first, last in spans):
      return Stated(window[skipped : end.start()].strip(), start, start + end.start())
  # What was cut off stays longer than an answer may be.
  return Stated(window if len(window) > MAX_LENGTH else window.strip(), start, start + len(window))


def _plain(stated: Stated) -> Stated:
  """`The largest n is 34` as 34; a value without a remark that changes nothing, or its environment."""
  text = stated.text
  if (match := _PREDICATE.fullmatch(text)) is not None and not any(map(_NOT_PLAIN.search, match.groups())):
    text = match["value"] if re.search(r"[0-9$\\]", match["value"]) else text
  if (match := _REMARK.fullmatch(text)) is not None:
    words = _HARMLESS.sub(" ", match["remark"])
    text = text if re.search(r"[0-9$\\=]", words) or CHANGES_VALUE.search(words) else match["value"]
  elif (match := _MATHS.fullmatch(text)) is not None:
    text = (match["rows"] or text).strip()
  return stated._replace(text=text)


def expression(text: str) -> list[Stated]:
  """The last maths between delimiters that no number follows, with what `or`, `and` or a comma joins to it;
  else the number that ends the last line, or that line where it is a formula. One answer at most.
  """
  tail_start = max(0, len(text) - 4 * MAX_LENGTH)
  tail = text[tail_start:]
  segments = list(_MATHS.finditer(tail))
  if segments and not re.search(r"[0-9]", tail[segments[-1].end() :]):
    first = len(segments) - 1
    while first > 0 and _JOINED.fullmatch(tail, segments[first - 1].end(), segments[first].start()):
      first -= 1
    inside = [segment["rows"] or next(filter(None, segment.groups())) for segment in segments[first:]]
    start, end = segments[first].start(), segments[-1].end()
    empty = _PLACEHOLDER.fullmatch(inside[-1].replace(r"\boxed", ""))
    denied = empty or _DENIED.search(tail[max(0, start - 40) : start])
    return [] if denied else [Stated(", ".join(inside), tail_start + start, tail_start + end)]
  line = tail.rstrip().rpartition("\n")[2]
  if len(line) > MAX_LENGTH:
    line = line[-MAX_LENGTH:].partition(" ")[2]  # without the word that was cut
  line_as_told = _PICTURES.sub(lambda match: ascii_signs(match[0]), line)
  number = _last_number(_EMPHASIS.sub("", line_as_told).strip(" .*!"))
  return [Stated(number, len(text) - len(line), len(text))] if number else []


def _last_number(line: str) -> str:
  """The expression of numbers that ends the line, or the line where it is a formula; "" where there is none.

  A sign that joins the number to a name makes it none: `x - 3` and `x -3` are not -3, `x > 3` is not 3.
  """
  match = _LAST_NUMBER.search(line)
  if match is None:
    return line.rstrip("$ ") if _FORMULA_LINE.fullmatch(line) else ""
  before, number = match["before"] or "", match["number"]
  joins = _JOINS.fullmatch(before) or number[0] in "-+\u2212" and _NAME.fullmatch(before)
  if before != "=" and (joins or _DENIED.search(line, 0, match.start("number"))):
    return ""
  return number if number.startswith("$") else number.rstrip("$")


EXTRACTORS: dict[str, Callable[[str], list[Stated]]] = {
  extractor.__name__: extractor for extractor in (boxed, hashes, phrase, expression)
}
DEFAULT_ORDER = tuple(EXTRACTORS)
# What these find claims to be final; a last expression just stands there.
DECLARED = {"boxed", "hashes", "phrase"}


def stated(text: str, order: Sequence[str]) -> tuple[list[Stated], list[Stated]]:
  """(answers of the first extractor with any, what others declare behind or `or` joins), none if too many."""
  for place, name in enumerate(order):
    if answers := EXTRACTORS[name](text):
      others = [EXTRACTORS[other](text) for other in order[place + 1 :] if {name, other} <= DECLARED]
      behind = [answer for other in others for answer in other if answer.start >= answers[-1].end]
      behind += alternatives(text, answers) if name == "boxed" else []
      return (answers, behind) if len(answers) <= MAX_STATED else ([], [])
  return [], []

"""The program in a completion: its fenced blocks and other readings, the likeliest first.

    completion -> end tokens and thoughts off -> candidates, the likeliest first

Which candidate counts is decided in the sandbox, where they are compiled (`sandbox.candidate`). Standard
library alone.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from o1jax.verifiers.completion import Policy, in_thoughts, without_end_tokens, without_thoughts

Which = Literal["last", "first"]  # of the code blocks

MOST = 16  # candidates
_PYTHON = ("python", "py", "python3")
_MARKDOWN = ("markdown", "md")
# Possessive: what has been matched is never given back, else a long line that is no fence takes quadratic
# time.
_FENCE = re.compile(r"([ \t]*+)(`{3,}+|~{3,}+)[ \t]*+([^`\s]*+)[^`]*+")
_MARKS = ("```", "~~~")
_INDENT = 3  # of a fence, at most; a ```python line may stand deeper, as in a list
_DEEPEST = 12
# MBPP's own mark of the end (Austin et al. 2021), [BEGIN] that of the start.
_DONE = re.compile(r"\s*\[DONE\]\s*\Z")
_QUOTED = re.compile(r"^> ?", re.MULTILINE)
_IN_A_LINE = re.compile(r"(?<=[^\n`])(```(?:python|py|python3)[ \t]*\n)")
# Where the completion of a function ends that goes on with something else (Chen et al. 2021), and mid-text
# end tokens.
_STOPS = re.compile(r"\n(?=class|def|#|if|print|@)")
_END_TOKENS = re.compile(
  r"<\|(?:endoftext|im_end|eot_id|end_of_text|return|end|eom_id|EOT)\|>|<end_of_turn>|</s>"
)


class Candidate(NamedTuple):
  """A text that may be the program."""

  code: str
  sealed: bool  # it defines a target or says that it is Python: if it does not compile, no later one counts


class Fenced(NamedTuple):
  """A fenced block."""

  language: str  # in small letters; "" where none is given
  code: str


def answer_text(completion: str, policy: Policy) -> str:
  """A completion without its end tokens and thoughts; nothing where it was cut off in these.

  Under `standard` all ends with the first end token, wherever it stands.
  """
  text = without_end_tokens(completion)
  if in_thoughts(text):
    return ""
  text = without_thoughts(text)
  if policy == "standard":
    text = _END_TOKENS.split(text, maxsplit=1)[0]
  return _DONE.sub("", text).removeprefix("[BEGIN]\n")


def extract(text: str, block: Which = "last") -> str:
  """The code of a completion: its last (or first) ```python block, else its last (first) block, else all.

  A block that nothing closes reaches to the end. The indent of a fence is taken off its lines.
  """
  ordered = _ordered(_blocks(text), block)
  return ordered[0].code if ordered else text


def candidates(text: str, names: Iterable[str], block: Which, policy: Policy) -> list[Candidate]:
  """Texts that may be the answer's program, each once; the program is to define one of `names`."""
  any_name = "|".join(map(re.escape, names))
  pattern = rf"\b(?:def|class)\s+(?:{any_name})\b|^(?:{any_name})\s*="
  defines = re.compile(pattern, re.MULTILINE) if any_name else None
  sealed: dict[str, bool] = {}  # by code
  blocks = _blocks(text)
  widest = _widest(text)
  for language, code in _ordered(blocks, block):
    if code and widest != code and widest.startswith(code):
      # A fence at the margin of a docstring ends a block for Markdown, not for Python.
      sealed.setdefault(widest, False)
    if "\xa0" in code:
      sealed.setdefault(code.replace("\xa0", " "), False)
    mark = None if defines is None else defines.search(code)
    fits = language in _PYTHON if defines is None else mark is not None
    sealed.setdefault(code, fits and language not in _MARKDOWN)
    if mark is not None and sealed[code] and (mark.start() == 0 or code[mark.start() - 1] == "\n"):
      return _filled(sealed)  # it is defined at the margin: no other reading counts
  for code in _other_readings(text, blocks, block, policy):
    sealed.setdefault(code, False)
    sealed.setdefault(code.replace("\xa0", " "), False)
  return _filled(sealed)[:MOST]


def _filled(sealed: Mapping[str, bool]) -> list[Candidate]:
  return [Candidate(code, flag) for code, flag in sealed.items() if code.strip()]


def _other_readings(text: str, blocks: list[Fenced], block: Which, policy: Policy) -> Iterator[str]:
  yield _before_a_closing_fence(text)
  yield from _codes(*(code for language, code in blocks if language in _MARKDOWN), block=block)
  yield text
  yield from _codes(_QUOTED.sub("", text), _IN_A_LINE.sub(r"\n\1", text), block=block)
  yield text[text.find("<code>\n") + len("<code>\n") : text.rfind("</code>")] if "<code>\n" in text else ""
  if policy == "standard":
    yield _STOPS.split(text, maxsplit=1)[0]


def _codes(*texts: str, block: Which) -> Iterator[str]:
  for text in texts:
    yield from (code for _, code in _ordered(_blocks(text), block))


def _blocks(text: str) -> list[Fenced]:
  blocks: list[Fenced] = []
  lines: list[str] = []
  fence = language = ""
  indent = 0
  for line in text.splitlines(keepends=True):
    mark = _fence(line)
    if not fence and mark is not None and _opens(mark):
      indent, fence, language, lines = len(mark[1]), mark[2], mark[3].lower(), []
    elif fence and mark is not None and _closes(mark, fence, indent):
      blocks.append(Fenced(language, "".join(lines)))
      fence = ""
    elif fence:
      lines.append(_outdented(line, indent))
  if fence:
    blocks.append(Fenced(language, "".join(lines)))
  return blocks


def _opens(mark: re.Match[str]) -> bool:
  return len(mark[1]) <= (_DEEPEST if mark[3].lower() in _PYTHON else _INDENT)


def _closes(mark: re.Match[str], fence: str, indent: int) -> bool:
  return mark[2].startswith(fence) and mark[0].strip() == mark[2] and len(mark[1]) <= indent + _INDENT


def _fence(line: str) -> re.Match[str] | None:
  """The mark that a line is, if it is one; an end token may stand behind it."""
  return _FENCE.fullmatch(without_end_tokens(line).rstrip()) if line.lstrip()[:3] in _MARKS else None


def _outdented(line: str, indent: int) -> str:
  blank = len(line) - len(line.lstrip(" \t"))
  return line[min(blank, indent) :]


def _ordered(blocks: list[Fenced], block: Which) -> list[Fenced]:
  """Python before any other, the last (or first) before the others."""
  inward = blocks if block == "first" else blocks[::-1]
  return sorted(inward, key=lambda each: each.language not in _PYTHON)


def _widest(text: str) -> str:
  """The text between the first fence and the last, other fences included; "" without two."""
  lines = text.splitlines(keepends=True)
  marks = [place for place, line in enumerate(lines) if _fence(line)]
  return "".join(lines[marks[0] + 1 : marks[-1]]) if len(marks) > 2 else ""


def _before_a_closing_fence(text: str) -> str:
  """The text before the first fence, where that may close one that the prompt has opened."""
  lines = text.splitlines(keepends=True)
  for place, line in enumerate(lines):
    mark = _fence(line)
    if mark is not None:
      return "" if mark[3] or len(mark[1]) > _INDENT else "".join(lines[:place])
  return ""

"""What of a completion is its answer: thoughts and end tokens taken off, alike for every verifier.

Standard library alone.
"""

import re
from typing import Literal

# strict: what stands in doubt is not paid. standard: as the field's common graders read it, so that figures compare.
Policy = Literal["strict", "standard"]

# One token that ends a turn, as model families spell them, at the very end.
_END_TOKEN = re.compile(
  r"(?:<\|[A-Za-z0-9_]{1,40}\|>|<｜[^｜<>]{1,40}｜>|</s>|<eos>|<pad>|<end_of_turn>|<start_of_turn>|<turn\|>|\[EOS\])\Z"
)
_LONGEST_END_TOKEN = 44

# Marks that close a thought, and the mark of gpt-oss behind which the final channel begins.
_THOUGHT_ENDS = (
  "</think>",
  "</thinking>",
  "</thought>",
  "</reasoning>",
  "[/THINK]",
  "◁/think▷",
  "<|channel|>final<|message|>",
)
_THOUGHT_STARTS = (
  "<think>",
  "<thinking>",
  "<thought>",
  "<reasoning>",
  "[THINK]",
  "◁think▷",
  "<|channel|>analysis<|message|>",
)


def without_end_tokens(text: str) -> str:
  """The text without the end tokens (one or several) that decoding has left at its end."""
  kept = end = len(text)
  while True:
    while end and text[end - 1].isspace():
      end -= 1
    found = _END_TOKEN.search(text, max(0, end - _LONGEST_END_TOKEN), end)
    if found is None:
      return text[:kept]
    kept = end = found.start()


def without_thoughts(text: str) -> str:
  """What stands behind the last mark that closes a thought; all of the text where none closes."""
  end = max((at + len(mark) for mark in _THOUGHT_ENDS if (at := text.rfind(mark)) >= 0), default=0)
  return text[end:]


def in_thoughts(text: str) -> bool:
  """Whether the text, its closed thoughts taken off, begins a thought that never closes: it was cut off in it."""
  return without_thoughts(text).lstrip().startswith(_THOUGHT_STARTS)

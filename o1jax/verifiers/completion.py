"""What of a completion is its answer: thoughts and end tokens taken off, alike for every verifier.

Standard library alone.
"""

import re
from typing import Literal

# strict: what stands in doubt is not paid. standard: as the field's common graders read it, so that figures compare.
Policy = Literal["strict", "standard"]

# One token that ends a turn, as model families spell them, at the very end.
_END_TOKEN = re.compile(
  r"(?:<\|[a-z0-9_]{1,40}\|>|<｜[^｜<>]{1,40}｜>|</s>|<eos>|<pad>|<end_of_turn>|<start_of_turn>)\Z"
)
_LONGEST_END_TOKEN = 44

# Marks that close a thought, and the mark of gpt-oss behind which the final channel begins.
_THOUGHT_ENDS = (
  "</think>",
  "</thinking>",
  "</thought>",
  "</reasoning>",
  "[/THINK]",
  "<|channel|>final<|message|>",
)
_THOUGHT_STARTS = (
  "<think>",
  "<thinking>",
  "<thought>",
  "<reasoning>",
  "[THINK]",
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


# The next turn of a conversation, which a model has gone on to write.
_NEXT_TURN = re.compile(
  r"(?<=\S)\s*(?:<\|(?:im_start|im_end|endoftext|eot_id|end_of_text|start_header_id)\|>|<(?:start|end)_of_turn>)"
)


def without_next_turn(text: str) -> str:
  """What stands before the first mark that ends a turn behind some text."""
  turn = _NEXT_TURN.search(text)
  return text if turn is None else text[: turn.start()]


# `\boxed{5} is incorrect.`, `No, that is wrong.`, `However, this is not the correct answer.`
_DENIAL = (
  r"(?:(?:'s|\s(?:is|was|are|were|seems|looks|must be))(?:\s\w+){0,2}?\s(?:wrong|incorrect|invalid|mistaken|a mistake|an error"
  r"|not(?:\s\w+){0,2}?\s(?:correct|right|valid|answer|solution))"
  r"|\s(?:isn't|wasn't|aren't|(?:can't|cannot|can not|couldn't) be)(?:\s\w+){0,2}?\s(?:correct|right|valid|answer|solution))\b"
)
_TAKEN_BACK = re.compile(
  rf"^[^\w.\n]{{0,8}}{_DENIAL}|(?:^|[.!?,;:\n\u2014]|\b(?:but|however|wait|no|actually|sorry)\b)\W{{0,5}}"
  r"(?:(?:but|however|wait|no|actually|sorry|hmm|oh)\W{1,3}){0,3}(?:this|that|it|which|they|these|those|(?:(?:the|my|our|this|that)\s){1,2}"
  rf"(?:\w+\s){{0,1}}?(?:answer|result|value|solution)){_DENIAL}|\bscratch that\b|\bI (?:have )?made an? (?:mistake|error)\b",
  re.IGNORECASE,
)


def taken_back(text: str, end: int) -> bool:
  """Whether the words behind an answer, which ends at `end`, say that it is none; 400 characters are looked at."""
  behind = re.sub(r"^(?:\$|\\\)|\\\]|\*)+", "", text[end : end + 400])
  return _TAKEN_BACK.search(behind) is not None

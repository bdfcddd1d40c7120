"""What of a completion is its answer, by policy; thoughts and end tokens taken off in one place.

Under the policy `strict` what stands in doubt is not paid. Under `standard` a completion is read as the
field's common graders read it, so that figures compare with theirs. What each does:

  math         strict    several different answers are a hedge, and wrong, as is one that is taken back
               standard  the last answer counts (as in verl, slime, lm-evaluation-harness)
  gsm8k        strict    answers are marked: `#### 18`, a box, a line `A: 18`. Marks of different values are a
                         hedge, and wrong, those in the thoughts included, as is an answer that is taken back.
                         Values are equal where they are exactly
               standard  the last mark behind the thoughts, else the last number, as flexible-extract of
                         lm-evaluation-harness reads one. Values are equal within 1e-6
  code         strict    lines of standard output are compared as text, results of fn_name exactly
               standard  standard output is compared by tokens, as contest judges do, numbers within 1e-6;
                         what goes on behind an end token or a function's body is not part of the program
               either    a completion's last block of code is its program, or its first: see --block
  constraints  strict    the whole response is checked, its thoughts included
               standard  what stands behind the thoughts is checked
               either    by the rules of the published checkers of IFEval, quirks included
  countdown    either    the last claimed try, or the expression in <answer>...</answer>, exactly
  gym          strict    the scorers of reasoning-gym, on the answer as it stands
               standard  an answer that does not score 1 is read again without its dress: a box, dollars,
                         "The answer is"

Under either policy the end tokens that decoding has left are taken off, and all but gsm8k and constraints
look behind the thoughts alone: behind the last of </think>, </thinking>, </thought>, </reasoning>, [/THINK]
and the mark of gpt-oss's final channel. For math, gsm8k and code, and for constraints under standard, a
response that was cut off in its thoughts states nothing.
"""  # printed by `o1jax verify --help`; the module needs the standard library alone

import re
from typing import Literal, get_args

Policy = Literal["strict", "standard"]


def check_policy(name: str) -> Policy:
  """The policy of that name. Raises ValueError where there is none."""
  if name not in get_args(Policy):
    raise ValueError(f"{name!r} is no policy; there are {', '.join(get_args(Policy))}")
  return name  # type: ignore[return-value]


# One token that ends a turn, as model families spell them, at the very end.
_END_TOKEN = re.compile(
  r"(?:<\|[A-Za-z0-9_]{1,40}\|>|<｜[^｜<>]{1,40}｜>|</s>|<eos>|<pad>|<end_of_turn>|<start_of_turn>"
  r"|<turn\|>|\[EOS\])\Z"
)
_LONGEST_END_TOKEN = 44

# Marks that close a thought, and the mark of gpt-oss behind which the final channel begins.
_THOUGHT_ENDS = tuple(
  "</think> </thinking> </thought> </reasoning> [/THINK] ◁/think▷ <|channel|>final<|message|>".split()
)
_THOUGHT_STARTS = tuple(
  "<think> <thinking> <thought> <reasoning> [THINK] ◁think▷ <|channel|>analysis<|message|>".split()
)


def without_end_tokens(text: str) -> str:
  """The text without the end tokens (one or several) that decoding has left at its end."""
  kept = end = len(text)
  while True:
    while end and text[end - 1].isspace():
      end -= 1
    may_end = text.endswith((">", "]"), 0, end)  # cheap, beside a search
    token = _END_TOKEN.search(text, max(0, end - _LONGEST_END_TOKEN), end) if may_end else None
    if token is None:
      return text[:kept]
    kept = end = token.start()


def without_thoughts(text: str) -> str:
  """The text behind the last mark that closes a thought; all of it where none closes."""
  end = max((at + len(mark) for mark in _THOUGHT_ENDS if (at := text.rfind(mark)) >= 0), default=0)
  return text[end:]


def in_thoughts(text: str) -> bool:
  """Whether the text, behind its closed thoughts, begins a thought that never closes."""
  return without_thoughts(text).lstrip().startswith(_THOUGHT_STARTS)


# The next turn of a conversation, which a model has gone on to write.
_NEXT_TURN = re.compile(
  r"(?<=\S)\s*(?:<\|(?:im_start|im_end|endoftext|eot_id|end_of_text|start_header_id)\|>|<(?:start"
  r"|end)_of_turn>)"
)


def without_next_turn(text: str) -> str:
  """The text before the first mark that ends a turn, unless the text begins with it."""
  turn = _NEXT_TURN.search(text)
  return text if turn is None else text[: turn.start()]


# `\boxed{5} is incorrect.`, `No, that is wrong.`, `However, this is not the correct answer.`
_DENIAL = (
  r"(?:(?:'s|\s(?:is|was|are|were|seems|looks|must be))(?:\s\w+){0,2}?\s(?:wrong|incorrect|invalid|mistaken"
  r"|a mistake|an error|not(?:\s\w+){0,2}?\s(?:correct|right|valid|answer|solution))|\s(?:isn't|wasn't|aren't"
  r"|(?:can't|cannot|can not|couldn't) be)(?:\s\w+){0,2}?\s(?:correct|right|valid|answer|solution))\b"
)
_TAKEN_BACK = re.compile(
  rf"^[^\w.\n]{{0,8}}{_DENIAL}|(?:^|[.!?,;:\n\u2014]|\b(?:but|however|wait|no|actually|sorry)\b)\W{{0,5}}"
  r"(?:(?:but|however|wait|no|actually|sorry|hmm|oh)\W{1,3}){0,3}(?:this|that|it|which|they|these|those"
  r"|(?:(?:the|my|our|this|that)\s){1,2}"
  rf"(?:\w+\s){{0,1}}?(?:answer|result|value|solution)){_DENIAL}|\bscratch that\b"
  rf"|\bI (?:have )?made an? (?:mistake|error)\b",
  re.IGNORECASE,
)


def taken_back(text: str, end: int) -> bool:
  """Whether the 400 characters behind an answer, which ends at `end`, say that it is none."""
  behind = re.sub(r"^(?:\$|\\\)|\\\]|\*)+", "", text[end : end + 400])
  return _TAKEN_BACK.search(behind) is not None

"""Countdown: reach a target from given numbers, each used once, by + - *, as a chain of exact steps.

A response is a chain of thought made of tries. A try is a comma-separated list of steps `a op b = c`, each taking
two numbers from the pool and putting its result back. It may say how far it is off (`off 8`: working, not graded),
and ends with a mark: `yes` claims it, `no` drops it. The answer is the last claimed try; what stands behind it, cut off or dropped, changes nothing. It is correct where every
step is exact, every number is used once, and the last result is the target (Gandhi et al. 2024, Stream of Search,
section 3; Pan et al. 2025, TinyZero).
"""

import re
from typing import Sequence

from o1jax.verifiers.base import Problem, Verdict

OPERATIONS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}
CLAIM, DROP, RETRY, GIVE_UP, OFF = "yes", "no", "wait", "quit", "off"
MAX_TEXT = 100_000  # characters; a longer completion is unparsable
STEP = re.compile(r"\s*(\d{1,6}) ([+*-]) (\d{1,6}) = (-?\d{1,12})\s*")


def last_claim(text: str) -> str | None:
  """The last try that ends in `yes`, without its mark and what it says to be off; None where nothing is claimed."""
  if len(text) > MAX_TEXT:
    return None
  end = None
  for mark in re.finditer(rf"\b{CLAIM}\b", text):
    end = mark
  if end is None:
    return None
  before = text[: end.start()]
  claim = re.split(rf"\b(?:{CLAIM}|{DROP}|{RETRY}|{GIVE_UP})\b", before)[-1]
  return re.sub(rf"\b{OFF} \d{{1,6}}\s*$", "", claim).strip()


def parse_steps(claim: str) -> list[tuple[int, str, int, int]] | None:
  """Steps (a, op, b, c) of a try `a op b = c , ...`; None where it is no list of steps."""
  matches = [STEP.fullmatch(step) for step in claim.split(",")]
  if not all(matches):
    return None
  return [(int(m[1]), m[2], int(m[3]), int(m[4])) for m in matches if m]


def reaches(steps: Sequence[tuple[int, str, int, int]], numbers: Sequence[int], target: int) -> bool:
  """Whether the steps are exact, use each of `numbers` once, and end at `target`."""
  pool = list(numbers)
  for a, op, b, c in steps:
    for operand in (a, b):
      if operand not in pool:
        return False
      pool.remove(operand)
    if OPERATIONS[op](a, b) != c:
      return False
    pool.append(c)
  return pool == [target]


def canonical_steps(steps: Sequence[tuple[int, str, int, int]]) -> str:
  """Steps as text in which `4 + 3 = 7` reads `3 + 4 = 7`, so that a vote counts them as one answer."""
  ordered = ((*((a, b) if op == "-" else sorted((a, b))), op, c) for a, op, b, c in steps)
  return " , ".join(f"{a} {op} {b} = {c}" for a, b, op, c in ordered)


def verify(problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
  """Exact verdicts, 1.0 or 0.0; `problem.meta` holds `numbers` (list of int) and `target` (int)."""
  return [_verify_one(problem, text) for problem, text in zip(problems, completions, strict=True)]


def _verify_one(problem: Problem, text: str) -> Verdict:
  claim = last_claim(text)
  steps = None if claim is None else parse_steps(claim)
  if steps is None:
    return Verdict(0.0, False, None, "unparsable")
  if reaches(steps, problem.meta["numbers"], problem.meta["target"]):
    return Verdict(1.0, True, canonical_steps(steps))
  return Verdict(0.0, False, canonical_steps(steps), "wrong")


def count_tries(text: str) -> int:
  """Marked tries in a response: each `yes` or `no` ends one."""
  return len(re.findall(rf"\b(?:{CLAIM}|{DROP})\b", text))

"""The contract of every verifier: `verify(problems, completions) -> list[Verdict]`, a pure function.

A problem that cannot be graded by, such as one whose gold answer is none, is no verdict: `verify` raises a
ValueError that begins with `problem ID: `. Standard library alone, so that worker processes start fast.
"""

import dataclasses
from typing import Any, Callable, Sequence


@dataclasses.dataclass(frozen=True)
class Problem:
  """One verifiable prompt."""

  id: str  # unique within its task
  prompt: str  # text the model reads
  answer: str  # the gold answer, or what the verifier needs in its place
  source: str  # name of the task
  meta: dict[str, Any] = dataclasses.field(default_factory=dict)  # whatever else the verifier needs


@dataclasses.dataclass(frozen=True)
class Verdict:
  """The verdict on one completion."""

  reward: float  # NaN where nobody judged it, so that nothing can be learned from it
  correct: bool
  parsed: str | None  # the answer that was read off the completion, None where there is none
  error: str | None = None  # None | "wrong" | "unparsable" | "truncated" | "timeout" | "crashed" | "policy"


UNPARSABLE = Verdict(0.0, False, None, "unparsable")


def right_or_wrong(correct: bool, parsed: str | None) -> Verdict:
  """The verdict on an answer that was read: reward 1 or 0."""
  return Verdict(float(correct), correct, parsed, None if correct else "wrong")


Verify = Callable[[Sequence[Problem], Sequence[str]], list[Verdict]]

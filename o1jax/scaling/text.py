"""What the words of completions say: reflection and repetition."""

import re
from typing import Sequence

WORDS = {"wait": r"\bwait\b", "check": r"\b(?:re-?|double[- ])?check", "alternatively": r"\balternatively\b"}
RUN = 4  # words in a run that counts as repeated


def reflection_rates(texts: Sequence[str]) -> dict[str, float]:
  """Mean occurrences a completion of each reflection word, under `reflection/<word>_rate`."""
  count = max(len(texts), 1)
  found = {word: sum(len(re.findall(p, t, re.IGNORECASE)) for t in texts) for word, p in WORDS.items()}
  return {f"reflection/{word}_rate": total / count for word, total in found.items()}


def repetition_rate(texts: Sequence[str]) -> float | None:
  """Share of runs of four words that stood before in the same completion, over all completions; None: there are none."""
  runs = repeated = 0
  for text in texts:
    words = text.split()
    seen = [tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1)]
    runs += len(seen)
    repeated += len(seen) - len(set(seen))
  return repeated / runs if runs else None

"""Rates of reflection words and of repeated word runs in completions."""

import re
from typing import Sequence

WORDS = {"wait": r"\bwait\b", "check": r"\b(?:re-?|double[- ])?check", "alternatively": r"\balternatively\b"}
RUN = 4  # words in a run


def reflection_rates(texts: Sequence[str]) -> dict[str, float]:
  """Mean number of each reflection word in a completion, under `reflection/<word>_rate`."""
  count = max(len(texts), 1)
  totals = {word: sum(len(re.findall(p, t, re.IGNORECASE)) for t in texts) for word, p in WORDS.items()}
  return {f"reflection/{word}_rate": total / count for word, total in totals.items()}


def repetition_rate(texts: Sequence[str]) -> float | None:
  """Share of 4-word runs that repeat an earlier one of the same completion; None where there are no runs."""
  runs = repeated = 0
  for text in texts:
    words = text.split()
    grams = [tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1)]
    runs += len(grams)
    repeated += len(grams) - len(set(grams))
  return repeated / runs if runs else None

"""Which training texts were seen in an evaluation: runs of words in common (Brown et al. 2020, appendix C).

    text -> words -> runs of n of them -> index of an evaluation set's runs -> training texts that hold one of them

Words are compared without case, punctuation and typography. n is as in that paper: for each evaluation set the 5th
percentile of its lengths in words, but at least 8 and at most 13. 13 words in a row hardly ever agree by chance, and
where an evaluation set's texts are short, 13 would let a whole one pass; below 8, what agrees is phrases. A text of
fewer than n words is compared whole.

What is compared is what a problem itself says: words that a task's prompts all have in common would make each a copy
of the others. For the same reason a generator's problems, alike but for their numbers, are kept apart by their
canonical form instead, and compared with other evaluation sets alone.
Left out: paraphrases, translations, and the answers.
"""

import dataclasses
import re
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

SHORTEST, LONGEST = 8, 13  # words of a run
PERCENTILE = 5.0  # of the lengths of an evaluation set's texts

_WORD = re.compile(r"[^\W_]+")


@dataclasses.dataclass(frozen=True)
class Index:
  """The runs of words of an evaluation set."""

  size: int  # words of a run
  runs: Mapping[str, int]  # run -> the first text that holds it
  whole: Mapping[str, int]  # text of fewer words, whole -> its place


def words(text: str) -> list[str]:
  """A text's words: letters and digits, in compatibility form, without case. `Don't!` has two, `x_1=5` three."""
  return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def run_size(texts: Sequence[str]) -> int:
  """Words of a run for an evaluation set of these texts; LONGEST where there is none."""
  lengths = [len(words(text)) for text in texts]
  if not lengths:
    return LONGEST
  return int(np.clip(np.percentile(lengths, PERCENTILE, method="lower"), SHORTEST, LONGEST))


def make_index(texts: Sequence[str]) -> Index:
  """The index of an evaluation set."""
  size = run_size(texts)
  runs: dict[str, int] = {}
  whole: dict[str, int] = {}
  for place, text in enumerate(texts):
    if len(words(text)) < size:
      whole.setdefault(_whole(text), place)
    for run in _runs(text, size):
      runs.setdefault(run, place)
  return Index(size, runs, whole)


def seen_in(index: Index, text: str) -> int | None:
  """The place of an evaluation text that `text` shares a run of words with, or is the same as; None where there is none."""
  found = (index.runs[run] for run in _runs(text, index.size) if run in index.runs)
  return next(found, index.whole.get(_whole(text)))


def contaminated(texts: Sequence[str], evaluation: Mapping[str, Sequence[str]]) -> dict[str, dict[int, int]]:
  """Evaluation set -> {place of a training text: place of the evaluation text that it repeats}."""
  out: dict[str, dict[int, int]] = {}
  for name, tested in evaluation.items():
    index = make_index(tested)
    found = {place: seen_in(index, text) for place, text in enumerate(texts)}
    out[name] = {place: other for place, other in found.items() if other is not None}
  return out


def _runs(text: str, size: int) -> list[str]:
  """All runs of `size` words; a word has no space, so that joined runs are equal where the words are."""
  said = words(text)
  return [" ".join(said[start : start + size]) for start in range(len(said) - size + 1)]


def _whole(text: str) -> str:
  """A text's words; the text itself where it has none, as in `?!`."""
  return " ".join(words(text)) or text.strip()

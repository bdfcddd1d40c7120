"""Decontamination: training examples that share words with an evaluation set (Brown et al. 2020, appendix C).

    text -> words -> runs of n of them -> index of an evaluation set's runs -> training texts that hold one

Words are compared without case, punctuation and typography. n is as in that paper: for each evaluation set
the 5th percentile of its lengths in words, but at least 8 and at most 13. 13 words in a row hardly ever agree
by chance, and where an evaluation set's texts are short, 13 would let all of one pass; below 8, what agrees
is phrases. A text of fewer than n words is compared as it is.

What is compared is what a problem itself says: words that a task's prompts all have in common would make each
a copy of the others. For the same reason a generator's problems, alike but for their numbers, are kept apart
by their canonical form, and compared with other evaluation sets alone.
Left out: paraphrases, translations, and the answers.
"""

import dataclasses
import logging
import re
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from o1jax.io.data import Source, jsonl_rows
from o1jax.tasks.base import Example

OWN = "held-out problems of its own"  # the name of that evaluation set
SHORTEST, LONGEST = 8, 13  # words of a run
PERCENTILE = 5.0  # of the lengths of an evaluation set's texts

_WORD = re.compile(r"[^\W_]+")
_LOG = logging.getLogger(__name__)


def without_contamination(
  name: str, train: Sequence[Example], own: Sequence[str], decontaminate: Sequence[str], data_dir: str
) -> tuple[list[Example], dict[str, str]]:
  """(the training examples that share nothing with an evaluation set, field and hash of each set's file).

  `own` are the held-out questions of the data set `name`, and `decontaminate` names other sets as
  `FILE_OR_URL#FIELD`. How many examples are left out for each set is logged.
  """
  sets, compared = {OWN: list(own)}, {}
  for location_and_field in decontaminate:
    location, _, field = location_and_field.rpartition("#")
    rows, digest = jsonl_rows(Source(location), {field: str}, data_dir, "--task.decontaminate")
    texts = [row[field] for row in rows]
    sets[location_and_field] = texts
    compared[f"{field} {digest}"] = str(run_size(texts))
  matches = contaminated([example.question for example in train], sets)
  for evaluation, places in matches.items():
    if places:
      first, other = next(iter(places.items()))
      size = run_size(sets[evaluation])
      shared = f"{name}: {len(places)} training rows share {size} words in a row with {evaluation}"
      _LOG.warning("%s and are left out; the first: %s, with text %d", shared, train[first].where, other + 1)
  dropped = {place for places in matches.values() for place in places}
  return [example for place, example in enumerate(train) if place not in dropped], compared


@dataclasses.dataclass(frozen=True)
class RunIndex:
  """The runs of words of an evaluation set."""

  size: int  # words of a run
  runs: Mapping[str, int]  # run -> the first text that holds it
  short: Mapping[str, int]  # text of fewer words -> its place


def words(text: str) -> list[str]:
  """A text's words: letters and digits, in compatibility form, without case. `Don't!` has 2, `x_1=5` 3."""
  return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def run_size(texts: Sequence[str]) -> int:
  """Words of a run for an evaluation set of these texts; LONGEST where there is none."""
  lengths = [len(words(text)) for text in texts]
  if not lengths:
    return LONGEST
  return int(np.clip(np.percentile(lengths, PERCENTILE, method="lower"), SHORTEST, LONGEST))


def make_index(texts: Sequence[str]) -> RunIndex:
  """The index of an evaluation set."""
  size = run_size(texts)
  runs: dict[str, int] = {}
  short: dict[str, int] = {}
  for place, text in enumerate(texts):
    if len(words(text)) < size:
      short.setdefault(_all_words(text), place)
    for run in _runs(text, size):
      runs.setdefault(run, place)
  return RunIndex(size, runs, short)


def match_in(index: RunIndex, text: str) -> int | None:
  """The place of an evaluation text that `text` shares a run of words with, or is the same as, or None."""
  matches = (index.runs[run] for run in _runs(text, index.size) if run in index.runs)
  return next(matches, index.short.get(_all_words(text)))


def contaminated(texts: Sequence[str], evaluation: Mapping[str, Sequence[str]]) -> dict[str, dict[int, int]]:
  """Evaluation set -> {place of a training text: place of the evaluation text that it repeats}."""
  out: dict[str, dict[int, int]] = {}
  for name, others in evaluation.items():
    index = make_index(others)
    matches = {place: match_in(index, text) for place, text in enumerate(texts)}
    out[name] = {place: other for place, other in matches.items() if other is not None}
  return out


def _runs(text: str, size: int) -> list[str]:
  """All runs of `size` words; a word has no space, so that joined runs are equal where the words are."""
  each = words(text)
  return [" ".join(each[start : start + size]) for start in range(len(each) - size + 1)]


def _all_words(text: str) -> str:
  """A text's words; the text itself where it has none, as in `?!`."""
  return " ".join(words(text)) or text.strip()

"""Sentences as Punkt's trained English model counts them."""

import random

import pytest
from nltk.tokenize import punkt

from o1jax.verifiers.ifeval import sentences as module
from o1jax.verifiers.ifeval.sentences import sentences, words

# What the trained model makes of them, as it was looked up there; parted by |.
TABLE = [
  "One. |Two! |Three?",
  "Mr. Day met Dr. Fox at 5 p.m. in the U.S. with J. K. Bach.",
  "We left at 5 p.m. |The U.S. is big.",
  "He came, e.g. |by train, i.e. |late, etc. |No. |5 it was.",
  "Capt. |Ahab sailed.",
  "Solve for x. |The answer is y. |Then stop.",
  "Vitamin C. The rest.",
  "1. |Eggs\n2. |Ham and so on",
  "1. eggs\n2. ham",
  "Well... |But no... Ann stays... and so on.",
  "He said (so it was.) |Then: \"Go!\" |'No.' |End",
  "He said “Go.” Then he left.",
  "Wait!!! |What?! |Oh",
  "It is 3.14 or 1.000.000. |Yes",
  "See example.org or a.b.c.",
  "One.\r\n|Two.\r\n\r\n|Three.",
  "No full stop\n\nA new paragraph",
  "Go.Stay.",
  "日本。日本。",
  # Lone letters and numbers, behind which the model's words and collocations decide.
  "A. |Loud music\nB. |Quiet rooms\nC. Review",
  "9. Review the plan\n10. |Draft it",
  "Cats vs. |Dogs: who wins?",
  "It was Ali vs. Frazier. |Then they met.",
  "It ends in A through L. It should pass. |So it does.",
  "I. Overview\nII. |Methods",
  "See No. |5... |Loud noises.",
  "Done in 2. Business is good.",
  "B. Smith and B. |Kind left.",
]


@pytest.mark.parametrize("marked", TABLE)
def test_table(marked):
  found = sentences(marked.replace("|", ""))
  assert found == [part.strip() for part in marked.split("|")]


def test_words_are_cut_within_sentences():
  assert words('I don\'t. "A-B," U.S.A. (NO)') == [
    *("I", "do", "n't", ".", "``", "A-B", ",", "''", "U.S.A.", "(", "NO", ")"),
  ]


def test_only_the_quotes_differ_from_the_patterns_of_the_library():
  ours = module._PUNKT
  theirs = punkt.PunktSentenceTokenizer(ours._params)
  rng = random.Random(0)
  pieces = [
    *".?!,;:()[]{}\"'*-@#&` \n\t",
    "...",
    "--",
    ". . .",
    "Mr.",
    "The",
    "bach",
    "J.",
    "3.1",
    "1.",
    "e.g.",
    "p.m.",
  ]
  for _ in range(3000):
    text = "".join(rng.choice(pieces) for _ in range(rng.randrange(1, 30)))
    assert ours.tokenize(text) == theirs.tokenize(text), repr(text)


def test_marks_are_those_of_the_library():
  assert (module._CAPITAL_INSIDE, module._SMALL_INSIDE) == (punkt._ORTHO_MID_UC, punkt._ORTHO_MID_LC)


def test_the_model_is_whole():
  model = module._PUNKT._params
  sizes = (
    len(model.abbrev_types),
    len(model.sent_starters),
    len(model.collocations),
    len(model.ortho_context),
  )
  assert sizes == (155, 39, 37, 14702)
  assert all(word == word.lower() for word in [*model.abbrev_types, *model.ortho_context])

"""Arguments that fit and do not, and linear patterns against the published ones that can be quadratic."""

import random
import re

import pytest

from o1jax.verifiers.ifeval import instructions
from o1jax.verifiers.ifeval.instructions import RELATIONS, read_arguments

LEAST = "at least"

REFUSED = [
  ("keywords:presence", {}, "no such instruction"),
  ("keywords:existence", {}, "argument 'keywords' is missing"),
  ("keywords:existence", {"keywords": None}, "argument 'keywords' is missing"),
  ("keywords:existence", {"keywords": []}, "'keywords' wants a list of words"),
  ("keywords:existence", {"keywords": "sun"}, "'keywords' wants a list of words"),
  ("keywords:existence", {"keywords": ["sun", 3]}, "'keywords' wants a text that is not blank, has 3"),
  ("keywords:existence", {"keywords": ["(sun"]}, "'keywords' wants a word"),
  (
    "keywords:frequency",
    {"keyword": "a", "frequency": 1, "relation": "at most"},
    "'relation' wants 'at least' or",
  ),
  (
    "keywords:frequency",
    {"keyword": "a", "frequency": 1.5, "relation": LEAST},
    "'frequency' wants a whole number",
  ),
  (
    "keywords:frequency",
    {"keyword": "a", "frequency": float("nan"), "relation": LEAST},
    "wants a whole number",
  ),
  (
    "keywords:frequency",
    {"keyword": "a", "frequency": float("inf"), "relation": LEAST},
    "wants a whole number",
  ),
  (
    "keywords:letter_frequency",
    {"letter": "ab", "let_frequency": 1, "let_relation": LEAST},
    "wants one letter",
  ),
  (
    "length_constraints:number_words",
    {"num_words": -1, "relation": LEAST},
    "'num_words' wants a whole number",
  ),
  (
    "length_constraints:number_words",
    {"num_words": True, "relation": LEAST},
    "'num_words' wants a whole number",
  ),
  (
    "length_constraints:number_words",
    {"num_words": "3", "relation": LEAST},
    "'num_words' wants a whole number",
  ),
  ("language:response_language", {"language": "klingon"}, "wants the code of a language"),
  ("punctuation:no_comma", {"num_words": 3}, "has no argument 'num_words'"),
  (
    "length_constraints:nth_paragraph_first_word",
    {"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"},
    "cannot all hold",
  ),
  (
    "length_constraints:nth_paragraph_first_word",
    {"num_paragraphs": 2, "nth_paragraph": 0, "first_word": "a"},
    "cannot all hold",
  ),
]


@pytest.mark.parametrize("name, arguments, told", REFUSED)
def test_arguments_that_do_not_fit_are_named(name, arguments, told):
  with pytest.raises(ValueError, match=told) as error:
    read_arguments(name, arguments)
  assert "\n" not in str(error.value)


def test_arguments_of_other_instructions_are_dropped_where_they_are_null():
  given = {"num_words": 300.0, "relation": LEAST, "keywords": None, "language": None}
  assert read_arguments("length_constraints:number_words", given) == {"num_words": 300, "relation": LEAST}


def test_relations_meet_at_the_bound():
  assert [RELATIONS["at least"](n, 3) for n in (2, 3, 4)] == [False, True, True]
  assert [RELATIONS["less than"](n, 3) for n in (2, 3, 4)] == [True, False, False]


def published_bullets(text):
  return len(re.findall(r"^\s*\*[^\*].*$", text, re.MULTILINE)) + len(
    re.findall(r"^\s*-.*$", text, re.MULTILINE)
  )


def published_title(text):
  return any(found.lstrip("<").rstrip(">").strip() for found in re.findall(r"<<[^\n]+>>", text))


def published_paragraphs(text):
  """Their number, or -1 where none will do."""
  parts = re.split(r"\s?\*\*\*\s?", text)
  blank = [index for index, part in enumerate(parts) if not part.strip()]
  return -1 if set(blank) - {0, len(parts) - 1} else len(parts) - len(blank)


def counts(check, text, **arguments):
  """The one number up to 60 by which an instruction of an exact number is followed, -1 without one."""
  return next((n for n in range(60) if check(text, "", **{key: n for key in arguments})), -1)


def random_texts(letters, seed):
  rng = random.Random(seed)
  for _ in range(3000):
    yield "".join(rng.choice(letters) for _ in range(rng.randrange(1, 25)))


def test_bullets_are_those_of_the_published_pattern():
  for text in random_texts("*-a \n\n\r\t\x0b\u2028", seed=1):
    assert counts(instructions.number_bullet_lists, text, num_bullets=0) == published_bullets(text), repr(
      text
    )


def test_placeholders_are_those_of_the_published_pattern():
  for text in random_texts("[[]]a\n\r\u2028", seed=2):
    found = len(re.findall(r"\[.*?\]", text))
    assert instructions.number_placeholders(text, "", num_placeholders=found), repr(text)
    assert not instructions.number_placeholders(text, "", num_placeholders=found + 1), repr(text)


def test_titles_are_those_of_the_published_pattern():
  for text in random_texts("<<<>>>a \n\r", seed=3):
    assert instructions.title(text, "") == published_title(text), repr(text)


def test_paragraphs_are_those_of_the_published_rule():
  for text in random_texts("*** a\n", seed=4):
    if text.strip():
      assert counts(instructions.number_paragraphs, text, num_paragraphs=0) == published_paragraphs(text), (
        repr(text)
      )


@pytest.mark.parametrize(
  "marker, pattern",
  [("P.S.", r"\s*p\.\s?s\..*$"), ("P.P.S", r"\s*p\.\s?p\.\s?s.*$"), ("Sp", r"\s*sp.*$"), ("S$", r"\s*s$.*$")],
)
def test_postscripts_are_those_of_the_published_pattern(marker, pattern):
  for text in random_texts("PpSs..  \n", seed=5):
    found = bool(re.findall(pattern, text.lower(), re.MULTILINE))
    assert instructions.postscript(text, "", postscript_marker=marker) == found, repr(text)

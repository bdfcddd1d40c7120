"""Runs of words in common, on texts a reader can count."""

import string

import pytest

from o1jax.tasks.contamination import LONGEST, SHORTEST, contaminated, make_index, match_in, run_size, words

LETTERS = list(string.ascii_lowercase)


def text(first: str, last: str) -> str:
  """The words `first` .. `last` of the alphabet."""
  return " ".join(LETTERS[LETTERS.index(first) : LETTERS.index(last) + 1])


WORDS = {
  "Don't STOP!": ["don", "t", "stop"],
  "x_1 = 5.0": ["x", "1", "5", "0"],
  "  \n": [],
  "Straße, ﬁne": ["strasse", "fine"],
  "１２ Äpfel": ["12", "äpfel"],
}


@pytest.mark.parametrize("given", WORDS)
def test_words_have_neither_case_nor_punctuation(given):
  assert words(given) == WORDS[given]


def test_a_run_has_as_many_words_as_the_shortest_texts_between_8_and_13():
  lengths = lambda *sizes: ["w " * size for size in sizes]
  assert run_size(lengths(20, 30)) == LONGEST == 13
  assert run_size(lengths(10, 30)) == 10
  assert run_size(lengths(2, 30)) == SHORTEST == 8
  assert run_size(lengths(2, *[30] * 40)) == 13  # 2 is below the 5th percentile
  assert run_size([]) == 13


def test_thirteen_words_in_a_row_are_a_repetition_and_twelve_are_none():
  index = make_index([text("a", "z")])
  assert index.size == 13
  assert match_in(index, f"So: {text('c', 'o').upper()}?") == 0
  assert match_in(index, f"so {text('c', 'n')} but") is None
  assert match_in(index, f"{text('c', 'h')} stop {text('i', 'o')}") is None


def test_punctuation_and_line_breaks_do_not_hide_a_repetition():
  index = make_index([text("a", "z")])
  assert match_in(index, ",\n".join(LETTERS[2:15])) == 0


def test_a_text_shorter_than_a_run_is_compared_whole():
  index = make_index(["Add two and three.", text("a", "z")])
  assert index.size == SHORTEST
  assert match_in(index, "add: two and THREE") == 0
  assert match_in(index, "Add two and three apples") is None
  assert match_in(index, text("c", "j")) == 1


def test_texts_without_a_word_are_compared_as_they_are():
  index = make_index(["?!"])
  assert match_in(index, " ?! ") == 0 and match_in(index, "!!") is None and match_in(index, "") is None


def test_what_repeats_is_told_by_set_and_place():
  train = [text("a", "m"), "nothing of it", text("n", "z"), "one two"]
  sets = {"first": ["x", text("a", "z"), text("n", "z")], "second": ["One, two!"], "empty": []}
  # The shortest text of the first set has one word, so that its runs have eight.
  assert contaminated(train, sets) == {"first": {0: 1, 2: 1}, "second": {3: 0}, "empty": {}}

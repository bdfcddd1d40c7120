"""Reflection words and repeated runs, on texts that a reader can count."""

import pytest

from o1jax.scaling.text import reflection_rates, repetition_rate


@pytest.mark.parametrize(
  ("text", "wait", "check", "alternatively"),
  [
    ("", 0, 0, 0),
    ("Wait, wait. WAIT!", 3, 0, 0),
    ("The waiter awaits a long waiting list", 0, 0, 0),
    ("Let me check: recheck, re-check, double-check, double check, checking, checked.", 0, 7, 0),
    ("raincheck uncheck", 0, 0, 0),
    ("Alternatively, wait and check; alternatively no.", 1, 1, 2),
    ("an alternative: alternativelyx", 0, 0, 0),
  ],
)
def test_reflection_words_count_whole_words_in_any_case(text, wait, check, alternatively) -> None:
  expected = {
    "reflection/wait_rate": wait,
    "reflection/check_rate": check,
    "reflection/alternatively_rate": alternatively,
  }
  assert reflection_rates([text]) == expected


def test_reflection_rates_are_means_over_completions() -> None:
  rates = reflection_rates(["wait wait", "no", "", "Wait: check"])
  assert rates["reflection/wait_rate"] == 3 / 4 and rates["reflection/check_rate"] == 1 / 4
  assert set(reflection_rates([]).values()) == {0.0}


@pytest.mark.parametrize(
  ("texts", "rate"),
  [
    ([], None),
    (["a b c"], None),  # no run of four
    (["a b c d"], 0.0),
    (["a b c d a b c d"], 1 / 5),
    (["a a a a a a a"], 3 / 4),
    (["a b c d", "a b c d"], 0.0),  # the same words in another completion are no repetition
    (["a a a a a", "a b c d e", "x y"], 1 / 4),  # runs are pooled, so that long completions weigh more
    (["a  b\nc\td a b c d"], 1 / 5),
  ],
)
def test_repetition_is_the_share_of_runs_that_stood_before(texts, rate) -> None:
  assert repetition_rate(texts) == (None if rate is None else pytest.approx(rate, abs=1e-15))

"""The countdown verifier against a table whose verdicts a reader can check by hand."""

import pytest

from o1jax.verifiers import countdown
from o1jax.verifiers.base import Problem
from o1jax.verifiers.countdown import coherent, count_tries, make_verify, verify

PROBLEM = Problem("3 7 9 34", "3 7 9 -> 34", "34", "countdown", {"numbers": [3, 7, 9], "target": 34})
SAME = Problem("2 2 5 9", "2 2 5 -> 9", "9", "countdown", {"numbers": [2, 2, 5], "target": 9})


EXPRESSIONS = [
  # (text, verdict where the problem says nothing of operations, verdict where it names division too)
  ("<answer>3 * 9 + 7</answer>", None, None),
  ("I try. <answer> (9*3) + 7 </answer>.", None, None),
  ("<answer>7 + 9 × 3 = 34</answer>", None, None),
  ("<answer>7 - -9 * 3</answer>", None, None),
  ("<think><answer>3 + 9</answer></think><answer>3 * 9 + 7</answer><|im_end|>", None, None),
  ("<answer>3 + 7 + 9</answer> no: <answer>3 * 9 + 7</answer>", None, None),
  ("<answer>3 * 9 + 7</answer> no: <answer>3 + 7 + 9</answer>", "wrong", "wrong"),
  ("<answer>3 * 9 + 7 = 35</answer>", "wrong", "wrong"),
  ("<answer>3 * 9 + 3 + 7 - 3</answer>", "wrong", "wrong"),  # 3 too often
  ("<answer>27 + 7</answer>", "wrong", "wrong"),
  ("<answer>34</answer>", "wrong", "wrong"),
  ("<answer>9 * 7 / 3 + 13</answer>", "unparsable", "wrong"),
  ("<answer>7 + 9 / (3 - 3)</answer>", "unparsable", "wrong"),
  ("<answer>7 + 9 // 3</answer>", "unparsable", "unparsable"),
  ("<answer>7 + 3 ** 9</answer>", "unparsable", "unparsable"),
  ("<answer>3 9 7</answer>", "unparsable", "unparsable"),
  ("<answer>f(3)</answer>", "unparsable", "unparsable"),
  ("<answer></answer>", "unparsable", "unparsable"),
  ("3 * 9 + 7</answer>", None, None),  # the tag that opens it may stand in the prompt
  ("<answer>" + "(" * 90 + "3" + ")" * 90 + " * 9 + 7</answer>", None, None),
  ("<answer>" + "(" * 5000 + "3" + ")" * 5000 + "</answer>", "unparsable", "unparsable"),
  ("<answer>3 * 9 + 7", "unparsable", "unparsable"),
  ("3 * 9 + 7 = 34", "unparsable", "unparsable"),
]


@pytest.mark.parametrize(("text", "error", "with_division"), EXPRESSIONS)
def test_expressions_in_tags(text: str, error: str | None, with_division: str | None) -> None:
  divided = Problem("", "", "", "", {**PROBLEM.meta, "operations": ["+", "-", "*", "/"]})
  for policy in ("strict", "standard"):
    verdicts = make_verify(policy)([PROBLEM, divided], [text, text])
    assert [verdict.error for verdict in verdicts] == [error, with_division]


def test_division_is_exact() -> None:
  problem = Problem("", "", "", "", {"numbers": [8, 3, 8, 3], "target": 24, "operations": ["-", "/"]})
  texts = [
    "<answer>8 / (3 - 8 / 3)</answer>",
    "<answer>8 / (3 - 8 ÷ 3) = 24</answer>",
    "<answer>8 / 3 / 8 / 3</answer>",
  ]
  verdicts = verify([problem] * 3, texts)
  assert [verdict.error for verdict in verdicts] == [None, None, "wrong"]
  assert verdicts[0].parsed == verdicts[1].parsed == "8 / ( 3 - 8 / 3 )"


@pytest.mark.parametrize(
  ("text", "error"),
  [
    ("3 × 9 = 27 , 27 + 7 = 34 yes", None),
    ("<think>3 + 7 no</think> 3 * 9 = 27 , 27 + 7 = 34 yes</s>", None),
    ("3 * 9 = 27 , 27 + 7 = 34 yes", None),
    ("9 * 3 = 27 , 7 + 27 = 34 yes", None),
    ("3 * 9 = 27 , 27 + 7 = 34 off 0 yes", None),
    (
      "3 + 7 = 10 , 10 + 9 = 19 off 15 no wait 3 * 9 = 27 , 27 + 7 = 34 off 9 yes",
      None,
    ),  # what is off is working
    ("3 + 7 = 10 , 10 + 9 = 19 off 0 yes", "wrong"),
    ("off 0 yes", "unparsable"),
    ("3 + 7 = 10 , 10 + 9 = 19 no wait 3 * 9 = 27 , 27 + 7 = 34 yes", None),
    ("3 * 9 = 27 , 27 + 7 = 34 yes wait 3 + 7 = 10 , 10 + 9 = 19 no", None),  # the claim still stands
    ("3 * 9 = 27 , 27 + 7 = 34 yes wait 3 + 7", None),  # cut off behind it
    ("3 * 9 = 27 , 27 + 7 = 34 yes wait 3 + 7 = 10 , 10 + 9 = 19 yes", "wrong"),  # the last claim counts
    ("3 * 9 = 27 , 27 + 7 = 34 no quit", "unparsable"),  # found, but not claimed
    ("3 * 9 = 27 , 27 + 7 = 34", "unparsable"),
    ("3 * 9 = 28 , 28 + 7 = 34 yes", "wrong"),  # inexact steps
    ("3 * 9 = 27 , 27 + 7 = 35 yes", "wrong"),
    ("27 + 7 = 34 yes", "wrong"),  # 27 was never made
    ("3 * 9 = 27 yes", "wrong"),  # 7 unused
    ("3 * 9 = 27 , 27 + 9 = 36 yes", "wrong"),  # 9 twice
    ("34 yes", "unparsable"),
    ("yes", "unparsable"),
    ("", "unparsable"),
    ("3 * 9 = 27 , 27 + 7 = 34 yesterday", "unparsable"),
    ("3 / 9 = 0 , 0 + 34 = 34 yes", "unparsable"),
    ("9" * 200_000 + " yes", "unparsable"),
    ("off 1 no 5 yes", "unparsable"),  # what is off belongs to its own try
    ("3 * 9 = 27 , 27 + 7 = 34 off 0 off 0 yes", "unparsable"),
    ("3*9=27,27+7=34 yes", None),  # spaces part words and nothing else
    ("3  *  9\n= 27 , 27+7 = 34\toff 0 yes", None),
    ("3*9=27,27+7=34yes", "unparsable"),  # `34yes` is a word
    ("03 * 9 = 27 , 27 + 007 = 34 yes", None),
    ("3 * 9 = 27 , 27 + 7 = 3_4 yes", "unparsable"),
    ("\u0663 * 9 = 27 , 27 + 7 = 34 yes", "unparsable"),  # digits are those of ASCII
    ("3 * 9 = 999999999 yes", "wrong"),
    ("3 * 9 = 1000000000 yes", "unparsable"),  # ten digits
    ("3 * 9 = 27 , 27 + 7 = - 34 yes", "wrong"),
    ("3 * 9 = 27 , 27 + 7 = - - 34 yes", "unparsable"),
    ("3 * 9 = 27 , 27 + - 7 = 34 yes", "unparsable"),  # results alone have a sign
    ("3 * 9 = 27 , 27 + 7 = 34 = - off 0 yes", "unparsable"),
    ("3 - 7 = -4 , -4 + 9 = 5 yes", "unparsable"),
    ("3 -> 9 = 27 , 27 + 7 = 34 yes", "unparsable"),
    ("3 * 9 = 27 , 27 + 7 = 34 , yes", "unparsable"),
    (", 3 * 9 = 27 , 27 + 7 = 34 yes", "unparsable"),
    ("3 * 9 = 27 , 27 + 7 = 34 , 34 + 0 = 34 yes", "wrong"),  # a step too many
    ("3 * 9 = 27 , 3 * 9 = 27 , 27 + 7 = 34 yes", "wrong"),
  ],
)
def test_verdicts(text: str, error: str | None) -> None:
  (verdict,) = verify([PROBLEM], [text])
  assert (verdict.error, verdict.correct, verdict.reward) == (error, error is None, float(error is None))


@pytest.mark.parametrize(
  ("text", "parsed"),
  [
    ("3 * 9 = 27 , 27 + 7 = 34 yes", "3 * 9 = 27 , 7 + 27 = 34"),
    ("9 * 3 = 27 , 7 + 27 = 34 off 0 yes", "3 * 9 = 27 , 7 + 27 = 34"),
    ("9 * 3 = 27,27 + 7 = 34   yes", "3 * 9 = 27 , 7 + 27 = 34"),
    ("3 * 9 = 28 , 7 - 10 = -3 yes", "3 * 9 = 28 , 7 - 10 = -3"),  # a difference keeps its order
    ("9 * 3 = 28 , 10 - 7 = 3 yes", "3 * 9 = 28 , 10 - 7 = 3"),
    ("7-10=-3 yes", "7 - 10 = -3"),
    (
      "1 + 2 = 3 , 3 + 4 = 7 , 5 + 7 = 12 , 1 * 12 = 12 yes",
      "1 + 2 = 3 , 3 + 4 = 7 , 5 + 7 = 12 , 1 * 12 = 12",
    ),
    ("nothing", None),
  ],
)
def test_claims_that_differ_in_spacing_or_order_of_operands_are_one_answer(
  text: str, parsed: str | None
) -> None:
  (verdict,) = verify([PROBLEM], [text])
  assert verdict.parsed == parsed


def test_a_number_given_twice_may_be_used_twice() -> None:
  good, bad = verify([SAME, SAME], ["2 * 2 = 4 , 4 + 5 = 9 yes", "2 * 2 = 4 , 4 + 2 = 6 , 6 + 5 = 11 yes"])
  assert good.correct and not bad.correct


def test_a_number_given_once_may_not_be_used_twice() -> None:
  twice = ["3 * 9 = 27 , 27 + 9 = 36 yes", "9 * 3 = 27 , 9 + 27 = 36 yes", "7 + 7 = 14 , 14 - 9 = 5 yes"]
  for text, target in zip(twice, (36, 36, 5)):
    (verdict,) = verify([Problem("", "", "", "countdown", {"numbers": [3, 7, 9], "target": target})], [text])
    assert verdict.error == "wrong"


def test_tries_are_counted_by_their_marks() -> None:
  assert count_tries("3 + 7 = 10 , 10 + 9 = 19 no wait 3 * 9 = 27 , 27 + 7 = 34 yes") == 2
  assert count_tries("3 + 7 =") == 0


def test_rows_of_one_call_have_verdicts_of_their_own_whatever_their_length(monkeypatch) -> None:
  right, wrong = "3 * 9 = 27 , 27 + 7 = 34 yes", "3 + 9 = 12 yes"
  long = "3 + 7 = 10 , 10 + 9 = 19 off 15 no wait " * 200 + right
  texts = [wrong, right, long, "", right, "no", long, wrong]
  each = [verify([PROBLEM], [text])[0] for text in texts]
  assert [verdict.correct for verdict in each] == [False, True, True, False, True, False, True, False]
  assert verify([PROBLEM] * len(texts), texts) == each
  monkeypatch.setattr(countdown, "MAX_CELLS", 100)
  assert verify([PROBLEM] * len(texts), texts) == each and verify([], []) == []


def test_problems_of_different_size_share_a_call() -> None:
  two = Problem("2 3 6", "2 3 -> 6", "6", "countdown", {"numbers": [2, 3], "target": 6})
  good = verify(
    [two, PROBLEM, SAME], ["2 * 3 = 6 yes", "3 * 9 = 27 , 27 + 7 = 34 yes", "2 * 2 = 4 , 4 + 5 = 9 yes"]
  )
  assert [verdict.correct for verdict in good] == [True] * 3
  bad = verify([PROBLEM, two], ["2 * 3 = 6 yes", "2 * 3 = 6 , 6 - 0 = 6 yes"])
  assert [verdict.error for verdict in bad] == ["wrong"] * 2


def test_each_problem_wants_a_completion() -> None:
  with pytest.raises(ValueError, match="1 problems have 2 completions"):
    verify([PROBLEM], ["", ""])


@pytest.mark.parametrize(
  ("text", "whole"),
  [
    ("3 + 7 = 10 , 10 + 9 = 19 off 15 no wait 3 * 9 = 27 , 27 + 7 = 34 off 0 yes", True),
    ("3 + 7 = 11 no quit", True),  # wrong, but of the form
    ("3 + 7 = 10 off 2 no wait 3 * 9 =", True),  # cut off by its budget
    ("3 + 7 = 10 off 2 no wait", True),
    ("3 + 7 10 no", False),
    ("3 + 7 = 10 no no", False),
    ("3 + 7 = 10 no 3 + 7 = 10 no", False),
    ("wait 3 + 7 = 10 no", False),
    ("3 + 7 = 10", False),  # nothing is marked
    ("", False),
  ],
)
def test_what_is_still_a_trace(text: str, whole: bool) -> None:
  assert coherent(text) == whole

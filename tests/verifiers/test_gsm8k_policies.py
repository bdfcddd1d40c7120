"""What may stand behind a number of GSM8K, and how the standard policy reads one, beside its harness."""

import re

import pytest

from o1jax.verifiers.base import Problem
from o1jax.verifiers.gsm8k import make_verify, verify


def problem(gold: str) -> Problem:
  return Problem(id="test/1", prompt="?", answer=gold, source="gsm8k")


# Behind `#### 10`: what leaves it 10, and what makes it another number, none, or a doubtful one.
LEFT_ALONE = """
  plus-sized shirts|no-shows|half-hour lessons|two-person tents|third-graders|third graders|fifth grade pupils
  seconds|quarters|cm^2|m^3|cm^{2}|\\text{ cm}^2|ft²|inches²|m/s^2|km²|feet squared|sq ft|times|times more
  times as many|times a week
  个|元。|，|%|per cent|dollars per dozen|dollars for two days|apples in one day|cents|¢|℃|years old|a.m.
  km/h|kg|  g|mm
"""
CHANGED = """
  point two five|ninths|eleventh|fifteenths|thirtieths|hundredths|millionths|tenth|third|a third|and a third
  and a half|half|halves
  twelve|feet six|feet and three inches|dollars and nine cents|twenty-five|two-thirds|one-half|three quarters
  zero|degrees below zero
  lacs|lakh|crores|grand|gross|bn|mil|milliard|hundred dollars|half-dozen|half a dozen|scores of|tens|fives
  twofold|tenfold|K|k|M|万|亿|左右
  multiplied by itself|divided into two|quadrupled|halved|squared|cubed|doubled|twice|thrice|double
  times itself|times seven|factorial
  plus|minus two|less three|over three|added to six|subtracted from twelve|raised to two|to the fourth power
  out of twelve|remainder three
  to fifteen|and eleven|, eleven|(eleven)|or so|or eleven|versus nine|alternatively nine|and change
  and then some|at most|at least|ish
  perhaps|probably|I think|I guess|almost|roughly|if lucky|except one|isn't right|can't be right|wasn't it
  isnt right|is false
  is wrong|is a mistake|was rejected|nope|scratch that|too many|in binary|in thousands|π|x|y^2|i|a^2
"""


def items(text):
  return [item.strip() for line in text.strip().splitlines() for item in line.split("|")]


@pytest.mark.parametrize("form", ["#### 10 {}", r"\boxed{{10 {}}}", "#### $10 {}"])
@pytest.mark.parametrize(("remarks", "error"), [(LEFT_ALONE, None), (CHANGED, "unparsable")])
def test_remarks_behind_a_number(form, remarks, error):
  texts = [form.format(remark) for remark in items(remarks)]
  verdicts = verify([problem("10")] * len(texts), texts)
  assert [text for text, verdict in zip(texts, verdicts) if verdict.error != error] == []


# (gold answer, completion, verdict) where the policy is standard.
STANDARD = [
  ("18", "The answer is 18.", None),
  ("18", "Answer: $18 a day.", None),
  ("18", "18", None),
  ("18", "So 16 - 3 = 13 are left, and 13 + 5 = 18.", None),
  ("18", "So 18 are left, of 20.", "wrong"),
  ("1234", "That makes $1,234.", None),
  ("-3", "It is -3...", None),
  ("18", "#### 17\nWait.\n#### 18", None),
  ("17", "#### 17\nWait.\n#### 18", "wrong"),
  ("18", r"\boxed{17}, no, \boxed{18}", None),
  ("18", "#### 18\nQ: Tom has 5 pears.", None),
  ("18", "#### Total: 18", None),
  ("18", "#### 9 + 9 = 18", None),
  ("18", "#### 18!", None),
  ("0.5", "#### 1/2", None),
  ("18", r"\boxed{18} in \boxed{}", None),
  ("7", "none is left of 7 pears, #### none", None),
  ("0.3", "#### 0.30000000000000004", None),
  ("18", "#### 18.000001", "wrong"),
  ("5000000", "#### 5000001", "wrong"),
  ("18", "<think>#### 17</think>#### 18", None),
  ("18", "<think>18</think>I do not know.", "unparsable"),
  ("18", "<think>It is 18.", "unparsable"),
  ("18", "...", "unparsable"),
  ("18", "", "unparsable"),
  ("70000", "#### 70k", "wrong"),  # flexible-extract reads 70 as well
  ("18", r"\boxed{18} is incorrect.", None),
]


@pytest.mark.parametrize("gold, completion, error", STANDARD)
def test_the_standard_policy(gold, completion, error):
  (verdict,) = make_verify("standard")([problem(gold)], [completion])
  assert (verdict.error, verdict.correct, verdict.reward) == (error, error is None, float(error is None))


def flexible(text):
  """lm-evaluation-harness, tasks/gsm8k/gsm8k.yaml: the filter flexible-extract, and what is ignored."""
  found = re.findall(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", text)
  last = next(filter(None, found[-1])) if found else "[invalid]"
  return re.sub(r"\.$", "", last.replace(",", "").replace("$", ""))


@pytest.mark.parametrize(
  "text",
  [
    "So 16 - 3 = 13.",
    "#### 18",
    "#### 5,600",
    "#### -3",
    "#### 2.5",
    "#### 18 dollars",
    "#### 18%",
    "It is $5,600.",
    "so -7",
    "12 of 13.",
  ],
)
def test_the_standard_policy_agrees_with_flexible_extract(text):
  (verdict,) = make_verify("standard")([problem(flexible(text))], [text])
  assert verdict.correct

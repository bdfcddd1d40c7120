"""The numeric verifier against what completions really hold, and against what tries to fool it."""

import re
from fractions import Fraction

import pytest
from tables import failed_rows

from o1jax.verifiers.base import Problem
from o1jax.verifiers.gsm8k import MAX_MARKS, count_answers, extract, parse_answer, verify

# (gold answer, completion, verdict): None = correct.
TABLE = [
  # the plain forms
  ("18", "#### 18", None),
  ("18", "6*3 = 18\n#### 18", None),
  ("18", "####18", None),
  ("18", "#### 18.", None),
  ("18", r"so \boxed{18}", None),
  ("18", r"\fbox{18}", None),
  ("18", r"$$\boxed{ 18 }$$", None),
  ("18", "#### 19", "wrong"),
  ("18", r"\boxed{19}", "wrong"),
  ("18", "18", "unparsable"),
  ("18", "The answer is 18", "unparsable"),
  ("18", "", "unparsable"),
  ("18", "####", "unparsable"),
  ("18", "####\n18", "unparsable"),
  ("18", "### 18", "unparsable"),
  # a gold answer as the data set has it
  ("48/2 = <<48/2=24>>24\n#### 24", "#### 24", None),
  ("#### 1,024", "#### 1024", None),
  (r"\boxed{18}", "#### 18", None),
  (r"First \boxed{17}, hence \boxed{18}.", "#### 18", None),
  # a line of its own, as the published model solutions have it, where nothing else is marked
  ("18", "16 - 3 = 13\nA: 18", None),
  ("She makes 9 * 2 = $<<9*2=18>>18.\nA: 18", "A: 18", None),
  ("She makes 9 * 2 = $<<9*2=18>>18.\nA: 18", "#### 18", None),
  ("90000", "A: 90,000", None),
  ("18", "A:18", None),
  ("18", "A: 19", "wrong"),
  ("18", "A: 18\nA: 19", "wrong"),
  ("18", "A: 18\nA: 18", None),
  ("18", "A: 3 apples\nB: 15 apples\n#### 18", None),
  ("18", "A: 18\n#### 19", "wrong"),
  ("18", "so A: 18", "unparsable"),
  ("18", "a: 18", "unparsable"),
  ("18", "A: twenty less two", "unparsable"),
  ("18", "Q: how many?\nA: 16 - 3 = 13\n13 + 5 = 18", "unparsable"),
  # one value in many spellings
  ("18", "#### 18.00", None),
  ("18.00", "#### 18", None),
  ("18", "#### 018", None),
  ("18", "#### +18", None),
  ("0", "#### -0", None),
  ("0.1", "#### .1", None),
  ("0.1", "#### 0.10000000000000000001", "wrong"),
  ("0.3", "#### 0.30000000000000004", "wrong"),
  ("9007199254740993", "#### 9007199254740992", "wrong"),
  ("18", "#### 18.000000000000000000001", "wrong"),
  # thousands
  ("1234", "#### 1,234", None),
  ("1,234", "#### 1234.0", None),
  ("1234567.5", "#### 1,234,567.50", None),
  ("1234", r"\boxed{1{,}234}", None),
  ("1234", r"\boxed{1\,234}", None),
  ("1234", "#### 1,23", "unparsable"),
  ("1234", "#### 12,34", "unparsable"),
  ("1234", "#### 1,2345", "unparsable"),
  ("1234", "#### 1 234", "unparsable"),
  ("123", "#### 0,123", "unparsable"),
  ("1234", "#### 1_234", "unparsable"),
  ("1234.5", "#### 1.234,5", "unparsable"),
  # currencies, units, dress
  ("18", "#### $18", None),
  ("18", "#### $18.00", None),
  ("18", r"\boxed{\$18}", None),
  ("18", "#### 18 dollars", None),
  ("18", "#### 18 dollars.", None),
  ("18", "#### €18", None),
  ("18", "#### 18%", None),
  ("18", r"\boxed{18\%}", None),
  ("18", "#### 18kg", None),
  ("18", "#### 18 km/h", None),
  ("18", "#### $18/hour", None),
  ("18", "#### 18 m²", None),
  ("45", r"\boxed{45^\circ}", None),
  ("18", r"\boxed{18\text{ apples}}", None),
  ("18", "#### **18**", None),
  ("18", "#### (18)", None),
  ("18", "#### $18$", None),
  ("18", r"#### \(18\)", None),
  ("18", "#### x = 18", None),
  ("18", "#### The answer is 18.", None),
  ("18", "#### Answer: 18 apples-and-pears", None),
  ("18", "#### 18 million", "unparsable"),
  ("18", "#### 18k", "unparsable"),
  ("18", "#### 18 dozen eggs", "unparsable"),
  ("18", "#### 18 and a half", "unparsable"),
  # signs
  ("-3", "#### -3", None),
  ("-3", "#### \u22123", None),
  ("-3", "#### -$3", None),
  ("-3", "#### $-3.00", None),
  ("3", "#### -3", "wrong"),
  ("-3", "#### 3", "wrong"),
  ("-3", "#### 5-3", "unparsable"),
  ("5", "#### 5-3", "unparsable"),
  ("2", "#### 5-3", "unparsable"),
  ("-3", "#### 5 -3", "unparsable"),
  ("-3", "#### 5 - 3", "unparsable"),
  ("-3", "#### --3", "unparsable"),
  ("-3", "#### x-3", "unparsable"),
  ("3", "#### - 3", "unparsable"),
  ("3", "#### minus 3", "unparsable"),
  ("3", "#### negative 3", "unparsable"),
  # fractions
  ("0.5", "#### 1/2", None),
  ("0.5", r"\boxed{\frac{1}{2}}", None),
  ("0.5", r"\boxed{\dfrac{2}{4}}", None),
  ("-0.5", r"\boxed{-\frac{1}{2}}", None),
  ("1/3", "#### 2/6", None),
  ("1/3", "#### 0.3333333333333333", "wrong"),
  ("1/3", "#### 0.333...", "unparsable"),
  ("6", "#### 18 / 3", None),
  ("1", "#### 1/0", "unparsable"),
  ("1", "#### 1/2/3", "unparsable"),
  ("1.5", "#### 1 1/2", "unparsable"),
  ("5.5", r"\boxed{1\frac{1}{2}}", "unparsable"),
  ("0.5", "#### \u00bd", "unparsable"),
  ("5", "#### 5\u00bd", "unparsable"),
  # what only looks like a number
  ("1", "#### 1e5", "unparsable"),
  ("100000", "#### 1e5", "unparsable"),
  ("100000", r"\boxed{10^5}", "unparsable"),
  ("10", r"\boxed{10^5}", "unparsable"),
  ("5", "#### 5\u00b2", "unparsable"),
  ("8", "#### 2**3", "unparsable"),
  ("23", "#### 2**3", "unparsable"),
  ("18", "#### 10+8", "unparsable"),
  ("18", "#### 10+8=18", "unparsable"),
  ("18", "#### 18x", "unparsable"),
  ("3", "#### 3:30", "unparsable"),
  ("1", "#### 1.2.3", "unparsable"),
  ("0", "#### 0x12", "unparsable"),
  ("3", "#### \u0663", "unparsable"),
  ("18", "#### eighteen", "unparsable"),
  ("18", "#### nan", "unparsable"),
  ("18", "#### inf", "unparsable"),
  ("18", "#### 18!", "unparsable"),
  ("18", "#### 18?", "unparsable"),
  ("18", "#### not 18", "unparsable"),
  ("18", "#### 18 is wrong", "unparsable"),
  ("18", "#### at least 18", "unparsable"),
  ("18", "#### <18>", "unparsable"),
  # several answers
  ("18", "#### 18\n#### 18.00", None),
  ("18", r"\boxed{18} and therefore" + "\n#### $18", None),
  ("18", r"#### \boxed{18}", None),
  ("18", "#### 18 or 18", None),
  ("18", "#### 17\nWait.\n#### 18", "wrong"),
  ("18", "#### 18\n#### 19", "wrong"),
  ("18", "#### 18 #### 19", "wrong"),
  ("18", "#### 18 or 19", "wrong"),
  ("18", "#### 18, 19", "wrong"),
  ("18", "#### 18; 19", "wrong"),
  ("18", "#### 18 apples and 19 pears", "wrong"),
  ("18", r"\boxed{18} \boxed{19}", "wrong"),
  ("18", r"\boxed{18}" + "\n#### 19", "wrong"),
  ("18", r"#### \boxed{18} \boxed{19}", "unparsable"),
  ("18", "#### 18\n#### apples", "unparsable"),
  ("18", "#### 18 19", "unparsable"),
  ("18", "#### 18,19", "unparsable"),
  # an end token that decoding has kept
  ("18", "#### 18<|endoftext|>", None),
  ("18", "#### 18 </s>", None),
  ("18", "#### 18<|endoftext|> 19", "unparsable"),
  ("18", "#### <|endoftext|>", "unparsable"),
  ("18", "#### 18<end_of_turn>", None),
  ("18", "#### 18<|im_end|>\n<|endoftext|>", None),
  ("18", "#### 18<｜end▁of▁sentence｜>", None),
  ("18", "#### 18<|EOT|>", None),
  # placeholders, which only speak of the form
  ("20", r"I put it in \boxed{}: \boxed{20}", None),
  ("20", "I put it in \\boxed{...}.\n#### 20", None),
  ("20", "\\boxed{?}\n#### 20", None),
  ("20", r"\boxed{\text{Your answer}} is \boxed{20}", None),
  ("20", r"\boxed{\square} \boxed{\quad} \boxed{\phantom{2}} \boxed{20}", None),
  ("20", "It ends in '#### <answer>'.\n#### 20", None),
  ("20", "\\boxed{}\nA: 20", None),
  ("20", "#### Answer\n\\boxed{20}", None),
  ("20", r"\boxed{} \boxed{\text{answer}}", "unparsable"),
  # dress
  ("20", r"\boxed{\boxed{20}}", None),
  ("20", r"\boxed{\displaystyle 20}", None),
  ("20", r"\boxed{\textcolor{red}{20}}", None),
  ("20", "#### $x = 20$", None),
  ("20", "#### 20\\\\", None),
  ("20", "#### ２０", None),
  ("2000", "#### 2，000", None),
  ("20", "#### 20。", None),
  ("20", "#### \u200b20 ✅", None),
  ("25", r"#### 2\\5", "unparsable"),
  ("20", "~~#### 20~~", "unparsable"),
  ("20", "#### ~20", "unparsable"),
  # taken back, denied
  ("20", r"\boxed{20} is incorrect.", "wrong"),
  ("20", r"$\boxed{20}$ (wrong)", "wrong"),
  ("20", "#### 20\nNo, that is wrong.", "wrong"),
  ("20", "#### 20\nWait, I forgot the tip.", "wrong"),
  ("20", "#### 20\nHowever, this is not the correct answer.", "wrong"),
  ("20", "#### 20\nThat can't be right.", "wrong"),
  ("20", "#### 20\nOops, I made a mistake above.", "wrong"),
  ("20", r"\boxed{20}?", "wrong"),
  ("20", r"The answer is not \boxed{20}.", "wrong"),
  ("20", r"It isn't \boxed{20}", "wrong"),
  ("20", r"~~\boxed{20}~~", "wrong"),
  ("20", "#### 20\nThat is wrong: I count again.\n#### 20", None),
  ("20", "\\boxed{20}\nThis is correct, and no more are needed.", None),
  ("20", "She does not need more, so it is \\boxed{20}.\nI hope this helps!", None),
  # behind the thoughts
  ("20", "<think>\\boxed{20}</think> I do not know.", "unparsable"),
  ("20", "<think>\n#### 20", "unparsable"),
  ("20", "<think>\n#### 20\n</think>\n#### 20", None),
  # broken boxes
  ("18", r"\boxed{18", "unparsable"),
  ("18", r"\boxed{\text{18}", "unparsable"),
  ("18", r"\boxed{}", "unparsable"),
  ("18", r"\boxed 18", "unparsable"),
]


def problem(gold: str) -> Problem:
  return Problem(id="test/1", prompt="?", answer=gold, source="gsm8k")


def check_verdict(gold, completion, error):
  (verdict,) = verify([problem(gold)], [completion])
  assert verdict.error == error
  assert verdict.correct == (error is None)
  assert verdict.reward == (1.0 if error is None else 0.0)


def test_table():
  assert failed_rows(check_verdict, TABLE) == []


def test_rows_keep_their_order_and_parsed_names_the_value():
  golds = ["18", "-3", "1/2", "7"]
  texts = ["#### 18.0", "#### -$3.00", r"\boxed{\frac{2}{4}}", "seven"]
  verdicts = verify([problem(gold) for gold in golds], texts)
  assert [verdict.parsed for verdict in verdicts] == ["18", "-3", "1/2", None]
  assert [verdict.correct for verdict in verdicts] == [True, True, True, False]


def test_a_hedge_casts_no_vote():
  (verdict,) = verify([problem("18")], ["#### 18 or 19"])
  assert (verdict.parsed, verdict.error) == (None, "wrong")


def test_values_are_exact_fractions():
  assert extract("#### 0.1\n#### 1/10") == (Fraction(1, 10),)
  assert extract("#### 18 or 19") == (18, 19)
  assert parse_answer("12,345,678.50") == (Fraction(24691357, 2),)
  assert extract("no marker") is None


def test_counts_one_try_an_answer():
  assert count_answers("thinking") == 0
  assert count_answers("#### 17\nWait.\n#### 18") == 2
  assert count_answers(r"#### \boxed{18}") == 1
  assert count_answers(r"\boxed{17}, no, \boxed{18}") == 2


@pytest.mark.parametrize("gold", ["", "18 or 19", "eighteen"])
def test_a_gold_answer_that_is_no_number_is_an_error_that_names_the_problem(gold):
  with pytest.raises(ValueError, match="problem test/1"):
    verify([problem(gold)], ["#### 18"])


def test_different_lengths_are_an_error():
  with pytest.raises(ValueError):
    verify([problem("1")], [])


PATHOLOGICAL = {
  "a million digits": "#### " + "1" * 10**6,
  "a million digits behind a point": "#### 0." + "1" * 10**6,
  "a fraction of a million digits": r"\boxed{\frac{" + "1" * 10**6 + "}{3}}",
  "megabytes of spaces": "#### " + " " * 4_000_000 + "18",
  "megabytes of hashes": "#" * 4_000_000 + "x",
  "boxes that never close": r"\boxed{" * 200_000,
  "braces that never close": r"\boxed{" + "{" * 10**6,
  "too many answers": "#### 18\n" * 200_000,
  "commas": "#### " + "1," * 10**6,
  "signs": "#### " + "-" * 10**6 + "1",
  "backslashes": r"#### " + "\\" * 10**6,
  "nested text": r"\boxed{" + r"\text{" * 60 + "18" + "}" * 60 + "}",
  "words": ("#### 18 " + "a/" * 190 + "\n") * MAX_MARKS,
}


@pytest.mark.parametrize("name", PATHOLOGICAL)
def test_pathological_input_is_unparsable(name):
  (verdict,) = verify([problem("18")], [PATHOLOGICAL[name]])
  assert verdict.error == "unparsable"


def test_as_many_answers_as_allowed_are_read():
  assert extract("#### 18\n" * MAX_MARKS) == (18,)
  assert extract("#### 18\n" * (MAX_MARKS + 1)) is None


# Solutions as the models of Cobbe et al. (2021) wrote them: with the calculator's annotations, `#### N` at
# the end.
SOLUTIONS = [
  ("18", "She makes 9 * 2 = $<<9*2=18>>18 a day.\n#### 18"),
  ("18", "She makes 9 * 2 = $<<9*2=18>>18 a day.\n#### 17"),
  ("18", "9 * 2 = <<9*2=18.0>>18.0\n#### 18\n"),
  ("18", "#### 18<|endoftext|>"),
  ("5600", "#### 5,600"),
  ("5,600", "#### 5600"),
  ("5600", "#### 5,601"),
  ("1200000", "#### 1,200,000"),
  ("-3", "#### -3"),
  ("3", "#### -3"),
  ("2.5", "#### 2.5"),
  ("2.5", "#### 2"),
  ("18", "#### 18 dollars"),
  ("18", "#### 18%"),
  ("18", "#### 180"),
  ("18", "#### 1.8"),
  ("18", "9 * 2 = <<9*2=18>>18"),
  ("18", "####"),
  ("18", "#### <<9*2=18>>"),
  ("18", "#### x"),
  ("18", ""),
]
# What the published rule says otherwise, and why this verifier does not: (gold answer, completion, its
# verdict).
DEPARTURES = [
  ("18", "#### 18.00", False),  # one value in another spelling
  ("18", "#### 18.", False),
  ("18", "#### $18", False),
  ("18", "####18", False),
  ("18", r"\boxed{18}", False),
  ("18", "#### 18\n#### 19", True),  # a hedge
  ("18", "#### 18 or 19", True),
  ("1", "#### 1/2", True),  # half read
  ("18", "#### 18 million", True),
  ("123", "#### 12,3", True),
]


def published(gold, text):
  """The rule of the GSM8K repository: the text behind the first mark, without commas, is the gold one."""
  found = re.search(r"#### (-?[0-9.,]+)", text)
  return found is not None and found[1].replace(",", "") == gold.replace(",", "")


@pytest.mark.parametrize("gold, text", SOLUTIONS)
def test_agrees_with_the_published_rule(gold, text):
  (verdict,) = verify([problem(gold)], [text])
  assert verdict.correct == published(gold, text)


@pytest.mark.parametrize("gold, text, there", DEPARTURES)
def test_departs_from_the_published_rule_by_intent(gold, text, there):
  (verdict,) = verify([problem(gold)], [text])
  assert published(gold, text) == there
  assert verdict.correct != there

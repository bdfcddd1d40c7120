"""Final answers in whole completions, hedges among them, and text that was built to break the verifier."""

import builtins
import threading

import pytest
import sympy
from tables import failed_rows

from o1jax.verifiers.base import Problem
from o1jax.verifiers.math.extract import DEFAULT_ORDER, MAX_LENGTH, MAX_STATED, final_part, stated
from o1jax.verifiers.math.read import MAX_DIGITS, TooLargeError, log10_bound
from o1jax.verifiers.math.verify import make_verify, verify

OK, WRONG, UNPARSABLE = None, "wrong", "unparsable"

COMPLETIONS = {
  "boxes": [
    ("18", r"So \boxed{18}.", OK),
    ("18", r"So \fbox{18}.", OK),
    (
      "So 2 * 9 = <<2*9=18>>18.\n#### 18",
      r"\boxed{18}",
      OK,
    ),  # a gold answer at the end of its worked solution
    ("#### 18", r"\boxed{19}", WRONG),
    ("18", r"$$\boxed{ 18 }$$", OK),
    (r"\frac{1}{\frac{2}{3}}", r"\boxed{\frac{1}{\frac{2}{3}}}", OK),
    ("18", r"\boxed{\boxed{18}}", OK),
    (r"\boxed{18}", r"\boxed{18}", OK),
    (r"\{1,2\}", r"\boxed{\{1,2\}}", OK),
    ("18", r"\boxed{18", UNPARSABLE),
    ("18", r"\boxed{\text{18}", UNPARSABLE),
    ("18", r"\boxed{}", UNPARSABLE),
    ("18", r"\boxed 18", None),
    ("18", r"\boxed{18}}", OK),
    ("18", r"The answer is 17? No: \boxed{18}", OK),
  ],
  "hashes": [
    ("18", "6*3 = 18\n#### 18", OK),
    ("18", "####18", OK),
    ("18", "#### 18<|im_end|>", OK),
    ("18", "#### $18", OK),
    ("18", "#### 19", WRONG),
    ("18", "####", UNPARSABLE),
    ("18", "#### 17\n#### 18", WRONG),
    ("18", "#### 18\n#### 18.0", OK),
  ],
  "phrases": [
    ("18", "The answer is 18.", OK),
    ("18", "The final answer is 18", OK),
    ("18", "The answer is 18.<|endoftext|>", OK),
    ("18", "Therefore, the answer is: 18. This is because 6*3 is 18.", OK),
    ("18", "the answer is $18$.", OK),
    ("18", r"The final answer is: $\boxed{18}$. I hope it is correct.", OK),
    ("18", "**Answer:** 18", OK),
    ("18", "**Final Answer**\n\n18", OK),
    ("18", "Answer: 18 apples", OK),
    ("18", "The answer is **18**.", OK),
    ("18", "The answer to the question is 18, because 6*3 = 18.", OK),
    ("3.5", "The answer is 3.5. Done.", OK),
    ("Tuesday", "The answer is Tuesday.", OK),
    ("C", "The answer is (C).", OK),
    ("C", "Answer: C", OK),
    ("B", "The answer is (B) 42", OK),
    ("B", "The answer is A or B", WRONG),
    ("1/2", r"Final Answer: The final answer is $\frac{1}{2}$. I hope it is correct.", OK),
    ("(1,2)", r"The answer is $\left(1, 2\right)$.", OK),
    ("18", "The answer is 19.", WRONG),
    ("18", "The answer is 18?", UNPARSABLE),
    ("18", "The answer is not 18.", WRONG),
    ("18", "The answer is", UNPARSABLE),
    ("18", "The answer is 17. Wait. The answer is 18.", WRONG),
    ("18", "The answer is positive. The answer is 18.", OK),
    ("18", "I thought the answer is 17. The final answer is 18.", OK),
  ],
  "last expression": [
    ("18", "18", OK),
    ("3", "We get $y = 3$ and then $x = 5$.", WRONG),
    ("5", "We get $y = 3$. Hence $x = 5$.", OK),
    ("5", r"Hence \(x = 5\)", OK),
    ("5", "Hence\n\\[\nx = 5\n\\]", OK),
    ("5", "Hence $$x = 5$$", OK),
    ("18", "She makes $18 dollars.", OK),
    ("18", "That is 6 * 3 = 18", OK),
    ("1/2", "which gives 1/2.", OK),
    ("-3", "which gives -3", OK),
    ("-3", "which gives x - 3", UNPARSABLE),
    ("3", "which gives x -3", UNPARSABLE),
    ("3", "which gives x > 3", UNPARSABLE),
    ("2", "which gives 5 - 3", OK),
    ("-3", "which gives 5 - 3", WRONG),
    ("18", "There is no way to tell.", UNPARSABLE),
    ("18", "18 is what I would try first", UNPARSABLE),
    ("18", "", UNPARSABLE),
    ("3", "It is 3 or 4", WRONG),
    ("4", "It is 3 or 4", WRONG),
    ("3,4", "It is 3 or 4", OK),
    ("3", "It is $3$ or $4$.", WRONG),
    ("4", "It is $3$ or $4$.", WRONG),
  ],
  "hedges": [
    ("3", r"\boxed{3} or \boxed{4}", WRONG),
    ("4", r"\boxed{3} or \boxed{4}", WRONG),
    ("4", r"\boxed{3}? No, wait. \boxed{4}", WRONG),
    ("3", r"\boxed{3 \text{ or } 4}", WRONG),
    ("3", r"\boxed{3, 4, 5}", WRONG),
    ("3", "The answer is 3 or 4.", WRONG),
    ("4", "The answer is either 3 or 4.", WRONG),
    ("3", "The answer is 3, 4 or 5", WRONG),
    ("3", r"\boxed{3} ... and again \boxed{3.0}", OK),
    ("3", r"\boxed{3} so $x = \boxed{\frac{6}{2}}$", OK),
    ("1/2", r"\boxed{x = 2/4 = 1/2}", OK),
    ("3", r"\boxed{3}. The final answer is 4.", WRONG),
    ("4", r"\boxed{3}. The final answer is 4.", WRONG),
    ("3", r"\boxed{3}" + "\n#### 4", WRONG),
    ("3", r"\boxed{3}. The answer is positive.", OK),
    ("3", r"\boxed{3}. The answer is 3.", OK),
    ("A", r"\boxed{A}. The answer is B.", WRONG),
    ("1,2", r"\boxed{1} and \boxed{2}", OK),
    (r"\boxed{1} and \boxed{2}", r"\boxed{2, 1}", OK),
    ("1,2", r"\boxed{1}, \boxed{2} and \boxed{3}", WRONG),
    ("1,2", r"\boxed{1}, \boxed{3}", WRONG),
    ("(1,2)", r"\boxed{1}, \boxed{2}", WRONG),
    ("A", r"\boxed{A} \boxed{B}", WRONG),
    (r"\text{A, B}", r"\boxed{A} \boxed{B}", OK),
    ("even", r"\boxed{\text{even}} or \boxed{\text{odd}}", WRONG),
    ("3", r"\boxed{3} \boxed{4", UNPARSABLE),
  ],
  "thoughts": [
    ("4", r"<think>\boxed{3}? no</think> \boxed{4}", OK),
    ("3", r"<think>\boxed{3}</think> \boxed{4}", WRONG),
    ("3", r"<think>\boxed{3}</think>", UNPARSABLE),
    ("3", r"<think>\boxed{3}", UNPARSABLE),
  ],
}
ROWS = [(topic, *row) for topic, rows in COMPLETIONS.items() for row in rows]


def problem(gold):
  return Problem(id="test/1", prompt="?", answer=gold, source="math")


def verdict_of(gold, text):
  return verify([problem(gold)], [text])[0]


def check_completion(topic, gold, text, error):
  verdict = verdict_of(gold, text)
  assert verdict.error == error
  assert verdict.correct == (error is None)
  assert verdict.reward == (1.0 if error is None else 0.0)


def test_completions():
  assert failed_rows(check_completion, ROWS) == []


def test_rows_keep_their_order_and_parsed_is_one_text_for_one_number():
  golds = ["1/2", "1/2", "1/2", "x+1", "B", "5"]
  texts = [
    r"\boxed{0.5}",
    r"\boxed{\frac{2}{4}}",
    "#### 50%",
    r"\boxed{1 + x}",
    r"\boxed{\text{(B)}}",
    "no idea",
  ]
  verdicts = verify([problem(gold) for gold in golds], texts)
  assert [verdict.parsed for verdict in verdicts] == ["1/2", "1/2", "50%", "1+x", "b", None]
  assert [verdict.correct for verdict in verdicts] == [True, True, True, True, True, False]


def test_a_hedge_casts_no_vote():
  verdict = verdict_of("3", r"\boxed{3} \boxed{4}")
  assert (verdict.parsed, verdict.error) == (None, "wrong")


@pytest.mark.parametrize("gold, answer", [("1<x<2", "(1,2)"), ("12_3", "12"), (r"0.5\%", "0.5")])
def test_gold_and_prediction_never_swap_roles(gold, answer):
  assert verdict_of(gold, rf"\boxed{{{answer}}}").correct
  assert not verdict_of(answer, rf"\boxed{{{gold}}}").correct


@pytest.mark.parametrize(
  "gold",
  ["", "  ", "$$", r"\frac{1}{", "5}", "5\u202e", "5\x00", "1" * (MAX_LENGTH + 1), r"\boxed{5", "(" * 99],
)
def test_a_gold_answer_that_cannot_be_read_is_an_error_that_names_the_problem(gold):
  with pytest.raises(ValueError, match="problem test/1"):
    verify([problem(gold)], [r"\boxed{5}"])


def test_a_gold_answer_beyond_the_parser_stands_for_its_own_text():
  gold = r"\sum_{k=0}^{n} k!"
  assert verdict_of(gold, r"\boxed{\sum_{k = 0}^{n} k!}").correct
  assert verdict_of(gold, r"\boxed{\sum_{k=1}^{n} k!}").error == "unparsable"
  assert verdict_of(gold, r"\boxed{5}").error == "wrong"


@pytest.mark.parametrize(
  "gold, text, strict, standard",
  [
    ("4", r"\boxed{3}? No, wait. \boxed{4}", WRONG, OK),
    ("3", r"\boxed{3}? No, wait. \boxed{4}", WRONG, WRONG),
    ("3", r"\boxed{3}. The final answer is 4.", WRONG, OK),
    ("1,2", r"so \boxed{7}, then \boxed{1} and \boxed{2}", WRONG, OK),
    ("18", "#### 17\n#### 18", WRONG, OK),
    ("5", r"\boxed{5} is incorrect.", WRONG, OK),
    ("5", r"\boxed{5} or 6", WRONG, OK),
    ("3", r"\boxed{3 \text{ or } 4}", WRONG, WRONG),
    ("3", r"<think>\boxed{3}</think> \boxed{3}", OK, OK),
    ("3", r"<think>\boxed{3}", UNPARSABLE, UNPARSABLE),
    ("3", r"\boxed{3}<end_of_turn>", OK, OK),
  ],
)
def test_policies(gold, text, strict, standard):
  verdicts = [make_verify(policy=policy)([problem(gold)], [text])[0] for policy in ("strict", "standard")]
  assert [verdict.error for verdict in verdicts] == [strict, standard]


def test_a_policy_without_a_meaning_is_an_error():
  with pytest.raises(ValueError, match="policy"):
    make_verify(policy="kind")


def test_different_lengths_are_an_error():
  with pytest.raises(ValueError):
    verify([problem("1")], [])


def test_extractors_are_asked_in_their_order():
  text = r"\boxed{3}. The answer is $4$. It ends with $5$"
  verdict = lambda gold, *names: make_verify(names)([problem(gold)], [text])[0].error
  assert verdict("3", "boxed", "expression") is None
  assert verdict("4", "phrase", "boxed") is None
  assert verdict("5", "expression", "boxed") is None
  assert verdict("3", "boxed", "phrase") == "wrong"  # another answer is declared behind the box
  assert verdict("3", "hashes") == "unparsable"


@pytest.mark.parametrize("names", [(), ("box",), ("boxed", "last")])
def test_extractors_without_a_function_are_an_error(names):
  with pytest.raises(ValueError, match="extractors"):
    make_verify(names)


def count_answers(text):
  return len(stated(final_part(text), DEFAULT_ORDER)[0])


def test_counts_each_time_that_an_answer_is_stated():
  assert count_answers("thinking about it") == 0
  assert count_answers(r"\boxed{17}, no, \boxed{18}") == 2
  assert count_answers("the answer is 17. The answer is 18.") == 2
  assert count_answers(r"<think>\boxed{17}</think> \boxed{18}") == 1


def test_works_outside_the_main_thread():
  verdicts = []
  thread = threading.Thread(target=lambda: verdicts.append(verdict_of("x^2-1", r"\boxed{(x-1)(x+1)}")))
  thread.start()
  thread.join()
  assert [verdict.correct for verdict in verdicts] == [True]


def box(text):
  return rf"\boxed{{{text}}}"


HUGE = 10**5
PATHOLOGICAL = {
  "a tower in Python": box("9**9**9"),
  "a tower": box("9^{9^{9^9}}"),
  "a tower of tens": box("10^{10^{10}}"),
  "a great power": box("10^{99999}"),
  "a power of a power": box("(10^{9999})^{9999}"),
  "a great product of powers": box(r"\cdot".join(["9^{999}"] * 9)),
  "a factorial": box("(10^9)!"),
  "another factorial": box("1000000000!"),
  "factorials of factorials": box("9!!!!!"),
  "a tower as an interval's end": box("(1, 9^{9^{9^9}})"),
  "a binomial": box(r"\binom{10^9}{10^8}"),
  "another binomial": box(r"\binom{1000000000}{500000000}"),
  "a sum": box(r"\sum_{i=1}^{10^9} \frac{1}{i}"),
  "a product": box(r"\prod_{i=1}^{1000000000} i"),
  "an integral": box(r"\int_0^1 e^{x^x} dx"),
  "an identity matrix": box(r"\operatorname{eye}(1000000000)"),
  "a float": box("1e999999999"),
  "digits": box("1" * HUGE),
  "digits behind hashes": "#### " + "1" * HUGE,
  "digits behind words": "the answer is " + "1" * HUGE,
  "nothing but digits": "1" * HUGE,
  "digits after the point": box("0." + "1" * HUGE),
  "braces": box("{" * 4000 + "}" * 4000),
  "braces that never close": r"\boxed{" + "{" * HUGE,
  "boxes that never close": r"\boxed{" * HUGE,
  "deep fractions": box(r"\frac{1" * 60 + "}{2}" * 60),
  "deep parentheses": box("(" * 150 + "1" + ")" * 150),
  "deep roots": box(r"\sqrt{" * 50 + "2" + "}" * 50),
  "deep text": box(r"\text{" * 60 + "18" + "}" * 60),
  "deep logarithms": box(r"\log_2 " * 50 + "2"),
  "signs": box("-" * 390 + "1"),
  "powers of powers": box("2" + "^2" * 150),
  "bars": box("|" * 300),
  "a great matrix": box(r"\begin{pmatrix}" + "&".join("1" * HUGE) + r"\end{pmatrix}"),
  "an unbalanced brace": "#### 18}",
  "a null byte": box("18\x00"),
  "a surrogate": box("18\ud800"),
  "a mark of direction": box("\u202e81"),
  "a space without width": box("1\u200b8"),
  "an escape": "#### \x1b[31m18",
  "too many boxes": box("18") * (MAX_STATED + 1),
  "too many lines": "#### 18\n" * (MAX_STATED + 1),
  "dollars": "$" * HUGE,
  "answers": "the answer is " * HUGE,
  "answers to": "answer to " + "a" * HUGE,
  "lines of space": " \n" * HUGE,
  "ends of thoughts": "</think>" * HUGE,
}


@pytest.mark.parametrize("name", PATHOLOGICAL)
def test_pathological_input_is_unparsable(name):
  verdict = verdict_of("18", PATHOLOGICAL[name])
  assert (verdict.error, verdict.reward, verdict.parsed) == ("unparsable", 0.0, None)


def test_as_many_answers_as_allowed_are_read():
  assert verdict_of("18", box("18") * MAX_STATED).correct


def test_size_is_bounded_without_being_computed():
  nine = sympy.Integer(9)
  power = sympy.Pow(nine, sympy.Integer(100), evaluate=False)
  assert log10_bound(power) == pytest.approx(95.42, abs=0.01)  # 100 * log10 9
  assert log10_bound(sympy.Integer(10) ** 50) == pytest.approx(50.0)
  tower = sympy.Pow(nine, sympy.Pow(nine, power, evaluate=False), evaluate=False)
  for value in (tower, sympy.factorial(power, evaluate=False), sympy.Mul(*[power] * 90, evaluate=False)):
    with pytest.raises(TooLargeError, match=str(MAX_DIGITS)):
      log10_bound(value)


MARKER = "o1jax_was_here"
CODE = [
  f"__import__('os').system('touch {MARKER}')",
  f'eval("{MARKER}")',
  f"\\text{{__import__('{MARKER}')}}",
  f"\\operatorname{{__import__}}({MARKER})",
  f"x.__class__.__mro__[1].__subclasses__() + {MARKER}",
  f"(lambda {MARKER}: 1)(1)",
  f"\\frac{{exec(open('{MARKER}','w'))}}{{1}}",
  f"S('{MARKER}')",
]


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("form", ["\\boxed{%s}", "#### %s", "the answer is %s", "so $%s$", "%s"])
def test_text_is_never_evaluated_as_python(code, form, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  evaluated = []
  for name in ("eval", "exec", "compile"):
    original = getattr(builtins, name)
    record = lambda *args, original=original, **options: (
      evaluated.append(args[0]) or original(*args, **options)
    )
    monkeypatch.setattr(builtins, name, record)
  for gold in ("1", "x", r"\text{yes}"):
    assert not verdict_of(gold, form % code).correct
  assert not [source for source in evaluated if isinstance(source, str) and MARKER in source]
  assert not list(tmp_path.iterdir())

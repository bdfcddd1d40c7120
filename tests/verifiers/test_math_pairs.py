"""Gold answers against boxed answers, by topic: what is the same, and what only looks like it."""

import math_verify
import pytest
import sympy

from o1jax.verifiers.base import Problem
from o1jax.verifiers.math import verify
from o1jax.verifiers.math_equal import equal, refuted, same_value
from o1jax.verifiers.math_read import Formula, parsed, quick_number, read
from o1jax.verifiers.math_text import UnreadableError, clean, latex

OK, WRONG, UNPARSABLE = None, "wrong", "unparsable"

# (gold answer, what stands in the box, verdict).
PAIRS = {
  "numbers": [
    ("18", "18", OK),
    ("18", " 18. ", OK),
    ("18", "18.00", OK),
    ("18", "+18", OK),
    ("18", "018", OK),
    ("0", "-0", OK),
    ("-3", "\u22123", OK),
    ("18", "19", WRONG),
    ("3", "-3", WRONG),
    ("-3", "3", WRONG),
    ("9007199254740993", "9007199254740992", WRONG),
    ("12", "1 2", UNPARSABLE),
    ("1.2", "1.2.3", UNPARSABLE),
    ("6", "2(3)", OK),
    ("5", "2(3)", WRONG),
    ("12", "(3)(4)", OK),
    ("7", "(3)(4)", WRONG),
    ("2", "5-3", OK),
    ("-3", "5-3", WRONG),
  ],
  "fractions": [
    (r"\frac{1}{2}", r"\dfrac{1}{2}", OK),
    (r"\frac{1}{2}", r"\tfrac12", OK),
    (r"\frac{1}{2}", "1/2", OK),
    (r"\frac{1}{2}", r"\frac{2}{4}", OK),
    (r"\frac12", r"\frac 1 2", OK),
    (r"-\frac{1}{2}", r"\frac{-1}{2}", OK),
    (r"-\frac{1}{2}", r"\frac{1}{-2}", OK),
    (r"-\frac{1}{2}", r"\frac{1}{2}", WRONG),
    (r"\frac{1}{2}", r"\frac{2}{1}", WRONG),
    (r"\frac{a}{b}", "a/b", OK),
    (r"\frac{a}{b}", r"\frac{b}{a}", WRONG),
    ("1", r"\frac{1}{0}", UNPARSABLE),
    (r"\frac{1}{6}", r"\frac{\frac{1}{2}}{3}", OK),
    (r"\frac{1}{6}", "1/2/3", OK),
    (r"\frac{2}{3}", r"\frac{4}{2}\cdot\frac{1}{3}", OK),
    (r"\frac{2}{3}", r"\frac{4}{2}\frac{1}{3}", OK),
  ],
  "mixed numbers": [
    (r"\frac{3}{2}", r"1\frac{1}{2}", OK),
    (r"1\frac{1}{2}", "1 1/2", OK),
    (r"1\frac{1}{2}", "1.5", OK),
    (r"\frac{11}{2}", "1 1/2", WRONG),
    (r"-\frac{5}{2}", r"-2\frac{1}{2}", OK),
    (r"-\frac{3}{2}", r"-2\frac{1}{2}", WRONG),
    (r"1\frac{4}{5}", r"\frac{9}{5}", OK),
    (r"1\frac{4}{5}", r"\frac{4}{5}", WRONG),
    ("1", r"2\cdot\frac{1}{2}", OK),
    ("1", r"2\left(\frac{1}{2}\right)", OK),
    (r"\frac{5}{2}", r"2\left(\frac{1}{2}\right)", WRONG),
  ],
  "decimals": [
    (r"\frac{1}{2}", ".5", OK),
    (r"\pm\frac{1}{2}", r"\pm .5", OK),
    ("0.5", r"\frac{1}{2}", OK),
    (".5", "0.50", OK),
    (r"\frac{1}{3}", "0.333", WRONG),
    (r"\frac{1}{3}", "0.3333333333333333", WRONG),
    (r"\frac{1}{3}", r"0.\overline{3}", OK),
    (r"\frac{1}{6}", r"0.1\overline{6}", OK),
    (r"\frac{1}{3}", "0.333...", UNPARSABLE),
    ("0.33", "0.33", OK),
    ("0.33", "0.333", WRONG),
    ("0.33", r"\frac{1}{3}", WRONG),
    (r"\pi", "3.14", WRONG),
    ("3.14", "3.14", OK),
    (r"\sqrt{2}", "1.41421356", WRONG),
    ("0.3", "0.30000000000000004", WRONG),
    ("1000000", "1000000.0000001", WRONG),
  ],
  "percent": [
    (r"50\%", "50%", OK),
    (r"50\%", r"50 \%", OK),
    (r"50\%", "0.5", OK),
    (r"50\%", "50", OK),
    ("50", r"50\%", OK),
    ("0.5", r"50\%", OK),
    (r"\frac{1}{2}", r"50\%", OK),
    ("12.5", r"12.5\%", OK),
    ("50", "50 percent", OK),
    (r"50\%", r"50\text{ percent}", OK),
    (r"50\%", r"5\%", WRONG),
    (r"50\%", r"0.5\%", WRONG),
    ("0.5", r"0.5\%", WRONG),
    (r"50\%", "5", WRONG),
    (r"33\frac{1}{3}\%", r"\frac{1}{3}", OK),
    (r"33\frac{1}{3}\%", r"33\%", WRONG),
    (r"P = \frac12", r"0.5\%", WRONG),
  ],
  "units": [
    (r"5\text{ cm}", "5", OK),
    ("5", r"5 \text{ cm}", OK),
    ("5", r"5\,\mathrm{cm}", OK),
    ("5", "5 cm", OK),
    ("5", "5cm", OK),
    (r"5\text{ cm}", r"5\text{ centimeters}", OK),
    (r"5\text{ cm}", r"5\text{ m}", WRONG),
    (r"5\text{ cm}", r"6\text{ cm}", WRONG),
    (r"13 \text{ cm}^2", r"13\text{ square centimeters}", OK),
    (r"13 \text{ cm}^2", "13", OK),
    (r"13\mbox{ cm}^2", r"13\text{ cm}^3", WRONG),
    (r"60\text{ mph}", r"60\text{ miles per hour}", OK),
    (r"90^\circ", "90", OK),
    ("90", r"90^{\circ}", OK),
    ("90", "90 degrees", OK),
    ("90", "90\u00b0", OK),
    (r"90^\circ", r"\frac{\pi}{2}", WRONG),
    (r"\$18", "18", OK),
    (r"\$18.50", r"\$18.50", OK),
    ("18", r"18\text{ dollars}", OK),
    (r"\$18", r"18\text{ cents}", WRONG),
    ("12", r"12\text{ apples}", OK),
    ("12", "12 apples", OK),
    ("5", r"5\text{ million}", WRONG),
    ("5", "5 dozen", WRONG),
    ("5", r"5\text{ or more}", WRONG),
    ("3", "3t", WRONG),
    ("3", "3 xy", WRONG),
    ("5", "5 m", WRONG),
    ("3t", "3", WRONG),
    ("3t", "3t", OK),
    (r"3\text{rd}", "3", OK),
    (r"5 \text{ ft } 6 \text{ in}", r"5\text{ ft }6\text{ in}", OK),
    (r"5 \text{ ft } 6 \text{ in}", r"5\text{ ft }6\text{ cm}", WRONG),
  ],
  "thousands": [
    ("1234", "1,234", OK),
    ("1,234", "1234", OK),
    ("1234", r"1{,}234", OK),
    ("1234", r"1,\!234", OK),
    ("1234", r"1\,234", OK),
    (r"\$32,\!348", "32348", OK),
    (r"11,\! 111,\! 100", "11111100", OK),
    ("1234567.5", "1,234,567.50", OK),
    ("1234", "x = 1,234", OK),
    ("1234", "-1,234", WRONG),
    ("1234", "(1,234)", WRONG),
    ("(1,234)", "(1,234)", OK),
    ("(1,234)", "1234", WRONG),
    ("1234", r"\{1,234\}", WRONG),
    ("1234", "12,34", WRONG),
    ("1234", "1, 234", WRONG),
    ("1,234", "1, 234", WRONG),
  ],
  "tuples": [
    ("(1,2)", "(1, 2)", OK),
    ("(1,2)", "(2,1)", WRONG),
    ("(2,1)", "(2,1)", OK),
    ("(1,2)", r"\left(1, \frac{4}{2}\right)", OK),
    ("(1,2)", r"\langle 1,2 \rangle", OK),
    ("(1,2)", r"\{1,2\}", WRONG),
    ("(1,2)", "1,2", WRONG),
    ("1,2", "(1,2)", WRONG),
    ("(1,2)", "(1,2,3)", WRONG),
    ("(1,2,3)", "(1,3,2)", WRONG),
    (r"(3, \frac{\pi}{2})", r"(3, \pi/2)", OK),
    ("(-1,-2)", "(-1,-2)", OK),
    ("(1,2),(3,4)", "(3,4),(1,2)", OK),
    ("(1,2),(3,4)", "(2,1),(3,4)", WRONG),
    (r"(\text{A}, \text{E})", "(A, E)", OK),
  ],
  "lists and sets": [
    ("1,2", "2, 1", OK),
    ("1,2", "1 and 2", OK),
    ("1,2", "1 or 2", OK),
    ("1,2", r"1 \text{ and } 2", OK),
    ("1,2", r"\{1,2\}", OK),
    (r"\{1,2\}", r"\{2,1\}", OK),
    (r"\{1,2\}", r"\{1,2,3\}", WRONG),
    ("1,2,3", "1,2", WRONG),
    ("1,2", "1", WRONG),
    ("1", "1,2", WRONG),
    ("1,2", "x=1 or x=2", OK),
    ("1,2", "x = 1, 2", OK),
    ("1,2", "x=1, y=2", WRONG),
    ("x=1,y=2", "y=2, x=1", OK),
    ("x=1,y=2", "x=2, y=1", WRONG),
    ("1,2", "x_1 = 1, x_2 = 2", OK),
    ("x_1=1, x_2=2", "x_1=2, x_2=1", WRONG),
    (r"\text{6 and 8}", "6, 8", OK),
    (r"\left\{-2, 3\right\}", r"\left\{ 3, -2 \right\}", OK),
    (r"\{5\}", "5", OK),
    ("3", "3, 3", OK),
    (r"\frac12, 2", "2, 0.5", OK),
    (r"\emptyset", r"\varnothing", OK),
    (r"\emptyset", r"\{\}", OK),
    (r"\emptyset", r"\text{no solution}", OK),
    (r"\text{No real solutions}", r"\emptyset", OK),
    (r"\emptyset", "0", WRONG),
    (r"\emptyset", r"\{0\}", WRONG),
  ],
  "intervals": [
    ("[1,2]", "[1, 2]", OK),
    ("[1,2]", "(1,2)", WRONG),
    ("(1,2)", "[1,2]", WRONG),
    ("[1,2)", "(1,2]", WRONG),
    ("[1,2]", r"\{1,2\}", WRONG),
    (r"(-\infty,3]", r"\left(-\infty, 3\right]", OK),
    (r"(-\infty,3]", r"(-\infty,3)", WRONG),
    (r"(-\infty, 0)\cup(0,\infty)", r"(0,\infty)\cup(-\infty,0)", OK),
    (r"(-\infty, 0)\cup(0,\infty)", r"(-\infty,\infty)", WRONG),
    (r"(-\infty, 0)\cup(0,\infty)", r"\mathbb{R}\setminus\{0\}", OK),
    (r"x \in [-2,7]", "[-2,7]", OK),
    (r"[-2,7]", r"x\in[-2,7]", OK),
    (r"(-\infty,\infty)", r"\mathbb{R}", OK),
    (r"\mathbb{R}", r"\text{all real numbers}", OK),
    (r"[\frac12, 3]", "[0.5, 3]", OK),
    ("[1,2]", r"1 \le x \le 2", OK),
    ("[1,2]", "1 < x < 2", WRONG),
    ("1<x<2", "(1,2)", OK),
    ("1<x<2", "[1,2]", WRONG),
  ],
  "equations": [
    ("5", "x = 5", OK),
    ("x = 5", "5", OK),
    ("5", "5 = x", OK),
    ("x=5", "y=5", WRONG),
    ("x=5", "x=6", WRONG),
    ("y = 2x+1", "y=1+2x", OK),
    ("y = 2x+1", "2x - y + 1 = 0", OK),
    ("y = 2x+1", "2y = 4x + 2", OK),
    ("y = 2x+1", "2x+1 = y", OK),
    ("y = 2x+1", "y = 2x-1", WRONG),
    ("y = 2x+1", "x = 2y+1", WRONG),
    ("x^2+y^2=9", "9 = y^2+x^2", OK),
    ("x^2+y^2=9", "x^2+y^2=3", WRONG),
    ("x=5", "2x = 10", WRONG),
    ("10", "2x = 10", WRONG),
    ("10", "x + 5 = 10", WRONG),
    (r"\frac12", r"x = \frac{2}{4} = \frac{1}{2}", OK),
    (r"\frac12", r"x = 3 = \frac{1}{2}", WRONG),
    ("5", "2 + 3 = 5", OK),
    ("5", "2 + 2 = 5", WRONG),
    (r"\frac12", r"P(A) = \frac12", OK),
    ("2x+1", "f(x) = 2x+1", OK),
    ("f(x) = 2x+1", "2x+1", OK),
    ("25", r"\text{Area} = 25", OK),
    ("abc = 6", "xyz = 6", WRONG),
    ("x^2 = -1", "x^2 = -4", WRONG),
    ("y = 2x+1", "0 = 0", WRONG),
  ],
  "inequalities": [
    ("x > 3", "3 < x", OK),
    ("x > 3", r"x \ge 3", WRONG),
    ("x > 3", "x < 3", WRONG),
    ("x > 3", "2x > 6", OK),
    ("x > 3", "-x < -3", OK),
    ("1 < x < 2", "2 > x > 1", OK),
    (r"1 \le x < 2", r"1 < x \le 2", WRONG),
    ("x > 3", "y > 3", WRONG),
    ("x > 3", "3", WRONG),
    ("3", "x > 3", WRONG),
    (r"x \ne 3", r"x \neq 3", OK),
    ("x > 3", r"(3, \infty)", OK),
    (r"(3, \infty)", "x > 3", OK),
    ("3 < x < 5", "x < 3 or x > 5", WRONG),
    (r"x < 1 \text{ or } x > 5", "x>5 or x<1", OK),
  ],
  "text": [
    (r"\text{Tuesday}", "Tuesday", OK),
    ("Tuesday", r"\text{tuesday}", OK),
    ("Tuesday", "Wednesday", WRONG),
    (r"\text{even}", "even", OK),
    (r"\text{even}", r"\text{odd}", WRONG),
    (r"\text{even}", r"\text{not even}", WRONG),
    (r"\text{(A)}", "A", OK),
    ("A", r"\text{(A)}", OK),
    ("A", r"\textbf{(A)}", OK),
    ("B", "b", OK),
    ("A", "B", WRONG),
    ("C", r"\textbf{(C)}\ 12", OK),
    ("C", "(C) 12 or (D) 13", WRONG),
    ("A", "A or B", WRONG),
    (r"\text{A, C}", "C and A", OK),
    (r"\text{A, C}", "A", WRONG),
    (r"\text{A} \text{ or } \text{E}", r"\text{E} \text{ or } \text{A}", OK),
    ("A", r"\text{A} \text{ or } \text{E}", WRONG),
    (r"\text{June 20}", "June 20", OK),
    (r"\text{June 20}", "June 21", WRONG),
    ("II", "-1", WRONG),
    ("II", "I and II", WRONG),
    ("True", r"\text{true}", OK),
    ("Yes", "No", WRONG),
    (r"\text{Evelyn}", "Evelyn", OK),
  ],
  "plus-minus, infinity, roots, powers": [
    (r"\pm 2", "2, -2", OK),
    (r"\pm 2", r"x = \pm 2", OK),
    (r"\pm 2", "2", WRONG),
    (r"1 \pm \sqrt{2}", r"1+\sqrt2, 1-\sqrt2", OK),
    (r"\infty", "infinity", OK),
    (r"\infty", r"-\infty", WRONG),
    (r"2\sqrt{3}", r"\sqrt{12}", OK),
    (r"2\sqrt{3}", r"2\sqrt3", OK),
    (r"2\sqrt{3}", r"\sqrt{3}", WRONG),
    (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}", OK),
    ("2", r"\sqrt[3]{8}", OK),
    (r"\sqrt{2}", r"\sqrt{2} + 10^{-20}", WRONG),
    ("1024", "2^{10}", OK),
    ("2^{10}", "2^10", OK),
    ("2^{10}", "20", WRONG),
    ("-9", "-3^2", OK),
    ("9", "-3^2", WRONG),
    ("100000", "1e5", OK),
    ("300000", r"3.0 \times 10^5", OK),
    ("120", "5!", OK),
    ("12", r"2\binom{4}{2}", OK),
    (r"\log_2 8", "3", OK),
    (r"\frac{3\pi}{4}", r"\frac34 \pi", OK),
    ("2^{2024}", "2^{2024}", OK),
    ("2^{2024}", "2^{2025}", WRONG),
  ],
  "complex": [
    ("3+2i", "2i + 3", OK),
    ("3+2i", "3-2i", WRONG),
    ("2i", "(1+i)^2", OK),
    ("-1", "i^2", OK),
    ("1+2i, 1-2i", r"1 \pm 2i", OK),
    (r"\frac{1+i}{2}", r"\frac12 + \frac{i}{2}", OK),
  ],
  "algebra": [
    ("(x+1)^2", "x^2+2x+1", OK),
    ("x^2-1", "(x-1)(x+1)", OK),
    ("x^2-1", "(x-1)^2", WRONG),
    ("x(x+1)", "x^2+x", OK),
    (r"\frac{x^2-1}{x-1}", "x+1", OK),
    ("2x", "2y", WRONG),
    ("3R^2", "3r^2", WRONG),
    (r"\sin^2 x + \cos^2 x", "1", OK),
    ("e^{2x}", "(e^x)^2", OK),
    ("x", "y", WRONG),
    ("|x|", "x", WRONG),
    ("4x^2y", r"4 \cdot x^2 \cdot y", OK),
    ("2\\alpha", "2a", WRONG),
    (r"\frac{n(n+1)}{2}", r"\binom{n+1}{2}", OK),
    ("2^{n}-1", "2^{n-1}", WRONG),
    (r"\cot x", r"\frac{\cos x}{\sin x}", OK),
    (r"\tan x", r"\cot x", WRONG),
    ("p - q", "q - p", WRONG),
    (r"n \equiv 3 \pmod 7", r"n \equiv 3 \pmod 7", OK),
    (r"n \equiv 3 \pmod 7", r"n \equiv 4 \pmod 7", UNPARSABLE),
  ],
  "matrices": [
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}", OK),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix}1&3\\2&4\end{pmatrix}", WRONG),
    (r"\begin{pmatrix} 1/2 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 0.5 \\ 2 \end{pmatrix}", OK),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \end{pmatrix}", WRONG),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "(1,2)", WRONG),
    (r"\begin{pmatrix} 1/3 \\ 2/3 \end{pmatrix}", r"\frac{1}{3}\begin{pmatrix} 1 \\ 2 \end{pmatrix}", OK),
    (r"\begin{pmatrix} 1/3 \\ 2/3 \end{pmatrix}", r"\frac{1}{2}\begin{pmatrix} 1 \\ 2 \end{pmatrix}", WRONG),
    (r"\begin{pmatrix} x+1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1+x \\ 2 \end{pmatrix}", OK),
  ],
  "bases": [
    ("12_3", "12_{3}", OK),
    ("12_3", "12", OK),
    ("12", "12_3", WRONG),
    ("12_3", "12_4", WRONG),
    ("12_3", "5", WRONG),
    ("4210_{5}", "4210_5", OK),
    ("AB_{16}", "AB_{16}", OK),
    ("AB1_{16}", "AB2_{16}", WRONG),
  ],
  "times and ratios": [
    ("5:30", "5:30", OK),
    ("5:30", r"5:30 \text{ p.m.}", OK),
    (r"5:30 \text{ p.m.}", "5:30 PM", OK),
    (r"5:30 \text{ p.m.}", r"5:30\text{ a.m.}", WRONG),
    ("5:30", r"\frac{1}{6}", WRONG),
    (r"10 \text{ a.m.}", "10:00 AM", OK),
    (r"10 \text{ a.m.}", "10", WRONG),
    ("5:30", "6:30", WRONG),
    ("3:2", "6:4", OK),
    ("3:2", "2:3", WRONG),
    ("3:2", r"\frac{3}{2}", OK),
    ("1:2:3", "2:4:6", OK),
    ("1:2:3", "1:3:2", WRONG),
    ("(1,2,3)", "1:2:3", WRONG),
  ],
}
ROWS = [(topic, *row) for topic, rows in PAIRS.items() for row in rows]


def verdict_of(gold, text):
  return verify([Problem(id="test/1", prompt="?", answer=gold, source="math")], [text])[0]


@pytest.mark.parametrize("topic, gold, answer, error", ROWS)
def test_pair(topic, gold, answer, error):
  verdict = verdict_of(gold, rf"So it is $\boxed{{{answer}}}$.")
  assert verdict.error == error
  assert verdict.correct == (error is None)
  assert verdict.reward == (1.0 if error is None else 0.0)


@pytest.mark.parametrize("gold", sorted({row[1] for row in ROWS}))
def test_every_gold_answer_is_its_own_answer(gold):
  assert verdict_of(gold, rf"\boxed{{{gold}}}").correct


# --- the short-cuts change no verdict


def readings():
  """The formulas of all rows, read: (gold answer's, other's)."""
  for _, gold, answer, _ in ROWS:
    try:
      pair = read(gold).form, read(answer).form
    except UnreadableError:
      continue
    if all(isinstance(form, Formula) for form in pair):
      yield pair[0].value, pair[1].value


def test_plain_numbers_are_what_the_parser_reads():
  texts = {clean(text) for row in ROWS for text in row[1:3] if text.strip()}
  quick = {text: number for text in texts if (number := quick_number(text)) is not None}
  assert len(quick) > 40
  assert {text: parsed(latex(text)) for text in quick} == quick


def test_what_is_written_alike_is_equal_in_full():
  formulas = {gold for gold, _ in readings()}
  assert len(formulas) > 80
  assert [gold for gold in formulas if not equal(gold, gold)] == []


def test_what_differs_at_a_point_is_not_equal_to_math_verify():
  pairs = [pair for pair in readings() if all(isinstance(value, sympy.Expr) for value in pair)]
  differing = [pair for pair in pairs if refuted(*(value.doit() for value in pair))]
  assert len(differing) > 30
  options = {"float_rounding": 12, "numeric_precision": 40, "timeout_seconds": None}
  assert [pair for pair in differing if math_verify.verify(*pair, **options)] == []


def test_what_does_not_differ_at_a_point_is_left_to_math_verify():
  x = sympy.Symbol("x", real=True)
  assert not refuted(sympy.Abs(x), x)  # the point is positive
  assert not same_value(sympy.Abs(x), x)

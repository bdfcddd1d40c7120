"""Gold answers against boxed answers, by topic: what is the same, and what only looks like it."""

import pathlib

import math_verify
import pytest
import sympy
from tables import failed_rows, in_two_speeds

from o1jax.verifiers.base import Problem
from o1jax.verifiers.math.equal import equal, refuted, same_value
from o1jax.verifiers.math.read import Formula, parsed, quick_number, read
from o1jax.verifiers.math.text import UnreadableError, clean, latex
from o1jax.verifiers.math.verify import verify

DATA = pathlib.Path(__file__).parents[2] / "data"


def table(name):
  """(topic, gold answer, what stands in the box, verdict's error), as the file has them."""
  topic, rows = "", []
  for line in (DATA / name).read_text(encoding="utf-8").split("\n")[1:-1]:
    if line.startswith("# "):
      topic = line[2:]
    else:
      verdict, gold, answer = line.split("\t")
      rows.append((topic, gold, answer, None if verdict == "correct" else verdict))
  return rows


ROWS = table("math_pairs.tsv") + table("math_answers.tsv")
COMPLETIONS = [
  (gold, text.replace("¶", "\n"), error) for _, gold, text, error in table("math_completions.tsv")
]


def test_the_table_accepts_and_rejects_in_every_topic():
  assert len(ROWS) > 800
  assert len(COMPLETIONS) > 120
  for topic in {row[0] for row in ROWS}:
    assert {row[3] is None for row in ROWS if row[0] == topic} == {True, False}


def verdict_of(gold, text):
  return verify([Problem(id="test/1", prompt="?", answer=gold, source="math")], [text])[0]


def check_verdict(gold, text, error):
  verdict = verdict_of(gold, text)
  assert verdict.error == error
  assert verdict.correct == (error is None)
  assert verdict.reward == (1.0 if error is None else 0.0)


@in_two_speeds([(gold, rf"So it is $\boxed{{{answer}}}$.", error) for _, gold, answer, error in ROWS])
def test_pairs(rows):
  assert failed_rows(check_verdict, rows) == []


@in_two_speeds(COMPLETIONS)
def test_whole_completions(rows):
  assert failed_rows(check_verdict, rows) == []


@in_two_speeds([(gold, rf"\boxed{{{gold}}}", None) for gold in sorted({row[1] for row in ROWS})])
def test_every_gold_answer_is_its_own_answer(rows):
  assert failed_rows(check_verdict, rows) == []


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


@pytest.mark.full
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

"""Bugs put into small programs, each of which a reader can find."""

import ast
import random

import pytest

from o1jax.tasks.mutants import ARITHMETIC, COMPARISONS, mutants, normal


def made(code: str, kind: str) -> set[str]:
  """What is made of `code` by edits of one kind."""
  return {mutant.code for mutant in mutants(code, random.Random(0)) if mutant.kind == kind}


KINDS = {
  "comparison": ("x = a < b", {"x = a <= b", "x = a > b"}),
  "arithmetic": ("x = a - b", {"x = a + b"}),
  "boolean": ("x = a and b", {"x = a or b"}),
  "constant": ("x = 7", {"x = 8", "x = 6"}),
  "arguments": ("f(a, b, c)", {"f(b, a, c)", "f(a, c, b)"}),
  "statement": ("a()\nb()", {"a()", "b()"}),
  "condition": ("if a:\n    b()", {"if not a:\n    b()"}),
  "return": (
    "def f(x):\n    y = x\n    return y",
    {"def f(x):\n    y = x\n    return x"},
  ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_makes_what_it_says(kind):
  code, wanted = KINDS[kind]
  assert made(code, kind) == wanted


MORE = {
  "a chain of comparisons": (
    "x = a < b == c",
    "comparison",
    {"x = a <= b == c", "x = a > b == c", "x = a < b != c"},
  ),
  "an operation in place": ("x += 1", "arithmetic", {"x -= 1"}),
  "a truth is no number": ("x = True", "constant", set()),
  "equal arguments": ("f(a, a)", "arguments", set()),
  "arguments that are spread out": ("f(*a, b)", "arguments", set()),
  "named arguments": ("f(a, b=b)", "arguments", set()),
  "an only statement": ("a()", "statement", set()),
  "a docstring": ('def f():\n    """Text."""\n    return 1', "statement", set()),
  "imports and functions": (
    "import a\ndef f():\n    return 1\nx = f()",
    "statement",
    {"import a\n\ndef f():\n    return 1"},
  ),
  "what was negated": ("while not a:\n    b()", "condition", {"while a:\n    b()"}),
  "a condition in a value": ("x = a if b else c", "condition", {"x = a if not b else c"}),
  "a truth returned": ("def f():\n    return True", "return", {"def f():\n    return not True"}),
  "a comparison returned": (
    "def f(a):\n    return a is b",
    "return",
    {"def f(a):\n    return a", "def f(a):\n    return not a is b"},
  ),
  "nothing returned": ("def f(a):\n    return", "return", set()),
}


@pytest.mark.parametrize("what", MORE)
def test_corner_cases(what):
  code, kind, wanted = MORE[what]
  assert made(code, kind) == wanted


def test_every_operator_becomes_others_and_never_itself():
  for table, base in ((COMPARISONS, ast.cmpop), (ARITHMETIC, ast.operator)):
    assert all(issubclass(op, base) and others and op not in others for op, others in table.items())
  assert set(COMPARISONS) == set(ast.cmpop.__subclasses__())


CODE = "def f(items, low):\n    # a comment\n    n = 0\n    for item in items:\n        if item > low:\n            n += 1\n    return n\n"


def test_mutants_differ_from_the_program_and_each_other_and_compile():
  found = [mutant.code for mutant in mutants(CODE, random.Random(0))]
  assert len(found) == len(set(found)) > 10 and normal(CODE) not in found
  for code in found:
    compile(code, "<test>", "exec")
    assert normal(code) == code and "comment" not in code


def test_an_edit_that_does_not_compile_is_left_out():
  code = "for x in y:\n    a()\n    break"
  assert all(
    "break" in mutant.code or mutant.kind == "statement" for mutant in mutants(code, random.Random(0))
  )
  assert made("def f(a):\n    global b\n    b = a\n    return b", "statement") != set()


def test_the_order_hangs_on_the_seed_and_kinds_come_in_turn():
  one, two, other = (mutants(CODE, random.Random(seed)) for seed in (0, 0, 1))
  assert one == two != other and sorted(one) == sorted(other)
  kinds = {mutant.kind for mutant in one}
  assert {mutant.kind for mutant in one[: len(kinds)]} == kinds


def test_what_is_no_program_is_refused():
  with pytest.raises(SyntaxError):
    mutants("def f(", random.Random(0))

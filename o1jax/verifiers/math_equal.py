r"""Whether a prediction says what the gold answer says. The gold answer always comes first: the roles are not alike.

    gold x = 5      prediction 5        yes     gold 12_3      prediction 12          yes: the question names the base
    gold 1 < x < 2  prediction (1, 2)   yes     gold (1, 2)    prediction 1 < x < 2   no: it may be a point

What a container or a relation holds is compared here, strictly; numbers, expressions, matrices and intervals are left
to math-verify. Its leniences stay outside: any right-hand side for a number, points for lists, equations without a
solution for each other, decimals to six places.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import math_verify
import sympy
from latex2sympy2_extended import is_expr_of_only_symbols
from latex2sympy2_extended.logic import And
from sympy.core.function import AppliedUndef
from sympy.core.relational import Eq, GreaterThan, LessThan, Ne, Relational, StrictGreaterThan, StrictLessThan

from o1jax.verifiers.math_read import Answer, Based, Clock, Formula, Ratio, Words

DIGITS = 40  # decimal places to which numbers without a closed form must agree
_ROUNDING = 12  # decimal places at which math-verify compares floats; none is left to reach it
_I = {sympy.Symbol("i", real=True): sympy.I}
_KINDS = ((sympy.MatrixBase, sympy.MatrixExpr), (sympy.Set,), (sympy.Expr,))

# It warns in each process that its timeout is off: the pool's workers have a limit of CPU time in its place.
logging.getLogger("math_verify.grader").setLevel(logging.ERROR)


class IncomparableError(ValueError):
  """Two formulas that sympy cannot compare."""


def same(gold: Answer, answer: Answer) -> bool:
  """Whether an answer is the gold one. Exact: a decimal is the number that it writes, not one that it rounds.

  Raises IncomparableError where sympy fails.
  """
  if gold.unit is not None and answer.unit is not None and gold.unit != answer.unit:
    return False
  if isinstance(gold.form, Formula) and isinstance(answer.form, Formula):
    alike = gold.text == answer.text and gold.form.percent == answer.form.percent
    return alike or same_formula(gold.form, answer.form)
  return gold.text == answer.text or _same_form(gold, answer)


def _same_form(gold: Answer, answer: Answer) -> bool:
  match gold.form, answer.form:
    case Words(), Words():
      return gold.form == answer.form
    case Words(), (Formula() | None):
      return gold.form.items == {answer.text.casefold()}  # option (B) against b
    case Formula(), Words():
      return answer.form.items == {gold.text.casefold()}
    case Clock(), Clock():
      times_agree = gold.form[:3] == answer.form[:3]
      return times_agree and ("" in (gold.form.half, answer.form.half) or gold.form.half == answer.form.half)
    case Ratio(), Ratio():
      return _proportional(gold.form.terms, answer.form.terms)
    case Ratio(), Formula():
      quotient = _quotient(gold.form)
      return quotient is not None and equal(quotient, answer.form.value)
    case Formula(), Ratio():
      quotient = _quotient(answer.form)
      return quotient is not None and equal(gold.form.value, quotient)
    case Based(), Based():
      return gold.form == answer.form
    case Based(), _:
      return answer.text.lstrip("0") == gold.form.digits
  return False


def _proportional(gold: Sequence[int], terms: Sequence[int]) -> bool:
  if len(gold) != len(terms) or not any(terms):
    return False
  return all(a * d == b * c for a, b in zip(gold, terms) for c, d in zip(gold, terms))


def _quotient(ratio: Ratio) -> sympy.Rational | None:
  """a : b as a / b; the ratio of more terms is no number."""
  of_two = len(ratio.terms) == 2 and ratio.terms[1] != 0
  return sympy.Rational(*ratio.terms) if of_two else None


def same_formula(gold: Formula, answer: Formula) -> bool:
  """Values that are equal. Where only one has a percent sign, p % is p / 100, or p itself if the gold answer left the
  sign out (and is above 1: a gold 0.5 is no half percent) or the prediction did.
  """
  if gold.percent == answer.percent:
    return equal(gold.value, answer.value)
  gold_value, value = (named[1] if (named := _named(form.value)) else form.value for form in (gold, answer))
  if not isinstance(gold_value, sympy.Expr) or not isinstance(value, sympy.Expr):
    return equal(gold.value, answer.value)
  if gold.percent:
    return equal(gold_value, value) or equal(gold_value / 100, value)
  sign_left_out = gold_value.is_number and (sympy.Abs(gold_value) > 1) is sympy.true
  return equal(gold_value, value / 100) or sign_left_out and equal(gold_value, value)


def equal(gold: Any, answer: Any) -> bool:
  """Whether two sympy objects are one answer, without the short-cuts of `same`."""
  if _relations(gold) or _relations(answer):
    return _same_relation(gold, answer)
  if isinstance(gold, sympy.FiniteSet) or isinstance(answer, sympy.FiniteSet):
    sets = _united(gold), _united(answer)
    if all(isinstance(value, sympy.Set) and not isinstance(value, sympy.FiniteSet) for value in sets):
      return same_value(*sets)
    named = _names_any(gold) and _names_any(answer)
    elements = _listed if named else _unnamed
    return _cover(elements(gold), elements(answer), _same_element)
  gold_items, answer_items = _ordered(gold), _ordered(answer)
  if gold_items is not None and answer_items is not None:
    return len(gold_items) == len(answer_items) and all(map(equal, gold_items, answer_items))
  if gold_items is not None or answer_items is not None:
    return False
  alike = any(isinstance(gold, kind) and isinstance(answer, kind) for kind in _KINDS)
  return alike and same_value(gold, answer)


def _united(value: Any) -> Any:
  """The union of the sets that a list of inequalities describes: `x < 1 or x > 5`; all else as it is."""
  elements = _listed(value)
  links = [link for element in elements for link in _relations(element)]
  several = len(elements) > 1 and all(map(_relations, elements))
  if (
    not several
    or any(isinstance(link, Eq) for link in links)
    or len(set().union(*(link.free_symbols for link in links))) != 1
  ):
    return value
  with _comparing():
    return sympy.Union(*(element.as_set() for element in elements))


def _same_element(gold: Any, answer: Any) -> bool:
  """Elements of lists. Names are not to be left out here: `x = 1, y = 2` is not 1, 2."""
  return bool(_relations(gold)) == bool(_relations(answer)) and equal(gold, answer)


def _cover(gold: Sequence[Any], answer: Sequence[Any], match: Callable[[Any, Any], bool]) -> bool:
  """Whether each of the one has its like among the others, and the other way round."""
  return all(any(match(g, a) for a in answer) for g in gold) and all(
    any(match(g, a) for g in gold) for a in answer
  )


def _listed(value: Any) -> Sequence[Any]:
  """What a list or set holds; what is neither is the list of itself."""
  return value.args if isinstance(value, sympy.FiniteSet) else [value]


def _names_any(value: Any) -> bool:
  return any(_relations(element) for element in _listed(value))


def _unnamed(value: Any) -> Sequence[Any]:
  """As `_listed`, where `x = 1, x = 2` and `x_1 = 1, x_2 = 2` are the list 1, 2; `x = 1, y = 2` is not."""
  elements = _listed(value)
  named = [_named(element) for element in elements]
  stems = {str(name[0]).partition("_")[0] for name in named if name is not None and name[0] is not None}
  if len(stems) != 1:
    return elements
  values = [element if name is None else name[1] for name, element in zip(named, elements)]
  return [inner for outer in values for inner in _listed(outer)]


def _ordered(value: Any) -> Sequence[Any] | None:
  """The items of a tuple. The parser makes an open interval of every `(a, b)` with a < b; None for all else."""
  if isinstance(value, sympy.Tuple):
    return value.args
  if isinstance(value, sympy.Interval) and value.left_open and value.right_open:
    if value.start.is_infinite is not True and value.end.is_infinite is not True:
      return (value.start, value.end)
  return None


# --- relations


def _relations(value: Any) -> list[Relational]:
  """The links of an equation, an inequality or a chain of them, in their order; none for all else."""
  if isinstance(value, Relational):
    return [value]
  return list(value._unsorted_args) if isinstance(value, And) else []


def _named(value: Any) -> tuple[Any, Any] | None:
  """(name, value) of `x = 5`, `5 = x`, `x = 2/4 = 1/2`, `f(2) = 5`; the name of `2 + 3 = 5` is None.

  None where the links of a chain disagree, and for what is no such equation.
  """
  links = _relations(value)
  if not links or not all(isinstance(link, Eq) for link in links):
    return None
  parts = [links[0].lhs, *(link.rhs for link in links)]
  if _is_name(parts[0]):
    name, values = parts[0], parts[1:]
  elif _is_name(parts[-1]):
    name, values = parts[-1], parts[-2::-1]
  else:
    name, values = None, parts
  agree = all(equal(values[-1], other) for other in values[:-1])
  return (name, values[-1]) if agree else None


def _is_name(value: Any) -> bool:
  return isinstance(value, AppliedUndef) or bool(is_expr_of_only_symbols(value))


def _same_relation(gold: Any, answer: Any) -> bool:
  gold_links, answer_links = _relations(gold), _relations(answer)
  equations = [all(isinstance(link, Eq) for link in links) for links in (gold_links, answer_links)]
  if all(equations):
    return _same_equation(gold, answer)
  if not gold_links or not answer_links:
    return _same_set(gold, answer)
  return not any(equations) and _cover(gold_links, answer_links, _same_inequality)


def _same_equation(gold: Any, answer: Any) -> bool:
  """Two equations, or one with a value. A gold `x = 5` asks for a solution: `2x = 10` is none."""
  gold_named = _named(gold) if _relations(gold) else (None, gold)
  named = _named(answer) if _relations(answer) else (None, answer)
  solved = (
    gold_named is not None and isinstance(gold_named[0], sympy.Symbol) and not gold_named[1].free_symbols
  )
  if (
    gold_named is None
    or named is None
    or _relations(gold)
    and _relations(answer)
    and gold_named[0] != named[0]
  ):
    return not solved and _same_curve(gold, answer)
  (gold_name, gold_value), (name, value) = gold_named, named
  if not _relations(answer):
    return not isinstance(gold_name, sympy.Add) and equal(gold_value, value)
  if not _relations(gold) and gold.free_symbols:  # `y = 2x + 1` for 2x + 1, but not `x + y = 2x + 1`
    return isinstance(name, (sympy.Symbol, AppliedUndef)) and equal(gold_value, value)
  return equal(gold_value, value)


def _same_curve(gold: Any, answer: Any) -> bool:
  """Whether the sides' differences of two equations have a constant ratio: `y = 2x + 1` and `2x - y + 1 = 0`."""
  if not isinstance(gold, Eq) or not isinstance(answer, Eq):
    return False
  return _ratio(gold, answer) is not None


def _same_inequality(gold: Relational, answer: Relational) -> bool:
  """One inequality written in two ways: `x > 3`, `3 < x`, `2x - 6 > 0`."""
  up, down = (StrictGreaterThan, GreaterThan), (StrictLessThan, LessThan)
  strict = [isinstance(link, (StrictGreaterThan, StrictLessThan)) for link in (gold, answer)]
  unequal = [isinstance(link, Ne) for link in (gold, answer)]
  if strict[0] != strict[1] or unequal[0] != unequal[1] or isinstance(gold, Eq) != isinstance(answer, Eq):
    return False
  ratio = _ratio(gold, answer)
  if ratio is None or any(unequal):
    return ratio is not None
  turned = (
    isinstance(gold, up) and isinstance(answer, down) or isinstance(gold, down) and isinstance(answer, up)
  )
  return bool(ratio.is_negative if turned else ratio.is_positive)


def _ratio(gold: Relational, answer: Relational) -> Any:
  """The real constant, not 0, that the sides' differences differ by; None where there is none."""
  sides = (gold.lhs, gold.rhs, answer.lhs, answer.rhs)
  if not all(isinstance(side, sympy.Expr) for side in sides):
    return None
  with _comparing():
    ratio = sympy.simplify((gold.lhs - gold.rhs) / (answer.lhs - answer.rhs))
  constant = ratio.is_number and ratio.is_extended_real and ratio.is_finite and ratio.is_nonzero
  return ratio if constant else None


def _same_set(gold: Any, answer: Any) -> bool:
  """Inequalities and a set of numbers. A gold `(1, 2)` may be a point: no inequality says the same."""
  other = answer if _relations(gold) else gold
  point = other is gold and _ordered(gold) is not None
  return (
    isinstance(other, sympy.Set)
    and not isinstance(other, sympy.FiniteSet)
    and not point
    and _verified(gold, answer)
  )


# --- numbers, expressions, matrices, sets


def same_value(gold: Any, answer: Any) -> bool:
  """Two objects of one kind, by math-verify; numbers and expressions that differ at a point are not asked about."""
  if isinstance(gold, sympy.Expr):
    with _comparing():
      gold, answer = _evaluated(gold), _evaluated(answer)
    if gold == answer:
      return True
    if refuted(gold, answer):
      return False
  return _verified(gold, answer)


@contextlib.contextmanager
def _comparing() -> Iterator[None]:
  """Turns whatever sympy raises into IncomparableError.

  Broad on purpose: it raises what it likes (NotImplementedError, PolynomialError, RecursionError, MemoryError at the
  worker's limit ...), and each says the same: the two were not compared, so that no verdict is built on it.
  """
  try:
    yield
  except Exception as error:
    raise IncomparableError(f"sympy cannot compare them: {type(error).__name__}") from error


def _evaluated(value: Any) -> Any:
  """With `i` the imaginary unit, and what the parser left undone done."""
  return value.xreplace(_I).doit()


def refuted(gold: sympy.Expr, answer: sympy.Expr) -> bool:
  """Whether two expressions have clearly different values, where each symbol is given one number of its own.

  Certain where it says yes: simplification cannot make equal what differs at a point.
  """
  symbols = sorted(gold.free_symbols | answer.free_symbols, key=str)
  point = {symbol: sympy.Rational(2 * k + 3, k + 7) for k, symbol in enumerate(symbols)}
  try:
    a, b = (value.evalf(DIGITS, subs=point) for value in (gold, answer))
    numbers = a.is_number and b.is_number and a.is_finite and b.is_finite
    return bool(numbers and abs(a - b) > sympy.Float("1e-15") * (1 + abs(a) + abs(b)))
  except (TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, MemoryError):
    return False  # no numeric value: nothing is known


def _verified(gold: Any, answer: Any) -> bool:
  with _comparing():
    return math_verify.verify(
      gold, answer, float_rounding=_ROUNDING, numeric_precision=DIGITS,
      allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True,
    )  # fmt: skip

r"""Whether a prediction equals the gold answer, which always comes first: the roles are not alike.

    gold x = 5      prediction 5        yes    gold 12_3    prediction 12         yes: the base is given
    gold 1 < x < 2  prediction (1, 2)   yes    gold (1, 2)  prediction 1 < x < 2  no: it may be a point

What a container or a relation holds is compared here, strictly, each entry as often as it stands there; the
rest is left to math-verify, but for its leniences: any right-hand side for a number, points for lists,
equations without a solution for each other, decimals to six places.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import math_verify
import sympy
from latex2sympy2_extended import is_expr_of_only_symbols
from latex2sympy2_extended.logic import And
from latex2sympy2_extended.sets import FiniteSet as Listed
from sympy.core.function import AppliedUndef
from sympy.core.relational import Eq, Ne, Relational
from sympy.functions.elementary.hyperbolic import HyperbolicFunction

from o1jax.verifiers.math.read import Answer, Formula, Qualified, Words

DIGITS = 40  # decimal places to which numbers without a closed form must agree
_ROUNDING = 12  # decimal places at which math-verify compares floats; none is left to reach it
_I = {sympy.Symbol("i", real=True): sympy.I}
_KINDS = ((sympy.MatrixBase, sympy.MatrixExpr), (sympy.Set,), (sympy.Expr,))

# It warns in each process that its timeout is off: the pool's workers have a limit of CPU time in its place.
logging.getLogger("math_verify.grader").setLevel(logging.ERROR)


class IncomparableError(ValueError):
  """Two formulas that sympy cannot compare."""


def same(gold: Answer, answer: Answer) -> bool:
  """Whether an answer equals the gold one exactly. Raises IncomparableError where sympy fails."""
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
    case Qualified(), Qualified() if gold.form.value == answer.form.value:
      return len({gold.form.qualifier, answer.form.qualifier} - {""}) < 2
    case Qualified(digits, _, None), (Formula() | Words() | None) if digits == answer.text.lstrip("0"):
      return True  # the question names the base
  first, second = (form.ratio if isinstance(form, Qualified) else form for form in (gold.form, answer.form))
  if not isinstance(first, Formula) or not isinstance(second, Formula):
    return False
  # `7:24` may be a ratio, a gold one only where it stands in lowest terms.
  lowest = not isinstance(gold.form, Qualified) or str(first.value) == gold.text.replace(":", "/")
  return lowest and same_formula(first, second)


def same_formula(gold: Formula, answer: Formula) -> bool:
  """Values that are equal. Where only one has a percent sign, p % is p / 100, or p itself if the gold answer
  left the sign out (and is above 1: a gold 0.5 is no half percent) or the prediction did.
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
  if _orders(gold) or _orders(answer):
    return _same_order(gold, answer)
  related = bool(_relations(gold)), bool(_relations(answer))
  items, listed = (_ordered(gold), _ordered(answer)), (entries(gold), entries(answer))
  if all(items) and not all(related):
    return len(items[0]) == len(items[1]) and all(map(equal, *items))
  if any(isinstance(value, sympy.FiniteSet) for value in (gold, answer)) or sum(map(len, listed)) > 2:
    named = all(any(map(_relations, values)) for values in listed)
    # In lists names are not to be left out: `x = 1, y = 2` is not 1, 2.
    same_entry = lambda a, b: bool(_relations(a)) == bool(_relations(b)) and equal(a, b)
    first, second = listed if named else map(_unnamed, listed)
    return _pair_off(first, second, same_entry)
  if any(related):
    return _same_equation(gold, answer)
  alike = any(isinstance(gold, kind) and isinstance(answer, kind) for kind in _KINDS)
  return alike and not any(items) and same_value(gold, answer)


def _pair_off(gold: Sequence[Any], answer: Sequence[Any], match: Callable[[Any, Any], bool]) -> bool:
  """Whether each of the one has its like among the others, each of which is taken once."""
  left = list(answer)
  for g in gold:
    place = next((k for k, a in enumerate(left) if match(g, a)), None)
    if len(gold) != len(answer) or place is None:
      return False
    del left[place]
  return not left


def entries(value: Any) -> Sequence[Any]:
  """The entries of a list or set, as often as written; `(x, y) = (1, 2)` as two equations; else the value."""
  if isinstance(value, sympy.FiniteSet):
    written = value._unsorted_args if isinstance(value, Listed) else value.args
    return [inner for entry in written for inner in entries(entry)]
  items = _ordered(value) if isinstance(value, Eq) else ()
  if items and len(items) == len(value.lhs):
    return [Eq(name, item, evaluate=False) for name, item in zip(value.lhs, items)]
  return [value]


def _unnamed(listed: Sequence[Any]) -> Sequence[Any]:
  """`x = 1, x = 2` and `x_1 = 1, x_2 = 2` as the list 1, 2; `x = 1, y = 2` as it is."""
  named = [_named(entry) for entry in listed]
  stems = {str(name[0]).partition("_")[0] for name in named if name is not None and name[0] is not None}
  if len(stems) != 1:
    return listed
  values = [entry if name is None else name[1] for name, entry in zip(named, listed)]
  return [inner for outer in values for inner in entries(outer)]


def _ordered(value: Any) -> Sequence[Any]:
  """The items of a tuple, or of an open interval, as the parser reads `(a, b)` with a < b; else none."""
  if isinstance(value, sympy.Interval) and value.left_open and value.right_open:
    ends = (value.start, value.end)
    return () if any(end.is_infinite is True for end in ends) else ends
  if isinstance(value, Eq) and isinstance(value.lhs, sympy.Tuple):  # `(x, y) = (1, 2)`
    return _ordered(value.rhs)
  return value.args if isinstance(value, sympy.Tuple) else ()


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
  sides = [links[0].lhs, *(link.rhs for link in links)]
  names = [bool(is_expr_of_only_symbols(side)) for side in sides]
  for place, side in enumerate(sides):  # `f(2)`, `\\sin x`
    applied = isinstance(side, sympy.Function) and bool(side.free_symbols)
    names[place] |= applied or isinstance(side, AppliedUndef)
  name = sides.pop(0) if names[0] else sides.pop() if names[-1] else None
  values = sides if name is None or names[0] else sides[::-1]
  agree = all(equal(values[-1], other) for other in values[:-1])
  return (name, values[-1]) if agree else None


def _same_equation(gold: Any, answer: Any) -> bool:
  """Two equations, or one with a value. A gold `x = 5` asks for a solution: `2x = 10` is none."""
  both = bool(_relations(gold) and _relations(answer))
  gold_named, named = (_named(value) if _relations(value) else (None, value) for value in (gold, answer))
  if gold_named is None or named is None or both and gold_named[0] != named[0]:
    name, value = gold_named or (None, gold)
    solved = isinstance(name, sympy.Symbol) and not value.free_symbols
    return not solved and isinstance(gold, Eq) and isinstance(answer, Eq) and _same_curve(gold, answer)
  (gold_name, gold_value), (name, value) = gold_named, named
  if not _relations(answer) and isinstance(gold_name, sympy.Add):
    return False
  if not _relations(gold) and gold.free_symbols and not isinstance(name, (sympy.Symbol, AppliedUndef)):
    return False  # `y = 2x + 1` for 2x + 1, but not `x + y = 2x + 1`
  return equal(gold_value, value)


def _same_curve(gold: Eq, answer: Eq) -> bool:
  """Whether the sides' differences have a constant ratio that is not 0: `y = 2x + 1`, `2x - y + 1 = 0`."""
  if not all(isinstance(side, sympy.Expr) for side in (*gold.args, *answer.args)):
    return False
  with _comparing():
    ratio = sympy.simplify((gold.lhs - gold.rhs) / (answer.lhs - answer.rhs))
  return bool(ratio.is_number and ratio.is_extended_real and ratio.is_finite and ratio.is_nonzero)


def _orders(value: Any) -> bool:
  """Whether it says a part of a line: by an inequality, or by several sets that a name is said to be in."""
  links = _links(value)
  sets = len(entries(value)) > 1 and any(isinstance(link.rhs, sympy.Set) for link in links)
  return sets or not all(isinstance(link, Eq) for link in links)


def _links(value: Any) -> list[Relational]:
  return [link for entry in entries(value) for link in _relations(entry)]


def _same_order(gold: Any, answer: Any) -> bool:
  """Inequalities written in two ways, or one and its set of solutions; a gold `(1, 2)` may be a point."""
  (gold_name, gold_set), (name, answer_set) = _solutions(gold), _solutions(answer)
  if gold_set is None or answer_set is None:  # in several unknowns
    links = _links(gold), _links(answer)
    in_order = not any(isinstance(link, (Eq, Ne)) for link in [*links[0], *links[1]])
    return in_order and all(links) and _pair_off(*links, _verified)
  point = bool(_ordered(gold)) or isinstance(answer_set, sympy.FiniteSet)
  return not point and (None in (gold_name, name) or gold_name == name) and _verified(gold_set, answer_set)


def _solutions(value: Any) -> tuple[Any, sympy.Set | None]:
  """(name, set) of solutions of inequalities in one unknown, `x \\in` a set, or a list of either."""
  if isinstance(value, sympy.Set) and not isinstance(value, sympy.FiniteSet):
    return None, value
  sets, names = [], {symbol for link in _links(value) for symbol in link.free_symbols}
  for links in map(_relations, entries(value)):
    if len(names) != 1 or not links or any(isinstance(link, Eq) for link in links[1:]):
      return None, None
    if not isinstance(links[0], Eq):
      with _comparing():
        sets.append(sympy.And(*links).as_set())
    elif isinstance(links[0].rhs, sympy.Set) and links[0].lhs in names:
      sets.append(links[0].rhs)
    else:
      return None, None
  return names.pop(), sympy.Union(*sets)


def same_value(gold: Any, answer: Any) -> bool:
  """Two objects of one kind, by math-verify, unless they are expressions that differ at a point."""
  if isinstance(gold, sympy.Expr):
    with _comparing():  # with `i` the imaginary unit, and what the parser left undone done
      gold, answer = (value.xreplace(_I).doit() for value in (gold, answer))
      if gold.has(HyperbolicFunction) or answer.has(HyperbolicFunction):
        gold, answer = gold.rewrite(sympy.exp), answer.rewrite(sympy.exp)
    if gold == answer:
      return True
    if refuted(gold, answer):
      return False
  return _verified(gold, answer)


@contextlib.contextmanager
def _comparing() -> Iterator[None]:
  """Turns whatever sympy raises into IncomparableError: no verdict is built on what was not compared.

  Broad on purpose: it raises what it likes (NotImplementedError, RecursionError, MemoryError at the worker's
  limit ...).
  """
  try:
    yield
  except Exception as error:
    raise IncomparableError(f"sympy cannot compare them: {type(error).__name__}") from error


def refuted(gold: sympy.Expr, answer: sympy.Expr) -> bool:
  """Whether two expressions differ where each symbol is one number of its own: certain where it says yes."""
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

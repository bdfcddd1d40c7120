"""Programs with one bug: every single change of a few kinds that a program's syntax tree allows.

    program -> its tree -> each node's edits -> a fresh tree with one of them -> program

Kinds (after the operators of mutation testing; DeMillo, Lipton & Sayward 1978): another comparison,
arithmetic or boolean operator, a number off by one, two arguments that change places, a statement left out, a
condition negated, something else returned. Programs are written anew from their trees, without comments, the
correct one too, so that it and a mutant differ in the bug alone.
"""

import ast
import functools
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

# Changes a node in place, which stands where the node stood in another tree for which the edit was found.
Edit = Callable[[Any], None]
Edits = Iterator[tuple[str, Edit]]  # with their kinds


class Mutant(NamedTuple):
  """A program with a bug."""

  kind: str
  code: str


COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
  ast.Lt: (ast.LtE, ast.Gt),
  ast.LtE: (ast.Lt, ast.GtE),
  ast.Gt: (ast.GtE, ast.Lt),
  ast.GtE: (ast.Gt, ast.LtE),
  ast.Eq: (ast.NotEq,),
  ast.NotEq: (ast.Eq,),
  ast.In: (ast.NotIn,),
  ast.NotIn: (ast.In,),
  ast.Is: (ast.IsNot,),
  ast.IsNot: (ast.Is,),
}
ARITHMETIC: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
  ast.Add: (ast.Sub,),
  ast.Sub: (ast.Add,),
  ast.Mult: (ast.Add, ast.Pow),
  ast.Div: (ast.FloorDiv, ast.Mult),
  ast.FloorDiv: (ast.Div, ast.Mod),
  ast.Mod: (ast.FloorDiv,),
  ast.Pow: (ast.Mult,),
  ast.BitAnd: (ast.BitOr,),
  ast.BitOr: (ast.BitAnd,),
  ast.BitXor: (ast.BitOr,),
  ast.LShift: (ast.RShift,),
  ast.RShift: (ast.LShift,),
}
_BLOCKS = ("body", "orelse", "finalbody")
_KEPT = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Pass)


def normal(code: str) -> str:
  """A program as its tree is written. Raises SyntaxError where it is none."""
  return ast.unparse(ast.parse(code))


def mutants(code: str, rng: random.Random) -> list[Mutant]:
  """All different programs that one edit makes of `code`, which differ from it and compile.

  The order is drawn from `rng`, in turn from each kind, so that frequent kinds do not crowd out the others.
  Raises SyntaxError where `code` is no program.
  """
  tree = ast.parse(code)
  by_kind: dict[str, list[str]] = {}
  known = {normal(code)}
  for place, node in enumerate(ast.walk(tree)):
    for kind, edit in _edits(node):
      made = _edited(code, place, edit)
      if made is not None and made not in known:
        known.add(made)
        by_kind.setdefault(kind, []).append(made)
  for programs in by_kind.values():
    rng.shuffle(programs)
  kinds = sorted(by_kind)
  rng.shuffle(kinds)
  turns = max(map(len, by_kind.values()), default=0)
  in_turn = ((kind, turn) for turn in range(turns) for kind in kinds)
  return [Mutant(kind, by_kind[kind][turn]) for kind, turn in in_turn if turn < len(by_kind[kind])]


def _edited(code: str, place: int, edit: Edit) -> str | None:
  """The program after an edit of the node at `place` of the walk; None where that does not compile."""
  tree = ast.parse(code)
  edit(next(node for i, node in enumerate(ast.walk(tree)) if i == place))
  try:
    made = ast.unparse(ast.fix_missing_locations(tree))
    compile(made, "<mutant>", "exec", dont_inherit=True)
  except (SyntaxError, ValueError, RecursionError):
    return None
  return made


def _edits(node: ast.AST) -> Edits:
  """(kind, edit) of every change of one node."""
  for kinds, make in _MAKERS:
    if isinstance(node, kinds):
      yield from make(node)


def _comparisons(node: ast.Compare) -> Edits:
  for place, op in enumerate(node.ops):
    for other in COMPARISONS[type(op)]:
      yield "comparison", functools.partial(_compare, place, other)


def _compare(place: int, other: type[ast.cmpop], node: ast.Compare) -> None:
  node.ops[place] = other()


def _arithmetic(node: ast.BinOp | ast.AugAssign) -> Edits:
  for other in ARITHMETIC.get(type(node.op), ()):
    yield "arithmetic", functools.partial(_operate, other)


def _operate(other: Callable[[], Any], node: ast.BinOp | ast.AugAssign | ast.BoolOp) -> None:
  node.op = other()


def _boolean(node: ast.BoolOp) -> Edits:
  yield "boolean", functools.partial(_operate, ast.Or if isinstance(node.op, ast.And) else ast.And)


def _constants(node: ast.Constant) -> Edits:
  if type(node.value) is int:
    for step in (1, -1):
      yield "constant", functools.partial(_step, step)


def _step(step: int, node: Any) -> None:
  node.value += step


def _arguments(node: ast.Call) -> Edits:
  if any(isinstance(arg, ast.Starred) for arg in node.args):
    return
  for place in range(len(node.args) - 1):
    yield "arguments", functools.partial(_swap, place)


def _swap(place: int, node: ast.Call) -> None:
  node.args[place : place + 2] = reversed(node.args[place : place + 2])


def _statements(node: ast.AST) -> Edits:
  for name, block in ast.iter_fields(node):
    if name not in _BLOCKS or not isinstance(block, list):
      continue
    there = [place for place, statement in enumerate(block) if not _is_text(statement)]
    for place in there if len(there) > 1 else ():  # without its only statement it would be a gap, and no bug
      if not isinstance(block[place], _KEPT):
        yield "statement", functools.partial(_leave_out, name, place)


def _leave_out(name: str, place: int, node: ast.AST) -> None:
  vars(node)[name].pop(place)


def _is_text(statement: ast.stmt) -> bool:
  """Whether a statement is a text that stands alone, such as a docstring."""
  return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _conditions(node: ast.If | ast.While | ast.IfExp) -> Edits:
  yield "condition", _negate


def _negate(node: ast.If | ast.While | ast.IfExp) -> None:
  node.test = _negated(node.test)


def _negated(test: ast.expr) -> ast.expr:
  if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
    return test.operand
  return ast.UnaryOp(ast.Not(), test)


def _returns(node: ast.FunctionDef) -> Edits:
  """What its `return` statements give: another of its variables, or the opposite."""
  names = {arg.arg for arg in node.args.args}
  names |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
  for place, inner in enumerate(ast.walk(node)):
    if not isinstance(inner, ast.Return) or inner.value is None:
      continue
    for name in sorted(names):
      yield "return", functools.partial(_return, place, functools.partial(_variable, name))
    if isinstance(inner.value, (ast.Compare, ast.BoolOp)) or _is_truth(inner.value):
      yield "return", functools.partial(_return, place, _negated)


def _is_truth(value: ast.expr) -> bool:
  return isinstance(value, ast.Constant) and isinstance(value.value, bool)


def _variable(name: str, _: ast.expr) -> ast.expr:
  return ast.Name(name, ast.Load())


def _return(place: int, other: Callable[[ast.expr], ast.expr], function: ast.AST) -> None:
  for i, node in enumerate(ast.walk(function)):
    if i == place and isinstance(node, ast.Return) and node.value is not None:
      node.value = other(node.value)


_MAKERS: tuple[tuple[type | tuple[type, ...], Callable[..., Edits]], ...] = (
  (ast.Compare, _comparisons),
  ((ast.BinOp, ast.AugAssign), _arithmetic),
  (ast.BoolOp, _boolean),
  (ast.Constant, _constants),
  (ast.Call, _arguments),
  (ast.AST, _statements),
  ((ast.If, ast.While, ast.IfExp), _conditions),
  (ast.FunctionDef, _returns),
)

"""Names and modules that tests of functions expect of the program, read off their text first."""

import ast
import builtins
import symtable
import sys
from collections.abc import Iterator


def left_to_the_program(source: str, known: bool) -> tuple[list[str], list[str]]:
  """(names that the program is to define, modules of the standard library that it is counted on to import).

  `known` says whether the function under test is known by name. Raises SyntaxError and ValueError, as
  `compile` does.
  """
  free = free_names(source)
  modules = _unimported_modules(source, free)
  names = free - modules
  if not names and not known:
    names = _builtin_targets(source)
  return sorted(names), sorted(modules)


def free_names(source: str) -> set[str]:
  """Names that a program reads as globals and nowhere binds, builtins apart."""
  top = symtable.symtable(source, "<tests>", "exec")
  bound = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
  read = {
    symbol.get_name()
    for table in _tables(top)
    for symbol in table.get_symbols()
    if symbol.is_referenced() and (table is top or symbol.is_global())
  }
  return read - bound - set(vars(builtins))


def _unimported_modules(source: str, names: set[str]) -> set[str]:
  """Those of `names` that tests use as modules of the standard library without importing them."""
  tree = ast.parse(source)
  bases = [node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
  dotted = {base for base in bases if isinstance(base, ast.Name)}
  bare = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node not in dotted}
  return (names & set(sys.stdlib_module_names) & {base.id for base in dotted}) - bare


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
  yield table
  for child in table.get_children():
    yield from _tables(child)


def _builtin_targets(source: str) -> set[str]:
  """The builtin's name by which tests that name nothing else call a function: `assert sum(10, 15) == 6`.

  It is what every assertion calls first; no name where they differ.
  """
  tests = [node.test for node in ast.parse(source).body if isinstance(node, ast.Assert)]
  called = {_first_called(test) for test in tests}
  return {name for name in called if name is not None} if len(called) == 1 else set()


def _first_called(test: ast.expr) -> str | None:
  while not isinstance(test, ast.Call):
    if isinstance(test, ast.Compare):
      test = test.left
    elif isinstance(test, ast.UnaryOp):
      test = test.operand
    else:
      return None
  return test.func.id if isinstance(test.func, ast.Name) else None

"""Python's plain values as JSON, and back: tuples, sets, fractions and dicts of any keys, which JSON does not have.

Imports the standard library alone: it serves a process that has to start fast.
"""

import json
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any


def plain(value: Any) -> Any:
  """A value as JSON that `from_plain` gives back: what JSON has not is an object of one key, its type.

  A set is in the order of its items' JSON, so that equal sets are equal text; scalars of numpy become Python's. Raises
  TypeError naming the type of what is none of these.
  """
  if isinstance(value, str):
    return str.__str__(value)
  if value is None or type(value) in (bool, int, float):
    return value
  if type(value) is list:
    return [plain(item) for item in value]
  if type(value) in _PARTS:
    return {type(value).__name__: _PARTS[type(value)](value)}
  if isinstance(value, Mapping):
    return {"dict": [[plain(key), plain(item)] for key, item in value.items()]}
  if hasattr(value, "dtype") and hasattr(
    value, "item"
  ):  # a scalar of numpy, which need not be imported for this
    return plain(value.item())
  raise TypeError(f"it holds a {type(value).__name__}")


def from_plain(value: Any) -> Any:
  """What `plain` was given."""
  if isinstance(value, list):
    return [from_plain(item) for item in value]
  if not isinstance(value, dict):
    return value
  ((kind, parts),) = value.items()
  return _MAKE[kind](from_plain(parts))


def _in_order(value: set | frozenset) -> list[Any]:
  return sorted(map(plain, value), key=json.dumps)


_PARTS: dict[type, Callable[[Any], list[Any]]] = {
  tuple: lambda value: [plain(item) for item in value],
  set: _in_order,
  frozenset: _in_order,
  Fraction: lambda value: [value.numerator, value.denominator],
}
_MAKE: dict[str, Callable[[list[Any]], Any]] = {
  "tuple": tuple,
  "set": set,
  "frozenset": frozenset,
  "Fraction": lambda parts: Fraction(*parts),
  "dict": dict,
}

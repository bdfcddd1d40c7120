"""How values of the standard library cross, and names of operations at the other end.

A shape is a type, the parts that make one of it, and how: a Fraction crosses as its two integers. Values
cross by exact type; what derives from one may hold more, and stays where it is (`remote`).
"""

import array
import collections
import datetime
import fractions
import itertools
import re
import types
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, NamedTuple


class Shape(NamedTuple):
  """How one type crosses."""

  letter: str  # that says so
  parts: Callable[[Any], Iterable[Any]]  # raises ValueError where a value does not cross
  made: Callable[[list[Any]], Any]  # raises anything where the parts make none
  passed: bool  # whether the tests may pass one on: as a copy, so that it must be none that can be changed


def _zoned(value: Any) -> list[str]:
  """A date and time, or a time, as text: without a zone, or with a fixed one."""
  if value.tzinfo is not None and type(value.tzinfo) is not datetime.timezone:
    raise ValueError("a zone with rules")
  return [value.isoformat()]


def _class_name(value: type) -> list[str]:
  if CLASSES.get(value.__name__) is not value:
    raise ValueError("a class of its own")
  return [value.__name__]


def _flat(items: Iterable[tuple[Any, Any]]) -> list[Any]:
  return [part for item in items for part in item]


def _pairs(parts: list[Any]) -> Iterable[tuple[Any, Any]]:
  return zip(parts[::2], parts[1::2], strict=True)


def _factory(value: collections.defaultdict) -> list[Any]:
  made = value.default_factory
  if made is not None and not isinstance(made, type):
    raise ValueError("a factory of its own")
  return [None] if made is None else _class_name(made)


_SCALARS = (bool, int, float, complex, str, bytes, bytearray, range, object)
_CONTAINERS = (list, tuple, dict, set, frozenset)
CLASSES: dict[str, type] = {kind.__name__: kind for kind in (*_SCALARS, *_CONTAINERS)}
CLASSES["NoneType"] = type(None)
_SINGLE: dict[str, Any] = {"Ellipsis": ..., "NotImplemented": NotImplemented}

SHAPES: dict[type, Shape] = {
  range: Shape("range", lambda v: (v.start, v.stop, v.step), lambda parts: range(*parts), True),
  Decimal: Shape("Decimal", lambda v: [str(v)], lambda parts: Decimal(*parts), True),
  fractions.Fraction: Shape(
    "Fraction", lambda v: (v.numerator, v.denominator), lambda parts: fractions.Fraction(*parts), True
  ),
  datetime.datetime: Shape("datetime", _zoned, lambda parts: datetime.datetime.fromisoformat(*parts), True),
  datetime.time: Shape("time", _zoned, lambda parts: datetime.time.fromisoformat(*parts), True),
  datetime.date: Shape("date", lambda v: (v.year, v.month, v.day), lambda parts: datetime.date(*parts), True),
  datetime.timedelta: Shape(
    "timedelta", lambda v: (v.days, v.seconds, v.microseconds), lambda parts: datetime.timedelta(*parts), True
  ),
  type(...): Shape("single", lambda v: [repr(v)], lambda parts: _SINGLE[parts[0]], True),
  type(NotImplemented): Shape("single", lambda v: [repr(v)], lambda parts: _SINGLE[parts[0]], True),
  type: Shape("class", _class_name, lambda parts: CLASSES[parts[0]], True),
  type({}.keys()): Shape("keys", list, lambda parts: dict.fromkeys(parts).keys(), True),
  type({}.values()): Shape("values", list, lambda parts: dict(enumerate(parts)).values(), True),
  type({}.items()): Shape("items", _flat, lambda parts: dict(_pairs(parts)).items(), True),
  bytearray: Shape("bytearray", lambda v: [bytes(v)], lambda parts: bytearray(b"".join(parts)), False),
  memoryview: Shape("memoryview", lambda v: [bytes(v)], lambda parts: memoryview(b"".join(parts)), False),
  array.array: Shape(
    "array", lambda v: [v.typecode, *v], lambda parts: array.array(parts[0], parts[1:]), False
  ),
  collections.deque: Shape(
    "deque", lambda v: [v.maxlen, *v], lambda parts: collections.deque(parts[1:], parts[0]), False
  ),
  collections.Counter: Shape(
    "Counter", lambda v: _flat(v.items()), lambda parts: collections.Counter(dict(_pairs(parts))), False
  ),
  collections.OrderedDict: Shape(
    "OrderedDict", lambda v: _flat(v.items()), lambda parts: collections.OrderedDict(_pairs(parts)), False
  ),
  collections.defaultdict: Shape(
    "defaultdict",
    lambda v: [*_factory(v), *_flat(v.items())],
    lambda parts: collections.defaultdict(parts[0] and CLASSES[parts[0]], _pairs(parts[1:])),
    False,
  ),
}
MADE: dict[str, Callable[[list[Any]], Any]] = {shape.letter: shape.made for shape in SHAPES.values()}

# Classes by which `isinstance` may know what stays with the program.
_KINDS: dict[str, type] = {
  f"{kind.__module__}.{kind.__name__}": kind
  for kind in (
    *(types.GeneratorType, types.CoroutineType),
    *(types.FunctionType, types.MethodType, types.BuiltinFunctionType),
    *(map, filter, zip, enumerate, reversed, re.Match, re.Pattern),
    *map(type, map(iter, ([], (), "", range(0), {}, set()))),
    *(kind for kind in vars(itertools).values() if isinstance(kind, type)),
    *(list, dict, set),
  )
}
COROUTINE = f"{types.CoroutineType.__module__}.{types.CoroutineType.__name__}"


def kind_name(value: Any) -> str:
  """The nearest class of a value that has a place in `kind_of`, by name; "" where none has."""
  names = (f"{kind.__module__}.{kind.__name__}" for kind in type(value).__mro__ if kind in _KNOWN)
  return next(names, "")


def kind_of(name: str) -> type | None:
  """The class of a name that `kind_name` gives."""
  return _KINDS.get(name)


_KNOWN = frozenset(_KINDS.values())

# Operators that are applied at the other end, by their names in `operator`.
UNARY = ("abs", "inv", "neg", "pos")
BINARY = tuple("add and_ floordiv lshift matmul mod mul or_ pow rshift sub truediv xor".split())

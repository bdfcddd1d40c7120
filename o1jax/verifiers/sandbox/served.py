"""A loaded program in its process: answers calls, and keeps objects that the tester has by number.

    {"id", "op", "on", "args", "kwargs", "heap"} -> {"id", "heap", "value" | "raise" | "uncrossable"}

`on` is the number of a kept object, a global's name (or `Class.method`), or null for the program's last
function.
"""

import builtins
import dataclasses
import operator
import types
from collections.abc import Callable
from typing import Any

from o1jax.verifiers.sandbox.literals import COPIES, HeapDecoder, HeapEncoder, Uncrossable, derived, unchanged
from o1jax.verifiers.sandbox.shapes import BINARY, UNARY, kind_name

MODULE = "solution"  # the program's __name__, where it is no script
# Exceptions that are reported by their next base.
_BY_BASE = ("AssertionError", "BaseExceptionGroup", "ExceptionGroup")
_MAX_TEXT = 300  # characters of an exception's text


class Served:
  """A loaded program, and those of its objects that the tester holds by number."""

  def __init__(self, namespace: dict[str, Any], solution: str | None):
    self._namespace = namespace
    self._solution = solution
    self._kept: list[Any] = []
    self._places: dict[int, int] = {}
    self._ahead: dict[int, Exception] = {}  # by an iterator's id, what it raised behind fetched values

  def answer(self, call: dict[str, Any]) -> dict[str, Any]:
    """The reply to one call: what came of it, and the call's containers as they are now."""
    decoder = HeapDecoder(call["heap"], far=self._resolve)
    arguments = decoder.values(call["args"])
    named = dict(zip(call["kwargs"], decoder.values(call["kwargs"].values())))
    do = self._fetch if call["op"] == "next" else _DO[call["op"]]
    try:
      value = do(self._resolve(call["on"]), *arguments, **named)
    except Exception as error:
      outcome = describe_error(error)
      value = None
    else:
      outcome = {}
    try:
      encoder = HeapEncoder(derived, decoder.objects, call["heap"], far=self._kept_cell)
      if not outcome:
        outcome = {"value": encoder.cell(value)}
      return {"id": call["id"], "heap": encoder.heap, **outcome}
    except (Uncrossable, RecursionError) as error:
      return {"id": call["id"], "heap": unchanged(call["heap"]), "uncrossable": str(error)}

  def _kept_cell(self, value: Any) -> list[Any]:
    place = self._places.get(id(value))
    if place is None:
      place = self._places[id(value)] = len(self._kept)
      self._kept.append(value)
    return [place, kind_name(value)]

  def _resolve(self, address: Any) -> Any:
    """The object at an address: a kept one, a global, or the last function that the program defines."""
    if type(address) is int:
      return self._kept[address]
    if address is None:
      return _last_function(self._namespace)
    return _looked_up(self._namespace, address, self._solution)

  def _fetch(self, iterator: Any, count: int) -> list[Any]:
    """The next values of an iterator, `count` at most, and whether it has ended."""
    values: list[Any] = []
    if (raised := self._ahead.pop(id(iterator), None)) is not None:
      raise raised
    try:
      while len(values) < count:
        values.append(next(iterator))
    except StopIteration:
      return [values, True]
    except Exception as error:
      if not values:
        raise
      self._ahead[id(iterator)] = error
    return [values, False]


def _looked_up(namespace: dict[str, Any], name: str, solution: str | None) -> Any:
  """A global, or a method of a new object; of the class `solution`, where there is no such global."""
  owner, dot, method = name.rpartition(".")
  if dot:
    kind = namespace.get(owner.removesuffix("()"))
    if not isinstance(kind, type):
      raise NameError(f"class {owner!r} is not defined")
    return getattr(kind(), method)
  if name in namespace:
    return namespace[name]
  if solution is not None and hasattr(namespace.get(solution), name):
    return getattr(namespace[solution](), name)
  raise NameError(f"name {name!r} is not defined")


def _last_function(namespace: dict[str, Any]) -> Any:
  for value in reversed(namespace.values()):
    if isinstance(value, types.FunctionType) and value.__module__ == MODULE:
      return value
  raise NameError("no function is defined")


def _plain(value: Any) -> list[Any]:
  """How a value is compared: [how, with what].

  same: by identity; value: as the literal that it derives from; record: as a dataclass, by its class and
  fields; own: by a method of its own, which is not called.
  """
  kind = type(value)
  try:
    base = derived(kind)
  except Uncrossable:
    base = None
  if base is not None:
    return ["value", COPIES[base](value)]
  if kind.__eq__ is object.__eq__:
    return ["same", None]
  if dataclasses.is_dataclass(kind) and _is_generated(kind.__eq__):
    fields = [getattr(value, field.name) for field in dataclasses.fields(kind) if field.compare]
    return ["record", [kind, fields]]
  return ["own", None]


def _is_generated(method: Any) -> bool:
  """Whether `dataclass` has written a method."""
  return hasattr(method, "__code__") and method.__code__.co_filename == "<string>"


def _reflected(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
  return lambda right, left: operation(left, right)


def _run_coroutine(value: Any) -> Any:
  import asyncio  # takes a while to load, and hardly a program needs it

  return asyncio.run(value)


# What the tester may ask of an object; kept from before the program runs, which may replace builtins.
_DO: dict[str, Callable[..., Any]] = {
  **{
    function.__name__: function
    for function in (bool, complex, float, format, int, iter, len, repr, round, str)
  },
  **{function.__name__: function for function in (abs, delattr, getattr, setattr)},
  **{name: getattr(operator, name) for name in ("delitem", "getitem", "index", "setitem", *UNARY, *BINARY)},
  **{f"r{name}": _reflected(getattr(operator, name)) for name in BINARY},
  "call": lambda function, *args, **kwargs: function(*args, **kwargs),
  "isinstance": lambda kind, value: isinstance(value, kind),
  "plain": _plain,
  "await": _run_coroutine,
}


def describe_error(error: Exception) -> dict[str, Any]:
  """An exception as it is reported to the tester: its nearest builtin class, and its text."""
  names = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"]
  name = next(name for name in names if name not in _BY_BASE and hasattr(builtins, name))
  try:
    text = str(error)[:_MAX_TEXT]
  except Exception:
    text = ""
  return {"raise": name, "text": text}

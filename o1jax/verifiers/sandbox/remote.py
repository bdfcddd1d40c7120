"""The tests' stand-in for an object that stays with the program, in whose process its operations run.

Truth, length, iteration, items, attributes, calls, text and arithmetic are put to it, and what comes back is
as any answer: a value, or another such object. Equality is decided here, by what the object is made of, as
the program says (`served`): an object that would equal everything gains nothing. Where its class compares by
a method of its own, for order, and for all else that cannot be known here, the item ends with `policy`.
"""

import functools
from collections.abc import Iterator
from typing import Any, Protocol

from o1jax.verifiers.sandbox.shapes import BINARY, UNARY, kind_of

_ALONE = 4  # values of an iterator that are fetched one by one, since the tests may do without the next
_AT_MOST = 64  # values that are fetched at once


class Answering(Protocol):
  """The program, as far as its objects need it."""

  # By an iterator's address: values to come in reverse, and fetches so far.
  ahead: dict[Any, tuple[list[Any], int]]

  def ask(self, op: str, on: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
    """The program's answer. Raises what the program raises."""
    ...

  def end(self, error: str) -> BaseException:
    """Ends the program; what it gives is to be raised."""
    ...


class Remote:
  """One such object. `_far` is (program, its number there or a global's name, its class's name)."""

  __slots__ = ("_far",)

  def __init__(self, program: Answering, address: Any, kind: str = ""):
    object.__setattr__(self, "_far", (program, address, kind))

  def _ask(self, op: str, *args: Any) -> Any:
    program, address, _ = self._far
    return program.ask(op, address, args)

  def _typed(self, kind: type, op: str, *args: Any) -> Any:
    value = self._ask(op, *args)
    if type(value) is not kind:
      raise self._far[0].end("crashed")
    return value

  def _unknown(self, *args: Any, **kwargs: Any) -> Any:
    raise self._far[0].end("policy")

  def __getattr__(self, name: str) -> Any:
    program, address, _ = self._far
    if program.ahead.get(address, ([], 0))[0]:  # it is further than the tests know
      raise program.end("policy")
    return self._ask("getattr", name)

  def __setattr__(self, name: str, value: Any) -> None:
    self._ask("setattr", name, value)

  def __delattr__(self, name: str) -> None:
    self._ask("delattr", name)

  @property  # type: ignore[misc]
  def __class__(self) -> Any:
    return kind_of(self._far[2]) or self._unknown()

  def __instancecheck__(self, value: Any) -> bool:
    return self._typed(bool, "isinstance", value)

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    program, address, _ = self._far
    return program.ask("call", address, args, kwargs)

  def __bool__(self) -> bool:
    return self._typed(bool, "bool")

  def __len__(self) -> int:
    return self._typed(int, "len")

  def __str__(self) -> str:
    return self._typed(str, "str")

  def __repr__(self) -> str:
    return self._typed(str, "repr")

  def __format__(self, how: str) -> str:
    return self._typed(str, "format", how)

  def __int__(self) -> int:
    return self._typed(int, "int")

  def __index__(self) -> int:
    return self._typed(int, "index")

  def __float__(self) -> float:
    return self._typed(float, "float")

  def __complex__(self) -> complex:
    return self._typed(complex, "complex")

  def __round__(self, *digits: int) -> Any:
    return self._ask("round", *digits)

  def __getitem__(self, key: Any) -> Any:
    return self._ask("getitem", key)

  def __setitem__(self, key: Any, value: Any) -> None:
    self._ask("setitem", key, value)

  def __delitem__(self, key: Any) -> None:
    self._ask("delitem", key)

  def __iter__(self) -> Iterator[Any]:
    return self._ask("iter")

  def __next__(self) -> Any:
    program, address, _ = self._far
    values, fetches = program.ahead.get(address, ([], 0))
    if not values:
      count = min(_AT_MOST, 1 << max(0, fetches - _ALONE))
      fetched, ended = self._fetched(count)
      if not fetched and ended:
        raise StopIteration
      values[:] = fetched[::-1]
      program.ahead[address] = (values, fetches + 1)
    return values.pop()

  def _fetched(self, count: int) -> tuple[list[Any], bool]:
    reply = self._ask("next", count)
    if type(reply) is not list or len(reply) != 2 or type(reply[0]) is not list or type(reply[1]) is not bool:
      raise self._far[0].end("crashed")
    if len(reply[0]) > count or not reply[0] and not reply[1]:
      raise self._far[0].end("crashed")
    return reply[0], reply[1]

  def __eq__(self, other: Any) -> Any:
    if self is other:
      return True
    how, what = _plain(self)
    if how == "value":
      return what == other
    if type(other) is not Remote:
      return NotImplemented if how == "same" else False
    its_how, its_what = _plain(other)
    if how == its_how == "record":
      return what[0] is its_what[0] and what[1] == its_what[1]
    return what == its_what if its_how == "value" else False

  def __hash__(self) -> int:
    how, what = _plain(self)
    return hash(what) if how == "value" else hash(self._far[1]) if how == "same" else self._unknown()

  __lt__ = __le__ = __gt__ = __ge__ = _unknown
  __enter__ = __aenter__ = __aiter__ = __await__ = __reduce_ex__ = __divmod__ = __rdivmod__ = _unknown


def _plain(value: Remote) -> tuple[str, Any]:
  """How a program's object is compared, and with what (see `served`)."""
  reply = value._ask("plain")
  if type(reply) is not list or len(reply) != 2 or reply[0] not in ("same", "value", "record", "own"):
    raise value._far[0].end("crashed")
  how, what = reply
  if how == "record" and (type(what) is not list or len(what) != 2 or type(what[0]) is not Remote):
    raise value._far[0].end("crashed")
  if how == "own" or how == "value" and type(what) is Remote:
    raise value._far[0].end("policy")
  return how, what


for _name in (*UNARY, *BINARY, *(f"r{_name}" for _name in BINARY)):
  _method = "__invert__" if _name == "inv" else f"__{_name.rstrip('_')}__"
  setattr(Remote, _method, functools.partialmethod(Remote._ask, _name))


class _Carried:
  """A literal of a class of the program's: its value here, its further attributes there."""

  _far: tuple[Any, ...]

  def __getattr__(self, name: str) -> Any:
    return getattr(Remote(*self._far), name)

  def __repr__(self) -> str:
    return repr(Remote(*self._far))

  def __str__(self) -> str:
    return str(Remote(*self._far))

  def __format__(self, how: str) -> str:
    return format(Remote(*self._far), how)


class _Text(_Carried, str):
  __str__, __format__ = str.__str__, str.__format__  # type: ignore[assignment]


_CARRIED: dict[type, type] = {
  str: _Text,
  **{
    base: type(base.__name__, (_Carried, base), {}) for base in (int, float, complex, bytes, tuple, frozenset)
  },
}


def carried(value: Any, far: Remote) -> Any:
  """A literal that stands for the program's object `far`. Raises ValueError where it is of no such type."""
  if type(value) not in _CARRIED:
    raise ValueError("no literal that may stand for an object")
  kind = _CARRIED[type(value)]
  made: Any = type(value).__new__(kind, value)
  made.__dict__["_far"] = far._far
  return made


async def awaited(far: Remote) -> Any:
  """A coroutine of the program's, which runs there once it is awaited here."""
  return far._ask("await")


def address_of(value: Any) -> Any:
  """[address] of what stands for an object of the program's, None of anything else."""
  if type(value) is Remote or isinstance(type(value), type) and issubclass(type(value), _Carried):
    return [value._far[1]]
  return None

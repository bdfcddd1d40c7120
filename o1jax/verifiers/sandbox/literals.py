"""Literals as JSON: what crosses between the tester and the candidate's process, by exact type.

    values -> HeapEncoder -> cells and a heap (plain JSON) -> HeapDecoder -> the same values

None, bool, int, float, complex, str, bytes, list, tuple, dict, set and frozenset, and the types in `shapes`.
A cell is a JSON scalar, or a list that says what no scalar can: [n] points into the heap, ["i", hex] is a
long int, ["b", hex] bytes, ["c", re, im] a complex, ["u", hex] a str with lone surrogates, ["r", address] an
object that stays with the program, with its class's name where it comes from there, and ["v", address, name,
cell] one with the literal that it derives from. The heap holds containers and shapes as [kind, [cell, ...]],
so that one object in two places stays one object, a list may hold itself, and no reader recurses, however
deep values nest.

Whoever answers a call sends the heap it was called with back, with what has changed in it, in front of the
containers of its answer. So the caller's lists, dicts and sets are updated in place, also where one holds
another.

What is read is never evaluated, and each deviation from the format is a ValueError.
"""

import collections
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from o1jax.verifiers.sandbox.shapes import MADE, SHAPES, Shape

MAX_DEPTH = 200  # containers within one another
_SMALL = 1 << 53  # ints below travel as JSON numbers
_KEPT = "k"  # a container of the call that has not changed: the caller has it


class Uncrossable(ValueError):
  """A value that is no literal, or nests too deep; the text says what it is."""


class HeapEncoder:
  """Turns values into cells, and their containers into entries of `heap`.

  `base` says as which literal type an object of another type crosses; `far` gives the address of one that
  crosses as none, as the rest of its cell, or raises Uncrossable. `HeapEncoder(base, objects, heap)` answers
  a call: its heap begins with the call's containers, decoded from `heap`.
  """

  def __init__(
    self,
    base: Callable[[type], type],
    objects: Sequence[Any] = (),
    heap: Sequence[Any] = (),
    far: Callable[[Any], list[Any]] | None = None,
  ):
    self._base = base
    self._far = far
    self.objects = list(objects)  # what each entry was made of; holds it, so that its id stays its own
    self.heap = unchanged(heap)
    self._place = {id(value): place for place, value in enumerate(objects)}
    for place, (value, before) in enumerate(zip(objects, heap, strict=True)):
      if type(value) in _CHANGEABLE:
        now = self._entry(value, type(value), 0)
        if json.dumps(now) != json.dumps(before):
          self.heap[place] = now

  def cell(self, value: Any, depth: int = 0) -> Any:
    """The cell of one value, which stands in `depth` containers. Raises Uncrossable."""
    kind = type(value)
    if kind in _SCALARS:
      return _SCALARS[kind](value)
    if kind in _LETTERS:
      return [self._container(value, kind, depth)]
    shape = SHAPES.get(kind)
    if shape is not None and (shape.passed or self._base is derived):
      try:
        return [self._shaped(value, shape, list(shape.parts(value)), depth)]
      except Uncrossable:
        raise
      except ValueError:
        pass
    return self._other(value, kind, depth)

  def _other(self, value: Any, kind: type, depth: int) -> Any:
    """The cell of what is neither a literal nor of a shape."""
    try:
      base = self._base(kind)
    except Uncrossable:
      if self._far is None:
        raise
      return ["r", *self._far(value)]
    far: Any = self._far
    own = far is not None and _has_own(value, kind, base)
    if own and base in _CHANGEABLE:
      return ["r", *far(value)]
    cell = _SCALARS[base](_PLAIN[base](value)) if base in _PLAIN else [self._container(value, base, depth)]
    return ["v", *far(value), cell] if own else cell

  def _shaped(self, value: Any, shape: Shape, parts: list[Any], depth: int) -> int:
    if id(value) in self._place:
      return self._place[id(value)]
    if depth >= MAX_DEPTH:
      raise Uncrossable(f"containers more than {MAX_DEPTH} deep")
    self._keep(value, [shape.letter, [self.cell(part, depth + 1) for part in parts]])
    return len(self.heap) - 1

  def _container(self, value: Any, base: type, depth: int) -> int:
    """Its place in the heap: before its content where that may point back to it, else behind."""
    if id(value) in self._place:
      return self._place[id(value)]
    if depth >= MAX_DEPTH:
      raise Uncrossable(f"containers more than {MAX_DEPTH} deep")
    if base not in _CHANGEABLE:
      entry = self._entry(value, base, depth)
      self._keep(value, entry)
      return len(self.heap) - 1
    place = len(self.heap)
    self._keep(value, None)
    self.heap[place] = self._entry(value, base, depth)
    return place

  def _keep(self, value: Any, entry: Any) -> None:
    self._place[id(value)] = len(self.heap)
    self.objects.append(value)
    self.heap.append(entry)

  def _entry(self, value: Any, base: type, depth: int) -> list[Any]:
    return [_LETTERS[base], [self.cell(part, depth + 1) for part in _PARTS[base](value)]]


class HeapDecoder:
  """Reads a heap. `known` are the objects of the call that it answers, which are updated in place.

  `far(*rest of its cell)` gives what stands for an object that stays, or is one. Raises ValueError where the
  heap is not of this format.
  """

  def __init__(self, heap: Any, known: Sequence[Any] = (), far: Callable[..., Any] | None = None):
    self._far = far
    if type(heap) is not list or len(heap) < len(known):
      raise ValueError("no heap")
    self.objects: list[Any] = []
    for place, entry in enumerate(heap):
      letter, cells = _checked(entry)
      self.objects.append(
        self._same(known[place], letter) if place < len(known) else self._new(letter, cells)
      )
    for container, (letter, cells) in zip(self.objects, heap, strict=True):
      if letter in _FILL:
        _FILL[letter](container, self.values(cells))

  def value(self, cell: Any) -> Any:
    """The value of one cell."""
    if type(cell) is not list:
      return _scalar(cell)
    if len(cell) == 1 and type(cell[0]) is int and 0 <= cell[0] < len(self.objects):
      return self.objects[cell[0]]
    if self._far is not None and 2 <= len(cell) <= 3 and cell[0] == "r":
      return self._far(*cell[1:])
    if self._far is not None and len(cell) == 4 and cell[0] == "v":
      return self._far(*cell[1:3], self.value(cell[3]))
    if len(cell) > 1 and type(cell[0]) is str and cell[0] in _TAGS:
      return _TAGS[cell[0]](cell[1:])
    raise ValueError("no cell")

  def values(self, cells: Iterable[Any]) -> list[Any]:
    """The values of several cells."""
    return [self.value(cell) for cell in cells]

  def _same(self, known: Any, letter: str) -> Any:
    if letter != _KEPT and (type(known) not in _CHANGEABLE or letter != _LETTERS[type(known)]):
      raise ValueError("a container of the call came back as another one")
    return known

  def _new(self, letter: str, cells: list[Any]) -> Any:
    if letter in _EMPTY:
      return _EMPTY[letter]()
    if letter in _WHOLE:
      return _hashed(_WHOLE[letter], self.values(cells))
    if letter in MADE:
      return _made(MADE[letter], self.values(cells))
    raise ValueError("no container")


def unchanged(heap: Sequence[Any]) -> list[Any]:
  """The heap of an answer to a call with `heap`, where nothing of it has changed."""
  return [[_KEPT, []] for _ in heap]


def _checked(entry: Any) -> tuple[str, list[Any]]:
  if type(entry) is not list or len(entry) != 2 or type(entry[0]) is not str or type(entry[1]) is not list:
    raise ValueError("no entry of a heap")
  return entry[0], entry[1]


def _scalar(cell: Any) -> Any:
  if cell is None or type(cell) in (bool, int, float, str):
    return cell
  raise ValueError("no cell")


def _hashed(make: Callable[[Any], Any], parts: Any) -> Any:
  """`make(parts)`, where a part that cannot be hashed is a deviation from the format."""
  try:
    return make(parts)
  except TypeError as error:
    raise ValueError(str(error)) from None


def _made(make: Callable[[list[Any]], Any], parts: list[Any]) -> Any:
  """What a shape makes of its parts; whatever goes wrong is a deviation from the format."""
  try:
    return make(parts)
  except Exception as error:
    raise ValueError(f"{type(error).__name__}: {error}") from None


def _fill_list(target: list, values: list[Any]) -> None:
  target[:] = values


def _fill_dict(target: dict, values: list[Any]) -> None:
  target.clear()
  _hashed(target.update, zip(values[::2], values[1::2], strict=True))


def _fill_set(target: set, values: list[Any]) -> None:
  target.clear()
  _hashed(target.update, values)


def exact(kind: type) -> type:
  """No literal but those of the exact type cross: what the tests pass on."""
  raise Uncrossable(f"a value of type {kind.__name__}")


def derived(kind: type) -> type:
  """The literal that a class derives from: a Counter crosses as a dict, an IntEnum as an int.

  What programs answer.
  """
  for base in kind.__mro__:
    if base in _LETTERS or base in _PLAIN:
      return base
  raise Uncrossable(f"a value of type {kind.__name__}")


def _has_own(value: Any, kind: type, base: type) -> bool:
  """Whether an object has attributes beyond those of the literal type that it derives from."""
  above = kind.__mro__[: kind.__mro__.index(base)]
  return (
    hasattr(value, "__dict__")
    and bool(value.__dict__)
    or any(not name.startswith("__") for each in above for name in vars(each))
  )


def _items(value: dict) -> Iterable[tuple[Any, Any]]:
  """Items of a dict or a class derived from it; an OrderedDict's order is not that of `dict.items`."""
  ordered = collections.OrderedDict in type(value).__mro__
  return (collections.OrderedDict if ordered else dict).items(value)


def _itself(value: Any) -> Any:
  return value


def _int(value: int) -> Any:
  return value if -_SMALL < value < _SMALL else ["i", hex(value)]


def _str(value: str) -> Any:
  try:
    value.encode()
  except UnicodeEncodeError:
    return ["u", value.encode("utf-8", "surrogatepass").hex()]
  return value


def _read_text(parts: list[Any]) -> str:
  (text,) = parts
  if type(text) is not str:
    raise ValueError("no hexadecimal digits")
  return text


def _read_complex(parts: list[Any]) -> complex:
  real, imaginary = parts
  if type(real) is not float or type(imaginary) is not float:
    raise ValueError("no complex number")
  return complex(real, imaginary)


_SCALARS: dict[type, Callable[[Any], Any]] = {
  type(None): _itself,
  bool: _itself,
  int: _int,
  float: _itself,
  complex: lambda value: ["c", value.real, value.imag],
  str: _str,
  bytes: lambda value: ["b", value.hex()],
}
_PLAIN: dict[type, Callable[[Any], Any]] = {  # a subclass's instance as its base's, whatever it overrides
  int: int.__index__,
  float: float.__float__,
  complex: complex.__complex__,
  str: str.__str__,
  bytes: bytes.__bytes__,
}
COPIES: dict[type, Callable[[Any], Any]] = {  # the literal that an object derives from, whatever it overrides
  **_PLAIN,
  list: list.copy,
  tuple: lambda value: tuple(tuple.__iter__(value)),
  dict: lambda value: dict(_items(value)),
  set: lambda value: set(set.__iter__(value)),
  frozenset: lambda value: frozenset(frozenset.__iter__(value)),
}
_LETTERS: dict[type, str] = {list: "l", tuple: "t", dict: "d", set: "s", frozenset: "f"}
_CHANGEABLE = (list, dict, set)
_PARTS: dict[type, Callable[[Any], Iterable[Any]]] = {
  list: list.__iter__,
  tuple: tuple.__iter__,
  dict: lambda value: [part for item in _items(value) for part in item],
  set: set.__iter__,
  frozenset: frozenset.__iter__,
}
_EMPTY: dict[str, Callable[[], Any]] = {"l": list, "d": dict, "s": set}
_FILL: dict[str, Callable[[Any, list[Any]], None]] = {"l": _fill_list, "d": _fill_dict, "s": _fill_set}
_WHOLE: dict[str, Callable[[Any], Any]] = {"t": tuple, "f": frozenset}
_TAGS: dict[str, Callable[[list[Any]], Any]] = {
  "i": lambda parts: int(_read_text(parts), 16),
  "b": lambda parts: bytes.fromhex(_read_text(parts)),
  "u": lambda parts: bytes.fromhex(_read_text(parts)).decode("utf-8", "surrogatepass"),
  "c": _read_complex,
}

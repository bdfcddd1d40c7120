"""A bounded cache of verdicts by the content of problem and completion, least recently used out first."""

import collections
import hashlib
import io
import pickle
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


def canonical(value: Any) -> bytes:
  """The pickle of plain values, the same bytes for equal content whichever objects hold it.

  Types count: 1, 1.0 and True differ, a list is no tuple, and the order of a dict's keys is part of it.
  Raises what pickle raises for a value that cannot travel, and RecursionError or ValueError for one that
  holds itself.
  """
  buffer = io.BytesIO()
  pickler = pickle.Pickler(buffer, protocol=5)
  pickler.fast = True  # without the memo, by which one object in two places would differ from two equal ones
  pickler.dump(value)
  return buffer.getvalue()


def content_key(*parts: bytes) -> bytes:
  """16 bytes that stand for `parts`, with their boundaries."""
  digest = hashlib.blake2b(digest_size=16)
  for part in parts:
    digest.update(len(part).to_bytes(8, "little"))
    digest.update(part)
  return digest.digest()


class BoundedCache(Generic[Value]):
  """At most `size` values by key. The caller keeps threads apart."""

  def __init__(self, size: int):
    self._size = size
    self._values: collections.OrderedDict[bytes, Value] = collections.OrderedDict()

  def __len__(self) -> int:
    return len(self._values)

  def get(self, key: bytes) -> Value | None:
    """The value, which becomes the most recently used one; None where there is none."""
    value = self._values.get(key)
    if value is not None:
      self._values.move_to_end(key)
    return value

  def put(self, key: bytes, value: Value) -> None:
    """Keeps a value, and forgets the least recently used one beyond the bound."""
    self._values[key] = value
    self._values.move_to_end(key)
    if len(self._values) > self._size:
      self._values.popitem(last=False)

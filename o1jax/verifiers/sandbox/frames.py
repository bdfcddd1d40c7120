"""Messages between the sandbox's processes: four bytes of length, then one JSON object.

Over file descriptors.
"""

import json
import os
import struct
from typing import Any

_HEAD = struct.Struct(">I")
_CHUNK = 1 << 20  # bytes read at once
UNLIMITED = 2**32 - 1


def write(descriptor: int, message: dict[str, Any], limit: int = UNLIMITED) -> None:
  """Writes one message. Raises ValueError, and writes nothing, where it is longer than `limit` bytes."""
  payload = json.dumps(message, separators=(",", ":")).encode()
  if len(payload) > limit:
    raise ValueError(f"a message of {len(payload)} bytes, {limit} at most")
  rest = memoryview(_HEAD.pack(len(payload)) + payload)
  while rest:
    rest = rest[os.write(descriptor, rest) :]


def read(descriptor: int, limit: int = UNLIMITED) -> dict[str, Any] | None:
  """The next message; None where the stream ends. Raises ValueError where it is no message, or too long."""
  head = _read_exactly(descriptor, _HEAD.size)
  if head is None:
    return None
  (size,) = _HEAD.unpack(head)
  if size > limit:
    raise ValueError(f"a message of {size} bytes, {limit} at most")
  payload = _read_exactly(descriptor, size)
  if payload is None:
    return None
  try:
    message = json.loads(payload)
  except RecursionError:
    raise ValueError("a message that nests too deep") from None
  if type(message) is not dict:
    raise ValueError("a message that is no object")
  return message


def _read_exactly(descriptor: int, size: int) -> bytes | None:
  parts = []
  while size:
    part = os.read(descriptor, min(size, _CHUNK))
    if not part:
      return None
    parts.append(part)
    size -= len(part)
  return b"".join(parts)

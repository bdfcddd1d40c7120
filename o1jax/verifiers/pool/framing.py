"""Length-prefixed messages over a stream socket: four bytes of length (little endian), then as many bytes.

The pool's end never blocks, so that a worker that is stopped in the midst of a message delays nobody; a
worker's does.
"""

import collections
import socket
import struct

_HEAD = struct.Struct("<I")
MAX_MESSAGE = 2**32 - 1  # bytes
CHUNK = 1 << 18  # bytes read at once


def frame(payload: bytes) -> bytes:
  """A message with its length in front. Raises ValueError beyond MAX_MESSAGE."""
  if len(payload) > MAX_MESSAGE:
    raise ValueError(f"a message of {len(payload)} bytes is beyond {MAX_MESSAGE}")
  return _HEAD.pack(len(payload)) + payload


def read_exactly(sock: socket.socket, size: int) -> bytes | None:
  """`size` bytes; None where the stream ends before them."""
  parts = []
  while size:
    part = sock.recv(min(size, CHUNK))
    if not part:
      return None
    parts.append(part)
    size -= len(part)
  return b"".join(parts)


def read_message(sock: socket.socket) -> bytes | None:
  """The next message of a blocking socket; None at the stream's end."""
  head = read_exactly(sock, _HEAD.size)
  return None if head is None else read_exactly(sock, _HEAD.unpack(head)[0])


class Channel:
  """A non-blocking end of a socket, which buffers unsent bytes and messages that are read in part."""

  def __init__(self, sock: socket.socket):
    sock.setblocking(False)
    self.sock = sock
    self._read = bytearray()
    self._unsent: collections.deque[memoryview] = collections.deque()

  def send(self, payload: bytes) -> None:
    """Takes a message, and writes as much as goes at once; `flush` writes the rest."""
    self._unsent.append(memoryview(frame(payload)))
    self.flush()

  @property
  def unsent(self) -> bool:
    """Whether `flush` has to be called once the socket takes more."""
    return bool(self._unsent)

  def flush(self) -> None:
    """Writes what the socket takes; nothing where the other side is gone, which `receive` reports."""
    try:
      while self._unsent:
        part = self._unsent[0]
        sent = self.sock.send(part)
        if sent == len(part):
          self._unsent.popleft()
        else:
          self._unsent[0] = part[sent:]
    except BlockingIOError:
      return
    except OSError:
      self._unsent.clear()

  def receive(self) -> tuple[list[bytes], bool]:
    """(messages that are complete by now, whether the stream has ended)."""
    ended = False
    try:
      while part := self.sock.recv(CHUNK):
        self._read += part
        if len(part) < CHUNK:
          break
      ended = not part
    except BlockingIOError:
      pass
    except OSError:
      ended = True
    return self._messages(), ended

  def _messages(self) -> list[bytes]:
    messages, start = [], 0
    while len(self._read) - start >= _HEAD.size:
      end = start + _HEAD.size + _HEAD.unpack_from(self._read, start)[0]
      if end > len(self._read):
        break
      messages.append(bytes(self._read[start + _HEAD.size : end]))
      start = end
    del self._read[:start]
    return messages

  def finish(self) -> None:
    """Ends the stream to the other side, which may still write."""
    try:
      self.sock.shutdown(socket.SHUT_WR)
    except OSError:
      pass  # it is gone

  def close(self) -> None:
    """Closes the socket; what was not written is lost."""
    self._unsent.clear()
    self.sock.close()

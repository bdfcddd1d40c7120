"""The input of `o1jax verify`: lines, their checked fields, and batches of them on their way to the pool.

    bytes -> lines -> checked fields -> problem and completion -> batches handed to the pool, within a window

A thread of its own reads, so that a producer that pauses holds back no verdict. It waits while as much is
read and not yet written as the window takes, so that a million lines need no more memory than that. Lines end
with \\n alone, and hold strict JSON: NaN, Infinity and numbers beyond a float's range are none. A byte order
mark may begin the first.
"""

import decimal
import json
import math
import os
import queue
import select
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from o1jax.config import ConfigError
from o1jax.verifiers.base import Problem
from o1jax.verifiers.catalog import CATALOG, TEXT
from o1jax.verifiers.pool import Pending

WINDOW_LINES = 2_048  # read and not yet written, at most
WINDOW_BYTES = 64 << 20  # of them, at most, unless it is one line alone
BATCH = 64  # lines handed to the pool at once
READ = 1 << 16  # bytes read at once
MAX_NESTING = 100  # of a line's JSON: it is pickled and written again, each of which has a limit of its own


class LineError(ValueError):
  """A line that cannot be graded."""


class ParsedLine(NamedTuple):
  """The content of one line."""

  id: Any
  problem: Problem
  completion: str


class Line(NamedTuple):
  """One line of the input, as far as its verdict needs it."""

  number: int  # from 1
  size: int  # bytes
  id: str  # as JSON; "" where the line is malformed
  fault: str | None  # what is wrong with it, None where it is being graded
  place: int  # in its batch


class Batch(NamedTuple):
  """Lines that were handed to the pool together."""

  lines: list[Line]
  pending: Pending


def parse_line(verifier: str, text: bytes, number: int) -> ParsedLine:
  """A line, checked by what its verifier reads. Raises LineError saying what is wrong."""
  value = _parse_json(text.removeprefix(b"\xef\xbb\xbf") if number == 1 else text)
  if text.count(b"[") + text.count(b"{") > MAX_NESTING and _is_deep(value):
    raise LineError("is nested too deep")
  if not isinstance(value, dict):
    raise LineError(f"wants an object, has {_kind(value)}")
  if "id" not in value:
    raise LineError("field 'id' is missing")
  meta = {}
  for name, field in {"completion": TEXT, **CATALOG[verifier].reads}.items():
    if name in value:
      if not field.fits(value[name]):
        raise LineError(f"field {name!r} wants {field.wants}, has {_kind(value[name])}")
      meta[name] = value[name]
    elif field.required:
      raise LineError(f"field {name!r} is missing")
  completion, prompt, answer = (meta.pop(name, "") for name in ("completion", "prompt", "answer"))
  return ParsedLine(value["id"], Problem(str(number), prompt, _digits(answer), verifier, meta), completion)


def _digits(answer: str | int | float) -> str:
  """An answer as text; a number in digits alone, since 1e-05 is no answer and reads as e - 5."""
  return f"{decimal.Decimal(repr(answer)):f}" if isinstance(answer, float) else str(answer)


def _parse_json(text: bytes) -> Any:
  try:
    return json.loads(text.decode(), parse_constant=_refuse, parse_float=_finite)
  except json.JSONDecodeError as error:
    raise LineError(f"is not JSON: {error.msg} at column {error.colno}") from error
  except UnicodeDecodeError as error:
    raise LineError(f"is not UTF-8: byte {error.start + 1} of it") from error
  except RecursionError as error:
    raise LineError("is nested too deep") from error
  except ValueError as error:  # an integer of thousands of digits, too
    raise LineError(f"is not JSON: {error}") from error


def _is_deep(value: Any) -> bool:
  """Whether a value of JSON is nested deeper than MAX_NESTING. Takes no stack."""
  level = [value]
  for _ in range(MAX_NESTING + 1):
    containers = [each for each in level if isinstance(each, dict | list)]
    level = [item for each in containers for item in (each.values() if isinstance(each, dict) else each)]
  return bool(level)


def _refuse(name: str) -> Any:
  raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
  value = float(text)
  return value if math.isfinite(value) else _refuse(text)


_KINDS = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}


def _kind(value: Any) -> str:
  kind = _KINDS.get(type(value), "a number")
  text = json.dumps(value)
  return f"{kind}, {text}" if len(text) <= 40 and value is not None else kind


class Window:
  """What may be read before it is written: `lines` lines of `size` bytes, or one line. For two threads."""

  def __init__(self, lines: int, size: int):
    self._max_lines, self._max_size = lines, size
    self._lines = self._size = 0
    self._open = True
    self._changed = threading.Condition()

  def take(self, size: int) -> bool:
    """Waits until a line of `size` bytes fits, or is alone; False where the window was closed."""
    with self._changed:
      self._changed.wait_for(lambda: not self._open or not self._is_full(size))
      self._lines += 1
      self._size += size
      return self._open

  def full(self, size: int) -> bool:
    """Whether `take` would wait."""
    with self._changed:
      return self._is_full(size)

  def _is_full(self, size: int) -> bool:
    return self._lines > 0 and (self._lines >= self._max_lines or self._size + size > self._max_size)

  def release(self, size: int) -> None:
    """One line of `size` bytes was written."""
    with self._changed:
      self._lines -= 1
      self._size -= size
      self._changed.notify()

  def close(self) -> None:
    """Ends all waiting."""
    with self._changed:
      self._open = False
      self._changed.notify_all()


def read_lines(source: int, stop: int) -> Iterator[list[bytes]]:
  """Lines of a file descriptor without their ends, as they come: each list holds those of one read.

  Ends with the file, or once `stop`, a socket or pipe, has something to read or is closed. Raises ConfigError
  where nothing can be read, as of a folder.
  """
  poll = select.poll()
  poll.register(source, select.POLLIN)
  poll.register(stop, select.POLLIN)
  parts: list[bytes] = []
  while stop not in dict(poll.poll()):
    try:
      chunk = os.read(source, READ)
    except BlockingIOError:
      continue  # another reader of the same pipe was faster
    except OSError as error:
      raise ConfigError(f"standard input: cannot be read: {error.strerror}") from error
    first, *rest = chunk.split(b"\n")
    parts.append(first)
    if rest:
      yield [b"".join(parts), *rest[:-1]]
      parts = [rest[-1]]
    if not chunk:
      if line := b"".join(parts):
        yield [line]
      return


class Reader:
  """A thread that reads lines, hands them to the pool, and queues the batches; None ends the queue.

  An exception of its own goes into the queue in None's place.
  """

  def __init__(self, source: int, submit: Callable[[list[Problem], list[str]], Pending], verifier: str):
    self.batches: queue.SimpleQueue[Batch | BaseException | None] = queue.SimpleQueue()
    self.window = Window(WINDOW_LINES, WINDOW_BYTES)
    self._source, self._submit, self._verifier = source, submit, verifier
    self._stopped, self._stop = os.pipe()
    self._number = 0
    self._thread = threading.Thread(target=self._run, name="o1jax-verify-reader", daemon=True)
    self._thread.start()

  def _run(self) -> None:
    end: BaseException | None = None
    try:
      for lines in read_lines(self._source, self._stopped):
        if not self._take(lines):
          break
    except BaseException as error:
      end = error
    self.batches.put(end)

  def close(self) -> None:
    """Ends the thread, wherever it is."""
    self.window.close()
    os.close(self._stop)
    self._thread.join()
    os.close(self._stopped)

  def _take(self, texts: list[bytes]) -> bool:
    """Queues lines in batches, waiting for the window; False where that was closed."""
    batch: list[bytes] = []
    for text in texts:
      if batch and (len(batch) == BATCH or self.window.full(len(text))):
        self._submit_batch(batch)
        batch = []
      if not self.window.take(len(text)):
        return False
      batch.append(text)
    self._submit_batch(batch)
    return True

  def _submit_batch(self, texts: list[bytes]) -> None:
    lines: list[Line] = []
    problems: list[Problem] = []
    completions: list[str] = []
    for text in texts:
      self._number += 1
      try:
        parsed = parse_line(self._verifier, text, self._number)
      except LineError as error:
        lines.append(Line(self._number, len(text), "", str(error), 0))
        continue
      lines.append(Line(self._number, len(text), json.dumps(parsed.id), None, len(problems)))
      problems.append(parsed.problem)
      completions.append(parsed.completion)
    self.batches.put(Batch(lines, self._submit(problems, completions)))

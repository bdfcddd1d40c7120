"""What `o1jax verify` reads: lines, their checked fields, and batches of them on their way to the pool.

    bytes -> lines -> checked fields -> problem and completion -> batches handed to the pool, within a window

A thread of its own reads, so that a producer that pauses holds back no verdict; it waits where as much is read and not
yet written as the window takes, so that a million lines need no more memory than that. Lines end with \\n alone, and hold strict JSON: NaN, Infinity and numbers
beyond a float's range are none. A byte order mark may begin the first.
"""

import dataclasses
import decimal
import inspect
import json
import math
import os
import queue
import select
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from o1jax.config import ConfigError
from o1jax.verifiers import completion
from o1jax.verifiers.base import Problem
from o1jax.verifiers.completion import Policy
from o1jax.verifiers.pool.pool import Pending

WINDOW_LINES = 2_048  # read and not yet written, at most
WINDOW_BYTES = 64 << 20  # of them, at most, where it is not one line alone
BATCH = 64  # lines handed to the pool at once
READ = 1 << 16  # bytes asked for at once
MAX_NESTING = 100  # of a line's JSON: it is pickled and written again, each of which has a limit of its own
MAX_NUMBER = 10**9  # of countdown: its verifier reads nine digits
OPERATIONS = ("+", "-", "*", "/")  # of countdown


@dataclasses.dataclass(frozen=True)
class VerifyOptions:
  """Grade the completions of a JSONL file: `o1jax verify --verifier gsm8k < in.jsonl > out.jsonl`.

  A line holds `id`, `completion` and what the verifier reads: `answer` (math, gsm8k); `tests`, perhaps `fn_name`,
  `entry_point`, `prompt` (code); `instruction_id_list`, `kwargs`, `prompt` (constraints); `numbers`, `target`, perhaps `operations`
  (countdown); `dataset`, `entry` (gym). Out comes `id`, `reward`, `correct`, `parsed`, `error` and `seconds`: CPU time of
  the worker that graded it, the first time where an equal line came before. Standard error tells at the end how many
  are correct and how many unparsable. Exit code 2 where a line could not be graded.
  """

  verifier: Literal["math", "gsm8k", "code", "constraints", "countdown", "gym"]
  workers: int = 0  # processes; 0: one for each core
  cpu_limit: float | None = None  # seconds of CPU time an item; None: the verifier's own
  policy: Policy = "strict"  # how a completion is read: the table above says what each does
  reading: Literal["strict", "loose"] | None = None  # of constraints; None: strict
  # Of math: how a final answer may be marked, the first that finds one; None: all, in this order.
  extractors: tuple[Literal["boxed", "hashes", "phrase", "expression"], ...] | None = None
  block: Literal["last", "first"] | None = None  # of code: which block is the program; None: last
  allow_unsandboxed_code: bool = False  # of code: run programs even where the kernel cannot contain them
  progress: bool = False  # show a progress bar on standard error even where that is no terminal


ABOUT = f"{inspect.getdoc(VerifyOptions)}\n\n{completion.__doc__}"

# The options that are settings of one verifier, and whose they are; `policy` is one of all.
SETTINGS = {"reading": "constraints", "extractors": "math", "block": "code", "allow_unsandboxed_code": "code"}


class Field(NamedTuple):
  """A field of a line that a verifier reads."""

  wants: str
  fits: Callable[[Any], bool]
  required: bool = True


def _is_int(value: Any, low: int) -> bool:
  return type(value) is int and low <= value < MAX_NUMBER


def _is_list(value: Any, fits: Callable[[Any], bool]) -> bool:
  return isinstance(value, list) and bool(value) and all(map(fits, value))


_is_text = lambda value: isinstance(value, str)
_is_object = lambda value: isinstance(value, dict)
TEXT = Field("a string", _is_text)
ANSWER = Field("a string or a number", lambda value: type(value) in (str, int, float))
NAME = Field("a string or null", lambda value: value is None or _is_text(value), required=False)
FIELDS: Mapping[str, Mapping[str, Field]] = {
  "math": {"answer": ANSWER},
  "gsm8k": {"answer": ANSWER},
  "code": {
    "tests": Field(
      "a string, or a list of strings or objects",
      lambda value: _is_text(value) or _is_list(value, lambda test: _is_text(test) or _is_object(test)),
    ),
    "prompt": TEXT._replace(required=False),
    "entry_point": NAME,
    "fn_name": NAME,
    "test_setup": TEXT._replace(required=False),
  },
  "constraints": {
    "prompt": TEXT,
    "instruction_id_list": Field("a list of strings", lambda value: _is_list(value, _is_text)),
    "kwargs": Field("a list of objects", lambda value: _is_list(value, _is_object)),
  },
  "countdown": {
    "numbers": Field(
      "a list of integers from 0 to 999999999", lambda value: _is_list(value, lambda n: _is_int(n, 0))
    ),
    "target": Field("an integer of at most nine digits", lambda value: _is_int(value, 1 - MAX_NUMBER)),
    "operations": Field(
      "a list of + - * /", lambda value: _is_list(value, lambda sign: sign in OPERATIONS), required=False
    ),
  },
  "gym": {"dataset": TEXT, "entry": Field("an object", _is_object)},
}


class LineError(ValueError):
  """A line that cannot be graded."""


class Line(NamedTuple):
  """One line that has been read."""

  number: int  # from 1
  size: int  # bytes
  id: str  # as JSON; "" where the line is malformed
  fault: str | None  # what is wrong with it, None where it is being graded
  place: int  # in its batch


class Batch(NamedTuple):
  """Lines that were handed to the pool together."""

  lines: list[Line]
  pending: Pending


def parse_line(verifier: str, text: bytes, number: int) -> tuple[Any, Problem, str]:
  """(id, problem, completion) of a line. Raises LineError saying what is wrong."""
  value = _parse_json(text.removeprefix(b"\xef\xbb\xbf") if number == 1 else text)
  if text.count(b"[") + text.count(b"{") > MAX_NESTING and _is_deep(value):
    raise LineError("is nested too deep")
  if not isinstance(value, dict):
    raise LineError(f"wants an object, has {_kind(value)}")
  if "id" not in value:
    raise LineError("field 'id' is missing")
  given = {}
  for name, field in {"completion": TEXT, **FIELDS[verifier]}.items():
    if name in value and not field.fits(value[name]):
      raise LineError(f"field {name!r} wants {field.wants}, has {_kind(value[name])}")
    if name not in value and field.required:
      raise LineError(f"field {name!r} is missing")
    if name in value:
      given[name] = value[name]
  completion, prompt, answer = (given.pop(name, "") for name in ("completion", "prompt", "answer"))
  return value["id"], Problem(str(number), prompt, _digits(answer), verifier, given), completion


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
    groups = [
      each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)
    ]
    level = [item for group in groups for item in group]
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
  """How much may be read before it is written. Two threads use it: one takes, one gives back."""

  def __init__(self, lines: int, size: int):
    self._most = lines, size
    self._lines = self._size = 0
    self._open = True
    self._changed = threading.Condition()

  def take(self, size: int) -> bool:
    """Waits until a line of `size` bytes fits, or is alone; False where the window was closed."""
    with self._changed:
      most_lines, most = self._most
      fits = lambda: self._lines < most_lines and self._size + size <= most or not self._lines
      self._changed.wait_for(lambda: fits() or not self._open)
      self._lines += 1
      self._size += size
      return self._open

  def full(self, size: int) -> bool:
    """Whether `take` would wait."""
    with self._changed:
      most_lines, most = self._most
      return bool(self._lines) and (self._lines >= most_lines or self._size + size > most)

  def give_back(self, lines: int, size: int) -> None:
    """Lines that were written."""
    with self._changed:
      self._lines -= lines
      self._size -= size
      self._changed.notify()

  def close(self) -> None:
    """Ends all waiting."""
    with self._changed:
      self._open = False
      self._changed.notify_all()


def read_lines(source: int, stop: int) -> Iterator[list[bytes]]:
  """Lines of a file descriptor without their ends, as they come: each list holds those of one read.

  Ends with the file, or once `stop`, a socket or pipe, has something to read or is closed. Raises ConfigError where
  nothing can be read, as of a folder.
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
      *whole, last = rest
      yield [b"".join(parts), *whole]
      parts = [last]
    if not chunk:
      if line := b"".join(parts):
        yield [line]
      return


class Reader:
  """A thread that reads lines, hands them to the pool, and queues the batches; None in the queue is the input's end.

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
    held: list[bytes] = []
    for text in texts:
      if held and (len(held) == BATCH or self.window.full(len(text))):
        self._hand_over(held)
        held = []
      if not self.window.take(len(text)):
        return False
      held.append(text)
    self._hand_over(held)
    return True

  def _hand_over(self, texts: list[bytes]) -> None:
    lines: list[Line] = []
    problems: list[Problem] = []
    completions: list[str] = []
    for text in texts:
      self._number += 1
      try:
        name, problem, completion = parse_line(self._verifier, text, self._number)
      except LineError as error:
        lines.append(Line(self._number, len(text), "", str(error), 0))
        continue
      lines.append(Line(self._number, len(text), json.dumps(name), None, len(problems)))
      problems.append(problem)
      completions.append(completion)
    self.batches.put(Batch(lines, self._submit(problems, completions)))

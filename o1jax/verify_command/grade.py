"""`o1jax verify`: reader, pool, writer and signals put together.

    reader's batches, in order -> each line's verdict, once it is there -> written, flushed before any wait

What is written is complete lines, in order, however the command ends; then no worker is left.
"""

import collections
import contextlib
import json
import os
import select
import signal
import sys
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

from o1jax.config import ConfigError, require
from o1jax.verifiers.catalog import CATALOG
from o1jax.verifiers.pool import Pending, Pool, PoolError, cores
from o1jax.verifiers.sandbox import service
from o1jax.verify_command.jsonl import Line, Reader
from o1jax.verify_command.meter import Meter, complain, make_meter
from o1jax.verify_command.options import VerifyOptions, check_options, pool_limits, verifier_settings

EXIT_BAD_INPUT = 2
EXIT_SIGNAL = 128  # plus the signal's number
BUFFER_BYTES = 1 << 16  # of output, at most, that wait while more is at hand
HIGH_UNPARSABLE = 0.1  # share of the lines graded above which there is something to look at
SWITCH_SECONDS = 5e-4  # for which a thread may keep the others from running: the pool's answers quickly


class GradingStopped(Exception):
  """A signal has come while there was only to wait."""


class Signals:
  """SIGINT and SIGTERM end waits at once, and writes after their line. A second one acts by default."""

  def __init__(self) -> None:
    self.number: int | None = None
    self._waiting = False
    self._before: dict[int, Any] = {}

  def __enter__(self) -> "Signals":
    for number in (signal.SIGINT, signal.SIGTERM):
      self._before[number] = signal.signal(number, self._on_signal)
    return self

  def __exit__(self, *_: object) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _on_signal(self, number: int, _: FrameType | None) -> None:
    self.number = number
    for each in self._before:
      signal.signal(each, signal.SIG_DFL)  # so that a second one ends a command whose output nobody takes
    if self._waiting:
      raise GradingStopped

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """A context in which a signal raises GradingStopped."""
    self._waiting = True
    try:
      if self.number is not None:
        raise GradingStopped
      yield
    finally:
      self._waiting = False


class Writer:
  """Output lines, buffered while more are at hand."""

  def __init__(self, target: int):
    self._target = target
    self._buffer: list[bytes] = []
    self._size = 0

  def put(self, line: bytes) -> None:
    """Buffers a line; writes where the buffer is full."""
    self._buffer.append(line)
    self._size += len(line)
    if self._size >= BUFFER_BYTES:
      self.flush()

  def flush(self) -> None:
    """Writes the buffer. Raises BrokenPipeError where nobody reads any more, ConfigError where it fails."""
    left = memoryview(b"".join(self._buffer))
    self._buffer, self._size = [], 0
    while left:
      try:
        left = left[os.write(self._target, left) :]
      except BlockingIOError:  # its other holder has made it one that does not wait
        poll = select.poll()
        poll.register(self._target, select.POLLOUT)
        poll.poll()
      except BrokenPipeError:
        raise
      except OSError as error:
        raise ConfigError(f"standard output: cannot be written: {error.strerror}") from error


def verify_stream(options: VerifyOptions) -> int:
  """Grades standard input into standard output; 0, or 2 where a line could not be graded.

  130 and 143 after SIGINT and SIGTERM, 141 where standard output was closed. Raises ConfigError naming an
  option or stream that cannot work, or saying why no process can grade, and PoolError where that is a fault
  of the pool's.
  """
  check_options(options)
  name: str = options.verifier
  for stream, title in ((sys.stdin, "standard input"), (sys.stdout, "standard output")):
    require(stream is not None, title, "is closed")
  settings, source = verifier_settings(options), sys.stdin.fileno()
  with contextlib.ExitStack() as stack:
    stack.callback(sys.setswitchinterval, sys.getswitchinterval())
    sys.setswitchinterval(SWITCH_SECONDS)
    signals = stack.enter_context(Signals())
    if CATALOG[name].runs_programs:
      complain(_describe_sandbox(options.allow_unsandboxed_code))
    meter = stack.enter_context(make_meter(name, source, options.progress))
    stack.enter_context(_pool_errors())
    pool = stack.enter_context(Pool([name], options.workers or cores(), limits=pool_limits(options)))
    reader = Reader(
      source, lambda problems, completions: pool.submit(name, problems, completions, settings), name
    )
    stack.callback(reader.close)
    try:
      return Grading(reader, signals, meter).run(f"{name}, {options.policy}")
    except BrokenPipeError:
      return EXIT_SIGNAL + signal.SIGPIPE


@contextlib.contextmanager
def _pool_errors() -> Iterator[None]:
  """Makes a ConfigError of a PoolError, unless it is a fault of the pool's own, which keeps its traceback."""
  try:
    yield
  except PoolError as error:
    if error.__cause__ is not None:
      raise
    raise ConfigError(f"nothing more can be graded: {error}") from error


def _describe_sandbox(allow_unsandboxed_code: bool) -> str:
  """The sandbox's layers in one line. Raises ConfigError where they do not suffice."""
  try:
    return service.describe(allow_unsandboxed_code)
  except service.SandboxError as error:
    raise ConfigError(str(error)) from error


class Grading:
  """The command's loop: one verdict for each line of the reader's batches, in their order."""

  def __init__(self, reader: Reader, signals: Signals, meter: Meter):
    self._reader, self._signals, self._meter = reader, signals, meter
    self._writer = Writer(sys.stdout.fileno())
    self._counts: collections.Counter[str] = collections.Counter()  # verdicts by error, or "correct"

  def run(self, title: str) -> int:
    """Writes verdicts until the input's end or a signal; the exit code of `verify_stream`."""
    try:
      code = self._write_all()
    except GradingStopped:
      self._writer.flush()
      return EXIT_SIGNAL + (self._signals.number or 0)
    except PoolError:
      self._writer.flush()
      raise
    for text in summary(title, self._counts):
      self._meter.complain(text)
    return code

  def _write_all(self) -> int:
    """Writes the verdict of each line once it is next; 0, or 2 where a line could not be graded."""
    code = 0
    while True:
      if self._reader.batches.empty():
        self._writer.flush()
      with self._signals.waiting():
        batch = self._reader.batches.get()
      if batch is None or isinstance(batch, BaseException):
        self._writer.flush()
        if batch is None:
          return code
        raise batch
      for line in batch.lines:
        fault = line.fault or self._write_verdict(line, batch.pending)
        if fault is not None:
          code = EXIT_BAD_INPUT
          self._meter.complain(f"error: line {line.number}: {fault}")
          self._meter.advance(line.size, 0, 0)
        self._reader.window.release(line.size)

  def _write_verdict(self, line: Line, pending: Pending) -> str | None:
    """Writes and counts one verdict, or returns what is wrong with the line's problem."""
    if not pending.known(line.place):
      self._writer.flush()
    with self._signals.waiting():
      graded = pending.graded(line.place)
    verdict = graded.verdict
    if verdict is None:
      return graded.message
    fields = {**vars(verdict), "seconds": round(graded.seconds, 6)}
    self._writer.put(f'{{"id": {line.id}, {json.dumps(fields)[1:]}\n'.encode())
    self._meter.advance(line.size, 1, int(verdict.correct))
    self._counts["correct" if verdict.correct else str(verdict.error)] += 1
    return None


def summary(title: str, counts: Mapping[str, int]) -> list[str]:
  """Lines for standard error at the input's end; `counts` are verdicts by their error, or "correct"."""
  graded = sum(counts.values())
  if not graded:
    return []
  correct, unparsable = (counts.get(kind, 0) / graded for kind in ("correct", "unparsable"))
  lines = [f"{title}: {graded:,} graded, {correct:.1%} correct, {unparsable:.1%} unparsable"]
  if unparsable > HIGH_UNPARSABLE:
    lines.append(
      f"warning: {unparsable:.1%} unparsable is high (above {HIGH_UNPARSABLE:.0%}): look at some of these "
      "completions: were they cut off by their budget, is the answer marked in a way that the verifier "
      "reads, would --policy standard read it (see o1jax verify --help)?"
    )
  return lines

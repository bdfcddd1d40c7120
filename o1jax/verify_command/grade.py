"""`o1jax verify`: the pool, the reader, the writer and the signals put together.

    reader's batches, in order -> each line's verdict, as soon as it is there -> written, and flushed before any wait

What is written is whole lines, in order, however the command ends; then no worker is left.
"""

import collections
import contextlib
import json
import math
import os
import select
import signal
import sys
from collections.abc import Hashable, Iterator, Mapping
from types import FrameType
from typing import Any

from o1jax.config import ConfigError, require
from o1jax.verifiers.catalog import CATALOG, VerifierLimits
from o1jax.verifiers.pool.dispatch import PoolError
from o1jax.verifiers.pool.pool import Pending, Pool, cores
from o1jax.verifiers.sandbox import service
from o1jax.verify_command.jsonl import SETTINGS, Line, Reader, VerifyOptions
from o1jax.verify_command.meter import Meter, complain, make_meter

EXIT_BAD_INPUT = 2
EXIT_SIGNAL = 128  # and the signal's number
IDLE_FACTOR = 10  # the idle limit as a multiple of the CPU limit
MAX_CPU_SECONDS = 86_400
RUNS_PROGRAMS = ("code",)
OWN_CPU_LIMIT = ("code",)  # limits the programs below the worker, by its setting `cpu_seconds`
HELD_BYTES = 1 << 16  # of output, at most, that are held back while more is at hand
HIGH_UNPARSABLE = 0.1  # share of the lines graded above which there is something to look at
SWITCH_SECONDS = 5e-4  # for which a thread may keep the others from running: the pool's answers quickly


class Stopped(Exception):
  """A signal has come while there was only to wait."""


class Signals:
  """SIGINT and SIGTERM end what waits at once, and what writes after its line. A second one acts by default."""

  def __init__(self) -> None:
    self.number: int | None = None
    self._waiting = False
    self._before: dict[int, Any] = {}

  def __enter__(self) -> "Signals":
    for number in (signal.SIGINT, signal.SIGTERM):
      self._before[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *_: object) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _note(self, number: int, _: FrameType | None) -> None:
    self.number = number
    for each in self._before:
      signal.signal(each, signal.SIG_DFL)  # so that a second one ends a command whose output nobody takes
    if self._waiting:
      raise Stopped

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Where a signal raises Stopped."""
    self._waiting = True
    try:
      if self.number is not None:
        raise Stopped
      yield
    finally:
      self._waiting = False


class Writer:
  """Output lines, gathered while more are at hand and written whole."""

  def __init__(self, target: int):
    self._target = target
    self._held: list[bytes] = []
    self._size = 0

  def put(self, line: bytes) -> None:
    """Takes a line."""
    self._held.append(line)
    self._size += len(line)
    if self._size >= HELD_BYTES:
      self.flush()

  def flush(self) -> None:
    """Writes what is held. Raises BrokenPipeError where nobody reads any more, ConfigError where it cannot be written."""
    left = memoryview(b"".join(self._held))
    self._held, self._size = [], 0
    while left:
      try:
        left = left[os.write(self._target, left) :]
      except BlockingIOError:  # its other holder has made it one that does not wait
        _wait_until_writable(self._target)
      except BrokenPipeError:
        raise
      except OSError as error:
        raise ConfigError(f"standard output: cannot be written: {error.strerror}") from error


def _wait_until_writable(target: int) -> None:
  poll = select.poll()
  poll.register(target, select.POLLOUT)
  poll.poll()


def verify_stream(options: VerifyOptions) -> int:
  """Grades standard input into standard output; 0, or 2 where a line could not be graded.

  130 and 143 after SIGINT and SIGTERM, 141 where standard output was closed. Raises ConfigError naming an option or
  stream that cannot work, or saying why no process can grade, and PoolError where that is a fault of the pool's.
  """
  _check(options)
  name: str = options.verifier
  for stream, title in ((sys.stdin, "standard input"), (sys.stdout, "standard output")):
    require(stream is not None, title, "is closed")
  settings = _settings(options)
  limits = {name: _limits(options)} if options.cpu_limit is not None else {}
  source = sys.stdin.fileno()
  with contextlib.ExitStack() as stack:
    stack.callback(sys.setswitchinterval, sys.getswitchinterval())
    sys.setswitchinterval(SWITCH_SECONDS)
    signals = stack.enter_context(Signals())
    _tell_sandbox(options)
    meter = stack.enter_context(make_meter(name, source, options.progress))
    stack.enter_context(_unable())
    pool = stack.enter_context(Pool([name], options.workers or cores(), limits=limits))
    reader = Reader(
      source, lambda problems, completions: pool.submit(name, problems, completions, settings), name
    )
    stack.callback(reader.close)
    try:
      return _write_all(reader, Writer(sys.stdout.fileno()), signals, meter, f"{name}, {options.policy}")
    except BrokenPipeError:
      return EXIT_SIGNAL + signal.SIGPIPE


@contextlib.contextmanager
def _unable() -> Iterator[None]:
  """Makes a ConfigError of what keeps a pool from grading, but for its own faults, whose traceback tells."""
  try:
    yield
  except PoolError as error:
    if error.__cause__ is not None:
      raise
    raise ConfigError(f"nothing more can be graded: {error}") from error


def _write_all(reader: Reader, writer: Writer, signals: Signals, meter: Meter, title: str) -> int:
  """Writes verdicts until the input's end or a signal; the exit code of `verify_stream`."""
  try:
    return _write_each(reader, writer, signals, meter, title)
  except Stopped:
    writer.flush()
    return EXIT_SIGNAL + (signals.number or 0)
  except PoolError:
    writer.flush()
    raise


def _write_each(reader: Reader, writer: Writer, signals: Signals, meter: Meter, title: str) -> int:
  """Writes the verdict of each line once it is next, until the input's end; 0, or 2 where a line could not be graded."""
  code = 0
  counts: collections.Counter[str] = collections.Counter()
  while True:
    if reader.batches.empty():
      writer.flush()
    with signals.waiting():
      batch = reader.batches.get()
    if isinstance(batch, BaseException):
      writer.flush()
      raise batch
    if batch is None:
      writer.flush()
      for text in summary(title, counts):
        meter.complain(text)
      return code
    for line in batch.lines:
      fault = line.fault or _write_verdict(line, batch.pending, writer, signals, meter, counts)
      if fault is not None:
        code = EXIT_BAD_INPUT
        meter.complain(f"error: line {line.number}: {fault}")
        meter.advance(line.size, 0, 0)
      reader.window.give_back(1, line.size)


def summary(title: str, counts: Mapping[str, int]) -> list[str]:
  """Lines for standard error at the input's end: of `counts` lines by their `error`, or "correct", what shares."""
  graded = sum(counts.values())
  if not graded:
    return []
  correct, unparsable = (counts.get(kind, 0) / graded for kind in ("correct", "unparsable"))
  lines = [f"{title}: {graded:,} graded, {correct:.1%} correct, {unparsable:.1%} unparsable"]
  if unparsable > HIGH_UNPARSABLE:
    lines.append(
      f"warning: {unparsable:.1%} unparsable is high (above {HIGH_UNPARSABLE:.0%}): look at some of these "
      "completions: were they cut off by their budget, is the answer marked in a way that the verifier reads, "
      "would --policy standard read it (see o1jax verify --help)?"
    )
  return lines


def _write_verdict(
  line: Line,
  pending: Pending,
  writer: Writer,
  signals: Signals,
  meter: Meter,
  counts: collections.Counter[str],
) -> str | None:
  """Writes one verdict, and counts it, or returns what is wrong with the line's problem."""
  if not pending.known(line.place):
    writer.flush()
  with signals.waiting():
    graded = pending.graded(line.place)
  if graded.verdict is None:
    return graded.told
  told = {**vars(graded.verdict), "seconds": round(graded.seconds, 6)}
  writer.put(f'{{"id": {line.id}, {json.dumps(told)[1:]}\n'.encode())
  meter.advance(line.size, 1, int(graded.verdict.correct))
  counts["correct" if graded.verdict.correct else str(graded.verdict.error)] += 1
  return None


def _check(options: VerifyOptions) -> None:
  """Raises ConfigError naming an option that cannot work, or that the verifier does not read."""
  possible = options.cpu_limit is None or 0 < options.cpu_limit < MAX_CPU_SECONDS
  require(options.workers >= 0, "--workers", "must not be negative; 0 is one for each core")
  require(possible, "--cpu_limit", f"must lie between 0 and {MAX_CPU_SECONDS}")
  for option, verifier in SETTINGS.items():
    foreign = vars(options)[option] and options.verifier != verifier
    require(not foreign, f"--{option}", f"is an option of {verifier}; {options.verifier} does not read it")
  require(options.extractors != (), "--extractors", "is empty")


def _tell_sandbox(options: VerifyOptions) -> None:
  """One line on standard error: what stands between programs and this machine. Raises ConfigError where it is too little."""
  if options.verifier not in RUNS_PROGRAMS:
    return
  try:
    complain(service.describe(options.allow_unsandboxed_code))
  except service.SandboxError as error:
    raise ConfigError(str(error)) from error


def _settings(options: VerifyOptions) -> dict[str, Hashable]:
  """What the verifier is made with: the options that were given."""
  settings = {option: vars(options)[option] for option in SETTINGS if vars(options)[option]}
  if options.policy != "strict":
    settings["policy"] = options.policy
  if options.cpu_limit is not None and options.verifier in OWN_CPU_LIMIT:
    settings["cpu_seconds"] = math.ceil(options.cpu_limit)
  return settings


def _limits(options: VerifyOptions) -> VerifierLimits:
  """The pool's limits by `--cpu_limit`; above it where the verifier keeps the limit itself."""
  own, given = CATALOG[options.verifier].limits, options.cpu_limit or 0.0
  if options.verifier not in OWN_CPU_LIMIT:
    return VerifierLimits(given, IDLE_FACTOR * given)
  return VerifierLimits(
    max(own.cpu_seconds, IDLE_FACTOR * given), max(own.idle_seconds, IDLE_FACTOR**2 * given)
  )

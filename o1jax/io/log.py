"""What a run writes as it goes: metrics.jsonl, rollouts.jsonl, TensorBoard events, config.json, and a progress bar.

    values of a step -> one line of metrics.jsonl -> the same scalars as one TensorBoard event

metrics.jsonl is the record; the event file is derived from it, and is written anew from it on resume, so that no
reader sees a point that the resumed run never made. Lines are appended whole or not at all. Left out: any reduction
(values arrive as plain numbers).
"""

import contextlib
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import socket
import struct
import subprocess
import sys
import time
from typing import Any, BinaryIO, Callable, Iterator, Mapping, Sequence

import jax
import rich.console
import rich.progress
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from o1jax.config import ConfigError, require
from o1jax.io.files import replacing
from o1jax.io.tracking import connect

# Metrics that the clock decides: all others are bitwise the same in a rerun, and in a resumed run.
CLOCK_METRICS = frozenset(
  {
    "time",  # unix seconds at which the line was written
    "step_time",
    "tokens_per_second",
    "time/generate",
    "time/verify",
    "time/update",
  }
)

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")

_RESERVED = ("step", "stage", "time")
# How a line or file of plain JSON writes what JSON has no numbers for.
NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

# What the progress display may show, and how. A field keeps its last value until it gets another.
FIELDS: dict[str, Callable[[float], str]] = {
  "loss": "{:.3f}".format,
  "reward": "{:.3f}".format,
  "accuracy": "{:.1%}".format,
  "length": "{:.1f}".format,
  "tokens/s": "{:,.0f}".format,
}


class RunLog:
  """The log files of one run's folder; one process of the run opens it. A context manager.

  `step` counts over all stages and never falls. Whatever is logged of a step must be logged before its checkpoint is
  saved: a resumed run keeps the lines up to its checkpoint's step and makes all later ones anew.
  """

  def __init__(self, folder: str | pathlib.Path, *, resume_step: int | None, wandb: str | None = None):
    """Opens a fresh run (None), or goes on after `resume_step`: later lines and events are removed.

    `wandb` names the project there that gets the metrics too; None: none.

    Raises ConfigError naming the folder where a fresh run would write over another, or where there is no run to
    resume; naming file and row where a line is damaged (but a torn last line, as kill -9 leaves it, is dropped).
    """
    self._folder = pathlib.Path(folder)
    metrics, rollouts = self._folder / "metrics.jsonl", self._folder / "rollouts.jsonl"
    if resume_step is None:
      with _named(self._folder):
        self._folder.mkdir(parents=True, exist_ok=True)
      require(
        not metrics.exists(), str(self._folder), "holds a run already: give it another name, or pass --resume"
      )
      lines: list[dict[str, Any]] = []
    else:
      for path in (metrics, rollouts):
        require(
          path.exists() or resume_step == 0, str(path), f"is missing: no run to resume at step {resume_step}"
        )
        _truncate(path, resume_step)
      lines = read_metrics(metrics)
    self.last_step = lines[-1]["step"] if lines else 0  # of the lines that a resumed run goes on from
    events = _rewrite_events(self._folder, lines)
    self._metrics, self._rollouts, self._events = (_Appender(path) for path in (metrics, rollouts, events))
    self._tracing = False
    self._tracker = connect(wandb, self._folder, resumed=resume_step is not None) if wandb else None

  def __enter__(self) -> "RunLog":
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def metrics(self, step: int, stage: str, values: Mapping[str, float]) -> None:
    """Appends one line {"step", "stage", "time", **values} and one event with the tags `stage/name`.

    NaN and infinities are the strings "NaN", "Infinity" and "-Infinity" in the line, which JSON has no numbers for;
    `read_metrics` turns them back. Raises ConfigError naming the file where the disk is full; the file then ends with
    its last whole line.
    """
    taken = [name for name in _RESERVED if name in values]
    if taken:
      raise ValueError(f"metric {taken[0]!r}: the line has a field of that name already")
    line = {"step": step, "stage": stage, "time": time.time(), **{k: float(v) for k, v in values.items()}}
    self._metrics.write(_encode(line))
    self._events.write(_record(_event(line)))
    if self._tracker is not None:
      self._tracker.log({f"{stage}/{name}": value for name, value in values.items()}, step=step)

  def rollouts(self, step: int, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Appends each row (plain JSON types) as a line {"step", "stage", **row}. Raises as `metrics` does."""
    head = {"step": step, "stage": stage}
    self._rollouts.write(b"".join(_encode({**head, **row}) for row in rows))

  def profile(self, step: int, steps: Sequence[int]) -> None:
    """Called as `step` begins: a jax.profiler trace of the steps first..last goes into the folder's `profile/`."""
    if self._tracing and step > steps[1]:
      self._stop_trace()
    if steps and not self._tracing and step == steps[0]:
      with _named(self._folder / "profile"):
        jax.profiler.start_trace(str(self._folder / "profile"))
      self._tracing = True

  def _stop_trace(self) -> None:
    if self._tracing:
      self._tracing = False
      jax.profiler.stop_trace()

  def close(self) -> None:
    """Closes the files and a trace that is open. A second call does nothing."""
    self._stop_trace()
    if self._tracker is not None:
      self._tracker.finish()
      self._tracker = None
    for file in (self._metrics, self._rollouts, self._events):
      file.close()


class _Appender:
  """A file that grows by whole records: unbuffered, so that a killed run loses none it has written."""

  def __init__(self, path: pathlib.Path):
    self._path = path
    with _named(path):
      self._file = open(path, "ab", buffering=0)

  def write(self, record: bytes) -> None:
    """Appends all of `record`, or, raising ConfigError, nothing."""
    size = os.fstat(self._file.fileno()).st_size
    rest = memoryview(record)
    try:
      while rest:
        rest = rest[self._file.write(rest) :]
    except OSError as error:
      os.ftruncate(self._file.fileno(), size)
      raise ConfigError(f"{self._path}: cannot be written: {error.strerror}") from error

  def close(self) -> None:
    self._file.close()


@contextlib.contextmanager
def _named(path: pathlib.Path) -> Iterator[None]:
  """Turns what the operating system refuses (a full disk, no permission) into one line that names the file."""
  try:
    yield
  except OSError as error:
    raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
  """`replacing`, with errors that name the file."""
  with _named(path), replacing(path) as file:
    yield file


def write_json(path: str | pathlib.Path, obj: Any) -> None:
  """Writes `obj` (plain JSON types; NaN and infinities as in metrics.jsonl) atomically: whole, or not at all.

  Raises ConfigError naming the file where it cannot be written.
  """
  data = (json.dumps(_finite(obj), indent=2, allow_nan=False) + "\n").encode()
  with _replacing(pathlib.Path(path)) as file:
    file.write(data)


def read_metrics(path: str | pathlib.Path) -> list[dict[str, Any]]:
  """Reads metrics.jsonl: a dictionary a line, NaN and infinities as floats again. Raises as `read_lines` does."""
  return [
    {k: v if k in _RESERVED else NON_FINITE.get(v, v) for k, v in line.items()} for line in read_lines(path)
  ]


def read_lines(path: str | pathlib.Path) -> list[dict[str, Any]]:
  """Reads a .jsonl file of a run as it was written.

  A torn last line is left out. Raises ConfigError naming file and row where another line is damaged.
  """
  return list(_parse(path))


def _parse(path: str | pathlib.Path) -> Iterator[dict[str, Any]]:
  """Yields the lines as written. Only a last line without its newline can be torn: records are appended whole."""
  try:
    file = open(path, "rb")
  except OSError as error:
    raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
  with file:
    for row, raw in enumerate(file, start=1):
      try:
        line = json.loads(raw)
        whole = isinstance(line, dict) and "step" in line
      except ValueError:  # bytes that are no UTF-8, or text that is no JSON
        whole = False
      if whole:
        yield line
      elif raw.endswith(b"\n"):
        raise ConfigError(f"{path}: row {row} is not a JSON object with a step")


def _truncate(path: pathlib.Path, last_step: int) -> None:
  """Keeps the lines with step <= last_step."""
  lines = _parse(path) if path.exists() else iter(())
  with _replacing(path) as file:
    for line in lines:
      if line["step"] <= last_step:
        file.write(_encode(line))


def _finite(value: Any) -> Any:
  """`value` with its NaNs and infinities, at any depth, as strings."""
  if isinstance(value, Mapping):
    return {k: _finite(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [_finite(v) for v in value]
  if isinstance(value, float) and not math.isfinite(value):
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
  return value


def _encode(line: Mapping[str, Any]) -> bytes:
  return (json.dumps(_finite(line), allow_nan=False) + "\n").encode()


# TensorBoard. Its writer thread hangs the run when the disk is full, so records are framed here and appended at once.


def _record(event: Event) -> bytes:
  """One TFRecord: length, its CRC, the event, its CRC; little-endian."""
  data = event.SerializeToString()
  length = struct.pack("<Q", len(data))
  return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))


def _event(line: Mapping[str, Any]) -> Event:
  values = [
    Summary.Value(tag=f"{line['stage']}/{name}", simple_value=value)
    for name, value in line.items()
    if name not in _RESERVED
  ]
  return Event(wall_time=line["time"], step=line["step"], summary=Summary(value=values))


def _rewrite_events(folder: pathlib.Path, lines: Sequence[Mapping[str, Any]]) -> pathlib.Path:
  """Writes the one event file of a run from its metrics, removes any other, and returns its path.

  A kill between removal and renaming leaves no event file, which the next resume writes again.
  """
  old = list(folder.glob("events.out.tfevents.*"))
  path = folder / f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}"
  with _replacing(path) as file:
    file.write(_record(Event(wall_time=time.time(), file_version="brain.Event:2")))
    for line in lines:
      file.write(_record(_event(line)))
    file.flush()
    for stale in old:
      stale.unlink()
  return path


# config.json


def environment() -> dict[str, Any]:
  """What a run ran on: code, packages, devices, all plain JSON types.

  git: {"commit", "dirty"} of the project's checkout, None outside one (an installed package) or without git.
  """
  device = jax.devices()[0]
  return {
    "git": _git(pathlib.Path(__file__).resolve().parents[2]),
    "python": platform.python_version(),
    "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    "platform": platform.platform(),
    "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
    "processes": jax.process_count(),
  }


def _git(root: pathlib.Path) -> dict[str, Any] | None:
  if not (root / ".git").exists():
    return None
  answers = []
  for command in (["rev-parse", "HEAD"], ["status", "--porcelain"]):
    try:
      done = subprocess.run(["git", "-C", str(root), *command], capture_output=True, text=True)
    except FileNotFoundError:
      return None
    if done.returncode != 0:
      return None
    answers.append(done.stdout.strip())
  return {"commit": answers[0], "dirty": bool(answers[1])}


# Progress


def shown(metrics: Mapping[str, float]) -> dict[str, float]:
  """The fields of the progress bar that a step has."""
  names = {
    "loss": "nll", "reward": "reward", "accuracy": "accuracy", "length": "completions/mean_length",
    "tokens/s": "tokens_per_second",
  }  # fmt: skip
  return {field: metrics[name] for field, name in names.items() if name in metrics}


Update = Callable[[int, Mapping[str, float]], None]


@contextlib.contextmanager
def progress(total: int, description: str, enabled: bool, every: int = 10) -> Iterator[Update]:
  """Gives `update(step, fields)`: `step` of `total` is done; `fields` are some of FIELDS (accuracy a fraction).

  A live bar where `enabled` and stdout is a terminal; else one plain line every `every` steps and at the last one.
  """
  console = rich.console.Console(file=sys.stdout)
  shown: dict[str, str] = {}
  live = enabled and console.is_terminal
  with _bar(console, total, description) if live else _lines(total, description, every) as draw:

    def update(step: int, fields: Mapping[str, float]) -> None:
      shown.update({name: FIELDS[name](value) for name, value in fields.items()})
      draw(step, "  ".join(f"{name} {shown[name]}" for name in FIELDS if name in shown))

    yield update


Draw = Callable[[int, str], None]


@contextlib.contextmanager
def _bar(console: rich.console.Console, total: int, description: str) -> Iterator[Draw]:
  columns = (
    rich.progress.TextColumn("{task.description}"),
    rich.progress.BarColumn(bar_width=24),
    rich.progress.MofNCompleteColumn(),
    rich.progress.TextColumn("{task.fields[shown]}", markup=False),
    rich.progress.TimeRemainingColumn(),
  )
  with rich.progress.Progress(*columns, console=console) as bar:
    task = bar.add_task(description, total=total, shown="")
    yield lambda step, shown: bar.update(task, completed=step, shown=shown)


@contextlib.contextmanager
def _lines(total: int, description: str, every: int) -> Iterator[Draw]:
  def draw(step: int, shown: str) -> None:
    if step % every == 0 or step == total:
      print(f"{description} {step}/{total}  {shown}".rstrip(), flush=True)

  yield draw

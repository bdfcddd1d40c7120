"""A run's log: metrics.jsonl, rollouts.jsonl, TensorBoard events, JSON files, wandb, a progress bar.

    metrics of a step -> one line of metrics.jsonl -> the same scalars as one TensorBoard event

metrics.jsonl is the record. The event file is derived from it and rewritten from it on resume, so that no
reader sees a point that the resumed run never made. Lines are appended whole or not at all.
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
from o1jax.io.run_config import read_json

# Metrics read from the clock. All others are bitwise the same in a rerun and in a resumed run.
CLOCK_METRICS = frozenset(
  (
    "time",  # unix seconds at which the line was written
    "step_time",
    "tokens_per_second",
    "time/generate",
    "time/verify",
    "time/update",
  )
)

PACKAGES = ("o1jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")

_RESERVED = ("step", "stage", "time")
# Strings for the floats that JSON lacks.
NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

# Progress bar: field -> (metric, format). A field keeps its last value until it gets another.
FIELDS: dict[str, tuple[str, str]] = {
  "loss": ("nll", ".3f"),
  "reward": ("reward", ".3f"),
  "accuracy": ("accuracy", ".1%"),
  "length": ("completions/mean_length", ".1f"),
  "tokens/s": ("tokens_per_second", ",.0f"),
}


class RunLog:
  """The log files of one run's folder, written by one process. A context manager.

  `step` counts over all stages and never falls. A step must be logged before its checkpoint is saved: a
  resumed run keeps the lines up to its checkpoint's step and writes all later ones anew.
  """

  def __init__(self, folder: str | pathlib.Path, *, resume_step: int | None, wandb: str | None = None):
    """Opens a fresh run (None), or goes on after `resume_step`: later lines and events are removed.

    wandb: name of the project there that gets the metrics too. Raises ConfigError naming the folder where it
    holds a run already or none to resume, and file and row where a line is damaged (a torn last line, as kill
    -9 leaves it, is dropped).
    """
    self._folder = pathlib.Path(folder)
    metrics, rollouts = self._folder / "metrics.jsonl", self._folder / "rollouts.jsonl"
    if resume_step is None:
      with _named(self._folder):
        self._folder.mkdir(parents=True, exist_ok=True)
      taken = "holds a run already: give it another name, or pass --resume"
      require(not metrics.exists(), str(self._folder), taken)
      lines: list[dict[str, Any]] = []
    else:
      for path in (metrics, rollouts):
        missing = f"is missing: no run to resume at step {resume_step}"
        require(path.exists() or resume_step == 0, str(path), missing)
        _truncate(path, resume_step)
      lines = read_metrics(metrics)
    self.last_step = lines[-1]["step"] if lines else 0  # of the lines that a resumed run goes on from
    events = _rewrite_events(self._folder, lines)
    self._metrics, self._rollouts, self._events = map(_Appender, (metrics, rollouts, events))
    self._tracing = False
    self._tracker = _wandb_run(wandb, self._folder, resume_step is not None) if wandb else None

  def __enter__(self) -> "RunLog":
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def metrics(self, step: int, stage: str, values: Mapping[str, float]) -> None:
    """Appends one line {"step", "stage", "time", **values} and one event with the tags `stage/name`.

    NaN and infinities become the strings "NaN", "Infinity" and "-Infinity"; `read_metrics` turns them back.
    Raises ConfigError naming the file where the disk is full; the file then ends with its last complete line.
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
    """Called as `step` begins: traces steps[0]..steps[1] with jax.profiler into the folder's `profile/`."""
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
  """An unbuffered file of records, each appended completely or not at all."""

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
  """Turns an OSError (a full disk, no permission) into a ConfigError that names the file."""
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
  """Writes `obj` (plain JSON types; NaN and infinities as in metrics.jsonl) atomically.

  Raises ConfigError naming the file where it cannot be written.
  """
  data = (json.dumps(_finite(obj), indent=2, allow_nan=False) + "\n").encode()
  with _replacing(pathlib.Path(path)) as file:
    file.write(data)


def read_metrics(path: str | pathlib.Path) -> list[dict[str, Any]]:
  """Reads metrics.jsonl as `read_lines` does, with NaN and infinities as floats."""
  return [
    {k: v if k in _RESERVED else NON_FINITE.get(v, v) for k, v in line.items()} for line in read_lines(path)
  ]


def read_lines(path: str | pathlib.Path) -> list[dict[str, Any]]:
  """Reads a .jsonl file of a run, a dictionary a line.

  A torn last line is left out. Raises ConfigError naming file and row where another line is damaged.
  """
  return list(_parse(path))


def _parse(path: str | pathlib.Path) -> Iterator[dict[str, Any]]:
  """Yields the lines. Only a last line without its newline can be torn: records are appended at once."""
  try:
    file = open(path, "rb")
  except OSError as error:
    raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
  with file:
    for row, raw in enumerate(file, start=1):
      try:
        line = json.loads(raw)
        complete = isinstance(line, dict) and "step" in line
      except ValueError:  # bytes that are no UTF-8, or text that is no JSON
        complete = False
      if complete:
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


# TensorBoard. tensorboardX's own writers buffer a record and write it in four pieces from a thread, which a
# full disk hangs; here each record is framed and appended at once.


def _record(event: Event) -> bytes:
  """A TFRecord: length, its CRC, the event, its CRC; little-endian."""
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
  """Writes the event file of a run from its metrics, removes older ones, and returns its path.

  A kill between removal and renaming leaves no event file; the next resume writes it again.
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


def _wandb_run(project: str, folder: pathlib.Path, resumed: bool) -> Any:
  """The wandb run of the run in `folder`, whose name is its id there (extra `wandb`).

  Raises ConfigError where the package is missing, or where wandb refuses: no login, or a run of that name
  already.
  """
  try:
    import wandb
  except ImportError as error:
    raise ConfigError("log.wandb: needs the package: pip install 'o1jax[wandb]'") from error
  path = folder / "config.json"
  config = read_json(path) if path.is_file() else {}
  resume = "allow" if resumed else "never"
  try:
    return wandb.init(
      project=project, id=folder.name, name=folder.name, dir=str(folder), config=config, resume=resume
    )
  except wandb.Error as error:
    raise ConfigError(f"log.wandb: {error}") from error


# config.json


def environment() -> dict[str, Any]:
  """The code, packages and devices of this process, in plain JSON types.

  git: {"commit", "dirty"} of the project's checkout; None outside one (an installed package) or without git.
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
  return {field: metrics[name] for field, (name, _) in FIELDS.items() if name in metrics}


Update = Callable[[int, Mapping[str, float]], None]


@contextlib.contextmanager
def progress(total: int, description: str, enabled: bool, every: int = 10) -> Iterator[Update]:
  """Yields `update(step, fields)`: `step` of `total` is done; fields: values of FIELDS (accuracy a fraction).

  A live bar where `enabled` and stdout is a terminal; else one plain line every `every` steps and at the last
  one.
  """
  console = rich.console.Console(file=sys.stdout)
  texts: dict[str, str] = {}

  def text(fields: Mapping[str, float]) -> str:
    texts.update({name: f"{value:{FIELDS[name][1]}}" for name, value in fields.items()})
    return "  ".join(f"{name} {texts[name]}" for name in FIELDS if name in texts)

  def print_line(step: int, fields: Mapping[str, float]) -> None:
    line = f"{description} {step}/{total}  {text(fields)}"
    if step % every == 0 or step == total:
      print(line.rstrip(), flush=True)

  if not (enabled and console.is_terminal):
    yield print_line
    return
  columns = (
    rich.progress.TextColumn("{task.description}"),
    rich.progress.BarColumn(bar_width=24),
    rich.progress.MofNCompleteColumn(),
    rich.progress.TextColumn("{task.fields[shown]}", markup=False),
    rich.progress.TimeRemainingColumn(),
  )
  with rich.progress.Progress(*columns, console=console) as bar:
    task = bar.add_task(description, total=total, shown="")
    yield lambda step, fields: bar.update(task, completed=step, shown=text(fields))

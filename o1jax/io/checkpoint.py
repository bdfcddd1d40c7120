"""Checkpoints over orbax: written in the background, committed by one rename, restored bitwise.

    TrainState, cursor -> save -> <folder>/<step>/{params, rest, meta} -> restore -> TrainState, cursor

`params` and `rest` are flat dictionaries of arrays by their paths in the state. `meta` has the caller's
cursor, shape and dtype of every array, so that a checkpoint of another model is refused by the array's name
before anything is read, and the CRC-32 of every array and of the cursor, so that a damaged one is refused
when it is read. A folder gets its step as its name when all of it is on the disk.
Left out: keys (derived from the step, never stored) and any choice of "best" (the newest `keep` stay).
"""

import dataclasses
import json
import logging
import pathlib
import shutil
import time
import zlib
from typing import Any, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.path import step as ocp_step

from o1jax.config import ConfigError, require
from o1jax.types import TrainState

TEMPORARY = ".orbax-checkpoint-tmp"  # in the name of whatever orbax has not committed
# upper bounds on a checkpoint's index: in all, and for each array
FIXED_BYTES, ARRAY_BYTES = 128 * 1024, 1024
CURSOR = "cursor"  # its name among the checksums; no array's path is that
OLDER = "remove that folder to use the checkpoint before it"
QUIET_SECONDS, STRAGGLER_SECONDS = 0.5, 10.0  # after a failed save: none of its threads wrote; they may go on


def latest_step(folder: str | pathlib.Path) -> int | None:
  """The newest committed step in `folder`, None without one. Reads names alone: safe beside a writer."""
  return max(_committed(pathlib.Path(folder)), default=None)


class Checkpoints:
  """The checkpoints of one run, written by one process or one group of hosts. A context manager.

  Half-written checkpoints of an earlier process are removed on entry, so two writers must not share a folder.
  """

  def __init__(self, folder: str | pathlib.Path, *, keep: int):
    """`keep`: newest checkpoints retained, at least 1. Raises ConfigError where the folder cannot be made."""
    require(keep >= 1, "checkpoint.keep", f"must be at least 1, is {keep}")
    self._folder = pathlib.Path(folder).absolute()
    _quiet()
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
    try:
      self._folder.mkdir(parents=True, exist_ok=True)
      self._manager = ocp.CheckpointManager(self._folder, options=options)
    except OSError as error:
      raise ConfigError(f"{self._folder}: cannot hold checkpoints: {error.strerror}") from error

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def latest(self) -> int | None:
    """The newest committed step, None where there is none; a save that still runs does not count."""
    return latest_step(self._folder)

  def save(self, step: int, state: TrainState, cursor: Mapping[str, Any]) -> None:
    """Starts to save `state` (any shardings) and `cursor` (small, plain JSON) as `step`, and returns.

    The state may be donated and the cursor changed as soon as this returns. Waits for the save before, and
    raises its error. Raises ValueError where `step` is saved already, TypeError where the cursor would not
    come back from JSON as it is, ConfigError where the disk is full.
    """
    cursor = _through_json(cursor)
    params, rest = _flatten(state.params, "params"), _rest(state)
    self.wait()
    if step in _committed(self._folder):
      raise ValueError(f"{self._folder}: step {step} is saved already")
    leaves = {**params, **rest}
    _check_room(self._folder, leaves)
    meta = {"cursor": cursor, "layout": _layout(leaves), "checksums": _checksums(leaves, cursor)}
    args = ocp.args.Composite(
      params=ocp.args.StandardSave(params),
      rest=ocp.args.StandardSave(rest),
      meta=ocp.args.JsonSave(meta),
    )
    try:
      self._manager.save(step, args=args, force=True)
    except Exception as error:
      self._discard()
      raise _explain(self._folder, error) from error

  def restore(
    self, step: int, like: TrainState, *, finite: bool = False
  ) -> tuple[TrainState, dict[str, Any]]:
    """Reads `step` back, bitwise: the state and the cursor.

    like: jax.Array or sharded jax.ShapeDtypeStruct leaves. The arrays come back on these shardings, whatever
    they were saved on; ref_params and controllers may be None, as they were when saved. Raises ConfigError,
    in one line, where the step is missing, unreadable or damaged, where a structure, shape or dtype differs,
    or where a parameter should be `finite` and is not.
    """
    self.wait()
    params, rest = _flatten(like.params, "params"), _rest(like)
    meta = _read(self._folder, step, {"meta": ocp.args.JsonRestore()})["meta"]
    _check_layout(self._folder / str(step), meta["layout"], _layout({**params, **rest}))
    items = {"params": _onto(params), "rest": _onto(rest)}
    read = _read(self._folder, step, items)
    leaves = {**read["params"], **read["rest"]}
    _check_checksums(self._folder / str(step), meta, leaves)
    if finite:
      _check_finite(self._folder, step, read["params"])
    return _unflatten(like, leaves, ""), meta["cursor"]

  def wait(self) -> None:
    """Blocks until a running save is committed. Raises its error; a full disk as ConfigError."""
    try:
      self._manager.wait_until_finished()
    except Exception as error:
      self._discard()
      raise _explain(self._folder, error) from error

  def close(self) -> None:
    """Waits as `wait` does, then releases the threads. A second call does nothing."""
    try:
      self.wait()
    finally:
      self._manager.close()

  def _discard(self) -> None:
    """Removes the remains of a failed save and forgets its step, so that it can be saved again."""
    self._manager.reload()
    if jax.process_index() == 0:
      _remove_uncommitted(self._folder)


def read_cursor(folder: str | pathlib.Path, step: int) -> dict[str, Any]:
  """The cursor of checkpoint `step` alone. Raises ConfigError where the step is missing or unreadable."""
  _quiet()
  return _read(pathlib.Path(folder).absolute(), step, {"meta": ocp.args.JsonRestore()})["meta"]["cursor"]


def restore_params(folder: str | pathlib.Path, step: int, like_params: Any) -> Any:
  """Reads the parameters of checkpoint `step` alone, for evaluation; safe beside a run that still writes.

  like_params: pytree of jax.Array or sharded jax.ShapeDtypeStruct; the result has its structure and
  shardings. Raises ConfigError, in one line, where the step is missing, unreadable or damaged, or where a
  parameter differs or is not finite.
  """
  folder = pathlib.Path(folder).absolute()
  meta = check_params(folder, step, like_params)
  leaves = _read(folder, step, {"params": _onto(_flatten(like_params, "params"))})["params"]
  _check_checksums(folder / str(step), meta, leaves)
  _check_finite(folder, step, leaves)
  return _unflatten(like_params, leaves, "params")


def _check_finite(folder: str | pathlib.Path, step: int, params: Any) -> None:
  """Raises ConfigError naming the first of these parameters of checkpoint `step` that is not finite."""
  for path, leaf in _flatten(params, "").items():
    finite = bool(jnp.isfinite(leaf).all())
    require(finite, f"{pathlib.Path(folder) / str(step)}", f"{path} is not finite: {OLDER}")


def check_params(folder: str | pathlib.Path, step: int, like_params: Any) -> dict[str, Any]:
  """Raises ConfigError as `restore_params` does where checkpoint `step` is of another model; reads no array.

  Returns the checkpoint's meta: cursor, layout and checksums.
  """
  folder = pathlib.Path(folder).absolute()
  _quiet()
  meta = _read(folder, step, {"meta": ocp.args.JsonRestore()})["meta"]
  saved = {path: spec for path, spec in meta["layout"].items() if path.startswith("params/")}
  _check_layout(folder / str(step), saved, _layout(_flatten(like_params, "params")))
  return meta


def _committed(folder: pathlib.Path) -> list[int]:
  if not folder.is_dir():
    return []
  return [path.step for path in ocp_step.standard_name_format().find_all(folder)]


def _name(path: tuple[Any, ...], prefix: str) -> str:
  return "/".join(filter(None, [prefix, jax.tree_util.keystr(path, simple=True, separator="/")]))


def _flatten(tree: Any, prefix: str) -> dict[str, Any]:
  """{path: leaf}, in the tree's order. A flat dictionary has no None, empty node or tuple to lose."""
  return {_name(path, prefix): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _rest(state: TrainState) -> dict[str, Any]:
  return _flatten(dataclasses.replace(state, params=None), "")


def _unflatten(like: Any, leaves: Mapping[str, Any], prefix: str) -> Any:
  return jax.tree_util.tree_map_with_path(lambda path, _: leaves[_name(path, prefix)], like)


def _layout(leaves: Mapping[str, Any]) -> dict[str, str]:
  """{path: "float32[2,3]"}."""
  return {path: f"{x.dtype}[{','.join(map(str, x.shape))}]" for path, x in leaves.items()}


def _checksums(leaves: Mapping[str, jax.Array], cursor: Mapping[str, Any]) -> dict[str, int]:
  """{path: CRC-32 of the array's bytes, whatever its sharding}, and the cursor's."""
  flat = {path: np.ascontiguousarray(leaf).reshape(-1).view(np.uint8) for path, leaf in leaves.items()}
  arrays = {path: zlib.crc32(array.data) for path, array in flat.items()}
  return {**arrays, CURSOR: zlib.crc32(json.dumps(cursor, sort_keys=True).encode())}


def _check_checksums(folder: pathlib.Path, meta: Mapping[str, Any], leaves: Mapping[str, jax.Array]) -> None:
  """Raises ConfigError naming the first array, or the cursor, that is not what was saved.

  A checkpoint of a version without checksums passes.
  """
  saved = meta.get("checksums", {})
  for path, checksum in _checksums(leaves, meta["cursor"]).items() if saved else ():
    damaged = f"damaged checkpoint: {path} is not what was saved: {OLDER}"
    require(checksum == saved.get(path), str(folder), damaged)


def _onto(leaves: Mapping[str, Any]) -> ocp.args.StandardRestore:
  """Restore arguments for arrays of these shapes, dtypes and shardings."""
  for path, leaf in leaves.items():
    if leaf.sharding is None:
      raise ValueError(f"{path}: a ShapeDtypeStruct to restore onto needs a sharding")
  abstract = {path: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for path, x in leaves.items()}
  return ocp.args.StandardRestore(abstract)


def _check_layout(folder: pathlib.Path, saved: Mapping[str, str], like: Mapping[str, str]) -> None:
  """Raises ConfigError naming the first array (parameters first) whose shape, dtype or presence differs."""
  for path in sorted({**like, **saved}, key=lambda path: not path.startswith("params/")):
    there, here = saved.get(path, "absent"), like.get(path, "absent")
    other = f"checkpoint of another model or setting: {path} is {there} there, {here} here"
    require(there == here, str(folder), other)


def _read(
  folder: pathlib.Path, step: int, items: Mapping[str, ocp.args.CheckpointArgs]
) -> ocp.args.Composite:
  """Reads items of one step. Opens no manager, so that a reader never cleans up after a writer."""
  committed = _committed(folder)
  missing = f"holds no checkpoint of step {step}, but {sorted(committed) or 'none at all'}"
  require(step in committed, str(folder), missing)
  try:
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
      return reader.restore(folder / str(step), args=ocp.args.Composite(**items))
  except Exception as error:
    line = str(error).strip().partition("\n")[0][:200]
    why = f"unreadable checkpoint: {type(error).__name__}: {line}: {OLDER}"
    raise ConfigError(f"{folder / str(step)}: {why}") from error


def _check_room(folder: pathlib.Path, leaves: Mapping[str, jax.Array]) -> None:
  """Raises ConfigError where this host's share of the arrays, uncompressed, would not fit on the disk.

  Checked first because a disk that fills up during a save is noticed late, by many threads at once.
  """
  shards = [shard for x in leaves.values() for shard in x.addressable_shards if shard.replica_id == 0]
  needed = sum(shard.data.nbytes for shard in shards) + FIXED_BYTES + ARRAY_BYTES * len(leaves)
  free = shutil.disk_usage(folder).free
  if free < needed:
    sizes = f"a checkpoint takes {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are free"
    raise ConfigError(f"{folder}: no space left on device: {sizes}; earlier checkpoints are intact")


def _remove_uncommitted(folder: pathlib.Path) -> None:
  """Removes the remains of a failed save until nothing has come back for QUIET_SECONDS.

  Nothing waits for the threads of a failed save, and each that still writes creates its folder again.
  """
  now = time.monotonic()
  deadline, quiet = now + STRAGGLER_SECONDS, now + QUIET_SECONDS
  while time.monotonic() < quiet:
    for path in folder.glob(f"*{TEMPORARY}*"):
      quiet = time.monotonic() + QUIET_SECONDS
      _remove(path, deadline)
    time.sleep(0.02)


def _remove(path: pathlib.Path, deadline: float) -> None:
  """Removes a folder; a file that appears in it meanwhile is an error only after `deadline`."""
  try:
    shutil.rmtree(path)
  except OSError:
    if time.monotonic() > deadline:
      raise


def _through_json(cursor: Mapping[str, Any]) -> dict[str, Any]:
  """The cursor after a round trip through JSON. Raises TypeError where that changes it."""
  copy = json.loads(json.dumps(cursor, allow_nan=False))
  if copy != cursor:
    raise TypeError("cursor: must hold JSON types alone (no tuples, no keys but strings)")
  return copy


def _explain(folder: pathlib.Path, error: Exception) -> Exception:
  """ConfigError where the disk is full (tensorstore reports it as text alone), else the error itself."""
  if "no space left on device" in str(error).lower() or "disk quota exceeded" in str(error).lower():
    return ConfigError(f"{folder}: no space left on device in a save; earlier checkpoints are intact")
  return error


class _Raised(logging.Filter):
  """Drops the tracebacks that orbax logs of errors which it raises as well."""

  def filter(self, record: logging.LogRecord) -> bool:
    from_orbax = "orbax" in pathlib.PurePath(record.pathname).parts or "orbax" in record.getMessage()
    return not (record.levelno == logging.ERROR and from_orbax)


_RAISED = _Raised()


def _quiet() -> None:
  for name in ("absl", "asyncio"):
    logging.getLogger(name).addFilter(_RAISED)  # adding one filter twice adds it once

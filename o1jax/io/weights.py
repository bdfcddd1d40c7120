"""Weights in Hugging Face's layout: safetensors, one file or several with an index, to and from parameters.

    folder -> check_weights -> load_params -> jax arrays, each device's part read by itself
    parameters -> tensors_of -> write_tensors -> config.json, model*.safetensors, the index

A read takes the rows and columns that one device holds and no others, from a file that is mapped, not loaded.
Numbers may be float32, bfloat16 or float16; they are rounded to the parameter's dtype.
"""

import contextlib
import functools
import json
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from o1jax.config import ConfigError, ModelConfig, require
from o1jax.io.files import write_atomically
from o1jax.io.run_config import read_json
from o1jax.model.hf import Piece, layout, model_config

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = ("F32", "BF16", "F16")
SHARD_BYTES = 4 * 10**9
CHUNK_ROWS = 4096  # of two tensors that are compared
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
DERIVED = ("rotary_emb.inv_freq",)  # tensors that old files hold and the configuration says


def is_weights_folder(folder: pathlib.Path) -> bool:
  return (folder / SINGLE).is_file() or (folder / INDEX).is_file()


def read_model_config(folder: pathlib.Path) -> ModelConfig:
  """The model of a folder's config.json. Raises ConfigError naming the field that is not supported."""
  return model_config(read_json(folder / "config.json"), str(folder / "config.json"))


class Weights:
  """The tensors of a folder by name, read in parts."""

  def __init__(self, folder: pathlib.Path, stack: contextlib.ExitStack) -> None:
    """Maps the folder's files until `stack` ends. Raises ConfigError naming a file that is missing or cut."""
    self.folder = folder
    self._file_of: dict[str, Any] = {}
    named = _index(folder)
    for name in sorted(set(named.values())) or [SINGLE]:
      path = folder / name
      require(path.is_file(), str(path), f"is missing, and {INDEX} names it")
      try:
        file = stack.enter_context(safetensors.safe_open(path, framework="np"))
      except (safetensors.SafetensorError, OSError) as error:
        raise ConfigError(f"{path}: is no complete safetensors file: {error}") from error
      self._file_of |= dict.fromkeys(file.keys(), file)
    lost = named.keys() - self._file_of.keys()
    require(not lost, str(folder / INDEX), f"names tensor {min(lost, default='')}, which no file has")

  @property
  def names(self) -> set[str]:
    return set(self._file_of)

  def check(self, tensor: str, shape: tuple[int, ...]) -> None:
    """Raises ConfigError where the tensor is missing, or of another shape or dtype than floats of `shape`."""
    require(tensor in self._file_of, str(self.folder), f"tensor {tensor} is missing")
    entry = self._file_of[tensor].get_slice(tensor)
    there, dtype = tuple(entry.get_shape()), entry.get_dtype()
    other = f"tensor {tensor} is {list(there)}, and {list(shape)} by config.json"
    require(there == shape, str(self.folder), other)
    require(dtype in DTYPES, str(self.folder), f"tensor {tensor} is {dtype}, not one of {', '.join(DTYPES)}")

  def read(self, tensor: str, part: tuple[slice, ...]) -> np.ndarray:
    """The part of a tensor, of its rows and columns. Reads no others."""
    return self._file_of[tensor].get_slice(tensor)[part]


def _index(folder: pathlib.Path) -> dict[str, str]:
  """{tensor: file} by the index; {} where there is one file and no index."""
  require(is_weights_folder(folder), str(folder), f"holds no weights: neither {SINGLE} nor {INDEX}")
  if not (folder / INDEX).is_file():
    return {}
  table = read_json(folder / INDEX).get("weight_map")
  fine = isinstance(table, dict) and all(isinstance(name, str) for name in table.values())
  require(fine, str(folder / INDEX), "weight_map: wants a file for each tensor")
  assert isinstance(table, dict)
  inside = all(pathlib.PurePath(name).name == name for name in table.values())
  require(inside, str(folder / INDEX), "weight_map: names a file outside the folder")
  return table


def check_weights(folder: pathlib.Path, model: ModelConfig) -> None:
  """Raises ConfigError, in one line, where the folder's tensors are not those of the model.

  All are looked up before any is read. A head that is stored though it is tied must equal the embedding.
  """
  with contextlib.ExitStack() as stack:
    weights = Weights(folder, stack)
    pieces = [piece for parts in layout(model).values() for piece in parts]
    for piece in pieces:
      weights.check(piece.tensor, piece.shape)
    others = weights.names - {piece.tensor for piece in pieces}
    if HEAD in others:
      weights.check(HEAD, (model.vocab, model.width))
      same = all(_same_rows(weights, row, model.vocab) for row in range(0, model.vocab, CHUNK_ROWS))
      require(same, str(folder), f"tensor {HEAD} differs from {EMBEDDING}, and config.json ties them")
    others = {name for name in others - {HEAD} if not name.endswith(DERIVED)}
    require(not others, str(folder), f"tensor {min(others, default='')} is not supported")


def _same_rows(weights: Weights, row: int, rows: int) -> bool:
  part = (slice(row, min(row + CHUNK_ROWS, rows)), slice(None))
  return bool(np.array_equal(weights.read(HEAD, part), weights.read(EMBEDDING, part)))


def load_params(folder: pathlib.Path, model: ModelConfig, like: Any) -> Any:
  """The folder's weights as parameters with the structure, dtypes and shardings of `like`.

  like: sharded jax.ShapeDtypeStruct leaves. Each host reads what its devices hold, one array at a time.
  Raises ConfigError as `check_weights` does.
  """
  check_weights(folder, model)
  table = layout(model)
  with contextlib.ExitStack() as stack:
    weights = Weights(folder, stack)

    def load(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
      pieces = table[jax.tree_util.keystr(path, simple=True, separator="/")]
      read = lambda index: _read_part(weights, pieces, leaf, index)
      return jax.make_array_from_callback(leaf.shape, leaf.sharding, read).block_until_ready()

    return jax.tree_util.tree_map_with_path(load, like)


def _read_part(
  weights: Weights, pieces: list[Piece], leaf: jax.ShapeDtypeStruct, index: tuple[slice, ...]
) -> np.ndarray:
  """A device's part of a parameter."""
  bounds = [one.indices(size)[:2] for one, size in zip(index, leaf.shape, strict=True)]
  out = np.empty([stop - start for start, stop in bounds], leaf.dtype)
  for piece in pieces:
    overlaps = []
    for (start, stop), part, size in zip(bounds, piece.part, leaf.shape, strict=True):
      low, high = part.indices(size)[:2]
      overlaps.append((max(start, low), min(stop, high), low))
    if any(low >= high for low, high, _ in overlaps):
      continue
    inside = [slice(low - first, high - first) for low, high, first in overlaps][-len(piece.order) :]
    target = [
      slice(low - start, high - start) for (low, high, _), (start, _) in zip(overlaps, bounds, strict=True)
    ]
    out[tuple(target)] = _read_piece(weights, piece, inside)
  return out


def _read_piece(weights: Weights, piece: Piece, part: list[slice]) -> np.ndarray:
  """A part of a piece, in the parameter's order of axes.

  Of the axes that a tensor's axis is the product of, the first is cut in the file, the others in memory.
  """
  cut = [part[piece.order.index(axis)] for axis in range(len(piece.view))]
  ranges, shape, rest = [], [], []
  for first, end in ((0, piece.rows), (piece.rows, len(piece.view))):
    if first == end:
      continue
    inner = piece.view[first + 1 : end]
    ranges.append(slice(cut[first].start * math.prod(inner), cut[first].stop * math.prod(inner)))
    shape += [cut[first].stop - cut[first].start, *inner]
    rest += [slice(None), *cut[first + 1 : end]]
  return weights.read(piece.tensor, tuple(ranges)).reshape(shape)[tuple(rest)].transpose(piece.order)


# Out


class Tensor(NamedTuple):
  """A tensor to be written."""

  name: str
  shape: tuple[int, ...]
  read: Callable[[], np.ndarray]


def tensors_of(model: ModelConfig, params: Any) -> list[Tensor]:
  """The model's tensors from parameters that this host holds; norms and biases are rounded to param_dtype."""
  pairs = jax.tree_util.tree_leaves_with_path(params)
  leaves = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in pairs}
  return [
    Tensor(piece.tensor, piece.shape, functools.partial(_tensor, piece, leaves[path], model.param_dtype))
    for path, pieces in layout(model).items()
    for piece in pieces
  ]


def _tensor(piece: Piece, leaf: Any, dtype: str) -> np.ndarray:
  """The tensor that a piece of a parameter is written as."""
  ordered = np.asarray(leaf[piece.part]).reshape([piece.view[axis] for axis in piece.order])
  back = ordered.transpose(np.argsort(piece.order)).reshape(piece.shape)
  return np.ascontiguousarray(back, jnp.dtype(dtype))


def write_tensors(
  folder: pathlib.Path, config: Mapping[str, Any], tensors: Sequence[Tensor], most: int = SHARD_BYTES
) -> None:
  """Writes config.json and the tensors, of its torch_dtype, in files of at most `most` bytes or one tensor.

  One file's tensors are in memory at a time; the index comes last.
  """
  write_atomically(folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())
  itemsize = jnp.dtype(config["torch_dtype"]).itemsize
  shards = list(_shards(tensors, most // itemsize))
  files: dict[str, str] = {}
  for i, shard in enumerate(shards):
    name = SINGLE if len(shards) == 1 else f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
    arrays = {tensor.name: tensor.read() for tensor in shard}
    safetensors.numpy.save_file(arrays, folder / name, metadata={"format": "pt"})
    (folder / name).chmod((folder / "config.json").stat().st_mode)  # the library lets the owner alone read it
    files |= dict.fromkeys(arrays, name)
  if len(shards) > 1:
    total = sum(math.prod(tensor.shape) for tensor in tensors) * itemsize
    index = {"metadata": {"total_size": total}, "weight_map": files}
    write_atomically(folder / INDEX, (json.dumps(index, indent=2) + "\n").encode())


def _shards(tensors: Sequence[Tensor], most: int) -> Iterator[list[Tensor]]:
  """The tensors in order, in lists of at most `most` numbers, or of one tensor."""
  shard: list[Tensor] = []
  filled = 0
  for tensor in tensors:
    size = math.prod(tensor.shape)
    if shard and filled + size > most:
      yield shard
      shard, filled = [], 0
    shard.append(tensor)
    filled += size
  yield shard

"""JSONL files as tensorflow-datasets splits in array_record, without TensorFlow.

    file or URL -> bytes, SHA-256 -> rows checked one by one -> array_record in `<data_dir>/<name>/<data hash>` -> Rows

The folder's name is the hash of what is in it, so that a changed file is never served from an older preparation; it
is written beside, read back, compared and renamed, so that a folder that exists is whole.
Rows keep the order of the file. Left out: nested fields, sharded downloads, streaming of files larger than memory.
"""

import contextlib
import dataclasses
import hashlib
import http.client
import io
import json
import os
import pathlib
import shutil
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, overload

from o1jax.config import ConfigError

LAYOUT = "1"  # part of the data hash: raise it when prepared folders change their meaning
TIMEOUT = 30.0  # seconds without a byte after which a download counts as unreachable


@dataclasses.dataclass(frozen=True)
class Source:
  """Where the JSONL file of one split lies."""

  location: str  # a path, or a URL
  sha256: str | None = None  # hex, of a URL's content; None: unchecked, and downloaded at every call


@dataclasses.dataclass(frozen=True)
class JsonlData:
  """Prepared splits."""

  splits: Mapping[str, "Rows"]
  folder: pathlib.Path  # holds the array_record files; others may cache beside them what the rows determine
  data_hash: str  # hex SHA-256 of the sources' content and of the fields that were read


class Rows(Sequence[dict[str, Any]]):
  """The rows of one split, in the file's order, each read from disk when asked for."""

  def __init__(self, records: Any, folder: pathlib.Path):
    self._records = records  # a tfds data source
    self._folder = folder

  def __len__(self) -> int:
    return len(self._records)

  @overload
  def __getitem__(self, index: int) -> dict[str, Any]: ...
  @overload
  def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
  def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
    """Row `index` (negative from the end), or a list of rows. Raises ConfigError naming the folder if unreadable."""
    if isinstance(index, slice):
      return [self[i] for i in range(*index.indices(len(self)))]
    row = range(len(self))[index]
    try:
      return {name: _plain(value) for name, value in self._records[row].items()}
    except RuntimeError as error:  # array_record checks its hashes
      raise ConfigError(
        f"{self._folder}: row {row + 1} cannot be read ({_line(error)}); delete the folder"
      ) from error

  def __iter__(self) -> Iterator[dict[str, Any]]:
    return (self[i] for i in range(len(self)))


def jsonl_splits(
  name: str, sources: Mapping[str, Source], fields: Mapping[str, type], data_dir: str, option: str
) -> JsonlData:
  """Prepares the JSONL files of `sources` (split -> source) once, and opens them.

  `name` is the data set's, in snake case; `fields` maps each field a row must have to `str` or `int` (64 bits), others
  are left out; `option` is the command line's name for the location, and stands in errors about it.
  Raises ConfigError naming the file and row (from 1) of a malformed line, a missing field or a wrong type; the file
  that is empty, missing or of another SHA-256; the URL that cannot be reached; the folder that cannot be written.
  """
  content = {split: _content(source, data_dir, option) for split, source in sources.items()}
  data_hash = _data_hash(name, content, fields)
  folder = pathlib.Path(data_dir) / name / data_hash[:16]
  if not folder.is_dir():
    rows = {split: _parse(sources[split].location, content[split], fields) for split in sources}
    _prepare(name, rows, fields, folder)
  return JsonlData(_open(folder, tuple(sources)), folder, data_hash)


def is_url(location: str) -> bool:
  """Whether `location` is a URL and not a path."""
  return "://" in location


def write_atomically(path: pathlib.Path, content: bytes) -> None:
  """Writes a file that other processes see whole or not at all. Raises ConfigError naming the path."""
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".writing-", delete=False) as file:
      beside = pathlib.Path(file.name)
      try:
        file.write(content)
        file.close()
        beside.chmod(0o644)  # a temporary file is its maker's alone
        beside.replace(path)
      finally:
        beside.unlink(missing_ok=True)
  except OSError as error:
    raise ConfigError(f"{path}: cannot be written: {_line(error)}") from error


def _data_hash(name: str, content: Mapping[str, bytes], fields: Mapping[str, type]) -> str:
  spec = {
    "layout": LAYOUT, "name": name, "fields": {field: kind.__name__ for field, kind in sorted(fields.items())},
    "splits": {split: hashlib.sha256(text).hexdigest() for split, text in sorted(content.items())},
  }  # fmt: skip
  return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()


def _content(source: Source, data_dir: str, option: str) -> bytes:
  """The file's bytes; those of a URL with a known hash are kept below `data_dir`."""
  if not is_url(source.location):
    try:
      return pathlib.Path(source.location).read_bytes()
    except OSError as error:
      raise ConfigError(f"{option}: {source.location} cannot be read: {error.strerror}") from error
  if source.sha256 is None:
    return _download(source.location, option)
  kept = pathlib.Path(data_dir) / "downloads" / f"{source.sha256}.jsonl"
  if kept.is_file():
    content = kept.read_bytes()
    if hashlib.sha256(content).hexdigest() == source.sha256:
      return content
  content = _download(source.location, option)
  found = hashlib.sha256(content).hexdigest()
  if found != source.sha256:
    raise ConfigError(f"{option}: {source.location} has SHA-256 {found}, expected {source.sha256}")
  write_atomically(kept, content)
  return content


def _download(url: str, option: str) -> bytes:
  try:
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
      return response.read()
  except (OSError, http.client.HTTPException, ValueError) as error:
    raise ConfigError(
      f"{option}: cannot download {url} ({_line(error)}); name a local file or folder"
    ) from error


def _parse(location: str, content: bytes, fields: Mapping[str, type]) -> list[dict[str, Any]]:
  """Rows of a JSONL file, checked. Only a line feed ends a row; one at the end of the file starts no other."""
  lines = content.removesuffix(b"\n").split(b"\n") if content.strip() else []
  if not lines:
    raise ConfigError(f"{location}: is empty")
  return [_parse_row(f"{location} row {number}", line, fields) for number, line in enumerate(lines, start=1)]


def _parse_row(where: str, line: bytes, fields: Mapping[str, type]) -> dict[str, Any]:
  try:
    row = json.loads(line.decode())
  except (ValueError, RecursionError) as error:
    raise ConfigError(f"{where}: is not JSON: {_line(error)}") from error
  if not isinstance(row, dict):
    raise ConfigError(f"{where}: is {type(row).__name__}, not an object")
  for field, kind in fields.items():
    if field not in row:
      raise ConfigError(f"{where}: has no field {field!r}")
    if type(row[field]) is not kind:
      raise ConfigError(f"{where}: field {field!r} is {type(row[field]).__name__}, not {kind.__name__}")
    _CHECKS[kind](f"{where}: field {field!r}", row[field])
  return {field: row[field] for field in fields}


def _check_text(where: str, value: str) -> None:
  try:
    value.encode()
  except UnicodeEncodeError as error:
    raise ConfigError(f"{where} holds half of a surrogate pair") from error


def _check_int(where: str, value: int) -> None:
  if not -(2**63) <= value < 2**63:
    raise ConfigError(f"{where} does not fit 64 bits")


_CHECKS: dict[type, Callable[[str, Any], None]] = {str: _check_text, int: _check_int}


def _prepare(
  name: str, rows: Mapping[str, list[dict]], fields: Mapping[str, type], folder: pathlib.Path
) -> None:
  """Writes `folder` by way of a temporary one beside it, and compares what it reads back with `rows`."""
  beside = None
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = pathlib.Path(tempfile.mkdtemp(prefix=".preparing-", dir=folder.parent))
    builder = _builder(name, rows, fields, beside)
    with contextlib.redirect_stdout(io.StringIO()):  # it announces the temporary folder
      builder.download_and_prepare()
    for split, read in _open(pathlib.Path(builder.data_dir), tuple(rows)).items():
      if list(read) != rows[split]:
        raise ConfigError(f"{folder}: split {split!r} reads back otherwise than it was written")
    _rename(pathlib.Path(builder.data_dir), folder)
  except (OSError, RuntimeError) as error:  # a full disk is either: array_record knows RuntimeError alone
    raise ConfigError(f"{folder}: cannot be prepared: {_line(error)}") from error
  finally:
    if beside is not None:
      shutil.rmtree(beside, ignore_errors=True)


def _rename(source: pathlib.Path, target: pathlib.Path) -> None:
  """Puts a finished folder in place; where another process was first, its folder holds the same rows and stays."""
  try:
    os.rename(source, target)
  except OSError:
    if not target.is_dir():
      raise


def _builder(
  name: str, rows: Mapping[str, list[dict]], fields: Mapping[str, type], data_dir: pathlib.Path
) -> Any:
  """A tensorflow-datasets builder of `rows` (split -> rows)."""
  import numpy as np
  import tensorflow_datasets as tfds  # seconds to import, and a run on generated problems never needs it

  kinds = {str: tfds.features.Text, int: lambda: tfds.features.Scalar(np.int64)}

  class Jsonl(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
      features = tfds.features.FeaturesDict({field: kinds[kind]() for field, kind in fields.items()})
      return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
      return {split: self._generate_examples(split) for split in rows}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
      return iter(enumerate(rows[split]))

  Jsonl.name = name
  tfds.disable_progress_bar()
  return Jsonl(data_dir=data_dir, file_format="array_record")


def _open(folder: pathlib.Path, splits: Sequence[str]) -> dict[str, Rows]:
  import tensorflow_datasets as tfds  # see _builder

  try:
    sources = tfds.builder_from_directory(folder).as_data_source()
    return {split: Rows(sources[split], folder) for split in splits}
  except Exception as error:  # tfds has an exception of its own for each file that may be damaged
    raise ConfigError(f"{folder}: cannot be read ({_line(error)}); delete the folder") from error


def _plain(value: Any) -> str | int:
  return value.decode() if isinstance(value, bytes) else int(value)


def _line(error: Exception) -> str:
  """An exception's message as one line of bounded length."""
  return " ".join(f"{type(error).__name__}: {error}".split())[:300]

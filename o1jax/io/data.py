"""JSONL and JSON files as tensorflow-datasets splits in array_record, without TensorFlow.

    file or URL -> bytes, SHA-256 -> rows checked one by one -> array_record in `<data_dir>/<name>/<data
    hash>` -> rows

A prepared folder is named after the hash of its content, so that a changed file is never served from an older
one. It is written beside, read back, compared and renamed, so that a folder that exists is complete.
A file holds a JSON object a line, or one array of them, perhaps gzipped. A byte order mark and blank lines
are skipped. Rows keep the order of the file and are counted from 1. A field that is a list is kept as JSON
text.
Left out: sharded downloads, streaming of files larger than memory.
"""

import contextlib
import dataclasses
import gzip
import hashlib
import http.client
import io
import json
import os
import pathlib
import shutil
import tempfile
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from o1jax.config import ConfigError
from o1jax.io.files import write_atomically
from o1jax.io.json_rows import KINDS, Fields, one_line, parse_rows

LAYOUT = "1"  # part of the data hash: raise it when prepared folders change their meaning
TIMEOUT = 30.0  # seconds without a byte after which a download counts as unreachable
GZIP = b"\x1f\x8b"  # how a packed file begins


@dataclasses.dataclass(frozen=True)
class Source:
  """Location of the JSONL file of one split."""

  location: str  # a path, or a URL
  sha256: str | None = None  # hex, of a URL's content; None: unchecked, and downloaded at every call


@dataclasses.dataclass(frozen=True)
class JsonlData:
  """Prepared splits."""

  splits: Mapping[str, list[dict[str, Any]]]  # rows in the file's order
  folder: pathlib.Path  # of the array_record files, and of caches of what the rows determine
  data_hash: str  # hex SHA-256 of the sources' content and of the fields that were read


def jsonl_splits(
  name: str, sources: Mapping[str, Source], fields: Fields, data_dir: str, option: str
) -> JsonlData:
  """Prepares the JSONL files of `sources` (split -> source) once, and opens them.

  name: the data set's, in snake case; fields: name -> type of each field that a row must have, others are
  left out. An `int` has 64 bits; a field that may be None may be absent, and is None then; the dicts of
  `list[dict]` hold any JSON.
  option: the command line's name for the location, for errors.
  Raises ConfigError naming the file and row (from 1) of a malformed line, a missing field or a wrong type;
  the file that is empty, missing or of another SHA-256; two splits of one content; the URL that cannot be
  reached; the folder that cannot be written.
  """
  content = {split: _text(source, data_dir, option) for split, source in sources.items()}
  if len(set(content.values())) < len(content):
    names = " and ".join(source.location for source in sources.values())
    raise ConfigError(f"{option}: {names} hold the same rows; name one file to hold out its last rows")
  data_hash = _data_hash(name, content, fields)
  folder = pathlib.Path(data_dir) / name / data_hash[:16]
  if not folder.is_dir():
    rows = {split: parse_rows(sources[split].location, content[split], fields) for split in sources}
    _prepare(name, rows, fields, folder)
  return JsonlData(_open(folder, tuple(sources), fields), folder, data_hash)


def jsonl_rows(
  source: Source, fields: Fields, data_dir: str, option: str
) -> tuple[list[dict[str, Any]], str]:
  """(rows, hex SHA-256) of one JSONL file, unprepared. Arguments and errors as in `jsonl_splits`."""
  content = _text(source, data_dir, option)
  return parse_rows(source.location, content, fields), hashlib.sha256(content).hexdigest()


def is_url(location: str) -> bool:
  """Whether `location` is a URL, else a path."""
  return "://" in location


def is_file(location: str) -> bool:
  """Whether `location` is a file: by the ending of its path, or because it exists on this disk."""
  path = urllib.parse.urlsplit(location).path if is_url(location) else location
  return path.lower().removesuffix(".gz").endswith((".jsonl", ".json")) or pathlib.Path(location).is_file()


def inside(folder: str, name: str) -> str:
  """Location of the file `name` in a folder; a URL's query is kept."""
  if not is_url(folder):
    return f"{folder.rstrip('/')}/{name}"
  parts = urllib.parse.urlsplit(folder)
  return urllib.parse.urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))


def _data_hash(name: str, content: Mapping[str, bytes], fields: Fields) -> str:
  spec = {
    "layout": LAYOUT, "name": name,
    "fields": {field: KINDS[kind].name for field, kind in sorted(fields.items())},
    "splits": {split: hashlib.sha256(text).hexdigest() for split, text in sorted(content.items())},
  }  # fmt: skip
  return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()


def _text(source: Source, data_dir: str, option: str) -> bytes:
  """The file's bytes, unpacked."""
  content = _content(source, data_dir, option)
  if not content.startswith(GZIP):
    return content
  try:
    return gzip.decompress(content)
  except (OSError, EOFError, zlib.error) as error:
    raise ConfigError(f"{option}: {source.location} cannot be unpacked: {one_line(error)}") from error


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
  sha256 = hashlib.sha256(content).hexdigest()
  if sha256 != source.sha256:
    raise ConfigError(f"{option}: {source.location} has SHA-256 {sha256}, expected {source.sha256}")
  write_atomically(kept, content)
  return content


def _download(url: str, option: str) -> bytes:
  try:
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
      return response.read()
  except (OSError, http.client.HTTPException, ValueError) as error:
    why = f"cannot download {url} ({one_line(error)}); name a local file or folder"
    raise ConfigError(f"{option}: {why}") from error


def _prepare(name: str, rows: Mapping[str, list[dict]], fields: Fields, folder: pathlib.Path) -> None:
  """Writes `folder` as a temporary one beside it, compares its rows with `rows`, and renames it."""
  beside = None
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = pathlib.Path(tempfile.mkdtemp(prefix=".preparing-", dir=folder.parent))
    builder = _builder(name, rows, fields, beside)
    with contextlib.redirect_stdout(io.StringIO()):  # it announces the temporary folder
      builder.download_and_prepare()
    for split, read in _open(pathlib.Path(builder.data_dir), tuple(rows), fields).items():
      if read != rows[split]:
        raise ConfigError(f"{folder}: split {split!r} reads back otherwise than it was written")
    _rename(pathlib.Path(builder.data_dir), folder)
  except (OSError, RuntimeError) as error:  # a full disk is either: array_record knows RuntimeError alone
    raise ConfigError(f"{folder}: cannot be prepared: {one_line(error)}") from error
  finally:
    if beside is not None:
      shutil.rmtree(beside, ignore_errors=True)


def _rename(source: pathlib.Path, target: pathlib.Path) -> None:
  """Renames a finished folder. Where another process was first, its folder holds the same rows and stays."""
  try:
    os.rename(source, target)
  except OSError:
    if not target.is_dir():
      raise


def _builder(name: str, rows: Mapping[str, list[dict]], fields: Fields, data_dir: pathlib.Path) -> Any:
  """A tensorflow-datasets builder of `rows` (split -> rows)."""
  import numpy as np
  import tensorflow_datasets as tfds  # seconds to import, and a run on generated problems never needs it

  number, text = tfds.features.Scalar(np.int64), tfds.features.Text()
  features = {field: number if kind is int else text for field, kind in fields.items()}
  write = {field: KINDS[kind].write for field, kind in fields.items()}

  class Jsonl(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
      described = tfds.features.FeaturesDict(features)
      return tfds.core.DatasetInfo(builder=self, features=described, disable_shuffling=True)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
      return {split: self._generate_examples(split) for split in rows}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
      return enumerate({field: write[field](value) for field, value in row.items()} for row in rows[split])

  Jsonl.name = name
  tfds.disable_progress_bar()
  return Jsonl(data_dir=data_dir, file_format="array_record")


def _open(folder: pathlib.Path, splits: Sequence[str], fields: Fields) -> dict[str, list[dict[str, Any]]]:
  """The rows of each split. Raises ConfigError naming the folder where it is damaged."""
  import tensorflow_datasets as tfds  # see _builder

  try:
    sources = tfds.builder_from_directory(folder).as_data_source()
    records = {split: sources[split] for split in splits}
  except Exception as error:  # tfds has an exception of its own for each file that may be damaged
    raise ConfigError(f"{folder}: cannot be read ({one_line(error)}); delete the folder") from error
  return {split: _read(records[split], folder, fields) for split in splits}


def _read(records: Sequence[Mapping[str, Any]], folder: pathlib.Path, fields: Fields) -> list[dict[str, Any]]:
  rows: list[dict[str, Any]] = []
  try:
    for i in range(len(records)):
      record = records[i]
      rows.append({name: KINDS[kind].read(record[name]) for name, kind in fields.items()})
  except RuntimeError as error:  # array_record checks its hashes
    why = f"row {len(rows) + 1} cannot be read ({one_line(error)}); delete the folder"
    raise ConfigError(f"{folder}: {why}") from error
  return rows

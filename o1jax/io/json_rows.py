"""Rows of JSON with typed fields, from a JSONL file or a JSON array. Errors name row and field."""

import codecs
import dataclasses
import decimal
import json
import math
import types
from collections.abc import Callable, Mapping
from typing import Any

from o1jax.config import ConfigError

MOST_DIGITS = 4_000  # of an integer that Python's int() reads under its default limit

# Type of a field, in Python's spelling; one of KINDS. A number where text may stand becomes its digits; a
# field that may be None may be absent; `object` is any JSON.
FieldType = type | types.GenericAlias | types.UnionType
Fields = Mapping[str, FieldType]


def parse_rows(location: str, content: bytes, fields: Fields) -> list[dict[str, Any]]:
  """Checked rows of a JSONL file or of a JSON array. Only a line feed ends a line."""
  content = content.removeprefix(codecs.BOM_UTF8)
  if content.lstrip().startswith(b"["):
    values = _loads(location, content)
    rows = [(f"{location} row {number}", value) for number, value in enumerate(values, start=1)]
  else:
    lines = [(at, line) for at, line in enumerate(content.split(b"\n"), start=1) if line.strip()]
    rows = []
    for number, (at, line) in enumerate(lines, start=1):
      name = f"{location} row {number}" + (f" (line {at})" if at != number else "")
      rows.append((name, _loads(name, line)))
  if not rows:
    raise ConfigError(f"{location}: is empty")
  return [_parse_row(name, value, fields) for name, value in rows]


def _loads(name: str, text: bytes) -> Any:
  try:
    return json.loads(text.decode(), parse_int=_parse_integer)
  except (ValueError, RecursionError) as error:
    raise ConfigError(f"{name}: is not JSON: {one_line(error)}") from error


def _parse_integer(digits: str) -> int | decimal.Decimal:
  """An integer of JSON; a Decimal, which no field takes, where Python refuses its length."""
  return int(digits) if len(digits) <= MOST_DIGITS else decimal.Decimal(digits)


def _parse_row(name: str, row: Any, fields: Fields) -> dict[str, Any]:
  if not isinstance(row, dict):
    raise ConfigError(f"{name}: is {type(row).__name__}, not an object")
  parsed = {}
  for field, kind in fields.items():
    if field not in row and not KINDS[kind].optional:
      raise ConfigError(f"{name}: has no field {field!r}")
    parsed[field] = KINDS[kind].parse(f"{name}: field {field!r}", row.get(field))
  return parsed


# Parsers of fields: (how errors begin, value of JSON) -> the value that is kept. They raise ConfigError.


def _typed(name: str, value: Any, kind: type) -> Any:
  if type(value) is not kind:
    raise ConfigError(f"{name} is {type(value).__name__}, not {kind.__name__}")
  return value


def _parse_str(name: str, value: Any) -> str:
  _typed(name, value, str)
  try:
    value.encode()
  except UnicodeEncodeError as error:
    raise ConfigError(f"{name} holds half of a surrogate pair") from error
  return value


def _parse_int(name: str, value: Any) -> int:
  if type(value) is not decimal.Decimal:
    _typed(name, value, int)
  if not -(2**63) <= value < 2**63:
    raise ConfigError(f"{name} does not fit 64 bits")
  return value


def _parse_text_or_number(name: str, value: Any) -> str:
  """Text as it is, a number as its digits: 1e-05 is 0.00001."""
  if type(value) not in (int, float):
    return _parse_str(name, value)
  if not math.isfinite(value):
    raise ConfigError(f"{name} is {value}, no number")
  return f"{decimal.Decimal(repr(value)):f}"


def _or_none(parse: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
  return lambda name, value: None if value is None else parse(name, value)


def _parse_texts(name: str, value: Any) -> list[str]:
  _typed(name, value, list)
  return [_parse_str(f"{name} item {place}", part) for place, part in enumerate(value, start=1)]


def _parse_objects(name: str, value: Any) -> list[dict]:
  _typed(name, value, list)
  for place, part in enumerate(value, start=1):
    _parse_json(f"{name} item {place}", _typed(f"{name} item {place}", part, dict))
  return value


def _parse_json(name: str, value: Any) -> Any:
  try:
    _parse_str(name, json.dumps(value, ensure_ascii=False, allow_nan=False))
  except (TypeError, ValueError, RecursionError) as error:
    raise ConfigError(f"{name}: {one_line(error)}") from error
  return value


def _from_json(record: bytes) -> Any:
  return json.loads(record.decode())


@dataclasses.dataclass(frozen=True)
class FieldKind:
  """A type of field: its name in data hashes, its parser, and its way into an array_record and back."""

  name: str
  parse: Callable[[str, Any], Any]
  write: Callable[[Any], str | int] = json.dumps
  read: Callable[[Any], Any] = _from_json
  optional: bool = False  # may be absent


KINDS: dict[FieldType, FieldKind] = {
  str: FieldKind("str", _parse_str, str, bytes.decode),
  int: FieldKind("int", _parse_int, int, int),
  str | float: FieldKind("str | float", _parse_text_or_number, str, bytes.decode),
  str | None: FieldKind("str | None", _or_none(_parse_str), optional=True),
  str | float | None: FieldKind("str | float | None", _or_none(_parse_text_or_number), optional=True),
  list[str]: FieldKind("list[str]", _parse_texts),
  list[str] | None: FieldKind("list[str] | None", _or_none(_parse_texts), optional=True),
  list[dict]: FieldKind("list[dict]", _parse_objects),
  object: FieldKind("object", _parse_json),
}


def one_line(error: Exception) -> str:
  """An exception's message as one line of bounded length."""
  return " ".join(f"{type(error).__name__}: {error}".split())[:300]

"""Rows of JSON with checked fields: what a JSONL file or a JSON array holds, each fault named by its row and field.

text -> objects, a line each or in one array -> fields of their types -> a record's values, and back
"""

import codecs
import dataclasses
import decimal
import json
import math
import types
from collections.abc import Callable, Mapping
from typing import Any

from o1jax.config import ConfigError

MOST_DIGITS = 4_000  # of a whole number that Python's int() reads whatever its settings' usual values

# What a field holds, as Python spells it, one of `KINDS`. A number where text may stand becomes its digits; a field that
# may be None may be absent; `object` is any JSON.
FieldType = type | types.GenericAlias | types.UnionType
Fields = Mapping[str, FieldType]


def parse_rows(location: str, content: bytes, fields: Fields) -> list[dict[str, Any]]:
  """Rows of a JSONL file or of a JSON array, checked. Only a line feed ends a line."""
  content = content.removeprefix(codecs.BOM_UTF8)
  if content.lstrip().startswith(b"["):
    values = _loads(location, content)
    rows = [(f"{location} row {number}", value) for number, value in enumerate(values, start=1)]
  else:
    lines = [(at, line) for at, line in enumerate(content.split(b"\n"), start=1) if line.strip()]
    rows = []
    for number, (at, line) in enumerate(lines, start=1):
      where = f"{location} row {number}" + (f" (line {at})" if at != number else "")
      rows.append((where, _loads(where, line)))
  if not rows:
    raise ConfigError(f"{location}: is empty")
  return [_checked(where, value, fields) for where, value in rows]


def _loads(where: str, text: bytes) -> Any:
  try:
    return json.loads(text.decode(), parse_int=_whole)
  except (ValueError, RecursionError) as error:
    raise ConfigError(f"{where}: is not JSON: {one_line(error)}") from error


def _whole(digits: str) -> int | decimal.Decimal:
  """A whole number of JSON; as a Decimal where Python refuses the length, which no field that is read takes."""
  return int(digits) if len(digits) <= MOST_DIGITS else decimal.Decimal(digits)


def _checked(where: str, row: Any, fields: Fields) -> dict[str, Any]:
  if not isinstance(row, dict):
    raise ConfigError(f"{where}: is {type(row).__name__}, not an object")
  for field, kind in fields.items():
    if field not in row and not KINDS[kind].optional:
      raise ConfigError(f"{where}: has no field {field!r}")
    KINDS[kind].check(f"{where}: field {field!r}", row.get(field))
  return {field: KINDS[kind].take(row.get(field)) for field, kind in fields.items()}


def _check_type(where: str, value: Any, kind: type) -> None:
  if type(value) is not kind:
    raise ConfigError(f"{where} is {type(value).__name__}, not {kind.__name__}")


def _check_str(where: str, value: Any) -> None:
  _check_type(where, value, str)
  try:
    value.encode()
  except UnicodeEncodeError as error:
    raise ConfigError(f"{where} holds half of a surrogate pair") from error


def _check_int(where: str, value: Any) -> None:
  if type(value) is not decimal.Decimal:
    _check_type(where, value, int)
  if not -(2**63) <= value < 2**63:
    raise ConfigError(f"{where} does not fit 64 bits")


def _check_text_or_number(where: str, value: Any) -> None:
  if type(value) not in (int, float):
    _check_str(where, value)
  elif not math.isfinite(value):
    raise ConfigError(f"{where} is {value}, no number")


def _or_none(check: Callable[[str, Any], None]) -> Callable[[str, Any], None]:
  def check_or_none(where: str, value: Any) -> None:
    if value is not None:
      check(where, value)

  return check_or_none


def _check_texts(where: str, value: Any) -> None:
  _check_type(where, value, list)
  for place, part in enumerate(value, start=1):
    _check_str(f"{where} item {place}", part)


def _check_objects(where: str, value: Any) -> None:
  _check_type(where, value, list)
  for place, part in enumerate(value, start=1):
    _check_type(f"{where} item {place}", part, dict)
    _check_json(f"{where} item {place}", part)


def _check_json(where: str, value: Any) -> None:
  try:
    _check_str(where, json.dumps(value, ensure_ascii=False, allow_nan=False))
  except (TypeError, ValueError, RecursionError) as error:
    raise ConfigError(f"{where}: {one_line(error)}") from error


def digits(value: str | int | float | None) -> str | None:
  """Text as it is, and a number as its digits: 1e-05 is 0.00001."""
  return f"{decimal.Decimal(repr(value)):f}" if isinstance(value, int | float) else value


def _same(value: Any) -> Any:
  return value


@dataclasses.dataclass(frozen=True)
class FieldKind:
  """A type of field: its name in hashes, its check of what JSON gave, what is kept of that, its way into a record and back."""

  name: str
  check: Callable[[str, Any], None]  # (how errors begin, value): raises ConfigError
  write: Callable[[Any], str | int]
  read: Callable[[Any], Any]
  optional: bool = False
  take: Callable[[Any], Any] = _same


def _from_json(record: bytes) -> Any:
  return json.loads(record.decode())


KINDS: dict[FieldType, FieldKind] = {
  str: FieldKind("str", _check_str, str, bytes.decode),
  int: FieldKind("int", _check_int, int, int),
  str | float: FieldKind("str | float", _check_text_or_number, str, bytes.decode, take=digits),
  str | None: FieldKind("str | None", _or_none(_check_str), json.dumps, _from_json, optional=True),
  str | float | None: FieldKind(
    "str | float | None", _or_none(_check_text_or_number), json.dumps, _from_json, optional=True, take=digits
  ),
  list[str]: FieldKind("list[str]", _check_texts, json.dumps, _from_json),
  list[str] | None: FieldKind(
    "list[str] | None", _or_none(_check_texts), json.dumps, _from_json, optional=True
  ),
  list[dict]: FieldKind("list[dict]", _check_objects, json.dumps, _from_json),
  object: FieldKind("object", _check_json, json.dumps, _from_json),
}


def one_line(error: Exception) -> str:
  """An exception's message as one line of bounded length."""
  return " ".join(f"{type(error).__name__}: {error}".split())[:300]

"""What tests of configurations change in a valid one, and how each change is refused."""

import dataclasses
from typing import Any


def changed(value: Any, changes: dict[str, Any]) -> Any:
  """A copy of a nested dataclass with the fields under dotted names replaced."""
  for name, item in changes.items():
    head, _, rest = name.partition(".")
    item = changed(vars(value)[head], {rest: item}) if rest else item
    value = dataclasses.replace(value, **{head: item})
  return value


def positive(*names: str) -> list[tuple[dict[str, Any], str]]:
  return [({name: 0}, f"{name}: must be positive") for name in names]


def not_negative(*names: str) -> list[tuple[dict[str, Any], str]]:
  return [({name: -1}, f"{name}: must not be negative") for name in names]

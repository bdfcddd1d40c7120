"""Errors of a configuration, its fields by dotted name, and the declaration of a coefficient.

coef: float = traced(0.0, term="kl") -> traced_values, static_config, active_terms
"""

import dataclasses
import math
import unicodedata
from typing import Any, Iterable, Iterator, Mapping, TypeVar


class ConfigError(ValueError):
  """A setting or an input that cannot work. One line names the field, file or row; the CLI exits with 2."""


def require(condition: bool, field: str, problem: str) -> None:
  """Raises ConfigError `field: problem` unless `condition`."""
  if not condition:
    raise ConfigError(f"{field}: {problem}")


# Beyond these, logits divided by a temperature overflow float32 or sampling is uniform.
COLDEST, HOTTEST = 1e-4, 1e4


def require_temperature(value: float, field: str, *, greedy: bool) -> None:
  """Raises ConfigError unless `value` is a sampling temperature, or 0 where `greedy` decoding is a choice."""
  why = f"must lie in [{COLDEST:g}, {HOTTEST:g}]{', or be 0, greedy' if greedy else ''}, is {value}"
  require(COLDEST <= value <= HOTTEST or greedy and value == 0, field, why)


def is_name(text: str) -> bool:
  """Whether a text can name a folder and be shown on one line: no separator, no control or line break."""
  broken = any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in text)
  return text not in ("", ".", "..") and "/" not in text and not broken


def validate_finite(value: Any, field: str) -> None:
  """Raises ConfigError naming the first number of a configuration that is a NaN or an infinity.

  `field` is the dotted name of `value`, "" for that of a whole run.
  """
  if dataclasses.is_dataclass(value):
    for name, item in vars(value).items():
      validate_finite(item, f"{field}.{name}".lstrip("."))
  elif isinstance(value, tuple):
    for i, item in enumerate(value):
      validate_finite(item, f"{field}[{i}]")
  elif isinstance(value, float):
    require(math.isfinite(value), field, f"must be finite, is {value}")


Config = TypeVar("Config")
Value = TypeVar("Value")


def replaced(config: Config, fields: Mapping[str, Any]) -> Config:
  """The configuration with fields replaced by dotted name, as in {"rl.kl.coef": 0.1}; nothing is checked.

  Raises ConfigError naming a field that there is not.
  """
  for name, value in fields.items():
    config = _put(config, name.split("."), value, name)
  return config


def _put(config: Any, path: list[str], value: Any, name: str) -> Any:
  field, *rest = path
  known = dataclasses.is_dataclass(config) and field in vars(config)
  require(known, name, "is no field")
  inner = _put(vars(config)[field], rest, value, name) if rest else value
  return dataclasses.replace(config, **{field: inner})


# Declarations


def traced(default: Value, term: str | None = None) -> Value:
  """A field whose number compiled programs take as an argument: changing it never recompiles. None is static.

  `term`: the loss term or penalty whose coefficient it is, which exists where the number is not 0.
  """
  return dataclasses.field(default=default, metadata={"role": "traced", "term": term})


def host(default: Value) -> Value:
  """A field that only the host reads: no compiled program depends on it."""
  return dataclasses.field(default=default, metadata={"role": "host"})


def _walk(config: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field, Any]]:
  """(dotted name, field, value) of all fields of a configuration and of the groups in it."""
  for field in dataclasses.fields(config):
    name, value = prefix + field.name, vars(config)[field.name]
    yield name, field, value
    if dataclasses.is_dataclass(value):
      yield from _walk(value, f"{name}.")


def traced_values(config: Any) -> dict[str, float]:
  """The traced fields that are not None, by dotted name."""
  return {
    name: value
    for name, field, value in _walk(config)
    if field.metadata.get("role") == "traced" and value is not None
  }


def static_config(config: Config) -> Config:
  """The configuration as compiled programs see it: traced and host fields are replaced by their defaults.

  A traced field that is None stays None, and one that is not does not become it: its presence is static.
  """
  plain: dict[str, Any] = {}
  for name, field, value in _walk(config):
    role = field.metadata.get("role")
    if role == "host" or (role == "traced" and value is not None):
      plain[name] = field.default
    if role == "traced" and value is not None and field.default is None:
      plain[name] = 0.0
  return replaced(config, plain)


def active_terms(configs: Iterable[Any]) -> frozenset[str]:
  """The terms that any configuration has: a population shares one program, in which 0 is a coefficient."""
  return frozenset(
    field.metadata["term"]
    for config in configs
    for _, field, value in _walk(config)
    if field.metadata.get("term") and value
  )

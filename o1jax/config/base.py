"""How a setting or an input that cannot work is told, and how one is replaced by its dotted name."""

import dataclasses
import math
import unicodedata
from typing import Any, Mapping, TypeVar


class ConfigError(ValueError):
  """A setting or an input that cannot work. One line that names the field, file or row; the CLI exits with 2."""


def require(condition: bool, field: str, problem: str) -> None:
  """Raises ConfigError `field: problem` unless `condition`."""
  if not condition:
    raise ConfigError(f"{field}: {problem}")


# Beyond these, logits divided by a temperature overflow float32 or sampling is uniform.
COLDEST, HOTTEST = 1e-4, 1e4


def require_temperature(value: float, field: str, *, greedy: bool) -> None:
  """Raises ConfigError unless `value` is a temperature to sample at, or 0 where `greedy` decoding is a choice."""
  told = f"must lie in [{COLDEST:g}, {HOTTEST:g}]{', or be 0, greedy' if greedy else ''}, is {value}"
  require(COLDEST <= value <= HOTTEST or greedy and value == 0, field, told)


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


def replaced(config: Config, fields: Mapping[str, Any]) -> Config:
  """The configuration with the fields under these dotted names replaced, as in {"rl.kl.coef": 0.1}; nothing is checked.

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

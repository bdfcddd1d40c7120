"""How a setting or an input that cannot work is told."""


class ConfigError(ValueError):
  """A setting or an input that cannot work. One line that names the field, file or row; the CLI exits with 2."""


def require(condition: bool, field: str, problem: str) -> None:
  """Raises ConfigError `field: problem` unless `condition`."""
  if not condition:
    raise ConfigError(f"{field}: {problem}")

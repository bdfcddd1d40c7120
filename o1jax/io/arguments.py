"""Arguments parsed into a dataclass by tyro, and a mistake in them as one line that names the option."""

import dataclasses
import difflib
from collections.abc import Iterator
from typing import Any, TypeVar

import tyro
from tyro import _errors as tyro_errors  # not yet public there, so that pyproject.toml pins tyro exactly

from o1jax.config import ConfigError
from o1jax.io.run_config import optional_structs

Args = TypeVar("Args")


def parse_arguments(
  prog: str, kind: type[Args], arguments: list[str], default: Args | None = None, about: str | None = None
) -> Args:
  """Parses `arguments` into `kind`, starting from `default`. Raises ConfigError naming the wrong option."""
  known = list(_flags(default)) if default is not None else [f"--{name}" for name in kind.__annotations__]

  def refuse(event: tyro_errors.ParseErrorEvent) -> None:
    raise ConfigError(_explain(event, known))

  with tyro_errors.on_parse_error(refuse):
    return tyro.cli(
      kind,
      prog=prog,
      args=arguments,
      default=tyro.MISSING_NONPROP if default is None else default,
      description=about,
      use_underscores=True,
      config=(tyro.conf.AvoidSubcommands,),
    )


def _flags(value: Any, prefix: str = "--") -> Iterator[str]:
  """Options of a dataclass instance; the fields of `config` and `base` have no prefix."""
  structs = dict(optional_structs(type(value)))
  for field in dataclasses.fields(value):
    item = vars(value)[field.name]
    if item is None and field.name in structs:
      item = structs[field.name]()  # no option by itself: naming one of its fields makes it
    if dataclasses.is_dataclass(item):
      yield from _flags(item, prefix if field.name in ("config", "base") else f"{prefix}{field.name}.")
    else:
      yield f"{prefix}{field.name}"


def _explain(event: tyro_errors.ParseErrorEvent, known: list[str]) -> str:
  """One line about a parse error, naming the option."""
  match event:
    case tyro_errors.UnrecognizedArgs():
      return _explain_unrecognized(event, known)
    case tyro_errors.InstantiationFailure(argument=None):
      return event.message
    case tyro_errors.InstantiationFailure(argument=argument) if argument is not None:
      return f"{_name(argument)}: wants {argument.lowered.metavar}: {event.message.splitlines()[0]}"
    case tyro_errors.InvalidChoice():
      return f"{_name(event.argument)}: wants one of {', '.join(event.choices)}, has {event.value!r}"
    case tyro_errors.BadValue():
      return f"{_name(event.argument)}: wants {event.argument.lowered.metavar}"
    case tyro_errors.MissingArgs():
      names = ", ".join(_name(missing.arg) for missing in event.missing_arguments)
      return f"{names}: is missing (see {event.prog} --help)"
  return f"{event.prog}: {type(event).__name__}"


def _explain_unrecognized(event: Any, known: list[str]) -> str:
  options = [token for token in event.tokens if token.startswith("-")]
  if not options:
    return f"{event.tokens[0]}: unexpected argument (see {event.prog} --help)"
  option = options[0].partition("=")[0]
  spelt = "--" + option.lstrip("-").replace("-", "_")  # both spellings are accepted
  close = difflib.get_close_matches(spelt, known, n=1, cutoff=0.75)
  hint = f"did you mean {close[0]}?" if close else f"see {event.prog} --help"
  return f"{option}: no such field; {hint}"


def _name(argument: Any) -> str:
  return argument.lowered.metavar if argument.is_positional() else argument.lowered.name_or_flags[0]

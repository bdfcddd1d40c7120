"""Where a configuration comes from: an experiment file, or the `config.json` of a run, written and read exactly.

A dataclass becomes an object, a tuple a list. Where a field's type is a union of several dataclasses (the task),
its object carries the class's name under "type". Reading checks every type, so that it also finds the wrong types
that an experiment's Python may hold.
"""

import collections.abc
import dataclasses
import functools
import importlib.util
import json
import logging
import math
import numbers
import operator
import os
import pathlib
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from o1jax.config import (
  CheckpointConfig,
  ConfigError,
  LogConfig,
  MeshConfig,
  SweepConfig,
  TrainConfig,
  replaced,
  require,
)

TAG = "type"
Struct = typing.TypeVar("Struct")
META = "meta"  # beside the fields in config.json: commit, versions, device, data hash; no part of the configuration
PATHS = (
  "path",
  "data_dir",
  "tokenizer",
  "template",
  "instruction",
  "decontaminate",
)  # fields of a task that name files
_LOG = logging.getLogger(__name__)


def config_to_dict(config: TrainConfig) -> dict[str, Any]:
  """The configuration as what `json.dump` takes. `config_from_dict` gives back an equal one."""
  return _encode(TrainConfig, config)


def config_from_dict(data: dict[str, Any]) -> TrainConfig:
  """Reads what `config_to_dict` wrote. Raises ConfigError naming the first unknown, missing or ill-typed field.

  Only types are checked here; `TrainConfig.validate` checks values.
  """
  return _decode(TrainConfig, data, "")


def with_overrides(config: TrainConfig, overrides: Mapping[str, Any]) -> TrainConfig:
  """The configuration with the fields under these dotted names replaced. Raises ConfigError naming a wrong one.

  A group that is replaced whole is given as its dataclass or its JSON object, a single field as its value.
  """
  return config_from_dict(config_to_dict(replaced(config, overrides)))


def overrides_to_dict(config: TrainConfig, names: Sequence[str]) -> dict[str, Any]:
  """What stands in the fields under these dotted names, as what `json.dump` takes."""
  data = config_to_dict(config)
  return {name: functools.reduce(operator.getitem, name.split("."), data) for name in names}


def struct_from_dict(
  kind: type[Struct], data: Any, where: str, field: str = "", quiet: bool = False
) -> Struct:
  """A dataclass of the configuration from what another version may have written of it into the file `where`.

  Fields that it lacks take their defaults, those that there are no more are left aside; unless `quiet`, a line
  of the log names both. `field` is the dotted name of `data` in the file. Raises ConfigError naming the file and
  the field that is wrong.
  """
  missing: list[str] = []
  unknown: list[str] = []
  data = _of_this_version(kind, data, field, missing, unknown)
  reasons = {"missing, so that the default holds": missing, "no field, left aside": unknown}
  if (missing or unknown) and not quiet:
    lines = [f"{', '.join(names)} ({what})" for what, names in reasons.items() if names]
    _LOG.warning("%s: of another version: %s", where, "; ".join(lines))
  try:
    return _decode(kind, data, field)
  except ConfigError as error:
    raise ConfigError(f"{where}: {error}") from error


def _of_this_version(kind: Any, value: Any, field: str, missing: list[str], unknown: list[str]) -> Any:
  """What JSON holds of a `kind`, with its fields and no others; `missing` and `unknown` take the names of the rest.

  What fits no dataclass stays as it is: reading it tells what is wrong.
  """
  if isinstance(value, list):
    items = _item_kinds(kind, len(value))
    if len(items) != len(value):
      return value
    named = [(part, item, f"{field}[{i}]") for i, (part, item) in enumerate(zip(items, value))]
    return [_of_this_version(*part, missing, unknown) for part in named]
  structs = _structs(kind)
  tagged = len(structs) > 1
  if isinstance(value, dict) and tagged:
    structs = [struct for struct in structs if struct.__name__ == value.get(TAG)]
  if not isinstance(value, dict) or len(structs) != 1:
    return value
  hints, prefix = typing.get_type_hints(structs[0]), f"{field}." if field else ""
  unknown += [f"{prefix}{name}" for name in value if name not in hints and not (tagged and name == TAG)]
  kept = {TAG: value[TAG]} if tagged else {}
  for part in dataclasses.fields(structs[0]):
    if part.name in value:
      kept[part.name] = _of_this_version(
        hints[part.name], value[part.name], f"{prefix}{part.name}", missing, unknown
      )
    elif part.default is not dataclasses.MISSING:
      missing.append(f"{prefix}{part.name}")
      kept[part.name] = _encode(hints[part.name], part.default)
  return kept


def read_run_config(run: str, quiet: bool = False) -> TrainConfig:
  """The configuration in `RUN/config.json`, which another version may have written (`struct_from_dict`).

  Raises ConfigError naming the file, and the field where one is wrong.
  """
  path = pathlib.Path(run) / "config.json"
  require(path.exists(), str(path), f"no such file; is {run} a run's folder?")
  data = read_json(path)
  data.pop(META, None)
  return struct_from_dict(TrainConfig, data, str(path), quiet=quiet)


def expanded(config: TrainConfig) -> TrainConfig:
  """The configuration with `~` in `out` and in the names of the task's files written out."""
  task = _each_file(config.task, os.path.expanduser, "task")
  return dataclasses.replace(config, out=os.path.expanduser(config.out), task=task)


def resolved_paths(config: TrainConfig) -> dict[str, str]:
  """Name -> absolute name of each file of the task that is given relative to the working directory."""
  found: dict[str, str] = {}

  def keep(name: str) -> str:
    if not os.path.isabs(name):
      found[name] = os.path.abspath(name)
    return name

  _each_file(config.task, keep, "task")
  return found


def located(config: TrainConfig, run: pathlib.Path) -> TrainConfig:
  """The configuration with the task's files where the config.json of `run` says that they were, if they still are."""
  path = run / "config.json"
  paths = read_json(path).get(META, {}).get("paths", {}) if path.is_file() else {}
  still = {name: there for name, there in paths.items() if os.path.exists(_file_of(there))}
  return dataclasses.replace(config, task=_each_file(config.task, lambda name: still.get(name, name), "task"))


def _each_file(value: Any, change: Callable[[str], str], field: str) -> Any:
  """`value`, of the dotted name `field`, with the names of files in it changed; a URL stays."""
  if isinstance(value, str):
    named = field.rpartition(".")[2].partition("[")[0] in PATHS and "://" not in value
    shipped = field.endswith((".template", ".instruction")) and ".toml" not in value
    return change(value) if named and not shipped else value
  if isinstance(value, tuple):
    return tuple(_each_file(item, change, f"{field}[{i}]") for i, item in enumerate(value))
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    parts = {name: _each_file(item, change, f"{field}.{name}") for name, item in vars(value).items()}
    return dataclasses.replace(value, **parts)
  return value


def _file_of(name: str) -> str:
  """The file in `FILE#FIELD` and `FILE.toml:NAME`."""
  file = name.partition("#")[0]
  return file.rpartition(":")[0] if ".toml:" in file else file


RESUMED = (
  "model",
  "task",
  "seed",
  "sft",
  "rl",
  "eval",
  "diagnostics",
  "controls",
)  # what a resumed run must not change


def check_same(now: TrainConfig, before: TrainConfig, folder: pathlib.Path) -> None:
  """Raises ConfigError naming the first field in which a resumed run differs from what it was started with.

  Mesh, log and checkpoint settings may differ: they say how a run is made, and not what it is.
  """
  for name in RESUMED:
    field = _difference(vars(now)[name], vars(before)[name], name)
    require(field is None, str(folder), f"was started with another `{field}`")


def _difference(a: Any, b: Any, field: str) -> str | None:
  """The dotted name of the first field in which two values differ."""
  if a == b:
    return None
  if type(a) is not type(b) or not dataclasses.is_dataclass(a):
    return field
  found = (_difference(vars(a)[f.name], vars(b)[f.name], f"{field}.{f.name}") for f in dataclasses.fields(a))
  return next(name for name in found if name is not None)


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """The object in a JSON file. Raises ConfigError naming the file where it holds none."""
  try:
    data = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise ConfigError(f"{path}: cannot be read as JSON: {error}") from error
  require(isinstance(data, dict), str(path), "must hold one JSON object")
  return data


def optional_structs(kind: type) -> list[tuple[str, type]]:
  """The fields of a dataclass that hold one dataclass or None, with the dataclass."""
  hints = typing.get_type_hints(kind)
  return [
    (name, structs[0])
    for name, hint in hints.items()
    if type(None) in typing.get_args(hint) and len(structs := _structs(hint)) == 1
  ]


def _structs(kind: Any) -> list[type]:
  """The dataclasses among the members of a union, or the type itself where it is one."""
  members = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
  return [member for member in members if isinstance(member, type) and dataclasses.is_dataclass(member)]


def _encode(kind: Any, value: Any) -> Any:
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    hints = typing.get_type_hints(type(value))
    fields = {f.name: _encode(hints[f.name], vars(value)[f.name]) for f in dataclasses.fields(value)}
    return {TAG: type(value).__name__} | fields if len(_structs(kind)) > 1 else fields
  if isinstance(value, (tuple, list)):
    return [_encode(item, part) for item, part in zip(_item_kinds(kind, len(value)), value)]
  return value


def _item_kinds(kind: Any, count: int) -> tuple[Any, ...]:
  """The types of the `count` items of a tuple, or of a tuple that may be None."""
  members = [member for member in (kind, *typing.get_args(kind)) if typing.get_origin(member) is tuple]
  items = typing.get_args(members[0]) if members else (Any, ...)
  return (items[0],) * count if items[-1] is Ellipsis else items


def _decode(kind: Any, value: Any, field: str) -> Any:
  origin = typing.get_origin(kind)
  if origin in (typing.Union, types.UnionType):
    return _decode_union(kind, value, field)
  if dataclasses.is_dataclass(kind):
    return _decode_struct(kind, value, field)
  if origin is not None:
    return _ORIGINS[origin](kind, value, field)
  # JSON and Python alike write 1 for 1.0; the other way round, and a bool for a number, is a mistake. numpy's count too.
  number = _NUMBERS.get(kind)
  accepted = type(value) is kind or (number and isinstance(value, number) and not isinstance(value, bool))
  require(bool(accepted), field, f"wants {_spell(kind)}, has {value!r}")
  require(kind is not float or _is_finite(value), field, f"must be finite, is {value!r}")
  bits = 32 if "seed" in field.rpartition(".")[2] else 31
  require(kind is not int or -(2**31) <= value < 2**bits, field, f"must lie in [-2**31, 2**{bits})")
  return kind(value)


def _is_finite(value: numbers.Real) -> bool:
  """Whether a number is one as a float, which a large enough int is not."""
  try:
    return math.isfinite(float(value))
  except OverflowError:
    return False


def _decode_union(kind: Any, value: Any, field: str) -> Any:
  members = [member for member in typing.get_args(kind) if member is not types.NoneType]
  if value is None and len(members) < len(typing.get_args(kind)):
    return None
  if len(members) == 1:
    return _decode(members[0], value, field)
  by_name = {member.__name__: member for member in members}
  require(isinstance(value, dict), field, f"wants {_spell(kind)}, has {value!r}")
  require(
    value.get(TAG) in by_name, f"{field}.{TAG}", f"wants one of {', '.join(by_name)}, has {value.get(TAG)!r}"
  )
  return _decode(by_name[value[TAG]], {name: item for name, item in value.items() if name != TAG}, field)


def _decode_struct(kind: Any, value: Any, field: str) -> Any:
  require(
    isinstance(value, dict), field or kind.__name__, f"wants the fields of {kind.__name__}, has {value!r}"
  )
  hints = typing.get_type_hints(kind)
  names = [f.name for f in dataclasses.fields(kind)]
  prefix = f"{field}." if field else ""
  for name in value:
    require(name in names, f"{prefix}{name}", f"is no field of {kind.__name__}")
  for name in names:
    require(name in value, f"{prefix}{name}", "is missing")
  return kind(**{name: _decode(hints[name], value[name], f"{prefix}{name}") for name in names})


def _decode_tuple(kind: Any, value: Any, field: str) -> tuple[Any, ...]:
  require(isinstance(value, (list, tuple)), field, f"wants {_spell(kind)}, has {value!r}")
  items = _item_kinds(kind, len(value))
  require(len(items) == len(value), field, f"wants {len(items)} values, has {len(value)}")
  return tuple(_decode(item, part, f"{field}[{i}]") for i, (item, part) in enumerate(zip(items, value)))


def _decode_mapping(kind: Any, value: Any, field: str) -> Any:
  """A mapping whose values may be anything: what they stand for decides what they must be."""
  named = isinstance(value, Mapping) and all(isinstance(name, str) for name in value)
  require(named, field, f"wants names with values, has {value!r}")
  return dict(value)


def _decode_literal(kind: Any, value: Any, field: str) -> Any:
  options = typing.get_args(kind)
  require(value in options, field, f"wants one of {', '.join(map(str, options))}, has {value!r}")
  return value


_NUMBERS: dict[Any, type] = {int: numbers.Integral, float: numbers.Real}
_ORIGINS: dict[Any, Callable[[Any, Any, str], Any]] = {
  tuple: _decode_tuple,
  typing.Literal: _decode_literal,
  collections.abc.Mapping: _decode_mapping,
}


def _spell(kind: Any) -> str:
  return (
    kind.__name__
    if isinstance(kind, type) and typing.get_origin(kind) is None
    else re.sub(r"o1jax\.config\.\w+\.", "", str(kind))
  )


def load_experiment(path: str) -> TrainConfig:
  """Imports an experiment file and returns what its `get_config()` returns. Raises ConfigError naming the file.

  An unknown field in the file is a TypeError of its dataclass, and becomes a ConfigError like any other mistake there.
  """
  return _load(path, "get_config", TrainConfig)


def load_sweep(path: str, *, full: bool) -> SweepConfig:
  """Imports an experiment file and returns what its `sweep(full)` returns, its types checked. Raises as `load_experiment`."""
  declared = _load(path, "sweep", SweepConfig, full)
  return _decode(SweepConfig, _encode(SweepConfig, declared), "")


Loaded = typing.TypeVar("Loaded")


def _load(path: str, name: str, kind: type[Loaded], *arguments: Any) -> Loaded:
  """What the function `name` of an experiment file returns."""
  if not pathlib.Path(path).is_file():
    raise ConfigError(f"{path}: no such experiment file")
  spec = importlib.util.spec_from_file_location("o1jax_experiment", path)
  if spec is None or spec.loader is None:
    raise ConfigError(f"{path}: is not a Python file")
  module = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = module  # where a dataclass looks for the names in its annotations
  beside = os.path.dirname(os.path.abspath(path))
  sys.path.insert(0, beside)
  try:
    spec.loader.exec_module(module)
    made: Any = vars(module)[name](*arguments) if name in vars(module) else None
  except (Exception, SystemExit) as error:
    raise ConfigError(f"{path}: {type(error).__name__}: {error}") from error
  finally:
    sys.path.remove(beside)
  require(name in vars(module), path, f"has no function {name}()")
  require(isinstance(made, kind), path, f"{name}() gives a {type(made).__name__}, no {kind.__name__}")
  return made


def what_is_run(config: TrainConfig) -> TrainConfig:
  """The configuration without the fields that say how a run is made, and not what it is."""
  return dataclasses.replace(
    config, name="", out="", mesh=MeshConfig(), log=LogConfig(), checkpoint=CheckpointConfig()
  )

"""Configurations from experiment files, and their exact form in JSON (a run's config.json).

A dataclass becomes an object, a tuple a list. Where a field's type is a union of dataclasses (the task), its
object has the class's name under "type". Reading checks every type, which finds wrong types in an
experiment's Python as well.
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
META = "meta"  # in config.json beside the fields: commit, versions, device, data hash
# Fields of a task, and of init, that name files.
PATHS = ("path", "data_dir", "tokenizer", "template", "instruction", "decontaminate")
_LOG = logging.getLogger(__name__)


# Fields of o1jax 0.1, by the names that they have had since.
RENAMED = {
  "sft.optim.warmup": "sft.optim.warmup_steps",
  "sft.optim.decay": "sft.optim.weight_decay",
  "rl.optim.warmup": "rl.optim.warmup_steps",
  "rl.optim.decay": "rl.optim.weight_decay",
  "rl.loss.dual": "rl.loss.dual_clip",
  "rl.advantage.floor": "rl.advantage.min_std",
  "rl.overlong.unfinished": "rl.overlong.truncation_penalty",
  "rl.importance.excess": "rl.importance.mode",
  "rl.proxy": "rl.reward_model",
  "rl.curriculum.floor": "rl.curriculum.min_probability",
  "rl.refill": "rl.dynamic_sampling",
  "rl.trim": "rl.pad_multiple",
}


class Differences(typing.NamedTuple):
  """Dotted names of the fields in which JSON of another version differs from the dataclasses."""

  missing: list[str]  # take their defaults
  unknown: list[str]  # are left aside


def config_to_dict(config: TrainConfig) -> dict[str, Any]:
  """The configuration in plain JSON types. `config_from_dict` is the inverse."""
  return _encode(TrainConfig, config)


def config_from_dict(data: dict[str, Any]) -> TrainConfig:
  """Inverse of `config_to_dict`; only types are checked. Raises ConfigError naming the first wrong field."""
  return _decode(TrainConfig, data, "")


def with_overrides(config: TrainConfig, overrides: Mapping[str, Any]) -> TrainConfig:
  """The configuration with the fields of these dotted names replaced. Raises ConfigError naming a wrong one.

  A group of fields is replaced by its dataclass or its JSON object, a single field by its value.
  """
  return config_from_dict(config_to_dict(replaced(config, overrides)))


def overrides_to_dict(config: TrainConfig, names: Sequence[str]) -> dict[str, Any]:
  """Dotted name -> the field's value in plain JSON types."""
  data = config_to_dict(config)
  return {name: functools.reduce(operator.getitem, name.split("."), data) for name in names}


def struct_from_dict(
  kind: type[Struct], data: Any, file: str, field: str = "", quiet: bool = False
) -> Struct:
  """A dataclass of the configuration from JSON that another version may have written.

  Missing fields take their defaults, unknown ones are left aside; a line of the log names both, if not
  `quiet`. JSON of o1jax 0.1 (RENAMED) is refused.
  file: its name in messages; field: dotted name of `data` in it. Raises ConfigError naming file and field.
  """
  differences = Differences([], [])
  try:
    decoded = _decode(kind, data, field, differences)
    for name in differences.unknown:
      why = f"was written by o1jax 0.1, and is `{RENAMED.get(name)}` since: read the run with that version"
      require(name not in RENAMED, name, why)
    return decoded
  except ConfigError as error:
    quiet = True
    raise ConfigError(f"{file}: {error}") from error
  finally:
    reasons = zip(("missing, so that the default holds", "no field, left aside"), differences)
    lines = [f"{', '.join(names)} ({reason})" for reason, names in reasons if names]
    if lines and not quiet:
      _LOG.warning("%s: of another version: %s", file, "; ".join(lines))


def read_run_config(run: str, quiet: bool = False) -> TrainConfig:
  """The configuration in `RUN/config.json`, perhaps of another version (`struct_from_dict`).

  Raises ConfigError naming the file, and the field where one is wrong.
  """
  path = pathlib.Path(run) / "config.json"
  require(path.exists(), str(path), f"no such file; is {run} a run's folder?")
  data = read_json(path)
  data.pop(META, None)
  return struct_from_dict(TrainConfig, data, str(path), quiet=quiet)


def expanded(config: TrainConfig) -> TrainConfig:
  """The configuration with `~` expanded in `out` and in the names of the files it reads."""
  config = _with_files(config, os.path.expanduser)
  return dataclasses.replace(config, out=os.path.expanduser(config.out))


def resolved_paths(config: TrainConfig) -> dict[str, str]:
  """Name -> absolute name of each file it reads whose name is relative to the working directory."""
  absolute: dict[str, str] = {}

  def keep(name: str) -> str:
    if not os.path.isabs(name):
      absolute[name] = os.path.abspath(name)
    return name

  _with_files(config, keep)
  return absolute


def located(config: TrainConfig, run: pathlib.Path) -> TrainConfig:
  """The configuration with its files where config.json of `run` places them, and the step of init there."""
  path = run / "config.json"
  data = read_json(path) if path.is_file() else {}
  paths = data.get(META, {}).get("paths", {})
  known = {name: there for name, there in paths.items() if os.path.exists(_file_of(there))}
  config = _with_files(config, lambda name: known.get(name, name))
  if config.init.path is None or config.init.step is not None:
    return config
  step = data.get("init", {}).get("step")
  return dataclasses.replace(config, init=dataclasses.replace(config.init, step=step))


def _with_files(config: TrainConfig, change: Callable[[str], str]) -> TrainConfig:
  """The configuration with `change` applied to the names of the files it reads."""
  task, init = (_each_file(vars(config)[name], change, name) for name in ("task", "init"))
  return dataclasses.replace(config, task=task, init=init)


def _each_file(value: Any, change: Callable[[str], str], field: str) -> Any:
  """`value`, of the dotted name `field`, with `change` applied to the names of files in it; URLs stay."""
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


# Fields that a resumed run must not change.
RESUMED = ("model", "task", "init", "seed", "sft", "rl", "eval", "diagnostics", "controls")


def check_same(now: TrainConfig, before: TrainConfig, folder: pathlib.Path) -> None:
  """Raises ConfigError naming the first field of RESUMED in which a resumed run differs from its start.

  Mesh, log and checkpoint settings may differ: they do not change the results.
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
  names = (_difference(vars(a)[f.name], vars(b)[f.name], f"{field}.{f.name}") for f in dataclasses.fields(a))
  return next(name for name in names if name is not None)


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """The object in a JSON file. Raises ConfigError naming the file where there is none."""
  try:
    data = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise ConfigError(f"{path}: cannot be read as JSON: {error}") from error
  require(isinstance(data, dict), str(path), "must hold one JSON object")
  return data


def optional_structs(kind: type) -> list[tuple[str, type]]:
  """(field, dataclass) of the fields of a dataclass that hold one dataclass or None."""
  optional = []
  for name, hint in typing.get_type_hints(kind).items():
    structs = _structs(hint)
    if type(None) in typing.get_args(hint) and len(structs) == 1:
      optional.append((name, structs[0]))
  return optional


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
  """Types of the `count` items of a tuple type, which may be optional."""
  members = [member for member in (kind, *typing.get_args(kind)) if typing.get_origin(member) is tuple]
  items = typing.get_args(members[0]) if members else (Any, ...)
  return (items[0],) * count if items[-1] is Ellipsis else items


def _decode(kind: Any, value: Any, field: str, differences: Differences | None = None) -> Any:
  """The JSON `value` as a `kind`. Raises ConfigError naming the field; without `differences` none may be."""
  origin = typing.get_origin(kind)
  if origin in (typing.Union, types.UnionType):
    return _decode_union(kind, value, field, differences)
  if dataclasses.is_dataclass(kind):
    return _decode_struct(kind, value, field, differences)
  if origin is tuple:
    return _decode_tuple(kind, value, field, differences)
  if origin is typing.Literal:
    options = typing.get_args(kind)
    require(value in options, field, f"wants one of {', '.join(map(str, options))}, has {value!r}")
    return value
  if origin is collections.abc.Mapping:  # where its values are used their types are checked
    named = isinstance(value, Mapping) and all(isinstance(name, str) for name in value)
    require(named, field, f"wants names with values, has {value!r}")
    return dict(value)
  # JSON and Python write 1 for 1.0. A float for an int and a bool for a number are mistakes. numpy's numbers
  # count.
  number = _NUMBERS.get(kind)
  accepted = type(value) is kind or (number and isinstance(value, number) and not isinstance(value, bool))
  require(bool(accepted), field, f"wants {_spell(kind)}, has {value!r}")
  require(kind is not float or _is_finite(value), field, f"must be finite, is {value!r}")
  bits = 32 if "seed" in field.rpartition(".")[2] else 31
  require(kind is not int or -(2**31) <= value < 2**bits, field, f"must lie in [-2**31, 2**{bits})")
  return kind(value)


def _is_finite(value: numbers.Real) -> bool:
  """Whether a number is finite as a float, which a large int is not."""
  try:
    return math.isfinite(float(value))
  except OverflowError:
    return False


def _decode_union(kind: Any, value: Any, field: str, differences: Differences | None) -> Any:
  members = [member for member in typing.get_args(kind) if member is not types.NoneType]
  if value is None and len(members) < len(typing.get_args(kind)):
    return None
  if len(members) == 1:
    return _decode(members[0], value, field, differences)
  by_name = {member.__name__: member for member in members}
  require(isinstance(value, dict), field, f"wants {_spell(kind)}, has {value!r}")
  tag = value.get(TAG)
  require(tag in by_name, f"{field}.{TAG}", f"wants one of {', '.join(by_name)}, has {tag!r}")
  fields = {name: item for name, item in value.items() if name != TAG}
  return _decode(by_name[tag], fields, field, differences)


def _decode_struct(kind: Any, value: Any, field: str, differences: Differences | None) -> Any:
  kind_name = kind.__name__
  require(isinstance(value, dict), field or kind_name, f"wants the fields of {kind_name}, has {value!r}")
  hints, prefix = typing.get_type_hints(kind), f"{field}." if field else ""
  parts = {part.name: part for part in dataclasses.fields(kind)}
  for name in value:
    require(name in parts or differences is not None, f"{prefix}{name}", f"is no field of {kind_name}")
  for name, part in parts.items():
    has_default = differences is not None and part.default is not dataclasses.MISSING
    require(name in value or has_default, f"{prefix}{name}", "is missing")
  if differences is not None:
    differences.unknown.extend(f"{prefix}{name}" for name in value if name not in parts)
  decoded = {}
  for name in parts:
    if name in value:
      decoded[name] = _decode(hints[name], value[name], f"{prefix}{name}", differences)
    elif differences is not None:
      differences.missing.append(f"{prefix}{name}")
  return kind(**decoded)


def _decode_tuple(kind: Any, value: Any, field: str, differences: Differences | None) -> tuple[Any, ...]:
  require(isinstance(value, (list, tuple)), field, f"wants {_spell(kind)}, has {value!r}")
  items = _item_kinds(kind, len(value))
  require(len(items) == len(value), field, f"wants {len(items)} values, has {len(value)}")
  parts = enumerate(zip(items, value))
  return tuple(_decode(item, part, f"{field}[{i}]", differences) for i, (item, part) in parts)


_NUMBERS: dict[Any, type] = {int: numbers.Integral, float: numbers.Real}


def _spell(kind: Any) -> str:
  if isinstance(kind, type) and typing.get_origin(kind) is None:
    return kind.__name__
  return re.sub(r"o1jax\.config\.\w+\.", "", str(kind))


def load_experiment(path: str) -> TrainConfig:
  """The result of `get_config()` in an experiment file. Raises ConfigError naming the file.

  An unknown field there is a TypeError of its dataclass, and becomes a ConfigError as any other mistake does.
  """
  return _load(path, "get_config", TrainConfig)


def load_sweep(path: str, *, full: bool) -> SweepConfig:
  """The result of `sweep(full)` in an experiment file, its types checked. Raises as `load_experiment`."""
  declared = _load(path, "sweep", SweepConfig, full)
  return _decode(SweepConfig, _encode(SweepConfig, declared), "")


Loaded = typing.TypeVar("Loaded")


def _load(path: str, name: str, kind: type[Loaded], *arguments: Any) -> Loaded:
  """The result of the function `name` of an experiment file."""
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
  """The configuration without the fields that do not change a run's results."""
  return dataclasses.replace(
    config, name="", out="", mesh=MeshConfig(), log=LogConfig(), checkpoint=CheckpointConfig()
  )

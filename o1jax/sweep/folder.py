"""A sweep's folder: what names it, the layouts it has chosen, the members that are done; what a resumed
sweep reads back.

sweep.json    at the start: arms, seeds, base and all else that a resumed sweep must not change
layouts.json  how the members of each group lie; a resumed sweep keeps to it, as another one rounds otherwise
<arm>-seed<n>/final.json  the member's row of results.json, as soon as there is one
results.json  at the end
"""

import dataclasses
import pathlib
import time
from typing import Any, Mapping, Sequence

from o1jax.config import ConfigError, SweepConfig, TrainConfig, require
from o1jax.io.log import environment, write_json
from o1jax.io.run_config import (
  check_same,
  config_to_dict,
  overrides_to_dict,
  read_json,
  struct_from_dict,
  with_overrides,
)
from o1jax.rollout.setup import Runtime, same_data, write_head
from o1jax.sweep.members import Member
from o1jax.sweep.population import Placement

HEAD, LAYOUTS, FINAL, RESULTS = "sweep.json", "layouts.json", "final.json", "results.json"
SAME = ("arms", "seeds", "fused", "vmapped", "devices", "chunk")  # of the head, beside the base run


def folder_of(config: SweepConfig) -> pathlib.Path:
  """Where a sweep writes."""
  return pathlib.Path(config.base.out).expanduser() / config.base.name


def plan_of(config: SweepConfig) -> dict[str, Any]:
  """What a sweep is, in JSON types; all but claim and base must stay as they are when it is resumed."""
  arms = []
  for arm in config.arms:
    overrides = overrides_to_dict(with_overrides(config.base, arm.overrides), list(arm.overrides))
    arms.append({"name": arm.name, "overrides": overrides, "strength": arm.strength})
  claim = dataclasses.asdict(config.claim)
  claim["checks"] = [{**check, "arms": list(check["arms"])} for check in claim["checks"]]
  return {
    "claim": claim, "arms": arms, "seeds": list(config.seeds), "fused": config.fused,
    "vmapped": config.vmapped, "devices": config.devices,
    "chunk": config.chunk, "steps": config.base.rl.steps, "base": config_to_dict(config.base),
  }  # fmt: skip


def head_of(config: SweepConfig, experiment: str, command: str) -> dict[str, Any]:
  """What sweep.json and results.json begin with. Starts the backend."""
  meta = {**environment(), "date": time.strftime("%Y-%m-%d")}
  named = {"name": config.base.name, "experiment": experiment, "command": command}
  return {**named, **plan_of(config), "layout": "not chosen yet", "meta": meta}


def check_resumed(config: SweepConfig, folder: pathlib.Path) -> None:
  """Raises ConfigError where `folder` holds no sweep to go on with, or another one than `config`."""
  path = folder / HEAD
  require(path.is_file(), str(folder), f"holds no sweep to resume (no {HEAD})")
  before, now = read_json(path), plan_of(config)
  for name in SAME:
    require(before.get(name) == now[name], str(folder), f"was started with other `{name}`")
  base = struct_from_dict(TrainConfig, before.get("base", {}), f"{path}: base")
  check_same(config.base, base, folder)


def read_layouts(folder: pathlib.Path) -> dict[int, Placement]:
  """Group -> its placement; {} before any was chosen. Raises ConfigError naming a damaged file."""
  path = folder / LAYOUTS
  if not path.is_file():
    return {}
  try:
    return {int(group): Placement(**fields) for group, fields in read_json(path).items()}
  except (TypeError, ValueError) as error:
    raise ConfigError(f"{path}: is not a sweep's: {error}") from error


def write_layouts(folder: pathlib.Path, layouts: Mapping[int, Placement]) -> None:
  """Writes what `read_layouts` reads."""
  write_json(folder / LAYOUTS, {str(group): layout._asdict() for group, layout in layouts.items()})


def begin_member(runtime: Runtime, own: pathlib.Path) -> None:
  """Makes a member's folder, or checks that it holds a member of the same data."""
  if (own / "config.json").exists():
    same_data(runtime, own)
    return
  own.mkdir(parents=True, exist_ok=True)
  write_head(runtime, own)


def finished_rows(folder: pathlib.Path, members: Sequence[Member]) -> list[dict[str, Any]] | None:
  """The rows of members that are all done, else None."""
  paths = [folder / member.name / FINAL for member in members]
  return [read_json(path) for path in paths] if all(path.is_file() for path in paths) else None


def write_row(folder: pathlib.Path, member: Member, result: Mapping[str, Any]) -> dict[str, Any]:
  """Writes and returns a member's row of results.json; `result`: bad_step, final and by_problem."""
  row = {"arm": member.arm.name, "seed": member.seed, **result}
  write_json(folder / member.name / FINAL, row)
  return row

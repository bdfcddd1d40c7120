"""Members of a sweep, and which of them one compiled program can run."""

import dataclasses
import hashlib
import json
from typing import Any, Mapping, NamedTuple, Sequence

from o1jax.config import Arm, ConfigError, SweepConfig, TrainConfig, require, static_config
from o1jax.io.run_config import config_to_dict, with_overrides
from o1jax.rollout.record import Progress

# Groups of options that an arm may change. The others say how all members are made and measured, or name
# them.
OF_AN_ARM = ("model", "task", "sft", "rl")


@dataclasses.dataclass(frozen=True)
class Member:
  """One run of a sweep."""

  arm: Arm
  seed: int
  config: TrainConfig  # its name is the member's folder

  @property
  def name(self) -> str:
    return self.config.name


def members_of(sweep: SweepConfig) -> list[Member]:
  """All members, arm by arm, validated. Raises ConfigError naming the arm and the field."""
  return [_member(sweep, arm, seed) for arm in sweep.arms for seed in sweep.seeds]


def _member(sweep: SweepConfig, arm: Arm, seed: int) -> Member:
  try:
    config = with_overrides(sweep.base, arm.overrides)
    for field in arm.overrides:
      why = f"is one for all members: an arm may change {', '.join(OF_AN_ARM)}"
      require(field.partition(".")[0] in OF_AN_ARM, field, why)
    config = dataclasses.replace(config, seed=seed, name=f"{arm.name}-seed{seed}")
    config.validate()
    require(config.rl.steps > 0, "rl.steps", "must be positive in a sweep")
  except ConfigError as error:
    raise ConfigError(f"arm {arm.name}: {error}") from error
  return Member(arm, seed, config)


def static_part(config: TrainConfig) -> TrainConfig:
  """The configuration without traced and host fields: members with the same one share a compiled step."""
  return dataclasses.replace(config, name="", seed=0, rl=static_config(config.rl))


def groups_of(members: Sequence[Member]) -> list[list[Member]]:
  """The members by compiled program, in the order of each one's first member."""
  groups: dict[TrainConfig, list[Member]] = {}
  for member in members:
    groups.setdefault(static_part(member.config), []).append(member)
  return list(groups.values())


def cold_start_key(config: TrainConfig) -> str:
  """Names what decides a cold start: members that agree in it begin RL with the same parameters."""
  data = config_to_dict(config)
  text = json.dumps([data["model"], data["task"], data["sft"], data["seed"]], sort_keys=True)
  return f"seed{config.seed}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


class SftCheckpoint(NamedTuple):
  """The end of a cold start."""

  params: Any  # on the host
  progress: Progress  # behind the cold start; its cursor is the RL stage's first


class RLStart(NamedTuple):
  """What the RL of a group's members begins with."""

  cold_starts: Mapping[str, SftCheckpoint]  # by `cold_start_key`
  reward_params: Mapping[str, Any]  # by member's name: of its reward model, None where the verifier pays

  def cold_start(self, member: Member) -> SftCheckpoint:
    return self.cold_starts[cold_start_key(member.config)]

"""Members of a sweep, and which of them one compiled program can run."""

import dataclasses
import hashlib
import json
from typing import Any, Sequence

from o1jax.config import Arm, ConfigError, SweepConfig, TrainConfig, require
from o1jax.io.run_config import config_to_dict, with_overrides

# Dotted fields that reach the program as traced numbers, with what stands for all of their values in a group's key.
COEFFICIENTS = ("rl.kl.coef", "rl.entropy", "rl.l2_init", "rl.cov.coef", "rl.critic.coef")
TRACED = {
  **dict.fromkeys(COEFFICIENTS, 0.0), "rl.optim.decay": 0.0, "rl.optim.lr": 1.0, "rl.temperature": 1.0,
  "rl.loss.clip_low": 1.0, "rl.loss.clip_high": 1.0, "rl.kl.ema": 1.0, "rl.kl.reset_every": 1,
}  # fmt: skip
# Fields that the host alone looks at: they make the traced numbers and the proxies, choose problems and name things.
HOST = {
  "name": "", "seed": 0, "rl.problems": None, "rl.optim.warmup": 0, "rl.optim.schedule": "constant",
  "rl.optim.final_fraction": 0.0, "rl.kl.schedule": "constant", "rl.kl.final_fraction": 0.0,
  "rl.proxy.examples": 1, "rl.proxy.noise": 0.0, "rl.proxy.steps": 1, "rl.proxy.rows": 1, "rl.proxy.lr": 1.0,
  "rl.proxy.best_of": 1,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Member:
  """One run of a sweep."""

  arm: Arm
  seed: int
  config: TrainConfig  # its name is the member's folder

  @property
  def name(self) -> str:
    return self.config.name


def value_of(config: TrainConfig, field: str) -> Any:
  """What stands in a dotted field."""
  value: Any = config
  for name in field.split("."):
    value = vars(value)[name]
  return value


def members_of(sweep: SweepConfig) -> list[Member]:
  """All members, arm by arm, each configuration validated. Raises ConfigError naming the arm and the field."""
  members = []
  for arm in sweep.arms:
    for seed in sweep.seeds:
      named = {**arm.overrides, "seed": seed, "name": f"{arm.name}-seed{seed}"}
      try:
        config = with_overrides(sweep.base, named)
        config.validate()
      except ConfigError as error:
        raise ConfigError(f"arm {arm.name}: {error}") from error
      require(config.rl.steps > 0, f"arm {arm.name}: rl.steps", "must be positive in a sweep")
      members.append(Member(arm, seed, config))
  return members


def static_part(config: TrainConfig) -> TrainConfig:
  """The configuration without what is traced or the host's: members with the same one share a compiled step."""
  given = {field: value for field, value in TRACED.items() if value_of(config, field) is not None}
  return with_overrides(config, {**given, **HOST})


def groups_of(members: Sequence[Member]) -> list[list[Member]]:
  """The members by compiled program, in the order of each one's first member."""
  groups: dict[TrainConfig, list[Member]] = {}
  for member in members:
    groups.setdefault(static_part(member.config), []).append(member)
  return list(groups.values())


def kept_terms(members: Sequence[Member]) -> frozenset[str]:
  """Terms that any of the members has, so that the program of them all has them: a coefficient of 0 is a strength."""
  fields = {"kl": "rl.kl.coef", "entropy": "rl.entropy", "l2_init": "rl.l2_init", "cov": "rl.cov.coef"}
  has = lambda field: any(value_of(member.config, field) for member in members)
  return frozenset(term for term, field in fields.items() if has(field))


def cold_start_key(config: TrainConfig) -> str:
  """Names what decides a cold start: members that agree in it begin RL with the same parameters."""
  data = config_to_dict(config)
  text = json.dumps([data["model"], data["task"], data["sft"], data["seed"]], sort_keys=True)
  return f"seed{config.seed}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

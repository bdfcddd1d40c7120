"""Options of a sweep: arms x seeds of one base run, their claim, and how members share the machine."""

import dataclasses
from typing import Any, Literal, Mapping

from o1jax.config.base import is_name, require
from o1jax.config.run import CheckpointConfig, EvalConfig, MeshConfig, TrainConfig


@dataclasses.dataclass(frozen=True)
class Arm:
  """One setting of the sweep: the base run with some of its fields replaced."""

  name: str  # a folder's name, with -seed<n> behind it
  overrides: Mapping[str, Any]  # dotted field of TrainConfig -> value
  strength: float | None = None  # where on the strength axis it lies; None: the arms are kinds, not strengths

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field`: this group's dotted name."""
    plain = is_name(self.name) and not set(self.name) & set("\\ ")
    require(plain, f"{field}.name", f"must be a folder's name without spaces, is {self.name!r}")


TAKES = {"greater": 2, "declines": 1, "lasts": 1}  # arms of a check; the other kinds take any number


@dataclasses.dataclass(frozen=True)
class Check:
  """One testable part of a claim, over final figures or curves of the members (`scaling/claims.py`).

  greater: the metric of arms[0] above that of arms[1], paired by seed.
  rising, falling: the metric against the arms' strengths.
  fit_entropy: R = -a exp(H) + b over the curves of `arms`.
  declines, lasts: the curve of arms[0] ends below its best, or does not.
  fit_gao: R = d (a - b log d), d = sqrt KL, over the curves of `arms`.
  fit_gao_bon: R = d (a - b d) over the final `<metric>/<n>` of best-of-n, n = 1, 2, 4, ..., as `bon` and
  `bon_proxy` of a reward model are.
  """

  kind: Literal["greater", "rising", "falling", "fit_entropy", "declines", "lasts", "fit_gao", "fit_gao_bon"]
  metric: str
  arms: tuple[str, ...] = ()  # () = all

  def validate(self, field: str, strengths: Mapping[str, float | None]) -> None:
    """Raises ConfigError where this cannot be tested on arms of these names and strengths."""
    require(self.metric != "", f"{field}.metric", "is empty")
    for name in self.arms:
      require(name in strengths, f"{field}.arms", f"{name!r} is no arm")
    require(len(set(self.arms)) == len(self.arms), f"{field}.arms", "name one twice")
    named = self.arms or tuple(strengths)
    takes = TAKES.get(self.kind, len(named))
    require(len(named) == takes, f"{field}.arms", f"{self.kind} takes {takes}, not {len(named)}")
    values = {strengths[name] for name in named}
    ordered = self.kind not in ("rising", "falling") or (len(values) > 1 and None not in values)
    require(ordered, f"{field}.arms", f"{self.kind} takes arms of two strengths or more, each with a number")


@dataclasses.dataclass(frozen=True)
class Claim:
  """What a sweep is held against."""

  text: str
  source: str  # paper and section
  figure: str  # the paper's own figure
  checks: tuple[Check, ...]


@dataclasses.dataclass(frozen=True)
class SweepConfig:
  """A whole sweep."""

  base: TrainConfig
  arms: tuple[Arm, ...]
  claim: Claim
  seeds: tuple[int, ...] = (0, 1, 2)
  # Whole steps on the device where the task has a verifier there; else the stepwise loop, member by member.
  fused: bool = True
  vmapped: int = 0  # members in one vmap: 1 is lax.map alone; 0: chosen by a short measurement at the start
  devices: int = 0  # that members are spread over; 0: all accelerators, or one CPU device a core
  chunk: int = 0  # steps in one executable call, which divides rl.steps and diagnostics.every; 0: at most 10

  def validate(self) -> None:
    """Raises ConfigError naming the first field that cannot work."""
    require(len(self.arms) > 0, "arms", "are none")
    names = [arm.name for arm in self.arms]
    require(len(set(names)) == len(names), "arms", "two have one name")
    for i, arm in enumerate(self.arms):
      arm.validate(f"arms[{i}]")
    require(len(self.seeds) > 0, "seeds", "are none")
    require(len(set(self.seeds)) == len(self.seeds), "seeds", "hold one twice")
    for name in ("vmapped", "devices", "chunk"):
      require(vars(self)[name] >= 0, name, "must not be negative")
    strengths = {arm.name: arm.strength for arm in self.arms}
    for i, check in enumerate(self.claim.checks):
      check.validate(f"claim.checks[{i}]", strengths)
    self.base.validate()
    self._validate_base()

  def _validate_base(self) -> None:
    """What a run can do and a member of a sweep does not."""
    base = self.base
    require(base.rl.steps > 0, "rl.steps", "must be positive in a sweep")
    require(not base.controls, "controls", "cannot act in a sweep: make each control an arm")
    require(
      not any(base.eval.every), "eval.every", "cannot act in a sweep: diagnostics.every tests its members"
    )
    require(not base.eval.budgets, "eval.budgets", "cannot act in a sweep")
    require(not base.log.profile, "log.profile", "cannot act in a sweep")
    require(base.log.wandb is None, "log.wandb", "cannot act in a sweep")
    require(base.mesh == MeshConfig(), "mesh", "cannot act in a sweep: --devices spreads its members")
    plain = base.checkpoint.keep == CheckpointConfig.keep
    require(plain, "checkpoint.keep", "cannot act in a sweep, which keeps the newest of each alone")
    for name in ("problems", "control_samples", "bootstrap"):
      plain = vars(base.eval)[name] == vars(EvalConfig)[name]
      require(
        plain, f"eval.{name}", "cannot act in a sweep: diagnostics and eval.final_problems test its members"
      )

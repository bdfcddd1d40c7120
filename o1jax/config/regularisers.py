"""Options that keep RL from running away: KL to a reference, covariance, length, importance, the critic."""

import dataclasses
from typing import Literal

from o1jax.config.base import host, require, traced


@dataclasses.dataclass(frozen=True)
class KLConfig:
  """Regularisation towards the reference."""

  coef: float = traced(0.0, term="kl")  # 0: no term, and no reference forward pass
  estimator: Literal["k1", "k2", "k3", "reverse", "forward"] = "k3"  # the last two are exact
  placement: Literal["loss", "reward"] = "loss"
  # Multiplies the sampled estimator by the (undetached) ratio. Without it later optimiser steps of a rollout
  # average over tokens of the policy that sampled them, as TRL and verl do by default.
  times_ratio: bool = False
  # Of coef over the stage's steps.
  schedule: Literal["constant", "linear", "cosine"] = host("constant")
  final_fraction: float = host(0.0)  # of coef, at the end of a linear or cosine schedule
  # Nats a token that an adaptive coefficient aims at (Ziegler et al. 2019, section 2.2).
  target: float | None = None
  horizon: int | None = None  # completions over which an adaptive coefficient moves
  reference: Literal["frozen", "ema", "reset"] = "frozen"
  ema: float | None = traced(None)  # share of the policy that enters an EMA reference each step
  # Steps between copies of the policy into a reset reference.
  reset_every: int | None = traced(None)
  reset_optimizer: bool = False  # a reset clears the optimiser's moments too (ProRL)

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field`: this group's dotted name."""
    require(self.coef >= 0, f"{field}.coef", "must not be negative")
    moves, resets = self.reference == "ema", self.reference == "reset"
    require(moves == (self.ema is not None), f"{field}.ema", "goes with reference=ema, and is needed there")
    require(self.ema is None or 0 < self.ema <= 1, f"{field}.ema", "must lie in (0, 1]")
    given = self.reset_every is not None
    require(resets == given, f"{field}.reset_every", "goes with reference=reset, and is needed there")
    require(self.reset_every is None or self.reset_every > 0, f"{field}.reset_every", "must be positive")
    require(resets or not self.reset_optimizer, f"{field}.reset_optimizer", "goes with reference=reset")
    exact = self.estimator in ("reverse", "forward")
    paid = self.placement == "reward"
    require(not (exact and paid), f"{field}.placement", f"{self.estimator} is exact, and goes into the loss")
    idle = self.times_ratio and (exact or paid)
    require(not idle, f"{field}.times_ratio", "multiplies a sampled estimator in the loss alone")
    idle = self.estimator == "k1" and not (paid or self.times_ratio or self.coef == 0)
    why = "k1 in the loss has a gradient of mean 0, whatever the reference"
    cure = "use k2, k3, reverse or forward, times_ratio=True, or placement=reward"
    require(not idle, f"{field}.estimator", f"{why}: {cure}")
    self._validate_coefficient(field)
    if self.coef == 0:
      plain = dataclasses.replace(KLConfig(), estimator=self.estimator, placement=self.placement)
      require(self == plain, f"{field}.coef", "is 0, so that no other field of the reference can act")

  def _validate_coefficient(self, field: str) -> None:
    require(0 <= self.final_fraction <= 1, f"{field}.final_fraction", "must lie in [0, 1]")
    acts = self.final_fraction == 0.0 or self.schedule != "constant"
    require(acts, f"{field}.final_fraction", "cannot act with schedule=constant")
    adaptive = self.target is not None
    require(
      adaptive == (self.horizon is not None), f"{field}.horizon", "goes with target, and is needed there"
    )
    require(self.target is None or self.target > 0, f"{field}.target", "must be positive")
    require(self.horizon is None or self.horizon > 0, f"{field}.horizon", "must be positive")
    alone = not adaptive or self.schedule == "constant"
    require(alone, f"{field}.schedule", "cannot act beside target, which moves the coefficient itself")


@dataclasses.dataclass(frozen=True)
class CovConfig:
  """Tokens whose log-prob moves with their advantage lose their gradient or pay (Cui et al. 2025, 4)."""

  kind: Literal["none", "clip_cov", "kl_cov"] = "none"
  fraction: float | None = None  # of the action tokens: clip_cov 2e-4 (of the paper), kl_cov 2e-3 to 2e-2
  low: float | None = None  # clip_cov: tokens with a covariance in (low, high) may be drawn; the paper's 1
  high: float | None = None  # ... and 5
  # kl_cov: of |lp - lo| on the tokens with the largest covariance
  coef: float | None = traced(None, term="cov")

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field`: this group's dotted name."""
    fields = {"none": (), "clip_cov": ("fraction", "low", "high"), "kl_cov": ("fraction", "coef")}
    for name in ("fraction", "low", "high", "coef"):
      value, needed = vars(self)[name], name in fields[self.kind]
      problem = "is needed" if needed else "cannot act"
      require(needed == (value is not None), f"{field}.{name}", f"{problem} with kind={self.kind}")
    require(self.fraction is None or 0 < self.fraction <= 1, f"{field}.fraction", "must lie in (0, 1]")
    ordered = self.low is None or self.high is None or self.low < self.high
    require(ordered, f"{field}.high", f"must be above low={self.low}")
    require(self.coef is None or self.coef >= 0, f"{field}.coef", "must not be negative")


@dataclasses.dataclass(frozen=True)
class OverlongConfig:
  """What a completion's length costs, in tokens."""

  # C of DAPO's soft penalty: 0 up to max_tokens - C, falling to -1 at max_tokens; 0: off. grpo divides by it
  # alone in a group that differs in nothing else, as in DAPO, TRL and verl: there its size does not count.
  buffer: int = 0
  penalty: float = 1.0  # multiplies the soft penalty
  truncation_penalty: float = 0.0  # added to the reward of a completion cut off at max_tokens (Tulu 3: -10)
  mask: bool = False  # completions cut off at max_tokens enter neither baseline nor loss

  def validate(self, field: str, max_tokens: int) -> None:
    """Raises ConfigError naming the first field that cannot work; `field`: this group's dotted name."""
    require(0 <= self.buffer < max_tokens, f"{field}.buffer", f"must lie in [0, max_tokens={max_tokens})")
    require(self.penalty > 0, f"{field}.penalty", f"must be positive, is {self.penalty}; buffer=0 is none")
    acts = self.penalty == 1.0 or self.buffer > 0
    require(acts, f"{field}.penalty", "cannot act with buffer=0")
    require(self.truncation_penalty <= 0, f"{field}.truncation_penalty", "must not be positive")
    both = self.mask and self.truncation_penalty != 0.0
    require(
      not both, f"{field}.truncation_penalty", "cannot act with mask, which leaves such completions out"
    )


@dataclasses.dataclass(frozen=True)
class ImportanceConfig:
  """Correction for what sampler and learner say differently of the same tokens (Yao et al. 2025)."""

  cap: float | None = None  # C: weights exp(lp_learner - lp_sampler) above it are cut; None: no correction
  level: Literal["token", "sequence"] = "token"  # of the ratio
  mode: Literal["clamp", "mask"] = "clamp"  # weights above C become C, or 0

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field`: this group's dotted name."""
    require(self.cap is None or self.cap > 0, f"{field}.cap", "must be positive")
    idle = self.cap is None and (self.level != "token" or self.mode != "clamp")
    require(not idle, f"{field}.cap", "is None, so that level and mode cannot act")


@dataclasses.dataclass(frozen=True)
class CriticConfig:
  """A learned value function in place of the group's baseline (PPO)."""

  # A head on the policy's hidden states, or a decoder of its own.
  kind: Literal["none", "head", "own"] = "none"
  coef: float = traced(0.5)  # of the value loss
  # A value may move this far from the rollout's (Schulman et al. 2017); None: not clipped.
  clip: float | None = None
  gamma: float = 1.0  # discount a token
  lam: float = 0.95  # lambda of the generalised advantages
  whiten: bool = True  # advantages get mean 0 and variance 1 over the batch's action tokens

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field`: this group's dotted name."""
    idle = self.kind == "none" and self != CriticConfig()
    require(not idle, f"{field}.kind", "is none, so that no other field of the critic can act")
    require(self.coef > 0, f"{field}.coef", "must be positive")
    require(self.clip is None or self.clip > 0, f"{field}.clip", "must be positive")
    for name in ("gamma", "lam"):
      require(0 <= vars(self)[name] <= 1, f"{field}.{name}", "must lie in [0, 1]")

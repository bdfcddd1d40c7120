"""Options of learning: optimiser, cold start; advantages, policy loss, curriculum, reward model, RL."""

import dataclasses
from typing import Literal

from o1jax.config.base import host, require, require_temperature, traced
from o1jax.config.regularisers import CovConfig, CriticConfig, ImportanceConfig, KLConfig, OverlongConfig


@dataclasses.dataclass(frozen=True)
class OptimConfig:
  """AdamW with a warm-up and an optional decay, and clipping by global norm."""

  lr: float = traced(2e-4)
  warmup_steps: int = host(0)  # training steps of linear warm-up; the first takes a rate of 0
  schedule: Literal["constant", "linear", "cosine"] = host("constant")
  final_fraction: float = host(0.0)  # of lr, at the end of a linear or cosine decay
  b1: float = 0.9
  b2: float = 0.95
  eps: float = 1e-8
  weight_decay: float = traced(0.0)  # decoupled weight decay, on matrices alone
  clip_norm: float = 1.0  # global gradient norm; 0 = off

  def validate(self, field: str, steps: int) -> None:
    """Raises ConfigError naming the first field that cannot work in a stage of `steps` steps.

    `field` is the dotted name of this group.
    """
    require(self.lr > 0, f"{field}.lr", f"must be positive, is {self.lr}")
    require(self.eps > 0, f"{field}.eps", f"must be positive, is {self.eps}")
    require(self.warmup_steps >= 0, f"{field}.warmup_steps", "must not be negative")
    why = f"must be below the stage's steps={steps}, is {self.warmup_steps}"
    why = f"{why}: the learning rate never arrives at lr"
    require(steps == 0 or self.warmup_steps < steps, f"{field}.warmup_steps", why)
    falls = self.schedule == "constant" or steps == 0 or steps - self.warmup_steps > 1
    why = f"{self.schedule} cannot act in the one step that warmup_steps leaves of {steps}: use constant"
    require(falls, f"{field}.schedule", why)
    within = 0 <= self.final_fraction <= 1
    require(within, f"{field}.final_fraction", f"must lie in [0, 1], is {self.final_fraction}")
    require(self.clip_norm >= 0, f"{field}.clip_norm", "must not be negative")
    require(self.weight_decay >= 0, f"{field}.weight_decay", "must not be negative")
    for name in ("b1", "b2"):
      require(0 <= vars(self)[name] < 1, f"{field}.{name}", "must lie in [0, 1)")
    acts = self.final_fraction == 0.0 or self.schedule != "constant"
    require(acts, f"{field}.final_fraction", "cannot act with schedule=constant")


@dataclasses.dataclass(frozen=True)
class SftConfig:
  """The cold start: next-token loss on the task's demonstrations, packed into rows."""

  steps: int = 0  # 0: no cold start
  rows: int = 32  # packed rows a step
  length: int = 256  # tokens a row
  micro_batches: int = 1
  optim: OptimConfig = OptimConfig(lr=2e-3)

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field`: this group's dotted name."""
    require(self.steps >= 0, f"{field}.steps", "must not be negative")
    require(self.rows > 0 and self.length > 0, f"{field}.rows", "rows and length must be positive")
    split = self.micro_batches > 0 and self.rows % self.micro_batches == 0
    require(split, f"{field}.micro_batches", f"must divide rows={self.rows}")
    self.optim.validate(f"{field}.optim", self.steps)


@dataclasses.dataclass(frozen=True)
class AdvantageConfig:
  """Which estimator, and the conventions in which implementations differ."""

  kind: Literal[
    "grpo", "dr_grpo", "rloo", "reinforce", "reinforce++", "remax", "opo", "maxrl", "pass@k", "gae"
  ] = "grpo"
  ddof: int = 1  # of grpo's standard deviation: 1 as TRL and verl, 0 as open-instruct
  eps: float = 1e-4  # added to grpo's standard deviation: TRL 1e-4, verl 1e-6, open-instruct 1e-8
  group_baseline: bool = False  # reinforce++ subtracts the group's mean before it whitens
  # Least deviation that grpo, reinforce++ and a whitened gae divide by, in the reward's unit, and that a
  # group must be above for dynamic sampling to keep it. For rewards that are never equal (a judge's): 0.1,
  # say, where a right answer is worth 1.
  min_std: float = 0.0

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field`: this group's dotted name."""
    require(self.ddof in (0, 1), f"{field}.ddof", f"must be 0 or 1, is {self.ddof}")
    require(self.eps > 0, f"{field}.eps", "must be positive")
    require(0 <= self.min_std < float("inf"), f"{field}.min_std", f"must not be negative, is {self.min_std}")
    acts = not self.group_baseline or self.kind == "reinforce++"
    require(acts, f"{field}.group_baseline", "acts with kind=reinforce++ alone")
    default = AdvantageConfig
    touched = self.ddof != default.ddof or self.eps != default.eps
    require(not touched or self.kind == "grpo", f"{field}.ddof", "ddof and eps act with kind=grpo alone")


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """The policy loss and its aggregation over tokens."""

  kind: Literal["reinforce", "ppo_clip", "dual_clip", "cispo", "gspo", "rloo", "sapo"] = "reinforce"
  aggregation: Literal["seq_mean_token_mean", "token_mean", "dr_grpo"] = "token_mean"
  # ppo_clip, dual_clip, gspo, rloo: the ratio's lower bound is 1 - clip_low
  clip_low: float | None = traced(None)
  clip_high: float | None = traced(None)  # ... its upper bound, and cispo's cap, is 1 + clip_high
  dual_clip: float | None = None  # the c of kind=dual_clip (Ye et al. 2020: 3)
  logp_old: Literal["sampler", "learner"] = "sampler"  # where the ratio's denominator comes from

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field`: this group's dotted name."""
    clips = {"ppo_clip": (1, 1), "dual_clip": (1, 1), "cispo": (0, 1), "gspo": (1, 1), "rloo": (1, 1)}
    for name, needed in zip(("clip_low", "clip_high"), clips.get(self.kind, (0, 0))):
      value = vars(self)[name]
      problem = "is needed" if needed else "cannot act"
      require(bool(needed) == (value is not None), f"{field}.{name}", f"{problem} with kind={self.kind}")
      require(value is None or value > 0, f"{field}.{name}", "must be positive")
    reached = self.clip_low is None or self.clip_low < 1
    require(reached, f"{field}.clip_low", f"must be below 1, is {self.clip_low}: no ratio is below 0")
    dual = self.kind == "dual_clip"
    given = dual == (self.dual_clip is not None)
    require(given, f"{field}.dual_clip", "goes with kind=dual_clip, and is needed there")
    require(self.dual_clip is None or self.dual_clip > 1, f"{field}.dual_clip", "must be above 1")
    # The sequence's ratio has every token's gradient already: a sum over tokens would count length twice.
    once = self.kind != "rloo" or self.aggregation == "seq_mean_token_mean"
    why = "must be seq_mean_token_mean with kind=rloo, one loss a completion"
    require(once, f"{field}.aggregation", why)


@dataclasses.dataclass(frozen=True)
class CurriculumConfig:
  """A curriculum by pass rate, and filters of what is always or never solved."""

  # "pass_rate": a problem met before comes with probability max(min_probability, 4 p (1 - p)), p its running
  # pass rate.
  kind: Literal["none", "pass_rate"] = "none"
  # pass_rate: the least probability, in [0.01, 1], so that a step finds its problems soon.
  min_probability: float | None = None
  rate: float | None = None  # pass_rate: weight of the newest group in the running pass rate, in [0.01, 1]
  drop_solved: int = 0  # groups in a row, all correct, after which a problem comes no more; 0: never
  drop_unsolved: int = 0  # groups in a row, none correct, after which a problem comes no more; 0: never

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field`: this group's dotted name."""
    for name, least in (("min_probability", 0.01), ("rate", 0.01)):
      value = vars(self)[name]
      acts = (value is not None) == (self.kind == "pass_rate")
      require(acts, f"{field}.{name}", "goes with kind=pass_rate, and is needed there")
      within = value is None or least <= value <= 1
      require(within, f"{field}.{name}", f"must lie in [{least}, 1], is {value}")
    for name in ("drop_solved", "drop_unsolved"):
      require(vars(self)[name] >= 0, f"{field}.{name}", "must not be negative; 0 is never")


@dataclasses.dataclass(frozen=True)
class RewardModelConfig:
  """A reward model, trained on the verifier's verdicts, that pays; accuracies stay the verifier's.

  It begins as the policy that RL begins with, and learns from that policy's completions of training problems
  (Cobbe et al. 2021, section 4; Gao et al. 2022, section 2).
  """

  kind: Literal["none", "outcome"] = "none"  # outcome: P(correct), read off a whole completion
  examples: int = host(1024)  # completions that it learns from
  noise: float = host(0.0)  # share of their labels that are flipped
  steps: int = host(300)  # of its own optimiser
  rows: int = host(32)  # examples a step
  lr: float = host(1e-3)  # of Adam, falling to 0 along a cosine
  # Completions of each final held-out problem, of which best-of-n picks: n = 1, 2, 4, ..., best_of.
  best_of: int = host(64)

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field`: this group's dotted name."""
    idle = self.kind == "none" and self != RewardModelConfig()
    require(not idle, f"{field}.kind", "is none, so that no other field of the reward model can act")
    for name in ("examples", "steps", "rows", "lr", "best_of"):
      require(vars(self)[name] > 0, f"{field}.{name}", f"must be positive, is {vars(self)[name]}")
    require(0 <= self.noise <= 0.5, f"{field}.noise", "must lie in [0, 0.5]")
    require(self.rows <= self.examples, f"{field}.rows", f"must not exceed examples={self.examples}")


@dataclasses.dataclass(frozen=True)
class RLConfig:
  """The reinforcement-learning stage."""

  steps: int = 0  # rollouts; 0: no RL stage
  prompts: int = 32  # P, problems a step
  samples: int = 8  # G, completions a problem
  max_prompt: int = 16  # Lp; a longer prompt is an error that names the problem
  max_tokens: int = 64  # R, response tokens
  # Rows that the sampler decodes at once; one that ends makes room for the next. 0: all, each to the longest.
  slots: int = 0
  temperature: float = traced(1.0)
  epochs: int = 1  # passes over a rollout
  minibatches: int = 1  # optimiser steps a pass, split by prompt group
  micro_batches: int = 1  # accumulated within one optimiser step
  head_chunk: int = 4096  # response positions whose logits exist at once in the learner
  # Tokens of a row that several completions share in the update, so that padding costs little; 0: one
  # completion a row, whose prompt is encoded once a group.
  pack_length: int = 0
  loss: LossConfig = LossConfig()
  advantage: AdvantageConfig = AdvantageConfig()
  kl: KLConfig = KLConfig()
  # Coefficient of the entropy bonus; the first one where it is adaptive.
  entropy: float = traced(0.0, term="entropy")
  entropy_target: float | None = None  # nats a token that an adaptive bonus keeps the entropy above
  entropy_rate: float | None = None  # change of an adaptive bonus's coefficient a step
  cov: CovConfig = CovConfig()
  # Coefficient of half the squared distance to the stage's first parameters.
  l2_init: float = traced(0.0, term="l2_init")
  overlong: OverlongConfig = OverlongConfig()
  importance: ImportanceConfig = ImportanceConfig()
  critic: CriticConfig = CriticConfig()
  reward_model: RewardModelConfig = RewardModelConfig()
  # Distinct training problems, the first of the task's; None: all.
  problems: int | None = host(None)
  curriculum: CurriculumConfig = host(CurriculumConfig())
  # Most rounds a step of P fresh problems for groups of equal rewards (DAPO); 0: none.
  dynamic_sampling: int = 0
  # Parts in which a rollout is sampled: while one is, the host verifies those before it.
  chunks: int = host(1)
  # Verifies beside the device's work; False: the device waits, and every number is the same.
  overlap: bool = host(True)
  # Responses are cut to one of 6 widths, multiples of it, before the update; 0: never, as fused steps must.
  pad_multiple: int = 16
  optim: OptimConfig = OptimConfig()

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field`: this group's dotted name."""
    counts = ("prompts", "max_prompt", "max_tokens", "epochs", "minibatches", "micro_batches", "head_chunk")
    for name in counts:
      require(vars(self)[name] > 0, f"{field}.{name}", f"must be positive, is {vars(self)[name]}")
    require(self.problems is None or self.problems > 0, f"{field}.problems", "must be positive")
    for name in ("steps", "l2_init", "dynamic_sampling", "pad_multiple", "slots", "pack_length"):
      require(vars(self)[name] >= 0, f"{field}.{name}", "must not be negative")
    grouped = self.advantage.kind not in ("reinforce", "reinforce++", "remax", "gae")
    least = 2 if grouped else 1
    require(self.samples >= least, f"{field}.samples", f"{self.advantage.kind} needs at least {least}")
    require_temperature(self.temperature, f"{field}.temperature", greedy=False)
    group, rest = divmod(self.prompts, self.minibatches)
    require(rest == 0, f"{field}.minibatches", f"does not divide prompts={self.prompts}")
    split = group % self.micro_batches == 0
    require(split, f"{field}.micro_batches", f"does not divide the {group} prompts of a minibatch")
    even = self.chunks > 0 and self.prompts % self.chunks == 0
    require(even, f"{field}.chunks", f"must divide prompts={self.prompts}, is {self.chunks}")
    rows = self.prompts * self.samples // self.chunks
    refills = self.slots < rows
    require(refills, f"{field}.slots", f"must be below the {rows} rows of a draw, is {self.slots}; 0 is all")
    self._validate_packing(field)
    self.curriculum.validate(f"{field}.curriculum")
    self.loss.validate(f"{field}.loss")
    self.advantage.validate(f"{field}.advantage")
    self.kl.validate(f"{field}.kl")
    self.cov.validate(f"{field}.cov")
    self.overlong.validate(f"{field}.overlong", self.max_tokens)
    self.importance.validate(f"{field}.importance")
    self.critic.validate(f"{field}.critic")
    self.reward_model.validate(f"{field}.reward_model")
    self.optim.validate(f"{field}.optim", self.steps)
    self._validate_dynamic_sampling(field)
    self._validate_min_std(field)
    self._validate_critic(field)
    self._validate_loss(field)
    self._validate_regularisers(field)
    self._validate_steps(field)

  def _validate_dynamic_sampling(self, field: str) -> None:
    """What rounds of fresh problems need. Any estimator may have them."""
    why = "cannot act with one sample a problem, whose rewards are always all equal"
    require(self.dynamic_sampling == 0 or self.samples > 1, f"{field}.dynamic_sampling", why)
    verified = self.dynamic_sampling == 0 or self.reward_model.kind == "none"
    why = "chooses by the verifier's rewards, which RL does not see with a reward model"
    require(verified, f"{field}.dynamic_sampling", why)
    most = self.prompts * (1 + self.dynamic_sampling)
    fresh = self.dynamic_sampling == 0 or self.problems is None or self.problems >= most
    why = f"must be at least prompts * (1 + dynamic_sampling) = {most}, or a round's problems are not fresh"
    require(fresh, f"{field}.problems", why)

  def _validate_packing(self, field: str) -> None:
    """What packed rows need: room for any completion, and micro-batches that can be left out."""
    most = self.max_prompt + self.max_tokens
    why = f"must be 0, or at least max_prompt + max_tokens = {most}, is {self.pack_length}"
    require(self.pack_length == 0 or self.pack_length >= most, f"{field}.pack_length", why)
    acts = self.pack_length == 0 or self.micro_batches > 1
    require(acts, f"{field}.pack_length", "cannot act with micro_batches=1: there is none to leave out")

  def _validate_min_std(self, field: str) -> None:
    whitened = self.advantage.kind == "gae" and self.critic.whiten
    acts = whitened or self.advantage.kind in ("grpo", "reinforce++") or self.dynamic_sampling > 0
    why = "acts with kind=grpo or reinforce++, gae whitened, or dynamic_sampling"
    why = f"{why}: nothing else compares a deviation"
    require(acts or self.advantage.min_std == 0, f"{field}.advantage.min_std", why)

  def _validate_loss(self, field: str) -> None:
    """What the policy loss cannot be together with the rest."""
    corrected = self.importance.cap is not None
    paid = self.kl.coef > 0 and self.kl.placement == "reward"
    reads_old = (
      self.loss.kind != "reinforce" or self.kl.times_ratio or corrected or paid or self.cov.kind != "none"
    )
    idle = self.loss.logp_old == "learner" and not reads_old
    require(not idle, f"{field}.loss.logp_old", "cannot act with kind=reinforce, which has no ratio")
    learner = self.loss.logp_old == "learner"
    why = "compares the learner with the sampler, so that loss.logp_old must be learner"
    require(learner or not corrected, f"{field}.importance.cap", why)
    on_policy = self.epochs * self.minibatches == 1
    why = "with one optimiser step a rollout the ratio is 1 and"
    clipped = self.loss.clip_low is not None or self.loss.clip_high is not None
    cure = "raise epochs or minibatches, or use reinforce"
    require(not (on_policy and clipped), f"{field}.loss.kind", f"{why} {self.loss.kind} cannot clip: {cure}")
    gated = self.loss.kind == "sapo"
    require(not (on_policy and gated), f"{field}.loss.kind", f"{why} sapo's gate cannot act: {cure}")
    flat = on_policy and self.cov.kind == "kl_cov"
    require(not flat, f"{field}.cov.kind", f"{why} kl_cov has no gradient: raise epochs or minibatches")
    pooled = self.cov.kind == "clip_cov" and self.loss.kind in ("gspo", "rloo")
    why = f"clip_cov picks tokens, {self.loss.kind} has one ratio a completion"
    require(not pooled, f"{field}.cov.kind", why)

  def _validate_regularisers(self, field: str) -> None:
    """What a regulariser cannot do in a stage like this one."""
    adaptive = self.entropy_target is not None
    both = adaptive == (self.entropy_rate is not None)
    require(both, f"{field}.entropy_rate", "goes with entropy_target, and is needed there")
    for name in ("entropy_target", "entropy_rate"):
      require(vars(self)[name] is None or vars(self)[name] > 0, f"{field}.{name}", "must be positive")
    floor = not adaptive or self.entropy >= 0
    require(floor, f"{field}.entropy", "must not be negative with entropy_target, whose coefficient is not")
    # The greedy completion's reward would lack what the samples' have, and not be the baseline it says it is.
    shaped = self.overlong.buffer > 0 or self.overlong.truncation_penalty != 0
    greedy = self.advantage.kind == "remax"
    why = "buffer and truncation_penalty cannot act on remax's greedy completion, the baseline"
    require(not (shaped and greedy), f"{field}.overlong", why)
    paid = self.kl.coef > 0 and self.kl.placement == "reward"
    why = "reward cannot act on remax's greedy completion, the baseline: put the KL into the loss"
    require(not (paid and greedy), f"{field}.kl.placement", why)
    later = {
      "kl.schedule": self.kl.schedule != "constant",
      "kl.target": self.kl.target is not None,
      "kl.reference": self.kl.reference != "frozen",
      "entropy_target": adaptive,
      "l2_init": self.l2_init > 0 and self.epochs * self.minibatches == 1,
    }
    for name, is_set in later.items():
      require(not (is_set and self.steps == 1), f"{field}.{name}", "cannot act in a stage of one step")
    resets = self.kl.reset_every is None or self.steps == 0 or self.kl.reset_every < self.steps
    require(resets, f"{field}.kl.reset_every", f"must be below steps={self.steps}, or no step sees a reset")

  def _validate_steps(self, field: str) -> None:
    """What cannot act, or is biased, with so many optimiser steps or tokens, or a device that waits."""
    steps = self.epochs * self.minibatches
    why = f"reinforce has no ratio, and of {steps} optimiser steps a rollout all but the first are off-policy"
    cure = "use ppo_clip, dual_clip, cispo, gspo, rloo or sapo, or epochs=1 and minibatches=1"
    require(steps == 1 or self.loss.kind != "reinforce", f"{field}.loss.kind", f"{why}: {cure}")
    why = "is the policy with one optimiser step a rollout, so that the KL is 0"
    cure = "raise epochs or minibatches, raise reset_every above 1, or lower ema below 1"
    apart = steps > 1 or (self.kl.reset_every != 1 and self.kl.ema != 1.0)
    require(apart, f"{field}.kl.reference", f"{why}: {cure}")
    # The default stands for every budget; one that was set is to do something.
    pads = self.pad_multiple in (0, RLConfig.pad_multiple) or self.pad_multiple < self.max_tokens
    why = f"must be below max_tokens={self.max_tokens}, is {self.pad_multiple}; 0 is never"
    require(pads, f"{field}.pad_multiple", why)
    beside = self.overlap or self.chunks == 1
    why = "cannot act with overlap=False, as nothing is verified beside the device: use 1"
    require(beside, f"{field}.chunks", why)

  def _validate_critic(self, field: str) -> None:
    """What the critic needs of the rest."""
    critic, kind = self.critic, self.advantage.kind
    needed = critic.kind != "none" or kind != "gae"
    require(needed, f"{field}.critic.kind", "is needed with advantage.kind=gae, which has no other baseline")
    why = f"is {kind}, so that critic.kind={critic.kind} cannot act: gae alone asks it"
    require(critic.kind == "none" or kind == "gae", f"{field}.advantage.kind", why)
    off_policy = self.epochs * self.minibatches > 1
    cure = "raise epochs or minibatches"
    why = f"cannot act with one optimiser step a rollout, before which no value has moved: {cure}"
    require(critic.clip is None or off_policy, f"{field}.critic.clip", why)

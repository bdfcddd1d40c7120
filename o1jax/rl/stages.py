"""The two stages of a run as data: terms, layout, optimiser, learning rate, strengths of a step, and what was spent."""

import dataclasses
from typing import Any, Callable, Mapping, NamedTuple, Sequence

import flax.linen as nn
import jax.numpy as jnp
import optax

from o1jax.config import CurriculumConfig, OptimConfig, ProxyConfig, RLConfig, TrainConfig
from o1jax.rl.batch import response_width
from o1jax.rl.objective import needs, rl_terms, sft_terms
from o1jax.rl.regularise import hold_back, rl_controllers, rl_penalties
from o1jax.rl.sample import buffer_sizes
from o1jax.rl.score import Grouped, Packed
from o1jax.rl.update import REFERENCES, UpdateConfig, decaying, init_state, learning_rate, make_optimizer
from o1jax.rl.value import ADD_CRITIC
from o1jax.scaling import flops as compute
from o1jax.types import Strengths, TrainState


@dataclasses.dataclass(frozen=True)
class Stage:
  """What is static about learning in one stage."""

  name: str  # "sft" | "rl"
  tx: optax.GradientTransformation
  update: UpdateConfig
  # They make Strengths on the host and are no part of a compiled program: stages that differ in them share one.
  rate: optax.Schedule = dataclasses.field(compare=False)
  optim: OptimConfig = dataclasses.field(compare=False)
  first: int  # steps of the run before this stage
  eval_every: int  # steps of the stage between evaluations; 0: none
  add_critic: Callable[[Any], Any] = ADD_CRITIC["none"]  # to the parameters it begins with


class Spent(NamedTuple):
  """What a step used up."""

  flops: compute.Ledger
  tokens: int  # of prompts and responses
  cursor: int  # position in the stage's stream of problems, after the step
  seen: Mapping[str, Any] = {}  # what the curriculum remembers after the step


@dataclasses.dataclass(frozen=True)
class Progress:
  """Where a run is: what its checkpoints hold besides the TrainState."""

  step: int = 0  # last finished step of the run
  cursor: int = 0  # position in this stage's stream of problems
  seen: Mapping[str, Any] = dataclasses.field(
    default_factory=dict
  )  # what the curriculum remembers, by problem
  tokens: int = 0  # of prompts and responses that were learned from
  flops: compute.Ledger = compute.Ledger()
  seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)  # in each stage, over all processes
  costs: Mapping[str, float] = dataclasses.field(default_factory=dict)  # of the verifier, over all processes
  # Metrics of `step` as text, where it was saved before its line was written; {}: it is written.
  unlogged: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def to_json(self) -> dict[str, Any]:
    return {**vars(self), "flops": self.flops.to_json()}

  @staticmethod
  def from_json(data: Mapping[str, Any]) -> "Progress":
    return Progress(**{**data, "flops": compute.Ledger.from_json(data["flops"])})

  def with_costs(self, now: Mapping[str, float], counted: Mapping[str, float]) -> "Progress":
    """With what the verifier has cost this process `now`, of which `counted` is in `costs` already."""
    names = {**self.costs, **now}
    new = {name: now.get(name, 0.0) - counted.get(name, 0.0) for name in names}
    return dataclasses.replace(self, costs={name: self.costs.get(name, 0.0) + new[name] for name in names})

  def before_line(self, metrics: Mapping[str, float]) -> "Progress":
    """With the metrics of its step, whose line is not written yet."""
    return dataclasses.replace(self, unlogged={name: str(float(value)) for name, value in metrics.items()})

  def after(self, step: int, stage: str, spent: Spent, seconds: float) -> "Progress":
    """Where the run is after a step of `stage`; `seconds` in that stage so far."""
    return Progress(
      step,
      spent.cursor,
      spent.seen,
      self.tokens + spent.tokens,
      self.flops + spent.flops,
      {**self.seconds, stage: seconds},
      self.costs,
    )


def sft_stage(config: TrainConfig, steps: int, first: int = 0) -> Stage:
  """The cold start over `steps` steps."""
  cfg = config.sft
  update = UpdateConfig(sft_terms(), Packed(), cfg.length, micro_batches=cfg.micro_batches)
  return Stage(
    "sft",
    make_optimizer(cfg.optim),
    update,
    learning_rate(cfg.optim, steps),
    cfg.optim,
    first,
    config.eval.every[0],
  )


def rl_stage(config: TrainConfig, keep: frozenset[str] = frozenset()) -> Stage:
  """The RL stage, after the cold start.

  keep: of "kl", "entropy", "l2_init" and "cov" (kl_cov's), terms that stay though their coefficient is 0 here, because
  another member of a population has one.
  """
  cfg = config.rl
  update = UpdateConfig(
    rl_terms(cfg, keep=keep, dtype=config.model.dtype), Grouped(cfg.max_prompt, cfg.samples), cfg.max_tokens, cfg.epochs, cfg.minibatches,
    cfg.micro_batches, cfg.head_chunk, reference=REFERENCES[cfg.kl.reference], reset_optimizer=cfg.kl.reset_optimizer,
    hold_back=hold_back(cfg.cov), penalties=rl_penalties(cfg, keep), controllers=rl_controllers(cfg),
    exact_start=cfg.loss.logp_old == "learner",
  )  # fmt: skip
  rate = learning_rate(cfg.optim, cfg.steps)
  add_critic, every = ADD_CRITIC[cfg.critic.kind], config.eval.every[1]
  return Stage("rl", make_optimizer(cfg.optim), update, rate, cfg.optim, config.sft.steps, every, add_critic)


def first_state(stage: Stage, params: Any) -> TrainState:
  """The state a stage begins with: `params`, its critic, and copies where it asks for a reference or its start.

  One copy serves for both where the reference stays as it is.
  """
  update = stage.update
  with_reference = "logp_ref" in needs(update.terms)
  serves = with_reference and update.reference is REFERENCES["frozen"]
  return init_state(
    nn.meta.unbox(stage.add_critic(params)),
    stage.tx,
    with_reference=with_reference,
    with_init=bool(update.penalties) and not serves,
    controllers=update.controllers,
  )


def references(stage: Stage, cfg: RLConfig) -> int:
  """Forward passes without a backward one that a step makes: of the reference, and of the policy before its update."""
  asked = needs(stage.update.terms)
  exact = bool(asked & {"kl_reverse", "kl_forward"})  # each pass scores the reference anew
  return int("logp_ref" in asked) + int(cfg.loss.logp_old == "learner") + cfg.epochs * exact


# Passes of a decoder for the critic alone, without the vocabulary's head: (forward, forward and backward).
CRITIC_PASSES: dict[str, Callable[[RLConfig], tuple[int, int]]] = {
  "none": lambda cfg: (0, 0),
  "head": lambda cfg: ({"learner": 0, "sampler": 1}[cfg.loss.logp_old], 0),  # the old log-probs' pass serves
  "own": lambda cfg: (1, cfg.epochs),
}


def critic_passes(cfg: RLConfig) -> dict[str, int]:
  """What a step's critic adds to `compute.learning_flops`."""
  forward, learned = CRITIC_PASSES[cfg.critic.kind](cfg)
  return {"values": forward, "value_updates": learned}


# Forward passes of a learned reward's decoder, without the vocabulary's head, that a rollout takes.
JUDGE_PASSES = {"none": 0, "outcome": 1}


def judge_passes(cfg: RLConfig) -> int:
  """Forward passes that a learned reward makes of a rollout."""
  return JUDGE_PASSES[cfg.proxy.kind]


def step_flops(
  config: TrainConfig,
  stage: Stage,
  learned: compute.Sizes,
  draws: Sequence[compute.Sizes],
  greedy: compute.Sizes | None,
) -> compute.Ledger:
  """What an RL step took. learned: the groups that it learned from; greedy: remax's rollout.

  draws: the first rollout and those of refill rounds, whether their groups were kept or not.
  """
  cfg = config.rl

  def took(count: Callable[..., compute.Ledger], sizes: compute.Sizes, **passes: int) -> compute.Ledger:
    longest = int(sizes.lengths.max())
    width = response_width(cfg, longest)
    if count is compute.sampling_flops:
      width = next(
        size for size in buffer_sizes(cfg.max_tokens) if size >= longest - 1
      )  # the last is never fed back
    return count(config.model, sizes.prompts, cfg.max_prompt, sizes.lengths, width, **passes)

  passes = {"updates": cfg.epochs, "references": references(stage, cfg), **critic_passes(cfg)}
  spent = took(compute.learning_flops, learned, **passes)
  for sizes in (*draws, *([] if greedy is None else [greedy])):
    spent += took(compute.sampling_flops, sizes) + took(
      compute.judging_flops, sizes, judges=judge_passes(cfg)
    )
  return spent + compute.Ledger(extra_samples=sum(sizes.lengths.size for sizes in draws[1:]))


def examined_passes(stage: Stage, cfg: RLConfig) -> int:
  """Forward passes, a backward one counted as two, that `diagnostics.examine` makes of a rollout."""
  noise = cfg.prompts > 1  # the policy's gradient once more, by prompt group
  steps = 3 * (
    cfg.epochs + len(stage.update.terms) + noise
  )  # the step it takes, and each term's gradient alone
  values, learned = CRITIC_PASSES[cfg.critic.kind](cfg)
  exact = 4  # two scores with exact KLs, each of two policies
  return references(stage, cfg) + steps + exact + values + 3 * learned


def without_strengths(cfg: RLConfig) -> RLConfig:
  """`cfg` as compiled programs see it: the numbers of `strengths_at`, and what chooses problems or teaches a proxy, are
  the same for all.

  What is None stays None: whether a strength is there at all is static.
  """
  one = lambda value, stand_in: None if value is None else stand_in
  kl, loss, plain = cfg.kl, cfg.loss, OptimConfig()
  return dataclasses.replace(
    cfg, entropy=0.0, l2_init=0.0, temperature=1.0, problems=None, curriculum=CurriculumConfig(), chunks=1, overlap=True,
    kl=dataclasses.replace(
      kl, coef=0.0, schedule="constant", final_fraction=0.0, ema=one(kl.ema, 1.0), reset_every=one(kl.reset_every, 1)
    ),
    loss=dataclasses.replace(loss, clip_low=one(loss.clip_low, 1.0), clip_high=one(loss.clip_high, 1.0)),
    cov=dataclasses.replace(cfg.cov, coef=one(cfg.cov.coef, 0.0)),
    critic=dataclasses.replace(cfg.critic, coef=0.0), proxy=ProxyConfig(cfg.proxy.kind),
    optim=dataclasses.replace(
      cfg.optim, lr=plain.lr, decay=0.0, warmup=0, schedule="constant", final_fraction=0.0
    ),
  )  # fmt: skip


def strengths_at(config: TrainConfig, stage: Stage, step: int) -> Strengths:
  """The traced strengths of step `step` of the run (from 1); controllers overrule theirs (`in_force`)."""
  rl, done = config.rl, step - 1 - stage.first
  kl = decaying(rl.kl.coef, rl.kl.schedule, rl.kl.final_fraction, rl.steps)
  number = lambda value: jnp.float32(0.0 if value is None else value)
  return Strengths(
    lr=jnp.float32(stage.rate(done)),
    decay=number(stage.optim.decay),
    temperature=number(rl.temperature if stage.name == "rl" else 1.0),
    kl=jnp.float32(kl(done)),
    entropy=number(rl.entropy),
    clip_low=number(rl.loss.clip_low),
    clip_high=number(rl.loss.clip_high),
    ema=number(rl.kl.ema),
    reset_every=number(rl.kl.reset_every),
    l2_init=number(rl.l2_init),
    value=number(rl.critic.coef),
    cov=number(rl.cov.coef),
  )

"""The two stages of a run as data: terms, layout, optimiser, learning rate, and the strengths of a step."""

import dataclasses
from typing import Any, Callable

import flax.linen as nn
import jax.numpy as jnp
import optax

from o1jax.config import CurriculumConfig, OptimConfig, ProxyConfig, RLConfig, TrainConfig
from o1jax.rl.objective import needs, rl_terms, sft_terms
from o1jax.rl.regularise import hold_back, rl_controllers, rl_penalties
from o1jax.rl.reward_model import REWARDERS, Rewarder
from o1jax.rl.score import Grouped, Packed
from o1jax.rl.update import REFERENCES, UpdateConfig, decaying, init_state, learning_rate, make_optimizer
from o1jax.rl.value import ADD_CRITIC
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
  rewarder: Rewarder = REWARDERS["none"]


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
  return Stage(
    "rl", make_optimizer(cfg.optim), update, rate, cfg.optim, config.sft.steps, config.eval.every[1],
    ADD_CRITIC[cfg.critic.kind], REWARDERS[cfg.proxy.kind],
  )  # fmt: skip


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

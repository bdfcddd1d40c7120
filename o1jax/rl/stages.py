"""The two stages of a run as data: terms, layout, optimiser and learning rate, and the strengths of a step."""

import dataclasses

import jax.numpy as jnp
import optax

from o1jax.config import OptimConfig, TrainConfig
from o1jax.rl.objective import rl_terms, sft_terms
from o1jax.rl.score import Grouped, Packed
from o1jax.rl.update import REFERENCES, UpdateConfig, learning_rate, make_optimizer
from o1jax.types import Strengths


@dataclasses.dataclass(frozen=True)
class Stage:
  """What is static about learning in one stage."""

  name: str  # "sft" | "rl"
  tx: optax.GradientTransformation
  update: UpdateConfig
  rate: optax.Schedule
  optim: OptimConfig
  first: int  # steps of the run before this stage
  eval_every: int  # steps of the stage between evaluations; 0: none


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


def rl_stage(config: TrainConfig) -> Stage:
  """The RL stage, after the cold start."""
  cfg = config.rl
  update = UpdateConfig(
    rl_terms(cfg), Grouped(cfg.max_prompt, cfg.samples), cfg.max_tokens, cfg.epochs, cfg.minibatches,
    cfg.micro_batches, cfg.head_chunk, reference=REFERENCES[cfg.kl.reference], reset_optimizer=cfg.kl.reset_optimizer,
  )  # fmt: skip
  rate = learning_rate(cfg.optim, cfg.steps)
  return Stage(
    "rl", make_optimizer(cfg.optim), update, rate, cfg.optim, config.sft.steps, config.eval.every[1]
  )


def strengths_at(config: TrainConfig, stage: Stage, step: int) -> Strengths:
  """The traced strengths of step `step` of the run (from 1)."""
  rl = config.rl
  number = lambda value: jnp.float32(0.0 if value is None else value)
  return Strengths(
    lr=jnp.float32(stage.rate(step - 1 - stage.first)),
    decay=number(stage.optim.decay),
    temperature=number(rl.temperature if stage.name == "rl" else 1.0),
    kl=number(rl.kl.coef),
    entropy=number(rl.entropy),
    clip_low=number(rl.loss.clip_low),
    clip_high=number(rl.loss.clip_high),
    ema=number(rl.kl.ema),
    reset_every=number(rl.kl.reset_every),
  )

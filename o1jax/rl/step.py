"""An RL step behind its rollout: what the forward passes say of it, credit, advantages, update.

    rollout, reward -> reference and old log-probs, values -> advantages -> Experience -> learn -> TrainState

The stepwise loop and the fused program both go through `improve`. `apart` keeps the phases from being compiled into one
another: where each is an executable of its own it does nothing, in one program it is `optimization_barrier`.
"""

from typing import Any, Callable, NamedTuple

import jax

from o1jax.config import RLConfig
from o1jax.model.transformer import Decoder
from o1jax.rl.batch import credit_and_experience, token_logp, token_scores
from o1jax.rl.objective import needs
from o1jax.rl.stages import Stage
from o1jax.rl.update import in_force, learn
from o1jax.types import Experience, Rollout, Stat, Strengths, TrainState

Apart = Callable[[Any], Any]


class Before(NamedTuple):
  """What forward passes say of a rollout before anything is learned from it; each f32[B, L], of its actions."""

  logp_ref: jax.Array | None  # under the reference; None: no term asks for it
  logp_old: jax.Array  # under the sampler, or the learner
  value: jax.Array | None  # the critic's; None: there is none


def look_back(
  state: TrainState,
  rollout: Rollout,
  strengths: Strengths,
  *,
  model: Decoder,
  stage: Stage,
  cfg: RLConfig,
  apart: Apart = lambda tree: tree,
) -> Before:
  """The forward passes of a step that need no reward, so that verdicts may still be on their way; the state is only read."""
  given: dict[str, Any] = dict(
    rollout=rollout, temperature=strengths.temperature, model=model, layout=stage.update.layout, chunk=cfg.head_chunk,
  )  # fmt: skip
  asked = needs(stage.update.terms)
  logp_ref = apart(token_logp(state.ref_params, **given)) if "logp_ref" in asked else None
  wanted = (asked & {"value"}) | {"learner": {"logp"}, "sampler": set()}[cfg.loss.logp_old]
  found = apart(token_scores(state.params, **given, wanted=wanted)) if wanted else {}
  return Before(logp_ref, found.get("logp", rollout.logp_sampler), found.get("value"))


def recall(
  state: TrainState,
  rollout: Rollout,
  reward: jax.Array,
  greedy_reward: jax.Array | None,
  strengths: Strengths,
  *,
  model: Decoder,
  stage: Stage,
  cfg: RLConfig,
  apart: Apart = lambda tree: tree,
  before: Before | None = None,
) -> tuple[Experience, dict[str, Stat]]:
  """(what there is to learn from `rollout`, statistics of the reward); the state is only read.

  reward f32[P, G]; greedy_reward f32[P] for remax, else None; before: what `look_back` found already, None: not yet.
  """
  if before is None:
    before = look_back(state, rollout, strengths, model=model, stage=stage, cfg=cfg, apart=apart)
  logp_ref, logp_old, value = before
  kl = in_force(strengths, state.controllers).kl
  return apart(credit_and_experience(rollout, reward, greedy_reward, logp_old, logp_ref, kl, value, cfg=cfg))


def improve(
  state: TrainState,
  rollout: Rollout,
  reward: jax.Array,
  greedy_reward: jax.Array | None,
  key: jax.Array,
  strengths: Strengths,
  *,
  model: Decoder,
  stage: Stage,
  cfg: RLConfig,
  apart: Apart = lambda tree: tree,
  before: Before | None = None,
) -> tuple[TrainState, dict[str, Stat]]:
  """(the state after learning from `rollout`, statistics of reward and learner); arguments as in `recall`.

  Consumes the key. The state is donated where this is not traced.
  """
  experience, told = recall(
    state, rollout, reward, greedy_reward, strengths,
    model=model, stage=stage, cfg=cfg, apart=apart, before=before,
  )  # fmt: skip
  state, learned = apart(learn(state, experience, key, strengths, model=model, tx=stage.tx, cfg=stage.update))
  return state, {**told, **learned}

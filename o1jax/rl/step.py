"""An RL step behind its rollout: forward passes over it, credit, advantages, update.

    rollout, reward -> reference and old log-probs, values -> advantages -> Experience -> learn -> TrainState

The stepwise loop and the fused program both go through `train_step`. `barrier` keeps the phases from being compiled into
one another: where each is an executable of its own it does nothing, in one program it is `optimization_barrier`.
"""

from typing import Any, NamedTuple

import jax

from o1jax.config import RLConfig
from o1jax.model.transformer import Decoder
from o1jax.rl.batch import credit_and_experience, token_logp, token_scores
from o1jax.rl.dynamic_sampling import Barrier
from o1jax.rl.objective import needs
from o1jax.rl.stages import Stage
from o1jax.rl.update import in_force, learn
from o1jax.types import Experience, Reward, Rollout, Stat, Strengths, TrainState


class RolloutScores(NamedTuple):
  """Forward passes over a rollout before anything is learned from it; each f32[B, L], of its actions."""

  logp_ref: jax.Array | None  # under the reference; None: no term asks for it
  logp_old: jax.Array  # under the sampler, or the learner
  value: jax.Array | None  # the critic's; None: there is none


class LearnerInputs(NamedTuple):
  """What one RL step learns from."""

  rollout: Rollout
  reward: Reward
  greedy_reward: jax.Array | None  # f32[P], for remax
  key: jax.Array  # of minibatches; consumed by `train_step`
  strengths: Strengths


class StepOutput(NamedTuple):
  """The result of `train_step`."""

  state: TrainState
  stats: dict[str, Stat]  # of reward and learner


def score_rollout(
  state: TrainState,
  rollout: Rollout,
  strengths: Strengths,
  *,
  model: Decoder,
  stage: Stage,
  cfg: RLConfig,
  barrier: Barrier = lambda tree: tree,
) -> RolloutScores:
  """The forward passes of a step that need no reward, so that verdicts may be pending; the state is only read."""
  inputs: dict[str, Any] = dict(
    rollout=rollout, temperature=strengths.temperature, model=model, layout=stage.update.layout, chunk=cfg.head_chunk,
  )  # fmt: skip
  needed = needs(stage.update.terms)
  logp_ref = barrier(token_logp(state.ref_params, **inputs)) if "logp_ref" in needed else None
  from_learner = frozenset({"logp"}) if cfg.loss.logp_old == "learner" else frozenset()
  names = (needed & {"value"}) | from_learner
  scores = barrier(token_scores(state.params, **inputs, wanted=names)) if names else {}
  return RolloutScores(logp_ref, scores.get("logp", rollout.logp_sampler), scores.get("value"))


def make_experience(
  state: TrainState,
  inputs: LearnerInputs,
  *,
  model: Decoder,
  stage: Stage,
  cfg: RLConfig,
  barrier: Barrier = lambda tree: tree,
  scores: RolloutScores | None = None,
) -> tuple[Experience, dict[str, Stat]]:
  """(Experience of a rollout, statistics of its reward); the state is only read, and the key is not used.

  scores: those of `score_rollout` where it has run already.
  Raises ValueError where a reward of tokens meets an estimator that credits whole completions.
  """
  rollout, reward, strengths = inputs.rollout, inputs.reward, inputs.strengths
  if scores is None:
    scores = score_rollout(state, rollout, strengths, model=model, stage=stage, cfg=cfg, barrier=barrier)
  experience, stats = barrier(
    credit_and_experience(
      rollout, reward.outcome, inputs.greedy_reward, scores.logp_old, scores.logp_ref,
      in_force(strengths, state.controllers).kl, scores.value, reward.token, cfg=cfg,
    )
  )  # fmt: skip
  return experience, {**stats, **reward.metrics}


def train_step(
  state: TrainState,
  inputs: LearnerInputs,
  *,
  model: Decoder,
  stage: Stage,
  cfg: RLConfig,
  barrier: Barrier = lambda tree: tree,
  scores: RolloutScores | None = None,
) -> StepOutput:
  """The state after learning from a rollout, and statistics; arguments as in `make_experience`.

  Consumes the key. The state is donated where this is not traced.
  """
  experience, stats = make_experience(
    state, inputs, model=model, stage=stage, cfg=cfg, barrier=barrier, scores=scores
  )
  state, learner_stats = barrier(
    learn(state, experience, inputs.key, inputs.strengths, model=model, tx=stage.tx, cfg=stage.update)
  )
  return StepOutput(state, {**stats, **learner_stats})

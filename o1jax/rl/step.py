"""An RL step behind its rollout: forward passes over it, credit, advantages, update.

    rollout, reward -> reference and old log-probs, values -> advantages -> Experience -> TrainState

The stepwise loop and the fused program both go through `train_step`. `barrier` keeps the phases from being
compiled into one another: where each is an executable of its own it does nothing, in one program it is
`optimization_barrier`.
"""

from typing import Any, NamedTuple

import jax

from o1jax.rl.dynamic_sampling import Barrier
from o1jax.rl.experience import credit_and_experience, token_logp, token_scores
from o1jax.rl.learner import Learner, apply_controllers, run_epochs
from o1jax.rl.losses import needs
from o1jax.types import Experience, Hyperparams, Reward, Rollout, Stat, TrainState


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
  hyperparams: Hyperparams


class StepOutput(NamedTuple):
  """The result of `train_step`."""

  state: TrainState
  stats: dict[str, Stat]  # of reward and learner


def score_rollout(
  state: TrainState,
  rollout: Rollout,
  hyperparams: Hyperparams,
  *,
  learner: Learner,
  barrier: Barrier = lambda tree: tree,
) -> RolloutScores:
  """The forward passes of a step that need no reward: verdicts may be pending. The state is only read."""
  inputs: dict[str, Any] = dict(
    rollout=rollout, temperature=hyperparams["temperature"], model=learner.model, layout=learner.layout,
    chunk=learner.head_chunk,
  )  # fmt: skip
  needed = needs(learner.terms)
  logp_ref = barrier(token_logp(state.ref_params, **inputs)) if "logp_ref" in needed else None
  names = needed & {"value"}
  if learner.cfg.loss.logp_old == "learner":
    names |= {"logp"}
  scores = barrier(token_scores(state.params, **inputs, names=names)) if names else {}
  return RolloutScores(logp_ref, scores.get("logp", rollout.logp_sampler), scores.get("value"))


def make_experience(
  state: TrainState,
  inputs: LearnerInputs,
  *,
  learner: Learner,
  barrier: Barrier = lambda tree: tree,
  scores: RolloutScores | None = None,
) -> tuple[Experience, dict[str, Stat]]:
  """(Experience of a rollout, statistics of its reward); the state is only read, and the key is not used.

  scores: those of `score_rollout` where it has run already.
  Raises ValueError where a reward of tokens meets an estimator that credits whole completions.
  """
  rollout, reward = inputs.rollout, inputs.reward
  if scores is None:
    scores = score_rollout(state, rollout, inputs.hyperparams, learner=learner, barrier=barrier)
  kl_coef = apply_controllers(inputs.hyperparams, state.controllers)["kl.coef"]
  experience, stats = barrier(
    credit_and_experience(
      rollout, reward.outcome, inputs.greedy_reward, scores.logp_old, scores.logp_ref, kl_coef, scores.value,
      reward.token, cfg=learner.cfg,
    )
  )  # fmt: skip
  return experience, {**stats, **reward.metrics}


def train_step(
  state: TrainState,
  inputs: LearnerInputs,
  *,
  learner: Learner,
  barrier: Barrier = lambda tree: tree,
  scores: RolloutScores | None = None,
) -> StepOutput:
  """The state after learning from a rollout, and statistics; arguments as in `make_experience`.

  Consumes the key. The state is donated where this is not traced.
  """
  experience, stats = make_experience(state, inputs, learner=learner, barrier=barrier, scores=scores)
  step = barrier(run_epochs(state, experience, inputs.key, inputs.hyperparams, learner=learner))
  return StepOutput(step.state, {**stats, **step.stats})

"""Every pytree that crosses a module boundary, and the reductions that metrics travel in.

Symbols: P prompts, G samples a prompt, B = P * G rows (prompt-major: row = p * G + g), Lp prompt length,
R response length, L = Lp + R. Every per-token array is aligned to `tokens`: x[:, t] belongs to tokens[:, t],
and logp[:, t] = log pi(tokens[t] | tokens[<t]), 0 where `is_action` is false.
"""

from typing import Any, Callable

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


@flax.struct.dataclass
class PromptBatch:
  """P prompts, left-padded to one length."""

  tokens: jax.Array  # i32[P, Lp], padding on the left
  mask: jax.Array  # bool[P, Lp], true on prompt tokens
  problem_id: jax.Array  # u32[P], hash of task and problem id
  task_arrays: Any = None  # pytree with leading P for a device verifier, or None
  # i32[P], how often each stands in chunks drawn before this one; None: there are no others.
  earlier: jax.Array | None = None


@flax.struct.dataclass
class Rollout:
  """What the sampler drew: B = P * G rows of prompt and response."""

  tokens: jax.Array  # i32[B, L]
  valid: jax.Array  # bool[B, L], true on prompt and response tokens, false on padding
  is_action: jax.Array  # bool[B, L], true on tokens the policy chose (its EOS included)
  logp_sampler: jax.Array  # f32[B, L], of logits / temperature; 0 where not is_action
  finished: jax.Array  # bool[B], whether the row ended in a stop token within R
  prompt_width: int = flax.struct.field(pytree_node=False)  # Lp, columns before the responses
  policy_step: jax.Array | None = None  # i32[B], training steps of its policy; None outside training


@flax.struct.dataclass
class Credit:
  """What an advantage estimator may look at; G samples of each of P prompts."""

  outcome: jax.Array  # f32[P, G], reward of each completion
  length: jax.Array  # i32[P, G], action tokens of each completion
  include: jax.Array  # bool[P, G], completions that count
  is_action: jax.Array  # bool[B, L]
  token: jax.Array | None = None  # f32[B, L], per-token reward (a KL penalty, say), added to the outcome
  greedy: jax.Array | None = None  # f32[P], reward of the greedy completion (remax)
  value: jax.Array | None = None  # f32[B, L], the critic's value of the state before each token (gae)
  # f32[P, G], the outcome before its length was paid for; None: the outcome.
  verified: jax.Array | None = None


def check_credit(credit: Credit) -> None:
  """Raises AssertionError unless ranks and shapes are those of `Credit`; static, nothing at run time."""
  groups = jax.tree.leaves([credit.outcome, credit.length, credit.include, credit.verified])
  rows = jax.tree.leaves([credit.is_action, credit.token, credit.value])
  chex.assert_rank([*groups, *rows], 2)
  chex.assert_equal_shape(groups)
  chex.assert_equal_shape(rows)
  chex.assert_axis_dimension(credit.is_action, 0, credit.outcome.shape[0] * credit.outcome.shape[1])
  if credit.greedy is not None:
    chex.assert_shape(credit.greedy, credit.outcome.shape[:1])


@flax.struct.dataclass
class RolloutBatch:
  """G verified completions of each of P problems."""

  prompts: PromptBatch
  rollout: Rollout
  verified: jax.Array  # f32[P, G], the verifier's reward; NaN where a completion was not judged
  correct: jax.Array  # bool[B]
  place: jax.Array  # i32[P], place of each problem among those that the step drew


@flax.struct.dataclass
class Reward:
  """What pays: the output of a Rewarder."""

  outcome: jax.Array  # f32[P, G]; NaN leaves a completion out
  token: jax.Array | None = None  # f32[B, L], rewards of tokens; for estimators that credit tokens
  metrics: Any = flax.struct.field(default_factory=dict)  # name -> Stat


@flax.struct.dataclass
class Experience:
  """A batch to learn from. Packing is the general case: a row holds several completions, by `segment`."""

  tokens: jax.Array  # i32[B, L]
  segment: jax.Array  # i32[B, L], 0 = padding, else the index (from 1) of the completion within its row
  position: jax.Array  # i32[B, L], position within the segment
  is_action: jax.Array  # bool[B, L]
  logp_sampler: jax.Array  # f32[B, L]
  logp_old: jax.Array  # f32[B, L], behaviour log-probs the ratio is taken against
  advantage: jax.Array  # f32[B, L]
  weight: jax.Array  # f32[B, L], multiplies each token's loss
  logp_ref: jax.Array | None = None  # f32[B, L], reference log-probs, where a term asks
  returns: jax.Array | None = None  # f32[B, L], what the critic learns to predict
  value_old: jax.Array | None = None  # f32[B, L], the critic's values of the rollout, before any update
  cov_mask: jax.Array | None = None  # bool[B, L], tokens that clip_cov or kl_cov picked


def check_experience(experience: Experience) -> None:
  """Raises AssertionError unless all arrays are [B, L], of one shape; static, nothing at run time."""
  arrays = jax.tree.leaves(experience)
  chex.assert_rank(arrays, 2)
  chex.assert_equal_shape(arrays)


@flax.struct.dataclass
class TokenScores:
  """Scores of the tokens of an Experience by a forward pass; each f32[B, L], None where no term needs it."""

  logp: jax.Array
  entropy: jax.Array | None = None  # of the full next-token distribution, nats
  kl_reverse: jax.Array | None = None  # KL(pi || ref) over the full vocabulary, nats
  kl_forward: jax.Array | None = None  # KL(ref || pi) over the full vocabulary, nats
  value: jax.Array | None = None  # the critic's, of the state before the token


# The traced numbers of a step, f32[] by dotted name of the config field that declares each.
Hyperparams = dict[str, jax.Array]


@flax.struct.dataclass
class TrainState:
  """All that learning carries from step to step. Keys are derived from `step`, never carried."""

  step: jax.Array  # i32[], training steps taken (a rollout learned from is one)
  params: Any
  opt_state: Any
  ref_params: Any = None  # a copy, never an alias of params; None where no term needs a reference
  # The stage's first parameters, a copy; None where no term needs them, or ref_params is they.
  init_params: Any = None
  controllers: Hyperparams | None = None  # adaptive coefficients in force; None: there are none


@flax.struct.dataclass
class Norms:
  """Denominators of the GLOBAL batch, computed before the micro-batch scan, so that shares only add."""

  tokens: jax.Array  # f32[], action tokens
  completions: jax.Array  # f32[], completions with at least one action token
  budget: jax.Array  # f32[], completions * R_max


# Reductions. A metric names its own: nothing infers it from the metric's name. `value` is NaN where
# `measured` is false: a mean over nothing is no figure, and is left out of what is logged.


@flax.struct.dataclass
class Mean:
  """total / count, divided once at the end. Both f32[]."""

  total: jax.Array
  count: jax.Array

  def merge(self, other: "Mean") -> "Mean":
    return Mean(self.total + other.total, self.count + other.count)

  def value(self) -> jax.Array:
    return self.total / self.count

  def measured(self) -> jax.Array:
    return self.count > 0


@flax.struct.dataclass
class Max:
  """Largest value seen, f32[]; -inf: none was."""

  largest: jax.Array

  def merge(self, other: "Max") -> "Max":
    return Max(jnp.maximum(self.largest, other.largest))

  def value(self) -> jax.Array:
    return jnp.where(self.measured(), self.largest, jnp.nan)

  def measured(self) -> jax.Array:
    return self.largest != -jnp.inf


@flax.struct.dataclass
class Min:
  """Smallest value seen, f32[]; inf: none was."""

  smallest: jax.Array

  def merge(self, other: "Min") -> "Min":
    return Min(jnp.minimum(self.smallest, other.smallest))

  def value(self) -> jax.Array:
    return jnp.where(self.measured(), self.smallest, jnp.nan)

  def measured(self) -> jax.Array:
    return self.smallest != jnp.inf


@flax.struct.dataclass
class Moments:
  """First two moments of a set of numbers, as sums, so that sets merge exactly. All f32[]."""

  count: jax.Array
  total: jax.Array
  total_sq: jax.Array

  def merge(self, other: "Moments") -> "Moments":
    return jax.tree.map(jnp.add, self, other)

  def mean_sq(self) -> jax.Array:
    return self.total_sq / jnp.maximum(self.count, 1e-9)

  def variance(self) -> jax.Array:
    """Of the set (ddof 0), f32[]."""
    return jnp.maximum(self.mean_sq() - (self.total / jnp.maximum(self.count, 1e-9)) ** 2, 0.0)


@flax.struct.dataclass
class Explained:
  """1 - Var(rest) / Var(target): the explained variance of a prediction; rest = target - prediction.

  Not measured where the quantity does not vary beyond the rounding of its squares: there is nothing to
  explain.
  """

  target: Moments
  rest: Moments

  def merge(self, other: "Explained") -> "Explained":
    return Explained(self.target.merge(other.target), self.rest.merge(other.rest))

  def value(self) -> jax.Array:
    return jnp.where(self.measured(), 1.0 - self.rest.variance() / self.target.variance(), jnp.nan)

  def measured(self) -> jax.Array:
    return self.target.variance() > 1e-6 * self.target.mean_sq()


Stat = Mean | Max | Min | Explained


def masked_mean(value: jax.Array, mask: jax.Array) -> Mean:
  """Mean of `value` where `mask`; both of one shape."""
  weight = mask.astype(jnp.float32)
  return Mean(jnp.sum(jnp.where(mask, value, 0.0)), jnp.sum(weight))


def masked_max(value: jax.Array, mask: jax.Array) -> Max:
  """Largest `value` where `mask`; -inf where the mask is empty."""
  return Max(jnp.max(jnp.where(mask, value, -jnp.inf)))


def moments(value: jax.Array, mask: jax.Array) -> Moments:
  """Moments of `value` where `mask`; both of one shape."""
  value = jnp.where(mask, value, 0.0)
  squares = jax.lax.optimization_barrier(value**2)  # or each is rounded as what it is fused with likes
  return Moments(jnp.sum(mask.astype(jnp.float32)), jnp.sum(value), jnp.sum(squares))


def merge_stats(a: dict[str, Stat], b: dict[str, Stat]) -> dict[str, Stat]:
  """Merges two dicts of statistics with the same keys."""
  merge = lambda left, right: left.merge(right)
  return {name: merge(a[name], b[name]) for name in a}


def blank_stats(stats: dict[str, Stat]) -> dict[str, Stat]:
  """The neutral element of merging with `stats` (arrays or shapes): the start of an accumulating scan."""
  none = Moments(jnp.zeros(()), jnp.zeros(()), jnp.zeros(()))
  blanks: dict[type, Callable[[], Stat]] = {
    Mean: lambda: Mean(jnp.zeros(()), jnp.zeros(())),
    Max: lambda: Max(jnp.full((), -jnp.inf)),
    Min: lambda: Min(jnp.full((), jnp.inf)),
    Explained: lambda: Explained(none, none),
  }
  return {name: blanks[type(stat)]() for name, stat in stats.items()}


def resolve_stats(stats: dict[str, Stat]) -> dict[str, float]:
  """Host side: divides once, and returns plain floats under the names of the metrics that were measured."""
  return {name: float(value) for name, value in divided(stats).items() if not value.mask}


def divided(stats: dict[str, Stat]) -> dict[str, np.ma.MaskedArray]:
  """Host side: f32 of the statistics' own leading shape under the metrics' names, masked where nothing was
  measured.
  """
  stats = jax.device_get(stats)
  with np.errstate(invalid="ignore", divide="ignore"):
    return {
      name: np.ma.masked_array(np.asarray(stat.value()), ~np.asarray(stat.measured()))
      for name, stat in stats.items()
    }

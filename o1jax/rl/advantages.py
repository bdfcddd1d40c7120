"""Advantage estimators: (Credit, RLConfig) -> f32[B, L], 0 where not an action.

Rows are prompt-major (row = p * G + g). A group whose rewards are all equal gets exactly 0 from every
estimator that compares within the group, whatever rounding would say. A completion with `include` false
gets 0 and enters no statistic. A per-token reward (`Credit.token`, a KL penalty say) is summed over a
completion's actions and added to its outcome; reinforce++ and gae let it act up to its token. gae alone
tells the tokens of a completion apart by a critic.

What divides, and what makes a group level, is of the outcome alone: else a group of equal outcomes, whose
KLs differ a little, would have them divided by their own deviation, at full strength whatever the
coefficient. Where an estimator divides, the per-token rewards come behind it as they are, less their mean.
"""

import dataclasses
from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp

from o1jax.config import RLConfig
from o1jax.rl.critic import gae_sum
from o1jax.types import Credit, Mean, Stat


def _rewards(credit: Credit) -> jax.Array:
  """f32[P, G]: outcome plus the sum of per-token rewards."""
  return credit.outcome if credit.token is None else credit.outcome + _token_sum(credit)


def _token_sum(credit: Credit) -> jax.Array:
  """f32[P, G]: the sum of a completion's per-token rewards, which it must have."""
  assert credit.token is not None
  return jnp.where(credit.is_action, credit.token, 0.0).sum(1).reshape(credit.outcome.shape)


def _group_mean(value: jax.Array, include: jax.Array) -> jax.Array:
  """f32[P, 1] mean of f32[P, G] over the included."""
  count = jnp.maximum(include.sum(1, keepdims=True), 1)
  return jnp.where(include, value, 0.0).sum(1, keepdims=True) / count


def same_reward(reward: jax.Array, include: jax.Array) -> jax.Array:
  """bool[P, 1]: whether all included rewards of a group are equal (compared, never subtracted)."""
  top = jnp.where(include, reward, -jnp.inf).max(1, keepdims=True)
  bottom = jnp.where(include, reward, jnp.inf).min(1, keepdims=True)
  return top <= bottom


def _spread(credit: Credit, per_completion: jax.Array, reward: jax.Array) -> jax.Array:
  """f32[P, G] -> f32[B, L] on actions; 0 where the group's rewards are equal or the row is left out."""
  kept = credit.include & ~same_reward(reward, credit.include)
  rows = jnp.where(kept, per_completion, 0.0).reshape(-1, 1)
  return jnp.where(credit.is_action, rows, 0.0)


def _by_outcome(credit: Credit, per_completion: jax.Array) -> jax.Array:
  """f32[B, L]: `per_completion` f32[P, G], plus the per-token rewards less their group's mean."""
  of_outcome = _spread(credit, per_completion, credit.outcome)
  if credit.token is None:
    return of_outcome
  token_sum = _token_sum(credit)
  return of_outcome + _spread(credit, token_sum - _group_mean(token_sum, credit.include), token_sum)


def deviation(reward: jax.Array, include: jax.Array, ddof: int = 1) -> jax.Array:
  """f32[P, 1]: standard deviation of a group's included rewards."""
  squares = jnp.where(include, (reward - _group_mean(reward, include)) ** 2, 0.0).sum(1, keepdims=True)
  return jnp.sqrt(squares / jnp.maximum(include.sum(1, keepdims=True) - ddof, 1))


def grpo(credit: Credit, cfg: RLConfig) -> jax.Array:
  """(R - mean) / (std + eps), std with `ddof`, at least `min_std` (Shao et al. 2024, section 4.1.2)."""
  reward = credit.outcome
  spread = deviation(reward, credit.include, cfg.advantage.ddof)
  centred = reward - _group_mean(reward, credit.include)
  return _by_outcome(credit, centred / (jnp.maximum(spread, cfg.advantage.min_std) + cfg.advantage.eps))


def dr_grpo(credit: Credit, cfg: RLConfig) -> jax.Array:
  """R - mean, without the standard deviation (Liu et al. 2025, section 3.2)."""
  reward = _rewards(credit)
  return _spread(credit, reward - _group_mean(reward, credit.include), reward)


def rloo(credit: Credit, cfg: RLConfig) -> jax.Array:
  """R - mean of the others = G / (G - 1) (R - mean) (Kool et al. 2019; Ahmadian et al. 2024, eq. 8)."""
  reward = _rewards(credit)
  count = credit.include.sum(1, keepdims=True)
  centred = reward - _group_mean(reward, credit.include)
  return _spread(credit, centred * count / jnp.maximum(count - 1, 1), reward)


def reinforce(credit: Credit, cfg: RLConfig) -> jax.Array:
  """R itself, with no baseline (Williams 1992, eq. 11 with b = 0): equal rewards teach too."""
  rows = jnp.where(credit.include, _rewards(credit), 0.0).reshape(-1, 1)
  return jnp.where(credit.is_action, rows, 0.0)


def opo(credit: Credit, cfg: RLConfig) -> jax.Array:
  """R - sum(length R) / sum(length), the length-weighted optimal baseline (Hao et al. 2025, eq. 8)."""
  reward = _rewards(credit)
  length = jnp.where(credit.include, credit.length, 0).astype(jnp.float32)
  total = jnp.maximum(length.sum(1, keepdims=True), 1.0)
  weighted = jnp.where(credit.include, length * reward, 0.0).sum(1, keepdims=True)
  return _spread(credit, reward - weighted / total, reward)


def maxrl(credit: Credit, cfg: RLConfig) -> jax.Array:
  """(R - mean) / mean, the divisor that of the verifier's rewards alone; 0 where it is not positive."""
  reward = _rewards(credit)
  mean = _group_mean(credit.outcome if credit.verified is None else credit.verified, credit.include)
  centred = reward - _group_mean(reward, credit.include)
  return _spread(credit, jnp.where(mean > 0, centred / jnp.where(mean > 0, mean, 1.0), 0.0), reward)


def pass_at_k(credit: Credit, cfg: RLConfig) -> jax.Array:
  """Credit to the best completion alone, r_max - r_2nd, k = G; ties leave nothing to credit."""
  reward = jnp.where(credit.include, credit.outcome, -jnp.inf)
  best = jax.lax.top_k(reward, 2)[0]
  lead = best[:, :1] - best[:, 1:]
  winner = jax.nn.one_hot(jnp.argmax(reward, 1), reward.shape[1], dtype=bool)
  return _by_outcome(credit, jnp.where(winner & jnp.isfinite(lead), lead, 0.0))


def remax(credit: Credit, cfg: RLConfig) -> jax.Array:
  """R - R(greedy completion) (Li et al. 2023, algorithm 1). Raises ValueError without greedy rewards."""
  if credit.greedy is None:
    raise ValueError("remax needs the rewards of greedy completions")
  rows = jnp.where(credit.include, _rewards(credit) - credit.greedy[:, None], 0.0).reshape(-1, 1)
  return jnp.where(credit.is_action, rows, 0.0)


def _centre(value: jax.Array, mask: jax.Array) -> jax.Array:
  """f32[B, L] with mean 0 over `mask`, 0 elsewhere."""
  mean = jnp.where(mask, value, 0.0).sum() / jnp.maximum(mask.sum(), 1)
  return jnp.where(mask, value - mean, 0.0)


def _whiten(value: jax.Array, mask: jax.Array, min_std: float) -> jax.Array:
  """f32[B, L] with mean 0 and variance 1 over `mask`, 0 elsewhere.

  The variance is less where the deviation is below `min_std`. Exactly 0 where all of it is equal.
  """
  centred = _centre(value, mask)
  level = jnp.where(mask, value, -jnp.inf).max() <= jnp.where(mask, value, jnp.inf).min()
  variance = jnp.maximum((centred**2).sum() / jnp.maximum(mask.sum(), 1) + 1e-8, min_std**2)
  return jnp.where(level, 0.0, centred * jax.lax.rsqrt(variance))


def reinforce_plus_plus(credit: Credit, cfg: RLConfig) -> jax.Array:
  """Returns whitened over the batch's action tokens (Hu 2025, section 3); a group's mean first, by option.

  A token's return is the outcome, whitened, plus the per-token rewards from it on, undiscounted and centred
  alone.
  """
  outcome = credit.outcome
  if cfg.advantage.group_baseline:
    centred = outcome - _group_mean(outcome, credit.include)
    outcome = jnp.where(same_reward(outcome, credit.include), 0.0, centred)
  mask = credit.is_action & credit.include.reshape(-1, 1)
  whitened = _whiten(jnp.broadcast_to(outcome.reshape(-1, 1), mask.shape), mask, cfg.advantage.min_std)
  if credit.token is None:
    return whitened
  token = jnp.where(mask, credit.token, 0.0)
  return whitened + _centre(jnp.flip(jnp.cumsum(jnp.flip(token, 1), 1), 1), mask)


def gae(credit: Credit, cfg: RLConfig) -> jax.Array:
  """Generalised advantages from the critic's values, whitened by option (`gae_sum`).

  Being linear in the rewards, they are whitened without the per-token ones, whose own come behind, centred
  alone.
  """

  def advantages(credit: Credit) -> jax.Array:
    return gae_sum(credit, cfg.critic.gamma, cfg.critic.lam)

  if not cfg.critic.whiten:
    return advantages(credit)
  mask = credit.is_action & credit.include.reshape(-1, 1)
  whitened = _whiten(advantages(dataclasses.replace(credit, token=None)), mask, cfg.advantage.min_std)
  if credit.token is None:
    return whitened
  assert credit.value is not None  # gae comes with a critic
  of_token = dataclasses.replace(
    credit, outcome=jnp.zeros_like(credit.outcome), value=jnp.zeros_like(credit.value)
  )
  return whitened + _centre(advantages(of_token), mask)


class Estimator(NamedTuple):
  """An advantage estimator."""

  fn: Callable[[Credit, RLConfig], jax.Array]  # -> f32[B, L]
  credits_tokens: bool = False  # whether a token's reward acts on the tokens up to it alone


ADVANTAGES = {
  "grpo": Estimator(grpo),
  "dr_grpo": Estimator(dr_grpo),
  "rloo": Estimator(rloo),
  "reinforce": Estimator(reinforce),
  "reinforce++": Estimator(reinforce_plus_plus, credits_tokens=True),
  "remax": Estimator(remax),
  "opo": Estimator(opo),
  "maxrl": Estimator(maxrl),
  "pass@k": Estimator(pass_at_k),
  "gae": Estimator(gae, credits_tokens=True),
}


def reward_stats(credit: Credit) -> dict[str, Stat]:
  """reward, reward_std (ddof 1, over all included rewards, as TRL) and frac_reward_zero_std."""
  reward, include = credit.outcome, credit.include
  count = include.sum().astype(jnp.float32)
  mean = jnp.where(include, reward, 0.0).sum() / jnp.maximum(count, 1.0)
  squares = jnp.where(include, (reward - mean) ** 2, 0.0).sum()
  groups = include.any(1, keepdims=True)
  level = (groups & same_reward(reward, include)).astype(jnp.float32)
  return {
    "reward": Mean(jnp.where(include, reward, 0.0).sum(), count),
    "reward_std": Mean(jnp.sqrt(squares / jnp.maximum(count - 1.0, 1.0)), (count > 1).astype(jnp.float32)),
    "frac_reward_zero_std": Mean(level.sum(), groups.sum().astype(jnp.float32)),
  }

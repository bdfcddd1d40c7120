"""Advantage estimators: (Credit, RLConfig) -> f32[B, L], the completion's advantage on its action tokens and 0 elsewhere.

Rows are prompt-major (row = p * G + g). A group whose rewards are all equal gets exactly 0 from every estimator
that compares within the group, whatever rounding would say. A completion with `include` false gets 0 and enters no
statistic. A per-token reward (`Credit.token`, a KL penalty say) is summed over a completion's actions and added to
its outcome; reinforce++ and gae let it act up to its token. gae alone tells the tokens of a completion apart by a critic.
"""

from typing import Callable

import jax
import jax.numpy as jnp

from o1jax.config import RLConfig
from o1jax.rl.value import td_sum
from o1jax.types import Credit, Mean, Stat


def _rewards(credit: Credit) -> jax.Array:
  """f32[P, G]: outcome plus the sum of per-token rewards."""
  if credit.token is None:
    return credit.outcome
  per_row = jnp.where(credit.is_action, credit.token, 0.0).sum(1)
  return credit.outcome + per_row.reshape(credit.outcome.shape)


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
  """f32[P, G] -> f32[B, L] on actions, exactly 0 where the group's rewards are equal or the completion is left out."""
  kept = credit.include & ~same_reward(reward, credit.include)
  rows = jnp.where(kept, per_completion, 0.0).reshape(-1, 1)
  return jnp.where(credit.is_action, rows, 0.0)


def grpo(credit: Credit, cfg: RLConfig) -> jax.Array:
  """(R - mean) / (std + eps) (Shao et al. 2024, section 4.1.2), std with `advantage.ddof`."""
  reward = _rewards(credit)
  centred = reward - _group_mean(reward, credit.include)
  count = credit.include.sum(1, keepdims=True)
  squares = jnp.where(credit.include, centred**2, 0.0).sum(1, keepdims=True)
  deviation = jnp.sqrt(squares / jnp.maximum(count - cfg.advantage.ddof, 1))
  return _spread(credit, centred / (deviation + cfg.advantage.eps), reward)


def dr_grpo(credit: Credit, cfg: RLConfig) -> jax.Array:
  """R - mean, without the standard deviation (Liu et al. 2025, section 3.2)."""
  del cfg
  reward = _rewards(credit)
  return _spread(credit, reward - _group_mean(reward, credit.include), reward)


def rloo(credit: Credit, cfg: RLConfig) -> jax.Array:
  """R - mean of the others = G / (G - 1) (R - mean) (Kool et al. 2019; Ahmadian et al. 2024, eq. 8)."""
  del cfg
  reward = _rewards(credit)
  count = credit.include.sum(1, keepdims=True)
  centred = reward - _group_mean(reward, credit.include)
  return _spread(credit, centred * count / jnp.maximum(count - 1, 1), reward)


def reinforce(credit: Credit, cfg: RLConfig) -> jax.Array:
  """R itself, with no baseline (Williams 1992, eq. 11 with b = 0): equal rewards teach too."""
  del cfg
  rows = jnp.where(credit.include, _rewards(credit), 0.0).reshape(-1, 1)
  return jnp.where(credit.is_action, rows, 0.0)


def opo(credit: Credit, cfg: RLConfig) -> jax.Array:
  """R - sum(length R) / sum(length), the length-weighted optimal baseline (Hao et al. 2025, eq. 8)."""
  del cfg
  reward = _rewards(credit)
  length = jnp.where(credit.include, credit.length, 0).astype(jnp.float32)
  total = jnp.maximum(length.sum(1, keepdims=True), 1.0)
  weighted = jnp.where(credit.include, length * reward, 0.0).sum(1, keepdims=True)
  return _spread(credit, reward - weighted / total, reward)


def maxrl(credit: Credit, cfg: RLConfig) -> jax.Array:
  """(R - mean) / mean, 0 where the mean is not positive."""
  del cfg
  reward = _rewards(credit)
  mean = _group_mean(reward, credit.include)
  return _spread(credit, jnp.where(mean > 0, (reward - mean) / jnp.where(mean > 0, mean, 1.0), 0.0), reward)


def pass_at_k(credit: Credit, cfg: RLConfig) -> jax.Array:
  """Credit to the best completion alone, r_max - r_2nd, k = G; ties leave nothing to credit."""
  del cfg
  reward = jnp.where(credit.include, _rewards(credit), -jnp.inf)
  best = jax.lax.top_k(reward, 2)[0]
  lead = best[:, :1] - best[:, 1:]
  winner = jax.nn.one_hot(jnp.argmax(reward, 1), reward.shape[1], dtype=bool)
  return _spread(credit, jnp.where(winner & jnp.isfinite(lead), lead, 0.0), reward)


def remax(credit: Credit, cfg: RLConfig) -> jax.Array:
  """R - R(greedy completion) (Li et al. 2023, algorithm 1). Raises ValueError without greedy rewards."""
  del cfg
  if credit.greedy is None:
    raise ValueError("remax needs the rewards of greedy completions")
  rows = jnp.where(credit.include, _rewards(credit) - credit.greedy[:, None], 0.0).reshape(-1, 1)
  return jnp.where(credit.is_action, rows, 0.0)


def _whiten(value: jax.Array, mask: jax.Array) -> jax.Array:
  """f32[B, L] with mean 0 and variance 1 over `mask`, 0 elsewhere; exactly 0 where all of it is equal."""
  count = jnp.maximum(mask.sum(), 1)
  mean = jnp.where(mask, value, 0.0).sum() / count
  centred = jnp.where(mask, value - mean, 0.0)
  level = jnp.where(mask, value, -jnp.inf).max() <= jnp.where(mask, value, jnp.inf).min()
  return jnp.where(level, 0.0, centred * jax.lax.rsqrt((centred**2).sum() / count + 1e-8))


def reinforce_plus_plus(credit: Credit, cfg: RLConfig) -> jax.Array:
  """Returns whitened over all action tokens of the batch (Hu 2025, section 3); a group's mean first, by option.

  A token's return is the outcome plus the per-token rewards from it on, undiscounted.
  """
  outcome = credit.outcome
  if cfg.advantage.group_baseline:
    centred = outcome - _group_mean(outcome, credit.include)
    outcome = jnp.where(same_reward(outcome, credit.include), 0.0, centred)
  mask = credit.is_action & credit.include.reshape(-1, 1)
  returns = jnp.broadcast_to(outcome.reshape(-1, 1), mask.shape)
  if credit.token is not None:
    token = jnp.where(mask, credit.token, 0.0)
    returns = returns + jnp.flip(jnp.cumsum(jnp.flip(token, 1), 1), 1)
  return _whiten(returns, mask)


def _as_it_is(value: jax.Array, mask: jax.Array) -> jax.Array:
  del mask
  return value


WHITENING = {True: _whiten, False: _as_it_is}


def gae(credit: Credit, cfg: RLConfig) -> jax.Array:
  """Generalised advantages from the critic's values, whitened by option (Schulman et al. 2016, eq. 16; see `td_sum`)."""
  advantage = td_sum(credit, cfg.critic.gamma, cfg.critic.lam)
  return WHITENING[cfg.critic.whiten](advantage, credit.is_action & credit.include.reshape(-1, 1))


ADVANTAGES: dict[str, Callable[[Credit, RLConfig], jax.Array]] = {
  "grpo": grpo,
  "dr_grpo": dr_grpo,
  "rloo": rloo,
  "reinforce": reinforce,
  "reinforce++": reinforce_plus_plus,
  "remax": remax,
  "opo": opo,
  "maxrl": maxrl,
  "pass@k": pass_at_k,
  "gae": gae,
}


def reward_stats(credit: Credit) -> dict[str, Stat]:
  """reward, reward_std (ddof 1, over all included rewards, as TRL) and frac_reward_zero_std (groups that say nothing)."""
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

"""What a rollout's lengths and its sampler change before anything is learned from it.

    reward, lengths -> length reward -> reward shaped; truncated completions -> left out, or not
    logp_old, logp_sampler -> importance weights -> Experience.weight

Lengths are action tokens, never characters. A completion is truncated where it drew no stop token within R
tokens.
"""

import dataclasses
from typing import Callable

import jax
import jax.numpy as jnp

from o1jax.config import ImportanceConfig, OverlongConfig
from o1jax.rl.regularise import bounded
from o1jax.types import Experience, Rollout, Stat, masked_max, masked_mean


def length_reward(rollout: Rollout, cfg: OverlongConfig, max_tokens: int) -> jax.Array:
  """f32[B] that a completion's length and truncation add to its reward; `max_tokens` is R.

  penalty * (0 where length <= R - C, else (R - C - length) / C, C = buffer) (Yu et al. 2025, DAPO, section
  3.4), plus `unfinished` where the completion is truncated (Lambert et al. 2024, Tulu 3: -10).
  """
  length = rollout.is_action.sum(1).astype(jnp.float32)
  over = (max_tokens - cfg.buffer - length) / max(cfg.buffer, 1)  # without a buffer no length is beyond R
  return cfg.penalty * jnp.clip(over, -1.0, 0.0) + jnp.where(rollout.finished, 0.0, cfg.unfinished)


def leave_out(rollout: Rollout, include: jax.Array) -> Rollout:
  """The rollout without the actions of rows that `include` bool[B] leaves out."""
  action = rollout.is_action & include[:, None]
  return dataclasses.replace(
    rollout, is_action=action, logp_sampler=jnp.where(action, rollout.logp_sampler, 0.0)
  )


LEVELS: dict[str, Callable[[jax.Array], jax.Array]] = {
  "token": lambda gap: gap,
  "sequence": lambda gap: jnp.broadcast_to(gap.sum(1, keepdims=True), gap.shape),
}
EXCESS: dict[str, Callable[[jax.Array, float], jax.Array]] = {
  "clamp": jnp.minimum,
  "mask": lambda ratio, cap: jnp.where(ratio <= cap, ratio, 0.0),
}


def correct_sampler(experience: Experience, cfg: ImportanceConfig) -> tuple[Experience, dict[str, Stat]]:
  """The experience with its weights times exp(logp_old - logp_sampler), cut above `cap` (Yao et al. 2025).

  `logp_old` must be the learner's before its first step; one completion stands in a row. The weights are
  numbers, with no gradient, and multiply whatever `Experience.weight` does: the losses of policy and critic
  and a KL in the loss, all of them means over the sampler's tokens. The statistics are those of the ratios
  before they are cut, over action tokens.
  """
  if cfg.cap is None:
    return experience, {}
  mask = experience.is_action
  gap = jnp.where(mask, experience.logp_old - experience.logp_sampler, 0.0)
  ratio = jnp.exp(bounded(LEVELS[cfg.level](gap)))
  stats: dict[str, Stat] = {
    "importance/mean": masked_mean(ratio, mask),
    "importance/max": masked_max(ratio, mask),
  }
  weight = experience.weight * EXCESS[cfg.excess](ratio, cfg.cap)
  return dataclasses.replace(experience, weight=weight), stats

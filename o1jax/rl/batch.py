"""From problems to PromptBatch, and from a verified Rollout to Experience: pure, host or device side as named."""

from typing import Any, Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from o1jax.config import AdvantageConfig, ConfigError
from o1jax.types import Credit, Experience, PromptBatch, Rollout


def prompt_batch(
  prompts: Sequence[Sequence[int]], keys: Sequence[int], names: Sequence[str], length: int
) -> PromptBatch:
  """Host side: token lists -> a left-padded PromptBatch of numpy arrays.

  `keys` are the problems' u32 hashes. Raises ConfigError naming the problem whose prompt is longer than `length`.
  """
  tokens: Any = np.zeros((len(prompts), length), np.int32)
  mask: Any = np.zeros((len(prompts), length), bool)
  for row, (prompt, name) in enumerate(zip(prompts, names, strict=True)):
    if len(prompt) > length:
      raise ConfigError(
        f"rl.max_prompt: problem {name!r} has {len(prompt)} prompt tokens, the limit is {length}"
      )
    tokens[row, length - len(prompt) :] = prompt
    mask[row, length - len(prompt) :] = True
  ids: Any = np.asarray(keys, np.uint32)
  return PromptBatch(tokens, mask, ids)


def group_credit(
  rollout: Rollout, reward: jax.Array, token: jax.Array | None, greedy: jax.Array | None
) -> Credit:
  """A Credit in which every completion counts; reward f32[P, G], token f32[B, L] or None, greedy f32[P] or None."""
  lengths = rollout.is_action.sum(1).reshape(reward.shape)
  include = jnp.ones(reward.shape, bool)
  return Credit(reward, lengths, include, rollout.is_action, token, greedy)


def experience_of(
  rollout: Rollout,
  credit: Credit,
  logp_old: jax.Array,
  logp_ref: jax.Array | None,
  advantage: Callable[[Credit, AdvantageConfig], jax.Array],
  cfg: AdvantageConfig,
) -> Experience:
  """The Experience of a rollout: one completion a row, its prompt in the first columns."""
  segment = rollout.valid.astype(jnp.int32)
  return Experience(
    tokens=rollout.tokens,
    segment=segment,
    position=jnp.maximum(jnp.cumsum(segment, axis=1) - 1, 0),
    is_action=rollout.is_action,
    logp_sampler=rollout.logp_sampler,
    logp_old=logp_old,
    advantage=advantage(credit, cfg),
    weight=rollout.is_action.astype(jnp.float32),
    logp_ref=logp_ref,
  )


def pack(texts: Sequence[tuple[list[int], list[int]]], rows: int, length: int) -> tuple[Experience, int]:
  """Host side: (prompt, response) token lists -> packed rows [rows, length] to imitate, and how many went in.

  Each is laid into the first row with room; packing stops at the first that fits nowhere, so that the order of the
  data is kept and the rest is the next batch's. Actions are the response's tokens. Raises ConfigError where one is
  longer than a row.
  """
  arrays: Any = [np.zeros((rows, length), np.int32) for _ in range(3)]
  tokens, segment, position = arrays
  action: Any = np.zeros((rows, length), bool)
  used, count = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
  packed = 0
  for prompt, response in texts:
    size = len(prompt) + len(response)
    if size > length:
      raise ConfigError(f"sft.length: a demonstration has {size} tokens, a row {length}")
    free = np.flatnonzero(used + size <= length)
    if not free.size:
      break
    row = free[0]
    at = slice(used[row], used[row] + size)
    tokens[row, at] = [*prompt, *response]
    count[row] += 1
    segment[row, at] = count[row]
    position[row, at] = np.arange(size)
    action[row, at.start + len(prompt) : at.stop] = True
    used[row] += size
    packed += 1
  zero: Any = np.zeros((rows, length), np.float32)
  weight = action.astype(np.float32)
  return Experience(tokens, segment, position, action, zero, zero, zero, weight), packed

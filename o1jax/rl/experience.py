"""PromptBatch of problems, and Experience of a verified Rollout or of texts; pure.

reward, lengths -> length reward -> reward; truncated completions -> left out, or not
logp_old, logp_sampler -> importance weights -> Experience.weight
"""

import dataclasses
import functools
import math
from typing import Any, Callable, NamedTuple, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from o1jax.config import ConfigError, ImportanceConfig, OverlongConfig, RLConfig, require
from o1jax.model.transformer import Decoder
from o1jax.rl.advantages import ADVANTAGES, reward_stats
from o1jax.rl.critic import with_returns
from o1jax.rl.regularisers import bounded, kl_penalty
from o1jax.rl.sampler import MAX_BODIES, buffer_sizes
from o1jax.rl.scoring import Grouped, score
from o1jax.types import (
  Credit,
  Experience,
  PromptBatch,
  Rollout,
  Stat,
  check_credit,
  masked_max,
  masked_mean,
)


def check_prompt(prompt: Sequence[int], name: str, length: int) -> None:
  """Raises ConfigError naming the problem whose prompt has no tokens, or more than `length`."""
  require(len(prompt) > 0, "prompt", f"problem {name!r} has no prompt tokens")
  fits = len(prompt) <= length
  require(fits, "rl.max_prompt", f"problem {name!r} has {len(prompt)} prompt tokens, the limit is {length}")


def prompt_batch(
  prompts: Sequence[Sequence[int]], keys: Sequence[int], names: Sequence[str], length: int
) -> PromptBatch:
  """Host side: token lists -> a left-padded PromptBatch of numpy arrays.

  `keys` are the problems' u32 hashes. Raises ConfigError as `check_prompt` does.
  """
  tokens: Any = np.zeros((len(prompts), length), np.int32)
  mask: Any = np.zeros((len(prompts), length), bool)
  for row, (prompt, name) in enumerate(zip(prompts, names, strict=True)):
    check_prompt(prompt, name, length)
    tokens[row, length - len(prompt) :] = prompt
    mask[row, length - len(prompt) :] = True
  ids: Any = np.asarray(keys, np.uint32)
  return PromptBatch(tokens, mask, ids)


def group_credit(
  rollout: Rollout,
  reward: jax.Array,
  include: jax.Array,
  token: jax.Array | None,
  greedy: jax.Array | None,
) -> Credit:
  """reward f32[P, G], include bool[B], token f32[B, L] or None, greedy f32[P] or None -> Credit."""
  lengths = rollout.is_action.sum(1).reshape(reward.shape)
  return Credit(
    outcome=reward, length=lengths, include=include.reshape(reward.shape), is_action=rollout.is_action,
    token=token, greedy=greedy,
  )  # fmt: skip


def experience_of(
  rollout: Rollout,
  credit: Credit,
  logp_old: jax.Array,
  logp_ref: jax.Array | None,
  advantage: Callable[[Credit, RLConfig], jax.Array],
  cfg: RLConfig,
) -> Experience:
  """The Experience of a rollout: one completion a row, its prompt in the first columns."""
  check_credit(credit)
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

  Each is laid into the first row with room; packing stops at the first that fits nowhere, so that the order
  of the data is kept and the rest is the next batch's. Actions are the response's tokens. Raises
  ConfigError where one is longer than a row.
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
  experience = Experience(
    tokens=tokens, segment=segment, position=position, is_action=action, logp_sampler=zero, logp_old=zero,
    advantage=zero, weight=weight,
  )  # fmt: skip
  return experience, packed


class Packing(NamedTuple):
  """Where the tokens of packed rows stand in rows of one completion each."""

  source: jax.Array  # i32[rows, length], index of a token among the B * L; -1: padding
  segment: jax.Array  # i32[rows, length], as in `Experience`


def first_fit(lengths: jax.Array, rows: int, length: int) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Row, offset in it and segment (from 1), each i32[B], of B completions laid into rows of `length` tokens.

  The longest come first, each into the first row with room. There is always room where `rows` is at least B
  over the number of completions of the largest length that a row holds.
  """

  def lay(carry: tuple[jax.Array, jax.Array], size: jax.Array) -> tuple[tuple, tuple]:
    """The tokens and completions of each row with one completion more."""
    used, count = carry
    row = jnp.argmax(used + size <= length)
    return (used.at[row].add(size), count.at[row].add(1)), (row, used[row], count[row] + 1)

  order = jnp.argsort(-lengths, stable=True)
  zeros = jnp.zeros((rows,), jnp.int32)
  laid = jax.lax.scan(lay, (zeros, zeros), lengths[order])[1]
  row, offset, segment = (jnp.zeros_like(lengths).at[order].set(a.astype(jnp.int32)) for a in laid)
  return row, offset, segment


def make_packing(valid: jax.Array, length: int, parts: int, multiple: int = 1) -> Packing:
  """The packing of rows bool[B, L], one completion each, into rows of `length` tokens, in `parts` parts.

  The first rows are the fullest: micro-batch m is every parts-th row, and is filled before the next one is
  begun. The number of rows depends on shapes alone, and is a multiple of parts * multiple. Raises ValueError
  where a completion may not fit.
  """
  count, width = valid.shape
  if width > length:
    raise ValueError(f"rl.pack_length: a completion may have {width} tokens, a packed row {length}")
  unit = parts * multiple
  rows = math.ceil(count / (length // width) / unit) * unit
  lengths = valid.sum(1, dtype=jnp.int32)
  row, offset, segment = first_fit(lengths, rows, length)
  row = row % (rows // parts) * parts + row // (rows // parts)
  column = jnp.argsort(~valid, axis=1, stable=True)  # of each row's valid tokens, in their order
  there = jnp.arange(width) < lengths[:, None]
  cell = jnp.where(there, row[:, None] * length + offset[:, None] + jnp.arange(width), rows * length)

  def lay(value: jax.Array, empty: int) -> jax.Array:
    cells = (
      jnp.full((rows * length,), empty, jnp.int32).at[cell.reshape(-1)].set(value.reshape(-1), mode="drop")
    )
    return cells.reshape(rows, length)

  source = jnp.arange(count)[:, None] * width + column
  return Packing(lay(source, -1), lay(jnp.broadcast_to(segment[:, None], valid.shape), 0))


def packed(experience: Experience, packing: Packing) -> Experience:
  """The same tokens in packed rows; padding is zeros."""

  def take(a: jax.Array) -> jax.Array:
    return jnp.where(packing.source >= 0, a.reshape(-1)[packing.source], jnp.zeros((), a.dtype))

  return dataclasses.replace(jax.tree.map(take, experience), segment=packing.segment)


def trimmed(rollout: Rollout, cfg: RLConfig) -> Rollout:
  """The columns of a rollout that the update computes: behind the longest response there is padding alone."""
  length = rollout.prompt_width + response_width(cfg, int(rollout.is_action.sum(1).max()))
  return jax.tree.map(lambda a: a[:, :length] if a.ndim == 2 else a, rollout)


def response_width(cfg: RLConfig, longest: int) -> int:
  """Response columns that the update computes: few shapes to compile, little padding to compute.

  Each width is a program of its own: all multiples of `rl.pad_multiple` where they are few, else the sizes
  of a sampler's buffer.
  """
  if not cfg.pad_multiple:
    return cfg.max_tokens
  sizes = list(range(cfg.pad_multiple, cfg.max_tokens + cfg.pad_multiple, cfg.pad_multiple))
  sizes = sizes if len(sizes) <= MAX_BODIES else buffer_sizes(cfg.max_tokens, cfg.pad_multiple)
  return min(next(size for size in sizes if size >= longest), cfg.max_tokens)


@functools.partial(jax.jit, static_argnames=("model", "layout", "chunk", "names"))
def token_scores(
  params: Any,
  rollout: Rollout,
  temperature: jax.Array,
  *,
  model: Decoder,
  layout: Grouped,
  chunk: int,
  names: frozenset[str],
) -> dict[str, jax.Array]:
  """f32[B, L] under each of `names` ("logp", "value") on the rollout's actions, 0 elsewhere.

  One forward pass for both; what is not named is not computed, so that values alone need no logits.
  """
  segment = rollout.valid.astype(jnp.int32)
  position = jnp.maximum(jnp.cumsum(segment, axis=1) - 1, 0)
  scores = score(
    params, None, rollout.tokens, segment, position, model=model, temperature=temperature,
    needs=names - {"logp"}, layout=layout, chunk=chunk,
  )  # fmt: skip
  return {name: jnp.where(rollout.is_action, vars(scores)[name], 0.0) for name in sorted(names)}


def token_logp(
  params: Any, rollout: Rollout, temperature: jax.Array, *, model: Decoder, layout: Grouped, chunk: int
) -> jax.Array:
  """f32[B, L] log-probs of the rollout's actions under `params`; 0 elsewhere."""
  scores = token_scores(
    params, rollout, temperature, model=model, layout=layout, chunk=chunk, names=frozenset({"logp"})
  )
  return scores["logp"]


# Lengths are action tokens; a completion is truncated where it has no stop token within R tokens.


def length_reward(rollout: Rollout, cfg: OverlongConfig, max_tokens: int) -> jax.Array:
  """f32[B] that a completion's length and truncation add to its reward; `max_tokens` is R.

  penalty * (0 where length <= R - C, else (R - C - length) / C, C = buffer) (Yu et al. 2025, DAPO, section
  3.4), plus `truncation_penalty` where the completion is truncated (Lambert et al. 2024, Tulu 3: -10).
  """
  length = rollout.is_action.sum(1).astype(jnp.float32)
  over = (max_tokens - cfg.buffer - length) / max(cfg.buffer, 1)  # without a buffer no length is beyond R
  return cfg.penalty * jnp.clip(over, -1.0, 0.0) + jnp.where(rollout.finished, 0.0, cfg.truncation_penalty)


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
CORRECTIONS: dict[str, Callable[[jax.Array, float], jax.Array]] = {
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
  weight = experience.weight * CORRECTIONS[cfg.mode](ratio, cfg.cap)
  return dataclasses.replace(experience, weight=weight), stats


# Credit


@functools.partial(jax.jit, static_argnames=("cfg",))
def credit_and_experience(
  rollout: Rollout,
  reward: jax.Array,
  greedy_reward: jax.Array | None,
  logp_old: jax.Array,
  logp_ref: jax.Array | None,
  kl_coef: jax.Array,
  value: jax.Array | None = None,
  token_reward: jax.Array | None = None,
  *,
  cfg: RLConfig,
) -> tuple[Experience, dict[str, Stat]]:
  """(Experience, statistics) of a verified rollout.

  `reward` f32[P, G] is the verifier's, NaN where a completion was not judged, which leaves it out; the
  metric `reward` is of what is learned from: shaped by length, without completions left out, before a KL.
  logp_ref f32[B, L] is given where a KL term exists, and None else; value f32[B, L] where there is a
  critic; token_reward f32[B, L] is a Rewarder's, or None. A KL in the reward is of `logp_old`, the
  learner's where it is computed, so that no rounding of the sampler's pays. Raises ValueError where the
  estimator credits whole completions and there is a token_reward.
  """
  stats: dict[str, Stat] = {}
  judged = ~jnp.isnan(reward)
  if greedy_reward is not None:
    judged &= ~jnp.isnan(greedy_reward)[:, None]
    greedy_reward = jnp.nan_to_num(greedy_reward)
  reward = jnp.where(judged, reward, 0.0)
  verified = reward
  if cfg.overlong.buffer or cfg.overlong.truncation_penalty:
    added = length_reward(rollout, cfg.overlong, cfg.max_tokens)
    reward = reward + added.reshape(reward.shape)
    stats["rewards/length/mean"] = masked_mean(added, jnp.ones(added.shape, bool))
  include = (rollout.finished | (not cfg.overlong.mask)) & judged.reshape(-1)
  rollout = leave_out(rollout, include)
  logp_old = jnp.where(rollout.is_action, logp_old, 0.0)
  estimator = ADVANTAGES[cfg.advantage.kind]
  if token_reward is not None and not estimator.credits_tokens:
    kinds = ", ".join(name for name, other in ADVANTAGES.items() if other.credits_tokens)
    why = f"{cfg.advantage.kind} credits whole completions and would sum a reward of tokens"
    raise ValueError(f"rl.advantage.kind: {why}: take {kinds}")
  token = token_reward
  if logp_ref is not None and cfg.kl.placement == "reward":
    penalty = -kl_coef * kl_penalty(logp_old, logp_ref, rollout.is_action, cfg.kl.estimator)
    token = penalty if token is None else token + penalty
  credit = group_credit(rollout, reward, include, token, greedy_reward)
  credit = dataclasses.replace(credit, value=value, verified=verified)
  experience = experience_of(rollout, credit, logp_old, logp_ref, estimator.fn, cfg)
  experience = with_returns(experience, credit, cfg.critic.gamma, cfg.critic.lam)
  experience, importance_stats = correct_sampler(experience, cfg.importance)
  return experience, {**reward_stats(credit), **stats, **importance_stats}

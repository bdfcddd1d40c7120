"""Dynamic sampling (DAPO, Yu et al. 2025, section 3.2): groups with contrast replace groups without.

    first draw -> while groups with zero std and rounds are left: P fresh groups -> fill -> groups

A group has zero std where all of its verified rewards, before any shaping, are equal or deviate by at most
`advantage.min_std`: estimators that compare within a group learn nothing from it. The stepwise loop and the
fused program both run `sample_groups`. Left out: good groups without a slot are not kept for the next step,
whose policy is another one.
"""

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

from o1jax.config import RLConfig
from o1jax.rl.advantages import deviation, same_reward
from o1jax.rl.metrics import learned_stats, rollout_stats
from o1jax.rl.sampler import in_any_member
from o1jax.types import Mean, RolloutBatch, Stat

WhileLoop = Callable[[Callable[[Any], Any], Callable[[Any], Any], Any], Any]  # as jax.lax.while_loop
# Keeps what is before it from being compiled into what follows; else the identity.
Barrier = Callable[[Any], Any]


class SampleCounts(NamedTuple):
  """Tokens and places of the rollouts of one step."""

  # i32[1 + dynamic_sampling, B], action tokens of the first draw and of each round's; 0 where not made
  lengths: jax.Array
  rounds: jax.Array  # i32[], rounds that were made
  place: jax.Array  # i32[P], as in `RolloutBatch`, of the groups that are learned from
  greedy: jax.Array | None = None  # i32[P], action tokens of remax's greedy completions


class StepSample(NamedTuple):
  """The groups that a step learns from, and how it came by them."""

  batch: RolloutBatch
  greedy: RolloutBatch | None  # remax's greedy completions, one a problem
  counts: SampleCounts
  stats: dict[str, Stat]


def zero_std(reward: jax.Array, min_std: float = 0.0) -> jax.Array:
  """bool[P]: groups of reward f32[P, G] that are all equal, or deviate (ddof 1) by at most `min_std`.

  NaN (not judged) is left out.
  """
  judged = ~jnp.isnan(reward)
  close = (deviation(jnp.nan_to_num(reward), judged) <= min_std) & (min_std > 0)
  return (same_reward(reward, judged) | close)[:, 0]


@jax.jit
def slot_choice(kept: jax.Array, fresh: jax.Array, min_std: float = 0.0) -> jax.Array:
  """i32[P]: the group in each slot after a round; p < P is kept group p, P + p is fresh group p.

  The k-th kept group with zero std gives way to the k-th fresh one without. Both f32[P, G]; `min_std` as in
  `zero_std`.
  """
  count = kept.shape[0]
  bad, good = zero_std(kept, min_std), ~zero_std(fresh, min_std)
  good_first = jnp.argsort(~good, stable=True).astype(jnp.int32)
  rank = jnp.cumsum(bad) - 1
  return jnp.where(bad & (rank < good.sum()), count + good_first[rank], jnp.arange(count))


@jax.jit
def fill(kept: Any, fresh: Any, choice: jax.Array) -> Any:
  """Groups of two trees by `choice` i32[P]; the leading axis of a leaf is P, or P * G and prompt-major."""
  count = choice.shape[0]

  def pick(a: jax.Array, b: jax.Array) -> jax.Array:
    both = jnp.concatenate([x.reshape(count, -1, *x.shape[1:]) for x in (a, b)])
    return both[choice].reshape(a.shape)

  return jax.tree.map(pick, kept, fresh)


def sample_rounds(
  first: RolloutBatch,
  draw: Callable[[jax.Array], RolloutBatch],
  rounds: int,
  min_std: float = 0.0,
  *,
  while_loop: WhileLoop = jax.lax.while_loop,
  axis: str | None = None,
) -> tuple[RolloutBatch, SampleCounts]:
  """The groups after at most `rounds` rounds. draw: round from 0, i32[] -> its P fresh groups.

  Under a vmap over members named `axis` all of them go through the rounds of the one that needs most. A
  member that needs no more keeps what it has, so that its result is the one it has alone.
  """

  def action_tokens(batch: RolloutBatch) -> jax.Array:
    return batch.rollout.is_action.sum(1)

  def needs_round(carry: Any) -> jax.Array:
    batch, _, made = carry
    return zero_std(batch.verified, min_std).any() & (made < rounds)

  def one_round(carry: Any) -> Any:
    """P fresh groups, of which good ones replace those of zero std."""
    batch, lengths, made = carry
    fresh = draw(made)
    filled = fill(batch, fresh, slot_choice(batch.verified, fresh.verified, min_std))
    after = (filled, lengths.at[made + 1].set(action_tokens(fresh)), made + 1)
    if axis is None:
      return after
    needed = needs_round(carry)
    return jax.tree.map(lambda new, old: jnp.where(needed, new, old), after, carry)

  lengths = jnp.zeros((1 + rounds, *first.correct.shape), jnp.int32).at[0].set(action_tokens(first))
  start = (first, lengths, jnp.zeros((), jnp.int32))
  batch, lengths, made = while_loop(lambda carry: in_any_member(needs_round(carry), axis), one_round, start)
  return batch, SampleCounts(lengths, made, batch.place)


def sample_groups(
  first: RolloutBatch,
  draw_round: Callable[[jax.Array], RolloutBatch],
  draw_greedy: Callable[[RolloutBatch], RolloutBatch],
  cfg: RLConfig,
  *,
  barrier: Barrier = lambda tree: tree,
  while_loop: WhileLoop = jax.lax.while_loop,
  axis: str | None = None,
) -> StepSample:
  """The groups of a step after dynamic sampling, remax's greedy completions, statistics.

  draw_round and axis: as in `sample_rounds`; draw_greedy: groups -> one greedy completion of each of their
  problems.
  """
  batch, min_std = first, cfg.advantage.min_std
  stats = barrier(rollout_stats(first.rollout, first.verified, first.correct))
  counts = SampleCounts(first.rollout.is_action.sum(1)[None], jnp.zeros((), jnp.int32), first.place)
  if cfg.dynamic_sampling:
    batch, counts = barrier(
      sample_rounds(first, draw_round, cfg.dynamic_sampling, min_std, while_loop=while_loop, axis=axis)
    )
    stats |= learned_stats(barrier(rollout_stats(batch.rollout, batch.verified, batch.correct)))
    stats |= dynamic_sampling_stats(batch.verified, counts.rounds, min_std)
  if cfg.advantage.kind != "remax":
    return StepSample(batch, None, counts, stats)
  greedy = draw_greedy(batch)
  return StepSample(batch, greedy, counts._replace(greedy=greedy.rollout.is_action.sum(1)), stats)


@jax.jit
def dynamic_sampling_stats(reward: jax.Array, rounds: jax.Array, min_std: float = 0.0) -> dict[str, Stat]:
  """dynamic_sampling/rounds; .../samples: completions beyond the first draw; .../unfilled: zero-std groups.

  reward f32[P, G] of the groups that are learned from, rounds i32[] that were made; `min_std` as in
  `zero_std`.
  """
  values = {"rounds": rounds, "samples": rounds * reward.size, "unfilled": zero_std(reward, min_std).sum()}
  return {
    f"dynamic_sampling/{name}": Mean(jnp.float32(value), jnp.ones(())) for name, value in values.items()
  }

"""Dynamic sampling (DAPO, Yu et al. 2025, section 3.2): groups that differ in reward take the place of those that do not.

    verified groups -> while some are level and rounds are left: P fresh ones -> fill -> groups to learn from

A group is level where all of its rewards, the verifier's, before any shaping, are equal, or deviate by no more than
`advantage.floor`: estimators that compare within a group find nothing in it. The stepwise loop and the fused program
choose by `places` and `fill`. Left out: good groups that
find no slot are not kept for the next step, whose policy is another one.
"""

from typing import Any, Callable, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from o1jax.rl.advantage import deviation, same_reward
from o1jax.rl.sampler import in_any_member
from o1jax.types import Mean, PromptBatch, Rollout, Stat


@flax.struct.dataclass
class Groups:
  """P problems with G verified completions of each."""

  batch: PromptBatch
  rollout: Rollout
  reward: jax.Array  # f32[P, G], the verifier's
  correct: jax.Array  # bool[B]
  place: jax.Array  # i32[P], where each problem stands in the stream, counted from the step's first one


class Drawn(NamedTuple):
  """How a step came by the groups it learns from."""

  lengths: (
    jax.Array
  )  # i32[1 + refill, B], action tokens of the first rollout and of each round's; 0 where not made
  rounds: jax.Array  # i32[], rounds that were made
  place: jax.Array  # i32[P], as in `Groups`
  greedy: jax.Array | None = None  # i32[P], action tokens of remax's greedy completions


def level(reward: jax.Array, floor: float = 0.0) -> jax.Array:
  """bool[P]: groups of reward f32[P, G] whose rewards are all equal, or have a deviation (ddof 1) of at most `floor`.

  NaN (not judged) is left out.
  """
  judged = ~jnp.isnan(reward)
  close = (deviation(jnp.nan_to_num(reward), judged) <= floor) & (floor > 0)
  return (same_reward(reward, judged) | close)[:, 0]


@jax.jit
def places(kept: jax.Array, fresh: jax.Array, floor: float = 0.0) -> jax.Array:
  """i32[P]: which group stands in each slot after a round; p < P is kept group p, P + p is fresh group p.

  The k-th level one of the kept groups gives way to the k-th fresh one that is not level. Both f32[P, G]; `floor` as in `level`.
  """
  count = kept.shape[0]
  bad, good = level(kept, floor), ~level(fresh, floor)
  found = jnp.argsort(~good, stable=True).astype(jnp.int32)  # the good ones first, in their order
  rank = jnp.cumsum(bad) - 1
  return jnp.where(bad & (rank < good.sum()), count + found[rank], jnp.arange(count))


@jax.jit
def fill(kept: Any, fresh: Any, places: jax.Array) -> Any:
  """Whole groups of two trees by `places` i32[P]; the leading axis of every leaf is P, or P * G and prompt-major."""
  count = places.shape[0]
  grouped = lambda a: a.reshape(count, -1, *a.shape[1:])
  pick = lambda a, b: jnp.concatenate([grouped(a), grouped(b)])[places].reshape(a.shape)
  return jax.tree.map(pick, kept, fresh)


def refilled(
  first: Groups, draw: Callable[[jax.Array], Groups], rounds: int, axis: str | None, floor: float = 0.0
) -> tuple[Groups, Drawn]:
  """The groups after at most `rounds` rounds, on the device. draw: round from 0, i32[] -> its P fresh groups.

  Under a vmap over members named `axis` all of them go through the rounds of the one that needs most. What a member holds
  stays as it is once it needs no more, so that its course is the one it has alone.
  """
  lengths = lambda groups: groups.rollout.is_action.sum(1)

  def wants(carry) -> jax.Array:
    groups, _, made = carry
    return level(groups.reward, floor).any() & (made < rounds)

  def one_round(carry):
    groups, seen, made = carry
    fresh = draw(made)
    chosen = fill(groups, fresh, places(groups.reward, fresh.reward, floor))
    after = (chosen, seen.at[made + 1].set(lengths(fresh)), made + 1)
    return jax.tree.map(lambda new, old: jnp.where(wants(carry), new, old), after, carry)

  seen = jnp.zeros((1 + rounds, *first.correct.shape), jnp.int32).at[0].set(lengths(first))
  start = (first, seen, jnp.zeros((), jnp.int32))
  groups, seen, made = jax.lax.while_loop(lambda carry: in_any_member(wants(carry), axis), one_round, start)
  return groups, Drawn(seen, made, groups.place)


@jax.jit
def refill_stats(reward: jax.Array, rounds: jax.Array, floor: float = 0.0) -> dict[str, Stat]:
  """refill/rounds, refill/samples (completions drawn beyond the first rollout) and refill/unfilled (groups still level).

  reward f32[P, G] of the groups that are learned from, rounds i32[] that were made; `floor` as in `level`.
  """
  told = {
    "rounds": rounds,
    "samples": rounds * reward.size,
    "unfilled": level(reward, floor).sum(),
  }
  return {f"refill/{name}": Mean(jnp.float32(value), jnp.ones(())) for name, value in told.items()}

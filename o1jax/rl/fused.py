"""RL on the device: many steps of draw problems -> sample -> verify -> advantages -> update as one compiled program.

    Feed (order of problems, keys and strengths of N steps) -> lax.scan of one step -> (TrainState, statistics [N])

Each step runs the functions of the stepwise loop, `generate`, `fill`, `improve` and `tally`, with an `optimization_barrier`
between them, so that the numbers are those of the loop bit for bit on a CPU. Nothing crosses to the host between steps. A
loss or gradient that is not finite freezes the state from that step on. Left out: what reads text (reflection, repetition),
logs and evaluations; they run between two calls.
"""

import dataclasses
import functools
from typing import Any, Callable, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from o1jax.config import RLConfig
from o1jax.model.transformer import Decoder
from o1jax.rl.draw import greedy
from o1jax.rl.proxy import REWARDS
from o1jax.rl.refill import Drawn, Groups, refill_stats, refilled
from o1jax.rl.sampler import SampleConfig, generate
from o1jax.rl.stages import Stage
from o1jax.rl.step import improve
from o1jax.rl.tally import of_chosen, tally
from o1jax.types import PromptBatch, Rollout, Stat, Strengths, TrainState

# (response tokens i32[B, R], which of them stand bool[B, R], a batch's task arrays) -> (reward f32[B], correct bool[B], parsed bool[B])
Verify = Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, jax.Array, jax.Array]]
DrawProblems = Callable[[jax.Array], PromptBatch]  # position in the feed's order -> P problems


@flax.struct.dataclass
class Feed:
  """What the host lays out ahead of N steps of one member."""

  order: jax.Array  # i32[N * P * (1 + refill)], which problems come, from the member's cursor on
  train: jax.Array  # key[N], of the train stream at each step
  minibatch: jax.Array  # key[N], of the minibatch stream
  strengths: Strengths  # each f32[N]
  refill: Any = None  # key[N], of the refill stream; None where no step has rounds
  proxy: Any = None  # parameters of the member's learned reward, for all steps; None: the verifier pays
  frozen: jax.Array | None = None  # bool[], whether a call before met its first bad step; None: not


@dataclasses.dataclass(frozen=True)
class Program:
  """What is static about a fused run."""

  model: Decoder
  stage: Stage
  cfg: RLConfig
  sampling: SampleConfig
  verify: Verify


class Told(NamedTuple):
  """What N steps report."""

  stats: dict[str, Stat]  # with a leading N; divided on the host, as the loop does it
  drawn: Drawn  # each with a leading N
  first_bad: (
    jax.Array
  )  # i32[], index of the first step whose loss or gradient is not finite; N where there is none


def fixed(tree: Any) -> Any:
  """Values between two phases as they lie between two executables: computed, and in row-major order.

  Without the order XLA lets a transposition of one phase choose how the next one's sums are laid out, and thereby rounded.
  """
  row_major = lambda a: with_layout_constraint(a, Layout(tuple(range(a.ndim)))) if a.ndim > 1 else a
  return jax.tree.map(row_major, jax.lax.optimization_barrier(tree))


def gather(pool: PromptBatch, order: jax.Array, count: int, at: jax.Array) -> PromptBatch:
  """Problems order[at : at + count] of a pool that holds all training problems as rows."""
  rows = jax.lax.dynamic_slice_in_dim(order, at, count)
  return jax.tree.map(lambda a: a[rows], pool)


def graded(program: Program, rollout: Rollout, batch: PromptBatch) -> tuple[jax.Array, jax.Array]:
  """(reward f32[P, G], correct bool[B]) of a rollout, by the task's device verifier."""
  start = rollout.prompt_width
  reward, correct, _ = program.verify(rollout.tokens[:, start:], rollout.valid[:, start:], batch.task_arrays)
  return reward.reshape(batch.tokens.shape[0], -1), correct


def paid(program: Program, proxy: Any, rollout: Rollout, verdict: jax.Array) -> jax.Array:
  """f32[P, G] that RL sees of a rollout: the verifier's reward `verdict` f32[P, G], or a learned one in its place."""
  prompt = rollout.prompt_width
  return REWARDS[program.cfg.proxy.kind](proxy, rollout, verdict, model=program.model, prompt=prompt)


def sampled(
  program: Program, draw_problems: DrawProblems, state: TrainState, at: jax.Array, feed: Feed
) -> tuple[Groups, jax.Array | None, Drawn, dict[str, Stat]]:
  """(groups that a step at position `at` learns from, greedy rewards f32[P] of remax, what was drawn, statistics of it).

  `feed` holds this step alone; a round's key is its step's, folded by the round.
  """
  cfg, size = program.cfg, program.cfg.prompts
  generated = functools.partial(
    generate, state.params, temperature=feed.strengths.temperature, model=program.model,
    policy_step=state.step + program.stage.first,
  )  # fmt: skip

  def draw(key: jax.Array, start: jax.Array | int) -> Groups:
    batch = fixed(draw_problems(at + start))
    rollout = fixed(generated(batch, key, samples=cfg.samples, cfg=program.sampling))
    reward, correct = fixed(graded(program, rollout, batch))
    return Groups(batch, rollout, reward, correct, start + jnp.arange(size))

  groups = draw(feed.train, 0)
  told = fixed(tally(groups.rollout, groups.reward, groups.correct))
  drawn = Drawn(groups.rollout.is_action.sum(1)[None], jnp.zeros((), jnp.int32), groups.place)
  if cfg.refill:
    again = lambda made: draw(jax.random.fold_in(feed.refill, made), (made + 1) * size)
    groups, drawn = fixed(
      refilled(groups, again, cfg.refill, program.sampling.member_axis, cfg.advantage.floor)
    )
    told |= of_chosen(fixed(tally(groups.rollout, groups.reward, groups.correct)))
    told |= refill_stats(groups.reward, drawn.rounds, cfg.advantage.floor)
  if cfg.advantage.kind != "remax":
    return groups, None, drawn, told
  sampling = dataclasses.replace(program.sampling, draw=greedy)
  best = fixed(generated(groups.batch, feed.train, samples=1, cfg=sampling))
  verdict = fixed(graded(program, best, groups.batch)[0])
  reward = fixed(paid(program, feed.proxy, best, verdict))[:, 0]
  return groups, reward, drawn._replace(greedy=best.is_action.sum(1)), told


def one_step(
  program: Program, draw_problems: DrawProblems, state: TrainState, at: jax.Array, feed: Feed
) -> tuple[TrainState, jax.Array, dict[str, Stat], Drawn]:
  """(state, position in the order, statistics, what was drawn) after a rollout and its update; `feed` is this step's."""
  cfg = program.cfg
  groups, greedy_reward, drawn, counted = sampled(program, draw_problems, state, at, feed)
  reward = fixed(paid(program, feed.proxy, groups.rollout, groups.reward))
  state, told = improve(
    state, groups.rollout, reward, greedy_reward, feed.minibatch, feed.strengths,
    model=program.model, stage=program.stage, cfg=cfg, apart=fixed,
  )  # fmt: skip
  return state, at + cfg.prompts * (1 + drawn.rounds), {**told, **counted}, drawn


def fused(state: TrainState, feed: Feed, pool: PromptBatch, *, program: Program) -> tuple[TrainState, Told]:
  """N steps of one member. pool: all training problems as rows, with their task arrays.

  Statistics of the steps behind a first bad one are those of the frozen state.
  """
  draw_problems = functools.partial(gather, pool, feed.order, program.cfg.prompts)
  steps, proxy = feed.train.shape[0], feed.proxy

  def step(carry, now: tuple[jax.Array, Feed]):
    """One step, whose new state counts only while no step has been bad."""
    (state, at, first_bad), (index, feed) = carry, now
    feed = dataclasses.replace(feed, proxy=proxy)
    moved, at, stats, drawn = one_step(program, draw_problems, state, at, feed)
    finite = jnp.isfinite(stats["loss"].value()) & jnp.isfinite(stats["grad_norm"].value())
    first_bad = jnp.where(finite, first_bad, jnp.minimum(first_bad, index))
    frozen = first_bad < steps
    state = jax.tree.map(lambda new, old: jnp.where(frozen, old, new), moved, state)
    return (state, at, first_bad), (stats, drawn)

  each = dataclasses.replace(feed, order=jnp.zeros((steps, 0), jnp.int32), proxy=None, frozen=None)
  first = jnp.full((), steps, jnp.int32) if feed.frozen is None else jnp.where(feed.frozen, 0, steps)
  start = (state, jnp.zeros((), jnp.int32), first.astype(jnp.int32))
  (state, _, first_bad), (stats, drawn) = jax.lax.scan(step, start, (jnp.arange(steps), each))
  return state, Told(stats, drawn, first_bad)

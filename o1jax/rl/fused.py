"""RL on the device: many steps of rollout, verification and update in one program, for one run or many.

    StepInputs (problems, keys, hyperparameters of N steps) -> lax.scan -> (TrainState, StepOutputs [N])

Each step runs the functions of the stepwise loop, `generate`, `sample_groups` and `train_step`, with an
`optimization_barrier` between them, so that on a CPU the numbers are those of the loop bit for bit. Nothing
crosses to the host between steps. A loss or gradient that is not finite freezes the state from that step
on. Left out: what reads text (reflection, repetition), logs and evaluations; they run between two calls.
"""

import dataclasses
import functools
from typing import Any, Callable, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import Mesh, PartitionSpec

from o1jax.rl.draw import greedy
from o1jax.rl.dynamic_sampling import SampleCounts, StepSample, sample_groups
from o1jax.rl.generate import generate
from o1jax.rl.learner import Learner
from o1jax.rl.reward_model import reward_of
from o1jax.rl.sampler import SampleConfig
from o1jax.rl.step import LearnerInputs, train_step
from o1jax.types import Hyperparams, PromptBatch, Reward, Rollout, RolloutBatch, Stat, TrainState

# (response tokens i32[B, R], which are valid bool[B, R], a batch's task arrays)
# -> (reward f32[B], correct bool[B], parsed bool[B])
Verify = Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, jax.Array, jax.Array]]
DrawProblems = Callable[[jax.Array], PromptBatch]  # position in the order of problems -> P problems


@flax.struct.dataclass
class StepInputs:
  """N steps of one member as the host lays them out ahead."""

  order: jax.Array  # i32[N * P * (1 + dynamic_sampling)], which problems come, from the member's cursor on
  train: jax.Array  # key[N], of the train stream at each step
  minibatch: jax.Array  # key[N], of the minibatch stream
  hyperparams: Hyperparams  # each f32[N]
  round_keys: Any = None  # key[N], of the dynamic_sampling stream; None where no step has rounds
  reward_params: Any = None  # parameters of the member's reward model, for all steps; None: the verifier pays
  frozen: jax.Array | None = None  # bool[], whether an earlier call met a step that was not finite; None: not


@dataclasses.dataclass(frozen=True)
class FusedProgram:
  """What is static about a fused run."""

  learner: Learner
  sampling: SampleConfig
  verify: Verify


class StepOutputs(NamedTuple):
  """Statistics and sizes of N steps."""

  stats: dict[str, Stat]  # with a leading N; divided on the host, as in the stepwise loop
  counts: SampleCounts  # each with a leading N
  first_bad: jax.Array  # i32[], index of the first step whose loss or gradient is not finite; N: none


class FusedStep(NamedTuple):
  """The result of one step."""

  state: TrainState
  at: jax.Array  # i32[], position in the order of problems behind the step
  stats: dict[str, Stat]
  counts: SampleCounts


def barrier(tree: Any) -> Any:
  """Values between two phases as they lie between two executables: computed, and in row-major order.

  Without the order XLA lets a transposition of one phase choose how the next one's sums are laid out, and
  rounded.
  """

  def row_major(array: jax.Array) -> jax.Array:
    return with_layout_constraint(array, Layout(tuple(range(array.ndim)))) if array.ndim > 1 else array

  return jax.tree.map(row_major, jax.lax.optimization_barrier(tree))


def gather(pool: PromptBatch, order: jax.Array, count: int, at: jax.Array) -> PromptBatch:
  """Problems order[at : at + count] of a pool that holds all training problems as rows."""
  rows = jax.lax.dynamic_slice_in_dim(order, at, count)
  return jax.tree.map(lambda a: a[rows], pool)


def verify_on_device(
  program: FusedProgram, rollout: Rollout, prompts: PromptBatch
) -> tuple[jax.Array, jax.Array]:
  """(reward f32[P, G], correct bool[B]) of a rollout, by the task's device verifier."""
  start = rollout.prompt_width
  tokens, valid = rollout.tokens[:, start:], rollout.valid[:, start:]
  reward, correct, _ = program.verify(tokens, valid, prompts.task_arrays)
  return reward.reshape(prompts.tokens.shape[0], -1), correct


def sample_on_device(
  program: FusedProgram, draw_problems: DrawProblems, state: TrainState, at: jax.Array, inputs: StepInputs
) -> StepSample:
  """The groups that a step at position `at` learns from; `inputs` are of this step alone.

  The key of a round is the step's round key, folded by the round.
  """
  learner, cfg, size = program.learner, program.learner.cfg, program.learner.cfg.prompts
  temperature = inputs.hyperparams["temperature"]

  def sample(
    prompts: PromptBatch, key: jax.Array, samples: int, sampling: SampleConfig, place: Any
  ) -> RolloutBatch:
    """A verified draw."""
    rollout = barrier(
      generate(
        state.params, prompts, key, temperature, model=learner.model, samples=samples, cfg=sampling,
        policy_step=state.step + learner.first,
      )
    )  # fmt: skip
    verified, correct = barrier(verify_on_device(program, rollout, prompts))
    return RolloutBatch(prompts, rollout, verified, correct, place)

  def draw(key: jax.Array, start: jax.Array | int) -> RolloutBatch:
    prompts = barrier(draw_problems(at + start))
    return sample(prompts, key, cfg.samples, program.sampling, start + jnp.arange(size))

  def draw_greedy(batch: RolloutBatch) -> RolloutBatch:
    sampling = dataclasses.replace(program.sampling, draw=greedy)
    return sample(batch.prompts, inputs.train, 1, sampling, batch.place)

  return sample_groups(
    draw(inputs.train, 0), lambda made: draw(jax.random.fold_in(inputs.round_keys, made), (made + 1) * size),
    draw_greedy, cfg, barrier=barrier, axis=program.sampling.member_axis,
  )  # fmt: skip


def rewards_of(
  program: FusedProgram, reward_params: Any, sample: StepSample
) -> tuple[Reward, jax.Array | None]:
  """(what the groups of a step pay, f32[P] of remax's greedy completions)."""
  learner = program.learner
  pay = functools.partial(reward_of, reward_params, rewarder=learner.rewarder, model=learner.model)
  reward = barrier(pay(sample.batch))
  return reward, None if sample.greedy is None else barrier(pay(sample.greedy)).outcome[:, 0]


def fused_step(
  program: FusedProgram, draw_problems: DrawProblems, state: TrainState, at: jax.Array, inputs: StepInputs
) -> FusedStep:
  """One rollout and its update; `inputs` are of this step alone."""
  sample = sample_on_device(program, draw_problems, state, at, inputs)
  reward, greedy_reward = rewards_of(program, inputs.reward_params, sample)
  learned = LearnerInputs(sample.batch.rollout, reward, greedy_reward, inputs.minibatch, inputs.hyperparams)
  step = train_step(state, learned, learner=program.learner, barrier=barrier)
  at = at + program.learner.cfg.prompts * (1 + sample.counts.rounds)
  return FusedStep(step.state, at, {**step.stats, **sample.stats}, sample.counts)


def fused(
  state: TrainState, inputs: StepInputs, pool: PromptBatch, *, program: FusedProgram
) -> tuple[TrainState, StepOutputs]:
  """N steps of one member. pool: all training problems as rows, with their task arrays.

  Statistics of the steps behind the first one that is not finite are those of the frozen state.
  """
  draw_problems = functools.partial(gather, pool, inputs.order, program.learner.cfg.prompts)
  steps, reward_params = inputs.train.shape[0], inputs.reward_params

  def step(carry: Any, xs: tuple[jax.Array, StepInputs]) -> Any:
    """One step, whose new state counts only while every step has been finite."""
    (state, at, first_bad), (index, now) = carry, xs
    now = dataclasses.replace(now, reward_params=reward_params)
    after = fused_step(program, draw_problems, state, at, now)
    finite = jnp.isfinite(after.stats["loss"].value()) & jnp.isfinite(after.stats["grad_norm"].value())
    first_bad = jnp.where(finite, first_bad, jnp.minimum(first_bad, index))
    frozen = first_bad < steps
    state = jax.tree.map(lambda new, old: jnp.where(frozen, old, new), after.state, state)
    return (state, after.at, first_bad), (after.stats, after.counts)

  each = dataclasses.replace(inputs, order=jnp.zeros((steps, 0), jnp.int32), reward_params=None, frozen=None)
  first = jnp.full((), steps, jnp.int32) if inputs.frozen is None else jnp.where(inputs.frozen, 0, steps)
  start = (state, jnp.zeros((), jnp.int32), first.astype(jnp.int32))
  (state, _, first_bad), (stats, counts) = jax.lax.scan(step, start, (jnp.arange(steps), each))
  return state, StepOutputs(stats, counts, first_bad)


# Populations

MEMBER = "member"  # name of the vmapped axis; the sampler's stop is reduced over it
MemberFn = Callable[[Any, Any, Any], Any]  # (state of a member, its inputs, what all share) -> result


def over_members(member_fn: MemberFn, *, vmapped: int, mesh: Mesh) -> MemberFn:
  """`member_fn` over a leading axis M of states, inputs and results; what all share has none.

  A member that is mapped computes what it would compute alone, bit for bit; vmapped members share every
  product and agree within rounding. Members lie along the mesh's `data` axis, and no device communicates
  with another. vmapped: members in one vmap on a device, dividing M / devices; 1 is lax.map alone.
  """

  def on_device(states: Any, inputs: Any, shared: Any) -> Any:
    """The members of one device."""

    def member(pair: tuple[Any, Any]) -> Any:
      return member_fn(*pair, shared)

    if vmapped == 1:
      return jax.lax.map(member, (states, inputs))
    blocks = jax.tree.map(lambda a: a.reshape(-1, vmapped, *a.shape[1:]), (states, inputs))
    results = jax.lax.map(jax.vmap(member, axis_name=MEMBER), blocks)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), results)

  along, replicated = PartitionSpec("data"), PartitionSpec()
  specs = (along, along, replicated)
  return jax.shard_map(on_device, mesh=mesh, in_specs=specs, out_specs=along, check_vma=False)

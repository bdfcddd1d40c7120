"""A group of members as one compiled program: its inputs, its placement on devices, its memory, its outputs.

MemberGroup -> Population (compiled for a placement) -> advance N steps | diagnose | final evaluation
"""

import copy
import dataclasses
import functools
import time
from typing import Any, Mapping, NamedTuple, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from o1jax.config import EvalConfig
from o1jax.evaluate.heldout import heldout_problems
from o1jax.rl.diagnostics import examine, sample_blocks
from o1jax.rl.draw import stream_key
from o1jax.rl.dynamic_sampling import SampleCounts
from o1jax.rl.fused import (
  MEMBER,
  FusedProgram,
  MemberFn,
  StepInputs,
  barrier,
  fused,
  gather,
  over_members,
  rewards_of,
  sample_on_device,
)
from o1jax.rl.learner import Learner, first_state, hyperparams
from o1jax.rl.regularisers import first_coefficients, rl_controllers
from o1jax.rl.sampler import SampleConfig
from o1jax.rl.step import LearnerInputs
from o1jax.rollout.answer import sample_config
from o1jax.rollout.setup import Runtime, padded, verifiable_rows
from o1jax.sweep.members import Member, RLStart
from o1jax.tasks.stream import draw_order
from o1jax.types import PromptBatch, TrainState, divided


@dataclasses.dataclass(frozen=True)
class MemberGroup:
  """Members of one program. `runtime` and `learner` are the program's; hyperparameters are each member's."""

  runtime: Runtime
  learner: Learner
  members: tuple[Member, ...]

  @property
  def steps(self) -> int:
    return self.runtime.config.rl.steps

  @property
  def first(self) -> int:
    """Steps before the RL stage."""
    return self.runtime.config.sft.steps


class Placement(NamedTuple):
  """How members lie: `size` at a time, spread over `devices`, on each in vmaps of `vmapped` one after the
  other.
  """

  devices: int
  vmapped: int
  size: int
  differs: str = ""  # how far vmapped members were from their lone runs, in words

  @property
  def each(self) -> int:
    """Members on a device."""
    return -(-self.size // self.devices)

  def describe(self) -> str:
    how = "lax.map" if self.vmapped == 1 else f"vmap of {self.vmapped}"
    rest = "" if self.vmapped in (1, self.each) else ", the vmaps one after the other"
    return f"{how}{rest}, {self.each} members on each of {self.devices} device(s)"


def member_runtime(group: MemberGroup, member: Member) -> Runtime:
  """The group's runtime with the member's own configuration."""
  config = dataclasses.replace(member.config, model=group.runtime.config.model)
  return dataclasses.replace(group.runtime, config=config)


@functools.partial(jax.jit, static_argnames="stream")
def keys_of(seeds: jax.Array, steps: jax.Array, stream: str) -> jax.Array:
  """key[M, N] of a stream at steps i32[N] of runs with seeds u32[M]."""

  def make(seed: Any, step: jax.Array) -> jax.Array:
    return stream_key(seed, stream, step)

  return jax.vmap(jax.vmap(make, (None, 0)), (0, None))(seeds, steps)


class DiagnosisInputs(NamedTuple):
  """What a diagnosis is given, by member."""

  first_params: Any
  step: StepInputs  # of the step that comes next
  key: jax.Array  # of the held-out evaluation


class Diagnosis(NamedTuple):
  """What a diagnosis gives, by member."""

  figures: dict[str, jax.Array]  # of `examine`, on the groups of the step that comes next
  heldout: Any  # kind -> HeldoutResponses
  counts: SampleCounts  # of the rollouts that were made for it


@dataclasses.dataclass(frozen=True)
class HeldoutProgram:
  """What is static about the held-out evaluation of a program's members."""

  program: FusedProgram
  cfg: EvalConfig
  sampling: SampleConfig


class HeldoutResponses(NamedTuple):
  """K verified responses of each of n problems."""

  correct: jax.Array  # bool[n * K]
  parsed: jax.Array  # bool[n * K]
  tokens: jax.Array  # i32[n * K, R]
  valid: jax.Array  # bool[n * K, R]


def evaluate_on_device(
  params: Any, key: jax.Array, problems: Mapping[str, PromptBatch], *, how: HeldoutProgram
) -> dict[str, HeldoutResponses]:
  """The responses to each kind of held-out problems."""
  program, cfg = how.program, how.cfg
  responses = {}
  for kind, rows in problems.items():
    rollout = sample_blocks(
      params, rows, key, jnp.float32(cfg.temperature or 1.0), model=program.learner.model,
      samples=cfg.samples,
      sampling=how.sampling, batch=cfg.batch,
    )  # fmt: skip
    start = rollout.prompt_width
    tokens, valid = rollout.tokens[:, start:], rollout.valid[:, start:]
    _, correct, parsed = program.verify(tokens, valid, rows.task_arrays)
    responses[kind] = HeldoutResponses(correct, parsed, tokens, valid)
  return responses


def diagnose(
  state: TrainState,
  inputs: DiagnosisInputs,
  shared: tuple[PromptBatch, Mapping[str, PromptBatch]],
  *,
  how: HeldoutProgram,
) -> Diagnosis:
  """The diagnosis of one member. shared: all training problems, and the held-out ones by kind."""
  (pool, problems), program = shared, how.program
  draw_problems = functools.partial(gather, pool, inputs.step.order, program.learner.cfg.prompts)
  now = jax.tree.map(lambda a: a[0], dataclasses.replace(inputs.step, reward_params=None, frozen=None))
  sample = sample_on_device(program, draw_problems, state, jnp.zeros((), jnp.int32), now)
  reward, greedy_reward = rewards_of(program, inputs.step.reward_params, sample)
  learned = LearnerInputs(sample.batch.rollout, reward, greedy_reward, now.minibatch, now.hyperparams)
  figures = examine(state, inputs.first_params, learned, learner=program.learner, barrier=barrier)
  return Diagnosis(figures, evaluate_on_device(state.params, inputs.key, problems, how=how), sample.counts)


class ChunkOutputs(NamedTuple):
  """What a call reports, on the host."""

  metrics: dict[str, np.ma.MaskedArray]  # f32[M, N]
  counts: SampleCounts  # each with leading M, N
  first_bad: np.ndarray  # i32[M], N where all steps were finite
  seconds: float  # that the call took


class MeasuredChunk(NamedTuple):
  """The first chunk of a population's rows, made to be measured."""

  members: list[Member]
  states: TrainState
  outputs: ChunkOutputs


class Population:
  """A group compiled for one placement. Members are filled up with the last one again, to as many as a
  program has rows.
  """

  def __init__(
    self,
    group: MemberGroup,
    layout: Placement,
    chunk: int,
    start: RLStart,
  ):
    """`chunk`: steps in a call. Compiles the steps."""
    task, config = group.runtime.task, group.runtime.config
    assert task.device is not None
    self.layout, self.chunk, self.start = layout, chunk, start
    self.measured: MeasuredChunk | None = None
    self.mesh = jax.sharding.Mesh(np.asarray(jax.devices()[: layout.devices]), ("data",))
    self._take(group)
    axis = None if layout.vmapped == 1 else MEMBER
    sampling = SampleConfig(config.rl.max_tokens, task.stop_tokens, pad=task.tokenizer.pad, member_axis=axis)
    program = FusedProgram(group.learner, sampling, task.device.verify)
    self.prompt_lengths = np.asarray([len(task.tokenizer.encode(task.question(p))) for p in task.train])
    self.pool = self._everywhere(verifiable_rows(group.runtime, task.train))
    params = start.cold_start(self.rows[0]).params
    like = jax.eval_shape(functools.partial(first_state, group.learner), params)  # of one member
    states = jax.tree.map(
      lambda a: jax.ShapeDtypeStruct((len(self.rows), *a.shape), a.dtype, sharding=self.along), like
    )
    run = jax.jit(self._over_members(functools.partial(fused, program=program)), donate_argnums=0)
    first = jax.vmap(functools.partial(first_state, group.learner))
    self._first = jax.jit(first, out_shardings=self.along)
    self._run = run.lower(states, self.step_inputs(0, chunk, self.first_cursors), self.pool).compile()

    def heldout(cfg: EvalConfig) -> HeldoutProgram:
      config = sample_config(group.runtime, cfg, cfg.max_tokens)
      return HeldoutProgram(program, cfg, dataclasses.replace(config, member_axis=axis))

    diagnostics = config.diagnostics
    quick = dataclasses.replace(
      config.eval, samples=diagnostics.samples, batch=min(config.eval.batch, diagnostics.problems)
    )
    self._diagnose = jax.jit(self._over_members(functools.partial(diagnose, how=heldout(quick))))
    final = functools.partial(evaluate_on_device, how=heldout(config.eval))
    self._final = jax.jit(self._over_members(final))

  def _take(self, group: MemberGroup) -> None:
    self.group, members = group, group.members
    self.rows = [*members, *[members[-1]] * (self.layout.each * self.layout.devices - len(members))]
    self.row_reward_params = self.spread([self.start.reward_params[member.name] for member in self.rows])

  def of(self, members: Sequence[Member]) -> "Population":
    """The same compiled programs for other members of the group, at most as many."""
    other = copy.copy(self)
    other._take(dataclasses.replace(self.group, members=tuple(members)))
    return other

  def _everywhere(self, tree: Any) -> Any:
    return jax.device_put(tree, jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec()))

  def spread(self, trees: Sequence[Any]) -> Any:
    """One tree a member -> one with a leading axis of members, each on its device. Fewer trees are filled
    up.
    """
    trees = [*trees, *[trees[-1]] * (len(self.rows) - len(trees))]
    stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *trees)
    return jax.device_put(stacked, self.along)

  @property
  def first_cursors(self) -> list[int]:
    """Cursors of members that have done nothing."""
    return [0] * len(self.group.members)

  @property
  def along(self) -> jax.sharding.NamedSharding:
    """Where a leading axis of members lies."""
    return jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec("data"))

  def _keys(self, stream: str, steps: np.ndarray) -> jax.Array:
    """key[M, N] of a stream at steps i[N]."""
    seeds = jnp.asarray([member.seed for member in self.rows], jnp.uint32)
    return jax.device_put(keys_of(seeds, jnp.asarray(steps, jnp.int32), stream), self.along)

  def order(self, member: Member, cursor: int, count: int) -> np.ndarray:
    """i[count] rows of the pool: the problems behind `cursor` of a member's stream."""
    size = len(self.group.runtime.task.train[: member.config.rl.problems])
    return draw_order(size, member.seed, cursor, count)

  def step_inputs(
    self, done: int, count: int, cursors: Sequence[int], bad: Sequence[int | None] = ()
  ) -> StepInputs:
    """The inputs of `count` steps behind the first `done` ones of the stage, with a leading axis of members.

    By member of the group: `cursors`, its position in its stream; `bad`, the step at which it was frozen, ()
    where none was.
    """
    cfg, first = self.group.runtime.config.rl, self.group.first
    steps = np.arange(done, done + count) + first + 1
    most = count * cfg.prompts * (1 + cfg.dynamic_sampling)
    orders, by_arm = [], {}
    for j, member in enumerate(self.rows):
      orders.append(self.order(member, cursors[min(j, len(cursors) - 1)], most).astype(np.int32))
      if member.arm.name not in by_arm:  # its seeds share them
        each = [hyperparams(member.config, self.group.learner, int(step)) for step in steps]
        by_arm[member.arm.name] = jax.tree.map(lambda *a: np.stack([np.asarray(x) for x in a]), *each)
    numbers = jax.tree.map(lambda *a: np.stack(a), *(by_arm[member.arm.name] for member in self.rows))
    frozen = np.asarray([step is not None for step in bad] + [False] * (len(self.rows) - len(bad)))
    order, numbers, frozen = jax.device_put((np.stack(orders), numbers, frozen), self.along)
    return StepInputs(
      order=order,
      train=self._keys("train", steps),
      minibatch=self._keys("minibatch", steps),
      hyperparams=numbers,
      round_keys=self._keys("dynamic_sampling", steps) if cfg.dynamic_sampling else None,
      reward_params=self.row_reward_params,
      frozen=frozen,
    )

  def _over_members(self, member_fn: MemberFn) -> MemberFn:
    return over_members(member_fn, vmapped=self.layout.vmapped, mesh=self.mesh)

  def first_params(self) -> Any:
    """Parameters that the members begin with, on a leading axis."""
    return self.spread([self.start.cold_start(member).params for member in self.rows])

  def begin(self, first_params: Any) -> TrainState:
    """Fresh states of all members from the parameters they begin with."""
    states = self._first(first_params)
    if states.controllers is None:
      return states
    own = [first_coefficients(rl_controllers(member.config.rl)) for member in self.rows]
    return dataclasses.replace(states, controllers=self.spread(own))

  def advance(
    self, states: TrainState, done: int, cursors: Sequence[int], bad: Sequence[int | None] = ()
  ) -> tuple[TrainState, ChunkOutputs]:
    """The next `chunk` steps of all members behind `done` steps of the stage; waits. The states are donated.

    cursors, bad: as in `step_inputs`; what is reported of a frozen member stands for nothing.
    """
    measured, at_start = self.measured, (done, list(cursors)) == (0, self.first_cursors)
    if measured is not None and measured.members == self.rows and at_start:
      self.measured = None  # the same program on the same members, from the same start
      return measured.states, measured.outputs
    began = time.perf_counter()
    states, outputs = self._run(states, self.step_inputs(done, self.chunk, cursors, bad), self.pool)
    stats, counts, first_bad = jax.device_get(outputs)
    return states, ChunkOutputs(divided(stats), counts, first_bad, time.perf_counter() - began)

  def member_bytes(self) -> float:
    """Bytes that a member more on a device takes: its state and inputs, and of a vmap its share of the
    workspace.
    """
    used: Any = self._run.memory_analysis()
    each = self.layout.each
    arguments = used.argument_size_in_bytes + used.output_size_in_bytes - used.alias_size_in_bytes
    return arguments / each + used.temp_size_in_bytes * (self.layout.vmapped > 1) / each

  def shared_bytes(self) -> float:
    """Bytes that a device takes whatever the members."""
    used: Any = self._run.memory_analysis()
    return used.temp_size_in_bytes * (self.layout.vmapped == 1)

  def diagnose(self, states: TrainState, first_params: Any, done: int, cursors: Sequence[int]) -> Diagnosis:
    """The diagnosis of all members behind `done` steps, on the host by member."""
    cfg = self.group.runtime.config
    rows = self._heldout(cfg.diagnostics.problems, min(cfg.eval.batch, cfg.diagnostics.problems))
    keys = self._keys("eval", np.asarray([self.group.first + done]))[:, 0]
    inputs = DiagnosisInputs(first_params, self.step_inputs(done, 1, cursors), keys)
    return jax.device_get(self._diagnose(states, inputs, (self.pool, rows)))

  def final(self, states: TrainState, done: int) -> dict[str, HeldoutResponses]:
    """The final held-out responses of all members, on the host by member."""
    cfg = self.group.runtime.config.eval
    keys = self._keys("eval", np.asarray([self.group.first + done]))[:, 0]
    return jax.device_get(self._final(states.params, keys, self._heldout(cfg.final_problems, cfg.batch)))

  def _heldout(self, count: int, batch: int) -> dict[str, PromptBatch]:
    runtime = self.group.runtime
    return {
      kind: self._everywhere(padded(verifiable_rows(runtime, problems), batch))
      for kind, problems in heldout_problems(runtime.task, count).items()
    }

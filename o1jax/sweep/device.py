"""A block of members as one program on the device: what it is fed, how its members lie, what it takes, what it says.

Block -> Fleet (compiled for a layout) -> advance N steps | diagnose | final tests
"""

import copy
import dataclasses
import functools
import os
import pathlib
import time
from typing import Any, Mapping, NamedTuple, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from o1jax import evaluate as ev
from o1jax.config import EvalConfig
from o1jax.evaluate.samples import sample_config
from o1jax.rl.batch import prompt_batch
from o1jax.rl.diagnostics import examine, test
from o1jax.rl.fused import Feed, Program, fixed, fused, gather, paid, sampled
from o1jax.rl.population import MEMBER, One, population
from o1jax.rl.refill import Drawn
from o1jax.rl.regularise import first_coefficients
from o1jax.rl.sample import SampleConfig, still, stream_key
from o1jax.rl.stages import Stage, first_state, rl_stage, strengths_at
from o1jax.sweep.members import Member, cold_start_key
from o1jax.tasks.stream import draw_order
from o1jax.types import PromptBatch, TrainState, divided
from o1jax.verifiers.base import Problem


@dataclasses.dataclass(frozen=True)
class Block:
  """Members that one program runs side by side. `setup` and `stage` are the program's; strengths are each member's."""

  setup: ev.Setup
  stage: Stage
  members: tuple[Member, ...]

  @property
  def steps(self) -> int:
    return self.setup.config.rl.steps

  @property
  def first(self) -> int:
    """Steps before the RL stage."""
    return self.setup.config.sft.steps


class Layout(NamedTuple):
  """How members lie: `size` at a time, spread over `devices`, on each in vmaps of `vmapped` one after the other."""

  devices: int
  vmapped: int
  size: int
  differs: str = ""  # how far vmapped members were from their lone runs, in words

  @property
  def each(self) -> int:
    """Members on a device."""
    return -(-self.size // self.devices)

  def told(self) -> str:
    how = "lax.map" if self.vmapped == 1 else f"vmap of {self.vmapped}"
    rest = "" if self.vmapped in (1, self.each) else ", the vmaps one after the other"
    return f"{how}{rest}, {self.each} members on each of {self.devices} device(s)"


def member_setup(block: Block, member: Member) -> ev.Setup:
  """The block's setup under the member's own configuration."""
  config = dataclasses.replace(member.config, model=block.setup.config.model)
  return dataclasses.replace(block.setup, config=config)


def problem_rows(setup: ev.Setup, problems: Sequence[Problem]) -> PromptBatch:
  """Problems as rows of one PromptBatch with their task arrays, on the host."""
  task = setup.task
  assert task.device is not None
  encode = task.tokenizer.encode
  batch = prompt_batch(
    [encode(task.question(p)) for p in problems], [task.hash_of(p) for p in problems], [p.id for p in problems],
    setup.config.rl.max_prompt,
  )  # fmt: skip
  return dataclasses.replace(batch, task_arrays=task.device.arrays(problems))


def padded(batch: PromptBatch, multiple: int) -> PromptBatch:
  """The batch with its first rows again, up to a multiple."""
  count = batch.tokens.shape[0]
  index = np.arange(-(-count // multiple) * multiple) % count
  return jax.tree.map(lambda a: a[index], batch)


@functools.partial(jax.jit, static_argnames="stream")
def keys_of(seeds: jax.Array, steps: jax.Array, stream: str) -> jax.Array:
  """key[M, N] of a stream at steps i32[N] of runs with seeds u32[M]."""
  make = lambda seed, step: stream_key(seed, stream, step)
  return jax.vmap(jax.vmap(make, (None, 0)), (0, None))(seeds, steps)


class Probe(NamedTuple):
  """What a diagnosis is fed, by member."""

  first_params: Any
  feed: Feed  # of the step that comes next
  key: jax.Array  # of the tests


@dataclasses.dataclass(frozen=True)
class Tests:
  """What is static about the tests of a program's members."""

  program: Program
  cfg: EvalConfig
  sampling: SampleConfig


def run_tests(params: Any, key: jax.Array, tests: Mapping[str, PromptBatch], *, how: Tests) -> dict:
  """kind -> (correct bool[n * K], parsed bool[n * K], response tokens i32[n * K, R], which stand bool[n * K, R])."""
  program, cfg = how.program, how.cfg
  draw = functools.partial(
    test, params, key=key, strengths=still(cfg.temperature or 1.0), model=program.model, samples=cfg.samples,
    sampling=how.sampling, batch=cfg.batch,
  )  # fmt: skip
  told = {}
  for kind, problems in tests.items():
    rollout = draw(problems)
    start = problems.tokens.shape[1]
    tokens, valid = rollout.tokens[:, start:], rollout.valid[:, start:]
    _, correct, parsed = program.verify(tokens, valid, problems.task_arrays)
    told[kind] = (correct, parsed, tokens, valid)
  return told


def diagnose(
  state: TrainState,
  probe: Probe,
  shared: tuple[PromptBatch, Mapping[str, PromptBatch]],
  *,
  how: Tests,
) -> tuple[dict[str, jax.Array], dict, Drawn]:
  """(figures of `examine` on the groups of the step that comes next, the tests, what was drawn for them) of one member."""
  (pool, tests), program = shared, how.program
  draw_problems = functools.partial(gather, pool, probe.feed.order, program.cfg.prompts)
  now = jax.tree.map(lambda a: a[0], dataclasses.replace(probe.feed, proxy=None, frozen=None))
  now = dataclasses.replace(now, proxy=probe.feed.proxy)
  groups, greedy_reward, drawn, _ = sampled(
    program, draw_problems, state.params, jnp.zeros((), jnp.int32), now
  )
  reward = paid(program, now.proxy, groups.rollout, groups.reward)
  figures = examine(
    state, probe.first_params, groups.rollout, reward, greedy_reward, now.minibatch, now.strengths,
    model=program.model, stage=program.stage, cfg=program.cfg, apart=fixed,
  )  # fmt: skip
  return figures, run_tests(state.params, probe.key, tests, how=how), drawn


class Chunk(NamedTuple):
  """What a call reports, on the host."""

  metrics: dict[str, np.ma.MaskedArray]  # f32[M, N]
  drawn: Drawn  # each with leading M, N
  first_bad: np.ndarray  # i32[M], N where all steps were finite
  seconds: float  # that the call took


class Measured(NamedTuple):
  """The first chunk of a fleet's rows, made to be measured."""

  members: list[Member]
  states: TrainState
  told: Chunk


class Fleet:
  """A block compiled for one layout. Members are filled up with the last one again, to as many as a program has rows."""

  def __init__(self, block: Block, layout: Layout, chunk: int, like: TrainState, proxies: Mapping[str, Any]):
    """`like`: shapes of one member's state; `chunk`: steps in a call; `proxies`: by member's name. Compiles the steps."""
    task, config = block.setup.task, block.setup.config
    assert task.device is not None
    self.layout, self.chunk, self.proxies = layout, chunk, proxies
    self.measured: Measured | None = None
    self.mesh = jax.sharding.Mesh(np.asarray(jax.devices()[: layout.devices]), ("data",))
    self._take(block)
    axis = None if layout.vmapped == 1 else MEMBER
    sampling = SampleConfig(config.rl.max_tokens, task.stop_tokens, pad=task.tokenizer.pad, member_axis=axis)
    program = Program(block.setup.model, block.stage, config.rl, sampling, task.device.verify)
    self.prompt_lengths = np.asarray([len(task.tokenizer.encode(task.question(p))) for p in task.train])
    self.pool = self._everywhere(problem_rows(block.setup, task.train))
    states = jax.tree.map(
      lambda a: jax.ShapeDtypeStruct((len(self.rows), *a.shape), a.dtype, sharding=self.along), like
    )
    run = jax.jit(self._population(functools.partial(fused, program=program)), donate_argnums=0)
    first = jax.vmap(functools.partial(first_state, block.stage))
    self._first = jax.jit(first, out_shardings=self.along)
    self._run = run.lower(states, self.feed(0, chunk, self.start), self.pool).compile()

    def tests(cfg: EvalConfig) -> Tests:
      drawn = sample_config(block.setup, cfg, cfg.max_tokens)
      return Tests(program, cfg, dataclasses.replace(drawn, member_axis=axis))

    few = dataclasses.replace(
      config.eval,
      samples=config.diagnostics.samples,
      batch=min(config.eval.batch, config.diagnostics.problems),
    )
    self._diagnose = jax.jit(self._population(functools.partial(diagnose, how=tests(few))))
    self._final = jax.jit(self._population(functools.partial(run_tests, how=tests(config.eval))))

  def _take(self, block: Block) -> None:
    self.block, members = block, block.members
    self.rows = [*members, *[members[-1]] * (self.layout.each * self.layout.devices - len(members))]
    self.stages = [rl_stage(member.config) for member in self.rows]
    self.proxy = self.spread([self.proxies[member.name] for member in self.rows])

  def of(self, members: Sequence[Member]) -> "Fleet":
    """The same compiled programs for other members of the group, at most as many."""
    other = copy.copy(self)
    other._take(dataclasses.replace(self.block, members=tuple(members)))
    return other

  def _everywhere(self, tree: Any) -> Any:
    return jax.device_put(tree, jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec()))

  def spread(self, trees: Sequence[Any]) -> Any:
    """One tree a member -> one with a leading axis of members, each on its device. Fewer trees are filled up."""
    trees = [*trees, *[trees[-1]] * (len(self.rows) - len(trees))]
    stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *trees)
    return jax.device_put(stacked, self.along)

  @property
  def start(self) -> list[int]:
    """Cursors of members that have done nothing."""
    return [0] * len(self.block.members)

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
    size = len(self.block.setup.task.train[: member.config.rl.problems])
    return draw_order(size, member.seed, cursor, count)

  def feed(self, done: int, count: int, cursors: Sequence[int], bad: Sequence[int | None] = ()) -> Feed:
    """What `count` steps behind the first `done` ones of the stage are fed, with a leading axis of members.

    By member of the block: `cursors`, where in its stream it is; `bad`, the step at which it was frozen, () where none was.
    """
    cfg, first = self.block.setup.config.rl, self.block.first
    steps = np.arange(done, done + count) + first + 1
    most = count * cfg.prompts * (1 + cfg.refill)
    orders, by_arm = [], {}
    for j, (member, stage) in enumerate(zip(self.rows, self.stages)):
      orders.append(self.order(member, cursors[min(j, len(cursors) - 1)], most).astype(np.int32))
      if member.arm.name not in by_arm:  # its seeds share them
        each = [strengths_at(member.config, stage, int(step)) for step in steps]
        by_arm[member.arm.name] = jax.tree.map(lambda *a: np.stack([np.asarray(x) for x in a]), *each)
    held = jax.tree.map(lambda *a: np.stack(a), *(by_arm[member.arm.name] for member in self.rows))
    stopped = [step is not None for step in bad] + [False] * (len(self.rows) - len(bad))
    order, held, frozen = jax.device_put((np.stack(orders), held, np.asarray(stopped)), self.along)
    refill = self._keys("refill", steps) if cfg.refill else None
    return Feed(
      order, self._keys("train", steps), self._keys("minibatch", steps), held, refill, self.proxy, frozen
    )

  def _population(self, one: One) -> One:
    return population(one, vmapped=self.layout.vmapped, mesh=self.mesh)

  def firsts(self, colds: Mapping[str, Any]) -> Any:
    """Parameters with which the members begin, with a leading axis of members; `colds` by `cold_start_key`."""
    return self.spread([colds[cold_start_key(member.config)].params for member in self.rows])

  def begin(self, first_params: Any) -> TrainState:
    """Fresh states of all members from the parameters they begin with."""
    states = self._first(first_params)
    if states.controllers is None:
      return states
    own = [first_coefficients(stage.update.controllers) for stage in self.stages]
    return dataclasses.replace(states, controllers=self.spread(own))

  def advance(
    self, states: TrainState, done: int, cursors: Sequence[int], bad: Sequence[int | None] = ()
  ) -> tuple[TrainState, Chunk]:
    """The next `chunk` steps of all members behind `done` steps of the stage; waits. The states are donated.

    cursors, bad: as in `feed`; what is reported of a frozen member stands for nothing.
    """
    if (
      self.measured is not None
      and self.measured.members == self.rows
      and (done, list(cursors)) == (0, self.start)
    ):
      (_, states, told), self.measured = (
        self.measured,
        None,
      )  # the same program on the same members, from the same start
      return states, told
    began = time.perf_counter()
    states, told = self._run(states, self.feed(done, self.chunk, cursors, bad), self.pool)
    stats, drawn, first_bad = jax.device_get(told)
    metrics = divided(stats)
    metrics[f"rewards/{self.block.setup.task.name}/mean"] = metrics.pop("rewards/task/mean")
    return states, Chunk(metrics, drawn, first_bad, time.perf_counter() - began)

  def member_bytes(self) -> float:
    """Bytes that a member more on a device takes: its state and feed, and of a vmap its share of the workspace."""
    used: Any = self._run.memory_analysis()
    each = self.layout.each
    held = used.argument_size_in_bytes + used.output_size_in_bytes - used.alias_size_in_bytes
    return held / each + used.temp_size_in_bytes * (self.layout.vmapped > 1) / each

  def shared_bytes(self) -> float:
    """Bytes that a device takes whatever the members."""
    used: Any = self._run.memory_analysis()
    return used.temp_size_in_bytes * (self.layout.vmapped == 1)

  def diagnose(
    self, states: TrainState, first_params: Any, done: int, cursors: Sequence[int]
  ) -> tuple[dict, dict, Drawn]:
    """(figures, tests, what was drawn) of all members behind `done` steps, on the host by member."""
    cfg = self.block.setup.config
    rows = self._tests(cfg.diagnostics.problems, min(cfg.eval.batch, cfg.diagnostics.problems))
    keys = self._keys("eval", np.asarray([self.block.first + done]))[:, 0]
    probe = Probe(first_params, self.feed(done, 1, cursors), keys)
    return jax.device_get(self._diagnose(states, probe, (self.pool, rows)))

  def final(self, states: TrainState, done: int) -> dict:
    """The final tests of all members, as `run_tests` tells them."""
    cfg = self.block.setup.config.eval
    keys = self._keys("eval", np.asarray([self.block.first + done]))[:, 0]
    return jax.device_get(self._final(states.params, keys, self._tests(cfg.final_problems, cfg.batch)))

  def _tests(self, count: int, batch: int) -> dict[str, PromptBatch]:
    setup = self.block.setup
    tests = ev.tests_of(setup.task, count)
    return {k: self._everywhere(padded(problem_rows(setup, some), batch)) for k, some in tests.items()}


def free_bytes() -> float:
  """Free memory of a device, of the machine where devices are CPUs."""
  stats = jax.devices()[0].memory_stats()
  if stats is not None and "bytes_limit" in stats:
    return float(stats["bytes_limit"] - stats["bytes_in_use"])
  known = pathlib.Path("/proc/meminfo")  # where pages that only cache files count as free
  lines = known.read_text().splitlines() if known.is_file() else []
  for line in lines:
    if line.startswith("MemAvailable:"):
      return float(line.split()[1]) * 1024
  return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def members_that_fit(fleet: Fleet, share: float) -> int:
  """How many members `share` of the free memory holds, by the compiled program's own analysis."""
  cpus = jax.devices()[0].platform == "cpu"  # which share one memory
  room = share * free_bytes() / (fleet.layout.devices if cpus else 1)
  return max(int((room - fleet.shared_bytes()) / fleet.member_bytes()), 0) * fleet.layout.devices


def first_chunk(fleet: Fleet, colds: Mapping[str, Any]) -> tuple[float, Chunk]:
  """(seconds, report) of the first chunk, run to be measured. Where the fleet is then run, it goes on behind it."""
  states = jax.block_until_ready(fleet.begin(fleet.firsts(colds)))
  states, told = fleet.advance(states, 0, fleet.start)
  fleet.measured = Measured(fleet.rows, states, told)
  return told.seconds, told

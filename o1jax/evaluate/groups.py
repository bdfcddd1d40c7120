"""The verified groups that a training step learns from: sampled on the device, graded by the host, refilled by option.

    problems -> chunks: sample one on the device while the host verifies those before it -> forward passes that need no
    reward, while it verifies the last -> verdicts -> refill rounds

Nothing on the device depends on when a verdict comes, so that every number is the same where the device waits instead.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import time
from typing import Any, Callable, Iterator, NamedTuple, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from o1jax.parallel.sharding import put_rows
from o1jax.evaluate.samples import FREELY, Graded, grade, instead, responses
from o1jax.evaluate.setup import Setup, batch_of
from o1jax.rl.refill import fill, level, places
from o1jax.rl.sample import SampleConfig, generate, greedy, stream_key
from o1jax.rl.value import policy_params
from o1jax.scaling.compute import Sizes
from o1jax.tasks.stream import PassRates, draw
from o1jax.types import Rollout, Strengths
from o1jax.verifiers.base import Problem

Meanwhile = Callable[[Rollout], Any]  # what the device does while the host verifies the last of a rollout


@dataclasses.dataclass
class Clock:
  """Seconds that went into sampling, and into waiting for verdicts behind it."""

  generate: float = 0.0
  verify: float = 0.0


class Groups(NamedTuple):
  """P problems with G graded completions of each."""

  rollout: Rollout
  graded: Graded

  def reward(self) -> jax.Array:
    """f32[P, G], the verifier's, as the device has it."""
    return jnp.asarray(self.graded.reward, jnp.float32)


class StepGroups(NamedTuple):
  """What a step learns from, and how it came by it."""

  groups: Groups
  first: Groups  # the first draw, before refill rounds chose among groups; else `groups`
  greedy_reward: jax.Array | None  # f32[P], of remax's greedy completions
  before: Any  # what `meanwhile` gave; None where refill rounds may replace the rollout
  draws: list[Sizes]  # the first rollout, then that of each refill round
  graded: list[Graded]  # likewise
  greedy: Sizes | None
  cursor: int  # position of the data stream behind the last problem that was drawn
  clock: Clock


def sizes_of(setup: Setup, groups: Groups) -> Sizes:
  graded = groups.graded
  return Sizes(
    [len(setup.task.tokenizer.encode(setup.task.question(p))) for p in graded.problems], graded.length
  )


def step_groups(
  setup: Setup,
  params: Any,
  step: int,
  cursor: int,
  seen: PassRates,
  strengths: Strengths,
  meanwhile: Meanwhile,
) -> StepGroups:
  """The groups of step `step`, whose problems stand from `cursor` of the data stream on; `params` are only read.

  `seen` is what the curriculum remembers.
  """
  cfg, task = setup.config.rl, setup.task
  sampling, clock = SampleConfig(cfg.max_tokens, task.stop_tokens, pad=task.tokenizer.pad), Clock()
  sampled = functools.partial(
    _sampled, setup, policy_params(params), strengths=strengths, samples=cfg.samples, cfg=sampling, clock=clock,
  )  # fmt: skip
  key, again = (stream_key(setup.config.seed, stream, step) for stream in ("train", "refill"))
  stream = task.stream(setup.config.seed, cfg.problems)
  problems, cursor = draw(stream, cursor, cfg.prompts, cfg.curriculum, seen)
  groups, before = sampled(problems, key, meanwhile=_nothing if cfg.refill else meanwhile)
  first, draws, graded = groups, [sizes_of(setup, groups)], [groups.graded]
  while len(draws) <= cfg.refill and level(groups.reward(), cfg.advantage.floor).any():
    problems, cursor = draw(stream, cursor, cfg.prompts, cfg.curriculum, seen)
    fresh, _ = sampled(problems, jax.random.fold_in(again, len(draws) - 1))
    draws.append(sizes_of(setup, fresh))
    graded.append(fresh.graded)
    groups = _filled(setup, groups, fresh)
  if cfg.advantage.kind != "remax":
    return StepGroups(groups, first, None, before, draws, graded, None, cursor, clock)
  best, _ = sampled(groups.graded.problems, key, samples=1, cfg=dataclasses.replace(sampling, draw=greedy))
  reward = put_rows(best.reward()[:, 0], setup.mesh)
  return StepGroups(groups, first, reward, before, draws, graded, sizes_of(setup, best), cursor, clock)


def _nothing(rollout: Rollout) -> None:
  del rollout


def _sampled(
  setup: Setup,
  policy: Any,
  problems: Sequence[Problem],
  key: jax.Array,
  *,
  strengths: Strengths,
  samples: int,
  cfg: SampleConfig,
  clock: Clock,
  meanwhile: Meanwhile = _nothing,
) -> tuple[Groups, Any]:
  """(`samples` graded completions of each problem, what `meanwhile` gave); consumes the key."""
  began = time.perf_counter()
  chunks = setup.config.rl.chunks
  size = len(problems) // chunks
  with _grader(setup) as graded_of:
    drawn, verdicts = [], []
    for start in range(0, len(problems), size):
      before = problems[:start] if chunks > 1 else None  # [] for the first one: one program draws all
      batch = batch_of(setup, problems[start : start + size], before)
      drawn.append(
        generate(
          policy,
          batch,
          key,
          strengths,
          model=setup.model,
          samples=samples,
          cfg=cfg,
          replace=instead(setup, FREELY),
        )
      )
      # The chunk before it is read and handed over once the device has this one to do.
      verdicts += [graded_of(problems[start - size : start], drawn[-2])] if start else []
    verdicts.append(graded_of(problems[-size:], drawn[-1]))
    rollout = drawn[0] if len(drawn) == 1 else put_rows(_joined(drawn), setup.mesh)
    gave = meanwhile(rollout)
    sampled = time.perf_counter()
    graded = [verdict() for verdict in verdicts]
  clock.generate += sampled - began
  clock.verify += time.perf_counter() - sampled
  return Groups(rollout, _merged(graded)), gave


@contextlib.contextmanager
def _grader(setup: Setup) -> Iterator[Callable[[Sequence[Problem], Rollout], Callable[[], Graded]]]:
  """(problems, their rollout) -> how to get it graded: at once, or by a thread of its own that has begun with it."""

  def graded(problems: Sequence[Problem], tokens: list[list[int]], lengths: np.ndarray) -> Graded:
    with jax.profiler.TraceAnnotation("verify"):
      return grade(setup, problems, tokens, lengths)

  def read(problems: Sequence[Problem], rollout: Rollout) -> tuple:
    return problems, responses(setup, rollout), np.asarray(rollout.is_action).sum(1)

  def at_once(problems: Sequence[Problem], rollout: Rollout) -> Callable[[], Graded]:
    done = graded(*read(problems, rollout))
    return lambda: done

  if not setup.config.rl.overlap:
    yield at_once
    return
  with concurrent.futures.ThreadPoolExecutor(1, "verify") as thread:
    yield lambda problems, rollout: thread.submit(graded, *read(problems, rollout)).result


@jax.jit
def _joined(rollouts: Sequence[Rollout]) -> Rollout:
  return jax.tree.map(lambda *parts: jnp.concatenate(parts), *rollouts)


def _merged(parts: Sequence[Graded]) -> Graded:
  """Chunks of graded completions as one."""
  joined: dict[str, Any] = {
    name: [row for part in parts for row in vars(part)[name]] for name in vars(parts[0])
  }
  arrays = {name: np.asarray(joined[name]) for name in ("reward", "correct", "length")}
  return Graded(**{**joined, **arrays})


def _filled(setup: Setup, kept: Groups, fresh: Groups) -> Groups:
  """The groups after a round, chosen as on the device."""
  chosen = places(kept.reward(), fresh.reward(), setup.config.rl.advantage.floor)

  def pick(old: Sequence[Any], new: Sequence[Any]) -> list[Any]:
    both = [*old, *new]
    return [both[row] for row in np.asarray(chosen)]

  graded: dict[str, Any] = {name: pick(a, vars(fresh.graded)[name]) for name, a in vars(kept.graded).items()}
  graded |= {name: np.asarray(graded[name]) for name in ("reward", "correct", "length")}
  rollout = put_rows(fill(kept.rollout, fresh.rollout, chosen), setup.mesh)
  return Groups(rollout, Graded(**graded))

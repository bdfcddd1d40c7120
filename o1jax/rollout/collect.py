"""The verified groups that a training step learns from: sampled on the device, graded by the host.

    problems -> chunks: sample one on the device while the host verifies those before it
             -> forward passes that need no reward, while it verifies the last
             -> verdicts -> rounds of dynamic sampling

Nothing on the device depends on when a verdict comes, so that every number is the same where the device
waits instead.
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
from o1jax.rl.critic import policy_params
from o1jax.rl.draw import greedy, stream_key
from o1jax.rl.dynamic_sampling import sample_groups
from o1jax.rl.experience import pack, trimmed
from o1jax.rl.flops import StepSizes, step_sizes
from o1jax.rl.generate import generate
from o1jax.rl.learner import Learner, hyperparams
from o1jax.rl.reward_model import reward_of
from o1jax.rl.sampler import SampleConfig
from o1jax.rl.step import LearnerInputs
from o1jax.rollout.answer import token_map
from o1jax.rollout.grade import Graded, concatenated, grade, response_tokens, select
from o1jax.rollout.record import Progress
from o1jax.rollout.setup import Runtime, batch_of
from o1jax.tasks.stream import Use, draw, generator, problems_from
from o1jax.types import Experience, Rollout, RolloutBatch, Stat
from o1jax.verifiers.base import Problem

Overlapped = Callable[[Rollout], Any]  # what the device computes while the host verifies the last chunk


@dataclasses.dataclass
class PhaseSeconds:
  """Seconds that went into sampling, and into waiting for verdicts behind it."""

  generate: float = 0.0
  verify: float = 0.0


class VerifiedSample(NamedTuple):
  """One draw of completions with their verdicts."""

  batch: RolloutBatch
  graded: Graded
  output: Any  # of the overlapped function, None without one


class StepRollout(NamedTuple):
  """What a step learns from, and how it came by it."""

  batch: RolloutBatch
  graded: Graded  # of `batch`
  greedy: RolloutBatch | None  # remax's greedy completions
  scores: Any  # of the overlapped function; None where dynamic sampling may replace the rollout
  stats: dict[str, Stat]
  sizes: StepSizes
  draws: list[Graded]  # of the first draw and of each round
  cursor: int  # position of the data stream behind the last problem that was drawn
  seconds: PhaseSeconds


def collect(
  runtime: Runtime, params: Any, step: int, progress: Progress, overlapped: Overlapped
) -> StepRollout:
  """The groups of step `step`, whose problems stand from `progress.cursor` of the data stream on; `params`
  are only read.
  """
  cfg, task, seed = runtime.config.rl, runtime.task, runtime.config.seed
  sampling = SampleConfig(cfg.max_tokens, task.stop_tokens, pad=task.tokenizer.pad, slots=cfg.slots)
  seconds = PhaseSeconds()
  policy, stream = policy_params(params), task.stream(seed, cfg.problems)
  key, round_key = (stream_key(seed, name, step) for name in ("train", "dynamic_sampling"))
  draws: list[Graded] = []
  prompts: list[np.ndarray] = []  # prompt tokens of each draw
  cursor = progress.cursor
  sample = functools.partial(_sample_and_grade, runtime, policy, seconds=seconds, policy_step=step - 1)

  def draw_groups(key: jax.Array, overlapped: Overlapped | None = None) -> tuple[RolloutBatch, Any]:
    nonlocal cursor
    problems, cursor = draw(stream, cursor, cfg.prompts, cfg.curriculum, progress.pass_rates)
    one = sample(problems, key, samples=cfg.samples, cfg=sampling, overlapped=overlapped)
    place = len(draws) * cfg.prompts + np.arange(cfg.prompts, dtype=np.int32)
    draws.append(one.graded)
    prompts.append(np.asarray(one.batch.prompts.mask).sum(1))
    return dataclasses.replace(one.batch, place=put_rows(place, runtime.mesh)), one.output

  def draw_round(made: jax.Array) -> RolloutBatch:
    return draw_groups(jax.random.fold_in(round_key, made))[0]

  def draw_greedy(batch: RolloutBatch) -> RolloutBatch:
    problems = select(draws, np.asarray(batch.place)).problems
    return sample(problems, key, samples=1, cfg=dataclasses.replace(sampling, draw=greedy)).batch

  first, scores = draw_groups(key, None if cfg.dynamic_sampling else overlapped)
  groups = sample_groups(first, draw_round, draw_greedy, cfg, while_loop=_host_while_loop)
  counts = jax.device_get(groups.counts)
  sizes = step_sizes(counts, np.concatenate(prompts), cfg.samples)
  graded = select(draws, counts.place)
  batch = put_rows(groups.batch, runtime.mesh) if cfg.dynamic_sampling else groups.batch
  return StepRollout(batch, graded, groups.greedy, scores, groups.stats, sizes, draws, cursor, seconds)


def _host_while_loop(cond: Callable[[Any], Any], body: Callable[[Any], Any], carry: Any) -> Any:
  """jax.lax.while_loop on the host, whose body may verify there."""
  while cond(carry):
    carry = body(carry)
  return carry


def _sample_and_grade(
  runtime: Runtime,
  policy: Any,
  problems: Sequence[Problem],
  key: jax.Array,
  *,
  samples: int,
  cfg: SampleConfig,
  seconds: PhaseSeconds,
  policy_step: int,
  overlapped: Overlapped | None = None,
) -> VerifiedSample:
  """`samples` verified completions of each problem; consumes the key."""
  began = time.perf_counter()
  chunks, temperature = runtime.config.rl.chunks, jnp.float32(runtime.config.rl.temperature)
  size = len(problems) // chunks
  batches, rollouts, verdicts = [], [], []
  with _grader(runtime) as grade_later:
    for start in range(0, len(problems), size):
      before = problems[:start] if chunks > 1 else None  # [] for the first one: one program draws all
      batches.append(batch_of(runtime, problems[start : start + size], before))
      rollouts.append(
        generate(
          policy, batches[-1], key, temperature, model=runtime.model, samples=samples, cfg=cfg,
          token_map=token_map(runtime, {}), policy_step=policy_step,
        )
      )  # fmt: skip
      # The chunk before it is read and handed over once the device has this one to do.
      verdicts += [grade_later(problems[start - size : start], rollouts[-2])] if start else []
    verdicts.append(grade_later(problems[-size:], rollouts[-1]))
    rollout = rollouts[0] if chunks == 1 else put_rows(_joined(rollouts), runtime.mesh)
    prompts = batches[0] if chunks == 1 else put_rows(_joined(batches), runtime.mesh)
    output = None if overlapped is None else overlapped(rollout)
    sampled = time.perf_counter()
    graded = concatenated([verdict() for verdict in verdicts])
  seconds.generate += sampled - began
  seconds.verify += time.perf_counter() - sampled
  verified, correct = put_rows((graded.reward.astype(np.float32), graded.correct.reshape(-1)), runtime.mesh)
  place = put_rows(np.arange(len(problems), dtype=np.int32), runtime.mesh)
  return VerifiedSample(RolloutBatch(prompts, rollout, verified, correct, place), graded, output)


@contextlib.contextmanager
def _grader(runtime: Runtime) -> Iterator[Callable[[Sequence[Problem], Rollout], Callable[[], Graded]]]:
  """(problems, their rollout) -> a function that gives the verdicts: at once, or from a thread that has
  begun with them.
  """

  def read(rollout: Rollout) -> tuple[list[list[int]], np.ndarray]:
    return response_tokens(runtime, rollout), np.asarray(rollout.is_action).sum(1)

  def graded(problems: Sequence[Problem], tokens: list[list[int]], lengths: np.ndarray) -> Graded:
    with jax.profiler.TraceAnnotation("verify"):
      return grade(runtime, problems, tokens, lengths)

  def now(problems: Sequence[Problem], rollout: Rollout) -> Callable[[], Graded]:
    verdicts = graded(problems, *read(rollout))
    return lambda: verdicts

  if not runtime.config.rl.overlap:
    yield now
    return
  with concurrent.futures.ThreadPoolExecutor(1, "verify") as thread:
    yield lambda problems, rollout: thread.submit(graded, problems, *read(rollout)).result


@jax.jit
def _joined(chunks: Sequence[Any]) -> Any:
  return jax.tree.map(lambda *parts: jnp.concatenate(parts), *chunks)


def learner_inputs(
  runtime: Runtime, learner: Learner, step: int, collected: StepRollout, params: Any
) -> LearnerInputs:
  """What the step learns from: the rollout as wide as its longest response, and what the Rewarder pays for
  it.
  """
  config = runtime.config
  pay = functools.partial(reward_of, params, rewarder=learner.rewarder, model=runtime.model)

  def cut(batch: RolloutBatch) -> RolloutBatch:
    return dataclasses.replace(batch, rollout=trimmed(batch.rollout, config.rl))

  batch = cut(collected.batch)
  greedy = None if collected.greedy is None else pay(cut(collected.greedy)).outcome[:, 0]
  key = stream_key(config.seed, "minibatch", step)
  return LearnerInputs(batch.rollout, pay(batch), greedy, key, hyperparams(config, learner, step))


# Graded completions -> (prompt tokens, response tokens) to imitate, which `pack` lays into rows of the SFT
# update.
Relabel = Callable[[Runtime, Graded], list[tuple[list[int], list[int]]]]


def demonstrations(runtime: Runtime, cursor: int) -> tuple[Experience, int, list[int]]:
  """(packed rows to imitate, the cursor behind them, tokens of each demonstration)."""
  cfg, task, seed = runtime.config.sft, runtime.task, runtime.config.seed
  room, texts = cfg.rows * cfg.length, []
  assert task.demonstrate is not None  # there are demonstrations
  for at, problem in enumerate(problems_from(task.demonstrations(seed), cursor), start=cursor):
    if room <= 0:  # enough to fill the rows; what finds no room is the next step's
      break
    response = task.demonstrate(problem, generator(seed, Use.DEMONSTRATION, at))
    prompt = task.tokenizer.encode(task.question(problem))
    texts.append((prompt, [*task.tokenizer.encode(response), task.tokenizer.eos]))
    room -= sum(map(len, texts[-1]))
  experience, packed = pack(texts, cfg.rows, cfg.length)
  return experience, cursor + packed, [len(p) + len(r) for p, r in texts[:packed]]

"""The verified groups that a training step learns from: sampled on the device, graded by the host, refilled by option."""

import dataclasses
import functools
import time
from typing import Any, NamedTuple, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from o1jax.dist.sharding import put_rows
from o1jax.evaluate.samples import FREELY, Graded, grade, instead, responses
from o1jax.evaluate.setup import Setup, batch_of
from o1jax.rl.refill import fill, level, places
from o1jax.rl.sample import SampleConfig, generate, greedy, stream_key
from o1jax.rl.value import policy_params
from o1jax.scaling.compute import Sizes
from o1jax.tasks.base import draw
from o1jax.types import Rollout, Strengths
from o1jax.verifiers.base import Problem


@dataclasses.dataclass
class Clock:
  """Seconds that went into sampling and into verdicts."""

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
  greedy_reward: jax.Array | None  # f32[P], of remax's greedy completions
  draws: list[Sizes]  # the first rollout, then that of each refill round
  greedy: Sizes | None
  clock: Clock


def sizes_of(setup: Setup, groups: Groups) -> Sizes:
  return Sizes(
    [len(setup.task.tokenizer.encode(p.prompt)) for p in groups.graded.problems], groups.graded.length
  )


def step_groups(setup: Setup, params: Any, step: int, cursor: int, strengths: Strengths) -> StepGroups:
  """The groups of step `step`, whose first problem stands at `cursor` of the data stream; `params` are only read."""
  cfg, task = setup.config.rl, setup.task
  sampling, clock = SampleConfig(cfg.max_tokens, task.stop_tokens), Clock()
  sampled = functools.partial(
    _sampled,
    setup,
    policy_params(params),
    strengths=strengths,
    samples=cfg.samples,
    cfg=sampling,
    clock=clock,
  )
  key, again = (stream_key(setup.config.seed, stream, step) for stream in ("train", "refill"))
  problems = functools.partial(draw, task.train[: cfg.problems], setup.config.seed, count=cfg.prompts)
  groups = sampled(problems(start=cursor), key)
  draws = [sizes_of(setup, groups)]
  while len(draws) <= cfg.refill and level(groups.reward()).any():
    made = len(draws) - 1
    fresh = sampled(problems(start=cursor + (made + 1) * cfg.prompts), jax.random.fold_in(again, made))
    draws.append(sizes_of(setup, fresh))
    groups = _filled(setup, groups, fresh)
  if cfg.advantage.kind != "remax":
    return StepGroups(groups, None, draws, None, clock)
  best = sampled(groups.graded.problems, key, samples=1, cfg=dataclasses.replace(sampling, draw=greedy))
  reward = put_rows(best.reward()[:, 0], setup.mesh)
  return StepGroups(groups, reward, draws, sizes_of(setup, best), clock)


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
) -> Groups:
  """`samples` graded completions of each problem; consumes the key."""
  began = time.perf_counter()
  rollout = generate(
    policy, batch_of(setup, problems), key, strengths, model=setup.model, samples=samples, cfg=cfg,
    replace=instead(setup, FREELY),
  )  # fmt: skip
  tokens = responses(setup, rollout)
  drawn = time.perf_counter()
  graded = grade(setup, problems, tokens, np.asarray(rollout.is_action).sum(1))
  clock.generate += drawn - began
  clock.verify += time.perf_counter() - drawn
  return Groups(rollout, graded)


def _filled(setup: Setup, kept: Groups, fresh: Groups) -> Groups:
  """The groups after a round, chosen as on the device."""
  chosen = places(kept.reward(), fresh.reward())

  def pick(old: Sequence[Any], new: Sequence[Any]) -> list[Any]:
    both = [*old, *new]
    return [both[row] for row in np.asarray(chosen)]

  graded: dict[str, Any] = {name: pick(a, vars(fresh.graded)[name]) for name, a in vars(kept.graded).items()}
  graded |= {name: np.asarray(graded[name]) for name in ("reward", "correct", "length")}
  rollout = put_rows(fill(kept.rollout, fresh.rollout, chosen), setup.mesh)
  return Groups(rollout, Graded(**graded))

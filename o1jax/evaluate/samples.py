"""Parameters and problems in, graded completions out; verified by the host."""

import dataclasses
import types
from typing import Any, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from o1jax.config import EvalConfig, require
from o1jax.evaluate.setup import Setup, batch_of
from o1jax.rl.sample import SampleConfig, generate, greedy, inverse_cdf, still, stream_key
from o1jax.rl.value import policy_params
from o1jax.tasks.base import Task
from o1jax.types import Rollout
from o1jax.verifiers.base import Problem, Verdict

FREELY: Mapping[int, int] = types.MappingProxyType({})  # no token stands in for another


@dataclasses.dataclass(frozen=True)
class Graded:
  """n problems x K samples."""

  problems: Sequence[Problem]
  reward: np.ndarray  # f64[n, K]
  correct: np.ndarray  # bool[n, K]
  length: np.ndarray  # i64[n, K], response tokens
  texts: list[list[str]]  # [n][K]
  verdicts: list[list[Verdict]]  # [n][K]


def responses(setup: Setup, rollout: Rollout) -> list[list[int]]:
  """Response tokens of each row, stop tokens and padding left out."""
  start = setup.config.rl.max_prompt
  tokens, valid = (np.asarray(a)[:, start:] for a in (rollout.tokens, rollout.valid))
  stops = set(setup.task.stop_tokens)
  return [[int(t) for t in row[keep] if int(t) not in stops] for row, keep in zip(tokens, valid)]


def sample_config(setup: Setup, cfg: EvalConfig, max_tokens: int) -> SampleConfig:
  return SampleConfig(
    max_tokens, setup.task.stop_tokens, pad=setup.task.tokenizer.pad,
    draw=inverse_cdf if cfg.temperature > 0 else greedy, top_k=cfg.top_k, top_p=cfg.top_p,
  )  # fmt: skip


def instead(setup: Setup, swaps: Mapping[int, int]) -> jax.Array:
  """`replace` of the sampler, i32[V]: every token stands for itself, but the drawn ones in {drawn: taken instead}."""
  table = np.arange(setup.config.model.vocab, dtype=np.int32)
  table[list(swaps.keys())] = list(swaps.values())
  return jnp.asarray(table)


def draw_samples(
  setup: Setup,
  params: Any,
  problems: Sequence[Problem],
  cfg: EvalConfig,
  sampling: SampleConfig,
  step: int,
  swaps: Mapping[int, int] = FREELY,
) -> tuple[list[list[int]], np.ndarray]:
  """(response tokens, lengths i64) of n * K rows; the last batch is filled up with the first problems.

  `swaps` as in `instead`; they are traced, so that one compiled program draws freely and with stopping forbidden.
  """
  key = stream_key(setup.config.seed, "eval", step)
  tokens: list[list[int]] = []
  lengths: list[np.ndarray] = []
  for start in range(0, len(problems), cfg.batch):
    some = list(problems[start : start + cfg.batch])
    filled = [*some, *(problems[i % len(problems)] for i in range(cfg.batch - len(some)))]
    rollout = generate(
      policy_params(params), batch_of(setup, filled), key, still(cfg.temperature or 1.0),
      model=setup.model, samples=cfg.samples, cfg=sampling, replace=instead(setup, swaps),
    )  # fmt: skip
    keep = len(some) * cfg.samples
    tokens += responses(setup, rollout)[:keep]
    lengths.append(np.asarray(rollout.valid)[:keep, setup.config.rl.max_prompt :].sum(1))
  return tokens, np.concatenate(lengths)


def grade(setup: Setup, problems: Sequence[Problem], tokens: list[list[int]], lengths: np.ndarray) -> Graded:
  """Verdicts of n * K responses, in rows of K."""
  samples = len(tokens) // len(problems)
  texts = [setup.task.tokenizer.decode(row) for row in tokens]
  verdicts = setup.task.verify([p for p in problems for _ in range(samples)], texts)
  shape = (len(problems), samples)
  rows = lambda items: [items[i : i + samples] for i in range(0, len(items), samples)]
  return Graded(
    problems,
    np.asarray([v.reward for v in verdicts]).reshape(shape),
    np.asarray([v.correct for v in verdicts]).reshape(shape),
    lengths.reshape(shape),
    rows(texts),
    rows(verdicts),
  )


def sample_and_grade(
  setup: Setup,
  params: Any,
  problems: Sequence[Problem],
  cfg: EvalConfig,
  step: int,
  swaps: Mapping[int, int] = FREELY,
) -> Graded:
  """K responses a problem, graded; `swaps` as in `instead`."""
  sampling = sample_config(setup, cfg, cfg.max_tokens)
  return grade(setup, problems, *draw_samples(setup, params, problems, cfg, sampling, step, swaps))


def rollout_rows(task: Task, graded: Graded) -> list[dict[str, Any]]:
  """All responses as lines of rollouts.jsonl: the first sample of each problem, then the second of each, ..."""
  return [
    {
      "problem_id": p.id, "prompt": task.question(p), "completion": texts[g],
      "reward": None if np.isnan(v[g].reward) else v[g].reward, "correct": v[g].correct, "error": v[g].error,
    }
    for g in range(graded.reward.shape[1])
    for p, texts, v in zip(graded.problems, graded.texts, graded.verdicts)
  ]  # fmt: skip


def no_give_up(task: Task) -> dict[int, int]:
  """The swap that forbids giving up: the retry token stands in its place."""
  require(
    task.give_up_token is not None and task.retry_token is not None, "controls", f"{task.name} cannot give up"
  )
  return {task.give_up_token: task.retry_token}  # type: ignore[dict-item]

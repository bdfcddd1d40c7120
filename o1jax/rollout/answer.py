"""Answerers: problems in, responses and the FLOPs of drawing them out, within a budget of samples and tokens.

    plain: K samples a problem
    best_of: the best of n responses of another answerer, by a score

Search and revisions are answerers of their own: evaluation takes one as an argument and draws nothing itself.
"""

import dataclasses
from typing import Any, Callable, Mapping, NamedTuple, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from o1jax.config import EvalConfig
from o1jax.rl.critic import policy_params
from o1jax.rl.draw import greedy, inverse_cdf
from o1jax.rl.flops import sampling_width
from o1jax.rl.generate import generate
from o1jax.rl.sampler import SampleConfig
from o1jax.rollout.grade import response_tokens
from o1jax.rollout.setup import Runtime, batch_of
from o1jax.scaling.flops import Ledger, Sizes, sampling_flops
from o1jax.verifiers.base import Problem


class Budget(NamedTuple):
  """What an answerer may spend on a problem."""

  samples: int  # K, responses that it returns
  tokens: int  # of one response


class Responses(NamedTuple):
  """n * K responses, problem-major."""

  tokens: list[list[int]]  # without stop tokens
  lengths: np.ndarray  # i64[n * K], with them


# (params, problems, budget, key) -> (responses, FLOPs); consumes the key
Answerer = Callable[[Any, Sequence[Problem], Budget, jax.Array], tuple[Responses, Ledger]]


def sample_config(runtime: Runtime, cfg: EvalConfig, max_tokens: int) -> SampleConfig:
  """The static sampling options of an evaluation."""
  return SampleConfig(
    max_tokens, runtime.task.stop_tokens, pad=runtime.task.tokenizer.pad,
    draw=inverse_cdf if cfg.temperature > 0 else greedy, top_k=cfg.top_k, top_p=cfg.top_p,
    slots=cfg.slots,
  )  # fmt: skip


def token_map(runtime: Runtime, swaps: Mapping[int, int]) -> jax.Array:
  """i32[V] for the sampler: every token maps to itself, but the drawn ones in {drawn: taken}."""
  table = np.arange(runtime.config.model.vocab, dtype=np.int32)
  table[list(swaps.keys())] = list(swaps.values())
  return jnp.asarray(table)


def plain(runtime: Runtime, cfg: EvalConfig, swaps: Mapping[int, int] | None = None) -> Answerer:
  """Independent samples, `cfg.batch` problems at a time; the last batch is filled up with the first problems.

  `swaps` as in `token_map`; they are traced, so that one compiled program draws freely and with stopping
  forbidden.
  """
  mapped = token_map(runtime, swaps or {})

  def answer(
    params: Any, problems: Sequence[Problem], budget: Budget, key: jax.Array
  ) -> tuple[Responses, Ledger]:
    """Draws batch after batch."""
    tokens: list[list[int]] = []
    lengths: list[np.ndarray] = []
    flops, sampling = Ledger(), sample_config(runtime, cfg, budget.tokens)
    for start in range(0, len(problems), cfg.batch):
      block = list(problems[start : start + cfg.batch])
      filled = [*block, *(problems[i % len(problems)] for i in range(cfg.batch - len(block)))]
      batch = batch_of(runtime, filled)
      rollout = generate(
        policy_params(params), batch, key, jnp.float32(cfg.temperature or 1.0),
        model=runtime.model, samples=budget.samples, cfg=sampling, token_map=mapped,
      )  # fmt: skip
      keep = len(block) * budget.samples
      tokens += response_tokens(runtime, rollout)[:keep]
      drawn_lengths = np.asarray(rollout.valid)[:keep, rollout.prompt_width :].sum(1)
      lengths.append(drawn_lengths)
      flops += _sampling_flops(runtime, batch.mask, drawn_lengths.reshape(len(block), -1), budget.tokens)
    return Responses(tokens, np.concatenate(lengths)), flops

  return answer


def _sampling_flops(runtime: Runtime, mask: Any, lengths: np.ndarray, tokens: int) -> Ledger:
  prompts = np.asarray(mask)[: len(lengths)].sum(1).tolist()
  width = sampling_width(tokens, int(lengths.max()))
  rollout, max_prompt = Sizes(prompts, lengths), runtime.config.rl.max_prompt
  refilled = runtime.config.eval.slots > 0
  return sampling_flops(runtime.config.model, rollout, max_prompt, width, refilled=refilled)


def best_of(
  answerer: Answerer, n: int, score: Callable[[Sequence[Problem], Responses], np.ndarray]
) -> Answerer:
  """The best of `n` responses of another answerer, K times over; score: (problems, n * K responses) -> f[n *
  K].

  The first of equals is taken.
  """

  def answer(
    params: Any, problems: Sequence[Problem], budget: Budget, key: jax.Array
  ) -> tuple[Responses, Ledger]:
    several, flops = answerer(params, problems, budget._replace(samples=n * budget.samples), key)
    scores = np.asarray(score(problems, several)).reshape(-1, n)
    rows = np.arange(len(scores)) * n + scores.argmax(1)
    extra = dataclasses.replace(flops, extra_samples=len(several.tokens) - len(rows))
    return Responses([several.tokens[row] for row in rows], several.lengths[rows]), extra

  return answer

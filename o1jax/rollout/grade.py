"""Verdicts of completions: tokens in, texts and the host verifier's verdicts out."""

import dataclasses
from typing import Any, Sequence

import numpy as np

from o1jax.rollout.env import Turn
from o1jax.rollout.setup import Runtime
from o1jax.tasks.base import Task
from o1jax.types import Rollout
from o1jax.verifiers.base import Problem, Verdict


@dataclasses.dataclass(frozen=True)
class Graded:
  """K verified completions of each of n problems."""

  problems: Sequence[Problem]
  reward: np.ndarray  # f64[n, K]
  correct: np.ndarray  # bool[n, K]
  length: np.ndarray  # i64[n, K], response tokens
  texts: list[list[str]]  # [n][K]
  verdicts: list[list[Verdict]]  # [n][K]


def response_tokens(runtime: Runtime, rollout: Rollout) -> list[list[int]]:
  """Response tokens of each row, stop tokens and padding left out."""
  start = rollout.prompt_width
  tokens, valid = (np.asarray(a)[:, start:] for a in (rollout.tokens, rollout.valid))
  stops = set(runtime.task.stop_tokens)
  return [[int(t) for t in row[keep] if int(t) not in stops] for row, keep in zip(tokens, valid)]


def response_lengths(rollout: Rollout) -> np.ndarray:
  """i64[B] response tokens of each row, stop tokens included."""
  return np.asarray(rollout.valid)[:, rollout.prompt_width :].sum(1)


def grade(
  runtime: Runtime, problems: Sequence[Problem], tokens: list[list[int]], lengths: np.ndarray
) -> Graded:
  """Verdicts of n * K responses, in rows of K.

  tokens: without stop tokens; lengths i64[n * K]: with them, so that a response as long as its tokens was cut
  off.
  """
  samples = len(tokens) // len(problems)
  texts = [runtime.task.tokenizer.decode(row) for row in tokens]
  repeated = [p for p in problems for _ in range(samples)]
  turns = runtime.env.step(repeated, [[text] for text in texts])
  cut_off = [len(row) >= length for row, length in zip(tokens, lengths, strict=True)]
  wrong = [cut and problem.source in runtime.task.must_end for cut, problem in zip(cut_off, repeated)]
  verdicts = [_truncated(_final(turn)) if bad else _final(turn) for turn, bad in zip(turns, wrong)]
  shape = (len(problems), samples)

  def rows(items: list[Any]) -> list[list[Any]]:
    return [items[i : i + samples] for i in range(0, len(items), samples)]

  return Graded(
    problems,
    np.asarray([v.reward for v in verdicts]).reshape(shape),
    np.asarray([v.correct for v in verdicts]).reshape(shape),
    lengths.reshape(shape),
    rows(texts),
    rows(verdicts),
  )


def _final(turn: Turn) -> Verdict:
  if turn.verdict is None:
    raise ValueError("the environment asks for another turn, and a rollout has one")
  return turn.verdict


def _truncated(verdict: Verdict) -> Verdict:
  return Verdict(0.0, False, verdict.parsed, "truncated")


def concatenated(parts: Sequence[Graded]) -> Graded:
  """Graded completions of several lists of problems as those of one."""
  return select(parts, np.arange(sum(len(part.problems) for part in parts)))


def select(parts: Sequence[Graded], rows: np.ndarray) -> Graded:
  """The problems at `rows` of several lists of problems that are counted through."""

  def pick(name: str) -> list[Any]:
    everything = [row for part in parts for row in vars(part)[name]]
    return [everything[row] for row in rows]

  return Graded(
    pick("problems"),
    np.asarray(pick("reward")),
    np.asarray(pick("correct")),
    np.asarray(pick("length")),
    pick("texts"),
    pick("verdicts"),
  )


def rollout_rows(task: Task, graded: Graded) -> list[dict[str, Any]]:
  """Responses as lines of rollouts.jsonl: the first sample of each problem, then the second of each, ..."""
  return [
    {
      "problem_id": p.id, "prompt": task.question(p), "completion": texts[g],
      "reward": None if np.isnan(v[g].reward) else v[g].reward, "correct": v[g].correct, "error": v[g].error,
    }
    for g in range(graded.reward.shape[1])
    for p, texts, v in zip(graded.problems, graded.texts, graded.verdicts)
  ]  # fmt: skip

"""What a task is: its problems, its prompt format, its verifier and the tokens that steer it, as plain functions."""

import dataclasses
import hashlib
from typing import Callable, Sequence

import numpy as np

from o1jax.io.tokenizer import Tokenizer
from o1jax.verifiers.base import Problem, Verify


@dataclasses.dataclass(frozen=True)
class Task:
  """A data source, a prompt format and a verifier that belong together."""

  name: str
  train: Sequence[Problem]  # never shares a canonical problem with `held_out`
  held_out: Sequence[Problem]
  tokenizer: Tokenizer
  verify: Verify
  demonstrate: (
    Callable[[Problem, np.random.Generator], str] | None
  )  # a cold-start response, None: the task has none
  stop_tokens: tuple[int, ...]  # drawing one ends a response (it stays in it, and is trained on)
  give_up_token: int | None  # the token by which a response gives up, None where the task knows none
  retry_token: int | None  # what takes the place of an early stop when a budget is forced
  count_tries: Callable[[str], int]  # tries in a response's text
  data_hash: str  # of the problems, for the run's record


def problem_hash(problem: Problem) -> int:
  """u32 hash of task and problem id: the problem's part of every sampling key."""
  digest = hashlib.blake2b(f"{problem.source}/{problem.id}".encode(), digest_size=4).digest()
  return int.from_bytes(digest, "little")


def check_unique(problems: Sequence[Problem]) -> None:
  """Raises ValueError naming the two problems, where two share a sampling key."""
  seen: dict[int, str] = {}
  for problem in problems:
    key = problem_hash(problem)
    if key in seen:
      raise ValueError(
        f"problems {seen[key]!r} and {problem.id!r} of {problem.source} share the sampling key {key}"
      )
    seen[key] = problem.id


def draw(problems: Sequence[Problem], seed: int, start: int, count: int) -> list[Problem]:
  """Problems start .. start + count - 1 of an endless stream: one permutation of all an epoch, fixed by `seed`.

  The position in the stream is the data cursor: no other state is needed to go on.
  """
  size = len(problems)
  orders = {
    e: np.random.default_rng([seed, e]).permutation(size)
    for e in range(start // size, (start + count - 1) // size + 1)
  }
  return [problems[orders[i // size][i % size]] for i in range(start, start + count)]

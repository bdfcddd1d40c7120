"""What a task is: its problems, its prompt format, its verifier and the tokens that steer it, as plain functions."""

import dataclasses
import functools
import hashlib
import itertools
from typing import Any, Callable, Mapping, Sequence

import numpy as np

from o1jax.config import require
from o1jax.io.tokenizer import EOS, Tokenizer
from o1jax.tasks.stream import Stream, name_of
from o1jax.verifiers.base import Problem, Verify


@dataclasses.dataclass(frozen=True)
class DeviceTask:
  """What a task can say of response tokens on the device, as pure functions of arrays that jit and vmap.

  Symbols: P problems, B = P * G rows (prompt-major: row = p * G + g), R response length. `valid` is true on response
  tokens. Verdicts and counts are those that the task's host functions give on the decoded tokens.
  """

  arrays: Callable[
    [Sequence[Problem]], dict[str, np.ndarray]
  ]  # what `verify` has to know of P problems, leading P
  # (tokens i32[B, R], valid bool[B, R], arrays) -> (reward f32[B], correct bool[B], parsed bool[B])
  verify: Callable[[Any, Any, Any], tuple[Any, Any, Any]]
  count_tries: Callable[[Any, Any], Any]  # (tokens i32[B, R], valid bool[B, R]) -> i32[B], tries
  count_retries: Callable[[Any, Any], Any]  # likewise, retry tokens


@dataclasses.dataclass(frozen=True)
class Source:
  """Problems, their prompts and their verifier: what there is of a task before it has a tokenizer."""

  name: str
  train: Sequence[Problem]  # never shares a canonical problem with `held_out`
  held_out: Sequence[Problem]
  # What the cold start imitates: `train`, and where the task widens it, more; none is tested.
  demonstrated: Sequence[Problem]
  shifted: Mapping[
    str, Sequence[Problem]
  ]  # what is out of distribution in one respect, by its name; {}: none
  verify: Verify
  demonstrate: (
    Callable[[Problem, np.random.Generator], str] | None
  )  # a cold-start response, None: there is none
  one_demonstration: bool  # whether `demonstrate` draws nothing, so that a problem always has the same one
  count_tries: Callable[[Problem, str], int]  # tries in a response's text
  coherent: Callable[[Problem, str], bool]  # whether a text is still of the task's form, right or wrong
  data_hash: str  # of the problems, for the run's record
  # Of a mixture: how often each source of problems comes in training, by `Problem.source`, adding up to 1. {}: none.
  shares: Mapping[str, float]
  # What its verifier has cost so far in this process, as metrics; {}: it costs nothing but time.
  spent: Callable[[], Mapping[str, float]]

  def stream(self, seed: int, problems: int | None) -> Stream:
    """The order in which RL meets the training problems, or the first `problems` of them."""
    return self._mixed[0](seed) if self.shares else Stream((self.train[:problems],), (1.0,), seed)

  def demonstrations(self, seed: int) -> Stream:
    """The order in which the cold start meets what it imitates. Raises ConfigError where there is nothing."""
    require(bool(self.demonstrated), "sft.steps", f"task {self.name} has no demonstrations to imitate")
    return self._mixed[1](seed) if self.shares else Stream((self.demonstrated,), (1.0,), seed)

  @functools.cached_property
  def _mixed(self) -> tuple[Callable[[int], Stream], Callable[[int], Stream]]:
    """Streams of `train` and of `demonstrated` by seed: the parts of a mixture are looked for once."""
    return _mixed(self.train, self.shares), _mixed(self.demonstrated, self.shares)


@dataclasses.dataclass(frozen=True)
class Task(Source):
  """A source with the tokens its responses are made of."""

  ask: Callable[[Problem], str]  # the text that the model reads of a problem
  tokenizer: Tokenizer
  stop_tokens: tuple[int, ...]  # drawing one ends a response (it stays in it, and is trained on)
  give_up_token: int | None  # the token by which a response gives up, None where the task knows none
  retry_token: int | None  # what takes the place of an early stop when a budget is forced
  device: DeviceTask | None  # None: responses are graded on the host alone
  rehashed: Mapping[str, int]  # what `rehash` says of all problems

  def hash_of(self, problem: Problem) -> int:
    """u32: the problem's part of every sampling key; no two problems of the task share it."""
    return self.rehashed.get(name_of(problem), problem_hash(problem))


def with_tokens(
  source: Source,
  tokenizer: Tokenizer,
  *,
  ask: Callable[[Problem], str] = lambda problem: problem.prompt,
  stop_tokens: tuple[int, ...] = (EOS,),
  give_up_token: int | None = None,
  retry_token: int | None = None,
  device: DeviceTask | None = None,
) -> Task:
  """The task of a source. Raises ValueError where two of its problems have one id."""
  problems = [*source.train, *source.held_out]
  known = set(map(id, problems))  # the sets below hold some of these once more
  for problem in itertools.chain(source.demonstrated, *source.shifted.values()):
    problems += [problem] if id(problem) not in known else []
    known.add(id(problem))
  return Task(
    **{field.name: vars(source)[field.name] for field in dataclasses.fields(source)},
    ask=ask, tokenizer=tokenizer, stop_tokens=stop_tokens, give_up_token=give_up_token, retry_token=retry_token, device=device,
    rehashed=rehash(problems),
  )  # fmt: skip


def _mixed(problems: Sequence[Problem], shares: Mapping[str, float]) -> Callable[[int], Stream]:
  """seed -> the stream of `problems` by `shares`, in which sources without a problem have none."""
  parts: dict[str, list[Problem]] = {name: [] for name in shares}
  for problem in problems:
    parts[problem.source].append(problem)
  there = {name: part for name, part in parts.items() if part}
  whole = sum(shares[name] for name in there)
  return lambda seed: Stream(tuple(there.values()), tuple(shares[name] / whole for name in there), seed)


def problem_hash(problem: Problem, salt: int = 0) -> int:
  """u32 hash of task and problem id, another for each `salt`."""
  digest = hashlib.blake2b(name_of(problem).encode(), digest_size=4, salt=salt.to_bytes(8, "little")).digest()
  return int.from_bytes(digest, "little")


def rehash(problems: Sequence[Problem]) -> dict[str, int]:
  """`name_of` -> u32, of the problems whose own hash one before them has: their first salted hash that is free.

  Among n problems about n ** 2 / 2 ** 33 share a hash; the same problems in the same order give the same answer.
  Raises ValueError where two problems have one id.
  """
  taken: set[int] = set()
  names: set[str] = set()
  changed: dict[str, int] = {}
  for problem in problems:
    name = name_of(problem)
    if name in names:
      raise ValueError(f"two problems of {problem.source} have the id {problem.id!r}")
    salts = itertools.count()
    key = next(key for key in (problem_hash(problem, salt) for salt in salts) if key not in taken)
    if key != problem_hash(problem):
      changed[name] = key
    names.add(name)
    taken.add(key)
  return changed


def check_demonstrations(task: Task, length: int) -> None:
  """Raises ConfigError naming the first training problem whose demonstration does not fit a row of `length` tokens.

  Prompt, response and end-of-sequence token count. A task that draws its demonstrations is passed over: what it
  will draw is not known before.
  """
  if task.demonstrate is None or not task.one_demonstration:
    return
  encode, rng = task.tokenizer.encode, np.random.default_rng(0)
  for problem in task.demonstrated:
    size = len(encode(task.ask(problem))) + len(encode(task.demonstrate(problem, rng))) + 1
    told = f"problem {problem.id!r} and its demonstration have {size} tokens, a row {length}"
    require(size <= length, "sft.length", told)

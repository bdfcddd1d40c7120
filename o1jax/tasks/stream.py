"""The order of a run's training problems: shares of a mixture, epochs, a curriculum by pass rate.

    position -> part of the mixture, by its share -> the part's next problem, a permutation an epoch
             -> taken or passed over

A stream has no state of its own: its seed and a position fix what stands there, and a step takes problems
from its position on. Each use of the seed has random numbers of its own (`generator`). What a curriculum
passes over moves the position on like what is taken. The curriculum remembers the pass rate of each problem;
a run keeps that beside its position.
Left out: shares that change during a run.
"""

import dataclasses
import enum
import functools
import itertools
from typing import Callable, Iterator, Mapping, NamedTuple, Sequence

import numpy as np

from o1jax.config import ConfigError, CurriculumConfig
from o1jax.verifiers.base import Problem

# Positions over which a mixture's parts come in proportion, unless a part is so rare that it takes more.
BLOCK = 256


class Record(NamedTuple):
  """The pass rate of a problem over its groups."""

  groups: int
  streak: int  # groups in a row of which all completions were correct; negative: of which none was
  rate: float  # running mean of the share that was correct


PassRates = Mapping[str, Sequence]  # by `name_of`; the fields of a Record, in a list as JSON has it


@dataclasses.dataclass(frozen=True)
class Stream:
  """Parts of the training problems, their shares (positive, summing to 1) and the seed of their order."""

  parts: tuple[Sequence[Problem], ...]
  shares: tuple[float, ...]
  seed: int


class Use(enum.IntEnum):
  """What random numbers of a run's seed are for, outside of jax."""

  EPOCH = 0  # (epoch): the order of a lone part
  PART_EPOCH = 1  # (part, epoch): the order of a part of a mixture
  BLOCK = 2  # (size, block): the parts of a block's positions
  CURRICULUM = 3  # (position): whether a problem with a pass rate is taken
  DEMONSTRATION = 4  # (number): what a demonstration draws


def generator(seed: int, use: Use, *numbers: int) -> np.random.Generator:
  """Random numbers of one use of a seed at `numbers`, apart from those of all other uses and numbers.

  The use goes into SeedSequence's spawn key, which numpy keeps apart from the seed: a list as a seed is
  padded with zeros, so that [seed, 3] and [seed, 3, 0] are one.
  """
  return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(use, *numbers)))


def name_of(problem: Problem) -> str:
  return f"{problem.source}/{problem.id}"


# Order


@functools.lru_cache(maxsize=32)
def _permutation(size: int, seed: int, use: Use, *numbers: int) -> np.ndarray:
  return generator(seed, use, *numbers).permutation(size)


def draw_order(size: int, seed: int, start: int, count: int) -> np.ndarray:
  """i64[count]: which of `size` problems stand at start .. start + count - 1 of a stream of one part."""
  places = range(start, start + count)
  return np.asarray([_permutation(size, seed, Use.EPOCH, i // size)[i % size] for i in places])


def problems_from(stream: Stream, start: int) -> Iterator[Problem]:
  """The problems at `start` and on, without end: each once in an epoch of its part."""
  if len(stream.parts) == 1:
    (part,) = stream.parts
    yield from (
      part[_permutation(len(part), stream.seed, Use.EPOCH, i // len(part))[i % len(part)]]
      for i in itertools.count(start)
    )
  for which, number in _places(stream, start):
    part = stream.parts[which]
    order = _permutation(len(part), stream.seed, Use.PART_EPOCH, which, number // len(part))
    yield part[order[number % len(part)]]


def _places(stream: Stream, start: int) -> Iterator[tuple[int, int]]:
  """(part, problems of it that stand before) of each position of a mixture from `start` on."""
  size = max(BLOCK, int(np.ceil(2 / min(stream.shares))))
  for block in itertools.count(start // size):
    parts, before = _composed(stream, size, block)
    for place in range(max(start - block * size, 0), size):
      which = int(parts[place])
      yield which, int(before[which]) + int(np.count_nonzero(parts[:place] == which))


def _composed(stream: Stream, size: int, block: int) -> tuple[np.ndarray, np.ndarray]:
  """(part at each of `size` positions of a block, problems of each part before the block), i64.

  It is the cumulative shares that are rounded: at a block's end no part is a problem or more off its share.
  """
  bounds = np.concatenate([[0.0], np.cumsum(stream.shares)])
  bounds[-1] = 1.0
  before, behind = (np.diff(np.floor(bounds * size * b + 0.5)).astype(int) for b in (block, block + 1))
  parts = np.repeat(np.arange(len(stream.parts)), behind - before)
  return generator(stream.seed, Use.BLOCK, size, block).permutation(parts), before


# Curriculum


class Exhausted(ConfigError):
  """No problem is left to train on."""


def by_pass_rate(record: Record, cfg: CurriculumConfig) -> float:
  """Probability 4 p (1 - p) at running pass rate p, at least `cfg.min_probability`.

  It is proportional to the variance of a binary reward, and so to what a group baseline leaves to learn from.
  """
  assert cfg.min_probability is not None  # validated with the kind
  return max(cfg.min_probability, 4 * record.rate * (1 - record.rate))


# The probability that a problem with a pass rate is taken; None: it is certain.
TAKEN: dict[str, Callable[[Record, CurriculumConfig], float] | None] = {
  "none": None,
  "pass_rate": by_pass_rate,
}


def remembers(cfg: CurriculumConfig) -> bool:
  """Whether the pass rate of a problem has a say in whether it is taken."""
  return cfg.kind != "none" or bool(cfg.drop_solved or cfg.drop_unsolved)


def is_solved(record: Record, cfg: CurriculumConfig) -> bool:
  """Whether a problem was solved by all its completions so many groups in a row that it is dropped."""
  return 0 < cfg.drop_solved <= record.streak


def is_unsolved(record: Record, cfg: CurriculumConfig) -> bool:
  """Whether a problem was solved by no completion so many groups in a row that it is dropped."""
  return 0 < cfg.drop_unsolved <= -record.streak


def draw(
  stream: Stream, start: int, count: int, cfg: CurriculumConfig, pass_rates: PassRates
) -> tuple[list[Problem], int]:
  """(the next `count` problems that are taken from position `start` on, the position behind the last).

  A problem without a pass rate is taken; one with it, with the probability that the curriculum gives it, by a
  number that the seed and the position fix. Raises Exhausted where every problem is dropped.
  """
  taken: list[Problem] = []
  position, missed = start, 0
  most = sum(map(len, stream.parts))
  for problem in problems_from(stream, start):
    if len(taken) == count:
      break
    known = pass_rates.get(name_of(problem))
    accept = known is None or _is_taken(Record(*known), stream.seed, position, cfg)
    taken += [problem] if accept else []
    position, missed = position + 1, 0 if accept else missed + 1
    if missed and missed % most == 0:
      _check_left(stream, cfg, pass_rates)
  return taken, position


def _is_taken(record: Record, seed: int, position: int, cfg: CurriculumConfig) -> bool:
  if is_solved(record, cfg) or is_unsolved(record, cfg):
    return False
  probability = TAKEN[cfg.kind]
  return probability is None or generator(seed, Use.CURRICULUM, position).random() < probability(record, cfg)


def _check_left(stream: Stream, cfg: CurriculumConfig, pass_rates: PassRates) -> None:
  records = (pass_rates.get(name_of(problem)) for part in stream.parts for problem in part)
  dropped = lambda record: is_solved(record, cfg) or is_unsolved(record, cfg)
  if all(known is not None and dropped(Record(*known)) for known in records):
    cure = "raise drop_solved or drop_unsolved, or train on more problems"
    raise Exhausted(f"rl.curriculum: every training problem is dropped as always or never solved: {cure}")


def remembered(
  pass_rates: PassRates, problems: Sequence[Problem], correct: np.ndarray, cfg: CurriculumConfig
) -> dict[str, Sequence]:
  """`pass_rates` after one more group of each problem, correct bool[n, K]; {} where no rate has a say."""
  if not remembers(cfg):
    return {}
  after: dict[str, Sequence] = dict(pass_rates)
  for problem, row in zip(problems, correct, strict=True):
    name, share = name_of(problem), float(np.mean(row))
    old = Record(*after.get(name, (0, 0, share)))
    up, down = max(old.streak, 0) + 1, min(old.streak, 0) - 1
    streak = up if share == 1 else down if share == 0 else 0
    rate = old.rate + (1.0 if cfg.rate is None else cfg.rate) * (share - old.rate)
    after[name] = list(Record(old.groups + 1, streak, rate))
  return after


def curriculum_metrics(
  pass_rates: PassRates, passed_over: int, stream: Stream, cfg: CurriculumConfig
) -> dict[str, float]:
  """`curriculum/<name>`: positions a step passed over, problems met and dropped so far; {} without a memory.

  Of a mixture also `left/<source>`: problems of a part that are not dropped. At 0 the part comes no more, and
  the others share its place.
  """
  if not remembers(cfg):
    return {}
  records = {name: Record(*known) for name, known in pass_rates.items()}
  solved = {name for name, record in records.items() if is_solved(record, cfg)}
  unsolved = {name for name, record in records.items() if is_unsolved(record, cfg)}
  metrics = {
    "passed_over": passed_over,
    "seen": len(records),
    "dropped_solved": len(solved),
    "dropped_unsolved": len(unsolved),
  }
  if len(stream.parts) > 1:
    dropped = solved | unsolved
    for part in stream.parts:
      metrics[f"left/{part[0].source}"] = sum(name_of(problem) not in dropped for problem in part)
  return {f"curriculum/{name}": float(value) for name, value in metrics.items()}

"""Countdown: every solvable problem of a size, split by canonical form; a cold start that searches in text.

A demonstration is a "stream of search" (Gandhi et al. 2024): tries that are checked, dropped and followed by
`wait`, until one is claimed with `yes` or the trace gives up with `quit`. Giving up comes early and often, so
that RL has something to discover: going on pays.
"""

import functools
import hashlib
import itertools
from typing import Iterator, Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from o1jax.config import CountdownConfig, require
from o1jax.io.tokenizer import SentencePieceTokenizer, train_tokenizer
from o1jax.tasks.base import DeviceTask, ProblemSet, Task, with_tokens
from o1jax.verifiers.base import Problem
from o1jax.verifiers.countdown import (
  CLAIM,
  DROP,
  GIVE_UP,
  OFF,
  OPERATIONS,
  RETRY,
  Lexemes,
  coherent,
  count_tries,
  lexemes,
  make_device_verify,
  problem_arrays,
  verify,
)

Steps = tuple[tuple[int, str, int, int], ...]
MAX_PROBLEMS = 1_000_000  # of a task: they take 20 s and 1 GB
MISSES = 20_000  # draws without a new problem, after which there is none left to find


def chains(numbers: tuple[int, ...], max_value: int) -> Iterator[tuple[Steps, int]]:
  """Every chain of steps that uses all of `numbers`, with its last result; results lie in [0, max_value]."""
  if len(numbers) == 1:
    yield (), numbers[0]
    return
  for i, j in itertools.permutations(range(len(numbers)), 2):
    rest = tuple(n for k, n in enumerate(numbers) if k not in (i, j))
    for op, apply in OPERATIONS.items():
      result = apply(numbers[i], numbers[j])
      if not 0 <= result <= max_value:
        continue
      for steps, end in chains((result, *rest), max_value):
        yield ((numbers[i], op, numbers[j], result), *steps), end


def reachable(numbers: tuple[int, ...], max_value: int, known: dict[tuple[int, ...], set[int]]) -> set[int]:
  """Last results of all `chains` of `numbers` (ascending). `known` keeps those of fewer numbers."""
  if len(numbers) == 1:
    return set(numbers)
  if numbers not in known:
    known[numbers] = ends = set()
    for (i, a), (j, b) in itertools.permutations(enumerate(numbers), 2):
      rest = [n for k, n in enumerate(numbers) if k not in (i, j)]
      results = {apply(a, b) for apply in OPERATIONS.values()}
      for result in (r for r in results if 0 <= r <= max_value):
        ends |= reachable(tuple(sorted((result, *rest))), max_value, known)
  return known[numbers]


# Kept, since a problem is demonstrated many times; as one array, since four numbers have up to 3,888 chains.
@functools.lru_cache(maxsize=1024)
def _distinct_chains(numbers: tuple[int, ...], max_value: int) -> np.ndarray:
  """i32[n, steps, 4] all chains, each once; a step is a, its operation's place, b, c."""
  place = {op: i for i, op in enumerate(OPERATIONS)}
  distinct = dict.fromkeys(steps for steps, _ in chains(numbers, max_value))
  return np.asarray([[(a, place[op], b, c) for a, op, b, c in steps] for steps in distinct], np.int32)


def _steps(chain: np.ndarray) -> Steps:
  """The steps of one of `_distinct_chains`."""
  names = tuple(OPERATIONS)
  return tuple((a, names[op], b, c) for a, op, b, c in chain.tolist())


def write_try(steps: Steps, target: int) -> str:
  """A chain and how far it is off, as text: `3 * 9 = 27 , 27 + 7 = 34 off 0`.

  The distance makes the check arithmetic, which a tiny model learns long before it learns to compare.
  """
  return " , ".join(f"{a} {op} {b} = {c}" for a, op, b, c in steps) + f" {OFF} {abs(steps[-1][3] - target)}"


def all_problems(cfg: CountdownConfig) -> list[Problem]:
  """One problem a target but 0, of each multiset of numbers that reach it. Raises ConfigError of too many."""
  known: dict[tuple[int, ...], set[int]] = {}
  problems: list[Problem] = []
  for numbers in itertools.combinations_with_replacement(range(1, cfg.max_number + 1), cfg.count):
    problems += problems_of(numbers, sorted(reachable(numbers, cfg.max_value, known) - {0}))
    too_many = f"{cfg.max_number} makes more than {MAX_PROBLEMS:,} problems of {cfg.count} numbers"
    require(len(problems) <= MAX_PROBLEMS, "task.max_number", too_many)
  return problems


def problems_of(numbers: tuple[int, ...], targets: Sequence[int]) -> list[Problem]:
  """One problem a target; `numbers` ascend."""
  return [
    Problem(
      id=" ".join(map(str, (*numbers, target))),
      prompt=f"{' '.join(map(str, numbers))} -> {target}",
      answer=str(target),
      source="countdown",
      meta={"numbers": list(numbers), "target": target},
    )
    for target in targets
  ]


def largest_target(cfg: CountdownConfig) -> int:
  """Of the problems trained on and held out."""
  return cfg.max_value if cfg.max_target is None else cfg.max_target


def draw_problems(cfg: CountdownConfig, count: int, size: int) -> list[Problem]:
  """`size` distinct problems of `count` numbers, each as likely as any other; for what is too much to list.

  The numbers are any multiset, the target any, and what cannot be reached is drawn again. `cfg.split_seed`
  fixes them. Raises ConfigError where MISSES draws in a row give nothing new.
  """
  rng = np.random.default_rng([cfg.split_seed, count])
  known: dict[tuple[int, ...], set[int]] = {}
  problems: dict[str, Problem] = {}
  misses = 0  # in a row
  while len(problems) < size and misses < MISSES:
    # Multisets of `count` of m numbers are the sets of `count` of m + count - 1, spread apart.
    spread = np.sort(rng.choice(cfg.max_number + count - 1, count, replace=False))
    numbers = tuple((spread - np.arange(count) + 1).tolist())
    target = int(rng.integers(1, largest_target(cfg) + 1))
    targets = [target] if target in reachable(numbers, cfg.max_value, known) else []
    new = {problem.id: problem for problem in problems_of(numbers, targets) if problem.id not in problems}
    problems |= new
    misses = 0 if new else misses + 1
  too_few = f"only {len(problems)} problems of {count} numbers were found, {size} are wanted"
  require(len(problems) == size, "task.more_numbers", too_few)
  return list(problems.values())


def larger_targets(cfg: CountdownConfig, problems: Sequence[Problem]) -> tuple[list[Problem], list[Problem]]:
  """(`cfg.held_out` of the problems beyond `cfg.max_target`, or all if there are fewer; the rest), shuffled.

  Raises ConfigError where there is none.
  """
  beyond = [problem for problem in problems if problem.meta["target"] > largest_target(cfg)]
  require(bool(beyond), "task.max_target", f"no problem has a target above {cfg.max_target}")
  order = np.random.default_rng([cfg.split_seed, cfg.count]).permutation(len(beyond))
  shuffled = [beyond[i] for i in order]
  return shuffled[: cfg.held_out], shuffled[cfg.held_out :]


def out_of_distribution(cfg: CountdownConfig, problems: Sequence[Problem]) -> dict[str, list[Problem]]:
  """Problems that differ from those trained on in one respect, by its name; `problems` are all there are."""
  out = {}
  if cfg.max_target is not None:
    out["larger_targets"], _ = larger_targets(cfg, problems)
  if cfg.more_numbers:
    out["more_numbers"] = draw_problems(cfg, cfg.count + 1, cfg.more_numbers)
  return out


def split(cfg: CountdownConfig, problems: Sequence[Problem]) -> tuple[list[Problem], list[Problem]]:
  """(train, held out), both in the order that `cfg.split_seed` shuffles all problems of their targets into.

  Raises ConfigError where there are too few.
  """
  within = [problem for problem in problems if problem.meta["target"] <= largest_target(cfg)]
  require(len(within) > cfg.held_out, "task.held_out", f"{cfg.held_out} of only {len(within)} problems")
  order = np.random.default_rng(cfg.split_seed).permutation(len(within))
  held_out, train = ([within[i] for i in part] for part in np.split(order, [cfg.held_out]))
  return train, held_out


def data_hash(
  held_out: Sequence[Problem], train: Sequence[Problem], others: Mapping[str, list[Problem]]
) -> str:
  """SHA-256 over the ids of all problems, in their order."""
  ids = [problem.id for problem in (*held_out, *train)]
  for name, problems in others.items():
    ids += [name, *(problem.id for problem in problems)]
  return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def demonstrate(problem: Problem, rng: np.random.Generator, cfg: CountdownConfig) -> str:
  """A cold-start response: tries drawn without repetition, solutions with `hint_rate`, giving up early."""
  target = problem.meta["target"]
  everything = _distinct_chains(tuple(problem.meta["numbers"]), cfg.max_value)
  order = rng.permutation(len(everything))
  solves = everything[order, -1, -1] == target
  wrong, right = iter(order[~solves]), order[solves][0]
  text: list[str] = []
  for _ in range(cfg.max_tries):
    chosen = right if rng.random() < cfg.hint_rate else next(wrong, right)
    tried = write_try(_steps(everything[chosen]), target)
    if chosen == right:
      return " ".join([*text, tried, CLAIM])
    text += [tried, DROP, RETRY]
    if rng.random() < cfg.give_up_rate:
      break
  return " ".join([*text[:-1], GIVE_UP])


def make_tokenizer(cfg: CountdownConfig) -> SentencePieceTokenizer:
  """Each number, operator and word is a symbol of its own, and there is nothing else: a token is a lexeme."""
  words = ["=", ",", "->", CLAIM, DROP, RETRY, GIVE_UP, OFF]
  symbols = [f"▁{word}" for word in (*range(cfg.max_value + 1), *OPERATIONS, *words)]
  # The text teaches nothing, as it is made of symbols; SentencePiece wants one, and adds its characters.
  return train_tokenizer(["0 1"], vocab_size=len(symbols) + 64, symbols=symbols)


def lexeme_table(tokenizer: SentencePieceTokenizer) -> Lexemes:
  """The lexeme of each token id, and in a last row that of all others; read off the decoder itself.

  Raises ValueError naming a token that is more than one lexeme, or that does not stand apart from the one
  before it. Decoding joins the texts of tokens, so that tokens which each begin with a space read side by
  side as they do alone.
  """
  ids = range(tokenizer.vocab_size + 1)
  table = lexemes([tokenizer.decode([token]) for token in ids])
  first = tokenizer.token("▁0")
  for token in ids:
    text = tokenizer.decode([first, token])
    if np.count_nonzero(table.kind[token]) > 1 or not (text == "0" or text.startswith("0 ")):
      raise ValueError(f"token {token} reads {text[1:]!r} behind another: it is no lexeme of its own")
  return Lexemes(table.kind[:, 0], table.value[:, 0].astype(np.int32))


def make_device(tokenizer: SentencePieceTokenizer, cfg: CountdownConfig, width: int) -> DeviceTask | None:
  """The verifier on the device, of problems of up to `width` numbers; None if products may exceed 32 bits."""
  if cfg.max_value**2 > np.iinfo(np.int32).max:
    return None

  def arrays(problems: Sequence[Problem]) -> dict[str, np.ndarray]:
    return {name: array.astype(np.int32) for name, array in problem_arrays(problems, width).items()}

  return DeviceTask(arrays, make_device_verify(lexeme_table(tokenizer), jnp))


def build_problems(cfg: CountdownConfig) -> ProblemSet:
  """The problems and what they are graded by. The split depends on `cfg.split_seed` alone."""
  problems = all_problems(cfg)
  train, held_out = split(cfg, problems)
  ood = out_of_distribution(cfg, problems)
  return ProblemSet(
    name="countdown",
    train=train,
    sft_problems=[*train, *(larger_targets(cfg, problems)[1] if cfg.wide_cold_start else ())],
    held_out=held_out,
    ood=ood,
    verify=verify,
    demonstrate=lambda problem, rng: demonstrate(problem, rng, cfg),
    one_demonstration=False,
    count_tries=lambda problem, text: count_tries(text),
    well_formed=lambda problem, text: coherent(text),
    data_hash=data_hash(held_out, train, ood),
  )


def build(cfg: CountdownConfig) -> Task:
  """The task, with tokens that a device verifier can read and budgets can be forced by."""
  tokenizer = make_tokenizer(cfg)
  return with_tokens(
    build_problems(cfg),
    tokenizer,
    question=lambda problem: problem.prompt,
    stop_tokens=(tokenizer.eos,),
    give_up_token=tokenizer.token(f"▁{GIVE_UP}"),
    retry_token=tokenizer.token(f"▁{RETRY}"),
    device=make_device(tokenizer, cfg, cfg.count + bool(cfg.more_numbers)),
  )

"""The countdown task: every solvable problem of a size, split by canonical form, and a cold start that searches in text.

A demonstration is a "stream of search" (Gandhi et al. 2024): tries that are checked, dropped and followed by `wait`,
until one is claimed with `yes` or the trace gives up with `quit`. Giving up comes early and often, so that RL has
something to discover: going on pays.
"""

import functools
import hashlib
import itertools
import re
from typing import Iterator

import numpy as np

from o1jax.config import CountdownConfig, require
from o1jax.io.tokenizer import EOS, Tokenizer, train_tokenizer
from o1jax.tasks.base import Task, check_unique
from o1jax.verifiers.base import Problem
from o1jax.verifiers.countdown import CLAIM, DROP, GIVE_UP, OFF, OPERATIONS, RETRY, count_tries, verify

Steps = tuple[tuple[int, str, int, int], ...]


def chains(numbers: tuple[int, ...], max_value: int) -> Iterator[tuple[Steps, int]]:
  """Every chain of steps that uses all of `numbers` and keeps results within [0, max_value], with its last result."""
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


@functools.lru_cache(maxsize=4096)
def _distinct_chains(numbers: tuple[int, ...], max_value: int) -> tuple[tuple[Steps, int], ...]:
  """All chains without twins, which equal numbers make. Kept, since a problem is demonstrated many times."""
  return tuple(dict.fromkeys(chains(numbers, max_value)))


def write_try(steps: Steps, target: int) -> str:
  """A chain and how far it is off, as text: `3 * 9 = 27 , 27 + 7 = 34 off 0`.

  The distance makes the check a piece of arithmetic, which a tiny model learns long before it learns to compare.
  """
  return " , ".join(f"{a} {op} {b} = {c}" for a, op, b, c in steps) + f" {OFF} {abs(steps[-1][3] - target)}"


def problems_of(numbers: tuple[int, ...], max_value: int) -> list[Problem]:
  """One problem a target that `numbers` (ascending) reach, 0 left out."""
  targets = sorted({end for _, end in chains(numbers, max_value)} - {0})
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


def demonstrate(problem: Problem, rng: np.random.Generator, cfg: CountdownConfig) -> str:
  """A cold-start response: tries drawn without repetition, a solution with `hint_rate` each, giving up early."""
  target = problem.meta["target"]
  everything = _distinct_chains(tuple(problem.meta["numbers"]), cfg.max_value)
  order = rng.permutation(len(everything))
  wrong = iter([everything[i][0] for i in order if everything[i][1] != target])
  right = [everything[i][0] for i in order if everything[i][1] == target]
  text: list[str] = []
  for _ in range(cfg.max_tries):
    steps = right[0] if rng.random() < cfg.hint_rate else next(wrong, right[0])
    if steps is right[0]:
      return " ".join([*text, write_try(steps, target), CLAIM])
    text += [write_try(steps, target), DROP, RETRY]
    if rng.random() < cfg.give_up_rate:
      break
  return " ".join([*text[:-1], GIVE_UP])


def make_tokenizer(cfg: CountdownConfig) -> Tokenizer:
  """Numbers and operators as symbols of their own; the words are learned from the task's text."""
  symbols = [f"▁{n}" for n in range(cfg.max_value + 1)] + [f"▁{s}" for s in (*OPERATIONS, "=", ",", "->")]
  words = " ".join((CLAIM, DROP, RETRY, GIVE_UP, OFF))
  text = [f"3 * 9 = 27 , 27 + 7 = 34 {words}", "3 7 9 -> 34", words] * 4
  return train_tokenizer(text, vocab_size=len(symbols) + 64, symbols=symbols)


def build(cfg: CountdownConfig, seed: int) -> Task:
  """The task. The split depends on `cfg.split_seed` alone; `seed` is taken for all tasks alike and not used here."""
  del seed
  multisets = itertools.combinations_with_replacement(range(1, cfg.max_number + 1), cfg.count)
  problems = [problem for numbers in multisets for problem in problems_of(numbers, cfg.max_value)]
  require(len(problems) > cfg.held_out, "task.held_out", f"{cfg.held_out} of only {len(problems)} problems")
  check_unique(problems)
  order = np.random.default_rng(cfg.split_seed).permutation(len(problems))
  shuffled = [problems[i] for i in order]
  tokenizer = make_tokenizer(cfg)
  return Task(
    name="countdown",
    train=shuffled[cfg.held_out :],
    held_out=shuffled[: cfg.held_out],
    tokenizer=tokenizer,
    verify=verify,
    demonstrate=lambda problem, rng: demonstrate(problem, rng, cfg),
    stop_tokens=(EOS,),
    give_up_token=tokenizer.token(f"▁{GIVE_UP}"),
    retry_token=tokenizer.token(f"▁{RETRY}"),
    count_tries=count_tries,
    data_hash=hashlib.sha256("\n".join(p.id for p in shuffled).encode()).hexdigest(),
  )


def canonical(problem: Problem) -> tuple[int, ...]:
  """What makes two problems one: the sorted numbers, and the target."""
  *numbers, target = (int(n) for n in re.findall(r"\d+", problem.prompt))
  return (*sorted(numbers), target)

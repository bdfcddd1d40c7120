"""Exact integer arithmetic: `a + b`, `a - b` and `a * b`, worked out digit by digit, answered by `#### N`.

    operation, seed -> places in the list of all pairs, drawn without repetition -> pairs -> held out, train
                    -> ProblemSet

`a + b` and `b + a` are one problem, and so for `*`: pairs are drawn in canonical form, so that splits are
disjoint, and a coin then says which operand comes first. All pairs are equally likely: of three digits, nine
operands in ten have three. Nothing is listed: a pair follows from its place, so that operands may be long.
"""

import dataclasses
import math
import random
from collections.abc import Callable, Iterator

from o1jax.config import ArithmeticConfig, require
from o1jax.tasks.base import Example, ProblemSet
from o1jax.tasks.dataset import Dataset, make_problem_set, problems_hash, without_spacing
from o1jax.verifiers.base import Problem
from o1jax.verifiers.gsm8k import count_answers

NAME = "arithmetic"
APPLY: dict[str, Callable[[int, int], int]] = {
  "+": lambda a, b: a + b,
  "-": lambda a, b: a - b,
  "*": lambda a, b: a * b,
}
Pair = tuple[int, int]


def build(cfg: ArithmeticConfig) -> ProblemSet:
  """The problems. Raises ConfigError naming the field where an operation has too few."""
  held_out: list[Example] = []
  train: list[Example] = []
  longer: list[Example] = []
  for place, op in enumerate(cfg.operations):
    size, kept, more = (
      _share(count, len(cfg.operations), place) for count in (cfg.size, cfg.held_out, cfg.more_digits)
    )
    rng = random.Random(f"{cfg.split_seed} {op}")
    pairs = draw_pairs(op, 0, 10**cfg.digits, kept + size, rng, "size")
    examples = [_example(op, pair, rng) for pair in pairs]
    held_out, train = held_out + examples[:kept], train + examples[kept:]
    rng = random.Random(f"{cfg.split_seed} {op} longer")
    pairs = draw_pairs(op, 10**cfg.digits, 10 ** (cfg.digits + 1), more, rng, "more_digits")
    longer += [_example(op, pair, rng) for pair in pairs]
  for examples in (held_out, train, longer):
    random.Random(cfg.split_seed).shuffle(examples)  # as they come, they are sorted by operation
  dataset = Dataset(
    name=NAME,
    verifier="gsm8k",
    in_process=True,
    count_tries=count_answers,
    demonstrate=demonstrate,
    question_key=without_spacing,
    distinct_words=False,
  )
  problems = make_problem_set(dataset, dataset.verify(cfg), train, held_out, (), cfg.data_dir)
  if not longer:
    return problems
  ood = {"more_digits": [example.problem for example in longer]}
  splits = {"train": problems.train, "held_out": problems.held_out, **ood}
  return dataclasses.replace(problems, ood=ood, data_hash=problems_hash(splits, {}))


def _share(count: int, parts: int, place: int) -> int:
  """Items of `count` that go to one of `parts`: as many to each, and the first ones get what is left over."""
  return count // parts + (place < count % parts)


# Pairs


def draw_pairs(op: str, least: int, below: int, count: int, rng: random.Random, field: str) -> list[Pair]:
  """`count` distinct pairs of 0 .. below - 1, the larger at least `least`, in canonical form, from `rng`.

  Raises ConfigError naming `task.<field>` where there are fewer.
  """
  pair, before = PAIRS[op]
  there = before(below) - before(least)
  too_few = f"only {there} problems `a {op} b` have such operands, {count} are wanted"
  require(count <= there, f"task.{field}", too_few)
  places = range(before(least), before(below))
  if 2 * count > there:
    return [pair(place) for place in rng.sample(places, count)]
  chosen: dict[int, None] = {}  # by rejection, since `sample` knows no range beyond 64 bits
  while len(chosen) < count:
    chosen[rng.randrange(places.start, places.stop)] = None
  return [pair(place) for place in chosen]


def unordered_pair(place: int) -> Pair:
  """(a, b), a <= b, at a place of the list 00, 01, 11, 02, 12, 22, ..."""
  b = (math.isqrt(8 * place + 1) - 1) // 2
  return place - b * (b + 1) // 2, b


def ordered_pair(place: int) -> Pair:
  """(a, b) at a place of the list 00, 01, 11, 10, 02, 12, 22, 21, 20, ..., ordered by the larger."""
  larger = math.isqrt(place)
  rest = place - larger * larger
  return (rest, larger) if rest <= larger else (larger, 2 * larger - rest)


# Operation -> (the pair at a place of the list of all, how many pairs are below a bound).
PAIRS: dict[str, tuple[Callable[[int], Pair], Callable[[int], int]]] = {
  "+": (unordered_pair, lambda bound: bound * (bound + 1) // 2),
  "-": (ordered_pair, lambda bound: bound * bound),
  "*": (unordered_pair, lambda bound: bound * (bound + 1) // 2),
}


def _example(op: str, pair: Pair, rng: random.Random) -> Example:
  """A problem; its operands change places half of the time (of `rng`) where that makes no other."""
  a, b = pair
  question = f"{a} {op} {b}"
  if op != "-" and rng.random() < 0.5:
    a, b = b, a
  meta = {"a": a, "op": op, "b": b}
  problem = Problem(question, f"{a} {op} {b}\nAnswer:\n", str(APPLY[op](a, b)), NAME, meta)
  return Example(f"{NAME}: {question}", question, problem, None)


# Demonstrations


def demonstrate(problem: Problem) -> str:
  """The answer worked out, `#### N` at its end."""
  a, op, b = (problem.meta[name] for name in ("a", "op", "b"))
  return "\n".join([*WORK[op](a, b), f"#### {problem.answer}"])


def add(a: int, b: int) -> Iterator[str]:
  """Column addition from the right: `7 + 6 = 13, write 3, carry 1`."""
  carry = 0
  for x, y in _columns(a, b):
    total = x + y + carry
    carried = f" + {carry}" if carry else ""
    carry = total // 10
    yield f"{x} + {y}{carried} = {total}, write {total % 10}" + (f", carry {carry}" if carry else "")
  if carry:
    yield f"write {carry}"


def subtract(a: int, b: int) -> Iterator[str]:
  """Column subtraction from the right, of the smaller from the larger: `12 - 9 = 3, write 3, borrow 1`."""
  if a < b:
    yield f"{b} is larger: -({b} - {a})"
    a, b = b, a
  borrow = 0
  for x, y in _columns(a, b):
    borrowed = f" - {borrow}" if borrow else ""
    lent = x - y - borrow < 0
    x += 10 * lent
    digit = x - y - borrow
    borrow = int(lent)
    yield f"{x} - {y}{borrowed} = {digit}, write {digit}" + (", borrow 1" if lent else "")


def multiply(a: int, b: int) -> Iterator[str]:
  """Products with each digit of `b` from the right, and their running sum."""
  total = 0
  for place, digit in enumerate(reversed(str(b))):
    factor = int(digit) * 10**place
    yield f"{a} * {factor} = {a * factor}"
    if place:
      yield f"{total} + {a * factor} = {total + a * factor}"
    total += a * factor


WORK: dict[str, Callable[[int, int], Iterator[str]]] = {"+": add, "-": subtract, "*": multiply}


def _columns(a: int, b: int) -> Iterator[Pair]:
  """Digits of two numbers that stand above each other, from the right; the shorter is filled up with 0."""
  width = max(len(str(a)), len(str(b)))
  return ((int(x), int(y)) for x, y in zip(reversed(str(a).zfill(width)), reversed(str(b).zfill(width))))

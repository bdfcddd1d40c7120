"""Exact integer arithmetic: `a + b`, `a - b` and `a * b`, worked out digit by digit, answered by `#### N`.

    operation, seed -> places in the list of all pairs, drawn without repetition -> pairs -> held out, train -> Source

`a + b` and `b + a` are one problem, and so for `*`: pairs are drawn in canonical form, so that splits are disjoint, and
a coin then says which operand comes first. All pairs are equally likely: of three digits, nine operands in ten have
three. Nothing is listed: a pair is worked out from its place, so that operands may be long.
"""

import dataclasses
import math
import random
from collections.abc import Callable, Iterator

import numpy as np

from o1jax.config import ArithmeticConfig, require
from o1jax.tasks.base import Source
from o1jax.tasks.pooled import called
from o1jax.tasks.rows import Kind, Row, is_correct, make_source, problems_hash, without_spacing
from o1jax.verifiers.base import Problem
from o1jax.verifiers.gsm8k import count_answers, make_verify

NAME = "arithmetic"
APPLY: dict[str, Callable[[int, int], int]] = {
  "+": lambda a, b: a + b,
  "-": lambda a, b: a - b,
  "*": lambda a, b: a * b,
}
Pair = tuple[int, int]


def source(cfg: ArithmeticConfig) -> Source:
  """The problems. Raises ConfigError naming the field where there are too few of some operation."""
  held_out: list[Row] = []
  train: list[Row] = []
  longer: list[Row] = []
  for place, op in enumerate(cfg.operations):
    share = lambda count, place=place: _share(count, len(cfg.operations), place)
    kept, trained = share(cfg.held_out), share(cfg.size)
    rng = random.Random(f"{cfg.split_seed} {op}")
    rows = [_row(op, pair, rng) for pair in draw_pairs(op, 0, 10**cfg.digits, kept + trained, rng, "size")]
    held_out, train = held_out + rows[:kept], train + rows[kept:]
    bounds = 10**cfg.digits, 10 ** (cfg.digits + 1)
    rng = random.Random(f"{cfg.split_seed} {op} longer")
    longer += [_row(op, p, rng) for p in draw_pairs(op, *bounds, share(cfg.more_digits), rng, "more_digits")]
  for rows in (held_out, train, longer):
    random.Random(cfg.split_seed).shuffle(rows)  # as they come, they are sorted by operation
  kind = Kind(
    NAME, make_verify(cfg.policy), called("gsm8k", cfg), is_correct, demonstrate, count_answers,
    coherent=lambda problem, text: count_answers(text) == 1, key=without_spacing,
  )  # fmt: skip
  made = make_source(kind, train, held_out, (), (), cfg.data_dir)
  if not longer:
    return made
  problems = [row.problem for row in longer]
  splits = {"train": made.train, "held_out": made.held_out, "more_digits": problems}
  return dataclasses.replace(made, shifted={"more_digits": problems}, data_hash=problems_hash(splits, {}))


def _share(count: int, parts: int, place: int) -> int:
  """How many of `count` go to one of `parts`: as many to each, and the first ones get what is left over."""
  return count // parts + (place < count % parts)


# Pairs


def draw_pairs(op: str, least: int, below: int, count: int, rng: random.Random, field: str) -> list[Pair]:
  """`count` distinct pairs of 0 .. below - 1, the larger at least `least`, in canonical form. Draws from `rng`.

  Raises ConfigError naming `task.<field>` where there are fewer.
  """
  pair, before = PAIRS[op]
  there = before(below) - before(least)
  told = f"only {there} problems `a {op} b` have such operands, {count} are wanted"
  require(count <= there, f"task.{field}", told)
  places = range(before(least), before(below))
  if 2 * count > there:
    return [pair(place) for place in rng.sample(places, count)]
  drawn: dict[int, None] = {}  # by rejection, since `sample` knows no range beyond 64 bits
  while len(drawn) < count:
    drawn[rng.randrange(places.start, places.stop)] = None
  return [pair(place) for place in drawn]


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


def _row(op: str, pair: Pair, rng: random.Random) -> Row:
  """A problem; its operands change places half of the time where that makes no other problem. Draws from `rng`."""
  a, b = pair
  question = f"{a} {op} {b}"
  if op != "-" and rng.random() < 0.5:
    a, b = b, a
  meta = {"a": a, "op": op, "b": b}
  problem = Problem(question, f"{a} {op} {b}\nAnswer:\n", str(APPLY[op](a, b)), NAME, meta)
  return Row(f"{NAME}: {question}", question, problem, None)


# Demonstrations


def demonstrate(problem: Problem, rng: np.random.Generator) -> str:
  """The answer worked out, `#### N` at its end. Draws nothing: `rng` is left as it was."""
  del rng
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
  """Digits of two numbers that stand above each other, from the right; the shorter one is filled up with 0."""
  width = max(len(str(a)), len(str(b)))
  return ((int(x), int(y)) for x, y in zip(reversed(str(a).zfill(width)), reversed(str(b).zfill(width))))

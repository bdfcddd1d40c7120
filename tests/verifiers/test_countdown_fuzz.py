"""The two countdown verifiers against each other, and both against one that shares no line with them.

100,000 token sequences: a third drawn from the whole vocabulary, a third demonstrations,
a third one edit away from
one; and claims made of random steps besides. The device's verdict is the host's on the decoded text,
for each.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence

import jax
import numpy as np
import pytest

from o1jax.config import CountdownConfig
from o1jax.io.tokenizer import EOS, PAD, Tokenizer
from o1jax.tasks.base import DeviceTask
from o1jax.tasks.countdown import all_problems, demonstrate, make_device, make_tokenizer
from o1jax.verifiers.base import Problem
from o1jax.verifiers.countdown import OPERATIONS, verify

pytestmark = pytest.mark.full

LENGTH = 72  # tokens a row
ROWS = 10_000  # a call on the device
CFG = CountdownConfig(count=4, max_number=7, max_value=20, max_tries=4, hint_rate=0.4, give_up_rate=0.1)
TOKENIZER = make_tokenizer(CFG)
VOCAB = TOKENIZER.vocab_size + 5  # of a model that knows more tokens than there are
DEVICE = make_device(TOKENIZER, CFG, width=4)
Row = tuple[Problem, list[int]]


def some_problems(rng: np.random.Generator) -> list[Problem]:
  """Problems of two, three and four numbers."""
  known = [all_problems(dataclasses.replace(CFG, count=count)) for count in (2, 3, 4)]
  return [some[i] for some in known for i in rng.integers(len(some), size=100)]


def anything(problem: Problem, rng: np.random.Generator) -> Row:
  return problem, rng.integers(VOCAB, size=rng.integers(LENGTH + 1)).tolist()


def demonstration(problem: Problem, rng: np.random.Generator) -> Row:
  return problem, [*TOKENIZER.encode(demonstrate(problem, rng, CFG)), EOS][:LENGTH]


def edited(problem: Problem, rng: np.random.Generator) -> Row:
  """A demonstration with one token inserted, left out or replaced, two swapped, or an end within."""
  _, ids = demonstration(problem, rng)
  ids = ids[: LENGTH - 1]
  i, j = rng.integers(len(ids), size=2)
  token = int(rng.integers(VOCAB))
  swapped = list(ids)
  swapped[i], swapped[j] = ids[j], ids[i]
  edits = [
    [*ids[:i], token, *ids[i:]],
    [*ids[:i], *ids[i + 1 :]],
    [*ids[:i], token, *ids[i + 1 :]],
    swapped,
    [*ids[:i], int(rng.choice([EOS, PAD])), *ids[i:]],
  ]
  return problem, edits[rng.integers(5)]


def any_steps(problem: Problem, rng: np.random.Generator) -> Row:
  """A claim of up to four steps, and a problem of often the same numbers that has its last result for a
  target.

  Most steps are exact; some use a number twice or go below zero. Padding may stand anywhere.
  """
  numbers = problem.meta["numbers"]
  pool, steps, result = list(numbers), [], 0
  for _ in range(len(numbers) - 1 if rng.random() < 0.8 else rng.integers(1, 5)):
    a, b = (int(rng.choice(pool or [0])) for _ in "ab")
    for used in (a, b):
      if used in pool and rng.random() < 0.9:
        pool.remove(used)
    op = rng.choice(list(OPERATIONS))
    result = OPERATIONS[op](a, b) if rng.random() < 0.9 else int(rng.integers(-20, 21))
    result = min(max(result, -20), 20)
    steps.append(f"{a} {op} {b} = {'- ' * (result < 0)}{abs(result)}")
    pool.append(abs(result))
  end = rng.choice([" yes", " off 3 yes", " no", " off yes"], p=[0.6, 0.3, 0.05, 0.05])
  ids = TOKENIZER.encode(" , ".join(steps) + end)
  for _ in range(rng.integers(3)):
    i, length = rng.integers(len(ids)), rng.integers(1, 5)
    ids[i:i] = [PAD] * length
  return dataclasses.replace(problem, meta={"numbers": numbers, "target": result}), ids[:LENGTH]


MAKERS: list[tuple[Callable[[Problem, np.random.Generator], Row], int]] = [
  (anything, 33_333), (demonstration, 33_333), (edited, 33_334), (any_steps, 10_000),
]  # fmt: skip


@pytest.fixture(scope="module")
def device() -> DeviceTask:
  assert DEVICE is not None
  return DEVICE


@pytest.fixture(scope="module")
def rows() -> list[Row]:
  """All of them, mixed."""
  rng = np.random.default_rng(0)
  problems = some_problems(rng)
  makers = [make for make, count in MAKERS for _ in range(count)]
  drawn = rng.integers(len(problems), size=len(makers))
  made = [make(problems[i], rng) for i, make in zip(drawn, makers)]
  return [made[i] for i in rng.permutation(len(made))]


def padded(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
  """(tokens, valid) [B, LENGTH]; what stands behind a response is noise that must not matter."""
  lengths = np.asarray([len(ids) for _, ids in rows])
  tokens = np.random.default_rng(1).integers(VOCAB, size=(len(rows), LENGTH)).astype(np.int32)
  valid = np.arange(LENGTH) < lengths[:, None]
  tokens[valid] = [token for _, ids in rows for token in ids]
  return tokens, valid


def decoded(tokenizer: Tokenizer, rows: Sequence[Row]) -> list[str]:
  return [tokenizer.decode(ids) for _, ids in rows]


def test_the_device_says_what_the_host_says_of_the_decoded_text(device, rows) -> None:
  texts = decoded(TOKENIZER, rows)
  verdicts = verify([problem for problem, _ in rows], texts)
  graded = jax.jit(device.verify)
  for start in range(0, len(rows), ROWS):
    part = slice(start, start + ROWS)
    tokens, valid = padded(rows[part])
    reward, correct, parsed = graded(tokens, valid, device.arrays([problem for problem, _ in rows[part]]))
    said = [(v.reward, v.correct, v.parsed is not None) for v in verdicts[part]]
    assert list(zip(reward.tolist(), correct.tolist(), parsed.tolist())) == said
  errors = [verdict.error for verdict in verdicts]
  shares = {error: errors.count(error) / len(rows) for error in (None, "wrong", "unparsable")}
  assert len(rows) >= 100_000 and min(shares.values()) > 0.05, shares
  assert sum("= - " in text and v.parsed is not None for text, v in zip(texts, verdicts)) > 100


STEP = re.compile(r"\s*(\d{1,6}) ([+*-]) (\d{1,6}) = (-?\d{1,12})\s*")
MARKS = r"\b(?:yes|no|wait|quit)\b"


def by_pattern(problem: Problem, text: str) -> str | None:
  """`Verdict.error` by regular expressions, with one space around an operator and none behind a sign."""
  ends = [match.start() for match in re.finditer(r"\byes\b", text)]
  if not ends:
    return "unparsable"
  claim = re.sub(r"\boff \d{1,6}\s*$", "", re.split(MARKS, text[: ends[-1]])[-1]).strip()
  matches = [STEP.fullmatch(step) for step in claim.split(",")]
  if not all(matches):
    return "unparsable"
  pool = list(problem.meta["numbers"])
  for a, op, b, result in (match.groups() for match in matches if match):
    for operand in (int(a), int(b)):
      if operand not in pool:
        return "wrong"
      pool.remove(operand)
    if OPERATIONS[op](int(a), int(b)) != int(result):
      return "wrong"
    pool.append(int(result))
  return None if pool == [problem.meta["target"]] else "wrong"


def test_both_agree_with_one_made_of_patterns(rows) -> None:
  some = rows[:10_000]
  texts = decoded(TOKENIZER, some)
  verdicts = verify([problem for problem, _ in some], texts)
  # A minus is a token of its own, which decodes with a space behind it.
  expected = [by_pattern(problem, text.replace("= - ", "= -")) for (problem, _), text in zip(some, texts)]
  assert [verdict.error for verdict in verdicts] == expected


def test_rows_that_are_vmapped_mapped_or_grouped_get_the_same_verdicts(device, rows) -> None:
  some = rows[:64]
  tokens, valid = padded(some)
  arrays = device.arrays([problem for problem, _ in some])
  graded = jax.jit(device.verify)
  plain = graded(tokens, valid, arrays)
  assert [value.dtype for value in plain] == [np.float32, bool, bool]
  groups = jax.tree.map(lambda x: x.reshape(4, 16, *x.shape[1:]), (tokens, valid, arrays))
  for way in (jax.vmap(device.verify), lambda *each: jax.lax.map(lambda group: device.verify(*group), each)):
    mapped = jax.jit(way)(*groups)
    assert all(np.array_equal(np.ravel(a), b) for a, b in zip(mapped, plain))
  few = device.arrays([problem for problem, _ in some[::4]])
  grouped = graded(tokens, valid, few)
  each = graded(tokens, valid, device.arrays([some[i - i % 4][0] for i in range(64)]))
  assert all(np.array_equal(a, b) for a, b in zip(grouped, each))


def test_the_program_has_no_loop_sort_or_scatter(device) -> None:
  tokens, valid = np.zeros((8, 16), np.int32), np.ones((8, 16), bool)
  program = str(
    jax.make_jaxpr(device.verify)(tokens, valid, device.arrays(some_problems(np.random.default_rng(0))[:4]))
  )
  assert "gather" in program
  assert not re.search(r"\b(?:while|scan|sort|scatter\S*|callback)\[", program)

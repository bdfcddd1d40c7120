"""MBPP: small Python functions from a sentence and a test (Austin et al. 2021, section 2.1).

The published split by `task_id`: 1-10 few-shot prompts, 11-510 test, 511-600 validation, 601-974 train. As in
the paper, the prompt tells the sentence and a test, from which the function's name can be read (the paper
tells all tests). Code and tests have their carriage returns taken out, and code its spaces at the ends of
lines. The sanitized form is read too, which calls the text `prompt` and has a list `test_imports` in place of
`test_setup_code`.
Left out: few-shot prompts, the validation split, the challenge tests, which only a few rows have.
"""

import ast
import re
from collections.abc import Iterable, Sequence

from o1jax.config import BugfixConfig, MbppConfig, require
from o1jax.tasks.base import Example
from o1jax.tasks.dataset import Dataset, Split
from o1jax.verifiers.base import Problem
from o1jax.verifiers.code import extract

NAME = "mbpp"
TEST, TRAIN = range(11, 511), range(601, 975)  # task_id of the published split
# How nearly all texts begin: with it, "... find the sum of" would make one problem a repetition of another.
_STEM = re.compile(r"write an? (?:python )?(?:function|program)(?: to| that| which| for)?\b", re.IGNORECASE)
_FENCE = "```"


# Programs, which other tasks have too


def fenced(code: str) -> str:
  """A program as a response states it."""
  return f"{_FENCE}python\n{code}\n{_FENCE}"


def tidy(code: str) -> str:
  """A program with line feeds alone, without spaces at the ends of lines where that leaves it what it is."""
  code = code.replace("\r\n", "\n").replace("\r", "\n").strip("\n")
  bare = "\n".join(line.rstrip() for line in code.split("\n")).strip("\n")
  try:
    same = ast.dump(ast.parse(code)) == ast.dump(ast.parse(bare))
  except (SyntaxError, ValueError):
    return code
  return bare if same else code


def parses(source: str) -> bool:
  """Whether a text is a Python program; an empty one is."""
  try:
    ast.parse(source)
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    return False
  return True


def count_blocks(text: str) -> int:
  """Programs that a response states: its fenced blocks, or itself where it has none and is not empty."""
  marks = sum(line.strip().startswith(_FENCE) for line in text.splitlines())
  return (marks + 1) // 2 or int(bool(text.strip()))


def is_program(text: str) -> bool:
  """Whether what the verifier takes for a response's program is one, and not empty."""
  code = extract(text)
  return bool(code.strip()) and parses(code)


def program_of(problem: Problem) -> str:
  """A problem's correct program, as a response states it."""
  return fenced(problem.meta["solution"])


# Rows


def in_split(examples: Iterable[Example], task_ids: range) -> list[Example]:
  """The examples of one split."""
  return [example for example in examples if int(example.problem.id) in task_ids]


def split(examples: Sequence[Example], cfg: MbppConfig | BugfixConfig) -> Split:
  """The published train split, the first `cfg.held_out` of the test split. Raises ConfigError of too few."""
  train, held_out = in_split(examples, TRAIN), in_split(examples, TEST)[: cfg.held_out]
  enough = len(held_out) == cfg.held_out
  require(enough, "task.held_out", f"only {len(held_out)} rows of {cfg.path} are of the test split")
  require(bool(train), "task.path", f"no row of {cfg.path} has a task_id in {TRAIN.start}..{TRAIN.stop - 1}")
  return train, held_out


def entry_point(code: str, tests: Iterable[str]) -> str | None:
  """The function of `code` that all tests call; None where there is not just one."""
  defined = {node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)}
  names = [{node.id for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Name)} for test in tests]
  called = defined.intersection(*names)
  return next(iter(called)) if len(called) == 1 else None


def parse_row(row: dict, where: str, row_id: str) -> Example | None:
  """A row of the train or test split, None of another. Raises ConfigError naming the field of a bad one."""
  if row["task_id"] not in TEST and row["task_id"] not in TRAIN:
    return None
  text, code = (row["text"] or row["prompt"] or "").strip(), tidy(row["code"])
  tests = [test.replace("\r\n", "\n").strip() for test in row["test_list"]]
  setup = tidy("\n".join([*(row["test_imports"] or ()), row["test_setup_code"] or ""]))
  require(bool(text), where, "field 'text' (or 'prompt') is empty")
  require(bool(tests) and all(tests), where, "field 'test_list' has no test, or an empty one")
  for field, source in {"code": code, "test_setup_code": setup, "test_list": "\n".join(tests)}.items():
    require(parses(source), where, f"field {field!r} is no Python program")
  meta = {"tests": tests, "test_setup": setup, "entry_point": entry_point(code, tests), "solution": code}
  prompt = f"{text}\nYour code should pass this test:\n{tests[0]}\nAnswer:\n"
  problem = Problem(str(row["task_id"]), prompt, "", NAME, meta)
  return Example(where, _STEM.sub("", text), problem, fenced(code))


DATASET = Dataset(
  name=NAME,
  config=MbppConfig,
  fields={
    "task_id": int,
    "text": str | None,
    "prompt": str | None,
    "code": str,
    "test_list": list[str],
    "test_setup_code": str | None,
    "test_imports": list[str] | None,
  },
  unique="task_id",
  parse_row=parse_row,
  split=split,
  verifier="code",
  count_tries=count_blocks,
  well_formed=lambda problem, text: is_program(text),
  demonstrate=program_of,
)

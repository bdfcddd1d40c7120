"""HumanEval: Python functions to complete from their signature and docstring (Chen et al. 2021, section 2.2).

An evaluation set: all of it is held out, unless a number to hold out is asked for. The prompt is the
published one as it stands: code to go on with. A response may do that, or state the complete function in a
fence, as a demonstration does.
"""

from o1jax.config import HumanevalConfig, require
from o1jax.tasks.base import Example
from o1jax.tasks.dataset import Dataset
from o1jax.tasks.mbpp import count_blocks, fenced, is_program, parses, program_of, tidy
from o1jax.verifiers.base import Problem
from o1jax.verifiers.code import extract

NAME = "humaneval"


def well_formed(problem: Problem, text: str) -> bool:
  """Whether a response is a program by itself, or makes one of the prompt's function."""
  return is_program(text) or parses(problem.prompt + extract(text)) and bool(text.strip())


def parse_row(row: dict, where: str, row_id: str) -> Example:
  """A function to complete. Raises ConfigError naming the field of a bad row."""
  name, prompt, entry_point = row["task_id"], row["prompt"], row["entry_point"]
  require(bool(name), where, "field 'task_id' is empty")
  require(entry_point.isidentifier(), where, f"field 'entry_point': {entry_point[:80]!r} is no name")
  solution = tidy(prompt + row["canonical_solution"])
  complete = "field 'canonical_solution' does not complete 'prompt' to a Python program"
  require(parses(solution), where, complete)
  require(parses(row["test"]), where, "field 'test' is no Python program")
  meta = {"tests": row["test"], "entry_point": entry_point, "solution": solution}
  return Example(where, prompt, Problem(name, prompt, "", NAME, meta), fenced(solution))


DATASET = Dataset(
  name=NAME,
  config=HumanevalConfig,
  fields={"task_id": str | float, "prompt": str, "canonical_solution": str, "test": str, "entry_point": str},
  unique="task_id",
  parse_row=parse_row,
  verifier="code",
  count_tries=count_blocks,
  well_formed=well_formed,
  demonstrate=program_of,
)

"""Riddles whose answer is a number: a data set of one's own is this file, and one line of tasks/catalog.py.

    "riddles": riddles.DATASET

It is selected by `JsonlTaskConfig(dataset="riddles", path="riddles.jsonl")`.
"""

from o1jax.config import require
from o1jax.tasks.base import Example
from o1jax.tasks.dataset import Dataset
from o1jax.verifiers.base import Problem
from o1jax.verifiers.gsm8k import count_answers

NAME = "riddles"


def parse_row(row: dict, where: str, row_id: str) -> Example:
  """A riddle, whose prompt it is, and the response that the verifier must accept. Raises ConfigError."""
  require(bool(row["riddle"].strip()), where, "field 'riddle' is empty")
  problem = Problem(row_id, f"{row['riddle']}\nAnswer:\n", row["answer"], NAME)
  return Example(where, row["riddle"], problem, reference=f"#### {row['answer']}")


DATASET = Dataset(
  name=NAME,
  fields={"riddle": str, "answer": str | float},
  parse_row=parse_row,
  verifier="gsm8k",
  in_process=True,
  count_tries=count_answers,
  demonstrate=lambda problem: f"#### {problem.answer}",
)

r"""MATH: competition maths with worked solutions that end in `\boxed{...}` (Hendrycks et al. 2021).

The gold answer is the field `answer` where there is one, else the last box of the solution. A solution
without a box gets one line more, with the answer boxed: that is the form in which a response states it. Left
out: subject and level, diagrams drawn in code are text like any other.
"""

from o1jax.config import MathConfig, require
from o1jax.tasks.base import Example
from o1jax.tasks.dataset import Dataset, last_or_test, train_and_test_files, without_spacing
from o1jax.verifiers.base import Problem
from o1jax.verifiers.math.extract import DEFAULT_ORDER, EXTRACTORS, boxed, final_part

NAME = "math"


def count_answers(text: str) -> int:
  """Final answers that a response states, by the first way of stating one that it uses."""
  stated = (EXTRACTORS[name](final_part(text)) for name in DEFAULT_ORDER)
  return len(next(filter(None, stated), []))


def parse_row(row: dict, where: str, row_id: str) -> Example:
  """A problem with its solution, boxed. Raises ConfigError naming what the row lacks."""
  question, solution = row["problem"].strip(), (row["solution"] or "").strip()
  require(bool(question), where, "field 'problem' is empty")
  boxes = boxed(solution)
  answer = (row["answer"] or "").strip()
  require(bool(answer or boxes), where, r"has neither a field 'answer' nor a \boxed{} in its solution")
  gold = answer or boxes[-1].text
  require(bool(gold.strip()), where, r"field 'solution': its last \boxed{} is empty or does not close")
  if not boxes:
    solution = f"{solution}\n\\boxed{{{gold}}}".strip()
  problem = Problem(row_id, f"{question}\nSolution:\n", gold, NAME, {"solution": solution})
  return Example(where, question, problem, solution)


DATASET = Dataset(
  name=NAME,
  config=MathConfig,
  fields={"problem": str, "solution": str | None, "answer": str | float | None},
  files=train_and_test_files,
  parse_row=parse_row,
  split=last_or_test,
  verifier="math",
  count_tries=count_answers,
  demonstrate=lambda problem: problem.meta["solution"],
  question_key=without_spacing,
)

"""GSM8K: grade-school word problems whose worked solution ends in `#### N` (Cobbe et al. 2021, section 2).

The calculator annotations of the published solutions (`48/2 = <<48/2=24>>24`) are taken out: no calculator
answers them while sampling, and each repeats the text around it at the price of a quarter more tokens.
Left out: few-shot prompts, the calculator, a token to retry with (forced budgets need one).
"""

import re

from o1jax.config import Gsm8kConfig, require
from o1jax.tasks.base import Example
from o1jax.tasks.dataset import Dataset, last_or_test, train_and_test_files
from o1jax.verifiers.base import Problem
from o1jax.verifiers.gsm8k import count_answers, parse_answer

NAME = "gsm8k"
MARK = "####"

_ANNOTATION = re.compile(r"<<[^<>\n]*>>")


def parse_row(row: dict, where: str, row_id: str) -> Example:
  """A question and its solution, which becomes `#### N` where it is the result alone. Raises ConfigError."""
  question = row["question"].strip()
  require(bool(question), where, "field 'question' is empty")
  solution = "\n".join(line.rstrip() for line in _ANNOTATION.sub("", row["answer"]).strip().split("\n"))
  if MARK not in solution and parse_answer(solution):
    solution = f"{MARK} {solution}"
  gold = solution.rpartition(MARK)[2].strip()
  require(MARK in solution, where, f"field 'answer' has no {MARK!r} before its result")
  values = parse_answer(gold)
  single = values is not None and len(values) == 1
  require(single, where, f"field 'answer': {gold[:80]!r} is not one number")
  problem = Problem(row_id, f"{question}\nAnswer:\n", gold, NAME, {"solution": solution})
  return Example(where, question, problem, solution)


DATASET = Dataset(
  name=NAME,
  config=Gsm8kConfig,
  fields={"question": str, "answer": str | float},
  files=train_and_test_files,
  parse_row=parse_row,
  split=last_or_test,
  verifier="gsm8k",
  in_process=True,
  count_tries=count_answers,
  demonstrate=lambda problem: problem.meta["solution"],
)

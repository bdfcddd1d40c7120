"""Prompts of a domain that no rule decides, graded by a judge behind an HTTP endpoint.

    JSONL (prompt, perhaps answer, perhaps response) -> examples -> ProblemSet that asks the endpoint

A judge's reward is an estimate that a policy learns to please: verifiers/judge/judge.py says what is done
against that and what is not. Its verdicts are another model's, so that a run repeats itself only as far as
the endpoint does. Left out: verifying references first, as other tasks do: the judge would be asked, and
paid, to grade them.
"""

import atexit
import contextlib
import dataclasses
import functools

from o1jax.config import JudgeConfig, JudgedConfig, require
from o1jax.tasks.base import Example, ProblemSet
from o1jax.tasks.dataset import Dataset, drawn_by_seed, make_problem_set, one_file, read_examples
from o1jax.verifiers.base import Problem, Verify
from o1jax.verifiers.judge.http import Endpoint, http_judge


def build(cfg: JudgedConfig) -> ProblemSet:
  """The problems, any number or all held out; those with a `response` may be imitated.

  Sends one request, so that an endpoint that cannot judge is known before anything is trained. Raises
  ConfigError naming the file and row of a bad row, `--task.path` of a file that cannot be had,
  `task.held_out` where there are too few rows, and what of `judge` the endpoint refuses.
  """
  dataset = Dataset(
    name=cfg.name,
    fields={"prompt": str, "answer": str | float | None, "response": str | None},
    parse_row=functools.partial(parse_row, cfg),
    verifier="judge",
    count_tries=lambda text: int(bool(text.strip())),
    demonstrate=lambda problem: problem.meta["response"],
  )
  train, held_out = drawn_by_seed(read_examples(dataset, one_file(cfg), cfg.data_dir), cfg)
  connections = _connected.cache_info().misses
  verify, endpoint = _connected(cfg.judge)
  # What another task of this process has asked of the same judge is not this one's; the first request is.
  before = costs(endpoint) if _connected.cache_info().misses == connections else {}

  def spent() -> dict[str, float]:
    return {name: value - before.get(name, 0.0) for name, value in costs(endpoint).items()}

  problems = make_problem_set(dataset, verify, train, held_out, cfg.decontaminate, cfg.data_dir)
  shown = [problem for problem in problems.train if problem.meta["response"] is not None]
  return dataclasses.replace(problems, sft_problems=shown, spent=spent)


def costs(endpoint: Endpoint) -> dict[str, float]:
  """`judge/<name>`: what the endpoint has been asked so far, and what that cost (dollars: in USD)."""
  return {f"judge/{name}": float(value) for name, value in vars(endpoint.costs).items()}


@functools.cache
def _connected(cfg: JudgeConfig) -> tuple[Verify, Endpoint]:
  """(verifier, its endpoint) of all that this process asks of a judge; checked, and open until it ends."""
  stack = contextlib.ExitStack()
  verify, endpoint = stack.enter_context(http_judge(cfg))
  atexit.register(stack.close)
  endpoint.check()
  return verify, endpoint


def parse_row(cfg: JudgedConfig, row: dict, where: str, row_id: str) -> Example:
  """A prompt, what the judge is shown, what may be imitated. Raises ConfigError naming what the row lacks."""
  require(bool(row["prompt"].strip()), where, "field 'prompt' is empty")
  answer, response = row["answer"] or "", row["response"]
  needed = cfg.judge.sees != "reference" or bool(answer.strip())
  require(needed, where, "has no field 'answer', which task.judge.sees=reference shows the judge")
  require(response is None or bool(response.strip()), where, "field 'response' is empty")
  number = row_id.rpartition("/")[2]
  problem = Problem(number, row["prompt"], answer, cfg.name, {"response": response})
  return Example(where, row["prompt"], problem, None)

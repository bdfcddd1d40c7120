"""Prompts of a domain that no rule decides, graded by a judge behind an HTTP endpoint.

    JSONL (prompt, perhaps answer, perhaps response) -> prepared rows -> Source, whose verifier asks the endpoint

A judge's reward is an estimate that a policy learns to please: verifiers/judge/judge.py says what is done against that and what is
not. Its verdicts are another model's, so that a run repeats itself only as far as the endpoint does.
Left out: references that are verified first, as those of the other tasks are: the judge would be asked, and paid, to grade them.
"""

import atexit
import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from o1jax.config import JudgeConfig, JudgedConfig, require
from o1jax.io.data import jsonl_splits
from o1jax.tasks.base import Source
from o1jax.tasks.rows import Kind, Row, letters_and_digits, make_source, single_file, some_held_out
from o1jax.verifiers.base import Problem, Verify
from o1jax.verifiers.judge.http import Endpoint, http_judge

FIELDS = {"prompt": str, "answer": str | float | None, "response": str | None}


def source(cfg: JudgedConfig) -> Source:
  """The problems, some or all held out; those with a `response` may be imitated.

  Sends one request, so that an endpoint that cannot judge is known before anything is trained. Raises ConfigError naming the
  file and row of a bad row, `--task.path` of a file that cannot be had, `task.held_out` where there are too few rows, and
  what of `judge` the endpoint refuses.
  """
  file = single_file(cfg.path, cfg.sha256)
  data = jsonl_splits(cfg.name, {"rows": file}, FIELDS, cfg.data_dir, option="--task.path")
  rows = list(_rows(cfg, data.splits["rows"]))
  train, held_out = some_held_out(rows, cfg.held_out, cfg.split_seed, cfg.path)
  connections = _connected.cache_info().misses
  verify, endpoint = _connected(cfg.judge)
  # What another task of this process has asked of the same judge is not this one's; the first request is.
  before = costs(endpoint) if _connected.cache_info().misses == connections else {}
  kind = Kind(
    cfg.name, verify, "judge", accepts=lambda verdict: True, demonstrate=demonstrate,
    count_tries=lambda text: int(bool(text.strip())), coherent=lambda problem, text: bool(text.strip()),
    key=letters_and_digits,
  )  # fmt: skip
  made = make_source(kind, train, held_out, held_out, cfg.decontaminate, cfg.data_dir)
  shown = [problem for problem in made.train if problem.meta["response"] is not None]
  return dataclasses.replace(made, demonstrated=shown, spent=lambda: _since(before, endpoint))


def demonstrate(problem: Problem, rng: np.random.Generator) -> str:
  """The file's response. Draws nothing: `rng` is left as it was."""
  del rng
  return problem.meta["response"]


def costs(endpoint: Endpoint) -> dict[str, float]:
  """`judge/<name>`: what the endpoint has been asked so far, and what that cost (dollars: in USD)."""
  return {f"judge/{name}": float(value) for name, value in vars(endpoint.costs).items()}


def _since(before: Mapping[str, float], endpoint: Endpoint) -> dict[str, float]:
  return {name: value - before.get(name, 0.0) for name, value in costs(endpoint).items()}


@functools.cache
def _connected(cfg: JudgeConfig) -> tuple[Verify, Endpoint]:
  """(verifier, its endpoint): one for all that this process asks of a judge, open until it ends, once it has answered."""
  stack = contextlib.ExitStack()
  verify, endpoint = stack.enter_context(http_judge(cfg))
  atexit.register(stack.close)
  endpoint.check()
  return verify, endpoint


def _rows(cfg: JudgedConfig, rows: Iterable[dict]) -> Iterator[Row]:
  """One problem a row. Raises ConfigError naming file and row where it is none."""
  for number, row in enumerate(rows, start=1):
    where = f"{cfg.path} row {number}"
    require(bool(row["prompt"].strip()), where, "field 'prompt' is empty")
    answer, response = row["answer"] or "", row["response"]
    needed = cfg.judge.sees != "reference" or bool(answer.strip())
    require(needed, where, "has no field 'answer', which task.judge.sees=reference shows the judge")
    require(response is None or bool(response.strip()), where, "field 'response' is empty")
    problem = Problem(str(number), row["prompt"], answer, cfg.name, {"response": response})
    yield Row(where, row["prompt"], problem, None)

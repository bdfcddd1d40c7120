"""Many tasks as one: problems come by weight, each is graded by its own verifier, one tokenizer serves all.

    configurations -> problem sets -> problems side by side, shares of each -> ProblemSet

Which part a problem is of stands in `Problem.source`; what is asked of a response goes to that part. Held-out
problems are taken in turn from the parts, so that the first n of them hold as many of each as can be.
Left out: shares that change during a run (a curriculum by problem does that, `rl.curriculum`).
"""

import collections
import concurrent.futures
import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from o1jax.config import MixtureConfig, require
from o1jax.tasks.base import ProblemSet
from o1jax.verifiers.base import Problem, Verdict, Verify


def build(cfg: MixtureConfig, build_problems: Callable[[Any], ProblemSet]) -> ProblemSet:
  """The problem sets of the parts' configurations as one. Raises ConfigError where two have one name."""
  parts: dict[str, ProblemSet] = {}
  for i, part in enumerate(cfg.parts):
    problems = build_problems(part.task)
    require(problems.name not in parts, f"task.parts[{i}].task", f"is a second {problems.name}")
    require(bool(problems.train), f"task.parts[{i}].task", f"{problems.name} has no training problems")
    parts[problems.name] = problems
  total = sum(part.weight for part in cfg.parts)

  def demonstrate(problem: Problem, rng: np.random.Generator) -> str:
    own = parts[problem.source].demonstrate
    assert own is not None  # of the parts with `sft_problems`
    return own(problem, rng)

  return ProblemSet(
    name="mixture",
    train=[problem for part in parts.values() for problem in part.train],
    held_out=_in_turn([part.held_out for part in parts.values()]),
    sft_problems=[problem for part in parts.values() for problem in part.sft_problems],
    ood={f"{name}/{kind}": ood for name, part in parts.items() for kind, ood in part.ood.items()},
    verify=verify_by_source({name: part.verify for name, part in parts.items()}),
    demonstrate=demonstrate,
    one_demonstration=all(part.one_demonstration for part in parts.values()),
    count_tries=lambda problem, text: parts[problem.source].count_tries(problem, text),
    well_formed=lambda problem, text: parts[problem.source].well_formed(problem, text),
    must_end=frozenset[str]().union(*(part.must_end for part in parts.values())),
    properties={source: own for part in parts.values() for source, own in part.properties.items()},
    data_hash=_data_hash({name: part.data_hash for name, part in parts.items()}),
    shares={name: part.weight / total for name, part in zip(parts, cfg.parts, strict=True)},
    spent=lambda: total_spent(parts.values()),
  )


def verify_by_source(verifiers: Mapping[str, Verify]) -> Verify:
  """One verifier out of those by `Problem.source`; verdicts in the order of the problems."""

  def verify(problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
    """Each source's in a thread of its own: the pool's workers are shared, and none of them idles."""
    rows: dict[str, list[int]] = {}
    for row, problem in enumerate(problems):
      rows.setdefault(problem.source, []).append(row)
    with concurrent.futures.ThreadPoolExecutor(max(len(rows), 1), "verify") as threads:
      graded = {}
      for name, own in rows.items():
        mine = [problems[row] for row in own], [completions[row] for row in own]
        graded[name] = threads.submit(verifiers[name], *mine)
    verdicts: dict[int, Verdict] = {}
    for name, own in rows.items():
      verdicts |= zip(own, graded[name].result(), strict=True)
    return [verdicts[row] for row in range(len(problems))]

  return verify


def total_spent(parts: Iterable[ProblemSet]) -> dict[str, float]:
  """What the verifiers of all parts have cost."""
  total: collections.Counter[str] = collections.Counter()
  for part in parts:
    total.update(part.spent())
  return dict(total)


def _in_turn(lists: Sequence[Sequence[Problem]]) -> list[Problem]:
  """The first of each list, then the second of each, ...; a list that has ended is passed over."""
  turns = itertools.zip_longest(*lists)
  return [problem for turn in turns for problem in turn if problem is not None]


def _data_hash(hashes: Mapping[str, str]) -> str:
  """SHA-256 over the parts' names and data hashes, in their order."""
  lines = [f"{name} {value}" for name, value in hashes.items()]
  return hashlib.sha256("\n".join(lines).encode()).hexdigest()

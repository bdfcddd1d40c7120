"""Many tasks as one: their problems come by weight, each is graded by its own verifier, and one tokenizer serves all.

    configurations -> sources -> problems side by side, shares of each -> Source

Which source a problem is of stands in `Problem.source`; what is asked of a response goes to that source. Held-out
problems are taken in turn from the sources, so that the first n of them hold as many of each as can be.
Left out: shares that change during a run (a curriculum by problem does that, `rl.curriculum`).
"""

import collections
import concurrent.futures
import hashlib
import itertools
from typing import Any, Callable, Iterable, Mapping, Sequence

import numpy as np

from o1jax.config import MixtureConfig, require
from o1jax.tasks.base import Source
from o1jax.verifiers.base import Problem, Verdict, Verify


def source(cfg: MixtureConfig, build: Callable[[Any], Source]) -> Source:
  """The sources that `build` makes of the parts' configurations, as one. Raises ConfigError where two have one name."""
  sources: dict[str, Source] = {}
  for i, part in enumerate(cfg.parts):
    one = build(part.task)
    require(one.name not in sources, f"task.parts[{i}].task", f"is a second {one.name}")
    require(bool(one.train), f"task.parts[{i}].task", f"{one.name} has no training problems")
    sources[one.name] = one
  whole = sum(part.weight for part in cfg.parts)
  shares = {name: part.weight / whole for name, part in zip(sources, cfg.parts, strict=True)}
  of = lambda problem: sources[problem.source]
  return Source(
    name="mixture",
    train=[problem for one in sources.values() for problem in one.train],
    held_out=_in_turn([one.held_out for one in sources.values()]),
    demonstrated=[problem for one in sources.values() for problem in one.demonstrated],
    shifted={f"{name}/{kind}": some for name, one in sources.items() for kind, some in one.shifted.items()},
    verify=verify_by_source({name: one.verify for name, one in sources.items()}),
    demonstrate=lambda problem, rng: _demonstrated(of(problem), problem, rng),
    one_demonstration=all(one.one_demonstration for one in sources.values()),
    count_tries=lambda problem, text: of(problem).count_tries(problem, text),
    coherent=lambda problem, text: of(problem).coherent(problem, text),
    data_hash=_data_hash({name: one.data_hash for name, one in sources.items()}),
    shares=shares,
    spent=lambda: _spent(sources.values()),
  )


def verify_by_source(verifiers: Mapping[str, Verify]) -> Verify:
  """One verifier out of those by `Problem.source`, which work side by side; verdicts in the order of the problems."""

  def verify(problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
    """Each source's problems by a thread of its own: the pool's workers are shared, and none of them idles meanwhile."""
    rows: dict[str, list[int]] = {}
    for row, problem in enumerate(problems):
      rows.setdefault(problem.source, []).append(row)
    pick = lambda items, some: [items[row] for row in some]
    verdicts: dict[int, Verdict] = {}
    with concurrent.futures.ThreadPoolExecutor(max(len(rows), 1), "verify") as threads:
      told = {
        name: threads.submit(verifiers[name], pick(problems, some), pick(completions, some))
        for name, some in rows.items()
      }
    for name, some in rows.items():
      verdicts |= zip(some, told[name].result(), strict=True)
    return [verdicts[row] for row in range(len(problems))]

  return verify


def _in_turn(lists: Sequence[Sequence[Problem]]) -> list[Problem]:
  """The first of each list, then the second of each, ...; a list that has ended is passed over."""
  turns = itertools.zip_longest(*lists)
  return [problem for turn in turns for problem in turn if problem is not None]


def _demonstrated(one: Source, problem: Problem, rng: np.random.Generator) -> str:
  assert one.demonstrate is not None  # only what is demonstrated is asked for
  return one.demonstrate(problem, rng)


def _spent(sources: Iterable[Source]) -> dict[str, float]:
  """What all sources have cost."""
  total: collections.Counter[str] = collections.Counter()
  for one in sources:
    total.update(one.spent())
  return dict(total)


def _data_hash(hashes: Mapping[str, str]) -> str:
  """SHA-256 over the sources' names and data hashes, in their order."""
  lines = [f"{name} {value}" for name, value in hashes.items()]
  return hashlib.sha256("\n".join(lines).encode()).hexdigest()

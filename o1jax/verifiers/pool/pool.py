"""Verifiers in worker processes: each item within its own limits, whatever becomes of the others.

    problems, completions -> items -> known by content? -> queue -> a worker each -> verdicts, in order

A worker holds one item at a time, so that a slow or deadly one delays nobody else's. An item's CPU time is
limited by the kernel, and no clock on the wall brings a verdict about, but for a worker that sleeps. A worker
that dies is replaced, and its item tried again. Equal items are graded once, and verdicts are kept by
content.

A verdict is a function of the verifier, its settings and limits, what it reads of the problem, and the
completion: load, order, batch and thread have no part in it. (An item that needs just its CPU limit may end
on either side of it.)
"""

import collections
import logging
import os
import threading
from collections.abc import Hashable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from o1jax.verifiers.base import Problem, Verdict
from o1jax.verifiers.catalog import CATALOG, Entry, VerifierLimits
from o1jax.verifiers.pool.cache import BoundedCache, canonical, content_key
from o1jax.verifiers.pool.dispatch import Dispatcher, GradedItem, Item, PoolError, PoolLimits

WARNINGS = 20  # crashes that a pool logs

Settings = Mapping[str, Hashable]
NO_SETTINGS: Settings = MappingProxyType({})
_LOG = logging.getLogger(__name__)


class ProblemError(ValueError):
  """A problem that its verifier cannot grade anything by, such as a gold answer that is none."""


class PoolStats(NamedTuple):
  """Counts since the pool began."""

  graded: int  # items that workers graded
  hits: int  # items whose verdict was known, or on its way
  started: int  # worker processes
  deaths: int  # of them, those that did not end by themselves


class Pending:
  """The results of a batch that is being graded."""

  def __init__(self, name: str, ids: Sequence[str]):
    self._name, self._ids = name, ids
    self._graded: list[GradedItem | None] = [None] * len(ids)
    self._left = len(ids)
    self._error: PoolError | None = None
    self._changed = threading.Condition()
    self._awaited: set[int] = set()  # items that somebody waited for by itself

  def result(self) -> list[Verdict]:
    """Verdicts in the order of the batch, once all are there.

    Raises ProblemError naming the first problem that is itself at fault, and PoolError where the pool was
    closed or cannot go on.
    """
    with self._changed:
      self._changed.wait_for(lambda: not self._left or self._error)
    verdicts = []
    for place, problem in enumerate(self._ids):
      graded = self.graded(place)
      if graded.verdict is None:
        raise ProblemError(f"{self._name}: problem {problem!r}: {graded.message}")
      verdicts.append(graded.verdict)
    return verdicts

  def graded(self, place: int) -> GradedItem:
    """The result of the item at `place`, once it is known, whatever the others wait for. Raises PoolError."""
    with self._changed:
      self._awaited.add(place)
      self._changed.wait_for(lambda: self._graded[place] or self._error)
      graded = self._graded[place]
      if graded is None:
        raise self._error or AssertionError
      return graded

  def known(self, place: int) -> bool:
    """Whether `graded` would return at once."""
    return self._graded[place] is not None

  def put(self, place: int, graded: GradedItem) -> None:
    """Called by the pool: an item's result."""
    with self._changed:
      self._graded[place] = graded
      self._left -= 1
      if not self._left or place in self._awaited:
        self._changed.notify_all()

  def fail(self, error: PoolError) -> None:
    """Called by the pool: nothing more will come."""
    with self._changed:
      self._error = error
      self._changed.notify_all()


class Pool:
  """Grades for the verifiers called `names`, in `workers` processes. Any thread may use it.

      with Pool(["gsm8k"], workers=2) as pool:
        verdicts = pool.verify("gsm8k", problems, completions)

  Its fork server loads the verifiers while the caller goes on. Nothing of this process is shared with the
  workers, so that it may be made before or after jax has started its threads.
  """

  def __init__(
    self,
    names: Sequence[str],
    workers: int,
    *,
    limits: Mapping[str, VerifierLimits] = MappingProxyType({}),
    own: PoolLimits = PoolLimits(),
    catalog: Mapping[str, Entry] = CATALOG,
  ):
    """`limits` replaces a verifier's own by its name. Raises ValueError for a name that `catalog` lacks."""
    if unknown := sorted({*names, *limits} - set(catalog)):
      raise ValueError(f"{unknown[0]}: no such verifier; there are {', '.join(catalog)}")
    if workers < 1:
      raise ValueError(f"a pool has at least one worker, not {workers}")
    self._entries = {name: catalog[name] for name in names}
    self._limits = {name: limits.get(name, entry.limits) for name, entry in self._entries.items()}
    self._own = own
    self._lock = threading.Lock()
    self._cache: BoundedCache[GradedItem] = BoundedCache(own.cached)
    self._under_way: dict[bytes, Item[tuple[Pending, int]]] = {}
    self._error: PoolError | None = None
    self._counts: collections.Counter[str] = collections.Counter()
    modules = list(dict.fromkeys(entry.module for entry in self._entries.values()))
    self._dispatcher = Dispatcher(modules, workers, own, self._finished, self._failed)

  def __enter__(self) -> "Pool":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def close(self) -> None:
    """Ends all processes at once and waits until they are gone. What is on its way fails with PoolError."""
    self._dispatcher.close()

  def verify(
    self, name: str, problems: Sequence[Problem], completions: Sequence[str], settings: Settings = NO_SETTINGS
  ) -> list[Verdict]:
    """`submit` and `Pending.result` in one."""
    return self.submit(name, problems, completions, settings).result()

  def submit(
    self, name: str, problems: Sequence[Problem], completions: Sequence[str], settings: Settings = NO_SETTINGS
  ) -> Pending:
    """Begins to grade completions[i] against problems[i]; `settings` are arguments of `make_verify`.

    Raises ValueError where the lengths differ or the pool does not serve `name`, and PoolError where it is
    closed.
    """
    if name not in self._entries:
      raise ValueError(f"{name}: this pool serves {', '.join(self._entries)}")
    if len(problems) != len(completions):
      raise ValueError(f"{len(problems)} problems have {len(completions)} completions")
    head = self._head(name, settings)
    reads = self._entries[name].reads
    payloads = [canonical((_fields(p, reads), c)) for p, c in zip(problems, completions, strict=True)]
    pending = Pending(name, [problem.id for problem in problems])
    known: list[tuple[int, GradedItem]] = []
    fresh: list[Item[tuple[Pending, int]]] = []
    with self._lock:
      if self._error is not None:
        raise self._error
      for place, payload in enumerate(payloads):
        key = content_key(head, payload)
        if graded := self._cache.get(key):
          known.append((place, graded))
          continue
        if key not in self._under_way:
          self._under_way[key] = Item(key, self._limits[name], head + payload)
          fresh.append(self._under_way[key])
        self._under_way[key].waiters.append((pending, place))
      self._counts["hits"] += len(payloads) - len(fresh)
      self._dispatcher.put(fresh)
    for place, graded in known:
      pending.put(place, graded)
    return pending

  def pids(self) -> list[int]:
    """The worker processes that are there."""
    return self._dispatcher.pids()

  def stats(self) -> PoolStats:
    """What the pool has done so far."""
    with self._lock:
      counts = self._counts["graded"], self._counts["hits"]
    return PoolStats(*counts, self._dispatcher.started, self._dispatcher.deaths)

  def _head(self, name: str, settings: Settings) -> bytes:
    """What a verdict depends on beside the problem and the completion, as a worker reads it."""
    limits = self._limits[name]
    return canonical((self._entries[name].module, tuple(sorted(settings.items())), limits.cpu_seconds))

  def _finished(self, item: Item[tuple[Pending, int]], graded: GradedItem) -> None:
    """Called by the dispatcher: caches a verdict, and passes it to everybody who waits for it."""
    with self._lock:
      del self._under_way[item.key]
      self._counts["graded"] += 1
      short = graded.verdict is None or len(graded.verdict.parsed or "") <= self._own.cached_text
      if graded.cacheable and short:
        self._cache.put(item.key, graded)
      # A verdict of a verifier's own, such as on a program that crashed, comes without a message.
      verdict = graded.verdict
      crashed = verdict is not None and verdict.error == "crashed" and graded.message is not None
      self._counts["crashed"] += crashed
      crashes = self._counts["crashed"]
    if crashed and crashes <= WARNINGS:
      last = " (no more of them are logged)" if crashes == WARNINGS else ""
      _LOG.warning("a verifier crashed: %s%s", graded.message, last)
    for pending, place in item.waiters:
      pending.put(place, graded)

  def _failed(self, error: PoolError) -> None:
    """Called by the dispatcher: nothing more will be graded."""
    with self._lock:
      self._error = error
      left = list(self._under_way.values())
      self._under_way.clear()
    for pending in {pending for item in left for pending, _ in item.waiters}:
      pending.fail(error)


def _fields(problem: Problem, reads: Iterable[str]) -> tuple:
  """((name, value), ...) of what a verifier reads; a key that `meta` lacks is left out."""
  own = {"prompt": problem.prompt, "answer": problem.answer}
  known = {**problem.meta, **own}
  return tuple((name, known[name]) for name in reads if name in known)


def cores() -> int:
  """CPU cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

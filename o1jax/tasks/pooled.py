"""Verifiers that run in worker processes: one pool for all that this process asks for, made when it first asks.

A verifier belongs there where an answer can make it slow, or is run as a program: maths, code, constraints, gym.
"""

import atexit
import functools
import logging
import threading
from collections.abc import Hashable, Sequence

from o1jax.config import ConfigError, PolicyConfig
from o1jax.verifiers.base import Problem, Verdict, Verify
from o1jax.verifiers.catalog import CATALOG
from o1jax.verifiers.pool import Pool, cores
from o1jax.verifiers.sandbox import service

_LOG = logging.getLogger(__name__)


@functools.cache
def _layers() -> str:
  """What stands between programs and this machine, asked once. Raises ConfigError where it is too little."""
  try:
    return service.describe()
  except service.SandboxError as error:
    raise ConfigError(str(error)) from error


class _Shared:
  """The pool, and the names that it has to serve."""

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._names: list[str] = []
    self._pool: Pool | None = None

  def serve(self, name: str) -> None:
    """Has the pool serve `name` too; one that was made without it is given up for a new one when it is next asked."""
    with self._lock:
      if name not in self._names:
        self._names.append(name)
        self._close()

  def pool(self) -> Pool:
    """The pool, made now where there is none."""
    with self._lock:
      if self._pool is None:
        self._pool = Pool(self._names, workers=cores())
      return self._pool

  def close(self) -> None:
    """Ends the pool's processes; asked again, there will be a new one."""
    with self._lock:
      self._close()

  def _close(self) -> None:
    if self._pool is not None:
      self._pool.close()
    self._pool = None


_SHARED = _Shared()
atexit.register(_SHARED.close)
close = _SHARED.close  # ends the worker processes now rather than with this process


DEFAULTS = {"policy": "strict", "block": "last"}  # of the settings that a task's configuration has


def chosen(cfg: PolicyConfig) -> dict[str, str]:
  """The settings of a task's verifier, without those that are as by default."""
  given = {name: vars(cfg).get(name, default) for name, default in DEFAULTS.items()}
  return {name: value for name, value in given.items() if value != DEFAULTS[name]}


def called(name: str, cfg: PolicyConfig) -> str:
  """A verifier's name with its settings, by which what it said before is known again."""
  return " ".join((name, *chosen(cfg).values()))


def pooled(name: str, **settings: Hashable) -> Verify:
  """The verifier `name` of the pool's catalog under `settings`, which its `make_verify` takes.

  No process is started before something is verified.
  """
  if CATALOG[name].runs_programs:
    _LOG.warning("%s", _layers())
  _SHARED.serve(name)

  def verify(problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
    return _SHARED.pool().verify(name, problems, completions, settings)

  return verify

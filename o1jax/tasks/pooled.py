"""Verifiers under a task's settings, in this process or in the workers of one pool that serves all tasks.

A verifier belongs in the pool where an answer can make it slow, or is run as a program: maths, code,
constraints, gym. The pool is made when something is first verified in it.
"""

import atexit
import functools
import importlib
import logging
import threading
from collections.abc import Hashable, Sequence
from typing import Any

from o1jax.config import ConfigError
from o1jax.verifiers.base import Problem, Verdict, Verify
from o1jax.verifiers.catalog import CATALOG
from o1jax.verifiers.pool import Pool, cores
from o1jax.verifiers.sandbox import service

DEFAULTS = {"policy": "strict", "block": "last"}  # of the settings that a task's configuration has
_LOG = logging.getLogger(__name__)


def chosen(cfg: Any) -> dict[str, str]:
  """The settings of a task's verifier, without those that are as by default."""
  settings = {name: vars(cfg).get(name, default) for name, default in DEFAULTS.items()}
  return {name: value for name, value in settings.items() if value != DEFAULTS[name]}


def called(name: str, cfg: Any) -> str:
  """A verifier's name with its settings, by which what it said before is known again."""
  return " ".join((name, *chosen(cfg).values()))


def in_process(name: str, **settings: Hashable) -> Verify:
  """The verifier `name` of the verifiers' catalog under `settings`, in this process."""
  return importlib.import_module(CATALOG[name].module).make_verify(**settings)


def pooled(name: str, **settings: Hashable) -> Verify:
  """The verifier `name` of the verifiers' catalog under `settings`, in the pool's workers.

  No process is started before something is verified.
  """
  if CATALOG[name].runs_programs:
    _LOG.warning("%s", _layers())
  _SHARED.serve(name)

  def verify(problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
    return _SHARED.pool().verify(name, problems, completions, settings)

  return verify


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
    """Has the pool serve `name` too; one that was made without it ends, and the next use makes another."""
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

"""Counts what XLA compiles, by jax's own events: `_cache_size()` also counts a sharding that is only spelt
otherwise."""

import collections

import jax

_names: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
  lambda event, seconds, **told: _names.append(told["fun_name"]) if "backend_compile" in event else None
)


def compiled() -> collections.Counter:
  """How often each program, as "jit(name)", was compiled by this process so far, or was read from jax's
  cache."""
  return collections.Counter(_names)

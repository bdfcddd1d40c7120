"""The table of verifiers. A new verifier is one file and one line here.

The file has `verify(problems, completions)` and `make_verify(policy=..., **settings)`. Nothing of it is
imported here: a verifier's module, and the libraries that it needs, are loaded by the pool's fork server
alone.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


@dataclasses.dataclass(frozen=True)
class VerifierLimits:
  """Limits of one item. Beyond them its verdict is `timeout`, and its worker is replaced."""

  # Seconds of CPU time of the worker, kept by the kernel. Programs below the worker have limits of their own.
  cpu_seconds: float
  # Seconds in which the worker neither ran nor waited for a core: it sleeps, or waits for another process.
  idle_seconds: float


class Field(NamedTuple):
  """One field of a problem that a verifier reads, and the JSON values that fit it."""

  wants: str  # the kind of value in words, for the error line
  fits: Callable[[Any], bool]
  required: bool = True


@dataclasses.dataclass(frozen=True)
class Entry:
  """One verifier."""

  module: str
  # The fields that it reads: `prompt` and `answer` are those of Problem, all others keys of its `meta`.
  reads: Mapping[str, Field]
  limits: VerifierLimits
  # Whether it runs programs in the sandbox, and bounds their CPU time itself by its setting `cpu_seconds`.
  runs_programs: bool = False


MAX_NUMBER = 10**9  # of countdown, whose parser reads nine digits
OPERATIONS = ("+", "-", "*", "/")  # of countdown


def _is_text(value: Any) -> bool:
  return isinstance(value, str)


def _is_object(value: Any) -> bool:
  return isinstance(value, dict)


def _is_test(value: Any) -> bool:
  return isinstance(value, str | dict)


def _is_list(value: Any, fits: Callable[[Any], bool]) -> bool:
  return isinstance(value, list) and bool(value) and all(map(fits, value))


def _is_int(value: Any, low: int) -> bool:
  return type(value) is int and low <= value < MAX_NUMBER


TEXT = Field("a string", _is_text)
ANY_TEXT = TEXT._replace(required=False)
ANSWER = Field("a string or a number", lambda value: type(value) in (str, int, float))
NAME = Field("a string or null", lambda value: value is None or _is_text(value), required=False)
OBJECT = Field("an object", _is_object)
TESTS = Field(
  "a string, or a list of strings or objects", lambda value: _is_text(value) or _is_list(value, _is_test)
)
TEXTS = Field("a list of strings", lambda value: _is_list(value, _is_text))
OBJECTS = Field("a list of objects", lambda value: _is_list(value, _is_object))
NUMBERS = Field(
  "a list of integers from 0 to 999999999", lambda value: _is_list(value, lambda n: _is_int(n, 0))
)
TARGET = Field("an integer of at most nine digits", lambda value: _is_int(value, 1 - MAX_NUMBER))
SIGNS = Field(
  "a list of + - * /", lambda value: _is_list(value, lambda sign: sign in OPERATIONS), required=False
)

# Every reader of this table follows it: the pool, `o1jax verify`, the tasks.
CATALOG: dict[str, Entry] = {
  "math": Entry("o1jax.verifiers.math.verify", {"answer": ANSWER}, VerifierLimits(5.0, 50.0)),
  "gsm8k": Entry("o1jax.verifiers.gsm8k", {"answer": ANSWER}, VerifierLimits(2.0, 20.0)),
  "code": Entry(
    "o1jax.verifiers.code",
    {"tests": TESTS, "prompt": ANY_TEXT, "entry_point": NAME, "fn_name": NAME, "test_setup": ANY_TEXT},
    # Beyond the sandbox's own, smaller limits: for the case that it fails to keep them.
    VerifierLimits(60.0, 600.0),
    runs_programs=True,
  ),
  "constraints": Entry(
    "o1jax.verifiers.ifeval.constraints",
    {"prompt": TEXT, "instruction_id_list": TEXTS, "kwargs": OBJECTS},
    VerifierLimits(10.0, 100.0),
  ),
  "countdown": Entry(
    "o1jax.verifiers.countdown",
    {"numbers": NUMBERS, "target": TARGET, "operations": SIGNS},
    VerifierLimits(2.0, 20.0),
  ),
  "gym": Entry("o1jax.verifiers.gym", {"dataset": TEXT, "entry": OBJECT}, VerifierLimits(10.0, 100.0)),
}

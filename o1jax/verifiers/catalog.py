"""The verifiers by name: where each lives, what it reads of a problem, and its limits.

Nothing here is imported: a verifier's module, and the libraries it needs, are loaded by the pool's fork server alone.
"""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class VerifierLimits:
  """What one item may use. Verdicts beyond are `timeout`, and the item's worker is replaced."""

  # Seconds of CPU time of the worker, kept by the kernel. Programs below the worker have limits of their own.
  cpu_seconds: float
  # Seconds in which the worker neither ran nor waited for a core: it sleeps, or waits for another process.
  idle_seconds: float


@dataclasses.dataclass(frozen=True)
class Entry:
  """One verifier."""

  module: str  # has verify(problems, completions), and make_verify(**settings) with `policy` among them
  # What it reads of a problem: `prompt` and `answer` are fields of it, all others keys of `meta`, which may be absent.
  reads: tuple[str, ...]
  limits: VerifierLimits


CATALOG: Mapping[str, Entry] = {
  "math": Entry("o1jax.verifiers.math.verify", ("answer",), VerifierLimits(5.0, 50.0)),
  "gsm8k": Entry("o1jax.verifiers.gsm8k", ("answer",), VerifierLimits(2.0, 20.0)),
  # The sandbox keeps its own, smaller limits: these are for the case that it fails to.
  "code": Entry(
    "o1jax.verifiers.code",
    ("prompt", "tests", "test_setup", "entry_point", "fn_name"),
    VerifierLimits(60.0, 600.0),
  ),
  "constraints": Entry(
    "o1jax.verifiers.ifeval.constraints",
    ("prompt", "instruction_id_list", "kwargs"),
    VerifierLimits(10.0, 100.0),
  ),
  "countdown": Entry(
    "o1jax.verifiers.countdown", ("numbers", "target", "operations"), VerifierLimits(2.0, 20.0)
  ),
  "gym": Entry("o1jax.verifiers.gym", ("dataset", "entry"), VerifierLimits(10.0, 100.0)),
}

"""Options of `o1jax verify`, and what of them its verifier and its pool are made with."""

import dataclasses
import inspect
import math
from collections.abc import Hashable
from typing import TYPE_CHECKING, Literal

from o1jax.config import require
from o1jax.verifiers import completion
from o1jax.verifiers.catalog import CATALOG, VerifierLimits
from o1jax.verifiers.completion import Policy

if TYPE_CHECKING:
  VerifierName = str
else:
  VerifierName = Literal[tuple(CATALOG)]

IDLE_FACTOR = 10  # the idle limit as a multiple of the CPU limit
MAX_CPU_SECONDS = 86_400


@dataclasses.dataclass(frozen=True)
class VerifyOptions:
  """Grade the completions of a JSONL file: `o1jax verify --verifier gsm8k < in.jsonl > out.jsonl`.

  A line holds `id`, `completion` and what the verifier reads: `answer` (math, gsm8k); `tests`, perhaps
  `fn_name`, `entry_point`, `prompt` (code); `instruction_id_list`, `kwargs`, `prompt` (constraints);
  `numbers`, `target`, perhaps `operations` (countdown); `dataset`, `entry` (gym). Out comes `id`, `reward`,
  `correct`, `parsed`, `error` and `seconds`: CPU time of the worker that graded it, the first time where an
  equal line came before. Standard error tells at the end how many are correct and how many unparsable. Exit
  code 2 where a line could not be graded.
  """

  verifier: VerifierName
  workers: int = 0  # processes; 0: one for each core
  cpu_limit: float | None = None  # seconds of CPU time an item; None: the verifier's own
  policy: Policy = "strict"  # how a completion is read: the table above says what each does
  reading: Literal["strict", "loose"] | None = None  # of constraints; None: strict
  # Of math: how a final answer may be marked, the first that finds one; None: all, in this order.
  extractors: tuple[Literal["boxed", "hashes", "phrase", "expression"], ...] | None = None
  block: Literal["last", "first"] | None = None  # of code: which block is the program; None: last
  allow_unsandboxed_code: bool = False  # of code: run programs even where the kernel cannot contain them
  progress: bool = False  # show a progress bar on standard error even where that is no terminal


ABOUT = f"{inspect.getdoc(VerifyOptions)}\n\n{completion.__doc__}"

# The options that are settings of one verifier, and whose they are; `policy` is one of all.
SETTINGS = {"reading": "constraints", "extractors": "math", "block": "code", "allow_unsandboxed_code": "code"}


def check_options(options: VerifyOptions) -> None:
  """Raises ConfigError naming an option that cannot work, or that the verifier does not read."""
  possible = options.cpu_limit is None or 0 < options.cpu_limit < MAX_CPU_SECONDS
  require(options.workers >= 0, "--workers", "must not be negative; 0 is one for each core")
  require(possible, "--cpu_limit", f"must lie between 0 and {MAX_CPU_SECONDS}")
  for option, verifier in SETTINGS.items():
    foreign = vars(options)[option] and options.verifier != verifier
    require(not foreign, f"--{option}", f"is an option of {verifier}; {options.verifier} does not read it")
  require(options.extractors != (), "--extractors", "is empty")


def verifier_settings(options: VerifyOptions) -> dict[str, Hashable]:
  """The arguments of the verifier's `make_verify`: the options that are not as by default."""
  settings = {option: vars(options)[option] for option in SETTINGS if vars(options)[option]}
  if options.policy != "strict":
    settings["policy"] = options.policy
  if options.cpu_limit is not None and CATALOG[options.verifier].runs_programs:
    settings["cpu_seconds"] = math.ceil(options.cpu_limit)
  return settings


def pool_limits(options: VerifyOptions) -> dict[str, VerifierLimits]:
  """The pool's limits by `--cpu_limit`; above it where the sandbox keeps the limit itself."""
  if options.cpu_limit is None:
    return {}
  entry, cpu = CATALOG[options.verifier], options.cpu_limit
  limits = VerifierLimits(cpu, IDLE_FACTOR * cpu)
  if entry.runs_programs:
    cpu_seconds = max(entry.limits.cpu_seconds, IDLE_FACTOR * cpu)
    limits = VerifierLimits(cpu_seconds, max(entry.limits.idle_seconds, IDLE_FACTOR**2 * cpu))
  return {options.verifier: limits}

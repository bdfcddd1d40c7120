"""A worker process of the pool: reads an item, grades it within its limits, writes the reply.

    item -> CPU timer on -> verify([problem], [completion]) -> timer off -> verdict | problem's fault | crash

The CPU limit is the kernel's ITIMER_PROF with SIGPROF at its default action: the process ends when its CPU
time is used up, in C code too and whatever else the machine does. The pool reads that off its exit status.
"""

import atexit
import importlib
import io
import json
import math
import os
import pickle
import resource
import signal
import socket
import time
from typing import Any

from o1jax.verifiers.base import Problem, Verdict, Verify
from o1jax.verifiers.pool.framing import frame, read_message
from o1jax.verifiers.sandbox import kernel

# The first word of a reply.
READY, VERDICT, FAULT, CRASHED = "ready", "verdict", "fault", "crashed"
NO_ID = ""  # of every problem here: a verdict does not depend on it, and the pool knows which problem it is
PROBLEM_FAULT = f"problem {NO_ID}: "  # how a ValueError about the problem begins
MAX_MESSAGE = 500  # characters of an exception's text


def run(sock: socket.socket, memory_bytes: int) -> None:
  """Grades what arrives until the stream ends, in `memory_bytes` of address space or the caller's limit."""
  signal.signal(signal.SIGPROF, signal.SIG_DFL)
  kernel.limit(resource.RLIMIT_CORE, 0)
  kernel.limit(resource.RLIMIT_AS, memory_bytes)
  verifies: dict[tuple, Verify] = {}
  sock.sendall(_encoded([READY, os.getpid()]))
  while (message := read_message(sock)) is not None:
    stream = io.BytesIO(message)
    module, settings, cpu_seconds = pickle.load(stream)
    fields, completion = pickle.load(stream)
    try:
      if (module, settings) not in verifies:
        verifies[module, settings] = _make(module, settings)
    except Exception as error:
      reply = [FAULT, f"the verifier cannot be made with {dict(settings)}: {_text(error)}", 0.0]
    else:
      reply = _grade(verifies[module, settings], _problem(fields), completion, cpu_seconds)
    sock.sendall(_encoded(reply))
  atexit._run_exitfuncs()  # what verifiers registered: the process ends without any other clean-up


def _encoded(reply: list[Any]) -> bytes:
  """A reply as a message, with the CPU seconds and the greatest resident KiB that the process has used.

  JSON, since the pool must not unpickle what a process says that reads hostile text.
  """
  used = [time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]
  return frame(json.dumps(reply + used).encode())


def _make(module: str, settings: tuple[tuple[str, Any], ...]) -> Verify:
  """The verifier of a module, or the one that it makes of settings."""
  verifier = importlib.import_module(module)
  return verifier.make_verify(**dict(settings)) if settings else verifier.verify


def _problem(fields: tuple[tuple[str, Any], ...]) -> Problem:
  """The problem as far as its verifier reads it."""
  meta = dict(fields)
  prompt, answer = meta.pop("prompt", ""), meta.pop("answer", "")
  return Problem(NO_ID, prompt, answer, "", meta)


def _grade(verify: Verify, problem: Problem, completion: str, cpu_seconds: float) -> list[Any]:
  """[VERDICT, reward, correct, parsed, error, seconds], or [FAULT or CRASHED, text, seconds]."""
  signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
  began = time.process_time()
  reply = _reply(verify, problem, completion)
  reply.append(time.process_time() - began)
  signal.setitimer(signal.ITIMER_PROF, 0)
  return reply


def _reply(verify: Verify, problem: Problem, completion: str) -> list[Any]:
  """The reply of `_grade` without the seconds.

  A ValueError is about the problem where it says so, as the contract has it. Any other may be the
  completion's doing, as with a lone surrogate, and is a crash like all exceptions, lest a completion could
  end a run.
  """
  try:
    return _checked(verify([problem], [completion]))
  except ValueError as error:
    message = str(error)
    if message.startswith(PROBLEM_FAULT):
      return [FAULT, message.removeprefix(PROBLEM_FAULT)[:MAX_MESSAGE]]
    return [CRASHED, _text(error)]
  except BaseException as error:  # SystemExit too: the process is the pool's to end
    return [CRASHED, _text(error)]


def _checked(verdicts: list[Verdict]) -> list[Any]:
  """The one verdict as plain values. Raises TypeError where it breaks the contract of `base`."""
  [verdict] = verdicts
  kinds = (verdict.parsed, verdict.error)
  if not math.isfinite(verdict.reward) or not all(isinstance(kind, str | None) for kind in kinds):
    raise TypeError(f"{verdict} is no verdict")
  return [VERDICT, float(verdict.reward), bool(verdict.correct), *kinds]


def _text(error: BaseException) -> str:
  return f"{type(error).__name__}: {error}"[:MAX_MESSAGE]

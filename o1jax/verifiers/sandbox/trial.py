"""The judgement of one item, in the tester: its tests against a program.

    functions: the tests run here, with the helpers that the prompt defines; what they name and nobody here defines
               are proxies, whose calls the program answers
    scripts:   for each test a fresh process; its standard output is compared line by line, or by tokens

A test that fails is `wrong`; one that fails since an object stays with the program, which the test's own code cannot
look into, is `policy`: it cannot be put to a process, whoever wrote the program. For the rest see `program`.
"""

import ast
import fcntl
import importlib
import math
import os
import random
import re
import socket
import time
import types
import warnings
from decimal import Decimal
from typing import Any

from o1jax.verifiers.sandbox.program import Ended, Program
from o1jax.verifiers.sandbox.remote import Remote

_SEALED = 0x0F  # a memfd that neither grows, shrinks, nor takes writes or further seals
_ADD_SEALS = 1033  # fcntl, since Python's module names it from 3.13 only
_CHUNK = 1 << 16  # bytes read at once
_NUMBER = re.compile(rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,4})?")
_NEAR = Decimal("1e-6")


class BrokenTests(Exception):
  """The problem's own text is at fault: no program can be judged by it."""


def judge(order: dict[str, Any], zygote: socket.socket) -> dict[str, Any]:
  """{"error", "taken"}: the verdict's error, None where every test passes, and which candidate it is about.

  Raises BrokenTests and BrokenSandbox.
  """
  random.seed(0)  # tests that draw without a seed draw the same each time
  warnings.filterwarnings("ignore", "coroutine", RuntimeWarning)  # that a test does not await one is no news
  judged = _judge_scripts if order["scripts"] is not None else _judge_functions
  error, taken = judged(order, zygote)
  return {"error": error, "taken": taken}


def _judge_functions(order: dict[str, Any], zygote: socket.socket) -> tuple[str | None, int]:
  null = os.open(os.devnull, os.O_RDWR)
  program = Program(zygote, order["limits"], null, os.dup(null))
  try:
    error = _tried(order, program)
  finally:
    program.finish()
  if error is None and program.calls == 0:  # as where they only define functions: anything would pass
    raise BrokenTests("they call nothing of the program")
  return error, program.taken


def _tried(order: dict[str, Any], program: Program) -> str | None:
  """What is wrong with a program by tests that run here. Raises BrokenTests."""
  try:
    code, namespace = _prepared(order, program)
    program.load(order, script=False)
    exec(code, namespace)
    if order["check"] and program.calls == 0:  # else the tests have called it themselves
      namespace["check"](Remote(program, order["entry_point"]))
  except (Ended, BrokenTests):
    if program.error is None:
      raise
  except MemoryError:  # the answers together are too large for the tester
    return "crashed"
  except AssertionError:
    asks_class = program.objects and "type" in _names(code)
    return program.error or ("policy" if asks_class else "wrong")
  except (Exception, SystemExit) as error:
    if program.calls == 0:
      raise BrokenTests(f"{type(error).__name__}: {error}") from error
    return program.error or ("policy" if _is_ours(error, program) else "wrong")
  return program.error


def _is_ours(error: BaseException, program: Program) -> bool:
  """Whether an exception may come of what stands for an object, which the program's own would not have raised."""
  if isinstance(error, TypeError) and "catching classes" in str(
    error
  ):  # an exception's class of the program's
    return True
  return bool(program.objects) and error is not program.raised


def _names(code: types.CodeType) -> set[str]:
  """Names that code reads, with that of its functions."""
  inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
  return set(code.co_names).union(*map(_names, inner))


def _prepared(order: dict[str, Any], program: Program) -> tuple[types.CodeType, dict[str, Any]]:
  """The tests, and all that they name. Raises BrokenTests where they are no tests."""
  namespace: dict[str, Any] = {"__name__": "tests"}
  try:
    for source in order["helpers"]:
      exec(_definitions(source), namespace)
    namespace.update((name, importlib.import_module(name)) for name in order["modules"])
    code = compile(order["tests"], "<tests>", "exec")
  except Exception as error:
    raise BrokenTests(f"{type(error).__name__}: {error}") from error
  for name in {*order["names"]}.difference(namespace):
    namespace[name] = Remote(program, name)
  if (target := order["entry_point"]) is not None:
    namespace[target.rpartition(".")[2]] = Remote(program, target)
  return code, namespace


def _definitions(source: str) -> Any:
  """What a prompt defines: its imports, functions, classes and constants."""
  kept = (
    ast.Import,
    ast.ImportFrom,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Assign,
    ast.AnnAssign,
  )
  body: list[ast.stmt] = [node for node in ast.parse(source).body if isinstance(node, kept)]
  return compile(ast.Module(body, []), "<prompt>", "exec")


def _judge_scripts(order: dict[str, Any], zygote: socket.socket) -> tuple[str | None, int]:
  """Each test is {"input", "output"}. The limits of CPU and elapsed time are those of all tests together."""
  limits = order["limits"]
  cpu, began, taken = 0.0, time.monotonic(), 0
  for test in order["scripts"]:
    left = limits["wall_seconds"] - (time.monotonic() - began)
    if cpu >= limits["cpu_seconds"] or left <= 0:
      return "timeout", taken
    # The kernel counts whole seconds; what a program takes beyond the rest of its budget is seen at the next test.
    budget = {"cpu_seconds": math.ceil(limits["cpu_seconds"] - cpu), "wall_seconds": left}
    error, used, taken = _run_script(order, test, {**limits, **budget}, zygote)
    cpu += used
    if error is not None:
      return error, taken
  return "timeout" if cpu > limits["cpu_seconds"] else None, taken


def _run_script(
  order: dict[str, Any], test: dict[str, str], limits: dict[str, Any], zygote: socket.socket
) -> tuple[str | None, float, int]:
  """(what is wrong with the program on one test, seconds of CPU time, the candidate that it is)."""
  read, write = os.pipe()
  program = Program(zygote, limits, _sealed(test["input"]), write)
  try:
    program.load(order, script=True)
    wanted = test["output"].encode("utf-8", "surrogateescape")
    printed = _read_to_end(read, limits["output_bytes"])
    error = "crashed" if printed is None else program.exit_error()
    if error is None and not (same_tokens if order["tokens"] else same_lines)(printed or b"", wanted):
      error = "wrong"
  except Ended:
    error = program.error
  finally:
    os.close(read)
    used = program.finish()["cpu"]
  return error, used, program.taken


def _sealed(text: str) -> int:
  """A file in memory that holds a script's input and that the script cannot change."""
  descriptor = os.memfd_create("input", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
  with open(descriptor, "wb", closefd=False) as file:
    file.write(text.encode("utf-8", "surrogateescape"))
  os.lseek(descriptor, 0, os.SEEK_SET)
  fcntl.fcntl(descriptor, _ADD_SEALS, _SEALED)
  return descriptor


def _read_to_end(descriptor: int, limit: int) -> bytes | None:
  """All that a script prints; None where it is more than `limit` bytes."""
  parts, size = [], 0
  while part := os.read(descriptor, _CHUNK):
    parts.append(part)
    size += len(part)
    if size > limit:
      return None
  return b"".join(parts)


def same_lines(printed: bytes, wanted: bytes) -> bool:
  """Whether lines are the same without the whitespace at their ends, and without empty lines at the end."""
  return _lines(printed) == _lines(wanted)


def same_tokens(printed: bytes, wanted: bytes) -> bool:
  """Whether what stands between whitespace is the same, as contest judges compare.

  Where a number with a point or an exponent is wanted, any number within 1e-6 of it is, relative or absolute; where an
  integer is, one with a point that is within 1e-6 of it.
  """
  got, gold = printed.split(), wanted.split()
  return len(got) == len(gold) and all(map(_same_token, got, gold))


def _same_token(got: bytes, gold: bytes) -> bool:
  if got == gold:
    return True
  if not _NUMBER.fullmatch(got) or not _NUMBER.fullmatch(gold):
    return False
  if got.lstrip(b"+-").isdigit() and gold.lstrip(b"+-").isdigit():  # leading zeros may be digits of a text
    return False
  value, wanted = Decimal(got.decode()), Decimal(gold.decode())
  near = _NEAR if gold.lstrip(b"+-").isdigit() else _NEAR * max(Decimal(1), abs(wanted))
  return abs(value - wanted) <= near


def _lines(text: bytes) -> list[bytes]:
  return [line.rstrip() for line in text.rstrip().split(b"\n")]

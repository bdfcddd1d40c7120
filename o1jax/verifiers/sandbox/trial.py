"""The judgement of one item, in the tester: its tests against a program.

    functions: the tests run here, with the helpers that the prompt defines; what they name and nobody here
               defines are proxies, whose calls the program answers
    scripts:   for each test a fresh process; its standard output is compared line by line, or by tokens

A test that fails is `wrong`; one that fails since an object stays with the program, which the test's own code
cannot look into, is `policy`: it cannot be put to a process, whoever wrote the program. For the rest see
`program`.
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

from o1jax.verifiers.sandbox.program import CandidateProcess, Ended
from o1jax.verifiers.sandbox.remote import Remote

_SEALED = 0x0F  # a memfd that neither grows, shrinks, nor takes writes or further seals
_ADD_SEALS = 1033  # fcntl, since Python's module names it from 3.13 only
_CHUNK = 1 << 16  # bytes read at once
_NUMBER = re.compile(rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,4})?")
_NEAR = Decimal("1e-6")


class BrokenTests(Exception):
  """The problem's own text is at fault: no program can be judged by it."""


def judge(order: dict[str, Any], zygote: socket.socket) -> dict[str, Any]:
  """{"error", "chosen"}: None or the error, and of which candidate. Raises BrokenTests and BrokenSandbox."""
  random.seed(0)  # tests that draw without a seed draw the same each time
  warnings.filterwarnings("ignore", "coroutine", RuntimeWarning)  # that a test does not await one is no news
  judge_tests = _judge_functions if order["scripts"] is None else _judge_scripts
  error, chosen = judge_tests(order, zygote)
  return {"error": error, "chosen": chosen}


def _judge_functions(order: dict[str, Any], zygote: socket.socket) -> tuple[str | None, int]:
  null = os.open(os.devnull, os.O_RDWR)
  program = CandidateProcess(zygote, order["limits"], null, os.dup(null))
  try:
    error = _tried(order, program)
  finally:
    program.finish()
  if error is None and program.calls == 0:  # as where they only define functions: anything would pass
    raise BrokenTests("they call nothing of the program")
  return error, program.chosen


def _tried(order: dict[str, Any], program: CandidateProcess) -> str | None:
  """The error of a program by tests that run here, or None. Raises BrokenTests."""
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


def _is_ours(error: BaseException, program: CandidateProcess) -> bool:
  """Whether an exception may come of a stand-in, where the program's own object would not have raised it."""
  if isinstance(error, TypeError) and "catching classes" in str(error):  # an exception class of the program's
    return True
  return bool(program.objects) and error is not program.raised


def _names(code: types.CodeType) -> set[str]:
  """Names that code reads, with that of its functions."""
  inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
  return set(code.co_names).union(*map(_names, inner))


def _prepared(order: dict[str, Any], program: CandidateProcess) -> tuple[types.CodeType, dict[str, Any]]:
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
  functions = ast.FunctionDef | ast.AsyncFunctionDef
  kinds = ast.Import | ast.ImportFrom | functions | ast.ClassDef | ast.Assign | ast.AnnAssign
  body: list[ast.stmt] = [node for node in ast.parse(source).body if isinstance(node, kinds)]
  return compile(ast.Module(body, []), "<prompt>", "exec")


def _judge_scripts(order: dict[str, Any], zygote: socket.socket) -> tuple[str | None, int]:
  """Each test is {"input", "output"}. The limits of CPU and elapsed time are those of all tests together."""
  limits = order["limits"]
  cpu, began, chosen = 0.0, time.monotonic(), 0
  for test in order["scripts"]:
    left = limits["wall_seconds"] - (time.monotonic() - began)
    if cpu >= limits["cpu_seconds"] or left <= 0:
      return "timeout", chosen
    # The kernel counts full seconds; what a program takes beyond the rest of its budget counts at the next
    # test.
    budget = {"cpu_seconds": math.ceil(limits["cpu_seconds"] - cpu), "wall_seconds": left}
    error, used, chosen = _run_script(order, test, {**limits, **budget}, zygote)
    cpu += used
    if error is not None:
      return error, chosen
  return "timeout" if cpu > limits["cpu_seconds"] else None, chosen


def _run_script(
  order: dict[str, Any], test: dict[str, str], limits: dict[str, Any], zygote: socket.socket
) -> tuple[str | None, float, int]:
  """(what is wrong with the program on one test, seconds of CPU time, the candidate that it is)."""
  read, write = os.pipe()
  program = CandidateProcess(zygote, limits, _sealed(test["input"]), write)
  try:
    program.load(order, script=True)
    expected = test["output"].encode("utf-8", "surrogateescape")
    same = same_tokens if order["tokens"] else same_lines
    printed = _read_to_end(read, limits["output_bytes"])
    error = "crashed" if printed is None else program.exit_error()
    if error is None and not same(printed or b"", expected):
      error = "wrong"
  except Ended:
    error = program.error
  finally:
    os.close(read)
    used = program.finish()["cpu"]
  return error, used, program.chosen


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


def same_lines(printed: bytes, expected: bytes) -> bool:
  """Whether lines are the same without the whitespace at their ends, and without empty lines at the end."""
  return _lines(printed) == _lines(expected)


def same_tokens(printed: bytes, expected: bytes) -> bool:
  """Whether what stands between whitespace is the same, as contest judges compare.

  Where a number with a point or an exponent is expected, any number within 1e-6 of it is, relative or
  absolute; where an integer is, one with a point that is within 1e-6 of it.
  """
  tokens, gold = printed.split(), expected.split()
  return len(tokens) == len(gold) and all(map(_same_token, tokens, gold))


def _same_token(token: bytes, gold: bytes) -> bool:
  if token == gold:
    return True
  if not _NUMBER.fullmatch(token) or not _NUMBER.fullmatch(gold):
    return False
  is_integer = gold.lstrip(b"+-").isdigit()
  if is_integer and token.lstrip(b"+-").isdigit():  # leading zeros may be digits of a text
    return False
  value, target = Decimal(token.decode()), Decimal(gold.decode())
  return abs(value - target) <= (_NEAR if is_integer else _NEAR * max(Decimal(1), abs(target)))


def _lines(text: bytes) -> list[bytes]:
  return [line.rstrip() for line in text.rstrip().split(b"\n")]

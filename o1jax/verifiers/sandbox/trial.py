"""The judgement of one item, in the tester: its tests against a program.

    functions: the tests run here, with the helpers that the prompt defines; what they name and nobody here defines
               are proxies, whose calls the program answers
    scripts:   for each test a fresh process; its standard output is compared line by line

A test that fails, and an answer that is no literal, are `wrong`. A test that passes on what is no literal is `policy`:
it cannot be put to a process, whoever wrote the program. For the rest see `program`.
"""

import ast
import fcntl
import importlib
import math
import os
import random
import socket
import time
import types
from collections.abc import Callable
from typing import Any

from o1jax.verifiers.sandbox.program import Ended, Program

_SEALED = 0x0F  # a memfd that neither grows, shrinks, nor takes writes or further seals
_ADD_SEALS = 1033  # fcntl, since Python's module names it from 3.13 only
_CHUNK = 1 << 16  # bytes read at once


class BrokenTests(Exception):
  """The problem's own text is at fault: no program can be judged by it."""


def judge(order: dict[str, Any], zygote: socket.socket) -> str | None:
  """The verdict's error, None where every test passes. Raises BrokenTests and BrokenSandbox."""
  random.seed(0)  # tests that draw without a seed draw the same each time
  return (_judge_scripts if order["scripts"] is not None else _judge_functions)(order, zygote)


def _judge_functions(order: dict[str, Any], zygote: socket.socket) -> str | None:
  null = os.open(os.devnull, os.O_RDWR)
  program = Program(zygote, order["limits"], null, os.dup(null))
  try:
    code, namespace = _prepared(order, program)
    program.load(order["alternatives"], order["entry_point"], script=False)
    exec(code, namespace)
    if order["check"] and program.calls == 0:  # else the tests have called it themselves
      namespace["check"](_proxy(program, order["entry_point"]))
  except (Ended, BrokenTests):
    if program.error is None:
      raise
  except MemoryError:  # the answers together are too large for the tester
    return "crashed"
  except AssertionError:
    return program.error or "wrong"
  except (Exception, SystemExit) as error:
    if program.calls == 0:
      raise BrokenTests(f"{type(error).__name__}: {error}") from error
    return program.error or "wrong"
  finally:
    program.finish()
  if program.error is None and program.calls == 0:  # as where they only define functions: anything would pass
    raise BrokenTests("they call nothing of the program")
  return program.error or ("wrong" if program.answered_no_literal else None)


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
  target = order["entry_point"]
  for name in {*order["names"]}.difference(namespace).union([] if target is None else [target]):
    namespace[name] = _proxy(program, name)
  return code, namespace


def _proxy(program: Program, name: str | None) -> Callable[..., Any]:
  def proxy(*args: Any, **kwargs: Any) -> Any:
    return program.call(name, args, kwargs)

  proxy.__name__ = name or "candidate"
  return proxy


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


def _judge_scripts(order: dict[str, Any], zygote: socket.socket) -> str | None:
  """Each test is {"input", "output"}. The limits of CPU and elapsed time are those of all tests together."""
  limits = order["limits"]
  cpu, began = 0.0, time.monotonic()
  for test in order["scripts"]:
    left = limits["wall_seconds"] - (time.monotonic() - began)
    if cpu >= limits["cpu_seconds"] or left <= 0:
      return "timeout"
    # The kernel counts whole seconds; what a program takes beyond the rest of its budget is seen at the next test.
    budget = {"cpu_seconds": math.ceil(limits["cpu_seconds"] - cpu), "wall_seconds": left}
    error, used = _run_script(order, test, {**limits, **budget}, zygote)
    cpu += used
    if error is not None:
      return error
  return "timeout" if cpu > limits["cpu_seconds"] else None


def _run_script(
  order: dict[str, Any], test: dict[str, str], limits: dict[str, Any], zygote: socket.socket
) -> tuple[str | None, float]:
  """(what is wrong with the program on one test, seconds of CPU time)."""
  read, write = os.pipe()
  program = Program(zygote, limits, _sealed(test["input"]), write)
  try:
    program.load(order["alternatives"], None, script=True)
    wanted = _lines(test["output"].encode("utf-8", "surrogateescape"))
    printed = _read_to_end(read, limits["output_bytes"])
    error = "crashed" if printed is None else program.exit_error()
    if error is None and _lines(printed or b"") != wanted:
      error = "wrong"
  except Ended:
    error = program.error
  finally:
    os.close(read)
    used = program.finish()["cpu"]
  return error, used


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


def _lines(text: bytes) -> list[bytes]:
  """Lines without the whitespace at their ends, and without empty lines at the end."""
  return [line.rstrip() for line in text.rstrip().split(b"\n")]

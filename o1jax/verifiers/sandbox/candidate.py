"""A candidate's process, once it is locked down: the candidate's program, and nothing that judges it.

    {"candidates", "targets", "solution", "script"} -> {"state": "ready" | "unparsable", "chosen"}
    script:     the program runs as __main__ over its standard input and output, and the process ends with it
    otherwise:  it is loaded -> {"state": "loaded" | "failed"}, then {"call"} -> {"value" | "raise" | ...}

All that is said here can be forged by the program once it runs. It gains nothing: an answer is a value or the
name of an exception, and the tester, which knows what is right, compares.
"""

import atexit
import gc
import io
import os
import random
import re
import symtable
import sys
import threading
import types
from collections.abc import Sequence
from typing import Any, NoReturn

from o1jax.verifiers.sandbox import devices, frames
from o1jax.verifiers.sandbox.served import MODULE, Served, describe_error

REQUESTS, REPLIES = 3, 4  # file descriptors
FILE = "<program>"  # the program's name in its own tracebacks
_NO_PROGRAM = (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError)
_RETURNS = re.compile(r"\b(?:return|yield|raise)\b")
_ACTS = re.compile(r"\w\s*\(|\bimport\b")


def run(message_bytes: int) -> NoReturn:
  """Does what the tester asks, and ends the process. A message has at most `message_bytes`."""
  gc.enable()
  random.seed(0)  # programs that draw without a seed draw the same each time
  order = frames.read(REQUESTS)
  if order is None:
    os._exit(0)
  codes, chosen = _choose(order)
  frames.write(REPLIES, {"state": "ready" if codes else "unparsable", "chosen": chosen})
  if not codes:
    os._exit(0)
  devices.install()
  if order["script"]:
    _run_script(codes)
  module = types.ModuleType(MODULE)
  sys.modules["__main__"] = sys.modules[MODULE] = module
  _serve(codes, module, order, message_bytes)


def _choose(order: dict[str, Any]) -> tuple[list[types.CodeType], int]:
  """Code objects of the sources to run in order, and of which candidate; none where none compiles.

  First comes what defines one of the target names, then a body that returns, then another, then what compiles
  otherwise; of equals the first. What stands behind a sealed candidate that does not compile does not count.
  """
  if len(order["candidates"]) == 1 and len(order["candidates"][0]["alternatives"]) == 1:
    return _compile_all(order["candidates"][0]["alternatives"][0]), 0
  best: tuple[int, list[types.CodeType], int] = (9, [], 0)
  for place, candidate in enumerate(order["candidates"]):
    standalone, *bodies = candidate["alternatives"]
    source = standalone[-1]
    ranked = [(_rank(source, order), codes, place)] if (codes := _compile_all(standalone)) else []
    if not ranked or ranked[0][0] != 0:
      codes = next(filter(None, map(_compile_all, bodies)), [])
      ranked += [(1 if _RETURNS.search(source) else 2, codes, place)] if codes else []
    best = min([best, *ranked], key=lambda choice: choice[0])
    if best[0] == 0 or candidate["sealed"] and not ranked:
      break
  return best[1], best[2]


def _rank(source: str, order: dict[str, Any]) -> int:
  """0 where a source that compiles seems to define a target, or as a script acts; else 3."""
  if order["script"]:
    return 0 if _ACTS.search(source) else 3
  return 0 if not order["targets"] or any(_binds(source, name) for name in order["targets"]) else 3


def _compile_all(sources: Sequence[str]) -> list[types.CodeType]:
  try:
    return [compile(source, FILE, "exec", dont_inherit=True) for source in sources]
  except _NO_PROGRAM:
    return []


def _binds(source: str, name: str) -> bool:
  """Whether a program that compiles binds a name at its top level."""
  try:
    symbol = symtable.symtable(source, FILE, "exec").lookup(name)
  except KeyError:
    return False
  return symbol.is_assigned() or symbol.is_imported()


def _run_script(codes: Sequence[types.CodeType]) -> NoReturn:
  """Runs the program as `python program.py` would, to the exit status."""
  os.close(REQUESTS)
  os.close(REPLIES)
  sys.argv = [""]
  given = io.TextIOWrapper(open(0, "rb", closefd=False), "utf-8")
  printed = io.TextIOWrapper(open(1, "wb", closefd=False), "utf-8")
  vars(sys).update(stdin=given, __stdin__=given, stdout=printed, __stdout__=printed)
  sys.modules["__main__"] = types.ModuleType("__main__")
  leave = os._exit  # which the program may replace
  status = _executed(codes)
  try:
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    _flush(sys.stdout)
    # Finalizers run, and files that nobody closed are written. The first collection is as an interpreter's
    # end has it: it puts objects into an order in which the second finalizes a file before the buffer below
    # it.
    gc.collect()
    sys.modules.pop("__main__", None)
    gc.collect()
    _flush(printed)
  except BaseException:
    status = status or 120
  leave(status)


def _executed(codes: Sequence[types.CodeType]) -> int:
  """Runs code objects as __main__; the exit status that they ask for. Keeps nothing of them."""
  namespace = vars(sys.modules["__main__"])
  try:
    for code in codes:
      exec(code, namespace)
  except SystemExit as stop:
    return 0 if stop.code is None else stop.code & 0xFF if isinstance(stop.code, int) else 1
  except BaseException:
    return 1
  return 0


def _flush(file: Any) -> None:
  """Flushes a standard stream: None, or an object of the program's own, perhaps without `closed`."""
  if file is not None and not (hasattr(file, "closed") and file.closed):
    file.flush()


def _serve(
  codes: Sequence[types.CodeType], module: types.ModuleType, order: dict[str, Any], most: int
) -> NoReturn:
  """Loads the program and answers calls, in messages of at most `most` bytes.

  Whatever else is raised ends the process: what is no Exception, as it would end a program, and an answer too
  long.
  """
  namespace, read, write, leave = module.__dict__, frames.read, frames.write, os._exit
  try:
    for code in codes[:-1]:
      exec(code, namespace)
    begun = dict(namespace)
    exec(codes[-1], namespace)
  except Exception as error:
    write(REPLIES, {"state": "failed", **describe_error(error)})
    leave(1)
  for name in order["targets"]:
    # A function that the prompt begins gives way to a method of the program's class.
    if hasattr(namespace.get(order["solution"]), name) and namespace.get(name) is begun.get(name):
      namespace.pop(name, None)
  served = Served(namespace, order["solution"])
  write(REPLIES, {"state": "loaded"})
  while (call := read(REQUESTS)) is not None:
    write(REPLIES, served.answer(call), most)
  leave(0)

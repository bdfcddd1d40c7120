"""What runs in a candidate's process, once it is locked down: the candidate's program, and nothing that judges it.

    {"alternatives", "entry_point", "script"} -> {"state": "ready" | "unparsable"}
    script:     the program runs as __main__ over its standard input and output, and the process ends with it
    otherwise:  the program is loaded -> {"state": "loaded" | "failed"}, then {"call"} -> {"value" | "raise" | ...}

All that is said here can be forged by the program once it runs. It gains nothing: an answer is a value or the name of
an exception, and the tester, which knows what is right, compares.
"""

import atexit
import builtins
import gc
import io
import os
import random
import symtable
import sys
import threading
import types
from collections.abc import Sequence
from typing import Any, NoReturn

from o1jax.verifiers.sandbox import frames
from o1jax.verifiers.sandbox.literals import Decoder, Encoder, Uncrossable, derived, unchanged

REQUESTS, REPLIES = 3, 4  # file descriptors
MODULE = "solution"  # the program's __name__, where it is no script
FILE = "<program>"  # the program's name in its own tracebacks
_NO_PROGRAM = (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError)
_NOT_TOLD = (
  "AssertionError",
  "BaseExceptionGroup",
  "ExceptionGroup",
)  # an exception by its next base instead
_MAX_TEXT = 300  # characters of an exception's text


def run(message_bytes: int) -> NoReturn:
  """Does what the tester asks, and ends the process. A message has at most `message_bytes`."""
  gc.enable()
  random.seed(0)  # programs that draw without a seed draw the same each time
  order = frames.read(REQUESTS)
  if order is None:
    os._exit(0)
  codes = _compiled(order["alternatives"], order["entry_point"])
  frames.write(REPLIES, {"state": "ready" if codes else "unparsable"})
  if not codes:
    os._exit(0)
  if order["script"]:
    _run_script(codes)
  module = types.ModuleType(MODULE)
  sys.modules["__main__"] = sys.modules[MODULE] = module
  _serve(codes, module, message_bytes)


def _compiled(alternatives: Sequence[Sequence[str]], entry_point: str | None) -> list[types.CodeType]:
  """Code objects of the sources to run one after the other; none where no alternative compiles.

  The first alternative is taken where it defines the entry point; then any later one that compiles; then the first.
  """
  first, *later = alternatives
  whole = _compile_all(first)
  if whole and (not later or entry_point is None or _binds(first[-1], entry_point)):
    return whole
  for sources in later:
    if codes := _compile_all(sources):
      return codes
  return whole


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
    # Finalizers run, and files that nobody closed are written. The first collection is as an interpreter's end has it:
    # it puts objects into an order in which the second finalizes a file before the buffer below it.
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
  """Flushes what stands as a standard stream: nothing, or an object of the program's own, which may not say whether it is closed."""
  if file is not None and not getattr(file, "closed", False):
    file.flush()


def _serve(codes: Sequence[types.CodeType], module: types.ModuleType, message_bytes: int) -> NoReturn:
  """Loads the program and answers calls.

  Whatever else is raised ends the process: what is no Exception, as it would end a program, and an answer too long.
  """
  namespace, read, write, leave = module.__dict__, frames.read, frames.write, os._exit
  try:
    for code in codes:
      exec(code, namespace)
  except Exception as error:
    write(REPLIES, {"state": "failed", **_told(error)})
    leave(1)
  write(REPLIES, {"state": "loaded"})
  while (call := read(REQUESTS)) is not None:
    write(REPLIES, _answer(namespace, call), message_bytes)
  leave(0)


def _answer(namespace: dict[str, Any], call: dict[str, Any]) -> dict[str, Any]:
  """The reply to one call: what came of it, and the call's containers as they are now."""
  decoder = Decoder(call["heap"])
  arguments = decoder.values(call["args"])
  named = dict(zip(call["kwargs"], decoder.values(call["kwargs"].values())))
  try:
    value = _function(namespace, call["call"])(*arguments, **named)
  except Exception as error:
    outcome = _told(error)
    value = None
  else:
    outcome = {}
  try:
    encoder = Encoder(derived, decoder.objects, call["heap"])
    if not outcome:
      outcome = {"value": encoder.cell(value)}
    return {"id": call["id"], "heap": encoder.heap, **outcome}
  except (Uncrossable, RecursionError) as error:
    return {"id": call["id"], "heap": unchanged(call["heap"]), "uncrossable": str(error)}


def _function(namespace: dict[str, Any], name: str | None) -> Any:
  """What a call names: the last function that the program defines where it names none."""
  if name is None:
    own = [
      kept
      for kept in namespace.values()
      if isinstance(kept, types.FunctionType) and kept.__module__ == MODULE
    ]
    if not own:
      raise NameError("no function is defined")
    return own[-1]
  if name not in namespace:
    raise NameError(f"name {name!r} is not defined")
  return namespace[name]


def _told(error: Exception) -> dict[str, Any]:
  """An exception as the tester hears of it: its nearest builtin class, and its text."""
  names = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"]
  name = next(name for name in names if name not in _NOT_TOLD and hasattr(builtins, name))
  try:
    text = str(error)[:_MAX_TEXT]
  except Exception:
    text = ""
  return {"raise": name, "text": text}

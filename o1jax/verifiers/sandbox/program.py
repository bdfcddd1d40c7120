"""The tester's side of a candidate's process, which answers calls over pipes or prints.

How a program that cannot go on is judged:

    killed for a forbidden system call          policy
    CPU time or elapsed time used up            timeout
    no program: it does not compile             unparsable
    dead, out of memory, does not load, prints or answers too much, speaks no valid message    crashed

    called for what `remote` cannot know of an object that stays with it, or answers too deeply    policy

Nothing that the program says is believed beyond the value or the exception that it stands for.
"""

import builtins
import json
import os
import signal
import socket
from typing import Any

from o1jax.verifiers.sandbox import frames
from o1jax.verifiers.sandbox.literals import HeapDecoder, HeapEncoder, Uncrossable, exact
from o1jax.verifiers.sandbox.remote import Remote, address_of, awaited, carried
from o1jax.verifiers.sandbox.shapes import COROUTINE

# What a program may have raised; an AssertionError would look like a failed test.
_EXCEPTIONS: dict[str, type[Exception]] = {
  name: kind
  for name, kind in vars(builtins).items()
  if isinstance(kind, type) and issubclass(kind, Exception) and kind not in (AssertionError, ExceptionGroup)
}
# A program cannot kill itself with SIGKILL: that is the kernel's limit of CPU time, which counts in ticks and
# not as exactly as the time that is reported afterwards; or, far from the limit, a machine without memory.
NEARLY = 0.5
_MAX_SETUP = 10_000  # bytes of the message before the program has run


class Ended(BaseException):
  """The program cannot go on: `CandidateProcess.error` says why. No `except Exception` of a test stops it."""


class BrokenSandbox(BaseException):
  """The sandbox itself failed, and has to be started anew."""


class _ReportedError:
  """An exception that a program reported, as against a value."""

  def __init__(self, error: Exception):
    self.error = error


def _address(value: Any) -> list[Any]:
  address = address_of(value)
  if address is None:
    raise Uncrossable(f"a value of type {type(value).__name__}")
  return address


class CandidateProcess:
  """One process with a program. `error`, once set, stays: a test that swallows `Ended` changes nothing.

  `calls` counts those that the tests have made, `objects` holds what stands for objects that stay with the
  program, and `raised` is the last exception that it reported. `chosen` is the place of the candidate that it
  loaded.

  `limits` are those of `service.Limits` as a dict, with what is left of CPU and elapsed time.
  """

  def __init__(self, zygote: socket.socket, limits: dict[str, Any], stdin: int, stdout: int):
    self.error: str | None = None
    self.objects: dict[Any, Remote] = {}
    self.ahead: dict[Any, tuple[list[Any], int]] = {}
    self.raised: Exception | None = None
    self.chosen = 0
    self._limits = limits
    self.calls = 0
    self._status: dict[str, Any] | None = None
    requests, self._requests = os.pipe()
    self._replies, replies = os.pipe()
    control, hold = os.pipe()  # the program lives no longer than `hold` is open
    self._open = [hold, self._requests, self._replies]
    statuses, status = os.pipe()
    self._status_end: int | None = statuses
    passed = [requests, replies, stdin, stdout, control, status]
    try:
      socket.send_fds(zygote, [json.dumps(limits).encode()], passed)
    except OSError as error:
      raise BrokenSandbox(f"the zygote ended: {error}") from error
    for descriptor in passed:
      os.close(descriptor)

  def load(self, order: dict[str, Any], script: bool) -> None:
    """Sends the program, and waits until it is loaded, or compiled where it is a script. Raises Ended."""
    self._send({**{key: order[key] for key in ("candidates", "targets", "solution")}, "script": script})
    reply = self._receive(_MAX_SETUP)
    if reply.get("state") == "setup":
      raise BrokenSandbox(reply["why"])
    if reply.get("state") != "ready":
      raise self.end("unparsable")
    self.chosen = reply["chosen"]  # nothing of the program has run yet
    if not script and self._receive(_MAX_SETUP).get("state") != "loaded":
      raise self.end("crashed")

  def ask(self, op: str, on: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
    """The result of an operation on an object of the program's, or its exception.

    `on` is its number, the name of a global, or None for the last function. Lists, dicts and sets of the
    arguments are updated.
    """
    if self.error is not None:
      raise Ended
    self.calls += 1
    encoder = HeapEncoder(exact, far=_address)
    try:
      cells = [encoder.cell(value) for value in args]
      named = {key: encoder.cell(value) for key, value in (kwargs or {}).items()}
    except Uncrossable:
      raise self.end("policy") from None
    number = self.calls
    call = {"id": number, "op": op, "on": on, "args": cells, "kwargs": named, "heap": encoder.heap}
    self._send(call)
    reply = self._receive(self._limits["message_bytes"])
    try:
      if reply.get("id") != number:
        raise ValueError("an answer to another call")
      answer = self._answer(reply, HeapDecoder(reply.get("heap"), encoder.objects, far=self._far))
    except ValueError:
      raise self.end("crashed") from None
    if type(answer) is _ReportedError:
      self.raised = answer.error
      raise answer.error
    return answer

  def _answer(self, reply: dict[str, Any], decoder: HeapDecoder) -> Any:
    """The value of an answer, or the exception that it reports. Raises ValueError where it is malformed."""
    if "raise" in reply:
      return _ReportedError(self._exception(reply["raise"], reply.get("text")))
    if "uncrossable" in reply:
      raise self.end("policy")
    if "value" not in reply:
      raise ValueError("no answer")
    return decoder.value(reply["value"])

  def _far(self, address: Any, kind: Any = "", *value: Any) -> Any:
    """The stand-in for an object that stays with the program. Raises ValueError for no such address."""
    if type(address) is not int or type(kind) is not str:
      raise ValueError("no object")
    far = self.objects.setdefault(address, Remote(self, address, kind))
    if value:
      return carried(value[0], far)
    return awaited(far) if kind == COROUTINE else far

  def _exception(self, name: Any, text: Any) -> Exception:
    if type(name) is not str or name not in _EXCEPTIONS or type(text) is not str:
      raise ValueError("no exception")
    if name == "MemoryError":
      raise self.end("crashed")
    kind = _EXCEPTIONS[name]
    try:
      return kind(text)
    except TypeError:  # a UnicodeError wants five arguments
      return kind.__new__(kind)

  def _send(self, message: dict[str, Any]) -> None:
    try:
      frames.write(self._requests, message, self._limits["message_bytes"])
    except ValueError:
      raise self.end("policy") from None
    except BrokenPipeError:
      raise self.end(self._fate()) from None

  def _receive(self, limit: int) -> dict[str, Any]:
    try:
      message = frames.read(self._replies, limit)
    except ValueError:
      raise self.end("crashed") from None
    if message is None:
      raise self.end(self._fate())
    return message

  def end(self, error: str) -> Ended:
    """Ends the program; `error` is the item's, if it has none yet. What it gives is to be raised."""
    self.error = self.error or error
    self.finish()
    return Ended()

  def _fate(self) -> str:
    """The error of a program that no longer answers; one that only closed its pipes is ended."""
    status = self.finish()
    if status["signal"] == signal.SIGSYS:
      return "policy"
    killed = status["signal"] == signal.SIGKILL and status["cpu"] >= NEARLY * self._limits["cpu_seconds"]
    return "timeout" if status["late"] or killed else "crashed"

  def exit_error(self) -> str | None:
    """Waits for a script's own end: None where it exits with 0, else why not."""
    status = self._read_status()
    return None if status["signal"] == 0 and status["code"] == 0 else self._fate()

  def finish(self) -> dict[str, Any]:
    """Ends the program if it has not ended, waits until nothing is left of it, and says how it ended."""
    while self._open:
      os.close(self._open.pop())
    return self._read_status()

  def _read_status(self) -> dict[str, Any]:
    if self._status is None and self._status_end is not None:
      self._status = frames.read(self._status_end)
      os.close(self._status_end)
      self._status_end = None
    if self._status is None:
      raise BrokenSandbox("the zygote ended")
    return self._status

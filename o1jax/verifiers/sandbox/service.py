"""The sandbox's entry: `judge(order, limits, allow_unsandboxed_code)` runs one program against its tests.

The first call of a process starts its bench, which ends with the process. A bench that fails is started anew,
and the item tried again once.
"""

import atexit
import contextlib
import dataclasses
import os
import pathlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

from o1jax.verifiers.sandbox import frames
from o1jax.verifiers.sandbox.bench import start

_PACKAGE = str(pathlib.Path(__file__).parents[3])
_BENCH = "o1jax.verifiers.sandbox.bench"
ESSENTIAL = ("namespaces", "seccomp")  # layers without which no program is run

# What a sandbox is checked with as it starts: an extension module, a module that is not loaded in advance, a
# thread.
_HONEST = """
import array, colorsys, threading
def f(x):
  threading.Thread(target=print).start()
  return x + 1
"""
_FORBIDDEN = "import os\nos.fork()\n"
_CHECKED = {
  **{"entry_point": "f", "targets": ["f"], "solution": None, "helpers": [], "scripts": None},
  **{"tests": "assert f(1) == 2", "check": False, "names": ["f"], "modules": []},
}


class SandboxError(RuntimeError):
  """This machine cannot run programs safely, or the sandbox failed twice."""


@dataclasses.dataclass(frozen=True)
class Limits:
  """Limits of one item's programs, kept by the kernel but for `output_bytes` and `message_bytes`."""

  cpu_seconds: int = 5  # CPU time of all tests of an item; the tests themselves may use as much again
  wall_seconds: float = 50.0  # elapsed time of the same; only to end programs that sleep, hence far above
  memory_bytes: int = 512 << 20  # address space of a program
  stack_bytes: int = 64 << 20  # of its main thread
  file_bytes: int = 16 << 20  # all its files together; they live in memory
  files: int = 256  # files and directories
  open_files: int = 64
  threads: int = 32
  output_bytes: int = 4 << 20  # of standard output, a run
  message_bytes: int = 16 << 20  # arguments or results of one call, as JSON

  def __post_init__(self) -> None:
    for name, value in vars(self).items():
      kinds = (int, float) if name == "wall_seconds" else (int,)
      if type(value) not in kinds or not 0 < value < float("inf"):
        raise ValueError(f"Limits.{name}: must be a positive number, is {value!r}")


class Bench:
  """A bench of this process. Its methods may be called from any thread; one item runs at a time."""

  def __init__(self, allow_unsandboxed_code: bool):
    self._allowed = allow_unsandboxed_code
    self._lock = threading.Lock()
    self._process: subprocess.Popen[bytes] | None = None
    self._socket: socket.socket | None = None
    self._over = False
    self.report: dict[str, Any] = {}

  def ask(self, order: dict[str, Any]) -> dict[str, Any]:
    """The answer to one order. Raises SandboxError."""
    with self._closed_if_cut_off():
      for _ in range(2):
        answer = self._ask(order)
        if "broken_sandbox" not in answer:
          return answer
        self._close()
        if self._over:
          raise SandboxError("this process is ending")
      raise SandboxError(f"the code sandbox failed twice: {answer['broken_sandbox']}")

  def layers(self) -> dict[str, Any]:
    """The zygote's report of its layers; starts it if need be. Raises SandboxError."""
    with self._closed_if_cut_off():
      self._open()
      return self.report

  @contextlib.contextmanager
  def _closed_if_cut_off(self) -> Iterator[None]:
    """The bench for one thread at a time; closed where an exception, as KeyboardInterrupt, ends an exchange.

    Its answer would else be read as that to the next order.
    """
    with self._lock:
      try:
        yield
      except BaseException:
        self._close()
        raise

  def end(self) -> None:
    """Ends the bench and all below it for good, in the midst of an item too."""
    self._over = True
    if (link := self._socket) is not None:
      link.shutdown(socket.SHUT_RDWR)
    with self._lock:
      self._close()

  def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
    self._open()
    answer = self._exchange(order)
    return {"broken_sandbox": "the bench ended"} if answer is None else answer

  def _exchange(self, message: dict[str, Any]) -> dict[str, Any] | None:
    """The bench's answer to a message; None where it has ended."""
    assert self._socket is not None
    try:
      frames.write(self._socket.fileno(), message)
      return frames.read(self._socket.fileno())
    except (BrokenPipeError, ConnectionResetError):
      return None

  def _open(self) -> None:
    if self._socket is not None:
      return
    here, there = socket.socketpair()
    with there:
      self._process = start(_PACKAGE, _BENCH, there.fileno())
    # The kernel ties a process to the thread that started it, which may end long before this process does.
    main_thread = threading.current_thread() is threading.main_thread()
    self._socket = here
    report = self._exchange({"package": _PACKAGE, "end_with_parent": main_thread})
    lacking = {"bench": "it ended as it started"} if report is None else report["missing"]
    essential = [f"{name} ({why})" for name, why in lacking.items() if name in (*ESSENTIAL, "bench")]
    if report is None or essential and not self._allowed:
      self._close()
      raise SandboxError(
        f"programs are not run without the sandbox's essential layers; missing: {', '.join(essential)}. "
        "To run untrusted code bare, say allow_unsandboxed_code=True"
      )
    self.report = report
    self._check(filtered="seccomp" not in lacking)

  def _check(self, filtered: bool) -> None:
    """Sees an honest program pass, and a forbidden one be stopped where system calls are filtered."""
    for program, error in [(_HONEST, None), (_FORBIDDEN, "policy")][: 2 if filtered else 1]:
      candidate = {"alternatives": [[program]], "sealed": False}
      answer = self._exchange({**_CHECKED, "candidates": [candidate], "limits": dataclasses.asdict(Limits())})
      if answer != {"error": error, "chosen": 0}:
        self._close()
        raise SandboxError(
          f"the code sandbox does not work here: {answer} of a program that should give {error}"
        )

  def _close(self) -> None:
    if self._socket is not None:
      self._socket.close()
      self._socket = None
    if self._process is not None:
      self._process.wait()
      self._process = None

  def forget(self) -> None:
    """Lets go of the bench of the process that this one was forked from."""
    if self._socket is not None:
      self._socket.close()
    self.__init__(self._allowed)  # type: ignore[misc]


_BENCHES = (Bench(allow_unsandboxed_code=False), Bench(allow_unsandboxed_code=True))


def _bench(allow_unsandboxed_code: bool) -> Bench:
  return _BENCHES[int(allow_unsandboxed_code)]


@atexit.register
def _end() -> None:
  for bench in _BENCHES:
    bench.end()


def _forget() -> None:
  for bench in _BENCHES:
    bench.forget()


os.register_at_fork(after_in_child=_forget)


def judge(order: dict[str, Any], limits: Limits, allow_unsandboxed_code: bool) -> dict[str, Any]:
  """{"error", "chosen"} or {"broken_tests"} of one order (see `bench`). Raises SandboxError."""
  if sys.platform != "linux":
    raise SandboxError("the code sandbox needs Linux")
  return _bench(allow_unsandboxed_code).ask({**order, "limits": dataclasses.asdict(limits)})


def describe(allow_unsandboxed_code: bool = False) -> str:
  """The layers between a program and this machine, in a line. Starts the sandbox. Raises SandboxError."""
  report = _bench(allow_unsandboxed_code).layers()
  missing = report["missing"]
  present = {
    "namespaces": "user, mount, pid, net, ipc and uts namespaces, a read-only root of its own",
    "seccomp": "seccomp",
    "landlock": f"landlock {report['landlock']}",
  }
  layers = [text for name, text in present.items() if name not in missing]
  layers += [
    "a user of its own" if report["user"] else "the caller's user",
    "resource limits",
    "no capabilities",
  ]
  lacking = "".join(f"; MISSING {name}: {why}" for name, why in missing.items())
  return f"code sandbox: {', '.join(layers)}{lacking}"

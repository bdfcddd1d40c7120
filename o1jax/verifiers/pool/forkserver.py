"""The fork server: a process that has the verifiers loaded, so that a fresh worker costs milliseconds.

    pool --exec--> fork server (single thread, modules loaded) --fork--> workers

Its control socket carries `fork` (with the worker's socket) and `kill` in, and out which worker ended, how,
and after how much CPU time. It ends with its parent, however that ends, and takes every process below it
along.

multiprocessing's own fork server is one a process for good, imports the caller's main module in every worker,
and keeps the caller's environment. This one belongs to one pool, and its interpreter hashes strings the same
way in each run, so that no verdict hangs on the order of a set.
"""

import ctypes
import gc
import importlib
import json
import os
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any

from o1jax.verifiers.pool import worker
from o1jax.verifiers.pool.framing import Channel, frame
from o1jax.verifiers.sandbox import kernel

# An order of the pool: an operation and a worker's number.
FORK, KILL = 1, 2
ORDER = struct.Struct("<BI")
# The first word of a report of the server.
FAILED, ENDED = "failed", "ended"
GRACE = 0.5  # seconds that workers have to end by themselves when the pool closes

_ENVIRONMENT = {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_PROGRAM = """\
import sys
sys.path[:] = {path!r}
from o1jax.verifiers.pool.forkserver import serve
serve({fd}, {modules!r}, {memory_bytes})
"""
_PR_SET_CHILD_SUBREAPER = 36


class ForkServer:
  """The pool's side: starts the process, orders workers, reads its reports. Never blocks but in `close`."""

  def __init__(self, modules: Sequence[str], memory_bytes: int):
    ours, theirs = socket.socketpair()
    program = _PROGRAM.format(
      path=sys.path, fd=theirs.fileno(), modules=list(modules), memory_bytes=memory_bytes
    )
    with theirs:
      self._process = subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, **_ENVIRONMENT}, pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL, stdout=2,  # what a verifier prints must not get among the caller's output
        start_new_session=True,  # Ctrl-C at a terminal is the pool's to act upon
      )  # fmt: skip
    self.channel = Channel(ours)

  def fork(self, number: int, sock: socket.socket) -> None:
    """Orders a worker that reads and writes `sock`. Raises OSError where the server is gone."""
    socket.send_fds(self.channel.sock, [ORDER.pack(FORK, number)], [sock.fileno()])

  def kill(self, number: int) -> None:
    """Ends a worker; nothing happens where it has ended. Raises OSError where the server is gone."""
    self.channel.sock.sendall(ORDER.pack(KILL, number))

  def close(self) -> None:
    """Ends the process and all below it, and waits until they are gone."""
    self.channel.close()
    try:
      self._process.wait(timeout=20 * GRACE)
    except subprocess.TimeoutExpired:
      self._process.kill()  # the kernel then ends the workers
      self._process.wait()


def serve(fd: int, modules: Sequence[str], memory_bytes: int) -> None:
  """The fork server's main: loads `modules`, then forks, kills and reaps workers until the pool is gone."""
  control = socket.socket(fileno=fd)
  for number in (signal.SIGINT, signal.SIGTERM):
    # Whoever signals every process of a run means the run, which may go on for a while and then closes the
    # pool. A handler, unlike SIG_IGN, is not passed on to programs that a verifier starts.
    signal.signal(number, lambda *_: None)
  if sys.platform == "linux":
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)  # what a dead worker leaves behind is ours to reap
  try:
    for module in modules:
      importlib.import_module(module)
  except BaseException:
    _report(control, [FAILED, traceback.format_exc()])
    return
  gc.collect()
  gc.freeze()  # what is loaded stays shared with the workers
  _Server(control, memory_bytes).run()


def _report(control: socket.socket, report: list[Any]) -> None:
  try:
    control.sendall(frame(json.dumps(report).encode()))
  except OSError:
    pass  # the pool is gone, as the next event says


class _Server:
  """The loop of `serve`."""

  def __init__(self, control: socket.socket, memory_bytes: int):
    self._control, self._memory = control, memory_bytes
    self._pids: dict[int, int] = {}  # number -> pid, of workers that have not been reaped
    self._wake, self._woken = socket.socketpair()
    for sock in (self._wake, self._woken):
      sock.setblocking(False)
    signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    self._parent = _parent_fd()

  def run(self) -> None:
    """Serves until the control socket or the parent process ends, then leaves nothing behind."""
    with selectors.DefaultSelector() as selector:
      for source in (self._control, self._wake, self._parent):
        if source is not None:
          selector.register(source, selectors.EVENT_READ)
      serving = True
      while serving:
        ready = {key.fileobj for key, _ in selector.select()}
        if self._wake in ready:
          self._wake.recv(4096)
          self._reap()
        serving = self._parent not in ready and (self._control not in ready or self._obey(selector))
    self._end()

  def _obey(self, selector: selectors.BaseSelector) -> bool:
    """Carries out one order; False where the pool has closed the socket."""
    try:
      order, fds, *_ = socket.recv_fds(self._control, ORDER.size, 1)
    except ConnectionResetError:
      return False
    if len(order) < ORDER.size:
      return False
    operation, number = ORDER.unpack(order)
    if operation == KILL:
      self._signal(number, signal.SIGKILL)
      return True
    with socket.socket(fileno=fds[0]) as sock:
      pid = os.fork()
      if pid == 0:
        selector.close()
        self._become_worker(sock)
    self._pids[number] = pid
    return True

  def _become_worker(self, sock: socket.socket) -> None:
    """What a fork does: never returns."""
    code = 1
    try:
      server = os.getppid()
      if sys.platform == "linux":
        kernel.end_with_parent(signal.SIGKILL)  # so that no orphan is left
      signal.set_wakeup_fd(-1)
      signal.signal(signal.SIGCHLD, signal.SIG_DFL)
      for other in (self._control, self._wake, self._woken):
        other.close()
      if self._parent is not None:
        os.close(self._parent)
      if os.getppid() == server:
        worker.run(sock, self._memory)
      code = 0
    except ConnectionError:
      code = 0  # the pool is gone
    except BaseException:
      traceback.print_exc()
    finally:
      os._exit(code)

  def _signal(self, number: int, what: int) -> None:
    if number in self._pids:  # and so not reaped: its pid is no other process's
      os.kill(self._pids[number], what)

  def _reap(self) -> None:
    """Waits for every child that has ended, and reports the workers among them."""
    numbers = {pid: number for number, pid in self._pids.items()}
    while True:
      try:
        pid, status, used = os.wait4(-1, os.WNOHANG)
      except ChildProcessError:
        return
      if pid == 0:
        return
      number = numbers.get(pid)
      if number is None:
        continue  # left behind by a worker
      del self._pids[number]
      code = os.waitstatus_to_exitcode(status)
      _report(self._control, [ENDED, number, code, used.ru_utime + used.ru_stime])

  def _end(self) -> None:
    """Gives workers, whose streams have ended, a moment; then kills what is left below this process."""
    deadline = time.monotonic() + GRACE
    while self._pids and (left := deadline - time.monotonic()) > 0:
      if select.select([self._wake], [], [], left)[0]:
        self._wake.recv(4096)
      self._reap()
    while children := {*self._pids.values(), *_children()}:
      for pid in children:
        os.kill(pid, signal.SIGKILL)
      for pid in children:
        os.waitpid(pid, 0)
      self._pids.clear()


def _parent_fd() -> int | None:
  """A descriptor that becomes readable when the parent ends; None where the kernel has no such thing."""
  try:
    return os.pidfd_open(os.getppid()) if sys.platform == "linux" else None
  except OSError:
    return None


def _children() -> list[int]:
  """Pids of this process's children, inherited ones included; none where the kernel keeps no list."""
  try:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
      return [int(pid) for pid in file.read().split()]
  except FileNotFoundError:
    return []

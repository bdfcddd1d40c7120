"""The dispatcher thread: hands items to worker processes, one to each at a time, and takes their results.

    queue -> idle worker -> reply -> graded
                        \\-> dead: over its CPU limit -> timeout;  over its idle limit -> timeout;
                                  else again in a fresh worker, RETRIES times -> crashed

One thread owns all of it, and waits in one selector: on workers, on the fork server, on whoever puts items.
"""

import collections
import dataclasses
import functools
import itertools
import json
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from o1jax.verifiers.base import Verdict
from o1jax.verifiers.catalog import VerifierLimits
from o1jax.verifiers.pool import forkserver
from o1jax.verifiers.pool import worker as replies
from o1jax.verifiers.pool.framing import Channel

RETRIES = 3  # times that an item is tried again after its worker died; then it is `crashed`
MAX_FAILED_STARTS = 10  # processes that die in a row with nothing graded in between: then it gives up
MAX_STARTING = 16  # workers that are started and not yet ready
IDLE_CHECKS = 10  # of a sleeping worker until its limit

Waiter = TypeVar("Waiter")


@dataclasses.dataclass(frozen=True)
class PoolLimits:
  """When workers are replaced, and what a pool remembers."""

  memory_bytes: int = 4 << 30  # address space of a worker: beyond it, allocations fail inside the verifier
  recycle_items: int = 10_000  # items after which a worker is replaced
  recycle_bytes: int = 512 << 20  # growth of a worker's greatest resident memory after which it is replaced
  cached: int = 50_000  # verdicts kept
  cached_text: int = 2_000  # characters of `parsed` beyond which a verdict is not kept


class PoolError(RuntimeError):
  """The pool cannot grade: it is closed, or its processes cannot be started."""


class GradedItem(NamedTuple):
  """An item's verdict, or what is wrong with its problem."""

  verdict: Verdict | None  # None: the problem is at fault
  seconds: float  # CPU time of the worker on this item, when it was graded
  message: str | None = None  # what is wrong with the problem, or why the verifier crashed
  cacheable: bool = True  # whether an equal item is bound to end the same way


class Item(Generic[Waiter]):
  """One completion of one problem to grade, for everybody who waits for it."""

  __slots__ = ("waiters", "deaths", "key", "limits", "message")

  def __init__(self, key: bytes, limits: VerifierLimits, message: bytes):
    self.key, self.limits, self.message = key, limits, message
    self.waiters: list[Waiter] = []
    self.deaths = 0  # of workers while they graded it


class _Worker:
  """The dispatcher's side of one worker process."""

  def __init__(self, number: int, channel: Channel):
    self.number, self.channel = number, channel
    self.pid: int | None = None  # None until its first message
    self.item: Item | None = None
    self.items = 0  # that it was given
    self.retired = False  # gets no more items
    self.cpu_seconds = 0.0  # that it has used, by its last reply
    self.first_rss = 0  # KiB, when it began
    self.next_check = 0.0  # monotonic seconds
    self.first_check: tuple[float, float] | None = None  # (monotonic seconds, its busy seconds)
    self.overslept = False


class Dispatcher:
  """`put` items from any thread; `finished(item, graded)` is called for each, in the dispatcher's own thread.

  `failed(error)` is called once, where nothing can be graded any more; items put before are not finished
  then.
  """

  def __init__(
    self,
    modules: Sequence[str],
    workers: int,
    limits: PoolLimits,
    finished: Callable[[Item, GradedItem], None],
    failed: Callable[[PoolError], None],
  ):
    self._modules, self._size, self._limits = modules, workers, limits
    self._finished, self._failed = finished, failed
    self._queue: collections.deque[Item] = collections.deque()  # appended to by any thread
    self._closing = False
    self._numbers = itertools.count()
    self._workers: dict[int, _Worker] = {}  # until the fork server reports their end
    self._idle: collections.deque[_Worker] = collections.deque()
    self._failed_starts = 0
    self.started = self.deaths = 0
    self._selector = selectors.DefaultSelector()
    self._woken, self._wake = socket.socketpair()
    for sock in (self._woken, self._wake):
      sock.setblocking(False)
    self._selector.register(self._woken, selectors.EVENT_READ, lambda: self._woken.recv(4096))
    self._server = self._start_server()
    self._thread = threading.Thread(target=self._run, name="o1jax-verifiers", daemon=True)
    self._thread.start()

  def put(self, items: Iterable[Item]) -> None:
    """Queues items."""
    self._queue.extend(items)
    self._wake_thread()

  def pids(self) -> list[int]:
    """Pids of the workers that have reported ready."""
    return [worker.pid for worker in list(self._workers.values()) if worker.pid is not None]

  def close(self) -> None:
    """Ends every process at once, whatever it is at, and waits until they are gone."""
    self._closing = True
    self._wake_thread()
    self._thread.join()

  def _wake_thread(self) -> None:
    try:
      self._wake.send(b"\0")
    except OSError:
      pass  # full: it will wake anyway; or closed

  def _run(self) -> None:
    error = PoolError("the pool is closed")
    try:
      while not self._closing:
        self._ensure_workers()
        self._assign()
        for key, _ in self._selector.select(self._until_check()):
          key.data()
        self._check_sleepers()
    except PoolError as cause:
      error = cause
    except BaseException as cause:
      error = PoolError(f"a fault of the pool: {type(cause).__name__}: {cause}")
      error.__cause__ = cause
    finally:
      self._failed(error)
      self._end()

  def _end(self) -> None:
    for worker in self._workers.values():
      if worker.item is not None:
        self._kill(worker)
      worker.channel.close()
    self._server.close()
    self._selector.close()
    self._woken.close()
    self._wake.close()

  # The fork server.

  def _start_server(self) -> forkserver.ForkServer:
    try:
      server = forkserver.ForkServer(self._modules, self._limits.memory_bytes)
    except OSError as error:
      raise PoolError(f"its processes cannot be started: {error.strerror}") from None
    self._selector.register(server.channel.sock, selectors.EVENT_READ, self._on_server)
    return server

  def _on_server(self) -> None:
    messages, ended = self._server.channel.receive()
    for message in messages:
      match json.loads(message):
        case [forkserver.FAILED, traceback]:
          raise PoolError(f"the verifiers cannot be loaded: {traceback}")
        case [forkserver.ENDED, number, status, cpu_seconds]:
          worker = self._workers.pop(number)
          self._reap(worker, status, cpu_seconds)
          if worker.pid is None:
            self._count_failed_start()
    if ended:
      self._replace_server()

  def _replace_server(self) -> None:
    """Starts a new fork server; the kernel has ended the old one's workers with it."""
    self._selector.unregister(self._server.channel.sock)
    self._server.close()
    self._count_failed_start()
    for number in list(self._workers):
      worker = self._workers.pop(number)
      self._reap(worker, -signal.SIGKILL, worker.cpu_seconds)
    self._server = self._start_server()

  def _count_failed_start(self) -> None:
    self._failed_starts += 1
    if self._failed_starts > MAX_FAILED_STARTS:
      dead = f"{self._failed_starts} processes died one after the other"
      raise PoolError(f"{dead}, with nothing graded in between")

  # Workers.

  def _ensure_workers(self) -> None:
    """Starts workers in place of those that died or retired."""
    active = [worker for worker in self._workers.values() if not worker.retired]
    starting = sum(worker.pid is None for worker in active)
    for _ in range(min(self._size - len(active), MAX_STARTING - starting)):
      ours, theirs = socket.socketpair()
      worker = _Worker(next(self._numbers), Channel(ours))
      self._workers[worker.number] = worker
      self.started += 1
      self._selector.register(ours, selectors.EVENT_READ, functools.partial(self._on_worker, worker))
      with theirs:
        try:
          self._server.fork(worker.number, theirs)
        except OSError:
          return  # the server is gone, which its socket tells: this worker is then reaped with the others

  def _kill(self, worker: _Worker) -> None:
    try:
      self._server.kill(worker.number)
    except OSError:
      pass  # the server is gone, and its workers with it

  def _on_worker(self, worker: _Worker) -> None:
    """Reads a worker's replies, and goes on writing what it has not yet read."""
    if worker.number not in self._workers:
      return  # reaped by an event of the same moment
    worker.channel.flush()
    messages, ended = worker.channel.receive()
    for message in messages:
      self._on_reply(worker, message)
    if ended:
      self._selector.unregister(worker.channel.sock)  # the fork server will report how it ended
      worker.retired = True
    else:
      self._listen(worker)

  def _listen(self, worker: _Worker) -> None:
    events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.channel.unsent else 0)
    key = self._selector.get_key(worker.channel.sock)
    if key.events != events:
      self._selector.modify(worker.channel.sock, events, key.data)

  def _on_reply(self, worker: _Worker, message: bytes) -> None:
    """Takes a worker's reply, and has it wait for its next item, or retire."""
    kind, *reply, worker.cpu_seconds, rss = json.loads(message)
    self._failed_starts = 0
    if kind == replies.READY:
      worker.pid, worker.first_rss = reply[0], rss
    else:
      assert worker.item is not None
      item, worker.item = worker.item, None
      self._finished(item, _graded(kind, reply))
    grown = (rss - worker.first_rss) * 1024 > self._limits.recycle_bytes
    if grown or worker.items >= self._limits.recycle_items:
      worker.retired = True
      worker.channel.finish()  # it reads the end of the stream, and ends
    else:
      self._idle.append(worker)

  def _reap(self, worker: _Worker, status: int, cpu_seconds: float) -> None:
    """Reads a dead worker's last replies, and decides about the item that it was grading."""
    if worker.channel.sock in self._selector.get_map():
      self._selector.unregister(worker.channel.sock)
      for message in worker.channel.receive()[0]:
        self._on_reply(worker, message)
    worker.channel.close()
    worker.retired = True
    self.deaths += status != 0
    if worker.item is not None:
      self._on_death(worker.item, worker, status, max(0.0, cpu_seconds - worker.cpu_seconds))

  def _on_death(self, item: Item, worker: _Worker, status: int, seconds: float) -> None:
    """An item whose worker died is over a limit, tried again, or crashed."""
    timeout = Verdict(0.0, False, None, "timeout")
    if status == -signal.SIGPROF:
      self._finished(item, GradedItem(timeout, seconds))
    elif worker.overslept:
      self._finished(item, GradedItem(timeout, seconds, cacheable=False))
    elif item.deaths < RETRIES:
      item.deaths += 1
      self._queue.appendleft(item)
    else:
      message = f"its worker died {item.deaths + 1} times, at last with status {status}"
      self._finished(item, _crashed(message, seconds))

  def _assign(self) -> None:
    """Gives queued items to idle workers."""
    while self._queue and self._idle:
      worker = self._idle.popleft()
      if worker.retired:
        continue
      item = self._queue.popleft()
      worker.item, worker.first_check = item, None
      worker.items += 1
      worker.next_check = time.monotonic() + item.limits.idle_seconds / IDLE_CHECKS
      worker.channel.send(item.message)
      self._listen(worker)

  # The idle limit.

  def _until_check(self) -> float | None:
    """Seconds until a worker has to be looked at; None where all are idle."""
    due = [worker.next_check for worker in self._workers.values() if worker.item is not None]
    return max(0.0, min(due) - time.monotonic()) if due else None

  def _check_sleepers(self) -> None:
    """Kills workers that slept longer than their item's limit since the first look at them.

    A worker that waits for a core does not sleep, so that a loaded machine brings no verdict about.
    """
    now = time.monotonic()
    for worker in self._workers.values():
      if worker.item is None or now < worker.next_check or worker.pid is None:
        continue
      busy, limit = _busy_seconds(worker.pid), worker.item.limits.idle_seconds
      worker.next_check = now + limit / IDLE_CHECKS
      start, busy_at_start = worker.first_check = worker.first_check or (now, busy)
      if (now - start) - (busy - busy_at_start) > limit:
        worker.overslept = True
        self._kill(worker)


def _busy_seconds(pid: int) -> float:
  """Seconds that a process's main thread has run or waited for a core; 0 where the kernel does not tell."""
  try:
    with open(f"/proc/{pid}/schedstat") as file:
      ran, waited, _ = file.read().split()
  except OSError:
    return 0.0
  return (int(ran) + int(waited)) / 1e9


def _crashed(message: str, seconds: float) -> GradedItem:
  return GradedItem(Verdict(0.0, False, None, "crashed"), seconds, message, cacheable=False)


def _graded(kind: str, reply: list[Any]) -> GradedItem:
  """A worker's reply as the item's result."""
  if kind == replies.VERDICT:
    reward, correct, parsed, error, seconds = reply
    return GradedItem(Verdict(reward, correct, parsed, error), seconds)
  message, seconds = reply
  return GradedItem(None, seconds, message) if kind == replies.FAULT else _crashed(message, seconds)

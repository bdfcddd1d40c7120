"""The process that candidates' programs are forked from: isolated once, and copied for each program.

A fresh interpreter, started by the tester's bench before any test is there, moves into namespaces of its own
and becomes process 1 of one, under a root of its own that holds Python's standard library and the machine's
time zones read-only and nothing else. Then, for each program:

    order + descriptors -> fork -> lock down -> the program -> {"signal", "code", "cpu", "late"}

The fork is process 1 of a further namespace: with it ends all that it has started. Locked down, it has a
fresh /tmp of limited size, resource limits, no capability, a user of its own (where root starts it: no limit
of processes binds root), Landlock where the kernel has it, and a seccomp filter. Only then does it read the
program.

Descriptors of an order: requests, replies, standard input, standard output, control, status. The end of
`control` ends the program.
"""

import contextlib
import ctypes
import fcntl
import gc
import glob
import importlib
import json
import os
import platform
import re
import resource
import select
import shutil
import signal
import site
import socket
import sys
import sysconfig
import tempfile
from typing import Any, NamedTuple, NoReturn

from o1jax.verifiers.sandbox import candidate, frames, kernel, seccomp

NAMESPACES = kernel.CLONE_NEWUSER | kernel.CLONE_NEWPID | kernel.CLONE_NEWNS
NAMESPACES |= kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
PROGRAM_USER = 65534  # whom programs run as where root starts them; within the namespace and outside of it
MAX_ORDER = 1 << 16  # bytes
# What programs import most, loaded once for all of them.
PRELOADED = (
  "bisect collections copy dataclasses datetime decimal enum fractions functools hashlib heapq inspect "
  "itertools "
  "math operator re statistics string textwrap typing"
).split()
_HOME = "/tmp"  # of programs: a file system of their own is there
_OLD_ROOT = "/.old"
_NOT_FOR_PROGRAMS = ("site-packages", "dist-packages")
_NO_EXTENSIONS = ("_tkinter", "_test", "xx", "_xx")  # extension modules whose libraries no program needs
_KERNEL = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
_COUNTS_BY_NAMESPACE = (5, 14)  # from this kernel on RLIMIT_NPROC counts what is in the same user namespace
_FIRST_FREE = 5  # descriptors from here on, while 0 to 4 are put in place


class Isolation(NamedTuple):
  """The layers of isolation that are in place."""

  home: int | None  # pidfd of this process, which is in the namespaces; None where there are none
  user: int | None  # whom programs become
  landlock: int  # version; 0 where there is none
  filter: ctypes.Structure | None  # of system calls
  readable: list[str]  # where Python's standard library is


def main(descriptor: int) -> NoReturn:
  """Serves the bench at the other end of a socket (SOCK_SEQPACKET) until that end closes."""
  link = socket.socket(fileno=descriptor)
  missing: dict[str, str] = {}
  kernel.end_with_parent(signal.SIGKILL)
  _load_libraries()
  for name in PRELOADED:
    importlib.import_module(name)
  site.setquit()  # `exit` and `quit`, which programs call
  separate = os.geteuid() == 0
  if separate:
    # The root of a user namespace may be denied it, and then has no groups to drop.
    with contextlib.suppress(PermissionError):
      os.setgroups([])
  try:
    kernel.unshare(NAMESPACES)
    _send(link, {"map": os.getpid()})
    missing = _receive(link)["missing"]
  except OSError as error:
    missing = {"namespaces": str(error.strerror)}
  if "namespaces" not in missing:
    _become_first(link)
  isolation = _isolate(separate, missing)
  _send(link, {"missing": missing, "landlock": isolation.landlock, "user": isolation.user is not None})
  os.environ.clear()
  os.environ.update(HOME=_HOME, TMPDIR=_HOME)
  for name in [name for name in sys.modules if name.partition(".")[0] == "o1jax"]:
    del sys.modules[name]  # no business of programs'
  # What is done here once is not done for each program, nor the memory that it touches copied for each.
  gc.collect()
  gc.freeze()
  gc.disable()
  while True:
    order, descriptors = _order(link)
    status = _run(order, descriptors, isolation)
    try:
      frames.write(descriptors[-1], status)
    except BrokenPipeError:  # the tester is gone, and nobody waits for it
      pass
    os.close(descriptors[-1])


def _send(link: socket.socket, message: dict[str, Any]) -> None:
  link.send(json.dumps(message).encode())


def _receive(link: socket.socket) -> dict[str, Any]:
  message = link.recv(MAX_ORDER)
  if not message:
    os._exit(0)
  return json.loads(message)


def _order(link: socket.socket) -> tuple[dict[str, Any], list[int]]:
  message, descriptors, _, _ = socket.recv_fds(link, MAX_ORDER, 8)
  if not message:
    os._exit(0)
  return json.loads(message), descriptors


def _load_libraries() -> None:
  """Loads the shared libraries that Python's extension modules need: the new root does not have them."""
  read, write = os.pipe()
  child = os.fork()
  if child == 0:
    before = _mapped_libraries()
    extensions = [path for folder in sys.path for path in glob.glob(f"{glob.escape(folder)}/*.so")]
    for path in extensions:
      if not os.path.basename(path).startswith(_NO_EXTENSIONS):
        _load(path)
    os.write(write, json.dumps(sorted(_mapped_libraries() - before - set(extensions))).encode())
    os._exit(0)
  os.close(write)
  with open(read, "rb") as libraries:
    for path in json.loads(libraries.read()):
      _load(path)
  os.waitpid(child, 0)


def _load(path: str) -> None:
  try:
    ctypes.CDLL(path, os.RTLD_LAZY)
  except OSError:  # a library of it is not on this machine: programs cannot import it here, bare or not
    pass


def _mapped_libraries() -> set[str]:
  with open("/proc/self/maps") as maps:
    return {row.split(maxsplit=5)[5].strip() for row in maps if ".so" in row}


def _become_first(link: socket.socket) -> None:
  """Goes on as process 1 of the new namespace, while the calling process only waits for its end."""
  child = os.fork()
  if child:
    link.close()
    kernel.end_with_parent(signal.SIGKILL)
    os.waitpid(child, 0)
    os._exit(0)
  kernel.end_with_parent(signal.SIGKILL)


def _isolate(separate: bool, missing: dict[str, str]) -> Isolation:
  """Sets up all that programs have in common; what fails goes into `missing` by name, with the reason."""
  zones = (sysconfig.get_config_var("TZPATH") or "").split(os.pathsep)  # where zoneinfo looks
  readable = [folder for folder in (*sys.path, *zones) if os.path.isdir(folder)]
  home = None
  if "namespaces" not in missing:
    try:
      readable = _build_root(readable)
      socket.sethostname("sandbox")
      home = os.pidfd_open(os.getpid())
    except OSError as error:
      missing["namespaces"] = str(error.strerror)
  kernel.forbid_new_privileges()
  if home is not None:
    kernel.drop_bounding_set()
  user = PROGRAM_USER if separate and home is not None and "user" not in missing else None
  version = kernel.landlock_version()
  if not version:
    missing["landlock"] = "not in this kernel"
  try:
    prepared = seccomp.prepare(seccomp.program(platform.machine()))
    _probe(prepared)
  except (OSError, KeyError) as error:
    missing["seccomp"] = f"no table for {error}" if isinstance(error, KeyError) else str(error.strerror)
    return Isolation(home, user, version, None, readable)
  return Isolation(home, user, version, prepared, readable)


def _build_root(folders: list[str]) -> list[str]:
  """Puts this process under a root of its own that holds `folders` read-only; those that it mounted."""
  kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
  kernel.mount("tmpfs", "/tmp", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=755")
  os.mkdir(f"/tmp{_OLD_ROOT}")
  kernel.pivot_root("/tmp", f"/tmp{_OLD_ROOT}")
  os.chdir("/")
  mounted: list[str] = []
  for folder in sorted(folders):
    if not any(folder.startswith(f"{other}/") for other in mounted):
      os.makedirs(folder)
      kernel.bind_read_only(_OLD_ROOT + folder, folder)
      mounted.append(folder)
  for folder in mounted:
    for name in _NOT_FOR_PROGRAMS:
      if os.path.isdir(f"{folder}/{name}"):
        kernel.mount("tmpfs", f"{folder}/{name}", "tmpfs", kernel.MS_RDONLY, "size=4k,mode=755")
  kernel.detach(_OLD_ROOT)
  os.rmdir(_OLD_ROOT)
  os.makedirs("/tmp", exist_ok=True)
  flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV
  kernel.mount("none", "/", None, flags)
  return mounted


def _probe(prepared: ctypes.Structure) -> None:
  """Sees a process under the filter die of a fork. Raises OSError where it does not."""
  child = os.fork()
  if child == 0:
    try:
      kernel.forbid_dumps()
      seccomp.install(prepared)
      os.fork()
    except OSError as error:
      os._exit(error.errno or 1)
    os._exit(0)
  _, status = os.waitpid(child, 0)
  if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGSYS:
    number = os.waitstatus_to_exitcode(status)
    raise OSError(number, f"the filter does not act: {os.strerror(number) if number > 0 else number}")


def _run(order: dict[str, Any], descriptors: list[int], isolation: Isolation) -> dict[str, Any]:
  """Runs one program to its end; what became of it. Leaves the last of `descriptors` open, the status."""
  folder = _HOME if isolation.home is not None else tempfile.mkdtemp()
  try:
    if isolation.home is not None:
      kernel.unshare(kernel.CLONE_NEWPID)
    child = os.fork()
    if child == 0:
      _become_program(order, descriptors, folder, isolation)
    if isolation.home is not None:
      kernel.setns(isolation.home, kernel.CLONE_NEWPID)
    *its_own, control, _ = descriptors
    for descriptor in its_own:
      os.close(descriptor)
    status = _watch(child, control, order["wall_seconds"])
    os.close(control)
    return status
  finally:
    if isolation.home is None:
      shutil.rmtree(folder, ignore_errors=True)


def _watch(child: int, control: int, wall_seconds: float) -> dict[str, Any]:
  """Waits for a program's end, and ends it when its time is over or nobody waits for it."""
  watched = os.pidfd_open(child)
  poll = select.poll()
  poll.register(watched, select.POLLIN)
  poll.register(control, 0)
  ready = dict(poll.poll(wall_seconds * 1000))
  if watched not in ready:
    os.kill(child, signal.SIGKILL)
  _, status, used = os.wait4(child, 0)
  os.close(watched)
  signalled = os.WIFSIGNALED(status)
  return {
    "signal": os.WTERMSIG(status) if signalled else 0,
    "code": 0 if signalled else os.WEXITSTATUS(status),
    "cpu": used.ru_utime + used.ru_stime,
    "late": not ready,
  }


def _become_program(
  order: dict[str, Any], descriptors: list[int], folder: str, isolation: Isolation
) -> NoReturn:
  """Locks the calling process down, and runs the program that it is then sent; never returns or raises."""
  leave = os._exit  # which the program may replace
  try:
    try:
      _place(descriptors[:4])
      _lock_down(order, folder, isolation)
    except BaseException as error:
      frames.write(candidate.REPLIES, {"state": "setup", "why": repr(error)})
      raise
    candidate.run(order["message_bytes"])
  finally:
    leave(1)


def _place(descriptors: list[int]) -> None:
  """Puts requests, replies, input and output where the program expects them; standard error is /dev/null."""
  os.dup2(0, 2)  # this process has /dev/null there
  aside = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, _FIRST_FREE) for descriptor in descriptors]
  for descriptor, place in zip(aside, (candidate.REQUESTS, candidate.REPLIES, 0, 1)):
    os.dup2(descriptor, place)
  os.closerange(5, os.sysconf("SC_OPEN_MAX"))


def _lock_down(order: dict[str, Any], folder: str, isolation: Isolation) -> None:
  os.setsid()
  if isolation.home is not None:
    kernel.unshare(kernel.CLONE_NEWNS)
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    size = f"size={order['file_bytes']},nr_inodes={order['files'] + 1},mode=1777"
    kernel.mount("tmpfs", folder, "tmpfs", flags, size)
  os.chdir(folder)
  if folder != _HOME:
    os.environ.update(HOME=folder, TMPDIR=folder)
  limits = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_CPU: order["cpu_seconds"],
    resource.RLIMIT_AS: order["memory_bytes"],
    resource.RLIMIT_STACK: order["stack_bytes"],
    resource.RLIMIT_FSIZE: order["file_bytes"],
    resource.RLIMIT_NOFILE: order["open_files"],
    resource.RLIMIT_MEMLOCK: 0,
    resource.RLIMIT_MSGQUEUE: 0,
  }
  if isolation.home is not None and _KERNEL >= _COUNTS_BY_NAMESPACE:  # else all the user's processes count
    limits[resource.RLIMIT_NPROC] = order["threads"] + 1
  for which, value in limits.items():
    kernel.limit(which, value)
  if isolation.user is not None:
    os.setresgid(isolation.user, isolation.user, isolation.user)
    os.setresuid(isolation.user, isolation.user, isolation.user)
  kernel.end_with_parent(signal.SIGKILL)
  kernel.drop_capabilities()
  kernel.forbid_dumps()
  if isolation.landlock:
    kernel.landlock(isolation.landlock, isolation.readable, folder)
  if isolation.filter is not None:
    seccomp.install(isolation.filter)

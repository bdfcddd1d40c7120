"""The trusted side: keeps a zygote, and forks a tester for each item, so that items share no state.

    {"candidates": [{"alternatives", "sealed"}], "targets", "solution", "entry_point", "helpers", "tests",
     "check", "names", "modules", "scripts", "tokens", "limits"}
      -> {"error", "chosen"} | {"broken_tests"} | {"broken_sandbox"}

Ends when the caller's end of the socket closes, at once; the kernel ends everything below with it.
"""

import gc
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import traceback
from typing import Any, NoReturn

from o1jax.verifiers.sandbox import frames, kernel
from o1jax.verifiers.sandbox.program import NEARLY, BrokenSandbox
from o1jax.verifiers.sandbox.trial import BrokenTests, judge
from o1jax.verifiers.sandbox.zygote import PROGRAM_USER

# What `python -c` runs: `main` of a module of the package that lies in argv[1], with the descriptor argv[3].
# Nothing else lies there: `o1jax` itself imports nothing, and its modules are looked up by its own path.
START = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
import o1jax
sys.path.pop(0)
importlib.import_module(sys.argv[2]).main(int(sys.argv[3]))
"""
_ORDINARY_USER = 1000  # of the zygote and its programs within their namespace, where root did not start them
_TESTER_BYTES = 4 << 30  # address space of a tester
_PATIENCE = 2.0  # elapsed time of an item, in units of what its programs may take
_SECONDS_TO_END = 2.0  # that a zygote has before it is killed


def start(package: str, module: str, descriptor: int, *options: str) -> subprocess.Popen[bytes]:
  """Starts an interpreter in a bare environment that runs a module of the package at a path."""
  kept = {key: os.environ[key] for key in ("LD_LIBRARY_PATH", "PATH") if key in os.environ}
  return subprocess.Popen(
    [sys.executable, "-P", "-s", "-X", "utf8", *options, "-c", START, package, module, str(descriptor)],
    env={**kept, "PYTHONHASHSEED": "0", "MALLOC_ARENA_MAX": "2"},  # sets of str have one order everywhere
    stdin=subprocess.DEVNULL,
    stdout=subprocess.DEVNULL,
    pass_fds=[descriptor],
    start_new_session=True,
  )


def main(descriptor: int) -> NoReturn:
  """Serves the caller at the other end of a socket."""
  order = frames.read(descriptor)
  if order is None:
    os._exit(0)
  if order["end_with_parent"]:
    kernel.end_with_parent(signal.SIGKILL)
  # The caller's own limit is not for all its items together.
  hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
  resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))
  here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
  with there:
    process = start(order["package"], "o1jax.verifiers.sandbox.zygote", there.fileno(), "-S")
  frames.write(descriptor, _report(here))
  gc.collect()
  gc.freeze()
  while (order := frames.read(descriptor)) is not None:
    if (answer := _judged(order, here, descriptor)) is None:
      break
    frames.write(descriptor, answer)
  here.close()  # the zygote ends
  try:
    process.wait(_SECONDS_TO_END)  # so that nobody is left for process 1, which may not wait for orphans
  except subprocess.TimeoutExpired:
    process.kill()
  os._exit(0)


def _report(zygote: socket.socket) -> dict[str, Any]:
  """A zygote's report of its layers; gives its user namespace the users meanwhile."""
  report = _receive(zygote)
  if "map" in report:
    zygote.send(json.dumps({"missing": _map_users(report["map"])}).encode())
    report = _receive(zygote)
  return report


def _receive(zygote: socket.socket) -> dict[str, Any]:
  message = zygote.recv(1 << 16)
  return json.loads(message) if message else {"missing": {"namespaces": "the zygote ended as it started"}}


def _map_users(process: int) -> dict[str, str]:
  """Gives a process's new user namespace its users; what could not be done, by name."""
  user, group = os.geteuid(), os.getegid()
  alone = (f"{_ORDINARY_USER} {user} 1", f"{_ORDINARY_USER} {group} 1")
  if user == 0:
    rows = f"0 0 1\n{PROGRAM_USER} {PROGRAM_USER} 1"
    try:
      _write_maps(process, rows, rows)
      return {}
    except OSError as error:
      return {"user": f"no second user: {error.strerror}"} | _tried_maps(process, *alone)
  return _tried_maps(process, *alone)


def _tried_maps(process: int, users: str, groups: str) -> dict[str, str]:
  try:
    with open(f"/proc/{process}/setgroups", "w") as file:
      file.write("deny")
    _write_maps(process, users, groups)
    return {}
  except OSError as error:
    return {"namespaces": f"uid_map: {error.strerror}"}


def _write_maps(process: int, users: str, groups: str) -> None:
  for name, rows in (("uid_map", users), ("gid_map", groups)):
    with open(f"/proc/{process}/{name}", "w") as file:
      file.write(rows)


def _judged(order: dict[str, Any], zygote: socket.socket, caller: int) -> dict[str, Any] | None:
  """A tester's answer to an item, or what its end says where it gives none; None where the caller is gone."""
  answers, answer_end = os.pipe()
  tester = os.fork()
  if tester == 0:
    _be_tester(order, zygote, answer_end)
  os.close(answer_end)
  poll = select.poll()
  poll.register(answers, select.POLLIN)
  poll.register(caller, select.POLLIN)  # it asks for nothing while it waits: this is its end
  ready = dict(poll.poll(order["limits"]["wall_seconds"] * _PATIENCE * 1000))
  if caller in ready or answers not in ready:
    os.kill(tester, signal.SIGKILL)  # and with it, its program
  verdict = frames.read(answers)
  os.close(answers)
  _, status, used = os.wait4(tester, 0)
  if caller in ready:
    return None
  if verdict is not None:
    return verdict
  busy = used.ru_utime + used.ru_stime >= NEARLY * order["limits"]["cpu_seconds"]
  late = answers not in ready or os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL and busy
  return {"error": "timeout" if late else "crashed", "chosen": 0}


def _be_tester(order: dict[str, Any], zygote: socket.socket, answer_end: int) -> NoReturn:
  try:
    kernel.end_with_parent(signal.SIGKILL)
    kernel.limit(resource.RLIMIT_CPU, order["limits"]["cpu_seconds"])
    kernel.limit(resource.RLIMIT_AS, _TESTER_BYTES)
    kernel.limit(resource.RLIMIT_CORE, 0)
    kernel.forbid_dumps()  # a program that core_pattern names gets a core whatever its limit
    try:
      answer = judge(order, zygote)
    except BrokenTests as error:
      answer = {"broken_tests": str(error)}
    except BrokenSandbox as error:
      answer = {"broken_sandbox": str(error)}
    except BaseException as error:
      answer = {"broken_sandbox": "".join(traceback.format_exception(error))}
    frames.write(answer_end, answer)
  finally:
    os._exit(0)

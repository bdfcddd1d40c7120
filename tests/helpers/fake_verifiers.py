"""Verifiers that misbehave on demand, for the pool's tests, and short ways to ask them.

The completion says what a worker is to do: a word of DEEDS and its argument. `ok N` is graded 1 / (1 + N).
"""

import ctypes
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time

from o1jax.verifiers.base import Problem, Verdict
from o1jax.verifiers.catalog import ANSWER, OBJECT, Entry, VerifierLimits

CATALOG = {
  "fake": Entry("fake_verifiers", {"answer": ANSWER, "extra": OBJECT}, VerifierLimits(0.3, 60.0)),
  "sleepy": Entry("fake_verifiers", {"answer": ANSWER}, VerifierLimits(60.0, 0.3)),
  "missing": Entry("o1jax.verifiers.no_such_module", {"answer": ANSWER}, VerifierLimits(1.0, 10.0)),
  "gsm8k": Entry("o1jax.verifiers.gsm8k", {"answer": ANSWER}, VerifierLimits(2.0, 20.0)),
}
PROBLEM = Problem("p", "", "good", "test")
OK = Verdict(1.0, True, "0")
TIMEOUT, CRASHED = (Verdict(0.0, False, None, error) for error in ("timeout", "crashed"))


def ask(pool, *completions: str, name: str = "fake", **settings) -> list[Verdict]:
  """Verdicts of a pool on completions of one problem."""
  return pool.verify(name, [PROBLEM] * len(completions), completions, settings)


def numbered(count: int) -> list[str]:
  """Completions that are graded at once, each in its own way."""
  return [f"ok {i}" for i in range(count)]


def expected(i: int) -> Verdict:
  """The verdict on `ok i`."""
  return Verdict(1 / (1 + i), i == 0, str(i), None if i == 0 else "wrong")


_LEAK: list[bytes] = []


def _spin_in_c() -> None:
  9**9**9


def _die_once(path: str) -> None:
  """Kills the worker unless somebody already died of it."""
  try:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL))
  except FileExistsError:
    return
  os.kill(os.getpid(), signal.SIGKILL)


def _hoard(megabytes: str) -> None:
  _LEAK.append(bytearray(b"x") * (int(megabytes) << 20))


def _child(path: str) -> None:
  """Leaves a program behind that only its parent's death could end, and says which."""
  child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
  with open(path.strip(), "a") as file:
    file.write(f"{child.pid}\n")


def _raise(error: BaseException) -> None:
  raise error


def _thread_spins(_: str) -> None:
  thread = threading.Thread(target=_spin_in_c)
  thread.start()
  thread.join()


DEEDS = {
  "spin": lambda _: _spin_in_c(),
  "loop": lambda _: [None for _ in iter(int, 1)],
  "threads": _thread_spins,
  "burn": lambda seconds: _burn(float(seconds)),
  "sleep": lambda seconds: time.sleep(float(seconds)),
  "kill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
  "term": lambda _: os.kill(os.getpid(), signal.SIGTERM),
  "killserver": lambda _: (os.kill(os.getppid(), signal.SIGKILL), time.sleep(60)),
  "once": _die_once,
  "segfault": lambda _: ctypes.string_at(0),
  "leave": lambda code: os._exit(int(code)),
  "exit": lambda _: sys.exit(0),
  "bomb": lambda _: bytearray(1 << 40),
  "recurse": lambda n: DEEDS["recurse"](n),
  "hoard": _hoard,
  "child": _child,
  "print": lambda _: print("noise on standard output", flush=True),
  "value": lambda _: _raise(ValueError("of the completion")),
  "type": lambda _: _raise(TypeError("of ours")),
}


def _burn(seconds: float) -> None:
  end = time.process_time() + seconds
  while time.process_time() < end:
    pass


def make_verify(factor: float = 1.0, broken: bool = False):
  """`verify` with its rewards multiplied. Raises RuntimeError where it is to be `broken`."""
  if broken:
    raise RuntimeError("cannot be made")

  def graded(problems, completions):
    if problems[0].answer == "bad":
      raise ValueError(f"problem {problems[0].id}: its answer is bad")
    word, _, rest = completions[0].partition(" ")
    if word == "pid":
      return [Verdict(1.0, True, str(os.getpid()))]
    if word == "hash":
      return [Verdict(1.0, True, str(hash(rest)))]
    if word == "saw":
      return [Verdict(1.0, True, repr(problems[0]))]
    if word == "contract":
      return [Verdict(float("nan"), True, None)]
    if word == "long":
      return [Verdict(1.0, True, "y" * int(rest))]
    if word == "ok":
      told = expected(int(rest))
      return [dataclasses.replace(told, reward=factor * told.reward)]
    DEEDS[word](rest)
    return [Verdict(0.0, False, completions[0], "wrong")]

  return graded


verify = make_verify()

"""The filter of system calls, run by a small interpreter of its instructions on both architectures."""

import errno
import struct

import pytest

from o1jax.verifiers.sandbox import seccomp
from o1jax.verifiers.sandbox.seccomp import ALLOW, AUDIT_ARCH, ERROR, KILL

MACHINES = tuple(AUDIT_ARCH)
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = (
  0x20,
  0x15,
  0x35,
  0x45,
  0x06,
)  # BPF_LD|W|ABS, JMP|JEQ, JGE, JSET, RET
CLONE_THREAD_OF_PTHREAD = (
  0x3D0F00  # VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS, PARENT_SETTID, CHILD_CLEARTID
)
NO_SUCH_CALL = ERROR | errno.ENOSYS


def answer(machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
  """What the filter says of a call, as the kernel would run it."""
  given = [*arguments, *[0] * (6 - len(arguments))]
  data = struct.pack("=iIQ6Q", number, AUDIT_ARCH[machine] if arch is None else arch, 0, *given)
  rows, at, accumulator = seccomp.program(machine), 0, 0
  while True:
    code, if_true, if_false, operand = rows[at]
    at += 1
    if code == _RETURN:
      return operand
    if code == _LOAD:
      (accumulator,) = struct.unpack_from("=I", data, operand)
      continue
    holds = {
      _EQUAL: accumulator == operand,
      _AT_LEAST: accumulator >= operand,
      _ANY_BIT: accumulator & operand != 0,
    }[code]
    at += if_true if holds else if_false


def number(machine: str, name: str) -> int:
  everything = f"{seccomp.ALLOWED} {seccomp.KILLED} {seccomp.BY_ARGUMENT}"
  return seccomp.numbers(everything, machine)[name]


# Numbers that anybody can look up, so that the table itself is checked: unistd_64.h and asm-generic/unistd.h.
@pytest.mark.parametrize(
  ("machine", "name", "expected", "verdict"),
  [
    ("x86_64", "read", 0, ALLOW),
    ("x86_64", "write", 1, ALLOW),
    ("x86_64", "openat", 257, ALLOW),
    ("x86_64", "futex", 202, ALLOW),
    ("x86_64", "execve", 59, KILL),
    ("x86_64", "fork", 57, KILL),
    ("x86_64", "socket", 41, KILL),
    ("x86_64", "ptrace", 101, KILL),
    ("aarch64", "read", 63, ALLOW),
    ("aarch64", "write", 64, ALLOW),
    ("aarch64", "openat", 56, ALLOW),
    ("aarch64", "futex", 98, ALLOW),
    ("aarch64", "execve", 221, KILL),
    ("aarch64", "socket", 198, KILL),
    ("aarch64", "ptrace", 117, KILL),
    ("aarch64", "mount", 40, KILL),
  ],
)
def test_calls_by_number(machine, name, expected, verdict):
  assert number(machine, name) == expected
  assert answer(machine, expected) == verdict


@pytest.mark.parametrize("machine", MACHINES)
def test_each_call_has_one_answer(machine):
  allowed, killed, by_argument = (
    seccomp.numbers(table, machine) for table in (seccomp.ALLOWED, seccomp.KILLED, seccomp.BY_ARGUMENT)
  )
  everything = [*allowed.values(), *killed.values(), *by_argument.values()]
  assert len(set(everything)) == len(everything)
  assert {answer(machine, call) for call in allowed.values()} == {ALLOW}
  assert {answer(machine, call) for call in killed.values()} == {KILL}
  for call in set(range(600)) - set(everything):
    assert answer(machine, call) == NO_SUCH_CALL, call


@pytest.mark.parametrize("machine", MACHINES)
def test_threads_are_the_one_kind_of_concurrency(machine):
  clone = number(machine, "clone")
  assert answer(machine, clone, CLONE_THREAD_OF_PTHREAD) == ALLOW
  assert answer(machine, clone, 17) == KILL  # SIGCHLD: fork
  assert answer(machine, clone, 0x4100 | 17) == KILL  # VM, VFORK: posix_spawn
  for namespace in (0x10000000, 0x20000000, 0x00020000, 0x40000000, 0x08000000, 0x04000000, 0x02000000, 0x80):
    assert answer(machine, clone, CLONE_THREAD_OF_PTHREAD | namespace) == KILL
  assert answer(machine, 435, 0) == NO_SUCH_CALL  # clone3


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_by_argument(machine):
  prctl, ioctl, socketpair = (number(machine, name) for name in ("prctl", "ioctl", "socketpair"))
  assert answer(machine, prctl, 15) == ALLOW  # PR_SET_NAME
  for option in (1, 4, 22, 38, 47):  # PDEATHSIG, DUMPABLE, SECCOMP, NO_NEW_PRIVS, CAP_AMBIENT
    assert answer(machine, prctl, option) == KILL
  for descriptor in (0, 1, 0x5401):
    assert answer(machine, ioctl, descriptor, 0x5401) == ALLOW  # TCGETS: isatty
    assert answer(machine, ioctl, descriptor, 0x5412) == ERROR | errno.ENOTTY  # TIOCSTI: input to a terminal
  assert answer(machine, socketpair, 1) == ALLOW
  assert answer(machine, socketpair, 30) == KILL


@pytest.mark.parametrize("machine", MACHINES)
def test_another_architecture_is_killed(machine):
  others = {*AUDIT_ARCH.values(), 0x40000003, 0x40000028} - {AUDIT_ARCH[machine]}  # i386 and arm too
  for arch in others:
    assert answer(machine, number(machine, "read"), arch=arch) == KILL


def test_x32_numbers_are_killed():
  for call in (0, 1, 39, 520):
    assert answer("x86_64", 0x40000000 | call) == KILL


def test_jumps_fit_their_byte():
  for machine in MACHINES:
    rows = seccomp.program(machine)
    assert all(0 <= jump < 256 for _, *jumps, _ in rows for jump in jumps)
    assert len(rows) <= 4096  # BPF_MAXINSNS

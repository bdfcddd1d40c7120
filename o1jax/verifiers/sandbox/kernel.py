"""Linux calls that Python's standard library lacks, through ctypes.

Each raises OSError with the call's name.
"""

import ctypes
import os
import platform
import resource
from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
_ATIME_FLAGS = {os.ST_NOATIME: 1024, os.ST_NODIRATIME: 2048, os.ST_RELATIME: 1 << 21}
_MNT_DETACH = 2

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = 63  # of any kernel to come; those that this one does not know answer EINVAL
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_READ = 1 << 2 | 1 << 3  # files, directories
# Access rights that a version (its place here) knows, over files: the lowest n bits; over the network;
# scopes.
_LANDLOCK_RIGHTS = ((0, 0, 0), (13, 0, 0), (14, 0, 0), (15, 0, 0), (15, 2, 0), (16, 2, 0), (16, 2, 2))

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: Any) -> int:
  result = getattr(_libc, name)(*arguments)
  if result < 0:
    number = ctypes.get_errno()
    raise OSError(number, f"{name}: {os.strerror(number)}")
  return result


def _syscall(name: str, number: int, *arguments: Any) -> int:
  result = _libc.syscall(ctypes.c_long(number), *arguments)
  if result < 0:
    number = ctypes.get_errno()
    raise OSError(number, f"{name}: {os.strerror(number)}")
  return result


def unshare(flags: int) -> None:
  """Gives the calling process namespaces of its own (CLONE_NEWPID: gives them to its next children)."""
  _call("unshare", flags)


def setns(descriptor: int, flags: int) -> None:
  """Puts the calling process into the namespaces of the process behind a pidfd."""
  _call("setns", descriptor, flags)


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
  """mount(2)."""
  encoded = None if kind is None else kind.encode()
  _call("mount", source.encode(), os.fsencode(target), encoded, ctypes.c_ulong(flags), data.encode())


def bind_read_only(source: str, target: str) -> None:
  """Shows the tree `source` at `target`, without writing, set-user-id bits or devices."""
  mount(source, target, None, MS_BIND | MS_REC)
  # A mount that came from a more privileged namespace must keep the flags it has.
  current = os.statvfs(target).f_flag
  kept = sum(flag for bit, flag in _ATIME_FLAGS.items() if current & bit) | (current & os.ST_NOEXEC)
  mount("none", target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | kept)


def pivot_root(new: str, old: str) -> None:
  """Makes `new` the root of the mount namespace and puts what was the root at `old`, below it."""
  _syscall("pivot_root", _PIVOT_ROOT[platform.machine()], new.encode(), old.encode())


def detach(target: str) -> None:
  """Takes a mount, and all below it, out of the namespace."""
  _call("umount2", target.encode(), _MNT_DETACH)


def end_with_parent(signal_number: int) -> None:
  """Has the kernel send the calling process a signal when the thread that started it ends."""
  _call("prctl", _PR_SET_PDEATHSIG, signal_number, 0, 0, 0)


def limit(which: int, value: int) -> None:
  """Sets a resource limit for good (soft and hard), to the hard one where that is lower."""
  most = resource.getrlimit(which)[1]
  value = value if most == resource.RLIM_INFINITY else min(value, most)
  resource.setrlimit(which, (value, value))


def forbid_new_privileges() -> None:
  """No exec may give more rights than the calling thread has."""
  _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def forbid_dumps() -> None:
  """No core dump (not even to a program that core_pattern names) and no tracing of this process."""
  _call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)


def drop_bounding_set() -> None:
  """Takes from all that is ever exec'd the means to gain a capability."""
  for capability in range(_LAST_CAPABILITY + 1):
    _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def drop_capabilities() -> None:
  """Empties the calling thread's permitted, effective and inheritable sets."""
  header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
  _call("capset", header, (ctypes.c_uint32 * 6)())


def landlock_version() -> int:
  """The version of the kernel's Landlock, 0 where it has none."""
  return max(0, _libc.syscall(ctypes.c_long(_LANDLOCK_CREATE_RULESET), None, ctypes.c_size_t(0), 1))


class _PathRule(ctypes.Structure):
  _pack_ = 1
  _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def landlock(version: int, readable: list[str], writable: str) -> None:
  """Leaves the calling thread to read below `readable`, and to do all that files allow below `writable`.

  Nothing else: no other path, no TCP port, no abstract socket or signal out of its domain, as far as
  `version` can.
  """
  files, network, scopes = _LANDLOCK_RIGHTS[min(version, len(_LANDLOCK_RIGHTS) - 1)]
  everything = (1 << files) - 1
  attributes = (ctypes.c_uint64 * 3)(everything, (1 << network) - 1, (1 << scopes) - 1)
  size = ctypes.c_size_t(24 if version >= 6 else 16 if version >= 4 else 8)
  rules = _syscall("landlock_create_ruleset", _LANDLOCK_CREATE_RULESET, attributes, size, 0)
  for path, rights in [*((path, _LANDLOCK_READ) for path in readable), (writable, everything)]:
    parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    rule = _PathRule(rights, parent)
    _syscall("landlock_add_rule", _LANDLOCK_ADD_RULE, rules, 1, ctypes.byref(rule), 0)
    os.close(parent)
  _syscall("landlock_restrict_self", _LANDLOCK_RESTRICT_SELF, rules, 0)
  os.close(rules)

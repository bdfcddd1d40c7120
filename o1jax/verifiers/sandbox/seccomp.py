"""The system calls that a candidate's program may make, as a seccomp filter for x86_64 and aarch64.

Three answers. What Python needs for computing, files, threads and signals is allowed. What has no place in a
graded program (processes, sockets, mounts, namespaces, tracing, keys, shared memory that no limit counts,
...) kills the process with SIGSYS, which the sandbox reads as `policy`. Whatever else there is or will be
does not exist (ENOSYS).

Threads are the one kind of concurrency: `clone` must ask for one, and `clone3`, whose arguments a filter
cannot read, does not exist, so that the C library falls back to `clone`. The only sockets are pairs of the
process's own.
"""

import ctypes
import errno
import struct
from collections.abc import Sequence

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_COLUMN = {"x86_64": 1, "aarch64": 2}
_X32_BIT = 0x40000000  # x86_64 calls under 32-bit numbers

# name:number on x86_64:number on aarch64, as in the kernel's unistd.h; `-` where an architecture has none.
# fchmod is not among them: by descriptor a program reaches /dev/null, which its user may own on the machine.
ALLOWED = """
  read:0:63 write:1:64 readv:19:65 writev:20:66 pread64:17:67 pwrite64:18:68 preadv:295:69 pwritev:296:70
  lseek:8:62 close:3:57 close_range:436:436 dup:32:23 dup2:33:- dup3:292:24 pipe:22:- pipe2:293:59
  fcntl:72:25 flock:73:32 open:2:- openat:257:56 openat2:437:437 creat:85:- access:21:- faccessat:269:48
  faccessat2:439:439 stat:4:- lstat:6:- fstat:5:80 newfstatat:262:79 statx:332:291 statfs:137:43
  fstatfs:138:44 getdents:78:- getdents64:217:61 getcwd:79:17 chdir:80:49 fchdir:81:50 mkdir:83:-
  mkdirat:258:34 rmdir:84:- rename:82:- renameat:264:38 renameat2:316:276 link:86:- linkat:265:37
  unlink:87:- unlinkat:263:35 symlink:88:- symlinkat:266:36 readlink:89:- readlinkat:267:78 chmod:90:-
  fchmodat:268:53 umask:95:166 utime:132:- utimes:235:- utimensat:280:88 futimesat:261:-
  truncate:76:45 ftruncate:77:46 fallocate:285:47 fsync:74:82 fdatasync:75:83 sync_file_range:277:84
  fadvise64:221:223 sendfile:40:71 copy_file_range:326:285 mmap:9:222 munmap:11:215 mremap:25:216
  mprotect:10:226 madvise:28:233 msync:26:227 mincore:27:232 brk:12:214 rt_sigaction:13:134
  rt_sigprocmask:14:135 rt_sigreturn:15:139 rt_sigpending:127:136 rt_sigsuspend:130:133
  rt_sigtimedwait:128:137 sigaltstack:131:132 kill:62:129 tkill:200:130 tgkill:234:131 pause:34:-
  alarm:37:- getitimer:36:102 setitimer:38:103 restart_syscall:219:128 poll:7:- ppoll:271:73 select:23:-
  pselect6:270:72 epoll_create:213:- epoll_create1:291:20 epoll_ctl:233:21 epoll_wait:232:-
  epoll_pwait:281:22 epoll_pwait2:441:441 eventfd:284:- eventfd2:290:19 timerfd_create:283:85
  timerfd_settime:286:86 timerfd_gettime:287:87 signalfd4:289:74 sendto:44:206 recvfrom:45:207 shutdown:48:210
  getsockname:51:204 getpeername:52:205 getsockopt:55:209 setsockopt:54:208
  nanosleep:35:101 clock_nanosleep:230:115 clock_gettime:228:113 clock_getres:229:114 gettimeofday:96:169
  time:201:- times:100:153 getrusage:98:165 sysinfo:99:179 uname:63:160 sched_yield:24:124
  sched_getaffinity:204:123 sched_getparam:143:121 sched_getscheduler:145:120
  sched_get_priority_max:146:125 sched_get_priority_min:147:126 getpriority:140:141 getcpu:309:168
  getpid:39:172 gettid:186:178 getppid:110:173 getpgrp:111:- getpgid:121:155 getsid:124:156 getuid:102:174
  geteuid:107:175 getgid:104:176 getegid:108:177 getresuid:118:148 getresgid:120:150 getgroups:115:158
  getrlimit:97:163 setrlimit:160:164 prlimit64:302:261 wait4:61:260 waitid:247:95 futex:202:98
  futex_waitv:449:449 set_tid_address:218:96 set_robust_list:273:99 get_robust_list:274:100 rseq:334:293
  membarrier:324:283 getrandom:318:278 exit:60:93 exit_group:231:94
"""
KILLED = """
  fork:57:- vfork:58:- execve:59:221 execveat:322:281 socket:41:198 connect:42:203 bind:49:200
  listen:50:201 accept:43:202 accept4:288:242 ptrace:101:117 process_vm_readv:310:270
  process_vm_writev:311:271 process_madvise:440:440 kcmp:312:272 pidfd_open:434:434 pidfd_getfd:438:438
  pidfd_send_signal:424:424 mount:165:40 umount2:166:39 pivot_root:155:41 chroot:161:51 open_tree:428:428
  move_mount:429:429 fsopen:430:430 fsconfig:431:431 fsmount:432:432 fspick:433:433 mount_setattr:442:442
  mknod:133:- mknodat:259:33 unshare:272:97 setns:308:268 setuid:105:146 setgid:106:144 setreuid:113:145
  setregid:114:143 setresuid:117:147 setresgid:119:149 setfsuid:122:151 setfsgid:123:152 setgroups:116:159
  capset:126:91 setpgid:109:154 setsid:112:157 keyctl:250:219 add_key:248:217 request_key:249:218
  bpf:321:280 perf_event_open:298:241 userfaultfd:323:282 io_uring_setup:425:425 io_uring_enter:426:426
  io_uring_register:427:427 memfd_create:319:279 memfd_secret:447:447 shmget:29:194 shmat:30:196
  shmctl:31:195 shmdt:67:197 msgget:68:186 msgsnd:69:189 msgrcv:70:188 msgctl:71:187 semget:64:190
  semop:65:193 semctl:66:191 semtimedop:220:192 mq_open:240:180 mq_unlink:241:181 mq_timedsend:242:182
  mq_timedreceive:243:183 mq_notify:244:184 mq_getsetattr:245:185 kexec_load:246:104
  kexec_file_load:320:294 init_module:175:105 finit_module:313:273 delete_module:176:106 reboot:169:142
  swapon:167:224 swapoff:168:225 acct:163:89 quotactl:179:60 quotactl_fd:443:443 syslog:103:116
  sethostname:170:161 setdomainname:171:162 settimeofday:164:170 clock_settime:227:112 adjtimex:159:171
  clock_adjtime:305:266 personality:135:92 seccomp:317:277 name_to_handle_at:303:264 open_by_handle_at:304:265
  fanotify_init:300:262 fanotify_mark:301:263 iopl:172:- ioperm:173:- modify_ldt:154:- uselib:134:-
  vhangup:153:58 landlock_create_ruleset:444:444 landlock_add_rule:445:445 landlock_restrict_self:446:446
  lookup_dcookie:212:18 sendmsg:46:211 sendmmsg:307:269 recvmsg:47:212 recvmmsg:299:243 vmsplice:278:75
"""
BY_ARGUMENT = "clone:56:220 prctl:157:167 ioctl:16:29 socketpair:53:199"

_CLONE_THREAD = 0x00010000
_CLONE_NEW = 0x7E020080  # all namespaces: user, pid, net, ipc, uts, cgroup, mount, time
_PRCTL_HARMLESS = (15, 16, 0x53564D41)  # a thread's name, set and get; a mapping's name
# TCGETS TIOCGWINSZ FIONBIO FIONREAD FIONCLEX FIOCLEX
_IOCTL_HARMLESS = (0x5401, 0x5413, 0x5421, 0x541B, 0x5450, 0x5451)
_AF_UNIX = 1

# Classic BPF (linux/bpf_common.h) and what a filter returns (linux/seccomp.h).
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
# Offsets in struct seccomp_data; of the argument its low word (little endian).
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


def numbers(table: str, machine: str) -> dict[str, int]:
  """The calls of a table by name, as far as `machine` has them."""
  rows = [row.split(":") for row in table.split()]
  return {row[0]: int(row[_COLUMN[machine]]) for row in rows if row[_COLUMN[machine]] != "-"}


def _answer(value: int) -> Instruction:
  return (_RETURN, 0, 0, value)


def _argument_in(argument: int, values: Sequence[int], otherwise: int) -> list[Instruction]:
  """Allows a call whose argument (the first is 0) is one of `values`, looked at as 32 bits."""
  rows: list[Instruction] = [(_LOAD, 0, 0, _FIRST_ARGUMENT + 8 * argument)]
  for value in values:
    rows += [(_EQUAL, 0, 1, value), _answer(ALLOW)]
  return [*rows, _answer(otherwise)]


def program(machine: str) -> list[Instruction]:
  """The filter for `machine`, one of AUDIT_ARCH."""
  rows: list[Instruction] = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, AUDIT_ARCH[machine]), _answer(KILL)]
  rows += [(_LOAD, 0, 0, _NUMBER), (_AT_LEAST, 0, 1, _X32_BIT), _answer(KILL)]
  for table, answer in ((ALLOWED, ALLOW), (KILLED, KILL)):
    for number in numbers(table, machine).values():
      rows += [(_EQUAL, 0, 1, number), _answer(answer)]
  thread: list[Instruction] = [
    (_LOAD, 0, 0, _FIRST_ARGUMENT),
    (_ANY_BIT, 1, 0, _CLONE_NEW),
    (_ANY_BIT, 1, 0, _CLONE_THREAD),
    _answer(KILL),
    _answer(ALLOW),
  ]
  bodies = {
    "clone": thread,
    "prctl": _argument_in(0, _PRCTL_HARMLESS, KILL),
    "ioctl": _argument_in(1, _IOCTL_HARMLESS, ERROR | errno.ENOTTY),
    "socketpair": _argument_in(0, [_AF_UNIX], KILL),
  }
  for name, number in numbers(BY_ARGUMENT, machine).items():
    rows += [(_EQUAL, 0, len(bodies[name]), number), *bodies[name]]
  return [*rows, _answer(ERROR | errno.ENOSYS)]


class _Program(ctypes.Structure):
  _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def prepare(instructions: Sequence[Instruction]) -> ctypes.Structure:
  """A filter in the form that `install` takes."""
  return _Program(len(instructions), b"".join(struct.pack("=HBBI", *row) for row in instructions))


def install(prepared: ctypes.Structure) -> None:
  """Puts the calling thread, and all it starts, under a filter for good. Needs no_new_privs or CAP_SYS_ADMIN.

  Raises OSError where the kernel has no seccomp filters or another filter forbids them.
  """
  libc = ctypes.CDLL(None, use_errno=True)
  if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(prepared), 0, 0) != 0:
    raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")

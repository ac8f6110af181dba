"""Takes system calls away from this process for good, by a seccomp filter; needs no privilege (seccomp(2)).

The filter refuses what reaches beyond the process: sockets, other processes, mounts, keys, names of files. What
decoding needs stays: reading and writing open files, memory, threads. A refused call fails with EPERM.

It supports two architectures, and refuses to run on others. Calls that are newer than the table fail with ENOSYS, as on
a kernel that does not have them.
"""

import ctypes
import errno
import os
import struct
import sys

#: Machines by ``uname``: the column of the table, and AUDIT_ARCH of linux/audit.h.
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
#: The newest call in the table, the same on both (mseal, Linux 6.10). Numbers of x32 are far above.
_NEWEST = 462

#: Numbers on x86-64 and aarch64 (asm/unistd_64.h, asm-generic/unistd.h); None where the call does not exist.
Call = tuple[int | None, int | None]

#: Refused to every decoder.
REFUSED: dict[str, Call] = {
    # sockets
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    # namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "statmount": (457, 457),
    "listmount": (458, 458),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    # the kernel
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "syslog": (103, 116),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "personality": (135, 92),
    "vhangup": (153, 58),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
    "_sysctl": (156, None),
    "uselib": (134, None),
    "ustat": (136, None),
    "sysfs": (139, None),
    # memory shared with other processes
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "semget": (64, 190),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "semctl": (66, 191),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    # changes of files, other than through open ones
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "truncate": (76, 45),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "creat": (85, None),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27),
}
#: Refused unless the process may start others.
_NEW_PROCESSES: dict[str, Call] = {
    "fork": (57, None),
    "vfork": (58, None),
}
#: Refused to a process that has all its files open.
_OPENING: dict[str, Call] = {
    "open": (2, None),
    "openat": (257, 56),
    "openat2": (437, 437),
    "execve": (59, 221),
    "execveat": (322, 281),
}
#: Refused depending on an argument, and the call that installs the filter.
_PARTLY: dict[str, Call] = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "kill": (62, 129),
    "tgkill": (234, 131),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "fcntl": (72, 25),
    "ioctl": (16, 29),
    "seccomp": (317, 277),
}
#: All of them.
CALLS = REFUSED | _NEW_PROCESSES | _OPENING | _PARTLY

_CLONE_THREAD = 0x00010000  # linux/sched.h, like the next two
_CLONE_NEW_ANY = 0x7E020080  # every CLONE_NEW... flag
_PR_SET_PDEATHSIG = 1  # linux/prctl.h, like the next
_PR_SET_DUMPABLE = 4
#: fcntl(2) commands that send signals to others: F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY.
_FCNTL = (8, 10, 15, 1024, 1026)
#: ioctl(2) requests that type into a terminal or send signals to others: TIOCSTI, TIOCLINUX, FIOSETOWN, SIOCSPGRP.
_IOCTL = (0x5412, 0x541C, 0x8901, 0x8902)

_LOAD = 0x20  # linux/bpf_common.h: BPF_LD | BPF_W | BPF_ABS, and jumps that compare with a constant
_EQUAL = 0x15
_GREATER = 0x25
_GREATER_OR_EQUAL = 0x35
_ANY_BIT = 0x45
_RETURN = 0x06
_ALLOW = 0x7FFF0000  # linux/seccomp.h, like the next two
_ERRNO = 0x00050000
_KILL_PROCESS = 0x80000000
_REFUSE = _ERRNO | errno.EPERM
_UNKNOWN = _ERRNO | errno.ENOSYS

_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_GET_ACTION_AVAIL = 2
_SECCOMP_FILTER_FLAG_TSYNC = 1  # for all threads of the process


def available(libc: ctypes.CDLL) -> bool:
    """Returns whether this kernel and machine can filter system calls."""
    machine = _machine()
    if machine is None:
        return False
    action = ctypes.c_uint32(_ERRNO)
    number = _PARTLY["seccomp"][machine[0]]
    return bool(libc.syscall(number, _SECCOMP_GET_ACTION_AVAIL, 0, ctypes.byref(action)) == 0)


def install(libc: ctypes.CDLL, *, opens: bool, forks: bool = False) -> None:
    """Installs the filter in all threads of this process; programs that it executes inherit it.

    Args:
        libc: the C library; the process must already have no new privileges (prctl(2)).
        opens: whether files may be opened and programs executed. Landlock says which.
        forks: whether processes may be started.

    Raises:
        OSError: the kernel or the machine does not support it.
    """
    machine = _machine()
    if machine is None:
        raise OSError(errno.ENOSYS, f"there is no system call filter for {os.uname().machine}")
    load(libc, _program(*machine, opens=opens, forks=forks))


def load(libc: ctypes.CDLL, program: bytes) -> None:
    """Installs this filter in all threads of this process, as ``install`` does.

    Raises:
        OSError: the kernel refused it.
    """
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions of 8 bytes, and where they are.
    fprog = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code)))
    number = _PARTLY["seccomp"][_MACHINES[os.uname().machine][0]]
    if libc.syscall(number, _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC, fprog) != 0:
        raise OSError(ctypes.get_errno(), "the kernel refused the system call filter")


def _machine() -> tuple[int, int] | None:
    # A 32-bit program on a 64-bit kernel has other numbers.
    return _MACHINES.get(os.uname().machine) if sys.maxsize > 1 << 32 else None


def _program(column: int, arch: int, *, opens: bool, forks: bool) -> bytes:
    refused = dict(REFUSED)
    if not forks:
        refused |= _NEW_PROCESSES
    if not opens:
        refused |= _OPENING
    numbers = sorted(number for call in refused.values() if (number := call[column]) is not None)
    partly = {name: call[column] for name, call in _PARTLY.items()}
    pid = os.getpid()
    clone = (_ANY_BIT, _CLONE_NEW_ANY, _REFUSE, _ALLOW) if forks else (_ANY_BIT, _CLONE_THREAD, _ALLOW, _REFUSE)
    settings = (_PR_SET_DUMPABLE,) if forks else (_PR_SET_DUMPABLE, _PR_SET_PDEATHSIG)
    # struct seccomp_data: the number at 0, the architecture at 4, arguments of 8 bytes from 16 on, little-endian.
    parts = [
        *(_instruction(_LOAD, 4), _instruction(_EQUAL, arch, 1, 0), _instruction(_RETURN, _KILL_PROCESS)),
        *(_instruction(_LOAD, 0), _instruction(_GREATER, _NEWEST, 0, 1), _instruction(_RETURN, _UNKNOWN)),
        _call(partly["clone3"], _instruction(_RETURN, _UNKNOWN)),  # its flags are in memory; libc falls back to clone
        _call(partly["clone"], _argument(0), _test(*clone)),
        _call(partly["kill"], _argument(0), _test(_EQUAL, pid, _ALLOW, _REFUSE)),
        _call(partly["tgkill"], _argument(0), _test(_EQUAL, pid, _ALLOW, _REFUSE)),
        _call(partly["prlimit64"], _argument(0), _test(_EQUAL, 0, _ALLOW, _REFUSE)),
        _call(partly["prctl"], _argument(0), _refuse(settings)),
        _call(partly["fcntl"], _argument(1), _refuse(_FCNTL)),
        _call(partly["ioctl"], _argument(1), _refuse(_IOCTL)),
    ]
    return b"".join(parts) + refusing(numbers)


def refusing(numbers: list[int]) -> bytes:
    """Returns a filter that refuses the calls of these numbers, in ascending order."""
    tests = (_range(first, last) for first, last in _ranges(numbers))
    return _instruction(_LOAD, 0) + b"".join(tests) + _instruction(_RETURN, _ALLOW)


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = ranges[-1][0], number
        else:
            ranges.append((number, number))
    return ranges


def _instruction(code: int, constant: int, if_true: int = 0, if_false: int = 0) -> bytes:
    # struct sock_filter; the jumps count instructions to skip.
    return struct.pack("HBBI", code, if_true, if_false, constant)


def _argument(index: int) -> bytes:
    # The lower half: the kernel takes these arguments as int.
    return _instruction(_LOAD, 16 + 8 * index)


def _test(code: int, constant: int, if_true: int, if_false: int) -> bytes:
    return _instruction(code, constant, 0, 1) + _instruction(_RETURN, if_true) + _instruction(_RETURN, if_false)


def _refuse(values: tuple[int, ...]) -> bytes:
    tests = (_instruction(_EQUAL, value, 0, 1) + _instruction(_RETURN, _REFUSE) for value in values)
    return b"".join(tests) + _instruction(_RETURN, _ALLOW)


def _call(number: int | None, *parts: bytes) -> bytes:
    if number is None:
        return b""
    body = b"".join(parts)
    return _instruction(_EQUAL, number, 0, len(body) // 8) + body


def _range(first: int, last: int) -> bytes:
    refuse = _instruction(_RETURN, _REFUSE)
    if first == last:
        return _instruction(_EQUAL, first, 0, 1) + refuse
    return _instruction(_GREATER_OR_EQUAL, first, 0, 2) + _instruction(_GREATER, last, 1, 0) + refuse

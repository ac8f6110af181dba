"""Takes files and the network away from this process for good, by Landlock; needs no privilege (landlock(7)).

Files that are open already stay usable.
"""

import ctypes
import os
import struct

EXECUTE = 1 << 0  # linux/landlock.h, LANDLOCK_ACCESS_FS_*, like the next three
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3

#: Each version of Landlock restricts more, if it is asked for; before the first there were 13 rights.
_RIGHTS_OF_FIRST = (1 << 13) - 1
_RIGHTS_SINCE = {2: 1 << 13, 3: 1 << 14, 5: 1 << 15}  # moving files, truncating, ioctl of devices
_NETWORK_SINCE = 4
_NETWORK = 3  # binding and connecting TCP sockets
_SCOPES_SINCE = 6
_SCOPES = 3  # abstract Unix sockets and signals
#: What a version lacks; the filter of system calls (``seccomp.py``) refuses all of it too.
_LACKING = {3: "truncating files", _NETWORK_SINCE: "TCP", 5: "device ioctls", _SCOPES_SINCE: "signals"}

_CREATE_RULESET = 444  # the system calls, the same on every machine
_ADD_RULE = 445
_RESTRICT_SELF = 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1


def version(libc: ctypes.CDLL) -> int:
    """Returns the version that this kernel has; 0 if it has none, or may not use it."""
    return max(int(libc.syscall(_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)), 0)


def lacking(abi: int) -> list[str]:
    """Returns what this version does not restrict."""
    return [what for since, what in _LACKING.items() if abi < since]


def ruleset(libc: ctypes.CDLL, allowed: dict[str, int]) -> int:
    """Prepares what remains allowed; returns its descriptor for ``restrict``.

    Args:
        libc: the C library.
        allowed: paths and the rights for them; for a directory, for all that is beneath it. Others are left out if
            they do not exist.

    Raises:
        OSError: the kernel does not support it.
    """
    abi = version(libc)
    rights = _RIGHTS_OF_FIRST
    for since, right in _RIGHTS_SINCE.items():
        rights |= right if abi >= since else 0
    # struct landlock_ruleset_attr; older kernels take a shorter one, or zeros.
    attributes = struct.pack(
        "QQQ", rights, _NETWORK if abi >= _NETWORK_SINCE else 0, _SCOPES if abi >= _SCOPES_SINCE else 0
    )
    rules = libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if rules < 0:
        raise OSError(ctypes.get_errno(), "the kernel refused Landlock")
    for path, right in allowed.items():
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        # struct landlock_path_beneath_attr, packed
        rule = struct.pack("=Qi", right, descriptor)
        failed = libc.syscall(_ADD_RULE, rules, _RULE_PATH_BENEATH, rule, 0)
        os.close(descriptor)
        if failed:
            raise OSError(ctypes.get_errno(), f"the kernel refused the Landlock rule for {path}")
    return int(rules)


def restrict(libc: ctypes.CDLL, rules: int) -> None:
    """Allows this thread, and what it starts, only what the rules allow; closes them.

    Raises:
        OSError: the kernel refused it.
    """
    if libc.syscall(_RESTRICT_SELF, rules, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel refused to apply Landlock")
    os.close(rules)

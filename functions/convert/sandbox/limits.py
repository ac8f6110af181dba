"""Confines this process: resource limits, no network, no new privileges, dies with its parent (``enter``).

``confine`` then takes away for good what decoding does not need: files, sockets, other processes, and root.
"""

import ctypes
import os
import resource
import struct

from functions.convert.sandbox import landlock, seccomp

_PR_SET_PDEATHSIG = 1  # linux/prctl.h, like the next two
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_CLONE_NEWUSER = 0x10000000  # linux/sched.h
_CAPABILITY_VERSION = 0x20080522  # linux/capability.h, _LINUX_CAPABILITY_VERSION_3
_CAP_KILL = 1 << 5
_CAPGET = {"x86_64": 125, "aarch64": 90}  # asm/unistd_64.h, asm-generic/unistd.h, like the next
_CAPSET = {"x86_64": 126, "aarch64": 91}

_SIGKILL = 9  # these four: signal(7), x86 and ARM; the module would take as long to load as everything here
_SIGPIPE = 13
_SIGXFSZ = 25
_SIG_DFL = None

#: The first of the users that root's children become, one each: no other process counts against its limit (NPROC), and
#: none can be signaled. The range is unused by convention (systemd, "Users, Groups, UIDs and GIDs").
_FIRST_USER = 0x70000000
#: The user where a container has only 16 bits of them.
_NOBODY = 65534

_FILE = landlock.READ_FILE | landlock.EXECUTE
_FOLDER = _FILE | landlock.READ_DIR
#: What a program reads to start: the loader, its cache and libraries. None holds a secret.
_PLACES = {
    "/lib": _FOLDER,
    "/lib64": _FOLDER,
    "/usr/lib": _FOLDER,
    "/usr/lib64": _FOLDER,
    "/usr/local/lib": _FOLDER,
    "/etc/ld.so.cache": landlock.READ_FILE,
    "/dev/null": landlock.READ_FILE | landlock.WRITE_FILE,
    "/dev/urandom": landlock.READ_FILE,
}

#: Names of resource limits ("AS", "CPU", "FSIZE", "NOFILE", "NPROC") and their values.
Limits = dict[str, int]


def enter(parent: int, limits: Limits) -> None:
    """Confines this process. Resource limits always apply; the rest as far as the kernel allows it.

    Args:
        parent: id of the process that this one must not outlive.
        limits: resource limits, both soft and hard; one above the current hard limit leaves that in place.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # Root becomes another user in ``confine``, which a user namespace would prevent.
    libc.unshare(_CLONE_NEWNET if os.geteuid() == 0 else _CLONE_NEWUSER | _CLONE_NEWNET)
    _die_with(libc, parent)  # after that, since a change of credentials cancels it
    for number in (_SIGPIPE, _SIGXFSZ):
        libc.signal(number, _SIG_DFL)  # Python ignores it, and the executed program would inherit that
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit(limits)


def limit(limits: Limits) -> None:
    """Sets resource limits, as ``enter`` does."""
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # At the hard CPU limit the kernel sends SIGKILL; at the soft one SIGXCPU: the file is at fault.
        soft = value - 1 if name == "CPU" and value > 1 else value
        resource.setrlimit(kind, (soft, value))


def confine(parent: int, *, tasks: int, program: str | None = None, forks: bool = False) -> None:
    """Confines this process for good, after ``enter``. Kills it if the kernel refuses any of that.

    What remains are its open files and memory, and, if it has a program to execute, that program and the libraries of
    the system.

    Args:
        parent: as for ``enter``.
        tasks: limit of processes and threads; set only if this process was root. Otherwise those of the same user
            would count too.
        program: path of the only program that may be executed; None for none, and for no more files.
        forks: whether it may start processes.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        places = {} if program is None else _places(program)
        rules = landlock.ruleset(libc, places)
        if _become_another_user(libc):
            limit({"NPROC": tasks})
        _drop_capabilities(libc)
        _die_with(libc, parent)
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        landlock.restrict(libc, rules)
        seccomp.install(libc, opens=program is not None, forks=forks)
    except OSError as error:
        # If a program was killed, the parent attributes that to the system, not to the user's file.
        os.write(2, f"the sandbox cannot be entered: {error}\n".encode())
        os.kill(os.getpid(), _SIGKILL)
        os._exit(1)  # the first process of a container ignores that signal


def _places(program: str) -> dict[str, int]:
    # Not by pathlib, which takes longer to load than everything here.
    path = os.path.realpath(program)
    # A program that is not the system's may come with libraries, in a folder beside its own.
    libraries = path.rsplit("/", 2)[0] + "/lib"
    return {**_PLACES, path: _FILE, libraries: landlock.READ_FILE | landlock.READ_DIR}


def _die_with(libc: ctypes.CDLL, parent: int) -> None:
    libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call above
        os._exit(1)


def _become_another_user(libc: ctypes.CDLL) -> bool:
    """Changes the user of this process if it is root; returns whether no other process has the new user."""
    if os.geteuid() != 0 or not _may_kill_others(libc):
        return False
    for user in (_FIRST_USER + os.getpid(), _NOBODY):
        try:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        except OSError:  # a container without that user, or root without the capability
            continue
        return user != _NOBODY
    return False


def _may_kill_others(libc: ctypes.CDLL) -> bool:
    # This process has its parent's capabilities; without this one, root could not stop the child of another user.
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    sets = ctypes.create_string_buffer(24)
    libc.syscall(_CAPGET[os.uname().machine], header, sets)
    effective: int = struct.unpack_from("I", sets)[0]
    return bool(effective & _CAP_KILL)


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    if libc.syscall(_CAPSET[os.uname().machine], header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "the kernel refused to drop capabilities")

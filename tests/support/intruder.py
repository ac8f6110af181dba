"""Hostile code in a decoder's place: tries what a decoder has no need for, and reports what succeeded.

``main`` is the platform that starts it. It is a process of its own, so that it can be another user and ``unshare`` can
be refused to it.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from functions.convert.sandbox import seccomp

#: Tries things one by one, and every system call that the filter refuses; runs where only the standard library is.
SOURCE = r'''
import ctypes, errno, os, sys

def attempts(given):
    """Returns the names of the attempts that succeeded."""
    import fcntl, resource, signal, socket
    libc = ctypes.CDLL(None, use_errno=True)
    numbers, directory, victim = given["numbers"], given["directory"], given["victim"]
    key, database, media = (directory + "/" + name for name in ("key", "database", "media"))

    def call(name, *arguments):
        refused = (errno.EPERM, errno.EACCES, errno.ENOSYS)  # any other error comes from the call itself
        if libc.syscall(numbers[name], *arguments) < 0 and ctypes.get_errno() in refused:
            raise PermissionError(name)

    def connect(family, address):
        with socket.socket(family) as link:
            link.connect(address)

    def fork():
        if (pid := os.fork()) == 0:
            os._exit(0)
        os.waitpid(pid, 0)

    def clone(flags):
        if (pid := libc.syscall(numbers["clone"], flags | signal.SIGCHLD, 0, 0, 0, 0)) == 0:
            os._exit(0)
        if pid < 0:
            raise PermissionError
        os.waitpid(pid, 0)

    def prctl(*arguments):
        if libc.prctl(*arguments, 0, 0, 0):
            raise PermissionError

    def x32():
        if libc.syscall(0x40000000 | 39) < 0:
            raise PermissionError

    tried = {
        "read a key": lambda: open(key, "rb").read(),
        "read a key by openat2": lambda: call("openat2", -100, key.encode(), (ctypes.c_uint64 * 3)(0, 0, 0), 24),
        "write the database": lambda: open(database, "r+b"),
        "create a file": lambda: open(directory + "/new", "w"),
        "list a directory": lambda: os.listdir(directory),
        "read the environment of another process": lambda: open(f"/proc/{victim}/environ", "rb").read(),
        "read the memory of another process": lambda: open(f"/proc/{victim}/mem", "rb"),
        "read /etc/passwd": lambda: open("/etc/passwd", "rb").read(),
        "delete": lambda: os.unlink(media),
        "rename": lambda: os.rename(media, media + "2"),
        "truncate": lambda: os.truncate(media, 0),
        "link": lambda: os.link(key, directory + "/link"),
        "symlink": lambda: os.symlink(key, directory + "/symlink"),
        "mkdir": lambda: os.mkdir(directory + "/folder"),
        "rmdir": lambda: os.rmdir(directory + "/empty"),
        "mkfifo": lambda: os.mkfifo(directory + "/fifo"),
        "chmod": lambda: os.chmod(database, 0o666),
        "chown": lambda: os.chown(database, -1, -1),
        "utime": lambda: os.utime(database),
        "TCP": lambda: connect(socket.AF_INET, ("127.0.0.1", given["port"])),
        "UDP": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "abstract Unix socket": lambda: connect(socket.AF_UNIX, "\0" + given["abstract"]),
        "Unix socket": lambda: connect(socket.AF_UNIX, directory + "/socket"),
        "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        "socketpair": socket.socketpair,
        "kill": lambda: os.kill(victim, 0),
        "kill the group": lambda: os.kill(0, 0),
        "tgkill": lambda: call("tgkill", victim, victim, 0),
        "ptrace": lambda: call("ptrace", 0x4206, victim, 0, 0),
        "limits of another process": lambda: resource.prlimit(victim, resource.RLIMIT_NOFILE),
        "priority of another process": lambda: os.setpriority(os.PRIO_PROCESS, victim, 19),
        "CPU of another process": lambda: os.sched_setaffinity(victim, os.sched_getaffinity(0)),
        "signals by fcntl": lambda: fcntl.fcntl(1, fcntl.F_SETOWN, victim),
        "signals by ioctl": lambda: call("ioctl", 1, 0x8901, 0),
        "typing into a terminal": lambda: call("ioctl", 1, 0x5412, b"x"),
        "outliving the parent": lambda: prctl(1, 0),
        "being dumpable": lambda: prctl(4, 1),
        "become root": lambda: os.setresuid(0, 0, 0),
        "clone a namespace": lambda: clone(0x10000000),
        "clone": lambda: clone(0),
        "clone3": lambda: call("clone3", 0, 0),
        "fork": fork,
        "spawn": lambda: os.waitpid(os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {}), 0),
        "x32": x32,
    }
    for name in given["refused"]:
        tried["call " + name] = lambda name=name: call(name, *[ctypes.c_long(-1)] * 6)
    if given["root"] or os.uname().machine != "x86_64":
        del tried["become root" if given["root"] else "x32"]
    succeeded = []
    for name, attempt in tried.items():
        try:
            attempt()
        except (OSError, PermissionError):
            continue
        succeeded.append(name)
    return succeeded
'''
_SCOPE: dict[str, Any] = {}
exec(compile(SOURCE, "intruder", "exec"), _SCOPE)  # noqa: S102 - ours
attempts: Callable[[dict[str, Any]], list[str]] = _SCOPE["attempts"]
#: A call that hangs up the terminal, and those that the attempts above make with meaning.
_NOT_TRIED = {"vhangup", "fork", "vfork"}


def _numbers() -> dict[str, int]:
    column = 0 if os.uname().machine == "x86_64" else 1
    return {name: number for name, call in seccomp.CALLS.items() if (number := call[column]) is not None}


def _refuse_unshare() -> None:
    """Refuses new namespaces, as the default profiles of Docker and containerd do without CAP_SYS_ADMIN."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    seccomp.load(libc, seccomp.refusing([_numbers()["unshare"]]))
    assert libc.unshare(0x40000000) != 0
    assert libc.unshare(0x10000000) != 0


def main() -> None:
    """Starts hostile code in a decoder's place; prints the names of what succeeded, as JSON.

    Arguments: the place, the user ("" for this one), whether unshare is refused, and a Python that user can run.
    """
    place, user, unshare_refused, python = sys.argv[1:]
    if unshare_refused:
        _refuse_unshare()
    if user:
        os.setgroups([])
        os.setgid(int(user))
        os.setuid(int(user))
    sys.executable = python
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        for file in ("key", "database", "media"):
            (directory / file).write_text("secret")
        directory.chmod(0o777)
        (directory / "empty").mkdir()
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for address in (str(directory / "socket"), f"\0mp3burst-{os.getpid()}"):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(address)
            listener.listen()
        victim = stack.enter_context(subprocess.Popen(["/bin/sleep", "60"]))
        stack.callback(victim.kill)
        given = {
            "numbers": _numbers(),
            "refused": sorted(set(_numbers()) & set(seccomp.REFUSED) - _NOT_TRIED),
            "directory": name,
            "victim": victim.pid,
            "port": server.getsockname()[1],
            "abstract": f"mp3burst-{os.getpid()}",
            "root": os.environ.get("SANDBOX") == "off",
        }
        sys.stdout.write(_PLACES[place](given, directory))


def _as_demux_child(given: dict[str, Any], directory: Path) -> str:
    """Through the code that starts demux children, and their own up to the user's file."""
    from functions.convert.demux import spawner
    from functions.convert.demux.protocol import TrackOrder

    start = "import sys; sys.path[:] = {!r}; from tests.support.intruder import demux_child; "
    spawner._START = start + f"demux_child({given!r})".replace("{", "{{").replace("}", "}}")
    child = spawner.start()
    with (directory / "track").open("w+b") as target:
        child.begin(target.fileno(), 1 << 20, TrackOrder(0, False))
        child.process.wait(30)
        child.link.close()
        target.seek(0)
        return target.read().decode()


def demux_child(given: dict[str, Any]) -> None:
    """Is a demux child until it has its order."""
    from functions.convert.demux.child import main as child
    from functions.convert.demux.protocol import Fault, FaultReport

    def carry_out(_order: Any, _source: Any, target: Any, _reporter: Any) -> FaultReport:
        target.write(json.dumps(attempts(given)).encode())
        target.flush()
        return FaultReport(Fault.BROKEN)

    child._carry_out = carry_out  # type: ignore[assignment]
    for module in ("fcntl", "resource", "signal", "socket"):
        __import__(module)
    child.main()


def _as_picture_child(given: dict[str, Any], directory: Path) -> str:
    """Through the code that starts children that convert a picture, and their own up to the picture."""
    from functions.convert import cover

    start = f"import sys; sys.path[:] = {sys.path!r}; from tests.support import intruder; "
    cover._START = (start + f"intruder.{picture_child.__name__}({given!r})").replace("{", "{{").replace("}", "}}")
    (directory / "picture").touch()
    with (directory / "jpeg").open("w+b") as target:
        cover._start("cover_picture", directory / "picture", target.fileno(), {}).wait(30)
        return target.read().decode()


def picture_child(given: dict[str, Any]) -> None:
    """Is a child that converts a picture until it opens it."""
    from functions.convert.demux.child import cover_picture as child

    def convert(_image_module: Any, _source: int, out: int) -> None:
        os.pwrite(out, json.dumps(attempts(given)).encode(), 0)

    child.convert = convert  # type: ignore[assignment]
    for module in ("fcntl", "resource", "signal", "socket"):
        __import__(module)
    child.main()


def _as_ffmpeg(given: dict[str, Any], _: Path) -> str:
    """Through the launcher, as a program that can start."""
    from functions.convert.sandbox import spawn

    code = f"{SOURCE}\nimport json\nprint(json.dumps(attempts({given!r})))"
    limits = {"AS": 4 << 30, "CPU": 60, "FSIZE": 1 << 20, "NOFILE": 64}
    process = spawn.spawn([sys.executable, "-I", "-S", "-c", code], limits, stdout=subprocess.PIPE, stderr=2)
    return process.communicate(timeout=30)[0].decode()


def _as_cover_child(given: dict[str, Any], _: Path, ffmpeg: bool = False) -> str:
    """In a process that is confined as a cover child, or as the ffmpeg that it starts."""
    from functions.convert.sandbox import setting

    confined = setting.is_on(os.environ)
    arguments = f"({given!r}, {os.getpid()}, {ffmpeg}, {confined})"
    code = f"from tests.support import intruder; intruder.{cover_child.__name__}{arguments}"
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, timeout=30)
    return process.stdout.decode()


def cover_child(given: dict[str, Any], parent: int, ffmpeg: bool, confined: bool) -> None:
    """Confines itself, then prints what succeeded."""
    from functions.convert.demux.child import cover_frame
    from functions.convert.sandbox import limits

    for module in ("fcntl", "resource", "signal", "socket"):
        __import__(module)
    limits.enter(parent, {"AS": 1 << 30, "CPU": 60, "FSIZE": 1 << 20, "NOFILE": 256})
    if confined:
        limits.confine(parent, tasks=32, program="/bin/true", forks=True)
    if ffmpeg and os.fork():
        os.wait()
        return
    if ffmpeg:
        running = cover_frame.Ffmpeg.__new__(cover_frame.Ffmpeg)
        running.confine()
    os.write(1, json.dumps(attempts(given)).encode())
    os._exit(0)


_PLACES: dict[str, Callable[[dict[str, Any], Path], str]] = {
    "demux child": _as_demux_child,
    "picture child": _as_picture_child,
    "ffmpeg": _as_ffmpeg,
    "cover child": _as_cover_child,
    "ffmpeg of the cover child": lambda given, directory: _as_cover_child(given, directory, ffmpeg=True),
}

if __name__ == "__main__":
    main()

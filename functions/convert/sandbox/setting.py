"""Reads the setting SANDBOX, and checks that this kernel supports it."""

import ctypes
import logging
from collections.abc import Mapping
from typing import Final

from functions.convert.sandbox import landlock, seccomp
from functions.settings import BadSetting, switch

log = logging.getLogger(__name__)

_REMEDY: Final = (
    "Use a kernel and a container runtime that allow it, or set SANDBOX=off to decode users' files without it."
)


def is_on(environ: Mapping[str, str]) -> bool:
    """Returns whether decoders are confined by Landlock and seccomp.

    Raises:
        BadSetting: SANDBOX is neither ``on`` nor ``off``, or it is on and the kernel cannot confine.
    """
    wanted = switch(environ, "SANDBOX", default=True)
    if wanted and (missing := _missing()):
        raise BadSetting(f"The sandbox needs {missing}, which this system does not offer. {_REMEDY}")
    return wanted


def check(environ: Mapping[str, str]) -> None:
    """Logs what the sandbox lacks; to be called once, when a converter starts.

    Raises:
        BadSetting: as for ``is_on``.
    """
    if not is_on(environ):
        log.warning(
            "SANDBOX=off: a hostile video that takes over a decoder can read and change what this process can, and "
            "use the network"
        )
        return
    version = landlock.version(_libc())
    if lacking := landlock.lacking(version):
        log.info(
            "sandbox: Landlock has version %d here, which does not restrict %s; the system call filter does",
            version,
            ", ".join(lacking),
        )


def _missing() -> str:
    libc = _libc()
    parts = [
        (landlock.version(libc) > 0, "Landlock (Linux 5.13)"),
        (seccomp.available(libc), "seccomp filters (x86-64 or aarch64)"),
    ]
    return " and ".join(name for present, name in parts if not present)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)

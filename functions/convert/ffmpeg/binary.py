"""Finds the ffmpeg that encodes, and what it supports."""

import functools
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from functions.convert.sandbox import setting, spawn
from functions.settings import BadSetting

#: The first major version of libavfilter whose amovie uses everything that a decoder makes of a packet. The version
#: before it, of ffmpeg 7.0, silently lost all sound after a packet of two frames.
_MIN_LIBAVFILTER: Final = 12
#: Seconds to wait for an answer, to -version say.
_TIMEOUT: Final = 10.0


def configured_ffmpeg(environ: Mapping[str, str]) -> str | None:
    """Returns the absolute path of the program that FFMPEG names; None if it is not set.

    Raises:
        BadSetting: the program does not exist, cannot read an open file that it inherits, or does not start in the
            sandbox.
    """
    name = environ.get("FFMPEG")
    if not name:
        return None
    path = shutil.which(name)
    if path is None:
        raise BadSetting(f"FFMPEG is {name!r}: there is no such program.")
    if b"fd" not in _answer(path, "-protocols").split():
        raise BadSetting(f"FFMPEG is {name!r}, which has no fd protocol: use a newer version, or unset FFMPEG.")
    if setting.is_on(environ) and not _starts_confined(path):
        raise BadSetting(
            f"FFMPEG is {name!r}, which does not start in the sandbox: use a program that is no script and has its "
            "libraries in the folders of the system or in lib beside its own, unset FFMPEG, or set SANDBOX=off."
        )
    return path


def _starts_confined(path: str) -> bool:
    process = spawn.spawn([path, "-version"], {})
    try:
        return process.wait(_TIMEOUT) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        spawn.stop([process])


def default_ffmpeg() -> str:
    """Returns the path of the ffmpeg that imageio-ffmpeg contains."""
    package = importlib.util.find_spec("imageio_ffmpeg")
    if package and package.origin and "IMAGEIO_FFMPEG_EXE" not in os.environ:
        # The package looks in the same place first, but then runs the program to check that it works: 50 ms.
        found = list(Path(package.origin).parent.glob("binaries/ffmpeg-*"))
        if len(found) == 1 and os.access(found[0], os.X_OK):
            return str(found[0])
    imageio_ffmpeg: Any = importlib.import_module("imageio_ffmpeg")  # it has no types
    return str(imageio_ffmpeg.get_ffmpeg_exe())


@functools.cache
def supports_bundled(ffmpeg: str) -> bool:
    """Returns whether the program at this path can run the bundled way (``args``)."""
    if _is_pinned(ffmpeg):
        return True
    version = re.search(rb"libavfilter +(\d+)\.", _answer(ffmpeg, "-version"))
    return version is not None and int(version[1]) >= _MIN_LIBAVFILTER


@functools.cache
def has_levels(ffmpeg: str) -> bool:
    """Returns whether the program at this path has the filters that measure waveforms (``points``)."""
    return _is_pinned(ffmpeg) or {b"astats", b"ametadata"} <= {*_answer(ffmpeg, "-filters").split()}


def _is_pinned(ffmpeg: str) -> bool:
    """Returns whether this is the program of imageio-ffmpeg, whose version the lock file pins."""
    return "IMAGEIO_FFMPEG_EXE" not in os.environ and ffmpeg == default_ffmpeg()


def _answer(ffmpeg: str, question: str) -> bytes:
    """Returns what the program prints; nothing if it does not run."""
    try:
        return subprocess.run(
            [ffmpeg, question], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_TIMEOUT
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return b""

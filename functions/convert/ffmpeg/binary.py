"""Which ffmpeg encodes."""

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

from functions.settings import BadSetting

#: libavfilter's major version whose amovie takes all that a decoder makes of a packet. One before it, of ffmpeg 7.0,
#: lost without a word all that came behind a packet of two frames.
_WHOLE_PACKETS: Final = 12
#: Seconds that a program may take to say which it is.
_ANSWER: Final = 10.0


def configured_ffmpeg(environ: Mapping[str, str]) -> str | None:
    """The absolute path of the program that FFMPEG names; None where it names none.

    Raises:
        BadSetting: there is no such program, or it cannot read what it is handed as an open file.
    """
    name = environ.get("FFMPEG")
    if not name:
        return None
    path = shutil.which(name)
    if path is None:
        raise BadSetting(f"FFMPEG is {name!r}: there is no such program.")
    told = subprocess.run(
        [path, "-hide_banner", "-protocols"], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if b"fd" not in told.stdout.split():
        raise BadSetting(f"FFMPEG is {name!r}, which is too old: it has no fd protocol. Name a newer one, or none.")
    return path


def default_ffmpeg() -> str:
    """The path of the ffmpeg that imageio-ffmpeg brings."""
    package = importlib.util.find_spec("imageio_ffmpeg")
    if package and package.origin and "IMAGEIO_FFMPEG_EXE" not in os.environ:
        # It lies where the package looks for it first, which then runs it to see whether it works: 50 ms.
        found = list(Path(package.origin).parent.glob("binaries/ffmpeg-*"))
        if len(found) == 1 and os.access(found[0], os.X_OK):
            return str(found[0])
    imageio_ffmpeg: Any = importlib.import_module("imageio_ffmpeg")  # it has no types
    return str(imageio_ffmpeg.get_ffmpeg_exe())


@functools.cache
def supports_bundled(ffmpeg: str) -> bool:
    """Whether the program at a path may be sent the short way (``arguments.py``)."""
    if "IMAGEIO_FFMPEG_EXE" not in os.environ and ffmpeg == default_ffmpeg():
        return True  # the lock file says which it is
    try:
        told = subprocess.run(
            [ffmpeg, "-version"], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_ANSWER
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    version = re.search(rb"libavfilter +(\d+)\.", told.stdout)
    return version is not None and int(version[1]) >= _WHOLE_PACKETS

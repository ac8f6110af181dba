"""What an encoder reads: the file of a track, or, while that still grows, a pipe that goes on with it."""

import contextlib
import os
import threading
from pathlib import Path
from typing import IO

from functions.convert.demux.client import Reading


def source_of(track: Path, reading: Reading | None) -> IO[bytes]:
    """A track from its first byte on, for one encoder; ``reading`` is who still writes it, if anybody."""
    if reading is None or reading.over:
        return track.open("rb")
    out, into = os.pipe()
    threading.Thread(target=_feed, args=(reading, into), name="feed", daemon=True).start()
    return open(out, "rb")  # noqa: PTH123 - a number


def _feed(reading: Reading, pipe: int) -> None:
    with contextlib.suppress(BrokenPipeError), open(pipe, "wb") as encoder:
        for data in reading.track():
            encoder.write(data)

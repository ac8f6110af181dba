"""The process that makes a JPEG of a frame, by MoviePy: which opens files by their names and starts ffmpeg on its own.

It reads a small file that the reader has written, has no network and no environment, and dies with its parent, as the
ffmpeg that it starts does with it.
"""

import ctypes
import functools
import importlib
import json
import os
import re
import signal
import subprocess
import sys
from typing import Any

from functions.convert.sandbox import limits

#: Pixels, the longer side.
LARGEST = 1280
_QUALITY = 85
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def draw(path: str, times: list[float], pixel: float, out: int) -> None:
    """Write the frame of all that shows most, at one of the times.

    Args:
        path: a video.
        times: seconds of it.
        pixel: how much wider than high a pixel is.
        out: the open file that the JPEG goes to.
    """
    from PIL import Image

    moviepy: Any = importlib.import_module("moviepy")  # it has no types
    found = moviepy.video.io.ffmpeg_reader.ffmpeg_parse_infos(path, check_duration=False)
    width, height = found["video_size"]
    if abs(_rotation(found)) % 180 == 90:
        width, height, pixel = height, width, 1 / pixel
    smaller = min(1.0, LARGEST / max(width * pixel, height))
    size = max(round(width * pixel * smaller), 1), max(round(height * smaller), 1)
    with moviepy.VideoFileClip(path, audio=False, target_resolution=size) as clip:
        # What varies little is black, white or a fade.
        best = max((clip.get_frame(time).copy() for time in times), key=lambda frame: float(frame.std()))
    with os.fdopen(out, "wb") as file:
        Image.fromarray(best).save(file, "JPEG", quality=_QUALITY)


def _rotation(found: dict[str, Any]) -> int:
    # MoviePy 2.2 does not know the words by which ffmpeg 8 and later tell it; ffmpeg turns the frames in any case.
    for stream in found["inputs"][0]["streams"]:
        if told := re.search(r"rotation of (-?[0-9]+)", stream.get("metadata", {}).get("Display Matrix", "")):
            return int(told[1])
    return int(found.get("video_rotation", 0))


def main() -> None:
    """The process: limits first, then MoviePy."""
    arguments = json.loads(sys.argv[1])
    limits.enter(arguments["parent"], arguments["limits"])
    os.environ.update({"IMAGEIO_FFMPEG_EXE": arguments["ffmpeg"], "OPENBLAS_NUM_THREADS": "1"})
    missing: Any = None
    sys.modules["dotenv"] = missing  # MoviePy would read the file .env of any folder above its own
    libc = ctypes.CDLL(None)
    mortal: Any = functools.partial(
        subprocess.Popen, preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    )
    subprocess.Popen = mortal  # type: ignore[misc]  # MoviePy passes on no argument of ours, and there are no threads
    draw(arguments["path"], arguments["times"], arguments["pixel"], arguments["out"])


if __name__ == "__main__":
    main()

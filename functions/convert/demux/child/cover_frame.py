"""The process that makes a JPEG of a video frame, by MoviePy, which opens files by name and starts ffmpeg itself.

It reads the short excerpt that the demux child wrote, has no network and no environment, and dies with its parent. So
does the ffmpeg that it starts.
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

#: Pixels of the longer side, at most.
MAX_SIDE = 1280
_QUALITY = 85
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def render(path: str, times: list[float], pixel: float, out: int) -> None:
    """Writes the frame with the most contrast as a JPEG.

    Args:
        path: a video.
        times: the positions of the candidates, in seconds.
        pixel: width of a pixel divided by its height.
        out: descriptor of the open file for the JPEG.
    """
    from PIL import Image

    moviepy: Any = importlib.import_module("moviepy")  # it has no types
    infos = moviepy.video.io.ffmpeg_reader.ffmpeg_parse_infos(path, check_duration=False)
    width, height = infos["video_size"]
    if abs(_rotation(infos)) % 180 == 90:
        width, height = height, width
        pixel = 1 / pixel
    scale = min(1.0, MAX_SIDE / max(width * pixel, height))
    size = max(round(width * pixel * scale), 1), max(round(height * scale), 1)
    with moviepy.VideoFileClip(path, audio=False, target_resolution=size) as clip:
        # A frame with little variation is black, white or part of a fade.
        best = max((clip.get_frame(time).copy() for time in times), key=lambda frame: float(frame.std()))
    with os.fdopen(out, "wb") as file:
        Image.fromarray(best).save(file, "JPEG", quality=_QUALITY)


def _rotation(infos: dict[str, Any]) -> int:
    # MoviePy 2.2 cannot parse how ffmpeg 8 and later report it; ffmpeg rotates the frames in any case.
    for stream in infos["inputs"][0]["streams"]:
        matrix = stream.get("metadata", {}).get("Display Matrix", "")
        if found := re.search(r"rotation of (-?[0-9]+)", matrix):
            return int(found[1])
    return int(infos.get("video_rotation", 0))


def main() -> None:
    """Enters the limits, then imports MoviePy."""
    arguments = json.loads(sys.argv[1])
    limits.enter(arguments["parent"], arguments["limits"])
    os.environ.update({"IMAGEIO_FFMPEG_EXE": arguments["ffmpeg"], "OPENBLAS_NUM_THREADS": "1"})
    missing: Any = None
    sys.modules["dotenv"] = missing  # otherwise MoviePy reads any .env file in the folders above its own
    libc = ctypes.CDLL(None)
    popen: Any = functools.partial(
        subprocess.Popen, preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    )
    subprocess.Popen = popen  # type: ignore[misc]  # MoviePy has no argument for it, and there are no threads
    render(arguments["path"], arguments["times"], arguments["pixel"], arguments["out"])


if __name__ == "__main__":
    main()

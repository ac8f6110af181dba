"""The process that makes a JPEG of a video frame, by MoviePy, which starts ffmpeg itself.

It reads the short excerpt that the demux child wrote, has no network and no environment, and dies with its parent. So
does the ffmpeg that it starts, which in turn cannot start anything.
"""

import ctypes
import importlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from functions.convert.demux.protocol import MAX_PIXELS
from functions.convert.sandbox import limits, seccomp

#: Pixels of the longer side, at most.
MAX_SIDE = 1280
_QUALITY = 85
#: Processes and threads: this one, and one ffmpeg at a time.
_MAX_TASKS = 32
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
#: MoviePy wants a name; the open file is passed beside it.
_NAME = "fd:"


class Ffmpeg(subprocess.Popen[bytes]):
    """An ffmpeg as MoviePy starts it, but one that reads the open excerpt and is confined."""

    #: Descriptors of the open excerpt and of the program.
    excerpt = -1
    program = -1
    confined = True

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        if self.excerpt < 0:
            raise FileNotFoundError(command[0])  # MoviePy looks for programs while it is imported
        os.lseek(self.excerpt, 0, os.SEEK_SET)  # all runs share the position; they run one after the other
        name, *arguments = command
        # Each thread would decode into frames of its own.
        added = ["-nostdin", "-filter_threads", "1", "-threads", "1", "-max_pixels", str(MAX_PIXELS)]
        added += ["-protocol_whitelist", "fd", "-fd", str(self.excerpt)]
        super().__init__(
            [name, *added, *arguments],
            # Not by its name: it may be in a directory that only root can enter, which this process no longer is.
            executable=f"/proc/self/fd/{self.program}",
            pass_fds=(self.excerpt, self.program),
            preexec_fn=self.confine,  # there are no other threads
            **options,
        )

    def confine(self) -> None:
        """Confines this process, which is about to execute ffmpeg."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if self.confined:
            seccomp.install(libc, opens=True)

    def terminate(self) -> None:
        """Ends it by closing its output: this process cannot send signals."""
        for pipe in (self.stdout, self.stderr):
            if pipe is not None:
                pipe.close()


def render(moviepy: Any, times: list[float], pixel: float, out: int) -> None:
    """Writes the frame with the most contrast as a JPEG.

    Args:
        moviepy: the module; it has no types.
        times: the positions of the candidates, in seconds.
        pixel: width of a pixel divided by its height.
        out: descriptor of the open file for the JPEG.
    """
    from PIL import Image

    infos = moviepy.video.io.ffmpeg_reader.ffmpeg_parse_infos(_NAME, check_duration=False)
    width, height = infos["video_size"]
    if abs(_rotation(infos)) % 180 == 90:
        width, height = height, width
        pixel = 1 / pixel
    scale = min(1.0, MAX_SIDE / max(width * pixel, height))
    size = max(round(width * pixel * scale), 1), max(round(height * scale), 1)
    with moviepy.VideoFileClip(_NAME, audio=False, target_resolution=size) as clip:
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
    """Enters the limits, imports MoviePy, and enters the sandbox, in which it reads the excerpt."""
    arguments: dict[str, Any] = json.loads(sys.argv[1])
    limits.enter(arguments["parent"], arguments["limits"])
    os.environ.update({"IMAGEIO_FFMPEG_EXE": arguments["ffmpeg"], "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"})
    missing: Any = None
    sys.modules["dotenv"] = missing  # otherwise MoviePy reads any .env file in the folders above its own
    subprocess.Popen = Ffmpeg  # type: ignore[misc,assignment]  # MoviePy has no argument for it
    from PIL import Image

    moviepy = importlib.import_module("moviepy")
    Image.preinit()  # imports the formats
    Ffmpeg.program = os.open(arguments["ffmpeg"], os.O_PATH | os.O_CLOEXEC)
    Ffmpeg.excerpt = arguments["source"]
    Ffmpeg.confined = arguments["confined"]
    if arguments["confined"]:
        limits.confine(arguments["parent"], tasks=_MAX_TASKS, program=arguments["ffmpeg"], forks=True)
    render(moviepy, arguments["times"], arguments["pixel"], arguments["out"])


if __name__ == "__main__":
    main()

"""The command-line tool: ``python -m functions.convert VIDEO``."""

import argparse
import contextlib
import errno
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from events.errors import Mp3burstError, TryAgain
from functions.convert.cpus import MAX_ENCODERS
from functions.convert.demux.spawner import spawner
from functions.convert.errors import TemporaryStorageFull
from functions.convert.ffmpeg.binary import configured_ffmpeg
from functions.options import BITRATES, Options

if TYPE_CHECKING:
    from functions.convert.pipeline import Result

_WIDTH = 40
_HELP = {
    "bitrate": "kbit/s: " + ", ".join(f"{rate}k" for rate in BITRATES) + " (default: 192k)",
    "vbr": "0 (best) to 9, instead of a bit rate",
    "track": "which audio track, from 0",
    "start": "where the MP3 begins, as 83.5 or 1:23.5",
    "end": "where it ends",
    "fade_in": "seconds from silence to the sound",
    "fade_out": "seconds from the sound to silence",
    "volume": "decibels from -30 to 30, as 6 or -3.5dB",
    "normalize": "to a loudness of -16 LUFS (EBU R 128)",
    "mono": "all channels mixed into one",
    "cover": "frame, none, or the second of the video that shows it (default: the picture that the file brings along)",
}


def main(arguments: list[str] | None = None) -> int:
    """Convert one file; the exit status, 0 where there is an MP3, 1 where there is none, 2 for a wrong command line."""
    parser = argparse.ArgumentParser("python -m functions.convert", description="Make an MP3 of a video's sound.")
    parser.add_argument("video", type=Path, help="a video or audio file")
    parser.add_argument(
        "-o",
        dest="out",
        type=Path,
        metavar="OUT",
        help="the MP3, written over if it is there (default: beside the video)",
    )
    cores = min(len(os.sched_getaffinity(0)), MAX_ENCODERS)
    encoders = "how many work at once (default: one for each core)"
    parser.add_argument("--encoders", type=_encoders, default=cores, metavar="N", help=encoders)
    options = [_add(parser, name, one.default) for name, one in Options.__dataclass_fields__.items()]
    given = parser.parse_args(_joined(sys.argv[1:] if arguments is None else arguments))
    out = given.out or given.video.parent / f"{given.video.stem}.mp3"
    form = {one.dest: value for one in options if (value := getattr(given, one.dest)) is not None}
    try:
        _check(out, given.video)
        result = convert(given.video, out, Options.from_form(form), given.encoders)
    except OSError as error:
        full = error.errno == errno.ENOSPC  # only what is written is told so
        print(f"{error.filename or (out if full else given.video)}: {error.strerror or error}.", file=sys.stderr)
        return 1
    except TryAgain as error:  # in the service it is tried again; here that is for the user to do
        todo = (
            f"make room in {out.parent} and start again"
            if isinstance(error, TemporaryStorageFull)
            else "start again later"
        )
        print(f"{str(error).partition(';')[0]}: {todo}.", file=sys.stderr)
        return 1
    except Mp3burstError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if result.warning:
        print(result.warning, file=sys.stderr)
    return 0


def _joined(arguments: list[str]) -> list[str]:
    # argparse takes the -3dB of "--volume -3dB" for an option.
    joined = list(arguments)
    for n in reversed(range(len(joined) - 1)):
        if joined[n] == "--volume":
            joined[n : n + 2] = [f"--volume={joined[n + 1]}"]
    return joined


def _check(out: Path, video: Path) -> None:
    if out == Path("-"):  # which means standard output elsewhere
        raise Mp3burstError("The MP3 is written to a file: name one with -o.")
    if not out.parent.is_dir():
        raise Mp3burstError(f"There is no directory {out.parent}: make it, or name another file with -o.")
    if out.exists() and out.samefile(video):
        raise Mp3burstError(f"{out} is the video itself: name another file with -o.")
    if out.exists() and not out.is_file():  # as /dev/null, in whose place a file would stand from then on
        raise Mp3burstError(f"{out} is no file: name one with -o.")


def _add(parser: argparse.ArgumentParser, name: str, default: object) -> argparse.Action:
    flag = f"--{name.replace('_', '-')}"
    if default is False:
        return parser.add_argument(flag, action="store_const", const="true", help=_HELP[name])
    return parser.add_argument(flag, help=_HELP[name])


def _encoders(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_ENCODERS):
        raise argparse.ArgumentTypeError(f"it must be a number from 1 to {MAX_ENCODERS}")
    return int(text)


def convert(video: Path, out: Path, options: Options, encoders: int) -> "Result":
    """Convert into a file beside ``out`` that takes its name once it is whole."""
    ffmpeg = configured_ffmpeg(os.environ)
    spawner.prepare()  # it starts while the engine is imported
    from functions.convert.pipeline import Settings, to_mp3

    with video.open("rb") as source, _beside(out) as name:
        whole = Path(name) / out.name
        with whole.open("wb") as target, _bar(sys.stderr.isatty()) as on_progress:
            result = to_mp3(
                source,
                target,
                Settings(options=options, filename=video.name, encoders=encoders, ffmpeg=ffmpeg),
                directory=Path(name),
                on_progress=on_progress,
            )
        whole.replace(out)
    return result


def _beside(out: Path) -> "tempfile.TemporaryDirectory[str]":
    try:
        return tempfile.TemporaryDirectory(dir=out.parent, prefix=".mp3burst-")
    except OSError as error:
        sentence = f"Nothing can be written in {out.parent} ({error.strerror}): name another file with -o."
        raise Mp3burstError(sentence) from error


@contextlib.contextmanager
def _bar(terminal: bool) -> Iterator[Callable[[float], None]]:
    # A bar that redraws itself on a terminal; a line for each tenth elsewhere, as in a log.
    last = -1

    def on_progress(part: float) -> None:
        nonlocal last
        percent = min(int(part * 100), 100)
        if terminal and percent != last:
            done = percent * _WIDTH // 100
            print(f"\r[{'#' * done}{' ' * (_WIDTH - done)}] {percent:3d} %", end="", file=sys.stderr, flush=True)
        elif not terminal and percent // 10 != last // 10:
            print(f"{percent} %", file=sys.stderr, flush=True)
        last = percent

    try:
        yield on_progress
    finally:
        if terminal:
            print(file=sys.stderr)


def _stop(number: int, _: object) -> None:
    raise SystemExit(128 + number)  # on the way out temporary files are deleted


if __name__ == "__main__":
    for end in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(end) is signal.SIG_DFL:  # nohup ignores one
            signal.signal(end, _stop)
    sys.exit(main())

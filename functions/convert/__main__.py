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
from functions.convert.sandbox import setting
from functions.options import HELP, Options

if TYPE_CHECKING:
    from functions.convert.pipeline import Result

#: Characters of the progress bar.
_WIDTH = 40


def main(arguments: list[str] | None = None) -> int:
    """Converts one file; returns the exit status.

    The status is 0 if the MP3 was written, 1 if the conversion failed, 2 if the command line is wrong, and 130 if the
    user pressed Ctrl-C.
    """
    parser = argparse.ArgumentParser("python -m functions.convert", description="Converts a video's sound to MP3.")
    parser.add_argument("video", type=Path, help="a video or audio file")
    parser.add_argument(
        "-o",
        dest="out",
        type=Path,
        metavar="OUT",
        help="the MP3, overwritten if it exists (default: next to the video)",
    )
    cpus = min(len(os.sched_getaffinity(0)), MAX_ENCODERS)
    encoders = "number of encoders that run at once (default: one per CPU)"
    parser.add_argument("--encoders", type=_encoders, default=cpus, metavar="N", help=encoders)
    options = [_add(parser, name, field.default) for name, field in Options.__dataclass_fields__.items()]
    given = parser.parse_args(_attach_volume(sys.argv[1:] if arguments is None else arguments))
    out = given.out or given.video.parent / f"{given.video.stem}.mp3"
    form = {option.dest: value for option in options if (value := getattr(given, option.dest)) is not None}
    try:
        _check(out, given.video)
        result = convert(given.video, out, Options.from_form(form), given.encoders)
    except OSError as error:
        full = error.errno == errno.ENOSPC  # only writing raises it
        print(f"{error.filename or (out if full else given.video)}: {error.strerror or error}.", file=sys.stderr)
        return 1
    except TryAgain as error:  # the service retries by itself; here the user has to
        action = f"free space in {out.parent} and try again" if isinstance(error, TemporaryStorageFull) else "try again"
        print(f"{str(error).partition(';')[0]}: {action}.", file=sys.stderr)
        return 1
    except Mp3burstError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if result.warning:
        print(result.warning, file=sys.stderr)
    return 0


def _attach_volume(arguments: list[str]) -> list[str]:
    # argparse mistakes the -3dB of "--volume -3dB" for an option.
    joined = list(arguments)
    for n in reversed(range(len(joined) - 1)):
        if joined[n] == "--volume":
            joined[n : n + 2] = [f"--volume={joined[n + 1]}"]
    return joined


def _check(out: Path, video: Path) -> None:
    if out == Path("-"):  # standard output for many tools
        raise Mp3burstError("The MP3 cannot be written to standard output: name a file with -o.")
    if not out.parent.is_dir():
        raise Mp3burstError(f"The directory {out.parent} does not exist: create it, or name another file with -o.")
    if out.exists() and out.samefile(video):
        raise Mp3burstError(f"{out} is the video itself: name another file with -o.")
    if out.exists() and not out.is_file():  # for example /dev/null, which a file would replace for good
        raise Mp3burstError(f"{out} is not a file: name a file with -o.")


def _add(parser: argparse.ArgumentParser, name: str, default: object) -> argparse.Action:
    flag = f"--{name.replace('_', '-')}"
    if default is False:
        return parser.add_argument(flag, action="store_const", const="true", help=HELP[name])
    return parser.add_argument(flag, help=HELP[name])


def _encoders(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_ENCODERS):
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {MAX_ENCODERS}")
    return int(text)


def convert(
    video: Path,
    out: Path,
    options: Options,
    encoders: int,
    rename: Callable[[Path, Path], object] = Path.replace,
) -> "Result":
    """Converts a video; ``rename`` gives the MP3 the name ``out`` when it is complete."""
    setting.check(os.environ)
    ffmpeg = configured_ffmpeg(os.environ)
    spawner.prepare()  # it starts while the pipeline is imported
    from functions.convert.pipeline import Settings, to_mp3

    settings = Settings(options=options, filename=video.name, encoders=encoders, ffmpeg=ffmpeg)
    with video.open("rb") as source, _directory_beside(out) as name:
        directory = Path(name)
        partial = directory / out.name
        with partial.open("wb") as target, _progress_bar(sys.stderr.isatty()) as on_progress:
            result = to_mp3(source, target, settings, directory=directory, on_progress=on_progress)
        rename(partial, out)
    return result


def _directory_beside(out: Path) -> "tempfile.TemporaryDirectory[str]":
    try:
        return tempfile.TemporaryDirectory(dir=out.parent, prefix=".mp3burst-")
    except OSError as error:
        message = f"The directory {out.parent} is not writable ({error.strerror}): name another file with -o."
        raise Mp3burstError(message) from error


@contextlib.contextmanager
def _progress_bar(terminal: bool) -> Iterator[Callable[[float], None]]:
    # On a terminal a bar that redraws itself; elsewhere, such as in a log, one line per 10 %.
    last = -1

    def on_progress(done: float) -> None:
        nonlocal last
        percent = min(int(done * 100), 100)
        if terminal and percent != last:
            filled = percent * _WIDTH // 100
            print(f"\r[{'#' * filled}{' ' * (_WIDTH - filled)}] {percent:3d} %", end="", file=sys.stderr, flush=True)
        elif not terminal and percent // 10 != last // 10:
            print(f"{percent} %", file=sys.stderr, flush=True)
        last = percent

    try:
        yield on_progress
    finally:
        if terminal:
            print(file=sys.stderr)


def _exit(number: int, _: object) -> None:
    raise SystemExit(128 + number)  # temporary files are deleted on the way out


if __name__ == "__main__":
    for end in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(end) is signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(end, _exit)
    sys.exit(main())

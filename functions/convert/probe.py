"""Starts the reader, answers its questions for bytes, and makes of its report a Track or a sentence for the user."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

from functions.convert import remote, sandbox
from functions.convert.chapters import Chapter
from functions.convert.encode import HEARTBEAT
from functions.convert.extract import BUFFER
from functions.convert.faults import EncoderKilled, NoRoom, UnusableMedia
from functions.convert.moment import Moment

_ADDRESS_SPACE = 1 << 30
_BYTES_PER_CPU_SECOND = 5_000_000
_ROOT = Path(__file__).resolve().parents[2]
_START = "import sys; sys.path[:] = {!r}; from functions.convert.reader import main; main()"


class SupportsReadSeek(Protocol):
    """The source: any binary file object."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes, none only at the end."""
        ...

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move to a byte offset and return it."""
        ...

    def tell(self) -> int:
        """The byte offset."""
        ...


@dataclass(frozen=True, slots=True)
class Track:
    """An audio track, taken out of its video.

    Attributes:
        path: the file that it is in now.
        container: of that file, as libav's muxer is called: ``mov``, ``matroska``; ``mp3`` for bare frames.
        codec: as libavcodec names it.
        rate: samples a second, as decoded.
        channels: how many, as decoded.
        duration: seconds, from the packets.
        missing: seconds that the source claims to have and has not.
        errors: places of the source that could not be read.
        skipped: samples at the start that are not to be heard.
        discarded: samples at the end that are not to be heard.
        tags: names and values as the source has them.
        chapters: the source's, on the track's clock.
        cover: a picture, PNG or JPEG, or nothing.
        moment: what a cover is to be made of instead.
    """

    path: Path
    container: str
    codec: str
    rate: int
    channels: int
    duration: float
    missing: float
    errors: int
    skipped: int
    discarded: int
    tags: Mapping[str, str]
    chapters: Sequence[Chapter]
    cover: bytes
    moment: Moment | None = None


def take(
    source: SupportsReadSeek,
    path: Path,
    *,
    number: int,
    copy: bool,
    on_progress: Callable[[float], None],
) -> Track | None:
    """Take audio track ``number`` (from 0) out of the source into a new file at ``path``.

    Args:
        source: read here and nowhere else.
        path: where the track goes.
        number: which one, in the file's order.
        copy: whether MP3 should become bare frames.
        on_progress: called at least twice a second with the part of the source that was read, 0 to 1.

    Returns:
        The track; None where ``copy`` was asked for and the MP3 cannot be copied.

    Raises:
        UnusableMedia: there is nothing to take out. EncoderKilled: the reader died by SIGKILL.
    """
    report, cover = ask(source, path, {"track": number, "copy": copy}, on_progress)
    if report.get("fault") == "not whole":
        return None
    if report.get("fault") == "room":
        raise NoRoom("There is no room for temporary files just now; the conversion is tried again.")
    if "fault" in report:
        raise UnusableMedia(_sentence(report, number)) from RuntimeError(report.get("detail", report["fault"]))
    if not report["packets"]:
        raise UnusableMedia("The audio track of this file is empty.")
    return Track(
        path=path,
        cover=cover,
        chapters=[Chapter(*one) for one in report["chapters"]],
        **{name: report[name] for name in Track.__slots__ if name in report and name != "chapters"},
    )


def ask(
    source: SupportsReadSeek, path: Path, wanted: Mapping[str, Any], on_progress: Callable[[float], None]
) -> tuple[dict[str, Any], bytes]:
    """Have a reader take what is wanted out of the source into a new file at ``path``; its report, and a picture.

    Raises:
        UnusableMedia: the reader died of the file.
        EncoderKilled: the reader died by SIGKILL.
    """
    size = source.seek(0, os.SEEK_END)
    source.seek(0)
    ours, theirs = socket.socketpair()
    with ours, path.open("wb") as target:
        with theirs:
            process = _start(theirs.fileno(), target.fileno(), size, wanted)
        try:
            answer = _serve(ours, source, size, on_progress)
            process.wait()
        except remote.Gone as gone:
            _judge(process.wait(), gone)
        finally:
            sandbox.stop([process])
    return answer


def _start(link: int, target: int, size: int, wanted: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    limits = {
        "AS": _ADDRESS_SPACE,
        "CPU": 60 + size // _BYTES_PER_CPU_SECOND,
        "FSIZE": 2 * size + (16 << 20),  # the track is part of the source, plus what a container costs
        "NPROC": 0,
    }
    arguments = {
        "parent": os.getpid(),
        "limits": limits,
        "link": link,
        "target": target,
        "size": size,
        **wanted,
    }
    return subprocess.Popen(
        # What makes a Python environment is done already: our path is its path.
        [sys.executable, "-I", "-S", "-c", _START.format(_path()), json.dumps(arguments)],
        env={},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(link, target),
    )


def _path() -> list[str]:
    return [str(_ROOT), *(entry for entry in sys.path if Path(entry).is_absolute())]


def _serve(
    link: socket.socket, source: SupportsReadSeek, size: int, on_progress: Callable[[float], None]
) -> tuple[dict[str, Any], bytes]:
    link.settimeout(HEARTBEAT)
    cover, furthest, told = b"", 0, 0.0
    request = bytearray()
    while True:
        now = time.monotonic()
        if now - told >= HEARTBEAT:
            told = now
            on_progress(min(furthest / max(size, 1), 1.0))
        try:
            got = link.recv(remote.REQUEST.size - len(request))
        except TimeoutError:
            continue
        except OSError as error:
            raise remote.Gone from error
        if not got:
            raise remote.Gone
        request += got
        if len(request) < remote.REQUEST.size:
            continue
        what, first, second = remote.REQUEST.unpack(request)
        request.clear()
        link.settimeout(None)
        if what == remote.READ and second >= 0:
            if source.tell() != second:
                source.seek(second)
            data = source.read(max(0, min(first, BUFFER)))
            furthest = max(furthest, source.tell())
            _answer(link, data)
        elif what == remote.COVER:
            cover = bytes(remote.receive(link, min(first, remote.MAX_COVER)))
        elif what == remote.REPORT and 0 < first <= remote.MAX_REPORT:
            report: dict[str, Any] = json.loads(remote.receive(link, first))
            return report, cover
        else:
            # No reader of ours asks so: the file has got hold of it.
            raise UnusableMedia("This file is damaged: it cannot be read as a video.")
        link.settimeout(HEARTBEAT)


def _answer(link: socket.socket, data: bytes) -> None:
    # What goes wrong with the link is the reader's death; what goes wrong with the source is not for us to judge.
    try:
        link.sendall(remote.ANSWER.pack(len(data)) + data)
    except OSError as error:
        raise remote.Gone from error


def _judge(status: int, gone: remote.Gone) -> NoReturn:
    """Say whose fault it is that the reader ended without a report: a signal that it raised itself is the file's."""
    cause = RuntimeError(f"the reader ended with {status}: {gone.__cause__!r}")
    if status >= 0 or status == -signal.SIGKILL:
        raise EncoderKilled("The reader was stopped from outside; the conversion is tried again.") from cause
    raise UnusableMedia("This file is damaged: it cannot be read as a video.") from cause


def _sentence(report: Mapping[str, Any], number: int) -> str:
    tracks = report.get("tracks", 0)
    match report["fault"]:
        case "format":
            return "This is not a video or audio file, or it is damaged at its beginning."
        case "silent":
            return "This file has no audio track."
        case "track":
            have = "only one audio track" if tracks == 1 else f"{tracks} audio tracks"
            return f"This file has {have}, counted from 0: there is no track {number}."
        case "codec":
            return "The sound of this file is in a format that cannot be decoded."
        case "memory":
            return "This file needs more memory to read than a video should."
        case _:
            return "This file is damaged: its audio track cannot be read."

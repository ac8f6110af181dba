"""One ffmpeg at work on one piece: what it says of itself, and what is to be made of its end."""

import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from functions.convert.errors import EncoderKilled, NoSpace, UnusableMedia
from functions.convert.plan import Piece
from functions.convert.sandbox.watchdog import Watch

_ONLY_TIMES = b"non monotonically increasing dts to muxer"  # libavformat/mux.c; MP3 has no times, nothing is lost
#: Deaths at a limit, after which the long way is no better.
_LIMITED: Final = (-signal.SIGXCPU, -signal.SIGXFSZ)


@dataclass(slots=True)
class Encoding:
    """One ffmpeg at work on one piece.

    Attributes:
        piece: the range.
        path: the file of frames it writes, a tag frame first.
        seconds: how far it has come, on the track's clock.
        errors: the decoder's complaints.
        first_error: the first of them.
        full: one was about room for the frames.
        reconfigured: the sound changed its rate or channels on the way, which moves the range.
        core: the number of the one that it keeps to, if any.
        staged: whether ffmpeg works by stages (``arguments.py``).
        watch: who notices that it does nothing, once it is started.
    """

    piece: Piece
    path: Path
    process: subprocess.Popen[bytes] | None = None
    seconds: float = 0.0
    errors: int = 0
    first_error: str = ""
    full: bool = False
    reconfigured: bool = False
    core: int | None = None
    staged: bool = False
    watch: Watch = field(init=False, repr=False, compare=False)
    buffers: dict[str, bytes] = field(default_factory=dict)

    def hear(self, name: str, data: bytes) -> None:
        """Take in what came from ``stdout``, its progress, or from ``stderr``, its log."""
        *lines, rest = (self.buffers.get(name, b"") + data).split(b"\n")
        self.buffers[name] = rest[-4096:]
        for line in lines:
            if name == "stdout":
                self._hear_progress(line)
            else:
                self._hear_log(line)

    def _hear_progress(self, line: bytes) -> None:
        key, _, value = line.partition(b"=")
        if key == b"out_time_us" and value.strip().isdigit():
            self.seconds = int(value) / 1e6

    def _hear_log(self, line: bytes) -> None:
        if b"Reconfiguring filter graph" in line:
            self.reconfigured = True
        if (b"[error]" in line or b"[fatal]" in line) and not (self.staged and _ONLY_TIMES in line):
            self.errors += 1
            self.full = self.full or b"No space left on device" in line
            self.first_error = self.first_error or line.decode(errors="replace")

    @property
    def status(self) -> int:
        """How it ended, as ``subprocess.Popen.returncode`` says it; 0 before."""
        return (self.process and self.process.returncode) or 0

    @property
    def in_vain(self) -> bool:
        """Whether it will have to be done again by stages, whatever comes."""
        return not self.staged and not self.full and self.errors > 0

    @property
    def unfinished(self) -> bool:
        """Whether what ffmpeg could not do at one go, or died of, is to be tried by stages."""
        if self.staged or self.full or self.status in _LIMITED:
            return False
        return self.errors > 0 or self.status not in (0, -signal.SIGKILL)

    def judge(self) -> None:
        """Raise what its end means, if it is no good one.

        Raises:
            EncoderKilled: it died by SIGKILL.
            NoSpace: there was no room for the frames.
            UnusableMedia: it failed otherwise.
        """
        status = self.status
        if status == -signal.SIGKILL:
            raise EncoderKilled("The encoder was stopped from outside; the conversion is tried again.")
        if status and self.full:
            raise NoSpace("There is no room for temporary files just now; the conversion is tried again.")
        if status in _LIMITED:
            raise UnusableMedia(
                "The sound of this file takes far more time or room than its length accounts for: it may be damaged."
            ) from RuntimeError(f"ffmpeg ended with {status}")
        if status:
            raise UnusableMedia("The sound of this file cannot be decoded.") from RuntimeError(
                f"ffmpeg ended with {status}: {self.first_error}"
            )

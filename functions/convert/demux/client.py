"""Has a reader take something out of a source: answers its questions for bytes, hears its report."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from functions.convert.demux import protocol, spawner
from functions.convert.demux.child.demuxer import BUFFER
from functions.convert.demux.reported import Nonsense, report_of
from functions.convert.demux.verdict import DAMAGED, death, fault_of
from functions.convert.errors import UnusableMedia

#: Seconds between two calls of a progress function, at most.
HEARTBEAT = 0.5
#: Seconds of a read from which on a source counts as slow: a file on a disk takes a tenth of that, a server more.
SLOW = 0.0001
#: Seconds that may go by for each that the reader may compute: one that the file has got hold of may wait for ever.
PATIENCE = 5.0
_MOST_GIVEN = max(BUFFER, protocol.MOST_GATHERED)


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


class Reading:
    """A reader at work, inside a ``with``.

    A thread has the source for as long as that takes, so that encoders can begin on what is there of the track.
    """

    def __init__(self, source: SupportsReadSeek, path: Path, wanted: Mapping[str, Any]) -> None:
        """What to read, the new file for what is taken out, and what that is, as ``reader.main`` is told it."""
        self._source, self._path, self._wanted = source, path, wanted
        self._size = source.seek(0, os.SEEK_END)
        source.seek(0)
        self._changed = threading.Condition()
        self._cover, self._furthest = b"", 0
        self._report: dict[str, Any] | None = None
        self._over = False
        self._reads, self._seconds, self._began = 0, 0.0, time.perf_counter()
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        with self._path.open("wb") as target:
            self._reader = spawner.readers.take()
            self._link, self._process = self._reader.link, self._reader.process
            with contextlib.suppress(protocol.Gone):  # it is heard of when its report is missing
                self._reader.begin(target.fileno(), self._size, self._wanted)
        self._thread = threading.Thread(target=self._run, name="reading", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._reader.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._thread.join()
        self._reader.stop()

    @property
    def slow(self) -> bool:
        """Whether the source is a while's reading, to judge by what was read so far."""
        return self._reads > 0 and self._seconds / self._reads > SLOW

    @property
    def over(self) -> bool:
        """Whether all is there, or nothing more will be."""
        return self._over

    def report(self, on_progress: Callable[[float], None]) -> tuple[dict[str, Any], bytes]:
        """What the reader saw, as soon as it says so, and a picture.

        Args:
            on_progress: called twice a second with the part of the source that was read, 0 to 1; what it raises is
                passed on.

        Raises:
            UnusableMedia: the reader died of the file.
            EncoderKilled: the reader died by SIGKILL.
        """
        self._wait(lambda: self._report is not None, on_progress)
        return self._report or {}, self._cover

    def finish(self, on_progress: Callable[[float], None]) -> None:
        """Wait for the end; arguments and errors as ``report``, and those of the source."""
        self._wait(lambda: self._over, on_progress)
        self.check()

    def check(self) -> None:
        """Raise what has gone wrong so far."""
        if self._error is not None:
            raise self._error
        lasted = time.perf_counter() - self._began - self._seconds
        if not self._over and lasted > PATIENCE * spawner.cpu_seconds(self._size):
            raise UnusableMedia("This file takes far more time to read than a video should: it may be damaged.")

    def track(self) -> Iterator[bytes]:
        """The bytes of the new file from the first to the last, as they come; it only grows from the report on."""
        with self._path.open("rb", buffering=0) as file:
            while True:
                over, reads = self._over, self._reads
                if data := file.read(BUFFER):
                    yield data
                elif over:
                    return
                else:
                    self._wait_for_more(reads)

    def _wait_for_more(self, reads: int) -> None:
        # What was told since may have been heard by nobody, and is told once.
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._reads != reads, HEARTBEAT)

    def _wait(self, condition: Callable[[], bool], on_progress: Callable[[float], None]) -> None:
        while True:
            on_progress(min(self._furthest / max(self._size, 1), 1.0))
            with self._changed:
                if self._changed.wait_for(lambda: condition() or self._over, HEARTBEAT):
                    break
            self.check()
        if not condition():
            self.check()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            report = self._serve()
            self._process.wait()
            if self._report is None:
                self._report = report
            elif "fault" in report:
                error = fault_of(report, 0)
        except Nonsense as nonsense:
            error = UnusableMedia(DAMAGED)
            error.__cause__ = nonsense
        except protocol.Gone as gone:
            error = death(self._process.wait(), gone)
        except BaseException as failure:
            error = failure
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        with self._changed:
            self._error, self._over = error, True
            self._changed.notify_all()

    def _serve(self) -> dict[str, Any]:
        link = self._link
        while True:
            what, first, second = protocol.REQUEST.unpack(protocol.receive(link, protocol.REQUEST.size))
            if what == protocol.READ and second >= 0:
                self._give([(second, max(0, min(first, BUFFER)))])
            elif what == protocol.GATHER and 0 <= first <= protocol.MOST_SPANS:
                self._give(list(protocol.SPAN.iter_unpack(protocol.receive(link, first * protocol.SPAN.size))))
            elif what == protocol.COVER and 0 < first <= protocol.MAX_COVER:
                self._cover = bytes(protocol.receive(link, first))
            elif what in (protocol.BEGUN, protocol.REPORT) and 0 < first <= protocol.MAX_REPORT:
                report = report_of(protocol.receive(link, first), sound="track" in self._wanted)
                if what == protocol.REPORT:
                    return report
                with self._changed:
                    self._report = report
                    self._changed.notify_all()
            else:
                raise Nonsense(f"a request {what!r} of {first} and {second}")

    def _give(self, spans: list[tuple[int, int]]) -> None:
        if any(offset < 0 or size < 0 for offset, size in spans) or sum(size for _, size in spans) > _MOST_GIVEN:
            raise Nonsense(f"a request for {spans}")
        source, parts = self._source, []
        for offset, size in spans:
            began = time.perf_counter()
            if offset < self._size:  # a damaged file leads anywhere, farther than a file can be
                if source.tell() != offset:
                    source.seek(offset)
                while size and (data := source.read(size)):  # all of it: other spans come behind
                    parts.append(data)
                    size -= len(data)
            self._reads, self._seconds = self._reads + 1, self._seconds + time.perf_counter() - began
        _answer(self._link, b"".join(parts))
        with self._changed:
            self._furthest = max(self._furthest, source.tell())
            self._changed.notify_all()


def _answer(link: socket.socket, data: bytes) -> None:
    # What goes wrong with the link is the reader's death; what goes wrong with the source is not for us to judge.
    try:
        link.sendall(protocol.ANSWER.pack(len(data)) + data)
    except OSError as error:
        raise protocol.Gone from error

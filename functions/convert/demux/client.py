"""Runs one demux child: answers its requests for bytes of the source and receives its reports."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from events.errors import Mp3burstError
from functions.convert.demux import protocol, spawner
from functions.convert.demux.protocol import ExcerptOrder, ExcerptReport, Fault, FaultReport, TrackOrder, TrackReport
from functions.convert.errors import (
    DAMAGED,
    DemuxerFailed,
    EncoderKilled,
    TemporaryStorageFull,
    UnknownMedia,
    UnusableMedia,
)
from functions.convert.progress import HEARTBEAT, OnProgress
from functions.convert.streams import SupportsReadSeek
from functions.convert.track_list import decoded

#: Seconds per read above which a source counts as slow: a local file takes a tenth of that, a server more.
SLOW = 0.0001
#: Seconds of real time allowed per second of the child's CPU limit: a compromised child may wait forever.
TIMEOUT_FACTOR = 5.0
_MAX_ANSWER = max(protocol.BUFFER, protocol.MAX_GATHERED)
_CHECK = "It may be damaged: check that it plays on your computer."


class DemuxClient:
    """A demux child at work; a context manager.

    A thread owns the source inside the ``with`` block, so that encoders can start on the part of the track that is
    already written.
    """

    def __init__(self, source: SupportsReadSeek, path: Path, wanted: protocol.Wanted) -> None:
        """Prepares the extraction of ``wanted`` from the source into a new file at ``path``."""
        self._source = source
        self._path = path
        self._wanted = wanted
        self._size = source.seek(0, os.SEEK_END)
        source.seek(0)
        self._changed = threading.Condition()
        self._cover = b""
        self._furthest = 0
        self._indexed: TrackReport | None = None
        self._report: protocol.Report | None = None
        self._finished = False
        self._reads = 0
        self._read_seconds = 0.0
        self._started = time.perf_counter()
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        with self._path.open("wb") as target:
            self._child = spawner.spawner.take()
            # A child that has already ended is detected by its missing report.
            with contextlib.suppress(protocol.PeerClosed):
                self._child.begin(target.fileno(), self._size, self._wanted)
        self._thread = threading.Thread(target=self._run, name="demux-client", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._child.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.process.kill()
        self._thread.join()
        self._child.stop()

    @property
    def slow(self) -> bool:
        """Whether the source is slow, judging by the reads so far."""
        return self._reads > 0 and self._read_seconds / self._reads > SLOW

    @property
    def finished(self) -> bool:
        """Whether the file is complete, or nothing more will be written because of an error."""
        return self._finished

    def indexed(self, on_progress: OnProgress) -> TrackReport | None:
        """Waits until the child offers to index the track; ``cut`` answers it.

        Args:
            on_progress: as for ``report``.

        Returns:
            The report of the track; None if the child reports something else.

        Raises:
            UnusableMedia, EncoderKilled: as ``report``.
        """
        self._wait(lambda: self._indexed is not None or self._report is not None, on_progress)
        return self._indexed

    def cut(self, ranges: Sequence[tuple[int, int | None]]) -> None:
        """Has the child write recipes for excerpts with these ranges of samples; extract the track if there are none.

        Args:
            ranges: the first sample and the one after the last, None for the end of the track.
        """
        spans = b"".join(
            protocol.SPAN.pack(start, protocol.TO_THE_END if end is None else end) for start, end in ranges
        )
        with contextlib.suppress(OSError):  # a child that has ended is detected by its missing report
            self._child.link.sendall(protocol.ANSWER.pack(len(ranges)) + spans)

    def report(self, on_progress: OnProgress) -> tuple[protocol.Report, bytes]:
        """Waits for the child's report, which may arrive while it still writes the file.

        Args:
            on_progress: called twice a second with the fraction of the source that was read, 0 to 1; an exception that
                it raises propagates.

        Returns:
            The report, and the cover, empty if there is none.

        Raises:
            UnusableMedia: the file crashed or compromised the child.
            EncoderKilled: the child died by SIGKILL.
        """
        self._wait(lambda: self._report is not None, on_progress)
        if self._report is None:
            raise AssertionError("a child that ends without a report leaves an error")
        return self._report, self._cover

    def finish(self, on_progress: OnProgress) -> None:
        """Waits for the end; arguments and errors as for ``report``, and errors of the source."""
        self._wait(lambda: self._finished, on_progress)
        self.check()

    def check(self) -> None:
        """Raises the error that has ended the extraction, if any, or UnusableMedia if it takes far too long."""
        if self._error is not None:
            raise self._error
        elapsed = time.perf_counter() - self._started - self._read_seconds
        if not self._finished and elapsed > TIMEOUT_FACTOR * spawner.cpu_seconds(self._size):
            raise UnusableMedia(f"Reading this file takes far too long for a video. {_CHECK}")

    def chunks(self) -> Iterator[bytes]:
        """Reads the new file from start to end while it grows; it only grows once there is a report."""
        with self._path.open("rb", buffering=0) as file:
            while True:
                finished = self._finished
                reads = self._reads
                if data := file.read(protocol.BUFFER):
                    yield data
                elif finished:
                    return
                else:
                    self._wait_for_more(reads)

    def _wait_for_more(self, reads: int) -> None:
        # Compares the counter, since a notification before this wait would be lost.
        with self._changed:
            self._changed.wait_for(lambda: self._finished or self._reads != reads, HEARTBEAT)

    def _wait(self, condition: Callable[[], bool], on_progress: OnProgress) -> None:
        while True:
            on_progress(min(self._furthest / max(self._size, 1), 1.0))
            with self._changed:
                if self._changed.wait_for(lambda: condition() or self._finished, HEARTBEAT):
                    break
            self.check()
        if not condition():
            self.check()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            report = self._serve()
            self._child.process.wait()
            if self._report is None:
                self._report = report
            elif isinstance(report, FaultReport):
                error = error_of(report, 0)
        except protocol.InvalidReport as invalid:
            error = UnusableMedia(DAMAGED)
            error.__cause__ = invalid
        except protocol.PeerClosed as closed:
            error = _death(self._child.process.wait(), closed)
        except BaseException as failure:
            error = failure
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        with self._changed:
            self._error = error
            self._finished = True
            self._changed.notify_all()

    def _serve(self) -> protocol.Report:
        """Answers the child's requests up to its final report."""
        link = self._child.link
        wanted = ExcerptReport if isinstance(self._wanted, ExcerptOrder) else TrackReport
        while True:
            kind, first, second = protocol.REQUEST.unpack(protocol.receive(link, protocol.REQUEST.size))
            if kind == protocol.READ and second >= 0:
                self._answer([(second, max(0, min(first, protocol.BUFFER)))])
            elif kind == protocol.GATHER and 0 <= first <= protocol.MAX_SPANS:
                self._answer(list(protocol.SPAN.iter_unpack(protocol.receive(link, first * protocol.SPAN.size))))
            elif kind == protocol.COVER and 0 < first <= protocol.MAX_COVER:
                self._cover = bytes(protocol.receive(link, first))
            elif kind in (protocol.BEGUN, protocol.INDEXED, protocol.REPORT) and 0 < first <= protocol.MAX_REPORT:
                report = protocol.parse_report(protocol.receive(link, first), wanted)
                if isinstance(report, TrackReport) and report.indexed:
                    self._check_index(report)
                if kind == protocol.REPORT:
                    return report
                self._note(kind, report)
            else:
                raise protocol.InvalidReport(f"a request {kind!r} of {first} and {second}")

    def _note(self, kind: bytes, report: protocol.Report) -> None:
        """Notes a report that is not the last."""
        if not isinstance(report, TrackReport):
            raise protocol.InvalidReport(f"{type(report).__name__} in place of a track's report")
        if kind == protocol.BEGUN and report.container != "mov":
            raise protocol.InvalidReport("only a track in mov may still grow")
        if kind == protocol.INDEXED and (self._indexed or self._report or not self._may_index):
            raise protocol.InvalidReport("an index that was not ordered")
        with self._changed:
            if kind == protocol.BEGUN:
                self._report = report
            else:
                self._indexed = report
            self._changed.notify_all()

    def _check_index(self, report: TrackReport) -> None:
        """Checks that an index was ordered, for the track that was reported then: the plan is for that one."""
        if self._indexed is None or replace(report, indexed=False) != self._indexed:
            raise protocol.InvalidReport("an index that was not ordered")

    @property
    def _may_index(self) -> bool:
        return isinstance(self._wanted, TrackOrder) and self._wanted.index_seconds is not None

    def _answer(self, spans: list[tuple[int, int]]) -> None:
        if any(offset < 0 or size < 0 for offset, size in spans) or sum(size for _, size in spans) > _MAX_ANSWER:
            raise protocol.InvalidReport(f"a request for {spans}")
        source = self._source
        parts = []
        for offset, size in spans:
            started = time.perf_counter()
            if offset < self._size:  # the offsets of a damaged file may be larger than any file
                if source.tell() != offset:
                    source.seek(offset)
                while size and (data := source.read(size)):  # a span must be complete: others follow it
                    parts.append(data)
                    size -= len(data)
            self._reads += 1
            self._read_seconds += time.perf_counter() - started
        _send(self._child.link, b"".join(parts))
        with self._changed:
            self._furthest = max(self._furthest, source.tell())
            self._changed.notify_all()


def _send(link: socket.socket, data: bytes) -> None:
    # An error of the socket means that the child died; an error of the source propagates as it is.
    try:
        link.sendall(protocol.ANSWER.pack(len(data)) + data)
    except OSError as error:
        raise protocol.PeerClosed from error


def _death(status: int, closed: BaseException) -> Mp3burstError:
    """Maps the exit status of a child that sent no report to an error: dying by its own signal is the file's fault."""
    error: Mp3burstError
    if status >= 0:
        error = DemuxerFailed()
    elif status == -signal.SIGKILL:
        error = EncoderKilled("The demuxer was killed; the conversion will be retried.")
    else:
        error = UnusableMedia(DAMAGED)
    error.__cause__ = RuntimeError(f"the demux child ended with {status}: {closed.__cause__!r}")
    return error


def error_of(report: FaultReport, number: int | None) -> Mp3burstError:
    """Maps a fault to a user-facing error; ``number`` is the track that was requested."""
    if report.fault == Fault.DISK_FULL:
        return TemporaryStorageFull("Temporary storage is full; the conversion will be retried.")
    if report.fault == Fault.NOT_STARTED:
        failed = DemuxerFailed()
        failed.__cause__ = RuntimeError(report.detail)
        return failed
    unknown = report.fault in (Fault.FORMAT, Fault.CODEC)
    error = UnknownMedia(_message(report, number)) if unknown else UnusableMedia(_message(report, number))
    error.__cause__ = RuntimeError(report.detail or report.fault)
    error.tracks = decoded(report.tracks)
    return error


def _message(report: FaultReport, number: int | None) -> str:
    match report.fault:
        case Fault.FORMAT:
            return "This is not a video or audio file, or it is incomplete or damaged: check that it plays."
        case Fault.INDEX:
            return (
                "The file's index is missing: the recording was not finished, or the file is incomplete. Copy it "
                "again, or repair it with the program that recorded it."
            )
        case Fault.SILENT:
            return "This file has no audio track: choose a file with sound."
        case Fault.TRACK:
            if len(report.tracks) == 1:
                return f"There is no audio track {number} in this file: choose 0, the only one."
            return f"There is no audio track {number} in this file: choose one from 0 to {len(report.tracks) - 1}."
        case Fault.CODEC:
            return "The audio of this file is in a format that cannot be decoded: convert the file to another format."
        case Fault.PROTECTED:
            return "This file is copy-protected and cannot be converted: use a copy without protection."
        case Fault.MEMORY:
            return f"Reading this file takes more memory than a video should need. {_CHECK}"
        case _:
            return "This file is damaged and its audio track cannot be read: export or download it again."

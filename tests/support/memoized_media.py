"""Memoizes demuxing and encoding for tests that kill a conversion at hundreds of points around them.

A video that was demuxed before, or a track that was encoded before, gives the same result again without a demux child
or an encoder, which would take a second each time. Everything else is real: stores, rows, events and their order.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from functions.convert import pipeline
from functions.convert.demux.track import Indexing, TrackInfo, TrackStream, open_track
from functions.convert.errors import UnusableMedia
from functions.convert.ffmpeg import encoder
from functions.convert.ffmpeg.encoder import EncoderInput, EncoderRun
from functions.convert.plan import FrameRange
from functions.convert.streams import SupportsReadSeek

OnProgress = Callable[[float], None]


class MediaMemo:
    """The results of demux children and encoders so far. A forked process inherits its parent's."""

    def __init__(self) -> None:
        self._encode = encoder.encode
        self._tracks: dict[tuple[object, ...], tuple[TrackInfo | UnusableMedia | None, bytes, bool]] = {}
        self._encodings: dict[tuple[str, FrameRange, bytes], tuple[EncoderRun, bytes]] = {}

    @contextmanager
    def open_track(
        self,
        source: SupportsReadSeek,
        path: Path,
        *,
        number: int | None,
        copy: bool,
        filename: str = "",
        indexing: Indexing | None = None,
        on_progress: OnProgress,
    ) -> Iterator[TrackStream | None]:
        """Does what ``open_track`` does, but the track is complete at once."""
        source.seek(0)
        content = source.read()
        key = (hashlib.sha256(content).digest(), number, copy, None if indexing is None else indexing.seconds)
        if key not in self._tracks:
            try:
                with open_track(
                    io.BytesIO(content),
                    path,
                    number=number,
                    copy=copy,
                    filename=filename,
                    indexing=indexing,
                    on_progress=on_progress,
                ) as stream:
                    taken = None if stream is None else stream.complete(on_progress)
                    indexed = stream is not None and stream.indexed
                self._tracks[key] = taken, path.read_bytes(), indexed
            except UnusableMedia as error:
                self._tracks[key] = error, path.read_bytes(), False
        track, content, indexed = self._tracks[key]
        path.write_bytes(content)
        if isinstance(track, UnusableMedia):
            raise track
        on_progress(1.0)
        yield None if track is None else TrackStream(replace(track, path=path), indexed=indexed)

    def encode(
        self,
        source: EncoderInput,
        ranges: Iterable[FrameRange],
        encoders: int,
        on_progress: OnProgress,
        on_end: Callable[[EncoderRun], object] = lambda _: None,
    ) -> list[EncoderRun]:
        """Does what ``encoder.encode`` does."""
        assert source.stream is None or not source.stream.growing
        sound = hashlib.sha256(source.track.read_bytes()).digest()
        plan = json.dumps(source.plan.to_json())
        wanted = {one: (plan, one, sound) for one in ranges}
        new = [one for one, key in wanted.items() if key not in self._encodings]
        for run in self._encode(source, new, encoders, on_progress):
            self._encodings[wanted[run.range]] = replace(run, process=None), run.path.read_bytes()
        made = []
        for one, key in wanted.items():
            run, frames = self._encodings[key]
            made.append(replace(run, path=source.directory / f"piece-{one.start}"))
            made[-1].path.write_bytes(frames)
            on_end(made[-1])
        on_progress(1.0)
        return made


@contextmanager
def memoized_media() -> Iterator[None]:
    """Demuxes and encodes each sound only once within the block, and does not wait for the disk."""
    memo = MediaMemo()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "open_track", memo.open_track)
        patch.setattr(encoder, "encode", memo.encode)
        # A killed process loses nothing that the kernel has already received.
        patch.setattr(os, "fsync", lambda _: None)
        yield

"""Lets the work on sound be done once for many deaths: what dies in those tests is what goes on around it.

Reading a video and encoding its track are remembered by what goes in, and given again without a reader or an encoder,
which take a second of each death otherwise. Everything else is real: stores, rows, events, the order of it all.
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
from functions.convert.demux.client import SupportsReadSeek
from functions.convert.demux.track import TrackInfo, TrackStream, open_track
from functions.convert.errors import UnusableMedia
from functions.convert.ffmpeg import encoder
from functions.convert.ffmpeg.encoder import EncoderInput, EncoderRun
from functions.convert.plan import FrameRange

OnProgress = Callable[[float], None]


class Rehearsal:
    """What readers and encoders have made so far. A process that is forked has what its parent had."""

    def __init__(self) -> None:
        self._encode = encoder.encode
        self._tracks: dict[tuple[bytes, int, bool], tuple[TrackInfo | None, bytes] | UnusableMedia] = {}
        self._encodings: dict[tuple[str, FrameRange, bytes], tuple[EncoderRun, bytes]] = {}

    @contextmanager
    def open_track(
        self, source: SupportsReadSeek, path: Path, *, number: int, copy: bool, on_progress: OnProgress
    ) -> Iterator[TrackStream | None]:
        """As ``open_track``, but the track is complete."""
        source.seek(0)
        content = source.read()
        key = (hashlib.sha256(content).digest(), number, copy)
        if key not in self._tracks:
            try:
                with open_track(io.BytesIO(content), path, number=number, copy=copy, on_progress=on_progress) as stream:
                    track = None if stream is None else stream.complete(on_progress)
                self._tracks[key] = track, path.read_bytes()
            except UnusableMedia as error:
                self._tracks[key] = error
        found = self._tracks[key]
        if isinstance(found, UnusableMedia):
            raise found
        track, taken = found
        path.write_bytes(taken)
        on_progress(1.0)
        yield None if track is None else TrackStream(replace(track, path=path))

    def encode(
        self,
        source: EncoderInput,
        ranges: Iterable[FrameRange],
        encoders: int,
        on_progress: OnProgress,
        on_end: Callable[[EncoderRun], object] = lambda _: None,
    ) -> list[EncoderRun]:
        """As ``encoder.encode``."""
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
def rehearsed() -> Iterator[None]:
    """Readers and encoders work once for each sound, and no disk is waited for, until the block ends."""
    rehearsal = Rehearsal()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "open_track", rehearsal.open_track)
        patch.setattr(encoder, "encode", rehearsal.encode)
        # A process that is killed loses nothing that it has given to the kernel.
        patch.setattr(os, "fsync", lambda _: None)
        yield

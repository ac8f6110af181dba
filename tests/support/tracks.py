"""Extracts complete audio tracks for tests that do not care how a track is extracted."""

from pathlib import Path
from typing import IO

from functions.convert import pipeline
from functions.convert.demux.track import TrackInfo
from functions.options import Options


def take(source: IO[bytes], directory: Path, options: Options) -> TrackInfo:
    """Extracts the track that the options name into a file in the directory."""
    with pipeline.prepared_track(source, directory, options, lambda _: None) as stream:
        return stream.complete(lambda _: None)

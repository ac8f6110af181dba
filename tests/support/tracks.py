"""Audio tracks taken out of videos as a whole, where a test looks at a track and not at who writes it."""

from pathlib import Path
from typing import IO

from functions.convert import pipeline
from functions.convert.demux.track import TrackInfo
from functions.options import Options


def take(source: IO[bytes], directory: Path, options: Options) -> TrackInfo:
    """The track that the options ask for, in a file in the directory."""
    with pipeline.prepared_track(source, directory, options, lambda _: None) as stream:
        return stream.complete(lambda _: None)

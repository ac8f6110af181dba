"""The dependencies of convert, encode and join."""

import functools
import math
import os
from dataclasses import dataclass, field
from typing import Final

from events.publish import publisher
from functions.convert.budget import MAX_SECONDS
from functions.convert.cpus import MAX_ENCODERS, available_cpus
from functions.convert.distribution import DEFAULT_PIECES, MAX_SEEKING_PIECES
from functions.convert.ffmpeg.binary import configured_ffmpeg
from functions.convert.sandbox import setting
from functions.media import Media, connect
from functions.settings import number
from functions.state.blobs import Blobs
from functions.state.database import shared
from functions.state.jobs import Jobs
from functions.state.outbox import Outbox
from functions.state.pieces import Pieces
from functions.state.quota import QUOTA_BYTES, Quota
from functions.warm_up import before_serving

#: Seconds of sound per encoder below which another one does not pay off: starting one, pre-roll included, costs as
#: much as encoding 8 s.
ENCODER_SECONDS: Final = 20.0
#: Seconds of sound from which a job is split.
FANOUT_SECONDS: Final = 900.0


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The stores, tables and tools that the handlers use.

    Attributes:
        media: the stores of videos, pieces and MP3s.
        blobs: their records.
        jobs: the jobs to convert.
        joins: the jobs to join.
        pieces: the pieces of jobs that were split.
        outbox: emits events.
        encoders: how many encoders may run at once in this process.
        fanout_seconds: seconds of sound from which a job is split.
        max_pieces: how many pieces of a job are encoded at once.
        ffmpeg: the program's path; None for the one that imageio-ffmpeg contains.
        max_seconds: the latest position in the sound that is converted, in seconds.
        quota: what a user may store.
    """

    media: Media
    blobs: Blobs
    jobs: Jobs
    joins: Jobs
    pieces: Pieces
    outbox: Outbox
    encoders: int
    fanout_seconds: float = math.inf
    max_pieces: int = DEFAULT_PIECES
    ffmpeg: str | None = None
    max_seconds: float = math.inf
    quota: Quota = field(default_factory=Quota)

    def encoders_for(self, seconds: float) -> int:
        """Returns how many encoders pay off for so many seconds of sound."""
        return max(min(self.encoders, int(seconds / ENCODER_SECONDS)), 1)


@before_serving
def _check_sandbox() -> None:
    setting.check(os.environ)


@functools.cache
def dependencies() -> Dependencies:
    """Builds the dependencies from the environment, once per process.

    Raises:
        BadSetting: a variable is invalid, or this system has no sandbox for decoders.
    """
    database = shared(os.environ)
    places = int(number(os.environ, "PLACES", 0))
    return Dependencies(
        media=connect(os.environ),
        blobs=Blobs(database),
        jobs=Jobs(database, places=places),
        joins=Jobs(database, stage="joining", places=places),
        pieces=Pieces(database, places=places),
        outbox=Outbox(database, publisher(os.environ, f"/mp3burst/{os.environ.get('FUNCTION_TARGET', 'convert')}")),
        encoders=int(number(os.environ, "ENCODERS", min(available_cpus(), MAX_ENCODERS), 1, MAX_ENCODERS)),
        fanout_seconds=number(os.environ, "FANOUT_SECONDS", FANOUT_SECONDS),
        max_pieces=int(number(os.environ, "FANOUT_PIECES", DEFAULT_PIECES, 2, MAX_SEEKING_PIECES)),
        ffmpeg=configured_ffmpeg(os.environ),
        max_seconds=number(os.environ, "MAX_SECONDS", MAX_SECONDS, 1),
        quota=Quota(size=int(number(os.environ, "QUOTA_BYTES", QUOTA_BYTES))),
    )

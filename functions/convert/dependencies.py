"""What convert, encode and join work with."""

import functools
import math
import os
from dataclasses import dataclass
from typing import Final

from events.publish import publisher
from functions.convert.cpus import MAX_ENCODERS, available_cpus
from functions.convert.distribution import MAX_PIECES, MAX_SEEKING_PIECES
from functions.convert.ffmpeg.binary import configured_ffmpeg
from functions.media import Media, connect
from functions.settings import number
from functions.state.blobs import Blobs
from functions.state.database import Database, url
from functions.state.jobs import Jobs
from functions.state.outbox import Outbox
from functions.state.pieces import Pieces

#: Seconds of sound worth an encoder of their own: to start one, pre-roll included, costs what encoding eight does.
ENCODER_SECONDS: Final = 20.0
#: Seconds of sound from which on a job is shared out.
FANOUT_SECONDS: Final = 900.0


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The stores and the tools.

    Attributes:
        media: where videos, pieces and MP3s lie.
        blobs: the record of them.
        jobs: as convert moves them.
        joins: as join moves them.
        pieces: of jobs that are shared out.
        outbox: for events.
        encoders: how many run at once in this process.
        fanout: seconds of sound from which on a job is shared out.
        most: pieces of a job, at most, where each decodes all that is before it.
        ffmpeg: the program's path; None for the one that came with the dependencies.
    """

    media: Media
    blobs: Blobs
    jobs: Jobs
    joins: Jobs
    pieces: Pieces
    outbox: Outbox
    encoders: int
    fanout: float = math.inf
    most: int = MAX_PIECES
    ffmpeg: str | None = None

    def encoders_for(self, seconds: float) -> int:
        """How many encoders at once so many seconds of sound are worth."""
        return max(min(self.encoders, int(seconds / ENCODER_SECONDS)), 1)


@functools.cache
def dependencies() -> Dependencies:
    """Connect to what the environment names, once per process."""
    database = Database(url(os.environ))
    return Dependencies(
        media=connect(os.environ),
        blobs=Blobs(database),
        jobs=Jobs(database),
        joins=Jobs(database, stage="joining"),
        pieces=Pieces(database),
        outbox=Outbox(database, publisher(os.environ, f"/mp3burst/{os.environ.get('FUNCTION_TARGET', 'convert')}")),
        encoders=int(number(os.environ, "ENCODERS", min(available_cpus(), MAX_ENCODERS), 1, MAX_ENCODERS)),
        fanout=number(os.environ, "FANOUT_SECONDS", FANOUT_SECONDS),
        most=int(number(os.environ, "FANOUT_PIECES", MAX_PIECES, 2, MAX_SEEKING_PIECES)),
        ffmpeg=configured_ffmpeg(os.environ),
    )


def mp3_name(filename: str) -> str:
    """The file name of the MP3 that is made of this file."""
    stem = filename.rpartition(".")[0] or filename
    return f"{stem[:251]}.mp3"

"""One audio track encoded by many workers: what they tell each other through the rows of the job and its pieces."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from functions.convert import pipeline
from functions.convert.demux.track import TrackInfo
from functions.convert.ffmpeg import encoder as encoder
from functions.convert.mp3 import assemble
from functions.convert.mp3.assemble import SupportsWrite
from functions.convert.plan import FrameRange, Plan, plan_for
from functions.convert.seek import excerpt
from functions.media import BlobId
from functions.options import Options

#: Seconds of sound in a piece, about: short enough that a worker that dies costs little.
PIECE_SECONDS = 120.0
#: Each piece decodes all that is before it, a tenth of what encoding it costs, and pieces take equally long (``cut``):
#: by arithmetic 16 are done in 1/7.8 of the time of one and cost 2.0 times its CPU, 64 in 1/10 and cost 6.4 times it.
MAX_PIECES = 16
#: Where encoders leap a piece costs no more for being late: as many as keep the pods of a large cluster equally busy.
MAX_SEEKING_PIECES = 128


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What every worker of a job knows: how to encode, and what is known already of the result.

    Attributes:
        plan: the same for all pieces.
        head: the blob of the ID3 tag.
        missing: as of the track.
        errors: the reader's.
        warning: a sentence of what is known already to be amiss.
    """

    plan: Plan
    head: BlobId
    missing: float
    errors: int
    warning: str | None = None

    def to_json(self) -> str:
        """For the job's row."""
        return json.dumps({**asdict(self), "plan": self.plan.to_json()})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """From the job's row."""
        values: dict[str, Any] = json.loads(text)
        return cls(**{**values, "plan": Plan.from_json(values["plan"])})


@dataclass(frozen=True, slots=True)
class EncodedPiece:
    """What the join must know of an encoded piece.

    Attributes:
        sum: of its frames, which are all that its blob holds.
        errors: the decoder's complaints.
        reconfigured: whether the sound changed on the way, so that ranges mean nothing.
    """

    sum: assemble.PieceSummary
    errors: int
    reconfigured: bool

    def to_json(self) -> str:
        """For the piece's row."""
        return json.dumps({"sum": self.sum.to_json(), "errors": self.errors, "reconfigured": self.reconfigured})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """From the piece's row."""
        values: dict[str, Any] = json.loads(text)
        return cls(**{**values, "sum": assemble.PieceSummary.from_json(values["sum"])})


def plan_pieces(track: TrackInfo, options: Options, threshold: float, most: int = MAX_PIECES) -> Plan | None:
    """How to encode the track in pieces; None where one worker does it sooner.

    Args:
        track: the track; its file may still grow.
        options: what the user asked for.
        threshold: seconds of sound from which on pieces pay.
        most: pieces at most, where each decodes all that is before it; not more than there are workers.
    """
    seconds = 0.0 if track.container == "mp3" else plan_for(track, options, 1).seconds
    if seconds < threshold:
        return None
    wanted = max(round(seconds / PIECE_SECONDS), 2)
    marks = (
        excerpt.index_clusters(track)
        if seconds >= excerpt.MIN_SEEK_SECONDS and excerpt.is_seekable(track, options)
        else None
    )
    if marks is None:
        plan = plan_for(track, options, min(wanted, most))
    else:
        plan = excerpt.add_seeks(plan_for(track, options, min(wanted, MAX_SEEKING_PIECES), 0.0), track, marks)
    return plan if len(plan.ranges) > 1 else None


def encode_piece(
    ffmpeg: str, plan: Plan, piece: FrameRange, track: Path, out: SupportsWrite, on_progress: Callable[[float], None]
) -> EncodedPiece:
    """Encode one piece of a track and write its frames.

    Args:
        ffmpeg: the program's path.
        plan: of the whole.
        piece: which one.
        track: the file with the track, or with the excerpt that the piece's leap is about.
        out: takes the frames.
        on_progress: as of the encoder.

    Raises:
        UnusableMedia: it cannot be decoded.
        EncoderKilled: the encoder was killed; it may work later.
    """
    (done,) = encoder.encode(ffmpeg, plan, [piece], track, track.parent, 1, on_progress)
    measured = pipeline.summarize_run(done)
    assemble.copy_frames([(done.path, measured)], out, lambda _: on_progress(1.0))
    return EncodedPiece(measured, done.errors, done.reconfigured)


def pieces_fit(plan: Plan, parts: Sequence[EncodedPiece]) -> bool:
    """Whether the pieces are pieces of one encoding.

    Where encoders leaped and one of them met damage, less may have been decoded than was counted for those behind it.
    """
    damaged = any(piece.seek for piece in plan.ranges) and any(part.errors for part in parts[:-1])
    reconfigured = any(part.reconfigured for part in parts)
    return not damaged and not reconfigured and assemble.seams_match([part.sum for part in parts])

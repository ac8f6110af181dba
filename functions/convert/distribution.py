"""Encodes one audio track with many workers, which communicate through the rows of the job and its pieces."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from functions.convert.demux.track import TrackInfo
from functions.convert.errors import DAMAGED, UnusableMedia
from functions.convert.ffmpeg import encoder
from functions.convert.ffmpeg.encoder import EncoderInput
from functions.convert.mp3.summary import PieceSummary, read_frames, seams_match
from functions.convert.plan import Excerpt, FrameRange, Plan, moved_ranges, plan_for
from functions.convert.points import Points
from functions.convert.progress import OnProgress
from functions.convert.seek import excerpt
from functions.convert.seek.numbering import Mark
from functions.convert.seek.recipe import InvalidIndex, Recipe, read_index
from functions.convert.streams import SupportsWrite
from functions.media import BlobId
from functions.options import Options

#: Approximate seconds of sound in a piece: short enough that little is lost when a worker dies.
PIECE_SECONDS = 120.0
#: Maximum number of pieces if every encoder decodes the track from its start. Decoding costs a tenth of encoding, and
#: all pieces take equally long (``plan.split_frames``): by arithmetic 16 pieces take 1/7.8 of the time of one and cost
#: 2.0 times its CPU, 64 take 1/10 and cost 6.4 times its CPU.
MAX_PIECES = 16
#: Maximum number of pieces if encoders seek, which makes late pieces as cheap as early ones.
MAX_SEEKING_PIECES = 256
#: The number of pieces that are encoded at once, unless FANOUT_PIECES says otherwise: the pods that one user's pieces
#: get of those that the manifest of encode allows.
DEFAULT_PIECES = 20
#: Seconds of sound in a piece whose encoder seeks, at least: taking a piece and storing it cost as much as encoding 20.
MIN_SEEKING_SECONDS = 30.0
#: The same, at most: six seconds of work are lost when a worker dies.
MAX_SEEKING_SECONDS = 600.0
#: Seconds before ``start`` that the first encoder of a track without tables decodes, at most: it counts from the start
#: of the track, which proves all other numbers. They take as long as encoding 40.
MAX_COUNTED_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What every worker of a job knows: how to encode, and what is already known about the result.

    Attributes:
        plan: how to encode the track.
        head: blob of the ID3 tag.
        missing: seconds that the track claims to have but does not.
        errors: errors of the demuxer.
        warning: the warning about the cover or the choice of the track, if any.
        truncated: whether the video ends within a part of it.
        silent: the warning about parts of the video without sound, if any.
        unread: seconds of sound that are in the video and could not be read, if more than half are.
        index: blob of the recipes for the excerpts of the plan's ranges; None if the track itself is stored.
    """

    plan: Plan
    head: BlobId
    missing: float
    errors: int
    warning: str | None = None
    truncated: bool = False
    silent: str | None = None
    unread: float = 0.0
    index: BlobId | None = None

    def to_json(self) -> str:
        """Returns the text for the job's row."""
        values = {**asdict(self), "plan": self.plan.to_json()}
        # Workers of the version before read such rows during an update. They ignore what they do not know in a plan.
        if (index := values.pop("index")) is not None:
            values["plan"]["index"] = index
        if unread := values.pop("unread"):
            values["plan"]["unread"] = unread
        if not self.truncated and self.silent is None:
            del values["truncated"], values["silent"]
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parses the text in the job's row."""
        values: dict[str, Any] = json.loads(text)
        plan = values["plan"]
        more = {"index": plan.get("index"), "unread": plan.get("unread", 0.0)}
        return cls(**{**values, **more, "plan": Plan.from_json(plan)})


@dataclass(frozen=True, slots=True)
class EncodedPiece:
    """What the join needs to know about an encoded piece.

    Attributes:
        summary: of its frames, which are all that its blob contains.
        errors: errors of the decoder.
        reconfigured: whether the sound changed its format on the way, which makes ranges meaningless.
        marks: how its encoder has numbered the packets at its start and at its end; empty if the packets were numbered
            before.
        points: of its part of the waveform; None if they are not known, as those of the version before.
    """

    summary: PieceSummary
    errors: int
    reconfigured: bool
    marks: tuple[Mark | None, ...] = ()
    points: Points | None = None

    def fits(self, frame_range: FrameRange) -> bool:
        """Returns whether as many samples were decoded as were counted for later pieces, as far as is known."""
        if frame_range.end is None:
            return not self.reconfigured
        is_complete = self.summary.frames == frame_range.end - frame_range.start
        return is_complete and not self.errors and not self.reconfigured

    def to_json(self) -> str:
        """Returns the text for the piece's row."""
        values: dict[str, Any] = {
            "sum": self.summary.to_json(),
            "errors": self.errors,
            "reconfigured": self.reconfigured,
        }
        if self.points is not None:  # a join of the version before ignores them
            values["points"] = self.points.to_json()
        # A join of the version before would ignore the marks. It cannot read such a row, and its event is repeated.
        return json.dumps({"marked": {**values, "marks": self.marks}} if self.marks else values)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parses the text in the piece's row."""
        values: dict[str, Any] = json.loads(text)
        values = values.get("marked", values)
        marks = tuple(mark and Mark(*mark) for mark in values.get("marks", ()))
        points = Points.from_json(values["points"]) if "points" in values else None
        return cls(PieceSummary.from_json(values["sum"]), values["errors"], values["reconfigured"], marks, points)


def plan_pieces(track: TrackInfo, options: Options, threshold: float, limit: int = DEFAULT_PIECES) -> Plan | None:
    """Plans the encoding of a track in pieces; returns None if one worker is faster.

    Args:
        track: the track; its file may still grow.
        options: what the user asked for.
        threshold: seconds of sound from which several workers pay off.
        limit: how many pieces are encoded at once.

    Raises:
        UnusableMedia: no sample is left between start and end.
    """
    seconds = 0.0 if track.container == "mp3" else plan_for(track, options, 1).seconds
    if seconds < threshold:
        return None
    # Not ``plan.decode_cost``: pieces are encoded from the stored track, so a slow source makes none of them wait.
    wanted = max(round(seconds / PIECE_SECONDS), 2)
    seekable = seconds >= excerpt.MIN_SEEK_SECONDS and excerpt.is_seekable(track, options)
    clusters = excerpt.index_clusters(track) if seekable else None
    if clusters is None:
        plan = plan_for(track, options, min(wanted, limit, MAX_PIECES))
    else:
        plan = plan_for(track, options, seeking_pieces(seconds, limit), 0.0)
        plan = excerpt.add_seeks(plan, track, clusters)
    return plan if len(plan.ranges) > 1 else None


def seeking_pieces(seconds: float, limit: int) -> int:
    """Returns the number of pieces if encoders seek: as many as are encoded at once, or a multiple of that.

    Args:
        seconds: seconds of sound.
        limit: how many pieces are encoded at once.
    """
    at_once = max(min(limit, int(seconds / MIN_SEEKING_SECONDS)), 2)
    rounds = math.ceil(seconds / (at_once * MAX_SEEKING_SECONDS))
    return min(at_once * rounds, MAX_SEEKING_PIECES)


def plan_ranges(track: TrackInfo, options: Options, threshold: float, limit: int = DEFAULT_PIECES) -> Plan | None:
    """Plans the encoding of a track whose encoders can read their excerpts of the video, which are still to be found.

    Args:
        track: a track that the demux child offers to index.
        options: what the user asked for.
        threshold: as for ``plan_pieces``.
        limit: as for ``plan_pieces``.

    Returns:
        The plan; None if the samples before a range cannot be counted, or one worker is faster.

    Raises:
        UnusableMedia: no sample is left between start and end.
    """
    if not excerpt.is_countable(track, options):
        return None
    if track.starts and (options.start or 0.0) > MAX_COUNTED_SECONDS:
        return None
    seconds = plan_for(track, options, 1).seconds
    if seconds < threshold:
        return None
    plan = plan_for(track, options, seeking_pieces(seconds, limit), 0.0, clocked=True)
    if track.starts:
        plan = moved_ranges(plan, track.starts)
    return plan if len(plan.ranges) > 1 else None


def with_excerpts(plan: Plan, index: Path, size: int) -> tuple[Plan, Recipe | None]:
    """Adds the excerpt of each range to a plan.

    Args:
        plan: from ``plan_ranges``.
        index: the recipes of its ranges, and before them that of the sample of the track, if there is one.
        size: bytes of the video.

    Returns:
        The plan; and the recipe of the sample, None if the decoder draws no random numbers.

    Raises:
        UnusableMedia: the file has compromised the demux child.
    """
    excerpts: list[Excerpt] = []
    sample: Recipe | None = None
    try:
        with index.open("rb") as file:
            for place, recipe in read_index(file, size):
                excerpts.append(Excerpt(place.offset, place.size, place.crc, recipe.sample))
                if len(excerpts) == 1:
                    sample = recipe
    except InvalidIndex as error:
        raise UnusableMedia(DAMAGED) from error
    if len(excerpts) == len(plan.ranges):
        sample = None
    elif len(excerpts) != len(plan.ranges) + 1:
        raise UnusableMedia(DAMAGED)
    ranges = zip(plan.ranges, excerpts[-len(plan.ranges) :], strict=True)
    return replace(plan, ranges=tuple(replace(one, excerpt=found) for one, found in ranges)), sample


def encode_piece(
    source: EncoderInput, frame_range: FrameRange, out: SupportsWrite, on_progress: OnProgress
) -> EncodedPiece:
    """Encodes one piece of a track and writes its frames.

    Args:
        source: the plan, and the file with the track or with the excerpt that the range's seek describes.
        frame_range: of the piece.
        out: takes the frames.
        on_progress: as for ``encoder.encode``.

    Raises:
        UnusableMedia: the track cannot be decoded.
        EncoderKilled: the encoder was killed; retrying may succeed.
        TemporaryStorageFull: there was no space for the frames.
    """
    (run,) = encoder.encode(source, [frame_range], 1, on_progress)
    summary = run.summarize()
    for chunk in read_frames(run.path, summary):
        out.write(chunk)
        on_progress(1.0)
    return EncodedPiece(summary, run.errors, run.reconfigured, points=run.points)


def pieces_fit(plan: Plan, pieces: Sequence[EncodedPiece]) -> bool:
    """Returns whether the pieces belong to one encoding and can be joined.

    If an encoder that seeks meets damage, fewer samples may have been decoded than were counted for later pieces.
    """
    seeks = any(frame_range.seek or frame_range.excerpt for frame_range in plan.ranges)
    if seeks and not all(piece.fits(frame_range) for piece, frame_range in zip(pieces, plan.ranges, strict=True)):
        return False
    reconfigured = any(piece.reconfigured for piece in pieces)
    numbered = all(_is_numbered_alike(before, after) for before, after in pairwise(pieces))
    return not reconfigured and numbered and seams_match([piece.summary for piece in pieces])


def _is_numbered_alike(before: EncodedPiece, after: EncodedPiece) -> bool:
    """Returns whether two pieces that follow each other have numbered the packet at their seam in the same way."""
    if not before.marks and not after.marks:
        return True
    return bool(before.marks and after.marks) and before.marks[-1] is not None and before.marks[-1] == after.marks[0]

"""Writes the MP3: ID3 tag, Info tag, frames. Used by a worker that converts alone and by the join of many pieces."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from functions.convert.errors import UnusableMedia
from functions.convert.mp3 import reservoir
from functions.convert.mp3.summary import PieceSummary, build_tag, last_with_sound, read_frames, summarize
from functions.convert.plan import Plan
from functions.convert.streams import SupportsWrite
from functions.mp3 import info_tag
from functions.mp3.frame import DECODER_DELAY, HEADER_SIZE, parse_header

#: Seconds that may be missing from a track without a warning.
_TOLERANCE = 1.0
#: Share of a track that has to be decoded if there is to be no warning about it, and if there is to be an MP3.
_MIN_SHARE = 0.5
_MIN_USEFUL_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class EncodedSound:
    """Encoded sound, ready to be written.

    Attributes:
        tag: the Info tag frame, the first frame of the MP3.
        frames: chunks of the frames that follow; they can be read once.
        count: number of these frames.
        size: their bytes.
    """

    tag: bytes
    frames: Iterable[bytes]
    count: int
    size: int

    @property
    def duration(self) -> float:
        """Seconds of sound that a player plays."""
        frame = parse_header(self.tag)
        if frame is None:
            raise ValueError("the tag is not a frame")
        delay, padding = info_tag.delay_and_padding(self.tag) or (0, 0)
        return max(self.count * frame.samples - delay - padding, 0) / frame.rate


def join_pieces(
    plan: Plan, summaries: Sequence[PieceSummary], frames: Iterable[bytes], directory: Path
) -> EncodedSound:
    """Joins the pieces of a track, and re-packs them if the bit rate is variable.

    Args:
        plan: of the track.
        summaries: of all pieces, in order.
        frames: chunks of the frames of all pieces, in order.
        directory: for the re-packed frames.

    Raises:
        UnusableMedia: there is no sound, or it cannot be re-packed.
        TemporaryStorageFull: there is no space for the re-packed frames.
    """
    if plan.variable:
        path = directory / "repacked"
        summary = reservoir.repack(frames, summaries, path)
        summaries = [summary]
        frames = read_frames(path, summary)
    last = last_with_sound(summaries)
    if last is None and plan.start_sample:
        raise UnusableMedia("The sound ends before the start that you chose: choose an earlier start.")
    if last is None:
        raise UnusableMedia("The audio track of this file cannot be decoded: check that it plays on your computer.")
    return _sound(summaries, build_tag(summaries, bytes.fromhex(last.tag)), frames)


def copied_sound(path: Path, skipped: int, discarded: int) -> EncodedSound:
    """Prepares MP3 frames that are copied from the source.

    Args:
        path: a file of bare frames.
        skipped: samples at the start that are not to be played.
        discarded: samples at the end that are not to be played; all are if ``skipped`` is 0, which no tag expresses.

    Raises:
        UnusableMedia: the file is empty.
    """
    summary = summarize(path, 0, 0, None)
    if not summary.frames:
        raise UnusableMedia("The audio track of this file is empty: choose a file with sound.")
    with path.open("rb") as file:
        header = file.read(HEADER_SIZE)
    bitrate = summary.bitrates[0] if len(summary.bitrates) == 1 else None
    if skipped:
        # Decoders trust the delay and padding only of encoders that they know; ffmpeg signs its copies with this name.
        delay = skipped - DECODER_DELAY
        template = info_tag.blank_tag(header, bitrate, b"Lavf", delay, discarded + DECODER_DELAY)
    else:
        # To a delay of 0, decoders would add the samples by which they delay the sound, whatever the padding is.
        template = info_tag.blank_tag(header, bitrate, b"", 0, 0)
    return _sound([summary], build_tag([summary], template), read_frames(path, summary))


def _sound(summaries: Sequence[PieceSummary], tag: bytes, frames: Iterable[bytes]) -> EncodedSound:
    return EncodedSound(
        tag=tag,
        frames=frames,
        count=sum(summary.frames for summary in summaries),
        size=sum(summary.size for summary in summaries),
    )


def write_mp3(
    out: SupportsWrite, id3: Iterable[bytes], sound: EncodedSound, on_frames: Callable[[int], None] = lambda _: None
) -> int:
    """Writes the MP3; returns its size in bytes.

    Args:
        out: takes the bytes from the first to the last.
        id3: chunks of the ID3 tag.
        sound: the Info tag and the frames.
        on_frames: called with the number of bytes after each chunk of frames.
    """
    size = 0
    for chunk in id3:
        out.write(chunk)
        size += len(chunk)
    out.write(sound.tag)
    size += len(sound.tag)
    for chunk in sound.frames:
        out.write(chunk)
        size += len(chunk)
        on_frames(len(chunk))
    return size


def share_warning(decoded: float, claimed: float, missing: float, errors: int, unread: float = 0.0) -> str | None:
    """Returns the warning that less than half of a track could be decoded; None if more could.

    Args:
        decoded: seconds of the MP3.
        claimed: seconds that the track's packets should have become.
        missing: as for ``warning_for``, which says itself how much it is if it is more than a second.
        errors: as for ``warning_for``; if there are none, what is claimed was wrong.
        unread: estimated seconds that have no packets since the file could not be read.

    Raises:
        UnusableMedia: hardly anything could be decoded.
    """
    if 0.0 < missing <= _TOLERANCE:
        claimed += missing
    elif not errors:
        return None
    whole = claimed + unread
    if decoded >= whole * _MIN_SHARE:
        return None
    share = f"{decoded:.1f} of {whole:.1f} seconds" if whole < 10 else f"{decoded:.0f} of {whole:.0f} seconds"
    if errors and decoded < claimed * _MIN_USEFUL_SHARE:
        raise UnusableMedia(
            f"Only {share} of sound could be decoded. The file is damaged or copy-protected: "
            "check that it plays on your computer."
        )
    return f"Only {share} of sound could be decoded: the rest is damaged."


def warning_for(
    missing: float, truncated: bool, errors: int, silent: str | None, cover: str | None, share: str | None = None
) -> str | None:
    """Returns the warning about everything that is missing from the MP3; None if nothing is.

    Args:
        missing: seconds that the track claims to have but does not.
        truncated: whether the file ends within a part of it.
        errors: errors that the demuxer and the decoder reported.
        silent: the warning about parts of the file without sound, if any.
        cover: the warning about the cover or the choice of the track, if any.
        share: the warning of ``share_warning``, if any.
    """
    sound = None
    if missing > _TOLERANCE:
        seconds = f"{missing:.0f} seconds are" if missing >= 1.5 else "1 second is"
        sound = f"The file is truncated: about {seconds} missing at the end."
    elif truncated:
        sound = "The file is truncated: its end is missing."
    elif errors and share is None:
        sound = "Parts of the sound are damaged or missing and were left out."
    return sentences(sound, share, silent, cover)


def sentences(*warnings: str | None) -> str | None:
    """Joins the warnings that there are; None if there are none."""
    return " ".join(filter(None, warnings)) or None

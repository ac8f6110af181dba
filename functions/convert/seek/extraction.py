"""Extracts an excerpt from clusters of a video, which contain other tracks too, and numbers its samples."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from functions.convert.demux.track import extract_part
from functions.convert.errors import UnsupportedLayout, UnusableMedia
from functions.convert.seek import matroska
from functions.convert.seek.numbering import Mark, PacketClock, read_packets
from functions.convert.seek.packets import AAC_SAMPLES, opus_skip
from functions.convert.seek.recipe import ExcerptFile, Recipe
from functions.convert.streams import SupportsReadSeek

#: The container that the demux child writes tracks to whose samples can be numbered.
_CONTAINER: Final = "matroska"
#: Milliseconds from one packet that draws to the next; decoders go by their order.
_STEP: Final = 20


@dataclass(frozen=True, slots=True)
class Fetched:
    """An excerpt that decodes to the same samples wherever the decoder comes from, apart from the first ones.

    Attributes:
        sample: number of the track's sample with which it begins.
        exact: number of the sample from which on it is the same.
        packets: its packets, if it took these to number its samples; otherwise None.
        first: number of the sample with which its first packet starts, if it has ``packets``; a decoder may drop some.
        zero: number of the track's sample at time 0.
        common: samples before a range that its decoder, and that of the range before, have to decode alike.
    """

    sample: int
    exact: int
    packets: PacketClock | None = None
    first: int = 0
    zero: int = 0
    common: int = 0

    def marks(self, samples: Iterable[int | None]) -> tuple[Mark | None, ...]:
        """Returns the mark at each of these samples of the track; none if the packets were numbered before."""
        packets = self.packets
        if packets is None:
            return ()
        times = [None if sample is None else (sample - self.zero) * 1000 / packets.rate for sample in samples]
        return tuple(None if time is None else packets.mark(self.first, time) for time in times)


def extract_excerpt(
    recipe: Recipe, video: SupportsReadSeek, paths: tuple[Path, Path], on_progress: Callable[[], None]
) -> Fetched | None:
    """Extracts an excerpt; returns None if it is damaged, or its samples cannot be numbered.

    Args:
        recipe: of the excerpt.
        video: the video.
        paths: the new file, and one with the same packets behind some that make the decoder draw random numbers, if the
            recipe has one of these.
        on_progress: called several times a second. An exception that it raises stops the work.

    Raises:
        EncoderKilled: the demux child died by SIGKILL.
    """
    path, drawing = paths
    source = ExcerptFile(recipe, video)
    try:
        until = None if recipe.until < 0 else recipe.until
        track = extract_part(source, path, number=recipe.track, until=until, on_progress=lambda _: on_progress())
    except UnusableMedia:
        return None
    if track.container != _CONTAINER or track.errors or track.truncated:
        return None
    try:
        if recipe.drawing:
            _write_drawing(path, recipe, drawing)
        if len(recipe.spans) > 1:  # a sample of the track, from several places
            return Fetched(recipe.sample, recipe.sample + recipe.warmup)
        packets = read_packets(path, track.codec, track.channels, track.rate)
        first = packets.first_sample(recipe)
        dropped = opus_skip(packets.config) if track.codec == "opus" else 0
        return Fetched(first + dropped, first + recipe.warmup, packets, first, recipe.zero, recipe.common)
    except (UnsupportedLayout, OverflowError, IndexError):  # the last two for what a compromised child may write
        return None


def _write_drawing(path: Path, recipe: Recipe, drawing: Path) -> None:
    """Writes an extracted excerpt behind packets that make the decoder draw random numbers."""
    packets = [recipe.drawing] * (recipe.drawn // AAC_SAMPLES)
    with path.open("rb") as file, drawing.open("wb") as out:
        out.write(matroska.excerpt_head(matroska.head(file), at_start=False))
        out.write(matroska.cluster_of(packets, 0, _STEP))
        for _, _, content in matroska.clusters(file):
            out.write(matroska.cluster(content))

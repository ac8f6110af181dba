"""Encoders that read only their own clusters of a Matroska or WebM file make the bytes of one that reads all of it."""

import io
import json
import random
import re
import tracemalloc
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from functions.convert import distribution, handlers
from functions.convert.demux.child import audio_track, matroska
from functions.convert.demux.child.description import Extracted
from functions.convert.demux.protocol import PartOrder
from functions.convert.distribution import EncodedPiece
from functions.convert.errors import UnsupportedLayout
from functions.convert.mp3.summary import PieceSummary
from functions.convert.plan import Excerpt, FrameRange, Plan
from functions.convert.seek import extraction
from functions.convert.seek import matroska as tracks
from functions.convert.seek.numbering import Mark, PacketClock, read_packets
from functions.convert.seek.recipe import ExcerptFile, Recipe, Spans, read_recipe
from tests.support import clips
from tests.unit.convert.test_distribution import converted

#: A cluster and a cue every two seconds, as in files of an hour in relation to their length.
SHORT_CLUSTERS = "-c:v mpeg4 -g 50 -cluster_time_limit 2000"


@pytest.fixture
def excerpts(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes of the excerpts that were read; pieces are short."""
    read: list[Recipe] = []
    extract = extraction.extract_excerpt

    def reading(recipe: Recipe, *rest: Any) -> extraction.Fetched | None:
        read.append(recipe)
        return extract(recipe, *rest)

    monkeypatch.setattr("functions.convert.seek.independence.extract_excerpt", reading)
    monkeypatch.setattr(distribution, "MIN_SEEKING_SECONDS", 6.0)
    return read


def one_and_many(video: Path, options: dict[str, str], directory: Path) -> tuple[Any, Any]:
    """The MP3, the warning and the number of pieces, by one encoder and by many."""
    one, many = (converted(video, options, directory / str(fanout), fanout) for fanout in (1e9, 0))
    return one, many


FILES = [
    ("flac.mkv", f"{SHORT_CLUSTERS} -c:a flac -output_ts_offset 0.7", 44100, {"start": "1.3"}),
    ("piped.mkv", f"{SHORT_CLUSTERS} -c:a flac -seekable 0", 44100, {}),
    ("mp3.mka", "-c:a libmp3lame -b:a 96k -cluster_time_limit 2000", 22050, {}),
    ("vorbis.mka", "-c:a libvorbis -cluster_time_limit 2000", 44100, {"start": "0.1", "fade_in": "2"}),
    ("opus.webm", "-c:a libopus -frame_duration 2.5 -cluster_time_limit 2000", 48000, {"start": "2.25"}),
    ("aac.mkv", f"{SHORT_CLUSTERS} -c:a aac -b:a 160k -aac_pns 0 -ac 1", 48000, {"start": "3"}),
]


@pytest.mark.parametrize(("name", "arguments", "rate", "options"), FILES, ids=[row[0] for row in FILES])
def test_pieces_of_a_video_make_the_mp3_of_one_encoder(
    name: str,
    arguments: str,
    rate: int,
    options: dict[str, str],
    tmp_path: Path,
    excerpts: list[Recipe],
    caplog: pytest.LogCaptureFixture,
) -> None:
    video = clips.clip(tmp_path / name, *arguments.split(), rate=rate, seconds=24, video="-c:v" in arguments)
    one, many = one_and_many(video, {**options, "end": "22.5", "fade_out": "8"}, tmp_path)
    assert "falls back" not in caplog.text
    assert many[2] >= 3
    assert len([recipe for recipe in excerpts if len(recipe.spans) == 1]) == many[2]
    assert (many[:2], many.waveform) == (one[:2], one.waveform)


def test_wrong_number_is_found_even_where_all_is_silent(
    tmp_path: Path, excerpts: list[Recipe], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = "aevalsrc='0.4*sin(2*PI*440*t)*gt(sin(2*PI*t/16)\\,0.5)':d={seconds}:s={rate}"
    arguments = (*SHORT_CLUSTERS.split(), "-c:a", "flac")
    video = clips.clip(tmp_path / "a.mkv", *arguments, sound=sound, rate=32000, seconds=32, video=True)
    number = PacketClock.first_sample

    def wrong(packets: PacketClock, recipe: Recipe) -> int:
        sample = number(packets, recipe)
        return sample + packets.grid if sample > 200_000 else sample

    monkeypatch.setattr(PacketClock, "first_sample", wrong)
    one, many = one_and_many(video, {}, tmp_path)
    assert len(excerpts) >= 3
    assert "its pieces do not fit together" in caplog.text
    assert (many[:2], many.waveform) == (one[:2], one.waveform)


def stored_early(video: Path, milliseconds: int) -> Path:
    """Makes a video like this one, only later, whose sound is stored so long before the pictures of its time."""
    early = video.with_stem("early")
    inputs = ("-itsoffset", milliseconds / 1000, "-i", video, "-i", video, "-map", "0:v", "-map", "1:a")
    clips.run(*inputs, "-c", "copy", "-cluster_time_limit", 2000, early)
    data = bytearray(early.read_bytes())
    block_of_flac = rb"\xa3(?:[\x80-\xff]|[\x40-\x7f].|[\x20-\x3f]..)\x82(..)\x80\xff\xf8"
    with early.open("rb") as file:
        tracks.head(file)
        for start, end, cluster in tracks.clusters(file):
            shift = end - len(cluster)
            for block in re.finditer(block_of_flac, cluster, re.DOTALL):
                at = shift + block.start(1)
                assert at > start
                time = int.from_bytes(block[1], "big", signed=True) + milliseconds
                data[at : at + 2] = time.to_bytes(2, "big", signed=True)
    early.write_bytes(data)
    return early


def test_excerpt_that_begins_too_late_is_found_even_where_all_is_silent(
    tmp_path: Path, excerpts: list[Recipe], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distribution, "MIN_SEEKING_SECONDS", 15.0)
    sound = "aevalsrc='0.4*sin(2*PI*440*t)*gt(abs(t-16)\\,5)':d={seconds}:s={rate}"
    arguments = (*SHORT_CLUSTERS.split(), "-c:a", "flac")
    video = clips.clip(tmp_path / "a.mkv", *arguments, sound=sound, rate=32000, seconds=32, video=True)
    one, many = one_and_many(stored_early(video, 2500), {}, tmp_path)
    assert excerpts
    assert (many[:2], many.waveform) == (one[:2], one.waveform)
    assert "falls back to a track" in caplog.text


def test_packets_that_can_start_anywhere_make_the_job_fall_back(
    tmp_path: Path, excerpts: list[Recipe], caplog: pytest.LogCaptureFixture
) -> None:
    packets = "-af asetnsamples=n={}:p=0 -c:a pcm_s16le -cluster_time_limit 2000"
    parts = [
        clips.clip(tmp_path / f"{size}.mka", *packets.format(size).split(), rate=44100, seconds=12)
        for size in (101, 1000)
    ]
    (tmp_path / "list").write_text("".join(f"file '{part}'\n" for part in parts))
    clips.run("-f", "concat", "-safe", 0, "-i", tmp_path / "list", "-c", "copy", tmp_path / "both.mka")
    one, many = one_and_many(tmp_path / "both.mka", {}, tmp_path)
    assert excerpts
    assert "falls back" in caplog.text
    assert (many[:2], many.waveform) == (one[:2], one.waveform)


def test_job_that_starts_much_later_has_a_track(
    tmp_path: Path, excerpts: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distribution, "MAX_COUNTED_SECONDS", 1.0)
    video = clips.clip(tmp_path / "a.mka", "-c:a", "flac", "-cluster_time_limit", "2000", rate=32000, seconds=20)
    one, many = one_and_many(video, {"start": "1.5"}, tmp_path)
    assert not excerpts
    assert many[2] >= 2
    assert (many[:2], many.waveform) == (one[:2], one.waveform)


@pytest.mark.parametrize(
    ("before", "after", "fit"),
    [
        ((Mark(5, 240, "a second"),), (Mark(5, 240, "a second"), None), True),
        ((Mark(5, 240, "a second"),), (Mark(5, 240, "another"), None), False),
        ((Mark(5, 240),), (Mark(5, 1264), None), False),
        ((Mark(5, 240),), (Mark(26, 240), None), False),
        ((None,), (None, None), False),
        ((Mark(5, 240),), (), False),
        ((), (), True),
    ],
)
def test_pieces_fit_if_they_number_and_decode_alike(
    before: tuple[Mark | None, ...], after: tuple[Mark | None, ...], fit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distribution, "seams_match", lambda _: True)
    summary = summary_of(245)
    plan = Plan("matroska", 48000, 2, ("-b:a", "96k"), (), 0, (FrameRange(0, 245), FrameRange(245, None)))
    pieces = [EncodedPiece(summary, 0, reconfigured=False, marks=marks) for marks in (before, after)]
    assert distribution.pieces_fit(plan, pieces) == fit


def test_version_before_does_not_join_pieces_whose_marks_it_ignores() -> None:
    piece = EncodedPiece(summary_of(245), 0, reconfigured=False, marks=(Mark(5, 240), None))
    assert EncodedPiece.from_json(piece.to_json()) == piece
    with pytest.raises(KeyError):  # as EncodedPiece.from_json was
        json.loads(piece.to_json())["sum"]


def summary_of(frames: int) -> PieceSummary:
    return PieceSummary(0, frames, offset=0, size=0, crc=0, mark_interval=1, marks=(), bitrates=(), tag="")


@pytest.mark.parametrize(("frames", "fit"), [((245, 3), True), ((245, 0), True), ((244, 3), False), ((0, 0), False)])
def test_pieces_fit_if_they_have_the_frames_that_were_counted(frames: tuple[int, int], fit: bool) -> None:
    excerpt = Excerpt(0, 1, 2, 0)
    ranges = FrameRange(0, 245, excerpt=excerpt), FrameRange(245, None, excerpt=excerpt)
    plan = Plan("mov", 48000, 2, ("-b:a", "96k"), (), 0, ranges)
    pieces = [EncodedPiece(summary_of(count), 0, reconfigured=False) for count in frames]
    assert distribution.pieces_fit(plan, pieces) == fit


def test_samples_that_are_not_played_are_allowed_at_the_end_only(tmp_path: Path) -> None:
    part = clips.clip(tmp_path / "part.mka", "-c:a", "libopus", rate=48000, seconds=1.003)
    assert read_packets(part, "opus", 2, 48000).end > 48_000
    (tmp_path / "list").write_text(f"file '{part}'\n" * 2)
    clips.run("-f", "concat", "-safe", 0, "-i", tmp_path / "list", "-c", "copy", tmp_path / "both.mka")
    with pytest.raises(UnsupportedLayout):
        read_packets(tmp_path / "both.mka", "opus", 2, 48000)


def test_recipe_with_many_spans_takes_little_memory() -> None:
    data = Recipe(0, b"", Spans.of((number, 1) for number in range(50_000))).to_bytes()
    place = Excerpt(0, len(data), zlib.crc32(data), 0)
    tracemalloc.start()
    recipe = read_recipe(io.BytesIO(data), place)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert list(recipe.spans)[-1] == (49_999, 1)
    assert peak < 4 * len(data)


def element(kind: str, content: bytes) -> bytes:
    """An element of Matroska, by its name in hexadecimal."""
    return bytes.fromhex(kind) + (len(content) | 1 << 56).to_bytes(8, "big") + content


def test_number_of_more_than_eight_bytes_is_not_read() -> None:
    entry = element("83", b"\1") + element("56AA", bytes(200))
    parts = element("1549A966", b"") + element("1654AE6B", element("AE", entry)) + element("1C53BB6B", b"")
    data = element("1A45DFA3", b"") + element("18538067", parts + element("1F43B675", element("E7", b"\0")))
    with pytest.raises(UnsupportedLayout):
        matroska.parse(io.BytesIO(data))  # type: ignore[arg-type]


def index(
    data: bytes, ranges: Sequence[tuple[int, int | None]] = ((0, 200_000), (200_000, None))
) -> tuple[list[Extracted], bytes]:
    """What the child reports of a file that it indexes in ranges of samples, and the index."""
    offered = []

    def offer(extracted: Extracted) -> Sequence[tuple[int, int | None]]:
        offered.append(extracted)
        return ranges

    target = io.BytesIO()
    audio_track.extract(io.BytesIO(data), target, None, copy=False, on_indexed=offer, index_seconds=1)  # type: ignore[arg-type]
    return offered, target.getvalue()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("small") / "a.mkv"
    tags = ("-metadata", "title=A title", "-metadata:s:a", "language=deu")
    clips.clip(path, *SHORT_CLUSTERS.split(), "-c:a", "flac", *tags, rate=16000, seconds=20, video=True)
    return path.read_bytes()


def assert_reported_as_extracted(video: bytes, *differing: str) -> None:
    """Asserts that the index of a file reports what its extraction reports, but for these numbers."""
    (offered,), _ = index(video)
    extracted = audio_track.extract(io.BytesIO(video), io.BytesIO(), None, copy=False)  # type: ignore[arg-type]
    assert isinstance(extracted, Extracted)
    assert offered.cover == extracted.cover
    for name in {*offered.report.__slots__} - {"indexed", "packets", "gaps", "starts", *differing}:
        found = getattr(offered.report, name)
        expected = getattr(extracted.report, name)
        assert found == (pytest.approx(expected, abs=1e-9) if isinstance(expected, float) else expected), name
    assert not offered.report.gaps
    assert offered.report.packets == pytest.approx(extracted.report.packets, rel=0.02)


def test_index_reports_what_extraction_reports(small: bytes) -> None:
    assert_reported_as_extracted(small)


def test_damaged_index_never_fails_the_extraction(small: bytes) -> None:
    draw = random.Random(15)  # noqa: S311 - damage, not a secret
    for _ in range(40):
        data = bytearray(small)
        start = draw.choice([0, 0, len(data) - 2000, draw.randrange(len(data))])
        for _ in range(draw.choice([1, 4, 40])):
            data[min(start + draw.randrange(2000), len(data) - 1)] = draw.choice([0, 1, 0x7F, 0x80, 0xFF, 0xA3])
        index(bytes(data))


def test_cues_beyond_any_file_are_not_sought(small: bytes) -> None:
    head = small[: small.index(b"\x18\x53\x80\x67")] + b"\x18\x53\x80\x67\x01" + b"\xff" * 7
    seek = b"\x53\xab\x84\x1c\x53\xbb\x6b" + b"\x53\xac\x88" + b"\xff" * 8
    seek_head = b"\x11\x4d\x9b\x74\x95" + b"\x4d\xbb\x92" + seek
    info = b"\x15\x49\xa9\x66"
    offered, track = index(head + seek_head + info + small.split(info, 2)[2])  # the first is in the file's own index
    assert not offered
    assert track


def test_file_that_is_cut_off_is_not_indexed(small: bytes) -> None:
    with pytest.raises(UnsupportedLayout):
        matroska.parse(io.BytesIO(small[:-3000]))  # type: ignore[arg-type]


def test_index_of_a_file_without_cues_reports_what_extraction_reports(tmp_path: Path) -> None:
    arguments = (*SHORT_CLUSTERS.split(), "-c:a", "flac", "-seekable", 0, "-metadata", "title=A title")
    path = clips.clip(tmp_path / "a.mkv", *arguments, rate=16000, seconds=20, video=True)
    with path.open("rb") as file:
        segment = matroska.parse(file)  # type: ignore[arg-type]
    assert len(segment.clusters) > 10
    assert_reported_as_extracted(path.read_bytes())


def test_file_without_cues_whose_last_cluster_is_incomplete_is_not_indexed(tmp_path: Path) -> None:
    path = clips.clip(tmp_path / "a.mkv", *SHORT_CLUSTERS.split(), "-c:a", "flac", "-seekable", 0, rate=16000)
    offered, _ = index(path.read_bytes())
    assert offered
    offered, track = index(path.read_bytes()[:-1])
    assert not offered
    assert track


def test_excerpt_reads_as_one_file() -> None:
    video = bytes(range(256))
    file = ExcerptFile(Recipe(0, b"prefix", Spans.of([(10, 5), (30, 0), (100, 7)])), io.BytesIO(video))
    whole = b"prefix" + video[10:15] + video[100:107]
    for start in range(len(whole) + 1):
        file.seek(start)
        data = b""
        while part := file.read(4):
            data += part
        assert data == whole[start:]


class Counted(io.FileIO):
    """A file that counts the bytes that are read."""

    read_bytes = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.read_bytes += len(data or b"")
        return data or b""


@pytest.fixture(scope="module")
def rare_cues(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video with a cue every ten seconds and a cluster every second."""
    path = tmp_path_factory.mktemp("rare") / "a.mkv"
    arguments = "-c:v mpeg4 -g 250 -cluster_time_limit 1000 -c:a pcm_s16le"
    return clips.clip(path, *arguments.split(), rate=16000, seconds=60, video=True)


def test_clusters_without_a_cue_spare_convert_to_read_up_to_the_next_one(rare_cues: Path) -> None:
    with Counted(rare_cues) as source:
        segment = matroska.parse(source)
        second = segment.end / 60
        cues = [cluster.offset for cluster in segment.clusters]
        assert len(cues) < 10
        middle = segment.without_middle()
        windows = [segment.window(time) for time in (9, 31, 59)]
        assert source.read_bytes < 10_000
    assert middle.start < 5 * second
    assert segment.end - middle.end < 6 * second
    assert all(offset in cues for offset, _ in windows)
    assert all(2 * second < size < 5 * second for _, size in windows)


def test_cues_suffice_where_sizes_of_clusters_are_unknown(rare_cues: Path) -> None:
    data = bytearray(rare_cues.read_bytes())
    with rare_cues.open("rb") as source:
        known = matroska.parse(source)  # type: ignore[arg-type]
    for cluster in re.finditer(rb"\x1f\x43\xb6\x75", data):
        width = 9 - data[cluster.end()].bit_length()
        data[cluster.end() : cluster.end() + width] = ((1 << 7 * width + 1) - 1).to_bytes(width, "big")
    segment = matroska.parse(io.BytesIO(data))  # type: ignore[arg-type]
    assert segment.clusters == known.clusters
    starts = [each.offset for each in segment.clusters]
    middle = segment.without_middle()
    assert {middle.start, middle.end} <= {*starts}
    assert segment.window(31) == (starts[3], starts[4] - starts[3])


def test_excerpt_is_read_no_further_than_its_range(rare_cues: Path) -> None:
    order = PartOrder(track=0, until=30_000)
    with Counted(rare_cues) as source:
        found = audio_track.extract_part(source, io.BytesIO(), order)
        assert isinstance(found, Extracted)
        assert found.report.duration == pytest.approx(30, abs=0.5)
        assert source.read_bytes < rare_cues.stat().st_size * 0.52 + 65_536


@pytest.mark.parametrize(
    ("start", "end", "track", "expected"),
    [(0, 490, 0, 0.25), (980, 1960, 0, 0.53), (980, 1000, 0, 0.09), (2000, None, 0, 0.8), (980, 1960, -1, 0.8)],
    ids=["first", "middle", "short", "last", "by tables"],
)
def test_video_is_fetched_in_advance_up_to_the_end_of_a_range(
    start: int, end: int | None, track: int, expected: float
) -> None:
    plan = Plan("matroska", 48000, 2, ("-b:a", "96k"), (), 50 * 48000, (), start_sample=0)
    recipe = Recipe(0, b"", Spans.of([(1_000_000, 800_000)]), track=track)
    until = handlers.read_until(recipe, FrameRange(start, end), plan, 1_000_000)
    assert until == pytest.approx(1_000_000 + 1_000_000 * expected, rel=0.02)

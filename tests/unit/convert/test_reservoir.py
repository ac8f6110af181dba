"""Re-packed variable bit rate is the same sound in fewer bytes, checked by a decoder that follows only the standard."""

import io
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.convert import handlers, pipeline
from functions.convert.errors import TemporaryStorageFull, UnusableMedia
from functions.convert.mp3 import reservoir
from functions.convert.mp3.summary import build_tag, read_frames, summarize
from functions.mp3.frame import parse_header, tag_offset
from functions.options import Options
from functions.upload.main import create_job
from functions.upload.multipart import Form
from tests.e2e.client import wave_bytes
from tests.support import clips
from tests.support.kill_points import ADA, System, new_system
from tests.unit.state.test_killed import only_job

RATES = [8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000]


def header(rate: int, mono: bool, index: int = 1, padding: int = 0) -> bytes:
    version, code = next(
        (version, rates.index(rate))
        for version, rates in ((3, [44100, 48000, 32000]), (2, [22050, 24000, 16000]), (0, [11025, 12000, 8000]))
        if rate in rates
    )
    return bytes((0xFF, 0xE3 | version << 3, index << 4 | code << 2 | padding << 1, 0xC0 if mono else 0x40))


HEADERS = st.builds(header, st.sampled_from(RATES), st.booleans())


def sizes_of(like: bytes) -> reservoir.FrameSizes:
    sizes = reservoir.FrameSizes.of(like)
    assert sizes is not None
    return sizes


@given(like=HEADERS, data=st.data())
def test_main_data_is_where_a_decoder_looks_for_it(like: bytes, data: st.DataObject) -> None:
    sizes = sizes_of(like)
    longest = max(sizes.sizes) - sizes.head
    # Silence, which fills the reservoir, long frames, which empty it, and everything between.
    runs = st.tuples(st.integers(0, longest) | st.sampled_from([0, longest]), st.sampled_from([1, 2, 100]))
    needs = [need for need, times in data.draw(st.lists(runs, min_size=1, max_size=20)) for _ in range(times)]
    split = data.draw(st.integers(0, len(needs)))
    first, first_begins, unused = reservoir.choose_bitrates(needs[:split], sizes, 0)
    second, later_begins, unused = reservoir.choose_bitrates(needs[split:], sizes, unused)
    indices = first + second
    begins = first_begins + later_begins
    assert (indices, begins, unused) == reservoir.choose_bitrates(needs, sizes, 0)

    received = used = 0  # bytes of main data received, and the end of those in use
    for need, index, begin in zip(needs, indices, begins, strict=True):
        size = sizes.sizes[index]
        free = received - used
        assert begin <= min(sizes.max_begin, received), "main_data_begin is too large"
        assert begin + size <= 1440, "the decoder's buffer is too small"
        start = received - begin
        assert start >= used, "main data of two frames overlap"
        received += size - sizes.head
        used = start + need
        assert used <= received, "a frame's main data ends after the frame"
        if index > 1:
            smaller = sizes.sizes[index - 1]
            reach = min(sizes.max_begin, 1440 - smaller, free)
            assert reach + smaller - sizes.head < need, "a smaller frame would be enough"
    alone = sum(min(size for size in sizes.sizes[1:] if size - sizes.head >= need) for need in needs)
    assert sum(sizes.sizes[index] for index in indices) <= alone
    assert unused == received - used


@dataclass
class DecodedFrame:
    """What a decoder sees of a frame, except for what re-packing may change."""

    header: bytes
    side: int
    main: bytes
    size: int


def decoded(frames: bytes) -> Iterator[DecodedFrame]:
    """The frames of a file with their main data, wherever it begins. Slow, and by the standard's own tables."""
    at = 0
    reservoir_bytes = b""
    owed = 0
    while at < len(frames):
        frame = parse_header(frames[at:])
        assert frame is not None
        low = frame.samples == 576
        side = int.from_bytes(frames[at + 4 : at + 4 + frame.side_info], "big")
        bits = frame.side_info * 8
        wide = 8 if low else 9

        def take(first: int, width: int, side: int = side, bits: int = bits) -> int:
            return side >> (bits - first - width) & (1 << width) - 1

        channels = 1 if frames[at + 3] >> 6 == 3 else 2
        private = {(True, 1): 1, (True, 2): 2, (False, 1): 5, (False, 2): 3}[low, channels]
        first = wide + private + (0 if low else 4 * channels)
        each, granules = (63, 1) if low else (59, 2)
        lengths = [take(first + number * each, 12) for number in range(channels * granules)]
        begin = take(0, wide)
        assert begin <= len(reservoir_bytes), "main data begins before the file"
        start = len(reservoir_bytes) - begin
        assert start >= owed, "main data of two frames overlap"
        reservoir_bytes += frames[at + 4 + frame.side_info : at + frame.size]
        owed = start + (sum(lengths) + 7) // 8
        assert owed <= len(reservoir_bytes), "main data ends after its frame"
        head = bytes((frames[at], frames[at + 1], frames[at + 2] & 0x0F, frames[at + 3]))
        yield DecodedFrame(head, side & (1 << bits - wide) - 1, reservoir_bytes[start:owed], frame.size)
        at += frame.size


@st.composite
def generated_frames(draw: st.DrawFn) -> bytes:
    """Frames without a reservoir: main data of any length, then stuffing."""
    rate = draw(st.sampled_from(RATES))
    mono = draw(st.booleans())
    noise = draw(st.randoms(use_true_random=False))
    frames = b""
    for _ in range(draw(st.integers(1, 12))):
        index = draw(st.integers(1, 14))
        padding = draw(st.integers(0, 1))
        head = header(rate, mono, index, padding)
        frame = parse_header(head)
        assert frame is not None
        low = frame.samples == 576
        each = 63 if low else 59
        count = (1 if mono else 2) * (1 if low else 2)
        start = (9 if mono else 10) if low else (18 if mono else 20)
        bits = frame.side_info * 8
        left = (frame.size - 4 - frame.side_info) * 8
        side = noise.getrandbits(bits) & (1 << bits - (8 if low else 9)) - 1
        for number in range(count):
            length = draw(st.integers(0, min(left, 4095)) | st.just(min(left, 4095)))
            left -= length
            shift = bits - start - number * each - 12
            side = side & ~(0xFFF << shift) | length << shift
        made = head + side.to_bytes(frame.side_info, "big") + noise.randbytes(frame.size - 4 - frame.side_info)
        frames += made * draw(st.sampled_from([1, 1, 100]))
    return frames


@settings(max_examples=50, deadline=None)
@given(frames=generated_frames(), data=st.data())
def test_only_bit_rates_and_positions_change(frames: bytes, data: st.DataObject) -> None:
    out = io.BytesIO()
    repacker = reservoir.Repacker(out)
    splits = data.draw(st.lists(st.integers(0, len(frames)), max_size=8).map(sorted))
    for start, end in zip([0, *splits], [*splits, len(frames)], strict=True):
        repacker.write(frames[start:end])
    repacker.close()
    before = list(decoded(frames))
    after = list(decoded(out.getvalue()))
    assert [(frame.header, frame.side, frame.main) for frame in after] == [
        (frame.header, frame.side, frame.main) for frame in before
    ]
    assert len(out.getvalue()) <= len(frames)
    assert all(one.size <= other.size for one, other in zip(after, before, strict=True))


def repacked(serial: bytes, directory: Path) -> bytes:
    """A complete MP3, re-packed."""
    (directory / "complete").write_bytes(serial)
    before = summarize(directory / "complete", 0, 0, None)
    after = reservoir.repack(read_frames(directory / "complete", before), [before], directory / "repacked")
    return build_tag([after], bytes.fromhex(after.tag)) + (directory / "repacked").read_bytes()


def samples_of(path: Path) -> bytes:
    """All samples that ffmpeg decodes from a file, without an error."""
    command = [clips.ffmpeg(), "-nostdin", "-v", "error", "-i", str(path), "-f", "f32le", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert not done.stderr
    return done.stdout


def samples_of_mpg123(path: Path) -> bytes:
    """The same from mpg123, if it is installed: once gapless, once with all samples."""
    sound = b""
    for more in ([], ["--no-gapless"]) if shutil.which("mpg123") else ():
        done = subprocess.run(["mpg123", "-q", "-s", "-e", "f32", *more, str(path)], capture_output=True, check=True)
        assert not done.stderr
        sound += done.stdout
    return sound


@pytest.mark.parametrize(
    ("sound", "rate", "channels", "quality"),
    [
        (clips.MUSIC, 8000, 2, 0),
        (clips.NOISE, 11025, 1, 9),
        (clips.MUSIC, 12000, 1, 4),
        (clips.STEPS, 16000, 2, 2),
        (clips.MUSIC, 22050, 1, 2),
        (clips.NOISE, 24000, 2, 7),
        (clips.NOISE, 32000, 2, 0),
        (clips.STEPS, 44100, 1, 5),
        (clips.MUSIC, 44100, 2, 2),
        (clips.MUSIC, 48000, 2, 0),
        (clips.SILENCE, 48000, 2, 9),
    ],
)
def test_repacked_sound_is_the_same_and_as_small_as_with_a_reservoir(
    sound: str, rate: int, channels: int, quality: int, tmp_path: Path
) -> None:
    wave = clips.clip(tmp_path / "sound.wav", "-ac", channels, sound=sound, seconds=5, rate=rate)
    serial = clips.serial(wave, tmp_path / "serial.mp3", "-q:a", quality)
    clips.run("-i", wave, "-q:a", quality, "-id3v2_version", "0", tmp_path / "usual.mp3")
    mp3 = tmp_path / "repacked.mp3"
    mp3.write_bytes(repacked(serial, tmp_path))
    assert mp3.stat().st_size <= 1.01 * (tmp_path / "usual.mp3").stat().st_size
    assert samples_of(mp3) == samples_of(tmp_path / "serial.mp3")
    assert samples_of_mpg123(mp3) == samples_of_mpg123(tmp_path / "serial.mp3")
    if shutil.which("mp3val"):
        report = subprocess.run(["mp3val", mp3], capture_output=True, text=True, check=True).stdout
        faults = [line for line in report.splitlines() if line.startswith(("WARNING", "ERROR"))]
        assert all("No supported tags" in line for line in faults), faults


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("music")
    wave = clips.clip(directory / "music.wav", seconds=20, rate=44100)
    clips.serial(wave, directory / "music.mp3", "-q:a", "4")
    return wave


def test_tag_describes_the_repacked_file(music: Path, tmp_path: Path) -> None:
    """Compares it with the tag that ffmpeg's muxer writes for the same frames."""
    mp3 = tmp_path / "repacked.mp3"
    mp3.write_bytes(repacked(music.with_suffix(".mp3").read_bytes(), tmp_path))
    clips.run("-i", mp3, "-c", "copy", "-id3v2_version", "0", "-map_metadata", "-1", tmp_path / "copy.mp3")
    ours = mp3.read_bytes()
    theirs = (tmp_path / "copy.mp3").read_bytes()
    offset = tag_offset(ours)
    assert offset is not None
    assert offset == tag_offset(theirs)
    size = getattr(parse_header(ours), "size", 0)
    assert ours[size:] == theirs[getattr(parse_header(theirs), "size", 0) :]
    for first, last in ((0, 12), (152, 154)):  # everything up to the number of frames; CRC of the music
        assert ours[offset + first : offset + last] == theirs[offset + first : offset + last]
    for field in (12, 148):  # ffmpeg's tag frame of a copy has a different size
        assert int.from_bytes(ours[offset + field : offset + field + 4], "big") == len(ours)
    frame = 0
    position = size
    starts = []
    while position < len(ours):
        starts.append(position)
        position += getattr(parse_header(ours[position:]), "size", 0)
    for entry in range(100):  # the table of contents is exact to one of 200 to 400 marks
        frame = entry * len(starts) // 100
        near = {starts[min(max(frame + step, 0), len(starts) - 1)] * 256 // len(ours) for step in (-4, 4)}
        assert min(near) - 1 <= ours[offset + 16 + entry] <= max(near) + 1


def test_number_of_encoders_does_not_matter(music: Path, tmp_path: Path) -> None:
    made = set()
    for encoders in (1, 2, 3):
        out = io.BytesIO()
        with music.open("rb") as source:
            result = pipeline.to_mp3(
                source,
                out,
                pipeline.Settings(options=Options(vbr=4), filename="music.wav", encoders=encoders),
                directory=tmp_path,
                on_progress=lambda _: None,
            )
        assert result.size == len(out.getvalue())
        assert result.duration == pytest.approx(20, abs=0.001)
        made.add(clips.without_id3(out.getvalue()))
    assert made == {repacked(music.with_suffix(".mp3").read_bytes(), tmp_path)}


def test_many_workers_make_the_bytes_of_one(tmp_path: Path) -> None:
    made = []
    for name in ("alone", "shared"):
        system = System(new_system(tmp_path / name))
        create_job(Form("a.wav", {"vbr": "3"}, iter([wave_bytes(30)])), ADA, None, system.for_upload())
        if name == "shared":
            system.fanout_seconds = 0
            handlers.convert(only_job(system).id, system.for_convert(system.deliver))
        else:
            system.convert(only_job(system).id, system.for_convert())
        job = only_job(system)
        assert (job.state, job.error) == ("done", None)
        made.append(system.bytes_of("mp3s", job.mp3))
        system.close()
    assert made[0] == made[1]


def test_frames_with_crc_or_reservoir_and_truncated_ones_are_refused(music: Path, tmp_path: Path) -> None:
    clips.run("-i", music, "-q:a", "4", "-write_xing", "0", "-id3v2_version", "0", tmp_path / "usual.mp3")
    usual = (tmp_path / "usual.mp3").read_bytes()
    serial = music.with_suffix(".mp3").read_bytes()
    first = parse_header(serial)
    other = parse_header(header(44100, True))
    assert first is not None
    assert other is not None
    frames = serial[first.size :]
    too_long = (0xFFF << 224 | 0xFFF << 165 | 0xFFF << 106 | 0xFFF << 47).to_bytes(32, "big")
    for wrong, why in (
        (usual, "uses a bit reservoir"),
        (frames[:4] + b"\0\x80" + frames[6:], "uses a bit reservoir"),
        (bytes((frames[0], frames[1] & 0xFE)) + frames[2:], "the first frame begins with fffa"),
        (frames[:-1], "bytes are left"),
        (frames + b"TAG", "3 bytes are left"),
        (frames + bytes(4), "a frame begins with 00000000"),
        (frames + header(44100, True) + bytes(other.size - 4), "is not like"),
        (frames + header(48000, False) + bytes(other.size - 4), "is not like"),
        (frames[:4] + too_long + frames[36:], "longer than the frame"),
    ):
        repacker = reservoir.Repacker(io.BytesIO())
        with pytest.raises(UnusableMedia) as refused:
            repacker.write(wrong)
            repacker.close()
        assert why in str(refused.value.__cause__)


def test_no_frames_stay_no_frames(tmp_path: Path) -> None:
    (tmp_path / "none").touch()
    summary = reservoir.repack([], [summarize(tmp_path / "none", 0, 0, None)], tmp_path / "repacked")
    assert ((tmp_path / "repacked").read_bytes(), summary.frames) == (b"", 0)


def test_full_disk_is_retried(music: Path) -> None:
    path = music.with_suffix(".mp3")
    with pytest.raises(TemporaryStorageFull), reservoir.repacking(Path("/dev/full")) as repacker:
        for chunk in read_frames(path, summarize(path, 0, 0, None)):
            repacker.write(chunk)

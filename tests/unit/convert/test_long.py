"""Hours of sound, split and joined, are the bytes of one ffmpeg, and two decoders find every sample.

One hour by default; before a release MP3BURST_HOURS asks for more, up to ten.
"""

import io
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, zip_longest
from pathlib import Path

import pytest

from functions.convert import distribution
from functions.convert.demux.track import TrackInfo
from functions.convert.distribution import EncodedPiece
from functions.convert.ffmpeg.encoder import EncoderInput
from functions.convert.mp3 import assemble
from functions.convert.plan import FrameRange, Plan
from functions.convert.seek import excerpt
from functions.mp3 import id3
from functions.options import Options
from tests.support import clips, tracks
from tests.support.servers import program

HOURS = float(os.environ.get("MP3BURST_HOURS", "1"))
RATE = 8000
SEEKABLE = "pcm_s16le"
#: The loop is 61 s long, so that no two minutes are alike at the boundaries of pieces.
SPEECH = "aevalsrc='0.3*sin(2*PI*(220+55*floor(mod(t\\,7)))*t)*exp(-2*mod(t\\,0.5))+0.2*random(0)':d={seconds}:s={rate}"
OPTIONS = Options(bitrate=64)

pytestmark = pytest.mark.timeout(int(240 + 240 * HOURS))


def counted(*command: str | Path) -> int:
    """The number of bytes that a program writes."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        size = 0
        while data := process.stdout.read(1 << 20):
            size += len(data)
    assert process.returncode == 0
    return size


def samples(path: Path) -> int:
    """The number of samples that ffmpeg decodes; the sound is mono with 16 bits."""
    return counted(clips.ffmpeg(), "-nostdin", "-v", "error", "-xerror", "-i", path, "-f", "s16le", "-") // 2


def chunks(path: Path, start: int = 0) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        yield from iter(lambda: file.read(1 << 20), b"")


def seconds_of(codec: str) -> float:
    """The length of the sound. Half of it shows as much where encoders do not seek."""
    return (HOURS if codec == SEEKABLE else HOURS / 2) * 3600 + 0.123


#: From an hour on encoders seek in the first; in the second they decode the track from its beginning.
@pytest.fixture(scope="module", params=[SEEKABLE, "pcm_mulaw"])
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("long")
    minute = clips.clip(place / "minute.mka", "-c:a", request.param, sound=SPEECH, seconds=61, rate=RATE)
    length = seconds_of(request.param)
    clips.run("-stream_loop", -1, "-i", minute, "-t", length, "-c", "copy", place / "long.mka")
    return place / "long.mka"


def encoded(plan: Plan, piece: FrameRange, track: TrackInfo, place: Path) -> tuple[Path, EncodedPiece]:
    """A piece as a worker encodes it: from its excerpt of the track and the plan's JSON."""
    (folder := place / str(piece.start)).mkdir()
    copy = folder / "track"
    if piece.seek is None:
        copy.hardlink_to(track.path)
    else:
        with track.path.open("rb") as source, copy.open("wb") as target:
            excerpt.write_excerpt(source, piece.seek, target)
    with (folder / "frames").open("wb") as out:
        plan = Plan.from_json(plan.to_json())
        part = distribution.encode_piece(EncoderInput(clips.ffmpeg(), plan, copy, folder), piece, out, lambda _: None)
    return folder / "frames", EncodedPiece.from_json(part.to_json())


def test_hours_of_sound_are_the_same_as_by_one_encoder_to_the_last_sample(video: Path, tmp_path: Path) -> None:
    with io.FileIO(video) as source:
        track = tracks.take(source, tmp_path, OPTIONS)
    plan = distribution.plan_pieces(track, OPTIONS, 900)
    assert plan is not None
    assert len(plan.ranges) > 3
    seeks = track.codec == SEEKABLE and HOURS >= 1
    assert {piece.seek is not None for piece in plan.ranges} == {seeks}
    with ThreadPoolExecutor(2) as workers:
        done = list(workers.map(lambda piece: encoded(plan, piece, track, tmp_path), plan.ranges))
    assert distribution.pieces_fit(plan, [part for _, part in done])
    joined = tmp_path / "joined.mp3"
    head = id3.build_tag(track.tags, "long.mka", track.cover)
    with joined.open("wb") as out:
        frames = chain.from_iterable(chunks(path) for path, _ in done)
        sound = assemble.join_pieces(plan, [part.summary for _, part in done], frames, tmp_path)
        assemble.write_mp3(out, [head], sound)
    serial = tmp_path / "serial.mp3"
    clips.run("-i", video, "-b:a", "64k", "-reservoir", 0, "-id3v2_version", 0, serial)
    assert all(mine == other for mine, other in zip_longest(chunks(joined, len(head)), chunks(serial)))

    total = samples(video)
    assert total == pytest.approx(seconds_of(track.codec) * RATE, abs=2 * 1024)
    assert samples(joined) == total
    assert counted(program("mpg123"), "-q", "-s", "-r", str(RATE), "--mono", joined) // 2 == total
    found = subprocess.run([program("mp3val"), joined], capture_output=True, text=True, check=True).stdout
    assert "WARNING" not in found
    assert "PROBLEM" not in found

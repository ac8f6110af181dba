"""Damages clips of every format at random: no crash, no hang, and no MP3 of a fraction without a warning.

The gate tries a few of them, and those that were once wrong. ``MP3BURST_FUZZ=5000 ./scripts/test
tests/unit/convert/test_fuzz.py`` tries 5,000, and ``MP3BURST_FUZZ_SEED`` repeats those of another run. Each file
follows from the seed and its own number. The same setting makes the test of videos that many encoders share try a
twentieth as many.
"""

import io
import logging
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from functions.convert import distribution, pipeline
from functions.convert.errors import UnusableMedia
from functions.options import Options
from functions.upload.main import create_job
from functions.upload.multipart import Form
from tests.support import clips, formats
from tests.support.kill_points import ADA, System, new_system
from tests.unit.state.test_killed import only_job, prepare

#: Seconds in which every file, however damaged, is converted or refused.
LIMIT = 60.0
COUNT = int(os.environ.get("MP3BURST_FUZZ", "16"))
SEED = os.environ.get("MP3BURST_FUZZ_SEED", "mp3burst")

#: Files of earlier runs, by seed and number, that became a fraction without a warning, or were refused.
FOUND = {
    ("mp3burst", 418),  # Matroska: no length but in a tag
    ("mp3burst", 493),  # AVI: a complete file whose second half is damaged
    ("mp3burst", 615),  # ASF: pauses of less than a quarter of a second each
    ("mp3burst", 1045),  # DV: two pauses, each shorter than a quarter of a second or than half of the file
    ("mp3burst", 2312),  # SWF: a stream that begins in the middle
    ("mp3burst", 2499),  # Matroska: pictures that go on after the sound
    ("mp3burst", 2990),  # NUT: a short pause, and an end before the one that its index states
    ("mp3burst", 4323),  # ASF: an end that libav does not read
}

pytestmark = pytest.mark.timeout(120 + 5 * COUNT)

MAKERS = dict(formats.makers())
#: Clips whose length is what their notes say: a damaged one may be short and complete.
COMPOSED = {"music.mod"}


def damaged(data: bytes, dice: random.Random) -> bytes:
    """Returns a copy with damage as transfers, disks and recorders cause it."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(changed))
        length = min(dice.choice((1, 4, 64, 1024, len(changed) // 4)), len(changed) - place)
        match dice.randrange(5):
            case 0:
                changed[place : place + length] = dice.randbytes(length)
            case 1:
                changed[place : place + length] = bytes(length)
            case 2:
                del changed[place : place + length]
            case 3:
                changed[place:place] = changed[place : place + length]
            case 4:
                changed[place] ^= 1 << dice.randrange(8)
        if not changed:
            return data[:1]
    return bytes(changed)


def decoded(path: Path) -> float:
    """Returns the seconds of sound that ffmpeg decodes."""
    command = [clips.ffmpeg(), "-nostdin", "-v", "quiet", "-i", str(path), "-map", "0:a:0", "-af"]
    command += ["pan=mono|c0=c0,aresample=8000", "-f", "u8", "-"]
    return len(subprocess.run(command, check=False, stdout=subprocess.PIPE, timeout=LIMIT).stdout) / 8000


def is_false(outcome: pipeline.Result | UnusableMedia, path: Path, expected: float) -> bool:
    """Returns whether less than half was decoded, by ffmpeg too, and no warning says so."""
    return (
        isinstance(outcome, pipeline.Result)
        and outcome.warning is None
        and outcome.duration < expected / 2
        and decoded(path) < expected / 2
    )


def test_damaged_files_are_converted_or_refused(tmp_path: Path) -> None:
    intact: dict[str, tuple[bytes, float]] = {}
    wrong = []
    for seed, number in (*sorted(FOUND), *((SEED, number) for number in range(COUNT))):
        dice = random.Random(f"{seed} {number}")  # noqa: S311 - no secret
        name = dice.choice(sorted(MAKERS))
        if name not in intact:
            MAKERS[name](tmp_path / name)
            intact[name] = (tmp_path / name).read_bytes(), decoded(tmp_path / name)
        data, seconds = intact[name]
        path = tmp_path / f"damaged-{name}"
        path.write_bytes(damaged(data, dice))
        started = time.monotonic()
        outcome = convert(path)
        if time.monotonic() - started > LIMIT:
            wrong.append(f"{seed} {number}: {name} took {time.monotonic() - started:.0f} s")
        if (seed, number) in FOUND and isinstance(outcome, UnusableMedia):
            wrong.append(f"{seed} {number}: {name} was refused: {outcome}")
        # Where no header has the length, nobody can know of what was deleted: the rest is all there is.
        expected = seconds * min(1.0, path.stat().st_size / len(data))
        if name not in COMPOSED and is_false(outcome, path, expected):
            wrong.append(f"{seed} {number}: {name} became less than half of {expected:.2f} s without a warning")
    assert not wrong


def convert(path: Path) -> pipeline.Result | UnusableMedia:
    settings = pipeline.Settings(options=Options(bitrate=64), filename=path.name, encoders=1)
    with path.open("rb") as video:
        try:
            return pipeline.to_mp3(video, io.BytesIO(), settings, directory=path.parent, on_progress=lambda _: None)
        except UnusableMedia as error:
            return error


#: ffmpeg's arguments for videos whose encoders read the video itself.
SHARED = {
    "aac.mkv": "-c:a aac -b:a 96k",
    "aac.mp4": "-c:a aac -b:a 96k",
    "alac.mov": "-c:a alac",
    "flac.mkv": "-c:a flac",
    "mp3.mkv": "-c:a libmp3lame -b:a 96k",
    "mp3.mp4": "-c:a libmp3lame -b:a 96k",
    "opus.webm": "-c:a libopus -b:a 96k -c:v libvpx -deadline realtime -cpu-used 8",
    "vorbis.mkv": "-c:a libvorbis",
}
#: The numbers of the videos that are tried. The gate tries one that can be shared out in spite of its damage.
SHARED_NUMBERS = range(COUNT // 20) or (1,)


def test_damaged_videos_that_are_shared_out_become_what_one_converter_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(distribution, "MIN_SEEKING_SECONDS", 5)
    monkeypatch.setattr(distribution, "PIECE_SECONDS", 5)
    caplog.set_level(logging.INFO)
    intact: dict[str, bytes] = {}
    indexed = 0
    wrong = []
    for number in SHARED_NUMBERS:
        dice = random.Random(f"{SEED} shared {number}")  # noqa: S311 - no secret
        name = dice.choice(sorted(SHARED))
        if name not in intact:
            intact[name] = shared_video(tmp_path / name).read_bytes()
        content = dice.choice((damaged, scratched, scratched))(intact[name], dice)
        one, many = (outcome(name, content, tmp_path / f"{number} {fanout}", fanout) for fanout in (1e9, 1))
        if many != one:
            wrong.append(f"{SEED} shared {number}: {name}: {many[:-1]} instead of {one[:-1]}")
        indexed += "without extracting the track" in caplog.text
        caplog.clear()
    print(indexed, "of", len(SHARED_NUMBERS), "were shared out without extracting their track")  # noqa: T201 - on request
    assert not wrong
    assert indexed


def shared_video(path: Path) -> Path:
    clusters = ("-cluster_time_limit", "1000") if path.suffix in (".mkv", ".webm") else ()
    return clips.clip(path, *SHARED[path.name].split(), *clusters, "-g", "25", seconds=14, video=True)


def scratched(data: bytes, dice: random.Random) -> bytes:
    """Returns a copy in which a few bytes are overwritten, so that it can often be shared out."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 3)):
        place = dice.randrange(len(changed))
        size = min(dice.choice((1, 4, 64)), len(changed) - place)
        changed[place : place + size] = dice.randbytes(size)
    return bytes(changed)


def outcome(name: str, content: bytes, place: Path, fanout: float) -> tuple[str, str | None, str | None, bytes]:
    """Returns the state of the job, its error, its warning, and the MP3."""

    def upload(system: System) -> None:
        create_job(Form(name, {"bitrate": "64"}, iter([content])), ADA, None, system.for_upload())

    place.mkdir()
    system = System(prepare(new_system(place / "empty"), place / "uploaded", upload))
    system.fanout_seconds = fanout
    system.convert(only_job(system).id, system.for_convert(system.deliver))
    job = only_job(system)
    mp3 = system.bytes_of("mp3s", job.mp3) if job.mp3 else b""
    system.close()
    shutil.rmtree(place)
    return job.state, job.error, job.warning, mp3

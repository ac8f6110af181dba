"""Damages clips of every format at random: no crash, no hang, and no MP3 of a fraction without a warning.

The gate tries a few of them, and those that were once wrong. ``MP3BURST_FUZZ=5000 ./scripts/test
tests/unit/convert/test_fuzz.py`` tries 5,000, and ``MP3BURST_FUZZ_SEED`` repeats those of another run. Each file
follows from the seed and its own number.
"""

import io
import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from functions.convert import pipeline
from functions.convert.errors import UnusableMedia
from functions.options import Options
from tests.support import clips, formats

#: Seconds in which every file, however damaged, is converted or refused.
LIMIT = 60.0
COUNT = int(os.environ.get("MP3BURST_FUZZ", "16"))
SEED = os.environ.get("MP3BURST_FUZZ_SEED", "mp3burst")

#: Files of earlier runs, by seed and number, that became a fraction without a warning, or were refused.
FOUND = {
    ("mp3burst", 418),  # Matroska: no length but in a tag
    ("mp3burst", 615),  # ASF: pauses of less than a quarter of a second each
    ("mp3burst", 2312),  # SWF: a stream that begins in the middle
    ("mp3burst", 2499),  # Matroska: pictures that go on after the sound
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

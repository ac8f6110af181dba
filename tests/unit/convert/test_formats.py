"""What the bundled ffmpeg decodes is converted: a clip of every format that can be made here.

``docs/formats.md`` lists the formats; a test compares it with what ffmpeg itself lists and with these clips.
"""

import io
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from functions.convert import pipeline
from functions.options import Options
from functions.sniff import HEAD_SIZE, foreign_kind
from tests.support import clips, formats
from tests.support.paths import ROOT

pytestmark = pytest.mark.timeout(120)

MAKERS = dict(formats.makers())


@dataclass(frozen=True)
class Clip:
    """A file, and what ffmpeg says about it.

    Attributes:
        path: the file.
        containers: ffmpeg's names for its demuxer.
        codec: ffmpeg's name for the codec of its sound.
        seconds: of the sound, as decoded.
    """

    path: Path
    containers: frozenset[str]
    codec: str
    seconds: float


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Clip]:
    directory = tmp_path_factory.mktemp("formats")

    def make(name: str) -> Clip:
        path = directory / name
        MAKERS[name](path)
        return described(path)

    with ThreadPoolExecutor(2) as threads:
        return dict(zip(MAKERS, threads.map(make, MAKERS), strict=True))


def described(path: Path) -> Clip:
    command = [clips.ffmpeg(), "-nostdin", "-hide_banner", "-i", str(path), "-map", "0:a:0"]
    first = ("-af", "pan=mono|c0=c0", "-f", "u8", "-")  # a sound field cannot be mixed
    done = subprocess.run([*command, *first], check=True, capture_output=True)
    log = done.stderr.decode(errors="replace")
    container, codec, rate = (
        found[1]
        for pattern in (r"Input #0, (\S+), from", r"#0:0 \((\w+) \(", r"pcm_u8\b.*, (\d+) Hz")
        if (found := re.search(pattern, log))
    )
    return Clip(path, frozenset(container.split(",")), codec, len(done.stdout) / int(rate))


@pytest.mark.parametrize("name", MAKERS)
def test_every_format_is_accepted_and_converted_completely(name: str, made: dict[str, Clip], tmp_path: Path) -> None:
    out = io.BytesIO()
    with made[name].path.open("rb") as video:
        assert foreign_kind(video.read(HEAD_SIZE)) is None
        settings = pipeline.Settings(options=Options(bitrate=64), filename=name, encoders=1)
        result = pipeline.to_mp3(video, out, settings, directory=tmp_path, on_progress=lambda _: None)
    assert result.duration == pytest.approx(made[name].seconds, abs=3 / 8000)
    assert result.warning is None


def listed(kind: str, pattern: str) -> set[str]:
    """Returns the names of one kind that ffmpeg lists."""
    lines = subprocess.run([clips.ffmpeg(), "-hide_banner", f"-{kind}"], check=True, capture_output=True, text=True)
    found = re.findall(pattern, lines.stdout, re.MULTILINE)
    return {name for names in found for name in names.split(",")}


def test_the_document_lists_what_was_tried_and_what_was_not(made: dict[str, Clip]) -> None:
    text = (ROOT / "docs" / "formats.md").read_text()
    containers = {name for clip in made.values() for name in clip.containers}
    codecs = {clip.codec for clip in made.values()}
    rows = {
        heading: [set(re.findall(r"`([^`]+)`", cell)) for cell in cells.split("|")]
        for heading, cells in re.findall(r"^\| (containers|codecs) \| (.*) \|$", text, re.MULTILINE)
    }
    # Not those with the third flag: devices.
    others = {name for name in listed("demuxers", r"^ D[E ] +(\S+) ") - containers if not name.endswith("_pipe")}
    assert rows["containers"] == [containers, others]
    assert rows["codecs"] == [codecs, listed("codecs", r"^ D[E.]A\S{3} (\S+) ") - codecs]

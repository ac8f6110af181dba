"""The page leaves the pictures out of videos as the command does: the same bytes for every file."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from client.sound import excerpt
from tests.support import clips
from tests.support.page_code import bundle
from tests.support.servers import program
from tests.unit.client.test_sound import VIDEOS, content_of

_SAME: Final = ("faststart.mp4", "two.mp4", "alac.mov", "pcm.mov", "cues.mkv", "surround.mkv", "opus.webm")
#: Reads paths, and writes what the page would upload of each file beside it, if it is not the file.
_PROGRAM: Final = """
import { openAsBlob } from "node:fs";
import { writeFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { soundOf } from "./sound.mjs";
for await (const path of createInterface(process.stdin)) {
  const sound = await soundOf(await openAsBlob(path), 1);
  if (sound) await writeFile(path + ".sound", new Uint8Array(await sound.arrayBuffer()));
  console.log(path);
}
"""


class PageSound:
    """The page's code, in Node.js."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def __call__(self, video: Path) -> bytes:
        """Returns what the page uploads of a video."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(video, file=self._process.stdin, flush=True)
        assert self._process.stdout.readline() == f"{video}\n"
        sound = Path(f"{video}.sound")
        if not sound.exists():
            return video.read_bytes()
        content = sound.read_bytes()
        sound.unlink()
        return content


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageSound]:
    folder = tmp_path_factory.mktemp("page")
    bundle('export * from "./src/sound/sound";', folder / "sound.mjs")
    (folder / "main.mjs").write_text(_PROGRAM)
    pipe: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([program("node"), "--no-warnings", folder / "main.mjs"], text=True, **pipe) as process:
        yield PageSound(process)


@pytest.fixture(autouse=True)
def _worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(excerpt, "_WORTHWHILE", 1)  # the clips have few pictures


@pytest.mark.parametrize("name", _SAME)
def test_page_sends_what_the_command_sends(name: str, tmp_path: Path, page: PageSound) -> None:
    video = clips.clip(tmp_path / name, *dict(VIDEOS)[name].split(), seconds=2.2, video=True)
    sound = content_of(excerpt.open_sound(video, {}))
    assert len(sound) < video.stat().st_size
    assert page(video) == sound


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_damaged_files_are_sent_as_the_command_sends_them(name: str, tmp_path: Path, page: PageSound) -> None:
    whole = clips.clip(tmp_path / name, "-c:v", "libx264", "-c:a", "aac", seconds=0.5, video=True).read_bytes()
    tables = whole.rindex(b"stsz") if name == "a.mp4" else whole.rindex(bytes.fromhex("1c53bb6b"))
    damaged = [whole[:size] for size in (0, 1, 7, 50, 700, len(whole) // 2, len(whole) - 1)]
    damaged += [
        whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :] for at in range(tables, min(tables + 40, len(whole)))
    ]
    for content in damaged:
        (tmp_path / name).write_bytes(content)
        assert page(tmp_path / name) == content_of(excerpt.open_sound(tmp_path / name, {}))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("fragmented.mp4", "-c:a aac -movflags frag_keyframe+empty_moov"), ("live.webm", "-c:a libopus -live 1")],
    ids=["fragmented", "live"],
)
def test_other_files_are_sent_as_they_are(name: str, arguments: str, tmp_path: Path, page: PageSound) -> None:
    video = clips.clip(tmp_path / name, *arguments.split(), seconds=0.5, video=True)
    assert page(video) == video.read_bytes()

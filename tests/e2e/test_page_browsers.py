"""The page in Firefox and in WebKitGTK: a new user's way to a played MP3, and the editor."""

import base64
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.apidocs.site import PAGE
from tests.e2e.client import PASSWORD, Client
from tests.e2e.page import WATCH
from tests.support import clips
from tests.support.platform import Platform
from tests.support.servers import missing
from tests.support.servers.webdriver import RIGHT, Browser, Firefox, WebKit

pytestmark = pytest.mark.timeout(600)
#: Drops a file on the page: its name, and its bytes as Base64.
DROP = """
const [name, text] = arguments;
const transfer = new DataTransfer();
transfer.items.add(new File([Uint8Array.from(atob(text), (each) => each.charCodeAt(0))], name));
for (const kind of ["dragenter", "dragover", "drop"]) {
  document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
}
"""
#: The colors in the middle of the waveform's canvas.
COLORS = """(() => {
  const canvas = document.querySelector(".wave canvas");
  if (!canvas?.width) return 0;
  const { data } = canvas.getContext("2d").getImageData(0, canvas.height / 2 - 1, canvas.width, 1);
  return new Set(new Uint32Array(data.buffer)).size;
})()"""


@pytest.fixture(params=[Firefox, WebKit])
def other(request: pytest.FixtureRequest) -> Iterator[Browser]:
    if not PAGE.is_dir():
        missing("the page is not built: run ./scripts/test")
    with request.param() as running:
        yield running


def test_way_of_a_new_user(other: Browser, platform: Platform, tmp_path: Path) -> None:
    holiday = clips.clip(tmp_path / "Holiday.mp4", "-c:a", "aac", "-c:v", "mpeg4", seconds=5, video=True)
    concert = clips.clip(tmp_path / "Concert.webm", "-c:a", "libopus", "-c:v", "libvpx", seconds=12, video=True)
    me = Client(platform.url, username=f"ada.{secrets.token_hex(4)}@example.org")
    other.open(platform.url)
    other.wait("document.querySelector('h1')?.textContent === 'Drop a video. Get an MP3.'")
    other.run(WATCH)

    other.run(DROP, holiday.name, base64.b64encode(holiday.read_bytes()).decode())
    other.type("input", "Email", me.username)
    other.type("input", "Password", PASSWORD)
    other.click("button", "Create account")
    other.click("button", "Play: Holiday")
    other.wait("Number(document.querySelector('.player input')?.value) >= 1")
    me = me.log_in()
    [job] = me.jobs()["jobs"]
    assert job["receipt"]["video_bytes"] < holiday.stat().st_size, "only the sound is sent"

    other.click("button", f"Account: {me.username}")
    other.click("#menu button", "Log out")
    other.click("button", "Log in")
    other.type("input", "Email or username", me.username)
    other.type("input", "Password", PASSWORD)
    other.click(".login button", "Log in")
    other.find("button", "Play: Holiday")

    other.click("label.check", "Let me trim and edit each file first")
    other.type("input[type=file]", "", str(concert))
    other.click("button", "Edit: Concert")
    other.find("input[type=range]", "From")
    assert other.wait(f"{COLORS} > 1"), "the waveform is drawn"
    other.type("input[type=range]", "From", RIGHT * 20)
    other.wait("document.querySelector('dialog [role=status]').textContent.startsWith('0:10')")
    other.click("label.check", "Use a picture from the video as cover")
    other.click("button", "Start with these settings")
    other.find("button", "Play: Concert")
    converted = next(each for each in me.jobs()["jobs"] if each["filename"] == concert.name)
    assert converted["duration"] == pytest.approx(10, abs=0.2)
    assert other.run("return window.refused ?? null") is None

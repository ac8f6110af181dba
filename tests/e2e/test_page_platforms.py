"""The page on platforms that are killed, full, or have presets of their own."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from functions.state.database import Database
from tests.e2e.client import Client, wave_bytes
from tests.e2e.page import choose, enter, file, offsets, on_its_way, ready
from tests.support import clips
from tests.support.databases import make_past
from tests.support.platform import start
from tests.support.processes import wait_for
from tests.support.servers import free_port
from tests.support.servers.proxy import Proxy

#: No wait for the browser is limited where a script runs in the page.
pytestmark = pytest.mark.timeout(300)


@contextlib.contextmanager
def slowed(page: Page, rate: int) -> Iterator[None]:
    """Limits what the page sends to so many bytes a second."""
    session = page.context.new_cdp_session(page)
    limits = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": rate}
    session.send("Network.emulateNetworkConditions", limits)
    yield
    session.detach()


def send_half(page: Page, me: Client, video: Path) -> None:
    """Begins to upload a file, and returns when the server has a part of it."""
    with page.expect_response(lambda response: response.request.method == "POST" and "/files" in response.url) as made:
        page.locator(".choose input[type=file]").set_input_files(video)
    location = made.value.headers["location"]

    def offset() -> int:
        return int(me.call("HEAD", location, headers={"Tus-Resumable": "1.0.0"}).headers["Upload-Offset"])

    wait_for(lambda: 0 < offset() < video.stat().st_size)


def test_line_is_cut_and_platform_killed_while_it_receives(page: Page, tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "Cut.wav", seconds=6)
    port = free_port()
    with Proxy(port) as proxy:
        url = f"http://localhost:{proxy.port}"
        with start(tmp_path / "data", port, env={"PUBLIC_URL": url}) as first:
            me = Client(first.url).sign_up()
            page.goto(url)
            enter(page, me)
            begun = offsets(page)
            with slowed(page, 200_000):
                send_half(page, me, video)
                assert proxy.disconnect()
                wait_for(lambda: page.title() and begun[-1] > 0)
                first.kill()
                expect(on_its_way(page, "Cut.wav")).to_contain_text("Connection lost. Continues by itself")
        with start(tmp_path / "data", port, env={"PUBLIC_URL": url}):
            page.evaluate("dispatchEvent(new Event('online'))")  # does not wait for the next attempt
            ready(page, "Cut")
            page.close()
    assert begun[0] == 0 < begun[-1]


def test_platform_is_killed_while_it_encodes(page: Page, tmp_path: Path) -> None:
    silence = "anullsrc=r={rate}:cl=mono,atrim=duration={seconds}"
    video = clips.clip(tmp_path / "Long.flac", "-frame_size", 65535, sound=silence, seconds=10_000, rate=8000)
    port = free_port()
    with start(tmp_path / "data", port) as first:
        me = Client(first.url).sign_up()
        page.goto(first.url)
        enter(page, me)
        page.locator(".choose input[type=file]").set_input_files(video)
        expect(on_its_way(page, "Long.flac")).to_contain_text("Encoding")
        first.kill()
        lost = page.get_by_text("The server does not answer. Trying again")
        expect(lost).to_be_visible()
        expect(on_its_way(page, "Long.flac")).to_contain_text("Encoding")
    make_past(Database(f"sqlite:///{tmp_path / 'data/mp3burst.db'}"), "jobs", "lease_until", 86_400_000)
    with start(tmp_path / "data", port):
        expect(lost).to_be_hidden()
        expect(ready(page, "Long")).to_contain_text("2:46:40")
        page.close()  # the platform waits for its requests when it stops


def test_full_quota_is_said_until_there_is_room(page: Page, tmp_path: Path) -> None:
    quota = 5 * len(wave_bytes(1))
    with start(tmp_path / "data", env={"QUOTA_BYTES": str(quota)}) as platform:
        me = Client(platform.url).sign_up()
        page.goto(platform.url)
        enter(page, me)
        page.get_by_role("radio", name="Smallest").check()
        choose(page, file("First.wav", 2))
        first = ready(page, "First")
        choose(page, file("Second.wav", 2.5))
        second = on_its_way(page, "Second.wav")
        expect(second).to_have_class(re.compile("failed"))
        expect(second.locator(".status")).to_have_text(re.compile(r"\d+ are left.*\.$"))
        first.get_by_role("button", name="Delete: First").click()
        wait_for(lambda: not me.jobs()["jobs"])
        second.get_by_role("button", name="Try again: Second.wav").click()
        ready(page, "Second")
        page.close()

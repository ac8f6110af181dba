"""The page on platforms that are killed, full, or have presets of their own."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from functions.state.database import Database
from tests.e2e.client import Client, wave_bytes
from tests.e2e.page import choose, edited, enter, file, offsets, on_its_way, ready
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
    video = clips.clip(tmp_path / "Cut.wav", seconds=12)
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


def test_presets_are_those_of_the_server(page: Page, browser: Browser, tmp_path: Path) -> None:
    presets = {"music": None, "Podcast": {"vbr": "4", "mono": "yes"}}
    with start(tmp_path / "data", env={"PRESETS": json.dumps(presets)}) as platform:
        me = Client(platform.url).sign_up()
        page.goto(platform.url)
        page.get_by_label("Let me trim and edit each file first").check()
        choose(page, file("Kept.wav"))
        dialog = edited(page, "Kept.wav")
        dialog.get_by_label("kbit/s").select_option("112")
        dialog.get_by_label("Name of a preset").fill("Mine")
        dialog.get_by_role("button", name="Keep as preset").click()
        dialog.get_by_role("button", name="Close").click()
        enter(page, me)
        page.get_by_role("radio", name="Podcast").check()
        expect(page.get_by_role("radio", name="Music")).to_have_count(0)
        expect(page.locator(".options")).to_contain_text("VBR 4 · mono")
        dialog = edited(page, "Kept.wav")
        dialog.get_by_role("textbox", name="From").fill("0:00.1")
        dialog.get_by_role("button", name="Start with these settings").click()
        ready(page, "Kept")
        (job,) = me.jobs()["jobs"]
        assert job["options"] == {"vbr": 4, "mono": True, "start": 0.1}
        page.close()
        with browser.new_context(locale="en-US") as elsewhere:
            other = elsewhere.new_page()
            other.goto(platform.url)
            enter(other, me)
            other.get_by_role("radio", name="Mine").check()
            other.get_by_role("button", name="Remove preset: Mine").click()
            expect(other.get_by_role("radio", name="Mine")).to_have_count(0)
            expect(other.get_by_role("radio", name="Standard")).to_be_checked()
        assert me.call("GET", "/presets/Mine").status == 404

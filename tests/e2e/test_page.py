"""The page at /, in Debian's Chromium: what a person sees and does, from the first visit to a played MP3."""

import json
import re
import secrets
import subprocess
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Request, Route, ViewportSize, expect

from tests.e2e.client import PASSWORD, Client, wave_bytes
from tests.e2e.page import (
    DEADLINE,
    KEPT_FILES,
    PHONE,
    choose,
    edited,
    enter,
    file,
    leave_time,
    offsets,
    on_its_way,
    open_menu,
    ready,
    shelved,
    violations,
)
from tests.support import clips
from tests.support.paths import ROOT
from tests.support.platform import Platform, start
from tests.support.processes import wait_for
from tests.support.servers import missing, program
from tests.support.servers.provider import IdentityProvider

#: Bytes that a first visit may load, compressed, and requests that it may make.
_BYTES: Final = 100_000
_REQUESTS: Final = 12
_SCREEN: Final[ViewportSize] = {"width": 2560, "height": 1440}
#: Drops files that the browser can open again, as it can those of a disk.
_DROP: Final = """async names => {
  const folder = await navigator.storage.getDirectory();
  const transfer = new DataTransfer();
  const opened = [];
  for (const name of names) {
    opened.push(await folder.getFileHandle(name, { create: true }));
    transfer.items.add(new File(["some sound"], name));
  }
  DataTransferItem.prototype.getAsFileSystemHandle = async () => opened.shift();
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""
#: Notes what a button says from now on.
_NOTE_LABELS: Final = """button => {
  window.labels = [];
  const note = () => button.textContent === labels.at(-1) || labels.push(button.textContent);
  new MutationObserver(note).observe(button, { subtree: true, childList: true, characterData: true });
}"""
#: Returns the height of a drawing in the middle of its left and of its right half, and its colors at both ends.
_DRAWN: Final = """canvas => {
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  const rows = x => {
    const pixels = context.getImageData(x, 0, 12, height).data;
    return Math.max(...Array.from({ length: 12 }, (_, column) =>
      Array.from({ length: height }, (_, row) => pixels[(row * 12 + column) * 4 + 3] ? 1 : 0).reduce((a, b) => a + b)));
  };
  const color = x => {
    const pixels = context.getImageData(x, height / 2, 3, 1).data;
    return [0, 1, 2].map(n => pixels.slice(4 * n, 4 * n + 4)).find(pixel => pixel[3])?.join();
  };
  return { heights: [rows(width / 4), rows(width * 3 / 4)], colors: [color(6), color(width - 6)] };
}"""
#: No wait for the browser is limited where a script runs in the page.
pytestmark = pytest.mark.timeout(300)


def test_newcomer_drops_registers_plays_and_downloads(page: Page, platform: Platform) -> None:
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    page.reload()
    choose(page, file("Interview.wav", 2), file("holiday.mov"))
    expect(on_its_way(page, "Interview.wav")).to_contain_text("Starts after you log in")

    username = f"page.{secrets.token_hex(4)}@example.org"
    page.get_by_label("Email").fill(username)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Create account").click()
    row = ready(page, "Interview")
    ready(page, "holiday")
    expect(row).to_contain_text("0:02")

    row.get_by_role("button", name="Play: Interview").click()
    expect(page.get_by_role("slider", name="Position")).to_have_value(re.compile("[12]"))
    expect(page).to_have_title(re.compile("^mp3burst"))
    with page.expect_download() as download:
        row.get_by_role("link", name="Download: Interview").click()
    me = Client(platform.url, username=username).log_in()
    jobs = {each["filename"]: each for each in me.jobs()["jobs"]}
    assert Path(download.value.path()).read_bytes() == me.download(jobs["Interview.wav"]["mp3"]).body
    assert download.value.suggested_filename == "Interview.mp3"

    assert hosts == {platform.url.removeprefix("http://")}, "no request to another host"
    assert page.evaluate("window.refused") is None
    assert page.evaluate("document.cookie") == "", "no script can read the session"


def test_first_visit_loads_little(context: BrowserContext, platform: Platform, measured: Callable[[str], None]) -> None:
    """How soon a slow processor shows it is printed only: it depends on what else this machine does."""
    requests: list[Request] = []
    visit = context.new_page()
    slow = context.new_cdp_session(visit)
    slow.send("Emulation.setCPUThrottlingRate", {"rate": 4})
    visit.on("requestfinished", lambda request: requests.append(request))
    visit.goto(platform.url)
    expect(visit.get_by_role("button", name="Log in")).to_be_visible()
    visit.wait_for_load_state("networkidle")
    paint = visit.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
    slow.send("Emulation.setCPUThrottlingRate", {"rate": 1})
    sizes = [request.sizes()["responseBodySize"] for request in requests]
    measured(
        f"first visit: {len(sizes)} requests, {sum(sizes)} bytes, "
        f"shown after {paint or 0:.0f} ms on a processor slowed down 4 times"
    )
    assert 0 < sum(sizes) < _BYTES
    assert 0 < len(sizes) <= _REQUESTS


def test_player_draws_the_waveform_and_seeks_by_it(page: Page, me: Client, tmp_path: Path) -> None:
    louder_first = "aevalsrc='(0.05+0.75*lt(t\\,{seconds}/2))*sin(2*PI*440*t)':d={seconds}:s={rate}"
    enter(page, me)
    choose(page, str(clips.clip(tmp_path / "Waves.mp4", "-c:a", "aac", sound=louder_first, seconds=40)))
    row = ready(page, "Waves")
    row.get_by_role("button", name="Play: Waves").click()
    player = page.get_by_role("complementary", name="Player")
    canvas = player.locator("canvas")
    expect(canvas).to_be_visible()
    player.get_by_role("button", name="Pause").click()
    left, right = canvas.evaluate(_DRAWN)["heights"]
    assert left > 30
    assert 2 <= right < left / 4

    slider = player.get_by_role("slider", name="Position")
    place = slider.bounding_box()
    assert place is not None
    slider.click(position={"x": place["width"] * 0.75, "y": place["height"] / 2})
    expect(slider).to_have_value(re.compile("^(29|30|31)$"))
    played, rest = canvas.evaluate(_DRAWN)["colors"]
    assert played != rest
    slider.press("End")
    expect(slider).to_have_attribute("aria-valuetext", "0:40 / 0:40")
    assert canvas.evaluate(_DRAWN)["colors"][0] == played
    slider.press("Home")
    slider.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "0:01 / 0:40")
    for size in (PHONE, _SCREEN):
        page.set_viewport_size(size)
        page.wait_for_function("canvas => canvas.width === canvas.clientWidth", arg=canvas.element_handle())
    assert violations(page) == []

    page.route("**/waveform", lambda route: route.fulfill(status=404, json={"detail": "No waveform."}))
    page.reload()
    ready(page, "Waves").get_by_role("button", name="Play: Waves").click()
    expect(slider).to_have_value(re.compile("^[1-9]"))
    expect(canvas).to_have_count(0)
    assert page.evaluate("window.refused") is None


def test_full_quota_is_said_and_what_the_server_says_is_text(page: Page, me: Client) -> None:
    detail = "Your quota is full: delete MP3s. <img src=x onerror=alert(1)>"
    problem = {"status": 413, "detail": detail}
    page.route("**/files", lambda route: route.fulfill(status=413, json=problem))
    enter(page, me)
    choose(page, file("Full.wav"))
    row = on_its_way(page, "Full.wav")
    expect(row).to_have_class(re.compile("failed"))
    expect(row.locator(".status")).to_have_text(detail)


def test_refused_file_gets_the_servers_sentence(page: Page, me: Client) -> None:
    enter(page, me)
    choose(page, {"name": "letter.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.7\n" + bytes(5000)})
    row = on_its_way(page, "letter.pdf")
    expect(row).to_have_class(re.compile("failed"))
    expect(row.locator(".status")).to_have_text(re.compile(r"^[A-Z].{10,}\.$"))


@pytest.mark.parametrize("arguments", ["a.mp4 -c:a aac", "a.mkv -c:a libvorbis"])
def test_only_the_sound_is_sent(page: Page, me: Client, tmp_path: Path, arguments: str) -> None:
    name, *codecs = arguments.split()
    video = clips.clip(tmp_path / name, "-c:v", "libx264", "-g", 1, *codecs, seconds=3, video=True)
    enter(page, me)
    page.route("**/files/*", lambda route: None if route.request.method == "PATCH" else route.continue_())
    with page.expect_request(lambda request: request.method == "POST" and request.url.endswith("/files")) as made:
        page.locator(".choose input[type=file]").set_input_files(video)
    assert int(made.value.headers["upload-length"]) < 0.9 * video.stat().st_size
    row = on_its_way(page, name)
    expect(row).to_contain_text("only the sound,")
    row.get_by_role("button", name=f"Pause: {name}").click()
    page.unroute_all(behavior="ignoreErrors")
    row.get_by_role("button", name=f"Resume: {name}").click()
    ready(page, "a")
    (job,) = me.jobs()["jobs"]
    with video.open("rb") as file:
        whole = me.convert(file, name, {"bitrate": "192k"})
    assert me.download(job["mp3"]).body == me.download(whole["mp3"]).body


def test_upload_continues_after_a_lost_connection(page: Page, me: Client) -> None:
    enter(page, me)
    lost: list[Route] = []

    def lose(route: Route) -> None:
        if route.request.method == "PATCH" and not lost:
            lost.append(route)
            route.abort("connectionreset")
        else:
            route.continue_()

    page.route("**/files/*", lose)
    choose(page, file("Lost.wav"))
    ready(page, "Lost")
    assert lost


def test_many_files_at_once_of_which_one_has_no_sound(page: Page, me: Client, tmp_path: Path) -> None:
    clips.run("-f", "lavfi", "-i", "testsrc=d=1:r=5:s=96x64", tmp_path / "mute.mp4")
    mute = {"name": "mute.mp4", "mimeType": "video/mp4", "buffer": (tmp_path / "mute.mp4").read_bytes()}
    page.get_by_role("radio", name="Smallest").check()
    enter(page, me)
    choose(page, mute, *(file(f"{n}.wav", 0.1) for n in range(19)))
    row = on_its_way(page, "mute.mp4")
    expect(row).to_have_class(re.compile("failed"))
    expect(row.locator(".status")).to_have_text(re.compile("no (audio|sound)"))
    expect(page.locator(".mp3")).to_have_count(19, timeout=3 * DEADLINE)
    expect(page).to_have_title(re.compile("^mp3burst"))


def test_too_many_requests_are_tried_again_when_the_server_says(page: Page, me: Client) -> None:
    page.clock.install()
    page.reload()
    enter(page, me)
    refused: list[Route] = []
    detail = "You have too many uploads: wait for one to end."

    def refuse(route: Route) -> None:
        if route.request.method == "POST" and not refused:
            refused.append(route)
            problem = {"status": 429, "detail": detail}
            route.fulfill(status=429, json=problem, headers={"Retry-After": "3600"})
        else:
            route.continue_()

    page.route("**/files", refuse)
    choose(page, file("Busy.wav"))
    expect(on_its_way(page, "Busy.wav")).to_contain_text(detail)
    page.clock.fast_forward("30:00")
    expect(on_its_way(page, "Busy.wav")).to_contain_text(detail)
    page.clock.fast_forward("30:00")
    ready(page, "Busy")


def test_pause_and_resume(page: Page, me: Client) -> None:
    enter(page, me)
    page.route("**/files/*", lambda route: None if route.request.method == "PATCH" else route.continue_())
    choose(page, file("Paused.wav"))
    row = on_its_way(page, "Paused.wav")
    expect(row).to_contain_text("Uploading")
    row.get_by_role("button", name="Pause: Paused.wav").click()
    expect(row).to_contain_text("Paused ·")
    page.unroute_all(behavior="ignoreErrors")
    row.get_by_role("button", name="Resume: Paused.wav").click()
    ready(page, "Paused")


def test_upload_continues_in_a_new_tab_where_it_stopped(page: Page, context: BrowserContext, me: Client) -> None:
    enter(page, me)
    page.route("**/files/*", lambda route: None if route.request.method == "PATCH" else route.continue_())
    sound = file("Closed.wav", 2)
    half = len(sound["buffer"]) // 2
    with page.expect_response(lambda response: response.request.method == "POST" and "/files" in response.url) as made:
        choose(page, sound)
    expect(on_its_way(page, "Closed.wav")).to_contain_text("Uploading")
    location = made.value.headers["location"]
    head = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    assert me.call("PATCH", location, sound["buffer"][:half], head).status == 204
    # A File that a test makes has no time of its own, as one from a disk has.
    stored = "localStorage['mp3burst.uploads']"
    page.evaluate(f'{stored} = {stored}.replace(/"modified":\\d+/, \'"modified":0\')')
    page.close()

    again = context.new_page()
    again.add_init_script("Object.defineProperty(File.prototype, 'lastModified', {get: () => 0})")
    begun = offsets(again)
    again.goto(me.url)
    row = on_its_way(again, "Closed.wav")
    expect(row).to_contain_text("Interrupted: choose the file again to continue · 16 kB of 32 kB")
    row.locator("input[type=file]").set_input_files([sound])
    ready(again, "Closed")
    assert begun == [half]


def test_upload_is_shown_by_another_tab_only_once_this_one_is_closed(
    page: Page, context: BrowserContext, me: Client
) -> None:
    enter(page, me)
    page.route("**/files/*", lambda route: None if route.request.method == "PATCH" else route.continue_())
    choose(page, file("Mine.wav"))
    expect(on_its_way(page, "Mine.wav")).to_contain_text("Uploading")
    other = context.new_page()
    other.goto(me.url)
    expect(other.get_by_text("Your MP3s will be here.")).to_be_visible()
    expect(on_its_way(other, "Mine.wav")).to_have_count(0)
    wait_for(lambda: "Mine.wav" in (other.evaluate("localStorage['mp3burst.uploads']") or ""))
    # Otherwise the request that is held back may be sent when the tab is closed.
    on_its_way(page, "Mine.wav").get_by_role("button", name="Pause: Mine.wav").click()
    expect(on_its_way(page, "Mine.wav")).to_contain_text("Paused")
    page.close()
    expect(on_its_way(other, "Mine.wav")).to_contain_text("Interrupted")


def test_nothing_of_an_upload_stays_in_a_browser_that_is_logged_out(page: Page, me: Client) -> None:
    enter(page, me)
    page.route("**/files/*", lambda route: None if route.request.method == "PATCH" else route.continue_())
    made: list[str] = []
    page.on("request", lambda request: made.append(request.url) if request.method == "POST" else None)
    with page.expect_response(lambda response: response.request.method == "POST" and "/files" in response.url) as first:
        page.evaluate(_DROP, [f"Secret{n}.wav" for n in range(5)])
    remembered = "JSON.parse(localStorage['mp3burst.uploads'] ?? '[]').length"
    wait_for(lambda: page.evaluate(remembered) == 3)
    wait_for(lambda: page.evaluate(KEPT_FILES) == 3)
    page.evaluate(  # as another tab does
        """() => {
            const [mine, ...more] = JSON.parse(localStorage['mp3burst.uploads']);
            const others = { ...mine, key: "1", name: "Elsewhere.wav" };
            localStorage['mp3burst.uploads'] = JSON.stringify([mine, ...more, others]);
        }"""
    )
    made.clear()
    open_menu(page, me, "Log out")
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    assert made == []  # the other two did not start when the first three stopped
    assert ".wav" not in page.evaluate("JSON.stringify(localStorage)")
    wait_for(lambda: page.evaluate(KEPT_FILES) == 0)
    assert me.call("HEAD", first.value.headers["location"], headers={"Tus-Resumable": "1.0.0"}).status in (404, 410)


def test_search_and_zip_take_all_mp3s(page: Page, me: Client) -> None:
    """Also those of which the shelf does not show the page yet, and more than fit into one zip file."""
    facts = {"status": "done", "stage": "done", "progress": 1, "mp3": "1" * 24, "duration": 60, "options": {}}
    times = (f"2026-11-27T10:{9 - n // 60:02}:{59 - n % 60}Z" for n in range(450))
    made = [{**facts, "job": f"{n:032}", "filename": f"Talk {n}.mp4", "created": time} for n, time in enumerate(times)]

    gone: list[int] = []

    def answer(route: Route) -> None:
        after = int((re.findall(r"after=(\d+)", route.request.url) or ["0"])[0])
        end = after + int(re.findall(r"limit=(\d+)", route.request.url)[0])
        if after == 50 and not gone:
            gone.append(after)  # as when the last job of the first page was deleted meanwhile
            route.fulfill(status=404, json={"status": 404})
            return
        route.fulfill(json={"jobs": made[after:end], "next": str(end) if end < len(made) else None})

    page.route("**/jobs?*", answer)
    enter(page, me)
    expect(page.locator(".mp3")).to_have_count(50)
    page.get_by_role("searchbox", name="Search").fill("talk 44")
    expect(page.locator(".mp3")).to_have_count(11)
    page.reload()
    page.get_by_role("button", name="Prepare a zip of all").click()
    links = page.get_by_role("link", name=re.compile("^Zip . of 3$"))
    expect(links).to_have_count(3)
    addresses = [link.get_attribute("href") or "" for link in links.all()]
    assert [len(re.findall(r"\d{32}", address)) for address in addresses] == [200, 200, 50]


def test_session_that_is_over_keeps_the_files(page: Page, me: Client) -> None:
    enter(page, me)
    page.context.clear_cookies()
    choose(page, file("Over.wav"))
    expect(page.get_by_text("Your session is over. Log in, and everything continues.")).to_be_visible()
    enter(page, me)
    ready(page, "Over")


def test_uploads_continue_after_the_password_is_changed(page: Page, me: Client) -> None:
    enter(page, me)
    page.route("**/files/*", lambda route: None if route.request.method == "PATCH" else route.continue_())
    choose(page, file("Long.wav"))
    expect(on_its_way(page, "Long.wav")).to_contain_text("Uploading")
    open_menu(page, me, "Account")
    dialog = page.get_by_role("dialog", name="Account")
    dialog.locator("summary", has_text="Change password").click()
    dialog.get_by_label("Current password").fill(PASSWORD)
    dialog.get_by_label("New password").fill(f"{PASSWORD} 2")
    dialog.get_by_role("button", name="Change password").click()
    page.unroute_all(behavior="ignoreErrors")
    enter(page, me, f"{PASSWORD} 2")
    expect(dialog).to_be_hidden()
    ready(page, "Long")


def test_all_tabs_are_of_the_user_who_logged_in_last(page: Page, context: BrowserContext, me: Client) -> None:
    enter(page, me)
    page.route("**/files/*", lambda route: None if route.request.method == "PATCH" else route.continue_())
    choose(page, file("Hers.wav"))
    expect(on_its_way(page, "Hers.wav")).to_contain_text("Uploading")
    other = context.new_page()
    other.goto(me.url)
    open_menu(other, me, "Log out")
    expect(page.get_by_text("Your session is over.")).to_be_visible()
    guest = Client(me.url).sign_up()
    enter(other, guest)
    expect(page.get_by_role("button", name=f"Account: {guest.username}")).to_be_visible()
    expect(on_its_way(page, "Hers.wav")).to_have_count(0)


def test_deletion_can_be_undone(page: Page, me: Client) -> None:
    enter(page, me)
    choose(page, file("Keep.wav"), file("Drop.wav"))
    ready(page, "Drop")
    leave_time(page)
    ready(page, "Keep").get_by_role("button", name="Delete: Keep").click()
    expect(shelved(page, "Keep")).to_be_hidden()
    ready(page, "Drop").get_by_role("button", name="Edit tags: Drop").click()
    dialog = page.get_by_role("dialog", name="Edit tags")
    dialog.get_by_role("button", name="Undo").click()
    dialog.get_by_role("button", name="Close").click()
    ready(page, "Keep")
    ready(page, "Drop").get_by_role("button", name="Delete: Drop").click()
    page.goto("about:blank")  # leaves no time to undo it
    wait_for(lambda: [each["filename"] for each in me.jobs()["jobs"]] == ["Keep.wav"])


def test_selected_mp3s_are_downloaded_and_deleted_together(page: Page, me: Client) -> None:
    enter(page, me)
    choose(page, file("One.wav"), file("Two.wav"), file("Three.wav"))
    for name in ("One", "Two", "Three"):
        ready(page, name)
    leave_time(page)
    page.get_by_role("button", name="Select", exact=True).click()
    for name in ("One", "Two"):
        page.get_by_role("checkbox", name=f"Select: {name}").check()
    expect(page.get_by_text("2 selected")).to_be_visible()
    assert violations(page) == []
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as zip").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert sorted(archive.namelist()) == ["One.mp3", "Two.mp3"]
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_text("Deleted 2 MP3s.")).to_be_visible()
    expect(page.locator(".mp3")).to_have_count(1)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".mp3")).to_have_count(3)


def test_files_are_dropped_anywhere(page: Page, me: Client) -> None:
    enter(page, me)
    dropped = page.evaluate_handle(
        """bytes => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "Dropped.wav", { type: "audio/wav" }));
            return transfer;
        }""",
        list(wave_bytes(0.2)),
    )
    body = page.locator("body")
    body.dispatch_event("dragenter", {"dataTransfer": dropped})
    expect(page.get_by_text("Drop to convert")).to_be_visible()
    body.dispatch_event("drop", {"dataTransfer": dropped})
    expect(page.get_by_text("Drop to convert")).to_be_hidden()
    ready(page, "Dropped")


def test_preset_is_what_the_mp3_becomes(page: Page, me: Client) -> None:
    choose(page, file("Talk.wav"))
    page.get_by_role("radio", name="Speech").check()
    enter(page, me)
    ready(page, "Talk")
    (job,) = me.jobs()["jobs"]
    assert job["options"] == {"bitrate": 96, "mono": True, "normalize": True}
    page.reload()
    expect(page.get_by_role("radio", name="Speech")).to_be_checked()


def test_file_is_trimmed_by_eye_and_faded(page: Page, me: Client) -> None:
    page.get_by_label("Let me trim and edit each file first").check()
    choose(page, file("Long.wav", 6), file("Other.wav"))
    enter(page, me)
    dialog = edited(page, "Long.wav")
    beginning = dialog.get_by_role("slider", name="From")
    beginning.press("Shift+ArrowRight")
    beginning.press("ArrowRight")
    expect(dialog.get_by_label("From", exact=True).and_(dialog.get_by_role("textbox"))).to_have_value("0:01.1")
    for _ in range(2):
        dialog.get_by_role("slider", name="To").press("Shift+ArrowLeft")
    dialog.get_by_role("slider", name="Fade in").press("ArrowRight")
    dialog.get_by_role("slider", name="Fade out").press("ArrowLeft")
    expect(dialog.get_by_text("0:02, about 70 kB")).to_be_visible()
    bars = "canvas => new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data).size"
    wait_for(lambda: dialog.locator("canvas").first.evaluate(bars) > 3)
    play = dialog.get_by_role("button", name="Play the selection")
    play.evaluate(_NOTE_LABELS)
    play.click()
    wait_for(lambda: page.evaluate("window.labels") == ["Pause", "Play the selection"])  # it has ended
    assert violations(page) == []

    end = dialog.get_by_role("textbox", name="To")
    for wrong in ("soon", "0:01"):
        end.fill(wrong)
        dialog.get_by_role("button", name="Start with these settings").click()
        expect(dialog.get_by_role("alert")).to_contain_text("Check the times")
    end.fill("0:04")
    dialog.get_by_label("Even loudness").check()
    dialog.get_by_label("kbit/s").select_option("112")
    dialog.get_by_label("Name of a preset").fill("Podcast")
    dialog.get_by_role("button", name="Keep as preset").click()
    dialog.get_by_role("button", name="Use sound settings for 1 more").click()
    dialog.get_by_role("button", name="Start with these settings").click()
    ready(page, "Long")
    on_its_way(page, "Other.wav").get_by_role("button", name="Start").click()
    ready(page, "Other")
    jobs = {each["filename"]: each for each in me.jobs()["jobs"]}
    sound = {"bitrate": 112, "normalize": True}
    assert jobs["Long.wav"]["options"] == {**sound, "start": 1.1, "end": 4, "fade_in": 0.1, "fade_out": 0.1}
    assert jobs["Long.wav"]["duration"] == pytest.approx(2.9, abs=0.1)
    assert jobs["Other.wav"]["options"] == sound
    page.reload()
    page.get_by_role("radio", name="Podcast").check()
    page.get_by_role("button", name="Remove preset: Podcast").click()
    expect(page.get_by_role("radio", name="Standard")).to_be_checked()


def test_cover_is_chosen_on_the_video(page: Page, me: Client, tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "film.webm", "-c:v", "libvpx", "-c:a", "libopus", seconds=3, video=True)
    page.get_by_label("Let me trim and edit each file first").check()
    page.locator(".choose input[type=file]").set_input_files(video)
    enter(page, me)
    dialog = edited(page, "film.webm")
    dialog.get_by_label("Use a picture from the video as cover").check()
    dialog.get_by_role("slider", name="Picture at").fill("1.5")
    shown = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(each => each)"
    wait_for(lambda: dialog.get_by_role("img", name="Cover").evaluate(shown))
    dialog.get_by_role("button", name="Start with these settings").click()
    ready(page, "film")
    (job,) = me.jobs()["jobs"]
    assert job["options"]["cover"] == 1.5
    assert me.call("GET", f"/jobs/{job['job']}/tags").json()["cover"]["type"] == "image/jpeg"
    assert page.evaluate("window.refused") is None


def test_tags_are_changed_in_place(page: Page, me: Client) -> None:
    enter(page, me)
    choose(page, file("Episode.wav"))
    ready(page, "Episode").get_by_role("button", name="Edit tags: Episode").click()
    dialog = page.get_by_role("dialog", name="Edit tags")
    dialog.get_by_label("Artist").fill("Ada; Grace")
    assert violations(page) == []
    dialog.get_by_label("Year or date").fill("in spring")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_have_text(re.compile("^[A-Z].*[.]$"))
    dialog.get_by_label("Year or date").fill("2026")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()
    (job,) = me.jobs()["jobs"]
    tags = me.call("GET", f"/jobs/{job['job']}/tags").json()
    assert (tags["artist"], tags["date"]) == ("Ada/Grace", "2026")


def test_mp3_is_shared_split_and_fed(page: Page, me: Client) -> None:
    enter(page, me)
    leave_time(page)
    choose(page, file("Show.wav", 4))
    row = ready(page, "Show")
    (job,) = me.jobs()["jobs"]
    chapters = {"chapters": [{"start": 0, "title": "Intro"}, {"start": 2, "title": "<b>Talk</b>"}]}
    body, json_headers = json.dumps(chapters).encode(), {"Content-Type": "application/json"}
    assert me.call("PATCH", f"/jobs/{job['job']}/tags", body, json_headers).status == 200

    row.get_by_role("button", name="Share: Show").click()
    sharing = page.get_by_role("dialog", name="Share")
    sharing.get_by_label("For how long it works").select_option("30 days")
    sharing.get_by_role("button", name="Create link").click()
    link = sharing.get_by_label("The link").input_value()
    stranger = Client(me.url)
    assert stranger.call("GET", link.removeprefix(me.url)).status == 200
    assert violations(page) == []
    sharing.get_by_role("button", name="Take back").click()
    expect(sharing.get_by_text("There are no links to this MP3 yet.")).to_be_visible()
    assert stranger.call("GET", link.removeprefix(me.url)).status in (401, 404)
    sharing.get_by_role("button", name="Close").click()

    row.get_by_role("button", name="Edit tags: Show").click()
    tags = page.get_by_role("dialog", name="Edit tags")
    tags.get_by_role("button", name="Play: <b>Talk</b>").click()
    expect(page.get_by_role("slider", name="Position", include_hidden=True)).to_have_value(re.compile("[234]"))
    assert violations(page) == []
    tags.get_by_role("button", name="Split into an MP3 for each chapter").click()
    expect(page.get_by_text("2 MP3s were made of it.")).to_be_visible()
    tags.get_by_role("button", name="Close").click()
    ready(page, "Intro")
    ready(page, "Talk")

    open_menu(page, me, "Account")
    account = page.get_by_role("dialog", name="Account")
    account.get_by_text("Podcast feed").click()
    account.get_by_role("button", name="Create address").click()
    feed = account.get_by_label("The address of your feed").input_value().removeprefix(me.url)
    assert stranger.call("GET", feed).status == 200
    account.get_by_role("button", name="Delete address").click()
    wait_for(lambda: stranger.call("GET", feed).status == 401)


def test_account_is_left_and_deleted(page: Page, me: Client) -> None:
    enter(page, me)
    choose(page, file("Mine.wav"))
    ready(page, "Mine")
    leave_time(page)
    open_menu(page, me, "Log out")
    expect(page.get_by_role("heading", name="Drop a video. Get an MP3.")).to_be_visible()
    expect(page.locator(".mp3")).to_have_count(0)
    assert page.context.cookies() == []
    enter(page, me)
    ready(page, "Mine")
    open_menu(page, me, "Account")
    page.locator("summary", has_text="Delete account").click()
    deletion = page.locator("details[open]")
    deletion.get_by_label("Password").fill("wrong password")
    deletion.get_by_role("button", name="Delete account").click()
    expect(deletion.get_by_role("alert")).to_be_visible()
    deletion.get_by_label("Password").fill(PASSWORD)
    deletion.get_by_role("button", name="Delete account").click()
    expect(page.get_by_text("Your account is deleted.")).to_be_visible()
    assert me.login(me.username, PASSWORD).status == 401


def test_keys_sessions_and_webhooks_are_managed(page: Page, me: Client) -> None:
    enter(page, me)
    open_menu(page, me, "Account")
    dialog = page.get_by_role("dialog", name="Account")
    dialog.get_by_text("API keys").click()
    dialog.get_by_label("Name").fill("Backup")
    dialog.get_by_label("delete").check()
    dialog.get_by_role("button", name="Create key").click()
    key = dialog.get_by_label("Your new key").input_value()
    expect(dialog.locator(".entry")).to_contain_text("send videos, list and download, delete · never used")
    assert Client(me.url, key).call("GET", "/jobs").status == 200
    dialog.get_by_role("button", name="Delete: Backup").click()
    expect(dialog.get_by_text("There are no keys yet.")).to_be_visible()

    dialog.get_by_text("Where you are logged in").click()
    others = dialog.locator(".entry").filter(has_not_text="This browser")
    expect(others).to_have_count(1)  # the login of the test
    others.get_by_role("button", name="Log out").click()
    expect(others).to_have_count(0)
    expect(dialog.locator(".entry")).to_contain_text("Chrome, Linux")

    # A receiver must have an address on the internet, which no test calls.
    webhook = {"id": "1" * 32, "url": "https://receiver.example/hook", "state": "active", "secret": "whsec_1"}
    failed = {"id": "2" * 32, "url": webhook["url"], "state": "failed", "error": "It answered 500.", "tried": None}
    page.route("**/webhooks", lambda route: _answer(route, {"webhooks": [webhook]}))
    page.route("**/deliveries*", lambda route: _answer(route, {"deliveries": [failed | {"created": "2026-11-27"}]}))
    page.route("**/webhooks/*/ping", lambda route: _answer(route, {"delivery": "3" * 32}))
    dialog.get_by_text("Webhooks").click()
    expect(dialog.get_by_text("Failed · It answered 500. · Nov")).to_be_visible()
    expect(dialog.get_by_label("Secret that verifies")).to_have_value("whsec_1")
    dialog.get_by_label("Address").fill("ftp://receiver.example")
    dialog.get_by_role("button", name="Add webhook").click()
    expect(dialog.get_by_role("alert")).to_have_text(re.compile("^[A-Z].*[.]$"))
    with page.expect_request("**/webhooks/*/ping"):
        dialog.get_by_role("button", name="Try", exact=True).click()
    assert violations(page) == []


def test_identity_provider_logs_in_and_is_listed(context: BrowserContext, tmp_path: Path) -> None:
    with IdentityProvider() as provider:
        provider.put("ada", email="ada@example.org", email_verified=True, name="Ada")
        client = {"OIDC_CLIENT_ID": "mp3burst", "OIDC_CLIENT_SECRET": "secret"}
        with start(tmp_path / "data", env={"OIDC_ISSUER": provider.url, **client}) as own:
            page = context.new_page()
            page.goto(own.url)
            page.get_by_role("button", name="Log in").click()
            page.get_by_role("link", name="Log in with your organization").click()
            page.get_by_placeholder("sub").fill("ada")
            page.get_by_role("button", name="Authorize").click()
            page.get_by_role("button", name="Account: ada@example.org").click()
            page.locator("#menu").get_by_role("button", name="Account", exact=True).click()
            dialog = page.get_by_role("dialog", name="Account")
            dialog.get_by_text("Other ways to log in").click()
            expect(dialog.locator(".entry")).to_contain_text(provider.url.removeprefix("http://"))
            dialog.get_by_role("button", name="Delete: 127.0.0.1").click()
            expect(dialog.get_by_role("alert")).to_contain_text("password")  # the last way in stays
            assert violations(page) == []


def _answer(route: Route, json: object) -> None:
    """Answers reads, and lets the server answer what changes webhooks."""
    if route.request.method == "GET" or route.request.url.endswith("/ping"):
        route.fulfill(json=json)
    else:
        route.continue_()


def test_offline_is_said_and_passes(page: Page, me: Client) -> None:
    enter(page, me)
    page.context.set_offline(True)
    choose(page, file("Later.wav"))
    expect(page.get_by_text("You are offline.")).to_be_visible()
    expect(on_its_way(page, "Later.wav")).to_contain_text("Next in line")
    page.context.set_offline(False)
    expect(page.get_by_text("You are offline.")).to_be_hidden()
    ready(page, "Later")


def test_every_language_has_every_string() -> None:
    """Which the type of the English strings says of the others."""
    site = ROOT / "functions/gateway/site"
    if not (site / "node_modules").is_dir():
        missing("the packages of the page are not installed: run npm ci in functions/gateway/site")
    done = subprocess.run(
        [program("npm"), "run", "--silent", "check"], cwd=site, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_keyboard_alone(page: Page, me: Client) -> None:
    page.keyboard.press("Tab")  # the name at the top
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Email or username")).to_be_focused()
    page.keyboard.type(me.username)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator(".login")).to_be_hidden()
    expect(page.get_by_role("button", name=me.username)).to_be_visible()
    with page.expect_file_chooser() as chooser:
        page.locator(".choose input[type=file]").press("Space")
    chooser.value.set_files([file("Keys.wav", 2)])
    ready(page, "Keys").get_by_role("button", name="Play: Keys").focus()
    page.keyboard.press("Space")
    expect(page.get_by_role("complementary", name="Player")).to_be_visible()


def press_until(page: Page, key: str, focused: Locator) -> None:
    """Presses a key until something has the focus."""
    for _ in range(30):
        page.keyboard.press(key)
        if focused.evaluate("each => each === document.activeElement"):
            return
    raise AssertionError(f"{focused} is not reached by {key}")


def test_newcomer_trims_and_shares_with_the_keyboard_alone(page: Page, tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "Song.webm", "-c:a", "libopus", "-c:v", "libvpx", seconds=12, video=True)
    chosen = page.locator(".choose input[type=file]")
    press_until(page, "Tab", chosen)
    with page.expect_file_chooser() as chooser:
        chosen.press("Enter")
    chooser.value.set_files([file("Keys.wav", 2)])
    expect(page.get_by_label("Email")).to_be_focused()
    page.keyboard.type(f"{secrets.token_hex(8)}@example.org")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    press_until(page, "Tab", ready(page, "Keys").get_by_role("button", name="Play: Keys"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("complementary", name="Player")).to_be_visible()

    press_until(page, "Shift+Tab", page.get_by_label("Let me trim and edit each file first"))
    page.keyboard.press("Space")
    press_until(page, "Shift+Tab", chosen)
    with page.expect_file_chooser() as chooser:
        chosen.press("Space")
    chooser.value.set_files(video)
    edit = page.get_by_role("button", name="Edit: Song")
    expect(edit).to_be_visible()
    press_until(page, "Tab", edit)
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Edit")
    beginning = dialog.get_by_role("slider", name="From")
    expect(beginning).to_be_visible()
    page.keyboard.press("Tab")
    expect(beginning).to_be_focused()
    for _ in range(2):
        page.keyboard.press("Shift+ArrowRight")
    expect(dialog.get_by_text("0:10, about")).to_be_visible()
    press_until(page, "Tab", dialog.get_by_label("Use a picture from the video as cover"))
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    share = ready(page, "Song").get_by_role("button", name="Share: Song")
    press_until(page, "Tab", share)
    page.keyboard.press("Enter")
    press_until(page, "Tab", page.get_by_role("button", name="Create link"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox", name="The link")).to_be_focused()
    page.keyboard.press("Escape")
    expect(share).to_be_focused()


def test_returning_user_is_not_shown_the_newcomers_page_while_mp3s_are_loaded(page: Page, me: Client) -> None:
    me.convert(BytesIO(wave_bytes(0.5)), "Talk.wav")
    enter(page, me)
    ready(page, "Talk")
    held: list[Route] = []
    page.route("**/me", lambda route: held.append(route))
    page.reload()
    expect(page.locator(".skeleton")).to_be_visible()
    expect(page.locator(".hero")).to_have_count(0)
    page.route("**/jobs?*", lambda route: held.append(route))
    wait_for(lambda: page.evaluate("1") and held)
    held.pop().continue_()
    expect(page.get_by_role("button", name=me.username)).to_be_visible()
    expect(page.locator(".hero")).to_have_count(0)
    wait_for(lambda: page.evaluate("1") and held)
    held.pop().continue_()
    ready(page, "Talk")


def test_nothing_is_in_the_way_of_people_with_disabilities(page: Page, me: Client) -> None:
    """WCAG 2.2 AA as far as axe-core checks it, on every view."""
    assert violations(page) == []
    choose(page, file("Waiting.wav"))
    expect(page.locator(".login")).to_be_visible()
    assert violations(page) == []
    enter(page, me)
    choose(page, {"name": "letter.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.7\n" + bytes(5000)})
    ready(page, "Waiting").get_by_role("button", name="Play").click()
    expect(on_its_way(page, "letter.pdf")).to_have_class(re.compile("failed"))
    assert violations(page) == []
    page.get_by_role("button", name=f"Account: {me.username}").click()
    assert violations(page) == []
    page.locator("#menu").get_by_role("button", name="Account").click()
    page.get_by_text("Delete account").first.click()
    assert violations(page) == []


@pytest.mark.parametrize(
    ("language", "headline"), [("en", "Drop a video."), ("de-AT", "Video ablegen."), ("es-MX", "Suelta un vídeo.")]
)
def test_every_language_fits(browser: Browser, platform: Platform, language: str, headline: str) -> None:
    with browser.new_context(viewport=PHONE, locale=language) as context:
        page = context.new_page()
        page.goto(platform.url)
        expect(page.get_by_role("heading", level=1)).to_contain_text(headline)
        choose(page, file(f"{'A very long name of a video ' * 5}.wav"))
        expect(page.locator(".login")).to_be_visible()
        page.locator(".menu-button").click()
        for viewport in (PHONE, _SCREEN):
            page.set_viewport_size(viewport)
            assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]


def test_language_is_chosen_by_hand(browser: Browser, platform: Platform) -> None:
    with browser.new_context(locale="fi") as context:
        page = context.new_page()
        page.goto(platform.url)
        expect(page.get_by_role("heading", level=1)).to_have_text("Drop a video. Get an MP3.")
        page.get_by_role("button", name="Settings").click()
        page.get_by_label("Language").select_option("Deutsch")
        expect(page.get_by_role("heading", level=1)).to_have_text("Video ablegen. MP3 bekommen.")
        assert page.evaluate("document.documentElement.lang") == "de"
        page.reload()
        expect(page.get_by_role("heading", level=1)).to_have_text("Video ablegen. MP3 bekommen.")

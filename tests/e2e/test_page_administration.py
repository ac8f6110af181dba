"""The page as administrators see it, in Debian's Chromium."""

import re
from collections.abc import Iterator
from io import BytesIO

import pytest
from playwright.sync_api import Page, expect

from functions.media import Space, Usage
from functions.state.database import Database
from functions.state.disks import Disks
from tests.e2e.client import PASSWORD, Client, wave_bytes
from tests.e2e.page import DESKTOP, PHONE, enter, violations
from tests.support.databases import set_role
from tests.support.platform import Platform
from tests.support.processes import wait_for

pytestmark = pytest.mark.timeout(120)
WAV = wave_bytes(0.5)


@pytest.fixture
def admin(platform: Platform) -> Iterator[Client]:
    user = Client(platform.url).sign_up()
    database = Database(f"sqlite:///{platform.data}/mp3burst.db")
    set_role(database, user.username, "admin")
    yield user
    set_role(database, user.username, "user")
    database.close()


def test_others_are_offered_nothing_and_load_nothing(page: Page, me: Client) -> None:
    loaded: list[str] = []
    page.on("request", lambda request: loaded.append(request.url))
    enter(page, me)
    page.get_by_role("button", name=f"Account: {me.username}").click()
    expect(page.locator("#menu").get_by_role("button", name="Account", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Administration")).to_have_count(0)
    page.locator("#menu").get_by_role("button", name="Account", exact=True).click()
    page.get_by_text("API keys").click()
    expect(page.get_by_label("manage the account")).to_be_visible()
    expect(page.get_by_label("administer")).to_have_count(0)
    assert not [url for url in loaded if "administration" in url or "/admin" in url]


def test_users_are_managed(page: Page, me: Client, admin: Client) -> None:
    me.convert(BytesIO(WAV), "a.wav")
    enter(page, admin)
    page.get_by_role("button", name=f"Account: {admin.username}").click()
    page.get_by_role("button", name="Administration").click()
    dialog = page.get_by_role("dialog", name="Administration")
    dialog.get_by_label("Search").fill(admin.username.upper())
    own = dialog.locator(".person").filter(has_text=admin.username)
    expect(dialog.locator(".person")).to_have_count(1)
    own.locator("summary").first.click()
    expect(own.get_by_role("button", name="Log out everywhere")).to_be_visible()
    expect(own.get_by_role("button", name="Lock")).to_have_count(0)
    expect(own.get_by_text("Delete user")).to_have_count(0)

    dialog.get_by_label("Search").fill(me.username)
    person = dialog.locator(".person").filter(has_text=me.username)
    expect(dialog.locator(".person")).to_have_count(1)
    person.locator("summary").first.click()
    assert violations(page) == []
    person.get_by_role("button", name="Lock", exact=True).click()
    expect(person.locator("summary").first).to_contain_text("locked")
    assert me.login(me.username, PASSWORD).status == 403
    person.get_by_role("button", name="Unlock").click()
    expect(person.locator("summary").first).not_to_contain_text("locked")
    assert me.login(me.username, PASSWORD).status == 200
    person.get_by_label("Storage in GB").fill("1.5")
    person.get_by_label("Videos at once").fill("0")
    person.get_by_role("button", name="Set limits").click()
    expect(person.locator("summary").first).to_contain_text("of 1.5 GB used")
    usage = me.call("GET", "/me").json()["usage"]
    assert (usage["bytes_limit"], usage["jobs_limit"]) == (1_500_000_000, None)
    person.get_by_label("Storage in GB").fill("")
    person.get_by_role("button", name="Set limits").click()
    expect(person.locator("summary").first).to_contain_text("of 20 GB used")
    person.get_by_role("button", name="Make administrator").click()
    expect(person.locator("summary").first).to_contain_text("administrator")
    person.get_by_role("button", name="Make ordinary user").click()
    expect(person.locator("summary").first).not_to_contain_text("administrator")
    person.get_by_role("button", name="Log out everywhere").click()
    wait_for(lambda: me.call("GET", "/me").status == 401, "the user to be logged out")
    person.get_by_text("Delete user").first.click()
    person.get_by_role("button", name="Delete user").click()
    expect(dialog.get_by_text("There is no such user.")).to_be_visible()
    assert me.login(me.username, PASSWORD).status == 401
    assert page.evaluate("window.refused") is None


def test_what_goes_on_is_shown(page: Page, me: Client, admin: Client, platform: Platform) -> None:
    failed = me.upload(BytesIO(WAV), "diary.wav", {"track": "5"})["job"]
    me.wait(failed)
    me.convert(BytesIO(WAV), "a.wav")
    enter(page, admin)
    page.get_by_role("button", name=f"Account: {admin.username}").click()
    page.get_by_role("button", name="Administration").click()
    dialog = page.get_by_role("dialog", name="Administration")
    dialog.get_by_label("Jobs", exact=True).check()
    job = dialog.locator(".entry").filter(has_text=failed)
    expect(job).to_contain_text("There is no audio track 5 in this file")
    expect(job).to_contain_text(me.username)
    expect(dialog).not_to_contain_text("diary")
    assert violations(page) == []
    dialog.get_by_label("State").select_option("Done")
    expect(dialog.locator(".entry").filter(has_text=me.username)).to_have_count(1)
    dialog.get_by_label("Queues").check()
    expect(dialog.get_by_text("Conversions")).to_be_visible()
    expect(dialog.get_by_text(re.compile(r"^Jobs: [1-9]\d*\. Emails: \d+\."))).to_be_visible()
    assert violations(page) == []
    dialog.get_by_label("Storage", exact=True).check()
    expect(dialog.get_by_text("Who has stored most")).to_be_visible()
    disks = Disks(Database(f"sqlite:///{platform.data}/mp3burst.db"))
    for free, text in (
        (600, "600 GB of 1 TB free"),
        (90, "uploads are refused when less than 50 GB is free"),
        (40, "uploads are refused while less than 50 GB is free"),
        (None, "The media store has not answered since"),
    ):
        usage = None if free is None else Usage(0, Space(free * 10**9, 10**12))
        disks.record({("videos", "pieces", "mp3s"): usage}, None)
        dialog.get_by_label("Queues").check()
        dialog.get_by_label("Storage", exact=True).check()
        expect(dialog.locator(".disk")).to_contain_text("Videos, Pieces, and MP3s")
        expect(dialog.locator(".disk")).to_contain_text(text)
        assert violations(page) == []
    for viewport in (PHONE, DESKTOP):
        page.set_viewport_size(viewport)
        for part in ("Users", "Jobs", "Queues", "Storage"):
            dialog.get_by_label(part, exact=True).check()
            expect(dialog.locator("[aria-busy]")).to_have_count(0)
            assert dialog.evaluate("each => each.scrollWidth <= each.clientWidth"), part


def test_view_is_closed_when_the_role_is_lost(page: Page, admin: Client, platform: Platform) -> None:
    enter(page, admin)
    page.get_by_role("button", name=f"Account: {admin.username}").click()
    page.get_by_role("button", name="Administration").click()
    dialog = page.get_by_role("dialog", name="Administration")
    expect(dialog.locator(".person").first).to_be_visible()
    database = Database(f"sqlite:///{platform.data}/mp3burst.db")
    other = Client(platform.url).sign_up()
    set_role(database, admin.username, "user")
    database.close()
    dialog.get_by_label("Search").fill(other.username)
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("status").filter(has_text="Only administrators may do this")).to_be_visible()
    page.get_by_role("button", name=f"Account: {admin.username}").click()
    expect(page.locator("#menu").get_by_role("button", name="Account", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Administration")).to_have_count(0)

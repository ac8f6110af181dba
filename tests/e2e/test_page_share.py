"""Files from a phone's share sheet: the browser sends them as a form to the page's service worker."""

from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.e2e.client import Client
from tests.e2e.page import DEADLINE, KEPT_FILES, enter, file, on_its_way, open_menu, ready
from tests.support.platform import Platform
from tests.support.processes import wait_for

#: No wait for the browser is limited where a script runs in the page.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def installed(page: Page) -> None:
    """Waits for the service worker."""
    state = "async () => (await navigator.serviceWorker.getRegistration('/share/'))?.active?.state"
    wait_for(lambda: page.evaluate(state) == "activated")


def share(context: BrowserContext, platform: Platform, *files: Any) -> Page:
    """Sends files as the share sheet does, in a tab of its own, and returns that."""
    tab = context.new_page()
    action = f'action="{platform.url}/share/" method="post" enctype="multipart/form-data"'
    tab.set_content(f'<form {action}><input type="file" name="files" multiple><button>Share</button></form>')
    tab.locator("input").set_input_files(list(files))
    tab.locator("button").click()
    tab.wait_for_url(f"{platform.url}/")
    return tab


def test_shared_file_waits_for_a_login_and_a_click_even_if_the_tab_is_closed(
    page: Page, context: BrowserContext, platform: Platform, me: Client
) -> None:
    page.close()
    first = share(context, platform, file("Talk.wav"), file("Song.wav"))
    expect(on_its_way(first, "Talk.wav")).to_contain_text("Edit it, or start")
    expect(on_its_way(first, "Song.wav")).to_contain_text("Edit it, or start")
    first.close()
    again = context.new_page()
    again.goto(platform.url)
    expect(on_its_way(again, "Talk.wav")).to_contain_text("Edit it, or start")
    enter(again, me)
    on_its_way(again, "Song.wav").get_by_role("button", name="Cancel: Song.wav").click()
    on_its_way(again, "Talk.wav").get_by_role("button", name="Start").click()
    ready(again, "Talk")
    wait_for(lambda: again.evaluate(KEPT_FILES) == 0)
    assert [job["filename"] for job in me.jobs()["jobs"]] == ["Talk.wav"]
    assert again.evaluate("window.refused") is None


def test_shared_file_that_is_being_sent_continues_in_another_tab(
    page: Page, context: BrowserContext, platform: Platform, me: Client
) -> None:
    enter(page, me)
    tab = share(context, platform, file("Talk.wav"))
    tab.route("**/files/*", lambda route: None if route.request.method == "PATCH" else route.continue_())
    on_its_way(tab, "Talk.wav").get_by_role("button", name="Start").click()
    expect(on_its_way(tab, "Talk.wav")).to_contain_text("Uploading")
    expect(on_its_way(page, "Talk.wav")).to_have_count(0)
    wait_for(lambda: "Talk.wav" in (page.evaluate("localStorage['mp3burst.uploads']") or ""))
    # Otherwise the request that is held back may be sent when the tab is closed.
    on_its_way(tab, "Talk.wav").get_by_role("button", name="Pause: Talk.wav").click()
    expect(on_its_way(tab, "Talk.wav")).to_contain_text("Paused")
    tab.close()
    on_its_way(page, "Talk.wav").get_by_role("button", name="Continue").click()
    ready(page, "Talk")


def test_shared_file_is_gone_once_its_user_has_logged_out(
    page: Page, context: BrowserContext, platform: Platform, me: Client
) -> None:
    enter(page, me)
    tab = share(context, platform, file("Secret.wav"))
    expect(on_its_way(tab, "Secret.wav")).to_be_visible()
    open_menu(tab, me, "Log out")
    expect(tab.get_by_role("button", name="Log in")).to_be_visible()
    wait_for(lambda: tab.evaluate(KEPT_FILES) == 0)
    expect(on_its_way(tab, "Secret.wav")).to_have_count(0)


def test_files_that_are_shared_before_the_page_is_ready_are_said_to_be_lost(
    browser: Browser, platform: Platform
) -> None:
    with browser.new_context(service_workers="block", locale="en-US") as newcomer:
        newcomer.set_default_timeout(DEADLINE)
        tab = share(newcomer, platform, file("Talk.wav", 30))
        expect(tab.get_by_text("The shared files did not arrive")).to_be_visible()
        assert tab.url == f"{platform.url}/"
        tab.goto(f"{platform.url}/share/")
        tab.wait_for_url(f"{platform.url}/")
        expect(tab.get_by_role("heading", level=1)).to_be_visible()
        expect(tab.get_by_text("The shared files did not arrive")).to_have_count(0)


def test_files_that_the_browser_cannot_keep_are_said_to_be_lost(page: Page, platform: Platform) -> None:
    """The worker sends the page to this address where the browser's storage is full."""
    page.goto(f"{platform.url}/#not-shared")
    page.reload()
    expect(page.get_by_text("The shared files could not be kept")).to_be_visible()
    assert page.url == f"{platform.url}/"

"""Provides one platform for all tests that only use it. Tests that stop, kill or configure one start their own."""

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import pytest

from infra.apidocs.site import PAGE
from tests.e2e.client import Client
from tests.support.platform import Platform, start
from tests.support.servers import missing, program

if TYPE_CHECKING:  # it is large, and few modules need a browser
    from playwright.sync_api import Browser, BrowserContext, Page

_MEASURED: Final = "measured"


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with the default settings, in a directory where an earlier version left files that all can read."""
    data = tmp_path_factory.mktemp("e2e") / "data"
    before = os.umask(0)
    try:
        (data / "mail").mkdir(parents=True)
        (data / "mail/old.eml").touch()
        (data / "mp3burst.db").touch()
        running = start(data)
    finally:
        os.umask(before)
    with running:
        yield running


@pytest.fixture
def me(platform: Platform) -> Client:
    """A new user."""
    return Client(platform.url).sign_up()


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """Chromium. Playwright's event loop runs until the end of the module, so that other tests can run their own."""
    from playwright.sync_api import expect, sync_playwright

    from tests.e2e.page import DEADLINE

    if not PAGE.is_dir():
        missing("the page is not built: run ./scripts/test, or npm ci and npm run build in functions/gateway/site")
    expect.set_options(timeout=DEADLINE)
    with sync_playwright() as playwright:
        # Root has no sandbox, and the tests may run as root.
        running = playwright.chromium.launch(
            executable_path=program("chromium", "google-chrome"), args=["--no-sandbox"]
        )
        yield running
        running.close()


@pytest.fixture
def context(browser: "Browser") -> "Iterator[BrowserContext]":
    """A browser without cookies or stored data, in English."""
    from tests.e2e.page import DEADLINE, DESKTOP, WATCH

    made = browser.new_context(viewport=DESKTOP, locale="en-US")
    made.set_default_timeout(DEADLINE)
    made.add_init_script(WATCH)
    yield made
    made.close()


@pytest.fixture
def page(context: "BrowserContext", platform: Platform) -> "Page":
    """The page as a newcomer sees it."""
    from playwright.sync_api import expect

    opened = context.new_page()
    opened.goto(platform.url)
    expect(opened.get_by_role("heading", name="Drop a video. Get an MP3.")).to_be_visible()
    expect(opened.get_by_role("button", name="Log in")).to_be_visible()
    return opened


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """A function that prints a line at the end of the run, even if every test passes."""
    return lambda line: request.node.user_properties.append((_MEASURED, line))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the lines of ``measured``, also those of other processes of this run (xdist)."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    found = [line for report in reports for name, line in report.user_properties if name == _MEASURED]
    if found:
        terminalreporter.section("measured")
        for line in found:
            terminalreporter.write_line(line)

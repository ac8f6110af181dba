"""Provides one platform for all tests that only use it. Tests that stop, kill or configure one start their own."""

import os
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.e2e.client import Client
from tests.support.platform import Platform, start

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

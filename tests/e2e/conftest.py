"""One platform for all tests that only use it; who stops, kills or configures one starts their own."""

from collections.abc import Iterator

import pytest

from tests.e2e.client import Client
from tests.platform import Platform, start


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with nothing set."""
    with start(tmp_path_factory.mktemp("e2e") / "data") as running:
        yield running


@pytest.fixture
def me(platform: Platform) -> Client:
    """A user whom no other test knows."""
    return Client(platform.url).sign_up()

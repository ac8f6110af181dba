"""Fixtures of the kill tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.memoized_media import memoized_media


@pytest.fixture(scope="module")
def memoized() -> Iterator[None]:
    """Reads and encodes the same audio only once per module."""
    with memoized_media():
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for the systems of a module."""
    return tmp_path_factory.mktemp("systems")

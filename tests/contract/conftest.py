"""Fixtures of the contract tests: each body runs on every implementation."""

from collections.abc import Iterator

import pytest

from functions.database import Database
from tests.databases import sqlite


@pytest.fixture(params=["sqlite"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """An empty, migrated database."""
    with sqlite(tmp_path_factory.mktemp("database")) as database:
        yield database

"""Tests that the previous version keeps working while the functions are being updated.

Its instances run for a while on the tables of the new version, so a migration removes nothing that they use, and rows
that they insert need nothing that they do not know. A later version may remove it: the migration then lists it in
``removes``, as in ``removes = {"logins.failures"}``.
"""

import itertools
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect

from tests.support.paths import ROOT

CONFIG = Config()
CONFIG.set_main_option("script_location", str(ROOT / "infra/migrations"))
REVISIONS = [each.revision for each in reversed([*ScriptDirectory.from_config(CONFIG).walk_revisions()])]


def columns(connection: Connection) -> dict[str, bool]:
    """Returns for each column whether a row needs a value for it."""
    found = inspect(connection)
    return {
        f"{table}.{column['name']}": not column["nullable"] and column["default"] is None
        for table in found.get_table_names()
        for column in found.get_columns(table)
    }


@pytest.mark.parametrize(("before", "after"), [*itertools.pairwise(REVISIONS)])
def test_previous_version_can_use_the_new_tables(before: str, after: str, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'test.db'}")
    with engine.connect() as connection:
        config = Config()
        config.set_main_option("script_location", str(ROOT / "infra/migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, before)
        old = columns(connection)
        command.upgrade(config, after)
        new = columns(connection)
    engine.dispose()
    script = ScriptDirectory.from_config(CONFIG).get_revision(after)
    assert old.keys() - new.keys() == getattr(script.module, "removes", set())
    tables = {name.partition(".")[0] for name in old}
    added = {name for name in new.keys() - old.keys() if name.partition(".")[0] in tables}
    assert {name for name in added if new[name]} == set(), "give these columns a default, or let them be NULL"

"""Python runs this at the start of every process whose PYTHONPATH has this folder: restricts functions on SQLite."""

import os

if os.environ.get("DATABASE_URL", "").startswith("sqlite") and "FUNCTION_TARGET" in os.environ:
    import sqlite3
    from typing import Any

    from infra.migrations.rights import RIGHTS
    from tests.support.rights import authorizer

    _connect = sqlite3.connect

    def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        """Opens a connection with the rights of this process's function."""
        connection: sqlite3.Connection = _connect(*args, **kwargs)
        connection.set_authorizer(authorizer({os.environ["FUNCTION_TARGET"]} & RIGHTS.keys()))
        return connection

    sqlite3.connect = sqlite3.dbapi2.connect = connect  # type: ignore[assignment]

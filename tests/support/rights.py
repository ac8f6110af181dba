"""Enforces the rights of functions on SQLite, which has no users: a test of a function then finds a missing right."""

import sqlite3
from collections.abc import Callable, Iterable

from infra.migrations.rights import RIGHTS, parse

_VERBS = {
    sqlite3.SQLITE_READ: "SELECT",
    sqlite3.SQLITE_INSERT: "INSERT",
    sqlite3.SQLITE_UPDATE: "UPDATE",
    sqlite3.SQLITE_DELETE: "DELETE",
}
_TABLES = {table for rights in RIGHTS.values() for table in rights}


def authorizer(functions: Iterable[str]) -> Callable[[int, str | None, str | None, str | None, str | None], int]:
    """Returns what ``sqlite3.Connection.set_authorizer`` takes: allows what one of the functions may do."""
    allowed = {
        (table, right.verb, column)
        for function in functions
        for table, rights in RIGHTS[function].items()
        for right in parse(rights)
        for column in right.columns or (None,)
    }
    readable = {table for table, verb, _ in allowed if verb == "SELECT"}

    def authorize(action: int, table: str | None, column: str | None, _: str | None, __: str | None) -> int:
        verb = _VERBS.get(action)
        if verb is None or table not in _TABLES:
            return sqlite3.SQLITE_OK
        if (table, verb, None) in allowed or (table, verb, column) in allowed:
            return sqlite3.SQLITE_OK
        # Counting rows reads no column, and deleting some finds them by their number.
        is_free = verb == "SELECT" and table in readable and column in ("", "ROWID")
        return sqlite3.SQLITE_OK if is_free else sqlite3.SQLITE_DENY

    return authorize

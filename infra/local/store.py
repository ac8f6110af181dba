"""The broker's storage: SQLite, on a thread of its own. Changes that wait at the same time share one commit."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from events.errors import TryAgain

#: A row of deliveries is an event on its way to one Trigger's subscriber or, if error is set, to its dead-letter sink.
_TABLES = """
PRAGMA journal_mode=WAL;
PRAGMA synchronous=FULL;
CREATE TABLE IF NOT EXISTS deliveries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, trigger TEXT NOT NULL, headers TEXT NOT NULL, body BLOB NOT NULL,
    failures INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL, error INTEGER);
CREATE TABLE IF NOT EXISTS dead_letters (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, trigger TEXT NOT NULL, headers TEXT NOT NULL, body BLOB NOT NULL,
    error INTEGER NOT NULL, at REAL NOT NULL);
"""

T = TypeVar("T")
_Change = Callable[[sqlite3.Connection], Any]


class StoreFailed(TryAgain):
    """The disk is full or broken."""


class Store:
    """A database file that survives kill -9: once ``run`` has returned, its change is on disk."""

    def __init__(self, path: Path) -> None:
        """Opens the file, creating it if necessary."""
        self._thread = ThreadPoolExecutor(1)
        self._waiting: list[tuple[_Change, asyncio.Future[Any]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.executescript(_TABLES)

    async def run(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Runs the change in a transaction, together with all others that wait by then, and returns its result.

        Raises:
            StoreFailed: the transaction was rolled back.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((change, future))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        try:
            return await future
        except sqlite3.Error as error:
            raise StoreFailed("The event store cannot be written: check the disk.") from error

    async def close(self) -> None:
        """Finishes the changes that wait, and closes the file."""
        if self._writing:
            await self._writing
        self._thread.shutdown()
        self._db.close()

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            changes = [change for change, _ in batch]
            results = await asyncio.get_running_loop().run_in_executor(self._thread, self._commit, changes)
            for (_, future), result in zip(batch, results, strict=True):
                if future.done():  # its caller was canceled
                    continue
                if isinstance(result, sqlite3.Error):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    def _commit(self, changes: list[_Change]) -> list[Any]:
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                return [change(self._db) for change in changes]
        except sqlite3.Error as error:
            return [error] * len(changes)

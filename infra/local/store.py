"""The broker's memory: SQLite, on a thread of its own, many changes to one commit."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from events.errors import TryAgain

#: A row of deliveries is an event on its way to one Trigger's subscriber or, error_code set, to its dead-letter sink.
_TABLES = """
CREATE TABLE IF NOT EXISTS deliveries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, trigger TEXT NOT NULL, headers TEXT NOT NULL, body BLOB NOT NULL,
    failures INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL, error_code INTEGER
);
CREATE TABLE IF NOT EXISTS dead_letters (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, trigger TEXT NOT NULL, headers TEXT NOT NULL, body BLOB NOT NULL,
    error_code INTEGER NOT NULL, at REAL NOT NULL
);
"""

T = TypeVar("T")


class StoreFailed(TryAgain):
    """The disk is full or broken."""


class Store:
    """A database file that survives kill -9: what ``run`` has returned from is on the disk."""

    def __init__(self, path: Path) -> None:
        self._thread = ThreadPoolExecutor(1, "broker-store")
        self._pending: list[tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; {_TABLES}")

    async def run(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Run it in a transaction, together with whatever else waits by then.

        Raises:
            StoreFailed: nothing of the transaction happened.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._pending.append((change, future))
        if self._writing is None or self._writing.done():
            self._writing = loop.create_task(self._write())
        return await future

    async def close(self) -> None:
        """Finish what waits and close the file."""
        if self._writing:
            await self._writing
        self._thread.shutdown()
        self._db.close()

    async def _write(self) -> None:
        while self._pending:
            batch, self._pending = self._pending, []
            loop = asyncio.get_running_loop()
            try:
                results = await loop.run_in_executor(self._thread, self._commit, [change for change, _ in batch])
            except sqlite3.Error as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(StoreFailed("The event store cannot be written: look at the disk."))
                        future.exception().__cause__ = error  # type: ignore[union-attr]  # just set
                continue
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    def _commit(self, changes: list[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            results = [change(self._db) for change in changes]
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return results

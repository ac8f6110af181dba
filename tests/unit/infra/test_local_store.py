import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.local.store import Store, StoreFailed

INSERT = "INSERT INTO deliveries (trigger, headers, body, due) VALUES ('t', '{}', x'', ?)"


def insert(number: float) -> Callable[[sqlite3.Connection], int | None]:
    return lambda db: db.execute(INSERT, (number,)).lastrowid


def count(path: Path) -> int:
    with sqlite3.connect(path) as db:
        found: int = db.execute("SELECT count(*) FROM deliveries").fetchone()[0]
    db.close()
    return found


def test_change_is_on_disk_once_run_returns(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"

    async def work() -> None:
        store = Store(path)
        sequences = await asyncio.gather(*(store.run(insert(number)) for number in range(200)))
        assert sorted(filter(None, sequences)) == list(range(1, 201))
        assert count(path) == 200
        await store.close()

    asyncio.run(work())


def test_waiting_changes_share_a_commit(tmp_path: Path) -> None:
    async def work() -> list[int]:
        store = Store(tmp_path / "broker.db")
        statements: list[str] = []
        await store.run(lambda db: db.set_trace_callback(statements.append))
        await asyncio.gather(*(store.run(insert(number)) for number in range(100)))
        await store.close()
        return [number for number, statement in enumerate(statements) if statement.startswith("COMMIT")]

    assert len(asyncio.run(work())) <= 4


def test_failed_transaction_is_rolled_back(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"

    async def work() -> None:
        store = Store(path)

        def broken(db: sqlite3.Connection) -> None:
            db.execute(INSERT, (1,))
            db.execute("INSERT INTO nowhere VALUES (1)")

        with pytest.raises(StoreFailed):
            await store.run(broken)
        assert count(path) == 0
        await store.run(insert(2))
        assert count(path) == 1
        await store.close()

    asyncio.run(work())


def test_data_survives_reopening(tmp_path: Path) -> None:
    async def keep() -> None:
        store = Store(tmp_path / "broker.db")
        await store.run(insert(3.5))
        await store.close()

    async def look() -> list[tuple[str, float]]:
        store = Store(tmp_path / "broker.db")
        rows = await store.run(lambda db: db.execute("SELECT trigger, due FROM deliveries").fetchall())
        await store.close()
        return rows

    asyncio.run(keep())
    assert asyncio.run(look()) == [("t", 3.5)]

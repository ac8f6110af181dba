"""The embedded platform's broker."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from aiohttp.streams import EmptyStreamReader
from aiohttp.test_utils import make_mocked_request

from infra.local import broker as module
from infra.local.broker import Broker
from infra.local.manifests import Sink, Trigger
from infra.local.store import Store

EVENT = {"ce-id": "1", "ce-type": "t", "ce-source": "s", "ce-specversion": "1.0"}


def test_event_whose_publisher_gives_up_is_delivered_all_the_same(tmp_path: Path) -> None:
    """The disk takes longer than the publisher waits: what is committed then must not wait for a restart."""

    async def work() -> int:
        store = Store(tmp_path / "broker.db")
        trigger = Trigger("t", {}, Sink("f", "/"), 1, 5, exponential=True, delay=0.5, dead_letters=None)
        broker = Broker(store, Mock(), [trigger])
        disk = threading.Event()
        busy = asyncio.create_task(store.run(lambda _: disk.wait(30)))
        request = make_mocked_request("POST", "/", headers=EVENT, payload=EmptyStreamReader())
        receiving = asyncio.create_task(broker.receive(request))
        while not store._waiting:
            await asyncio.sleep(0)
        receiving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await receiving
        disk.set()
        await busy
        status = await broker.status()  # after what has been stored before
        await broker.close()
        ready: int = status["queues"]["t"]["ready"]
        return ready

    assert asyncio.run(work()) == 1


async def delivered(
    directory: Path, failures: int, answer: Callable[[str], int], condition: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Delivers an event that has failed so often to a Trigger with three retries, until its status is as wanted."""
    store = Store(directory / "broker.db")
    row = ("t", json.dumps(EVENT), b"{}", 0, failures)
    statement = "INSERT INTO deliveries (trigger, headers, body, due, failures) VALUES (?, ?, ?, ?, ?)"
    await store.run(lambda db: db.execute(statement, row))

    @contextlib.asynccontextmanager
    async def call(function: str, *_: object) -> AsyncIterator[Any]:
        yield SimpleNamespace(status=answer(function), read=AsyncMock())

    trigger = Trigger("t", {}, Sink("f", "/"), 1, 3, exponential=True, delay=0.01, dead_letters=Sink("bury", "/"))
    broker = Broker(store, Mock(call=call), [trigger])
    await broker.open([])
    async with asyncio.timeout(30):
        while not condition(status := await broker.status()):
            await asyncio.sleep(0.01)
    await broker.close()
    return status


@pytest.mark.parametrize("failures", [3, 5])
def test_event_that_has_failed_more_often_than_the_manifests_now_allow_is_a_dead_letter(
    tmp_path: Path, failures: int
) -> None:
    buried: list[str] = []

    def answer(function: str) -> int:
        if function == "bury":
            buried.append(function)
            return 200
        return 503

    status = asyncio.run(delivered(tmp_path, failures, answer, lambda status: bool(buried or not waiting(status))))
    assert buried == ["bury"]
    [letter] = status["dead_letters"]
    assert (letter["event"]["ce-id"], letter["error"]) == ("1", 503)


def waiting(status: dict[str, Any]) -> bool:
    """Returns whether an event waits or is being delivered."""
    return any(status["queues"]["t"].values())


def test_fault_during_a_delivery_neither_loses_the_event_nor_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FAULT_SECONDS", 0.0)
    calls: list[str] = []

    def answer(function: str) -> int:
        calls.append(function)
        if len(calls) == 1:
            raise RuntimeError("a bug")
        return 200

    status = asyncio.run(delivered(tmp_path, 0, answer, lambda status: len(calls) == 2 and not waiting(status)))
    assert status["queues"]["t"] == {"ready": 0, "inflight": 0, "retrying": 0}
    assert status["dead_letters"] == []

"""The embedded platform's broker."""

import asyncio
import contextlib
import threading
from pathlib import Path
from unittest.mock import Mock

from aiohttp.streams import EmptyStreamReader
from aiohttp.test_utils import make_mocked_request

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

"""The broker: takes CloudEvents over HTTP, keeps them, and delivers each to the functions whose Triggers match."""

import asyncio
import heapq
import json
import logging
import sqlite3
import time
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import aiohttp
from aiohttp import web

from events.errors import TryAgain
from infra.local.ingress import Functions, problem
from infra.local.manifests import Ping, Sink, Trigger
from infra.local.store import Store

#: CloudEvents 1.0, "required attributes".
_REQUIRED = ("ce-id", "ce-type", "ce-source", "ce-specversion")
#: Status codes below 500 that Knative tries again; every other one below 500 settles the event.
_AGAIN = {404, 408, 409, 429}
#: Events carry ids: bytes that one may have, and how many dead letters are kept.
_MAX_EVENT, _KEPT = 1 << 20, 1000

log = logging.getLogger("platform")


class Queue:
    """The deliveries of one Trigger: which are due when. Their contents stay in the store."""

    def __init__(self, trigger: Trigger) -> None:
        self.trigger = trigger
        self._heap: list[tuple[float, int]] = []
        self._fresh = asyncio.Event()
        self.inflight = 0

    def put(self, due: float, seq: int) -> None:
        """Add a delivery, due at a time of the wall clock."""
        heapq.heappush(self._heap, (due, seq))
        self._fresh.set()

    def done(self) -> None:
        """One delivery less under way."""
        self.inflight -= 1
        self._fresh.set()

    async def get(self) -> int:
        """The next delivery, once it is due and fewer than ``parallelism`` are under way."""
        while True:
            wait = self._heap[0][0] - time.time() if self._heap else None
            if wait is not None and wait <= 0 and self.inflight < self.trigger.parallelism:
                self.inflight += 1
                return heapq.heappop(self._heap)[1]
            self._fresh.clear()
            try:
                async with asyncio.timeout(wait if wait is None or wait > 0 else None):
                    await self._fresh.wait()
            except TimeoutError:
                continue

    def status(self) -> dict[str, int]:
        """What /_platform shows."""
        now = time.time()
        ready = sum(due <= now for due, _ in self._heap)
        return {"ready": ready, "inflight": self.inflight, "retrying": len(self._heap) - ready}


class Broker:
    """Every Trigger and PingSource at work."""

    def __init__(self, store: Store, functions: Functions, triggers: Iterable[Trigger]) -> None:
        self._store, self._functions = store, functions
        self._queues = {trigger.name: Queue(trigger) for trigger in triggers}
        self._loops: list[asyncio.Task[None]] = []
        self._deliveries: set[asyncio.Task[None]] = set()

    async def open(self, pings: Iterable[Ping]) -> None:
        """Go on where the last process stood, and start the PingSources."""
        rows = await self._store.run(lambda db: db.execute("SELECT due, seq, trigger FROM deliveries").fetchall())
        for due, seq, trigger in rows:
            if queue := self._queues.get(trigger):
                queue.put(due, seq)
            else:
                log.warning("event %d waits for the Trigger %s, which the manifests do not have", seq, trigger)
        loop = asyncio.get_running_loop()
        self._loops += [loop.create_task(self._dispatch(queue)) for queue in self._queues.values()]
        self._loops += [loop.create_task(self._ring(ping)) for ping in pings]

    async def receive(self, request: web.BaseRequest) -> web.Response:
        """POST of a CloudEvent in binary mode: 202 once it is on the disk."""
        if request.method != "POST":
            return problem(405, "Events are sent by POST.")
        missing = [name for name in _REQUIRED if not request.headers.get(name)]
        if missing or request.headers["ce-specversion"] != "1.0":
            return problem(
                400, f"This is no CloudEvent 1.0 in binary mode: look at {', '.join(missing or _REQUIRED[3:])}."
            )
        body = bytearray()
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > _MAX_EVENT:
                return problem(413, f"An event may have {_MAX_EVENT} bytes: send ids, not contents.")
        kept = {
            name.lower(): value
            for name, value in request.headers.items()
            if name.lower().startswith("ce-") or name.lower() == "content-type"
        }
        try:
            await self._keep(kept, bytes(body))
        except TryAgain as error:
            log.error("%s", error, exc_info=error)
            return problem(503, str(error))
        return web.Response(status=202)

    async def status(self) -> dict[str, Any]:
        """What /_platform shows: queues and dead letters, newest first."""
        rows = await self._store.run(
            lambda db: db.execute(
                "SELECT trigger, headers, body, error_code, at FROM dead_letters ORDER BY seq DESC"
            ).fetchall()
        )
        letters = [
            {
                "trigger": trigger,
                "event": json.loads(headers),
                "data": body.decode(errors="replace"),
                "error_code": code,
                "at": datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds"),
            }
            for trigger, headers, body, code, at in rows
        ]
        return {"queues": {name: queue.status() for name, queue in self._queues.items()}, "dead_letters": letters}

    @property
    def inflight(self) -> int:
        """Deliveries under way."""
        return len(self._deliveries)

    def stop(self) -> None:
        """Begin no more deliveries."""
        for task in self._loops:
            task.cancel()

    async def close(self) -> None:
        """Give up the deliveries under way; the next process makes them again."""
        self.stop()
        tasks = [*self._loops, *self._deliveries]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._store.close()

    async def _keep(self, headers: Mapping[str, str], body: bytes) -> None:
        attributes = {name[3:]: unquote(value) for name, value in headers.items() if name.startswith("ce-")}
        names = [
            name
            for name, queue in self._queues.items()
            if all(attributes.get(key) == value for key, value in queue.trigger.filter.items())
        ]
        now, text = time.time(), json.dumps(headers)

        def insert(db: sqlite3.Connection) -> list[int]:
            statement = "INSERT INTO deliveries (trigger, headers, body, due) VALUES (?, ?, ?, ?)"
            return [db.execute(statement, (name, text, body, now)).lastrowid or 0 for name in names]

        for name, seq in zip(names, await self._store.run(insert), strict=True):
            self._queues[name].put(now, seq)

    async def _dispatch(self, queue: Queue) -> None:
        while True:
            seq = await queue.get()
            task = asyncio.create_task(self._deliver(queue, seq))
            self._deliveries.add(task)
            task.add_done_callback(self._deliveries.discard)

    async def _deliver(self, queue: Queue, seq: int) -> None:
        trigger = queue.trigger
        due = None
        try:
            statement = "SELECT headers, body, failures, error_code FROM deliveries WHERE seq = ?"
            row = await self._store.run(lambda db: db.execute(statement, (seq,)).fetchone())
            headers, body, failures, dead = json.loads(row[0]), row[1], row[2], row[3] is not None
            sink = trigger.dead_letters if dead and trigger.dead_letters else trigger.subscriber
            status = await self._post(sink, headers, body)
            event = f"event {headers['ce-id']} of {trigger.name}"
            if status < 500 and status not in _AGAIN:
                if status >= 300:
                    log.warning("%s: %s answered %d, which settles it", event, sink.function, status)
            elif failures < trigger.retries:
                due = time.time() + trigger.backoff(failures + 1)
                await self._store.run(
                    lambda db: db.execute(
                        "UPDATE deliveries SET failures = failures + 1, due = ? WHERE seq = ?", (due, seq)
                    )
                )
            elif not dead:
                log.error("%s: %s answered %d, %d times: a dead letter", event, sink.function, status, failures + 1)
                address = f"http://{sink.function}.mp3burst.svc.cluster.local{sink.path}"
                headers |= {"ce-knativeerrordest": address, "ce-knativeerrorcode": str(status)}
                due = await self._store.run(lambda db: _bury(db, seq, json.dumps(headers), status, trigger))
            else:
                log.error("%s: the dead-letter sink %s answered %d: given up", event, sink.function, status)
            if due is None:
                await self._store.run(lambda db: db.execute("DELETE FROM deliveries WHERE seq = ?", (seq,)))
        except TryAgain as error:
            log.error("%s", error, exc_info=error)
            due = time.time() + 1
        finally:
            if due is not None:
                queue.put(due, seq)
            queue.done()

    async def _post(self, sink: Sink, headers: Mapping[str, str], body: bytes) -> int:
        # An event waits for an instance as long as it takes: its time runs from then on.
        try:
            async with self._functions.call(sink.function, "POST", sink.path, headers, body, None) as answer:
                await answer.read()
                return answer.status
        except TryAgain:
            return 503
        except TimeoutError:
            return 504
        except aiohttp.ClientError:
            return 502

    async def _ring(self, ping: Ping) -> None:
        # Once at the start as well: after a crash the rows that are overdue should not wait for the clock.
        while True:
            headers = {
                "ce-specversion": "1.0",
                "ce-id": str(uuid.uuid4()),
                "ce-type": "dev.knative.sources.ping",
                "ce-source": f"/apis/v1/namespaces/mp3burst/pingsources/{ping.name}",
                "ce-time": datetime.now(UTC).isoformat(timespec="seconds"),
                "content-type": ping.content_type,
            }
            status = await self._post(ping.sink, headers, ping.data)
            if status >= 300:
                log.warning("PingSource %s: %s answered %d", ping.name, ping.sink.function, status)
            moment = datetime.now(UTC)
            await asyncio.sleep((ping.schedule.after(moment) - moment).total_seconds())


def _bury(db: sqlite3.Connection, seq: int, headers: str, status: int, trigger: Trigger) -> float | None:
    now = time.time()
    db.execute(
        "INSERT INTO dead_letters (trigger, headers, body, error_code, at)"
        " SELECT trigger, ?, body, ?, ? FROM deliveries WHERE seq = ?",
        (headers, status, now, seq),
    )
    db.execute("DELETE FROM dead_letters WHERE seq <= (SELECT max(seq) FROM dead_letters) - ?", (_KEPT,))
    if not trigger.dead_letters:
        return None
    db.execute(
        "UPDATE deliveries SET headers = ?, error_code = ?, failures = 0, due = ? WHERE seq = ?",
        (headers, status, now, seq),
    )
    return now

"""The broker: takes CloudEvents over HTTP, keeps them, and delivers each to the functions whose Triggers match."""

import asyncio
import contextlib
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
from infra.local import cron
from infra.local.ingress import Functions, problem
from infra.local.manifests import Ping, Sink, Trigger
from infra.local.store import Store

#: CloudEvents 1.0, "required attributes".
_REQUIRED = ("ce-id", "ce-type", "ce-source", "ce-specversion")
#: What Knative tries again beside 5xx; every other answer settles the event.
_AGAIN = {404, 408, 409, 429}
#: Bytes that an event may have (it carries ids), and how many dead letters are kept.
_MAX_EVENT, _KEPT = 1 << 20, 1000

log = logging.getLogger("platform")


class Queue:
    """What waits for one Trigger, and when it is due by the wall clock; its contents stay in the store."""

    def __init__(self, trigger: Trigger) -> None:
        self.trigger = trigger
        self.heap: list[tuple[float, int]] = []
        self.changed = asyncio.Event()
        self.inflight = 0

    def put(self, due: float, seq: int) -> None:
        """Add a delivery."""
        heapq.heappush(self.heap, (due, seq))
        self.changed.set()

    async def get(self) -> int:
        """The next delivery, once it is due and fewer than ``parallelism`` are under way."""
        while True:
            free = self.heap and self.inflight < self.trigger.parallelism
            left = self.heap[0][0] - time.time() if free else None
            if left is not None and left <= 0:
                self.inflight += 1
                return heapq.heappop(self.heap)[1]
            self.changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self.changed.wait()


class Broker:
    """Every Trigger and PingSource at work."""

    def __init__(self, store: Store, functions: Functions, triggers: Iterable[Trigger]) -> None:
        self._store, self._functions = store, functions
        self._queues = {trigger.name: Queue(trigger) for trigger in triggers}
        self._loops: list[asyncio.Task[None]] = []
        self.deliveries: set[asyncio.Task[None]] = set()

    async def open(self, pings: Iterable[Ping]) -> None:
        """Go on where the last process stood, and start the PingSources."""
        statement = "SELECT due, seq, trigger FROM deliveries"
        for due, seq, name in await self._store.run(lambda db: db.execute(statement).fetchall()):
            if name in self._queues:
                self._queues[name].put(due, seq)
            else:
                log.warning("an event waits for the Trigger %s, which the manifests do not have", name)
        loops = [self._dispatch(queue) for queue in self._queues.values()] + [self._ring(ping) for ping in pings]
        self._loops = [asyncio.create_task(loop) for loop in loops]

    async def receive(self, request: web.BaseRequest) -> web.Response:
        """POST of a CloudEvent in binary mode: 202 once it is on the disk."""
        missing = [name for name in _REQUIRED if not request.headers.get(name)]
        if request.method != "POST" or missing or request.headers["ce-specversion"] != "1.0":
            return problem(400, "This is no CloudEvent 1.0 in binary mode: POST it with " + ", ".join(_REQUIRED) + ".")
        body = bytearray()
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > _MAX_EVENT:
                return problem(413, f"An event may have {_MAX_EVENT} bytes: send ids, not contents.")
        headers = {name.lower(): value for name, value in request.headers.items()}
        headers = {name: value for name, value in headers.items() if name.startswith("ce-") or name == "content-type"}
        try:
            await self._keep(headers, bytes(body))
        except TryAgain as error:
            log.error("%s", error, exc_info=error)
            return problem(503, str(error))
        return web.Response(status=202)

    async def status(self) -> dict[str, Any]:
        """What /_platform shows: the queues, and the dead letters, newest first."""
        statement = "SELECT trigger, headers, body, error, at FROM dead_letters ORDER BY seq DESC"
        letters = [
            {
                "trigger": name,
                "event": json.loads(headers),
                "data": body.decode(errors="replace"),
                "error": error,
                "at": at,
            }
            for name, headers, body, error, at in await self._store.run(lambda db: db.execute(statement).fetchall())
        ]
        queues = {}
        for name, queue in self._queues.items():
            ready = sum(due <= time.time() for due, _ in queue.heap)
            queues[name] = {"ready": ready, "inflight": queue.inflight, "retrying": len(queue.heap) - ready}
        return {"queues": queues, "dead_letters": letters}

    def stop(self) -> None:
        """Begin no more deliveries."""
        for loop in self._loops:
            loop.cancel()

    async def close(self) -> None:
        """Give up the deliveries under way; the next process makes them again."""
        tasks = [*self._loops, *self.deliveries]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._store.close()

    async def _keep(self, headers: Mapping[str, str], body: bytes) -> None:
        attributes = {name.removeprefix("ce-"): unquote(value) for name, value in headers.items()}
        queues = [queue for queue in self._queues.values() if queue.trigger.filter.items() <= attributes.items()]
        now, statement = time.time(), "INSERT INTO deliveries (trigger, headers, body, due) VALUES (?, ?, ?, ?)"

        def insert(db: sqlite3.Connection) -> list[int]:
            rows = [(queue.trigger.name, json.dumps(headers), body, now) for queue in queues]
            return [db.execute(statement, row).lastrowid or 0 for row in rows]

        for queue, seq in zip(queues, await self._store.run(insert), strict=True):
            queue.put(now, seq)

    async def _dispatch(self, queue: Queue) -> None:
        while True:
            task = asyncio.create_task(self._deliver(queue, await queue.get()))
            self.deliveries.add(task)
            task.add_done_callback(self.deliveries.discard)

    async def _deliver(self, queue: Queue, seq: int) -> None:
        try:
            due = await self._attempt(queue.trigger, seq)
        except TryAgain as error:
            log.error("%s", error, exc_info=error)
            due = time.time() + 1
        queue.inflight -= 1
        queue.changed.set()
        if due is not None:
            queue.put(due, seq)

    async def _attempt(self, trigger: Trigger, seq: int) -> float | None:
        # When to try again; None when it is settled.
        query = "SELECT headers, body, failures, error FROM deliveries WHERE seq = ?"
        text, body, failures, error = await self._store.run(lambda db: db.execute(query, (seq,)).fetchone())
        headers, sink = json.loads(text), trigger.dead_letters if error and trigger.dead_letters else trigger.subscriber
        status = await self._post(sink, headers, body)
        failed = status >= 500 or status in _AGAIN
        dead = failed and failures == trigger.retries and not error
        now, due = time.time(), None
        if status >= 300:
            log.warning("%s for %s: %s answered %d", headers["ce-id"], trigger.name, sink.function, status)
        if dead:
            log.error("%s for %s is a dead letter", headers["ce-id"], trigger.name)
            headers["ce-knativeerrordest"] = f"http://{sink.function}.mp3burst.svc.cluster.local{sink.path}"
            headers["ce-knativeerrorcode"] = str(status)
            due, failures, error = now if trigger.dead_letters else None, 0, status
        elif failed and failures < trigger.retries:
            failures += 1
            due = now + trigger.backoff(failures)

        def settle(db: sqlite3.Connection) -> None:
            if dead:
                letter = (trigger.name, json.dumps(headers), body, status, now)
                db.execute(
                    "INSERT INTO dead_letters (trigger, headers, body, error, at) VALUES (?, ?, ?, ?, ?)", letter
                )
                db.execute("DELETE FROM dead_letters WHERE seq <= (SELECT max(seq) FROM dead_letters) - ?", (_KEPT,))
            if due is None:
                db.execute("DELETE FROM deliveries WHERE seq = ?", (seq,))
            else:
                row = (json.dumps(headers), failures, due, error, seq)
                db.execute("UPDATE deliveries SET headers = ?, failures = ?, due = ?, error = ? WHERE seq = ?", row)

        await self._store.run(settle)
        return due

    async def _post(self, sink: Sink, headers: Mapping[str, str], body: bytes) -> int:
        # An event waits for an instance as long as it takes: its time-out runs from then on.
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
        # Once at the start as well: after a crash what is overdue should not wait for the clock.
        while True:
            event = {"id": str(uuid.uuid4()), "type": "dev.knative.sources.ping", "specversion": "1.0"}
            event["source"] = f"/apis/v1/namespaces/mp3burst/pingsources/{ping.name}"
            headers = {f"ce-{name}": value for name, value in event.items()} | {"content-type": ping.content_type}
            status = await self._post(ping.sink, headers, ping.data)
            if status >= 300:
                log.warning("the PingSource %s: %s answered %d", ping.name, ping.sink.function, status)
            moment = datetime.now(UTC)
            await asyncio.sleep((cron.following(ping.schedule, moment) - moment).total_seconds())

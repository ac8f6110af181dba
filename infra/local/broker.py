"""The broker: accepts CloudEvents over HTTP, stores them, and delivers each to the functions whose Triggers match."""

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
from infra.local.ingress import Functions
from infra.local.manifests import Ping, Sink, Trigger
from infra.local.problems import problem
from infra.local.store import Store

#: CloudEvents 1.0, "required attributes".
_REQUIRED = ("ce-id", "ce-type", "ce-source", "ce-specversion")
#: The statuses that Knative retries besides 5xx; every other response settles the event.
_RETRIED = {404, 408, 409, 429}
#: Bytes of an event's body. Events carry ids, not contents.
_MAX_EVENT = 1 << 20
#: How many dead letters are kept for /_platform, the newest ones.
_MAX_DEAD_LETTERS = 1000
#: Seconds before a delivery is tried again that a fault of the platform has ended.
_FAULT_SECONDS = 60.0

log = logging.getLogger("platform")


class Queue:
    """The deliveries that wait for one Trigger, ordered by when they are due (wall clock). The store has the events."""

    def __init__(self, trigger: Trigger) -> None:
        """Creates an empty queue."""
        self.trigger = trigger
        self.heap: list[tuple[float, int]] = []
        self.changed = asyncio.Event()
        self.inflight = 0

    def put(self, due: float, seq: int) -> None:
        """Adds a delivery."""
        heapq.heappush(self.heap, (due, seq))
        self.changed.set()

    async def get(self) -> int:
        """Returns the next delivery once it is due and fewer than ``parallelism`` are in flight."""
        while True:
            may_start = self.heap and self.inflight < self.trigger.parallelism
            remaining = self.heap[0][0] - time.time() if may_start else None
            if remaining is not None and remaining <= 0:
                self.inflight += 1
                return heapq.heappop(self.heap)[1]
            self.changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(remaining):
                    await self.changed.wait()


class Broker:
    """Runs every Trigger and PingSource."""

    def __init__(self, store: Store, functions: Functions, triggers: Iterable[Trigger]) -> None:
        """Prepares the queues; ``open`` starts deliveries."""
        self._store = store
        self._functions = functions
        self._queues = {trigger.name: Queue(trigger) for trigger in triggers}
        self._loops: list[asyncio.Task[None]] = []
        self.deliveries: set[asyncio.Task[None]] = set()
        self._arriving: set[asyncio.Task[None]] = set()

    async def open(self, pings: Iterable[Ping]) -> None:
        """Resumes the deliveries that the previous process left, and starts the PingSources."""
        statement = "SELECT due, seq, trigger FROM deliveries"
        for due, seq, name in await self._store.run(lambda db: db.execute(statement).fetchall()):
            if name in self._queues:
                self._queues[name].put(due, seq)
            else:
                log.warning("a stored event waits for the Trigger %s, which is not in the manifests", name)
        loops = [self._dispatch(queue) for queue in self._queues.values()]
        loops += [self._send_pings(ping) for ping in pings]
        self._loops = [asyncio.create_task(loop) for loop in loops]

    async def receive(self, request: web.BaseRequest) -> web.Response:
        """Handles the POST of a CloudEvent in binary mode: 202 once it is on disk."""
        missing = [name for name in _REQUIRED if not request.headers.get(name)]
        if request.method != "POST" or missing or request.headers["ce-specversion"] != "1.0":
            return problem(400, f"This is not a CloudEvent 1.0 in binary mode: POST it with {', '.join(_REQUIRED)}.")
        body = bytearray()
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > _MAX_EVENT:
                return problem(413, f"The event is larger than {_MAX_EVENT} bytes: send ids, not contents.")
        headers = {name.lower(): value for name, value in request.headers.items()}
        headers = {name: value for name, value in headers.items() if name.startswith("ce-") or name == "content-type"}
        try:
            # A publisher that no longer waits cancels this handler; what is then on disk must be in a queue, too.
            arriving = asyncio.create_task(self._store_event(headers, bytes(body)))
            self._arriving.add(arriving)
            arriving.add_done_callback(self._arriving.discard)
            await asyncio.shield(arriving)
        except TryAgain as error:
            log.error("%s", error, exc_info=error)
            return problem(503, str(error))
        return web.Response(status=202)

    async def status(self) -> dict[str, Any]:
        """Returns the broker's part of /_platform: the queues, and the dead letters, newest first."""
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
        """Starts no more deliveries."""
        for loop in self._loops:
            loop.cancel()

    async def close(self) -> None:
        """Cancels the deliveries in flight, which the next process repeats, and closes the store."""
        tasks = [*self._loops, *self.deliveries]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._arriving, return_exceptions=True)
        await self._store.close()

    async def _store_event(self, headers: Mapping[str, str], body: bytes) -> None:
        attributes = {name.removeprefix("ce-"): unquote(value) for name, value in headers.items()}
        queues = [queue for queue in self._queues.values() if queue.trigger.filter.items() <= attributes.items()]
        now = time.time()
        statement = "INSERT INTO deliveries (trigger, headers, body, due) VALUES (?, ?, ?, ?)"

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
        except Exception:
            log.exception("a delivery of %s failed; it will be tried again", queue.trigger.name)
            due = time.time() + _FAULT_SECONDS
        finally:
            queue.inflight -= 1
            queue.changed.set()
        if due is not None:
            queue.put(due, seq)

    async def _attempt(self, trigger: Trigger, seq: int) -> float | None:
        # Returns the time of the next attempt, or None once the delivery is settled.
        query = "SELECT headers, body, failures, error FROM deliveries WHERE seq = ?"
        row = await self._store.run(lambda db: db.execute(query, (seq,)).fetchone())
        if row is None:  # settled by an attempt whose commit was not answered
            return None
        text, body, failures, error = row
        headers = json.loads(text)
        sink = trigger.dead_letters if error and trigger.dead_letters else trigger.subscriber
        status = await self._post(sink, headers, body)
        failed = status >= 500 or status in _RETRIED
        # More than the retries are the failures of an event that was stored when the manifests allowed more.
        is_dead = failed and failures >= trigger.retries and not error
        now = time.time()
        due = None
        if status >= 300:
            log.warning("%s for %s: %s answered %d", headers["ce-id"], trigger.name, sink.function, status)
        if is_dead:
            log.error("%s for %s is a dead letter", headers["ce-id"], trigger.name)
            headers["ce-knativeerrordest"] = f"http://{sink.function}.mp3burst.svc.cluster.local{sink.path}"
            headers["ce-knativeerrorcode"] = str(status)
            due = now if trigger.dead_letters else None
            failures = 0
            error = status
        elif failed and failures < trigger.retries:
            failures += 1
            due = now + trigger.backoff(failures)

        def settle(db: sqlite3.Connection) -> None:
            if is_dead:
                db.execute(
                    "INSERT INTO dead_letters (trigger, headers, body, error, at) VALUES (?, ?, ?, ?, ?)",
                    (trigger.name, json.dumps(headers), body, status, now),
                )
                db.execute(
                    "DELETE FROM dead_letters WHERE seq <= (SELECT max(seq) FROM dead_letters) - ?",
                    (_MAX_DEAD_LETTERS,),
                )
            if due is None:
                db.execute("DELETE FROM deliveries WHERE seq = ?", (seq,))
            else:
                db.execute(
                    "UPDATE deliveries SET headers = ?, failures = ?, due = ?, error = ? WHERE seq = ?",
                    (json.dumps(headers), failures, due, error, seq),
                )

        await self._store.run(settle)
        return due

    async def _post(self, sink: Sink, headers: Mapping[str, str], body: bytes) -> int:
        # Waits for an instance without limit: the event's timeout starts once it has one.
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

    async def _send_pings(self, ping: Ping) -> None:
        # Also once at the start: after a crash, overdue work should not wait for the schedule.
        while True:
            headers = {
                "ce-id": str(uuid.uuid4()),
                "ce-type": "dev.knative.sources.ping",
                "ce-specversion": "1.0",
                "ce-source": f"/apis/v1/namespaces/mp3burst/pingsources/{ping.name}",
                "content-type": ping.content_type,
            }
            status = await self._post(ping.sink, headers, ping.data)
            if status >= 300:
                log.warning("the PingSource %s: %s answered %d", ping.name, ping.sink.function, status)
            now = datetime.now(UTC)
            await asyncio.sleep((cron.next_time(ping.schedule, now) - now).total_seconds())

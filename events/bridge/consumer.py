"""Takes events from RabbitMQ's queues and POSTs them to functions.

A message is acknowledged when its function has answered 2xx, or when the server has confirmed a copy of it elsewhere:
in a waiting room, from where the server itself puts it back into its queue after a while, or among the dead letters. So
the bridge may be killed at any moment, a message that waits holds up no other, and none is unacknowledged for long.
"""

import http.client
import logging
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from events.http import Poster
from events.rabbitmq.connection import Link, Lost, received
from events.rabbitmq.topology import DEAD_EXCHANGE, FOREIGN, Message, Topology, dead, from_message, waiting_room
from events.schema import BadEvent

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Route:
    """Which function eats a queue.

    Attributes:
        queue: its name, or ``dead`` for the dead letters of all queues.
        url: where to POST.
        concurrency: how many at once.
        timeout: seconds for one answer; below RabbitMQ's consumer_timeout of 30 minutes.
    """

    queue: str
    url: str
    concurrency: int = 10
    timeout: float = 600.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that waits for its acknowledgement on its channel."""

    route: Route
    queue: str
    channel: Any
    tag: int
    message: Message
    headers: dict[str, str]


class Bridge:
    """From RabbitMQ to functions, until it is told to stop."""

    def __init__(
        self, url: str, routes: Sequence[Route], topology: Topology, tries: int = 8, delay: float = 1.0
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: ``amqp://`` or ``amqps://``.
            routes: what goes where.
            topology: the queues there are.
            tries: how often a function gets an event before it is a dead letter.
            delay: seconds before the second try; doubled each time.

        Raises:
            BadUrl: a route's URL is none.
        """
        self._routes, self._topology, self._tries = routes, topology, tries
        self._delays = [round(1000 * delay * 2**n) for n in range(max(1, tries - 1))]
        self._posters = {route: Poster(route.url) for route in routes}
        declarations = topology.declarations(self._delays)
        self._link = Link(url, declarations, self._ready, self._lost)
        # During an alarm RabbitMQ reads nothing more from a connection that has published, acknowledgements neither.
        self._aside = Link(url, declarations, lambda _: None, lambda _: None)
        self._work: dict[Route, queue.SimpleQueue[Delivery]] = {route: queue.SimpleQueue() for route in routes}
        # For the link's thread only; workers merely look at the channel.
        self._channel: Any = None
        self._consumers: list[str] = []
        self._unsettled: set[int] = set()
        self._down = ""
        self._draining = False
        self._drained = threading.Event()

    def start(self) -> None:
        """Connect, and go on for ever."""
        for route in self._routes:
            for _ in range(route.concurrency):
                threading.Thread(target=self._worker, args=(route,), name=route.queue, daemon=True).start()
        self._aside.start()
        self._link.start()

    @property
    def alive(self) -> bool:
        """Whether it goes on."""
        return self._link.alive and self._aside.alive

    def stop(self, grace: float) -> None:
        """Take no more, let the functions finish what they have for so many seconds, and disconnect.

        What is not finished then is delivered again, to this bridge's successor.
        """
        self._link.call(self._drain)
        self._drained.wait(grace)
        self._link.close()
        self._aside.close()

    # The workers' threads.

    def _worker(self, route: Route) -> None:
        poster = self._posters[route]
        while True:
            delivery = self._work[route].get()
            if delivery.channel is not self._channel:
                continue  # the connection was lost meanwhile, and the server delivers it again
            status, reason = None, ""
            try:
                status = poster.post(delivery.headers, delivery.message.body, route.timeout)
                reason = f"The function answered {status}."
            except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: no such host name can be
                reason = f"The function gave no answer: {error!r}."
            self._link.call(partial(self._settle, delivery, status, reason))

    # From here on: the link's thread.

    def _ready(self, channel: Any) -> None:
        self._channel, self._unsettled, self._consumers = channel, set(), []
        if self._draining:
            return
        eaten = [(route, name) for route in self._routes for name in self._queues(route)]
        missing = len(eaten)

        def consuming(_: Any) -> None:
            nonlocal missing
            missing -= 1
            if missing == 0:
                self._down = ""
                _log.info("Consuming: %s", ", ".join(f"{name} -> {route.url}" for route, name in eaten))

        for route, name in eaten:
            channel.basic_qos(prefetch_count=route.concurrency)  # for the consumers that follow
            deliver = partial(self._deliver, route, name)
            self._consumers.append(channel.basic_consume(name, deliver, callback=consuming))

    def _queues(self, route: Route) -> list[str]:
        return [dead(name) for name in self._topology.queues] if route.queue == "dead" else [route.queue]

    def _lost(self, why: str) -> None:
        self._channel = None
        self._unsettled.clear()
        if self._draining:
            self._drained.set()
        elif why != self._down:
            self._down = why
            _log.warning("No connection to RabbitMQ, trying on: %s", why)

    def _deliver(self, route: Route, name: str, channel: Any, method: Any, read: Any, body: bytes) -> None:
        message = received(body, read)
        self._unsettled.add(method.delivery_tag)
        try:
            _, headers = from_message(message)
        except BadEvent as error:
            delivery = Delivery(route, name, channel, method.delivery_tag, message, {})
            _log.error("A message in %s goes to the dead letters: %s", name, error)
            key = FOREIGN if route.queue == "dead" else name
            self._move(delivery, DEAD_EXCHANGE, key, message.failed(str(error)))
            return
        self._work[route].put(Delivery(route, name, channel, method.delivery_tag, message, headers))

    def _settle(self, delivery: Delivery, status: int | None, reason: str) -> None:
        if delivery.channel is not self._channel:
            return  # the server delivers it again
        if status is not None and 200 <= status < 300:
            self._acknowledge(delivery)
            return
        is_dead = delivery.route.queue == "dead"
        message = delivery.message
        failed = message.unburied() if is_dead else message.failed(reason, delivery.route.url, status)
        _log.warning("%s from %s, try %d: %s", message.message_id, delivery.queue, failed.attempts, reason)
        if failed.attempts >= self._tries and not is_dead:
            self._move(delivery, DEAD_EXCHANGE, delivery.queue, failed)
        else:
            delay = self._delays[min(failed.attempts, len(self._delays)) - 1]
            self._move(delivery, waiting_room(delay), delivery.queue, failed)

    def _move(self, delivery: Delivery, exchange: str, key: str, message: Message) -> None:
        def done(error: Exception | None) -> None:
            if delivery.channel is not self._channel:
                return
            if error is None:
                self._acknowledge(delivery)
            elif isinstance(error, Lost):  # full, or gone: then the channel is too
                _log.error("%s in %s could not be put aside: %s", message.message_id, delivery.queue, error)
                self._link.call_later(1, move)
            else:
                self._link.reset(str(error))  # connecting declares what is missing

        def told(error: Exception | None) -> None:  # on the other link's thread
            self._link.call(partial(done, error))

        def move() -> None:
            if delivery.channel is self._channel:
                self._aside.call(partial(self._aside.send, exchange, key, message, told))

        move()

    def _acknowledge(self, delivery: Delivery) -> None:
        delivery.channel.basic_ack(delivery.tag)
        self._unsettled.discard(delivery.tag)
        self._look_whether_drained()

    def _drain(self) -> None:
        self._draining = True
        if self._channel is not None:
            for consumer in self._consumers:
                self._channel.basic_cancel(consumer)
        self._look_whether_drained()

    def _look_whether_drained(self) -> None:
        if self._draining and not self._unsettled:
            self._drained.set()

"""Takes events from RabbitMQ's queues and POSTs them to functions.

A message is acknowledged once its function has answered 2xx, or once the server has confirmed a copy of it elsewhere:
in a delay queue, from which the server returns it to its own queue after a while, or among the dead letters. So the
bridge may be killed at any moment, a message that waits for its next try blocks no other, and no message stays
unacknowledged for long.
"""

import http.client
import logging
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from events.http import HttpSink
from events.rabbitmq.connection import Connection, Unconfirmed, from_delivery
from events.rabbitmq.message import Message, from_message
from events.rabbitmq.topology import (
    DEAD_LETTER_EXCHANGE,
    FOREIGN_QUEUE,
    Topology,
    dead_letter_queue,
    delay_exchange,
)
from events.schema import BadEvent

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Route:
    """Sends a queue's events to a function.

    Attributes:
        queue: the queue's name, or ``dead`` for the dead letters of all queues.
        url: where to POST.
        concurrency: how many requests may run at once.
        timeout: seconds to wait for a response; below RabbitMQ's consumer_timeout of 30 minutes.
    """

    queue: str
    url: str
    concurrency: int = 10
    timeout: float = 600.0

    @property
    def is_for_dead_letters(self) -> bool:
        """Whether the route takes the dead letters of all queues."""
        return self.queue == "dead"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a function gets an event before it becomes a dead letter.

    Attributes:
        tries: the first one included.
        delay: seconds before the second try; doubled each time.
    """

    tries: int = 8
    delay: float = 1.0

    def delays(self) -> list[int]:
        """Returns the milliseconds before the second, third, ... try."""
        return [round(1000 * self.delay * 2**n) for n in range(max(1, self.tries - 1))]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that has yet to be acknowledged on its channel."""

    route: Route
    queue: str
    channel: Any
    tag: int
    message: Message
    headers: dict[str, str]


class Bridge:
    """Delivers events from RabbitMQ to functions until it is stopped."""

    def __init__(self, url: str, routes: Sequence[Route], topology: Topology, retry: RetryPolicy) -> None:
        """Prepares the bridge; ``start`` connects.

        Args:
            url: ``amqp://`` or ``amqps://``.
            routes: which function handles which queue.
            topology: the queues that exist.
            retry: how failed events are retried.

        Raises:
            BadUrl: the URL of a route is not an HTTP URL.
            BadAmqpUrl: ``url`` is not the URL of a RabbitMQ server.
        """
        self._routes = routes
        self._topology = topology
        self._tries = retry.tries
        self._delays = retry.delays()
        self._sinks = {route: HttpSink(route.url) for route in routes}
        declarations = topology.declarations(self._delays)
        self._consuming = Connection(url, declarations, self._on_ready, self._on_lost)
        # Copies are published on a second connection: during an alarm RabbitMQ reads nothing more from a connection
        # that has published, acknowledgements included.
        self._publishing = Connection(url, declarations, lambda _: None, lambda _: None)
        self._work: dict[Route, queue.SimpleQueue[Delivery]] = {route: queue.SimpleQueue() for route in routes}
        # These belong to the consuming connection's thread; the workers only compare the channel.
        self._channel: Any = None
        self._consumers: list[str] = []
        self._unsettled: set[int] = set()
        self._last_loss = ""
        self._draining = False
        self._drained = threading.Event()

    def start(self) -> None:
        """Starts the workers and connects."""
        for route in self._routes:
            for _ in range(route.concurrency):
                threading.Thread(target=self._worker, args=(route,), name=route.queue, daemon=True).start()
        self._publishing.start()
        self._consuming.start()

    @property
    def alive(self) -> bool:
        """Whether both connections' threads are running."""
        return self._consuming.alive and self._publishing.alive

    def stop(self, grace: float) -> None:
        """Stops consuming, gives running requests so many seconds to finish, and disconnects.

        The server redelivers what has not finished by then, to the next bridge.
        """
        self._consuming.call(self._drain)
        self._drained.wait(grace)
        self._consuming.close()
        self._publishing.close()

    # The next method runs on the workers' threads.

    def _worker(self, route: Route) -> None:
        sink = self._sinks[route]
        while True:
            delivery = self._work[route].get()
            if delivery.channel is not self._channel:
                continue  # the connection was lost meanwhile, and the server redelivers the message
            status = None
            try:
                status = sink.post(delivery.headers, delivery.message.body, route.timeout)
                reason = f"The function answered {status}."
            except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: not a valid host name
                reason = f"The function did not answer: {error!r}."
            self._consuming.call(partial(self._settle, delivery, status, reason))

    # The methods below run on the consuming connection's thread.

    def _on_ready(self, channel: Any) -> None:
        self._channel = channel
        self._unsettled = set()
        self._consumers = []
        if self._draining:
            return
        consumed = [(route, name) for route in self._routes for name in self._queues(route)]
        missing = len(consumed)

        def consuming(_: Any) -> None:
            nonlocal missing
            missing -= 1
            if missing == 0:
                self._last_loss = ""
                _log.info("Consuming: %s", ", ".join(f"{name} -> {route.url}" for route, name in consumed))

        for route, name in consumed:
            channel.basic_qos(prefetch_count=route.concurrency)  # applies to the consumers that follow
            deliver = partial(self._deliver, route, name)
            self._consumers.append(channel.basic_consume(name, deliver, callback=consuming))

    def _queues(self, route: Route) -> list[str]:
        if route.is_for_dead_letters:
            return [dead_letter_queue(name) for name in self._topology.queues]
        return [route.queue]

    def _on_lost(self, reason: str) -> None:
        self._channel = None
        self._unsettled.clear()
        if self._draining:
            self._drained.set()
        elif reason != self._last_loss:
            self._last_loss = reason
            _log.warning("No connection to RabbitMQ, reconnecting: %s", reason)

    def _deliver(self, route: Route, name: str, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        message = from_delivery(body, properties)
        self._unsettled.add(method.delivery_tag)
        try:
            _, headers = from_message(message)
        except BadEvent as error:
            delivery = Delivery(route, name, channel, method.delivery_tag, message, {})
            _log.error("Dead-lettering a message in %s: %s", name, error)
            key = FOREIGN_QUEUE if route.is_for_dead_letters else name
            self._move(delivery, DEAD_LETTER_EXCHANGE, key, message.failed(str(error)))
            return
        self._work[route].put(Delivery(route, name, channel, method.delivery_tag, message, headers))

    def _settle(self, delivery: Delivery, status: int | None, reason: str) -> None:
        if delivery.channel is not self._channel:
            return  # the server redelivers the message
        if status is not None and 200 <= status < 300:
            self._acknowledge(delivery)
            return
        message = delivery.message
        is_dead = delivery.route.is_for_dead_letters
        failed = message.burial_failed() if is_dead else message.failed(reason, delivery.route.url, status)
        _log.warning("%s from %s, try %d: %s", message.message_id, delivery.queue, failed.attempts, reason)
        if failed.attempts >= self._tries and not is_dead:
            self._move(delivery, DEAD_LETTER_EXCHANGE, delivery.queue, failed)
        else:
            delay = self._delays[min(failed.attempts, len(self._delays)) - 1]
            self._move(delivery, delay_exchange(delay), delivery.queue, failed)

    def _move(self, delivery: Delivery, exchange: str, key: str, message: Message) -> None:
        def on_outcome(error: Exception | None) -> None:
            if delivery.channel is not self._channel:
                return
            if error is None:
                self._acknowledge(delivery)
            elif isinstance(error, Unconfirmed):  # the queue is full or the publishing connection is lost
                _log.error("Moving %s out of %s failed, retrying: %s", message.message_id, delivery.queue, error)
                self._consuming.call_later(1, move)
            else:
                self._consuming.reset(str(error))  # reconnecting declares what is missing

        def on_publishing_thread(error: Exception | None) -> None:
            self._consuming.call(partial(on_outcome, error))

        def move() -> None:
            if delivery.channel is self._channel:
                send = partial(self._publishing.send, exchange, key, message, on_publishing_thread)
                self._publishing.call(send)

        move()

    def _acknowledge(self, delivery: Delivery) -> None:
        delivery.channel.basic_ack(delivery.tag)
        self._unsettled.discard(delivery.tag)
        self._check_drained()

    def _drain(self) -> None:
        self._draining = True
        if self._channel is not None:
            for consumer in self._consumers:
                self._channel.basic_cancel(consumer)
        self._check_drained()

    def _check_drained(self) -> None:
        if self._draining and not self._unsettled:
            self._drained.set()

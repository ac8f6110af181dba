"""publish(event) over RabbitMQ."""

import contextlib
import os
import random
import threading
from collections import deque
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

from events.errors import NotPublished
from events.rabbitmq.connection import Connection, Unconfirmed
from events.rabbitmq.message import Message, to_message
from events.rabbitmq.topology import Topology
from events.schema import Event

_MAX_PAUSE = 0.1  # seconds before a message is sent again to a queue that rejected it


@dataclass(eq=False, slots=True)
class _Pending:
    """A message whose confirmation a publishing thread waits for."""

    queue: str
    message: Message
    outcome: "Future[None]" = field(default_factory=Future)

    def finish(self, error: Exception | None) -> None:
        with contextlib.suppress(InvalidStateError):  # the publishing thread has given up
            if error is None:
                self.outcome.set_result(None)
            else:
                self.outcome.set_exception(error)


class Publisher:
    """Publishes to RabbitMQ: persistent, mandatory, confirmed. Threads may share it; forks may inherit it.

    It connects on its first event. A message that is unconfirmed when the connection is lost is sent again on the next
    connection, as long as its publishing thread still waits.
    """

    def __init__(self, url: str, source: str, topology: Topology) -> None:
        """Prepares the publisher; the first event connects.

        Args:
            url: ``amqp://`` or ``amqps://``.
            source: the CloudEvents source.
            topology: which queue each event goes to.
        """
        self._url = url
        self._source = source
        self._topology = topology
        self._inherited: list[Any] = []
        self._connection: Connection | None = None
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def __call__(self, event: Event, timeout: float) -> None:
        """Publishes one event.

        Args:
            event: the event to publish.
            timeout: seconds to wait for the server's confirmation.

        Raises:
            NotPublished: no confirmation in time, or there is no queue for the event. A message that was sent may
                still arrive.
            BadAmqpUrl: the URL is not one of a RabbitMQ server.
        """
        pending = _Pending(self._topology.queue_of[event.type], to_message(event, self._source))
        connection = self._connect()
        connection.call(lambda: self._send(connection, pending))
        try:
            pending.outcome.result(timeout)
        except Exception as error:
            raise NotPublished from error
        finally:
            pending.outcome.cancel()

    def close(self) -> None:
        """Closes the connection; the next event opens another."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _reset(self) -> None:
        # After a fork the inherited connection is kept, not closed: its socket is the parent's.
        self._inherited.append(self._connection)
        self._lock = threading.Lock()
        self._connection = None
        self._unsent: deque[_Pending] = deque()

    def _connect(self) -> Connection:
        with self._lock:
            if self._connection is None or not self._connection.alive:
                declarations = self._topology.declarations()
                connection = Connection(
                    self._url, declarations, lambda _: self._send_unsent(connection), lambda _: None
                )
                connection.start()
                self._connection = connection
            return self._connection

    # The methods below run on the connection's thread.

    def _send(self, connection: Connection, pending: _Pending) -> None:
        def on_outcome(error: Exception | None) -> None:
            if isinstance(error, Unconfirmed):
                self._send_again(connection, pending)
            else:
                pending.finish(error)
                if error is not None:
                    connection.reset(str(error))  # reconnecting declares the queue again

        if not pending.outcome.cancelled():
            connection.send("", pending.queue, pending.message, on_outcome)

    def _send_again(self, connection: Connection, pending: _Pending) -> None:
        if connection.ready:
            pause = random.uniform(0, _MAX_PAUSE)  # noqa: S311 - spreads load, hides nothing
            connection.call_later(pause, lambda: self._send(connection, pending))
            return
        while self._unsent and self._unsent[0].outcome.cancelled():
            self._unsent.popleft()
        self._unsent.append(pending)

    def _send_unsent(self, connection: Connection) -> None:
        unsent, self._unsent = self._unsent, deque()
        for pending in unsent:
            self._send(connection, pending)

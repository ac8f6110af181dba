"""publish(event) over RabbitMQ."""

import contextlib
import os
import random
import threading
from collections import deque
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

from events.publish import SENTENCE, NotPublished
from events.rabbitmq.connection import Link, Lost
from events.rabbitmq.topology import Message, Topology, to_message
from events.schema import Event

_LONGEST_PAUSE = 0.1  # seconds before a queue that refused a message gets it again


@dataclass(eq=False, slots=True)
class _Waiting:
    queue: str
    message: Message
    outcome: "Future[None]" = field(default_factory=Future)

    def end(self, error: Exception | None = None) -> None:
        with contextlib.suppress(InvalidStateError):  # whoever waited has left
            if error is None:
                self.outcome.set_result(None)
            else:
                self.outcome.set_exception(error)


class Publisher:
    """Publishes to RabbitMQ: persistent, mandatory, confirmed. Threads may share it; forks may inherit it.

    It connects on its first event. What is not confirmed when the connection dies is sent again on the next one, for as
    long as somebody waits for it.
    """

    def __init__(self, url: str, source: str, topology: Topology) -> None:
        """Connect to nothing yet.

        Args:
            url: ``amqp://`` or ``amqps://``.
            source: the CloudEvents source.
            topology: which queue each event goes to.
        """
        self._url, self._source, self._topology = url, source, topology
        self._inherited: list[Any] = []
        self._link: Link | None = None
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def __call__(self, event: Event, timeout: float) -> None:
        """Hand the event over.

        Args:
            event: what to say.
            timeout: seconds to wait for the server's confirmation.

        Raises:
            NotPublished: no confirmation in time, or there is no queue for the event. A message that was sent may
                still arrive.
        """
        waiting = _Waiting(self._topology.queue_of[event.type], to_message(event, self._source))
        link = self._connected()
        link.call(lambda: self._send(link, waiting))
        try:
            waiting.outcome.result(timeout)
        except Exception as error:
            raise NotPublished(SENTENCE) from error
        finally:
            waiting.outcome.cancel()

    def close(self) -> None:
        """Close the connection; the next event opens another."""
        with self._lock:
            link, self._link = self._link, None
        if link is not None:
            link.close()

    def _begin(self) -> None:
        # Kept, not closed: after a fork the socket is the parent's.
        self._inherited.append(self._link)
        self._lock = threading.Lock()
        self._link = None
        self._unsent: deque[_Waiting] = deque()

    def _connected(self) -> Link:
        with self._lock:
            if self._link is None or not self._link.alive:
                link = Link(self._url, self._topology.declarations(), lambda _: self._resend(link), lambda _: None)
                link.start()
                self._link = link
            return self._link

    # From here on: the link's thread.

    def _send(self, link: Link, waiting: _Waiting) -> None:
        def done(error: Exception | None) -> None:
            if isinstance(error, Lost):
                self._again(link, waiting)
            else:
                waiting.end(error)
                if error is not None:
                    link.reset(str(error))  # connecting declares the queue anew

        if not waiting.outcome.cancelled():
            link.send("", waiting.queue, waiting.message, done)

    def _again(self, link: Link, waiting: _Waiting) -> None:
        if link.ready:
            pause = random.uniform(0, _LONGEST_PAUSE)  # noqa: S311 - spreads load, hides nothing
            link.call_later(pause, lambda: self._send(link, waiting))
            return
        while self._unsent and self._unsent[0].outcome.cancelled():
            self._unsent.popleft()
        self._unsent.append(waiting)

    def _resend(self, link: Link) -> None:
        unsent, self._unsent = self._unsent, deque()
        for waiting in unsent:
            self._send(link, waiting)

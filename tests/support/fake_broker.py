"""An in-memory broker that behaves like RabbitMQ with the bridge: at least once, retries, dead letters, redrive."""

import http.client
import threading
from collections import defaultdict
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from events.errors import NotPublished
from events.http import HttpSink
from events.rabbitmq.message import Message, from_message, to_message
from events.rabbitmq.topology import Topology
from events.schema import Event


class FakeBroker:
    """Delivers to URLs, each event on a thread of its own; a context manager that waits for them."""

    def __init__(self, topology: Topology, urls: Mapping[str, str], tries: int = 3, delay: float = 0.05) -> None:
        """Prepares the broker.

        Args:
            topology: which event goes to which queue.
            urls: a function's URL for each queue, and for ``dead``.
            tries: how many times a function gets an event.
            delay: seconds before the second try; doubled each time.
        """
        self.dead: defaultdict[str, list[Message]] = defaultdict(list)
        #: Set to False to reject every event, like a server that is down.
        self.up = True
        self._topology = topology
        self._tries = tries
        self._delay = delay
        self._sinks = {queue: HttpSink(url) for queue, url in urls.items()}
        self._threads: list[threading.Thread] = []
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(10)

    def publish(self, event: Event, timeout: float) -> None:  # noqa: ARG002 - nothing here takes time
        """Publishes an event, as ``events.publish.Publish``."""
        if not self.up:
            raise NotPublished
        self.put(self._topology.queue_of[event.type], to_message(event, "/mp3burst/test"))

    def put(self, queue: str, message: Message) -> None:
        """Puts any message into a queue."""
        thread = threading.Thread(target=self._deliver, args=(queue, message), daemon=True)
        self._threads.append(thread)
        thread.start()

    def redrive(self, queue: str) -> int:
        """Moves a queue's dead letters back to it and returns how many there were."""
        letters = self.dead.pop(queue, [])
        for letter in letters:
            self.put(queue, letter.without_failures())
        return len(letters)

    def _deliver(self, queue: str, message: Message) -> None:
        sink = self._sinks[queue]
        while not self._ended.is_set():
            _, headers = from_message(message)
            status = None
            try:
                status = sink.post(headers, message.body, 10)
                reason = f"The function answered {status}."
            except (OSError, http.client.HTTPException) as error:
                reason = f"The function did not answer: {error!r}."
            if status is not None and 200 <= status < 300:
                break
            message = message.burial_failed() if queue == "dead" else message.failed(reason, sink.url, status)
            if message.attempts >= self._tries and queue != "dead":
                self._bury(queue, message)
                break
            self._ended.wait(self._delay * 2 ** (message.attempts - 1))
        sink.close()

    def _bury(self, queue: str, message: Message) -> None:
        if "dead" in self._sinks:
            self.put("dead", message)
        else:
            self.dead[queue].append(message)

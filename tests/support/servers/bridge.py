"""The bridge as a process, with queues of its own on a RabbitMQ server."""

import itertools
import os
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import pika  # type: ignore[import-untyped]  # pika carries no types

from events.bridge.__main__ import redrive
from events.publish import publisher
from events.rabbitmq.publisher import Publisher
from events.rabbitmq.topology import Topology, dead_letter_queue
from events.schema import Event
from tests.support.paths import ROOT
from tests.support.servers.process import Server

_number = itertools.count()


class Bridge(Server):
    """A bridge and a publisher; a context manager. Every instance names queues of its own in ``environ``."""

    ready = b"Consuming:"

    def __init__(
        self, url: str, urls: Mapping[str, str], *, through: str | None = None, options: str = "", grace: float = 5
    ) -> None:
        """Prepares the bridge; the context manager starts it.

        Args:
            url: the server's.
            urls: a function's URL for each queue by its default name, and for ``dead``.
            through: another URL of the same server (a proxy), for bridge and publisher.
            options: of every route, such as ``;concurrency=1``.
            grace: seconds that running requests have when it is stopped.
        """
        super().__init__()
        self._suffix = f"-{os.getpid()}-{next(_number)}"
        names = ("video", "piece", "pieces", "mp3")
        self.environ = {f"{name.upper()}_QUEUE": name + self._suffix for name in names}
        self.environ["AMQP_URL"] = through or url
        self._url = url
        self._grace = grace
        self._routes = [f"{n if n == 'dead' else self.queue(n)}={target}{options}" for n, target in urls.items()]
        self.publisher = publisher(self.environ, "/mp3burst/test")

    def command(self) -> list[str]:
        """Returns the command that starts it."""
        options = ["--tries", "3", "--delay", "0.1", "--grace", str(self._grace)]
        routes = [f"--route={route}" for route in self._routes]
        return [sys.executable, "-m", "events.bridge", *options, *routes]

    def options(self) -> dict[str, Any]:
        """Returns its variables."""
        return {"env": {**os.environ, **self.environ, "PYTHONPATH": str(ROOT)}}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.kill()
            sys.stderr.write(self.log())
        super().__exit__(kind, error, trace)

    def clean(self) -> None:
        """Closes the publisher and deletes the queues."""
        assert isinstance(self.publisher, Publisher)
        self.publisher.close()
        self.delete_queues()

    def terminate(self) -> None:
        """Sends SIGTERM."""
        assert self._process is not None
        self._process.send_signal(self.stop_signal)

    def wait(self) -> int:
        """Waits for its end and returns the exit status."""
        assert self._process is not None
        code, self._process = self._process.wait(self._grace + 10), None
        return code

    def queue(self, name: str) -> str:
        """Returns the name of the queue with this default name."""
        return name + self._suffix

    def publish(self, event: Event, timeout: float) -> None:
        """Publishes an event, as ``events.publish.Publish``."""
        self.publisher(event, timeout)

    def redrive(self, queue: str) -> int:
        """Moves a queue's dead letters back to it and returns how many there were."""
        return redrive(self._url, self.queue(queue))

    def waiting(self) -> dict[str, int]:
        """Counts the messages in each queue and dead-letter queue that is not empty."""
        counts = {}
        connection = pika.BlockingConnection(pika.URLParameters(self._url))
        try:
            channel = connection.channel()
            for queue in Topology.from_environ(self.environ).queues:
                for name in (queue, dead_letter_queue(queue)):
                    counts[name] = channel.queue_declare(name, passive=True).method.message_count
        finally:
            connection.close()
        return {name: count for name, count in counts.items() if count}

    def delete_queues(self) -> None:
        """Deletes the queues, whether or not they exist."""
        connection = pika.BlockingConnection(pika.URLParameters(self._url))
        try:
            channel = connection.channel()
            for queue in Topology.from_environ(self.environ).queues:
                for name in (queue, dead_letter_queue(queue)):
                    channel.queue_delete(name)
        finally:
            connection.close()

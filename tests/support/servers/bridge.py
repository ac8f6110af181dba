"""The bridge as the process that it is, with queues of its own on a RabbitMQ server."""

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
    """A bridge and a publisher; a context manager. Every instance has queues that no other uses, by ``environ``."""

    ready = b"Consuming:"

    def __init__(
        self, url: str, urls: Mapping[str, str], *, through: str | None = None, options: str = "", grace: float = 5
    ) -> None:
        """Start nothing yet.

        Args:
            url: the server's.
            urls: a function's URL for each queue by its default name, and for ``dead``.
            through: another way to the same server, which bridge and publisher then take.
            options: of every route, such as ``;concurrency=1``.
            grace: seconds that a drain may take.
        """
        super().__init__()
        self._mine = f"-{os.getpid()}-{next(_number)}"
        names = ("video", "piece", "pieces", "mp3")
        self.environ = {f"{name.upper()}_QUEUE": name + self._mine for name in names}
        self.environ["AMQP_URL"] = through or url
        self._url, self._grace = url, grace
        self._routes = [f"{n if n == 'dead' else self.queue(n)}={target}{options}" for n, target in urls.items()]
        self.publisher = publisher(self.environ, "/mp3burst/test")

    def command(self) -> list[str]:
        """What starts it."""
        options = ["--tries", "3", "--delay", "0.1", "--grace", str(self._grace)]
        routes = [f"--route={route}" for route in self._routes]
        return [sys.executable, "-m", "events.bridge", *options, *routes]

    def options(self) -> dict[str, Any]:
        """Its variables."""
        return {"env": {**os.environ, **self.environ, "PYTHONPATH": str(ROOT)}}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.kill()
            sys.stderr.write(self.log())
        super().__exit__(kind, error, trace)

    def clean(self) -> None:
        """Close the publisher and delete the queues."""
        assert isinstance(self.publisher, Publisher)
        self.publisher.close()
        self.clear()

    def terminate(self) -> None:
        """Ask it to end."""
        assert self._process is not None
        self._process.send_signal(self.stop_signal)

    def wait(self) -> int:
        """Wait for its end; the exit code."""
        assert self._process is not None
        code, self._process = self._process.wait(self._grace + 10), None
        return code

    def queue(self, name: str) -> str:
        """The queue's name by its default name."""
        return name + self._mine

    def publish(self, event: Event, timeout: float) -> None:
        """As ``events.publish.Publish``."""
        self.publisher(event, timeout)

    def redrive(self, queue: str) -> int:
        """Send the dead letters of a queue round again; how many there were."""
        return redrive(self._url, self.queue(queue))

    def left(self) -> dict[str, int]:
        """How many messages wait in the queues, dead letters included, where there are any."""
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

    def clear(self) -> None:
        """Delete the queues, also those that were never made."""
        connection = pika.BlockingConnection(pika.URLParameters(self._url))
        try:
            channel = connection.channel()
            for queue in Topology.from_environ(self.environ).queues:
                for name in (queue, dead_letter_queue(queue)):
                    channel.queue_delete(name)
        finally:
            connection.close()

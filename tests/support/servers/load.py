"""What tests of brokers share: events without end, and waiting for what nothing announces."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pika  # type: ignore[import-untyped]  # pika carries no types

from events.errors import NotPublished
from events.publish import Publish
from events.schema import JobId, VideoUploaded
from tests.support.processes import wait_for
from tests.support.servers.rabbitmq import RabbitMQ

_number = itertools.count()


def job() -> JobId:
    """A job id that no other test has."""
    return JobId(f"{next(_number):032x}")


class Load:
    """Publishes one event after the other from a thread, each until it is taken, as sweep would."""

    def __init__(self, publish: Publish) -> None:
        self.confirmed: list[str] = []
        self._publish, self._ended = publish, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.005):
            event = VideoUploaded(job())
            while True:
                try:
                    self._publish(event, 1)
                except NotPublished:
                    continue
                break
            self.confirmed.append(event.id)

    def wait(self, more: int) -> None:
        """Wait until so many more events are taken."""
        goal = len(self.confirmed) + more
        wait_for(lambda: len(self.confirmed) >= goal, seconds=60)


@contextmanager
def stranger(server: RabbitMQ) -> Iterator[Any]:
    """A bare channel, for what only a stranger would do."""
    connection = pika.BlockingConnection(pika.URLParameters(server.url))
    try:
        yield connection.channel()
    finally:
        connection.close()

"""Load for tests of brokers: unique job ids, a thread that publishes continuously, a raw AMQP channel."""

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
    """Returns a job id that no other test uses."""
    return JobId(f"{next(_number):032x}")


class Load:
    """Publishes one event after the other on a thread, repeating each until it is confirmed, as sweep would."""

    def __init__(self, publish: Publish) -> None:
        self.confirmed: list[str] = []
        self._publish = publish
        self._ended = threading.Event()
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
        """Waits until so many more events are confirmed."""
        goal = len(self.confirmed) + more
        wait_for(lambda: len(self.confirmed) >= goal, seconds=60)


@contextmanager
def raw_channel(server: RabbitMQ) -> Iterator[Any]:
    """Opens a plain pika channel, for messages that our own code would not send."""
    connection = pika.BlockingConnection(pika.URLParameters(server.url))
    try:
        yield connection.channel()
    finally:
        connection.close()

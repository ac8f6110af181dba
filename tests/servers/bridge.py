"""The bridge as the process that it is, with queues of its own on a RabbitMQ server."""

import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pika  # type: ignore[import-untyped]  # pika carries no types

from events.amqp import dead, topology
from events.bridge import redrive
from events.publish import publisher
from events.rabbitmq import Publisher
from events.schema import Event

_ROOT = Path(__file__).parent.parent.parent
_number = itertools.count()
_START = 30.0  # seconds


class Bridge:
    """A bridge and a publisher; a context manager. Every instance has queues that no other uses, by ``environ``."""

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
        self._mine = f"-{os.getpid()}-{next(_number)}"
        names = ("video", "piece", "pieces", "mp3")
        self.environ = {f"{name.upper()}_QUEUE": name + self._mine for name in names}
        self.environ["AMQP_URL"] = through or url
        self._url, self._grace = url, grace
        self._routes = [f"{n if n == 'dead' else self.queue(n)}={target}{options}" for n, target in urls.items()]
        self.publisher = publisher(self.environ, "/mp3burst/test")
        self._log = tempfile.NamedTemporaryFile(prefix="bridge-", suffix=".log")  # noqa: SIM115 - closed by __exit__
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        assert isinstance(self.publisher, Publisher)
        self.publisher.close()
        if error is not None:
            sys.stderr.write(self.log())
        self._log.close()
        self.clear()

    def start(self) -> None:
        """Start, and wait until it consumes."""
        before = self.log().count("Consuming:")
        options = ["--tries", "3", "--delay", "0.1", "--grace", str(self._grace)]
        options += [f"--route={route}" for route in self._routes]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "events.bridge", *options],
            env={**os.environ, **self.environ, "PYTHONPATH": str(_ROOT)},
            stdout=self._log,
            stderr=self._log,
        )
        deadline = time.monotonic() + _START
        while self.log().count("Consuming:") == before:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the bridge did not start:\n{self.log()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill it where it stands."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def terminate(self) -> None:
        """Ask it to end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Wait for its end; the exit code."""
        assert self._process is not None
        code, self._process = self._process.wait(self._grace + 10), None
        return code

    def log(self) -> str:
        """What it has written."""
        return Path(self._log.name).read_text()

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
            for queue in topology(self.environ).queues:
                for name in (queue, dead(queue)):
                    counts[name] = channel.queue_declare(name, passive=True).method.message_count
        finally:
            connection.close()
        return {name: count for name, count in counts.items() if count}

    def clear(self) -> None:
        """Delete the queues, also those that were never made."""
        connection = pika.BlockingConnection(pika.URLParameters(self._url))
        try:
            channel = connection.channel()
            for queue in topology(self.environ).queues:
                for name in (queue, dead(queue)):
                    channel.queue_delete(name)
        finally:
            connection.close()

"""A connection to RabbitMQ, by pika, that comes back whenever it is lost.

A pika connection belongs to one thread, and pika's blocking connection waits for a hanging server as long as that takes
and serves no heartbeats while its thread is elsewhere. So each connection has a thread of its own that does nothing but
serve it; whoever has a message hands it over and waits for the server's confirmation only as long as he wants to.
"""

import logging
import random
import threading
from collections.abc import Callable
from typing import Any

import pika  # type: ignore[import-untyped]  # pika carries no types
import pika.exceptions  # type: ignore[import-untyped]  # pika carries no types
from pika.adapters.select_connection import IOLoop  # type: ignore[import-untyped]  # pika carries no types

from events.errors import Mp3burstError
from events.rabbitmq.declaring import Declaring
from events.rabbitmq.topology import Declarations, Message

_log = logging.getLogger(__name__)

_HEARTBEAT = 10  # seconds; pika gives a silent server up 5 s after it
_SETUP = 5.0  # seconds for connecting and shaking hands
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 1.0  # seconds before connecting again; half of it is chance
_CLOSING = 1.0  # seconds for saying goodbye

#: Told once how it ended: None, or what went wrong.
Done = Callable[[Exception | None], None]


class Lost(Exception):
    """The connection is not there, or went away, or the queue is full: the message may arrive when sent again."""


class Refused(Exception):
    """There is no queue for the message."""


class BadServer(Mp3burstError):
    """What names the RabbitMQ server is no URL of one."""


def parameters(url: str) -> Any:
    """What pika connects with.

    Raises:
        BadServer: the URL means no server.
    """
    try:
        return pika.URLParameters(url)
    except (ValueError, IndexError, TypeError):
        # Without the cause, which may quote the password.
        raise BadServer("AMQP_URL is no URL of RabbitMQ: write amqp://USER:PASSWORD@HOST:5672/%2F.") from None


def properties(message: Message) -> Any:
    """The properties that go with the message's body."""
    return pika.BasicProperties(
        content_type=message.content_type, message_id=message.message_id, headers=dict(message.headers), delivery_mode=2
    )


def received(body: bytes, read: Any) -> Message:
    """The message of a delivery: its body and the properties that pika read."""
    # pika reads a name that is not UTF-8 as bytes, and cannot write that again.
    headers = {
        name.decode("ascii", "ignore") if isinstance(name, bytes) else name: value
        for name, value in (read.headers or {}).items()
    }
    return Message(body, headers, read.message_id, read.content_type)


class Link:
    """One connection with one channel in confirm mode, on a thread of its own; everything is declared anew each time.

    All but ``start``, ``call``, ``close`` and ``join`` is for the link's own thread: inside ``call`` and the callbacks.
    """

    def __init__(
        self, url: str, declarations: Declarations, on_ready: Callable[[Any], None], on_lost: Callable[[str], None]
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: ``amqp://`` or ``amqps://``; ``?heartbeat=`` in it overrides 10 s.
            declarations: what must be there before ``on_ready``.
            on_ready: gets pika's channel.
            on_lost: the channel is gone or did not come, and why; the link connects again by itself.
        """
        # pika logs every step of a failing connection with its trace; the link says it in one line.
        logging.getLogger("pika").setLevel(logging.CRITICAL)
        self._parameters = parameters(url)
        if self._parameters.heartbeat is None:
            self._parameters.heartbeat = _HEARTBEAT
        self._parameters.connection_attempts = 1
        self._parameters.socket_timeout = self._parameters.stack_timeout = _SETUP
        self._declarations = list(declarations)
        self._on_ready, self._on_lost = on_ready, on_lost
        self._loop = IOLoop()
        self._thread = threading.Thread(target=self._run, name="rabbitmq", daemon=True)
        self._connection: Any = None
        self._channel: Any = None  # once everything is declared
        self._unconfirmed: dict[int, tuple[str, str | None, Done]] = {}
        self._tag = 0
        self._wait = _FIRST_WAIT
        self._closing = False

    def start(self) -> None:
        """Start the thread, which connects."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def ready(self) -> bool:
        """Whether a message can be sent."""
        return self._channel is not None and self._channel.is_open

    def call(self, function: Callable[[], None]) -> None:
        """Have the link's thread call the function; from any thread."""
        self._loop.add_callback_threadsafe(lambda: self._guard(function))

    def call_later(self, delay: float, function: Callable[[], None]) -> None:
        """Call the function after so many seconds."""
        self._loop.call_later(delay, lambda: self._guard(function))

    def send(self, exchange: str, key: str, message: Message, done: Done) -> None:
        """Publish, mandatory and persistent; ``done`` hears of the server's confirmation, Lost or Refused."""
        if not self.ready:
            done(Lost("not connected"))
            return
        self._tag += 1
        self._unconfirmed[self._tag] = (key, message.message_id, done)
        self._channel.basic_publish(exchange, key, message.body, properties(message), mandatory=True)

    def reset(self, why: str) -> None:
        """Give the connection up and make another."""
        connection, self._connection = self._connection, None
        self._forget(why)
        if connection is not None and not (connection.is_closing or connection.is_closed):
            connection.close()
        if not self._closing:
            delay = self._wait * random.uniform(0.5, 1)  # noqa: S311 - spreads load, hides nothing
            self._wait = min(self._wait * 2, _LONGEST_WAIT)
            self.call_later(delay, self._connect)

    def close(self) -> None:
        """Say goodbye and end the thread, within a second or so; from any thread but the link's."""
        self.call(self._goodbye)
        self.join(2 * _CLOSING)

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread's end."""
        self._thread.join(timeout)

    def _run(self) -> None:
        self.call(self._connect)
        try:
            self._loop.start()
        except Exception:
            # A fault in pika or here. Who uses the link sees that it is not alive and makes another.
            _log.exception("The thread of the RabbitMQ connection ended.")
            self._forget("its thread ended")
        finally:
            self._loop.close()

    def _guard(self, function: Callable[[], None]) -> None:
        try:
            function()
        except pika.exceptions.AMQPError as error:
            self.reset(repr(error))

    def _connect(self) -> None:
        if self._closing:
            return
        self._connection = pika.SelectConnection(
            self._parameters,
            on_open_callback=lambda connection: self._open_channel(connection, Declaring(self._declarations)),
            on_open_error_callback=self._closed,
            on_close_callback=self._closed,
            custom_ioloop=self._loop,
        )

    def _closed(self, connection: Any, error: BaseException) -> None:
        if connection is self._connection:
            self.reset(repr(error))
        if self._closing:
            self._loop.stop()

    def _open_channel(self, connection: Any, declaring: Declaring) -> None:
        def opened(channel: Any) -> None:
            channel.add_on_close_callback(closed)
            channel.add_on_cancel_callback(lambda _: self.reset("the server cancelled a consumer"))
            declaring.go_on(channel, lambda: self._guard(lambda: self._ready(channel)))

        def closed(_: Any, error: Any) -> None:
            if connection is not self._connection or connection.is_closing or connection.is_closed:
                return  # the connection's own callback tells
            if self._channel is None and declaring.gives_way(getattr(error, "reply_code", 0)):
                self._open_channel(connection, declaring)
            else:
                self.reset(repr(error))

        connection.channel(on_open_callback=opened)

    def _ready(self, channel: Any) -> None:
        channel.add_on_return_callback(self._returned)
        channel.confirm_delivery(self._confirmed)
        self._channel, self._tag, self._wait = channel, 0, _FIRST_WAIT
        self._on_ready(channel)

    def _returned(self, _: Any, method: Any, read: Any, __: bytes) -> None:
        # A return does not say which message it is of. Two with one id for one queue are the same event: both failed.
        for tag, (key, message_id, done) in list(self._unconfirmed.items()):
            if (key, message_id) == (method.routing_key, read.message_id):
                del self._unconfirmed[tag]
                done(Refused(f"{method.reply_text}: {method.exchange!r} {key!r}"))

    def _confirmed(self, frame: Any) -> None:
        method = frame.method
        error = None if isinstance(method, pika.spec.Basic.Ack) else Lost("the queue did not take it")
        tag = method.delivery_tag
        tags = [t for t in self._unconfirmed if t <= tag] if method.multiple else [tag]
        for one in tags:
            if sent := self._unconfirmed.pop(one, None):
                sent[2](error)

    def _forget(self, why: str) -> None:
        self._channel = None
        unconfirmed, self._unconfirmed = self._unconfirmed, {}
        for _, __, done in unconfirmed.values():
            done(Lost(why))
        self._on_lost(why)

    def _goodbye(self) -> None:
        self._closing = True
        connection = self._connection
        self._loop.call_later(_CLOSING, self._loop.stop)  # a hanging server says no goodbye
        if connection is None or connection.is_closing or connection.is_closed:
            self._loop.stop()
        else:
            connection.close()

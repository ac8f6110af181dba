"""A connection to RabbitMQ, using pika, that reconnects by itself.

A pika connection may be used by one thread only. pika's blocking connection waits without limit for a hanging server
and serves no heartbeats while its thread is busy elsewhere. So each connection has a thread of its own that does
nothing but serve it; other threads hand it their messages and wait for the server's confirmation as long as they like.
"""

import logging
import random
import threading
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

import pika  # type: ignore[import-untyped]  # pika carries no types
import pika.exceptions  # type: ignore[import-untyped]  # pika carries no types
from pika.adapters.select_connection import IOLoop  # type: ignore[import-untyped]  # pika carries no types

from events.errors import Mp3burstError
from events.rabbitmq.message import Message
from events.rabbitmq.topology import Declarations, Exchange, Queue

_log = logging.getLogger(__name__)

_HEARTBEAT = 10  # seconds; pika gives up on a silent server 5 s after it
_CONNECT_TIMEOUT = 5.0  # seconds for connecting and for the handshake
_CLOSE_TIMEOUT = 1.0  # seconds for closing in an orderly way
# Seconds before connecting again; doubled each time, and up to half of it is random.
_MIN_BACKOFF = 0.05
_MAX_BACKOFF = 1.0
# Reply codes of AMQP 0-9-1.
_NOT_FOUND = 404
_PRECONDITION_FAILED = 406
_NOT_IMPLEMENTED = 540

#: Called once with the outcome of a message: None, or what went wrong.
OnOutcome = Callable[[Exception | None], None]


class Unconfirmed(Exception):
    """Not connected, disconnected before the confirmation, or rejected by a full queue; sending again may succeed."""


class Unroutable(Exception):
    """There is no queue for the message."""


class BadAmqpUrl(Mp3burstError):
    """AMQP_URL is not the URL of a RabbitMQ server."""


def parameters(url: str) -> Any:
    """Returns pika's connection parameters for a URL.

    Raises:
        BadAmqpUrl: the URL is not one of a RabbitMQ server.
    """
    try:
        return pika.URLParameters(url)
    except (ValueError, IndexError, TypeError):
        # Without the cause, which may quote the password.
        raise BadAmqpUrl("AMQP_URL is not a RabbitMQ URL: write amqp://USER:PASSWORD@HOST:5672/%2F.") from None


def to_properties(message: Message) -> Any:
    """Returns pika's properties for a message; they make it persistent."""
    return pika.BasicProperties(
        content_type=message.content_type, message_id=message.message_id, headers=dict(message.headers), delivery_mode=2
    )


def from_delivery(body: bytes, properties: Any) -> Message:
    """Converts a delivery, its body and pika's properties, to a message."""
    # pika returns a name that is not UTF-8 as bytes, and cannot write it back.
    headers = {
        name.decode("ascii", "ignore") if isinstance(name, bytes) else name: value
        for name, value in (properties.headers or {}).items()
    }
    return Message(body, headers, properties.message_id, properties.content_type)


class Connection:
    """One connection with one channel in confirm mode, on its own thread. Redeclares everything when it reconnects.

    ``start``, ``call``, ``close`` and ``join`` are for other threads. Everything else belongs to the connection's own
    thread: use it only inside ``call`` and the callbacks.
    """

    def __init__(
        self, url: str, declarations: Declarations, on_ready: Callable[[Any], None], on_lost: Callable[[str], None]
    ) -> None:
        """Prepares the connection; ``start`` connects.

        Args:
            url: ``amqp://`` or ``amqps://``; ``?heartbeat=`` in it overrides 10 s.
            declarations: the exchanges and queues that must exist before ``on_ready``.
            on_ready: called with pika's channel whenever everything is declared.
            on_lost: called with the reason when the channel is lost or could not be opened; it reconnects by itself.

        Raises:
            BadAmqpUrl: the URL is not one of a RabbitMQ server.
        """
        # pika logs every step of a failing connection with a traceback; this class reports it in one line.
        logging.getLogger("pika").setLevel(logging.CRITICAL)
        self._parameters = parameters(url)
        if self._parameters.heartbeat is None:
            self._parameters.heartbeat = _HEARTBEAT
        self._parameters.connection_attempts = 1
        self._parameters.socket_timeout = _CONNECT_TIMEOUT
        self._parameters.stack_timeout = _CONNECT_TIMEOUT
        self._declarations = list(declarations)
        self._on_ready = on_ready
        self._on_lost = on_lost
        self._loop = IOLoop()
        self._thread = threading.Thread(target=self._run, name="rabbitmq", daemon=True)
        self._pika: Any = None  # pika's connection
        self._channel: Any = None  # set once everything is declared
        self._unconfirmed: dict[int, tuple[str, str | None, OnOutcome]] = {}
        self._tag = 0
        self._backoff = _MIN_BACKOFF
        self._closing = False

    def start(self) -> None:
        """Starts the thread, which connects."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    @property
    def ready(self) -> bool:
        """Whether a message can be sent now."""
        return self._channel is not None and self._channel.is_open

    def call(self, function: Callable[[], None]) -> None:
        """Runs the function on the connection's thread. May be called from any thread."""
        self._loop.add_callback_threadsafe(lambda: self._guard(function))

    def call_later(self, delay: float, function: Callable[[], None]) -> None:
        """Runs the function after so many seconds."""
        self._loop.call_later(delay, lambda: self._guard(function))

    def send(self, exchange: str, key: str, message: Message, on_outcome: OnOutcome) -> None:
        """Publishes a mandatory, persistent message.

        Args:
            exchange: its name; ``""`` is the default exchange.
            key: the routing key.
            message: what to publish.
            on_outcome: called with None on the server's confirmation, else with ``Unconfirmed`` or ``Unroutable``.
        """
        if not self.ready:
            on_outcome(Unconfirmed("not connected"))
            return
        self._tag += 1
        self._unconfirmed[self._tag] = (key, message.message_id, on_outcome)
        self._channel.basic_publish(exchange, key, message.body, to_properties(message), mandatory=True)

    def reset(self, reason: str) -> None:
        """Drops the connection and opens another."""
        dropped, self._pika = self._pika, None
        self._fail_unconfirmed(reason)
        if dropped is not None and not (dropped.is_closing or dropped.is_closed):
            dropped.close()
        if not self._closing:
            delay = self._backoff * random.uniform(0.5, 1)  # noqa: S311 - spreads load, hides nothing
            self._backoff = min(self._backoff * 2, _MAX_BACKOFF)
            self.call_later(delay, self._connect)

    def close(self) -> None:
        """Closes the connection and ends the thread within about a second. Not for the connection's own thread."""
        self.call(self._close)
        self.join(2 * _CLOSE_TIMEOUT)

    def join(self, timeout: float | None = None) -> None:
        """Waits until the thread has ended."""
        self._thread.join(timeout)

    def _run(self) -> None:
        self.call(self._connect)
        try:
            self._loop.start()
        except Exception:
            # A bug in pika or here. The owner notices that the connection is not alive and makes another.
            _log.exception("The RabbitMQ connection's thread crashed.")
            self._fail_unconfirmed("its thread crashed")
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
        self._pika = pika.SelectConnection(
            self._parameters,
            on_open_callback=lambda connection: self._open_channel(connection, _Declarer(self._declarations)),
            on_open_error_callback=self._on_closed,
            on_close_callback=self._on_closed,
            custom_ioloop=self._loop,
        )

    def _on_closed(self, connection: Any, error: BaseException) -> None:
        if connection is self._pika:
            self.reset(repr(error))
        if self._closing:
            self._loop.stop()

    def _open_channel(self, connection: Any, declarer: "_Declarer") -> None:
        def opened(channel: Any) -> None:
            channel.add_on_close_callback(closed)
            channel.add_on_cancel_callback(lambda _: self.reset("the server canceled a consumer"))
            declarer.resume(channel, lambda: self._guard(lambda: self._on_declared(channel)))

        def closed(_: Any, error: Any) -> None:
            if connection is not self._pika or connection.is_closing or connection.is_closed:
                return  # the connection's own callback reports it
            if self._channel is None and declarer.falls_back(getattr(error, "reply_code", 0)):
                self._open_channel(connection, declarer)
            else:
                self.reset(repr(error))

        connection.channel(on_open_callback=opened)

    def _on_declared(self, channel: Any) -> None:
        channel.add_on_return_callback(self._on_returned)
        channel.confirm_delivery(self._on_confirmed)
        self._channel = channel
        self._tag = 0
        self._backoff = _MIN_BACKOFF
        self._on_ready(channel)

    def _on_returned(self, _: Any, method: Any, properties: Any, __: bytes) -> None:
        # A return does not identify its message. Two with the same id for the same queue are the same event, so both
        # have failed.
        for tag, (key, message_id, on_outcome) in list(self._unconfirmed.items()):
            if (key, message_id) == (method.routing_key, properties.message_id):
                del self._unconfirmed[tag]
                on_outcome(Unroutable(f"{method.reply_text}: {method.exchange!r} {key!r}"))

    def _on_confirmed(self, frame: Any) -> None:
        method = frame.method
        error = None if isinstance(method, pika.spec.Basic.Ack) else Unconfirmed("the queue rejected the message")
        last = method.delivery_tag
        tags = [tag for tag in self._unconfirmed if tag <= last] if method.multiple else [last]
        for tag in tags:
            if sent := self._unconfirmed.pop(tag, None):
                _, _, on_outcome = sent
                on_outcome(error)

    def _fail_unconfirmed(self, reason: str) -> None:
        self._channel = None
        unconfirmed, self._unconfirmed = self._unconfirmed, {}
        for _, _, on_outcome in unconfirmed.values():
            on_outcome(Unconfirmed(reason))
        self._on_lost(reason)

    def _close(self) -> None:
        self._closing = True
        self._loop.call_later(_CLOSE_TIMEOUT, self._loop.stop)  # a hanging server never confirms the close
        if self._pika is None or self._pika.is_closing or self._pika.is_closed:
            self._loop.stop()
        else:
            self._pika.close()


class _Mode(Enum):
    """How to declare the current item."""

    AS_SPECIFIED = auto()
    AS_IT_EXISTS = auto()
    CLASSIC = auto()


class _Declarer:
    """Declares exchanges and queues one after the other.

    The server closes the channel on every error. The declarer then resumes on a new channel, where it accepts what
    exists or falls back to what an old server supports.
    """

    def __init__(self, declarations: Declarations) -> None:
        self._remaining = list(declarations)
        self._mode = _Mode.AS_SPECIFIED

    def resume(self, channel: Any, on_done: Callable[[], None]) -> None:
        """Declares what remains, then calls ``on_done``."""
        if not self._remaining:
            on_done()
            return
        item = self._remaining[0]
        passive = self._mode is _Mode.AS_IT_EXISTS

        def declared(_: Any) -> None:
            self._remaining.pop(0)
            self._mode = _Mode.AS_SPECIFIED
            self.resume(channel, on_done)

        if isinstance(item, Exchange):
            channel.exchange_declare(item.name, item.kind, durable=True, passive=passive, callback=declared)
            return

        def bind(_: Any, queue: Queue = item) -> None:
            channel.queue_bind(queue.name, queue.exchange, queue.key, callback=declared)

        arguments = item.classic_arguments() if self._mode is _Mode.CLASSIC else dict(item.arguments)
        on_queue = bind if item.exchange else declared
        channel.queue_declare(item.name, durable=True, arguments=arguments, passive=passive, callback=on_queue)

    def falls_back(self, reply_code: int) -> bool:
        """Chooses another mode after the server closed the channel with this code; returns whether there is one."""
        if self._mode is _Mode.AS_SPECIFIED and reply_code in (_PRECONDITION_FAILED, _NOT_IMPLEMENTED):
            self._mode = _Mode.AS_IT_EXISTS  # it may exist already with other arguments: use it
        elif self._mode is _Mode.AS_IT_EXISTS and reply_code == _NOT_FOUND:
            self._mode = _Mode.CLASSIC  # it does not exist, so the server does not support the arguments
        else:
            return False
        return True

"""Events as AMQP 0-9-1 messages, and the queues they go through. Nothing here talks to a server.

The mapping is the binary mode of Knative's "RabbitMQ Protocol Binding for CloudEvents": attributes are headers with the
prefix ``ce-``, the data is the body, its media type the property ``content_type``. As eventing-rabbitmq does it, the id
is the ``message_id`` too, the media type stands among the headers as well, and on the way in the prefix may be missing.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from events.errors import Mp3burstError
from events.schema import (
    BadEvent,
    ConversionFailed,
    Event,
    Mp3Ready,
    PieceCut,
    PiecesEncoded,
    VideoUploaded,
    parse,
)

#: Where dead letters go, under the name of the queue that they come from.
DEAD_EXCHANGE = "mp3burst.dead"
#: Dead letters that are no event of ours, once somebody eats the dead letters.
FOREIGN = "mp3burst.foreign"

REASON, ATTEMPTS = "x-mp3burst-reason", "x-mp3burst-attempts"
#: The extension attributes that Knative gives a dead letter: the URL that refused it, and its status.
ERROR_URL, ERROR_STATUS = "ce-knativeerrordest", "ce-knativeerrorcode"

# A message's properties have to fit into one frame, of 128 KB at RabbitMQ: a copy that does not can never be put aside.
_LONGEST_REASON, _MOST_HEADERS = 500, 16_000  # characters
_MOST_ATTEMPTS = 1_000_000

_FAILURE = (REASON, ATTEMPTS, ERROR_URL, ERROR_STATUS)
_QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}
_REQUIRED = ("specversion", "id", "type", "source")
_ATTRIBUTE = re.compile(r"[a-z0-9]+")
# The variable that names a queue, its default, and the events that the queue's function eats.
_QUEUES: tuple[tuple[str, str, tuple[type[Event], ...]], ...] = (
    ("VIDEO_QUEUE", "video", (VideoUploaded,)),
    ("PIECE_QUEUE", "piece", (PieceCut,)),
    ("PIECES_QUEUE", "pieces", (PiecesEncoded,)),
    ("MP3_QUEUE", "mp3", (Mp3Ready, ConversionFailed)),
)


class BadQueues(Mp3burstError):
    """The environment gives two functions the same queue."""


@dataclass(frozen=True, slots=True)
class Message:
    """An AMQP message, as far as events need one; it is always persistent."""

    body: bytes
    headers: Mapping[str, Any]
    message_id: str | None = None
    content_type: str | None = None

    @property
    def attempts(self) -> int:
        """How often a function has failed on it."""
        count = self.headers.get(ATTEMPTS, 0)
        return min(count, _MOST_ATTEMPTS) if isinstance(count, int) and count > 0 else 0

    def failed(self, reason: str, url: str | None = None, status: int | None = None) -> "Message":
        """The message after a failure: one attempt more, and why, for the next who reads it."""
        headers = {**self._told(), ATTEMPTS: self.attempts + 1, REASON: reason[:_LONGEST_REASON]}
        if url is not None:
            headers[ERROR_URL] = url
        if status is not None:
            headers[ERROR_STATUS] = str(status)
        return replace(self, headers=headers)

    def unburied(self) -> "Message":
        """A dead letter after a failure to bury it: one attempt more; it is buried for what it died of."""
        return replace(self, headers={**self._told(), ATTEMPTS: self.attempts + 1})

    def afresh(self) -> "Message":
        """The message as it was before it failed, or was anybody's dead letter."""
        return replace(self, headers={k: v for k, v in self._told().items() if k not in _FAILURE})

    def _told(self) -> dict[str, Any]:
        # Without what a server wrote down on the way (x-death, x-delivery-count): the copy has a life of its own.
        told, room = {}, _MOST_HEADERS
        for name, value in self.headers.items():
            size = len(name) + len(str(value))
            if (name in _FAILURE or not name.startswith("x-")) and size <= room:
                told[name] = value
                room -= size
        return told


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange: its name and its kind."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue, and the exchange and key it is bound to where that is not the default exchange."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    exchange: str = ""
    key: str = ""


Declarations = Sequence[Exchange | Queue]


@dataclass(frozen=True, slots=True)
class Topology:
    """Which queue each type of event goes to."""

    queue_of: Mapping[str, str]

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues of the event functions."""
        return tuple(dict.fromkeys(self.queue_of.values()))

    def declarations(self, delays: Sequence[int] = ()) -> list[Exchange | Queue]:
        """Everything that must be there, in an order in which it can be declared.

        Args:
            delays: milliseconds; for each there is an exchange (``waiting_room``) that hands a message back to
                the queue named by its routing key after that time.
        """
        found: list[Exchange | Queue] = [Exchange(DEAD_EXCHANGE, "direct")]
        for name in self.queues:
            found.append(Queue(dead(name), _QUORUM, DEAD_EXCHANGE, name))
            # Where a server has a delivery limit of its own (RabbitMQ 4), what passes it is a dead letter too.
            found.append(Queue(name, _QUORUM | {"x-dead-letter-exchange": DEAD_EXCHANGE}))
        found.append(Queue(FOREIGN, _QUORUM, DEAD_EXCHANGE, FOREIGN))
        for delay in delays:
            room = waiting_room(delay)
            found.append(Exchange(room, "fanout"))
            # Back by the default exchange, with the message's own key. Only the head of a queue expires, hence a queue
            # for each delay. The strategy has the server confirm the way back to itself; it needs the overflow setting.
            expiry = {"x-message-ttl": delay, "x-dead-letter-exchange": ""}
            safe = {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
            found.append(Queue(room, _QUORUM | expiry | safe, room))
        return found


def dead(queue: str) -> str:
    """The queue for dead letters of a queue."""
    return f"{queue}.dead"


def waiting_room(delay: int) -> str:
    """The exchange whose messages come back after so many milliseconds."""
    return f"mp3burst.wait.{delay}"


def plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments for a server that has no quorum queues."""
    only_quorum = ("x-queue-type", "x-dead-letter-strategy", "x-overflow")
    return {name: value for name, value in arguments.items() if name not in only_quorum}


def topology(environ: Mapping[str, str]) -> Topology:
    """The queues that the environment names: ``VIDEO_QUEUE``, ``PIECE_QUEUE``, ``PIECES_QUEUE``, ``MP3_QUEUE``.

    Raises:
        BadQueues: two of them have the same name.
    """
    owner: dict[str, str] = {}
    queue_of = {}
    for variable, default, events in _QUEUES:
        name = environ.get(variable) or default
        if name in owner:
            raise BadQueues(f"{owner[name]} and {variable} both name {name!r}: give each function a queue of its own.")
        owner[name] = variable
        queue_of.update({event.type: name for event in events})
    return Topology(queue_of)


def attributes(event: Event, source: str) -> dict[str, str]:
    """The event's CloudEvents attributes, prefixed, and its media type: the headers of HTTP and AMQP alike."""
    return {
        "ce-specversion": "1.0",
        "ce-id": event.id,
        "ce-type": event.type,
        "ce-source": source,
        "ce-subject": event.job,
        "content-type": "application/json",
    }


def to_message(event: Event, source: str) -> Message:
    """The event as a message; ``source`` is the CloudEvents source, ``/mp3burst/FUNCTION``."""
    return Message(event.data(), attributes(event, source), event.id, "application/json")


def from_message(message: Message) -> tuple[Event, dict[str, str]]:
    """The event that a message carries, and the headers to POST it with (CloudEvents HTTP binding, binary mode).

    Raises:
        BadEvent: it carries none of ours; the sentence says what is wrong.
    """
    found = {}
    for header, value in message.headers.items():
        name = header.lower().removeprefix("ce-")
        if _ATTRIBUTE.fullmatch(name):
            found[name] = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    if missing := [name for name in _REQUIRED if not found.get(name)]:
        raise BadEvent(f"The message is no CloudEvent: it has no {', no '.join(missing)}.")
    if found["specversion"] != "1.0":
        raise BadEvent(f"The message has CloudEvents version {found['specversion']!r}; only 1.0 is known.")
    event = parse(found["type"], message.body)
    # Printable ASCII but for space, quote and per cent, as section 3.1.3.2 of the HTTP binding has it.
    headers = {f"ce-{name}": quote(value, safe="!#$&'()*+,/:;<=>?@[\\]^`{|}") for name, value in found.items()}
    return event, headers | {"content-type": "application/json"}

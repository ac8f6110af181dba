"""The exchanges and queues that events pass through, described as data. Nothing here contacts a server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from events.errors import Mp3burstError
from events.schema import (
    AddressUnconfirmed,
    ConversionFailed,
    DeliveryDue,
    Event,
    FetchDue,
    Mp3Ready,
    PasswordForgotten,
    PieceCut,
    PiecesEncoded,
    VideoUploaded,
)

#: The exchange for dead letters. The routing key is the name of the queue they come from.
DEAD_LETTER_EXCHANGE = "mp3burst.dead"
#: The queue for dead letters that are not events of ours, used when a function consumes the dead letters.
FOREIGN_QUEUE = "mp3burst.foreign"

_QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}
# The variable that names a queue, its default, and the events that the queue's function handles.
_QUEUES: tuple[tuple[str, str, tuple[type[Event], ...]], ...] = (
    ("VIDEO_QUEUE", "video", (VideoUploaded,)),
    ("PIECE_QUEUE", "piece", (PieceCut,)),
    ("PIECES_QUEUE", "pieces", (PiecesEncoded,)),
    ("MP3_QUEUE", "mp3", (Mp3Ready, ConversionFailed, AddressUnconfirmed, PasswordForgotten)),
    ("HOOK_QUEUE", "hook", (DeliveryDue,)),
    ("FETCH_QUEUE", "fetch", (FetchDue,)),
)


class BadQueues(Mp3burstError):
    """The environment gives two functions the same queue."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange: its name and its type."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue, with the exchange and key it is bound to if that is not the default exchange."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    exchange: str = ""
    key: str = ""

    def classic_arguments(self) -> dict[str, Any]:
        """Returns the arguments for a server that has no quorum queues."""
        quorum_only = ("x-queue-type", "x-dead-letter-strategy", "x-overflow")
        return {name: value for name, value in self.arguments.items() if name not in quorum_only}


Declarations = Sequence[Exchange | Queue]


@dataclass(frozen=True, slots=True)
class Topology:
    """Maps each event type to its queue, and each variable that names a queue to its name."""

    queue_of: Mapping[str, str]
    named_by: Mapping[str, str]

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Topology":
        """Reads ``VIDEO_QUEUE``, ``PIECE_QUEUE``, ``PIECES_QUEUE``, ``MP3_QUEUE``, ``HOOK_QUEUE`` and ``FETCH_QUEUE``.

        Raises:
            BadQueues: two of them have the same name.
        """
        variable_of: dict[str, str] = {}
        queue_of = {}
        for variable, default, events in _QUEUES:
            name = environ.get(variable) or default
            if name in variable_of:
                raise BadQueues(
                    f"{variable_of[name]} and {variable} both name the queue {name!r}: "
                    "give each function a queue of its own."
                )
            variable_of[name] = variable
            queue_of.update({event.type: name for event in events})
        return cls(queue_of, {variable: name for name, variable in variable_of.items()})

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues of the event functions."""
        return tuple(dict.fromkeys(self.queue_of.values()))

    def declarations(self, delays: Sequence[int] = ()) -> list[Exchange | Queue]:
        """Returns every exchange and queue that must exist, in an order in which they can be declared.

        Args:
            delays: milliseconds; each adds an exchange (``delay_exchange``) that returns a message after that time
                to the queue named by its routing key.
        """
        declared: list[Exchange | Queue] = [Exchange(DEAD_LETTER_EXCHANGE, "direct")]
        for name in self.queues:
            declared.append(Queue(dead_letter_queue(name), _QUORUM, DEAD_LETTER_EXCHANGE, name))
            # A message that exceeds a server's own delivery limit (RabbitMQ 4) is dead-lettered too.
            declared.append(Queue(name, _QUORUM | {"x-dead-letter-exchange": DEAD_LETTER_EXCHANGE}))
        declared.append(Queue(FOREIGN_QUEUE, _QUORUM, DEAD_LETTER_EXCHANGE, FOREIGN_QUEUE))
        for delay in delays:
            name = delay_exchange(delay)
            declared.append(Exchange(name, "fanout"))
            # Messages return through the default exchange, with their own routing key. Only the head of a queue
            # expires, so each delay needs its own queue. With the at-least-once strategy the server confirms its own
            # republishing; that strategy requires the overflow setting.
            expiry = {"x-message-ttl": delay, "x-dead-letter-exchange": ""}
            safe = {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
            declared.append(Queue(name, _QUORUM | expiry | safe, name))
        return declared


def dead_letter_queue(queue: str) -> str:
    """Returns the name of the queue that collects another queue's dead letters."""
    return f"{queue}.dead"


def delay_exchange(delay: int) -> str:
    """Returns the name of the exchange whose messages return after so many milliseconds."""
    return f"mp3burst.wait.{delay}"

"""Converts events to AMQP 0-9-1 messages and back. Nothing here contacts a server.

The mapping is the binary mode of Knative's "RabbitMQ Protocol Binding for CloudEvents": attributes are headers with the
prefix ``ce-``, the data is the body, and the data's media type is the property ``content_type``. Like
eventing-rabbitmq, it also copies the id to ``message_id`` and the media type to the headers, and accepts incoming
headers without the prefix.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from events.schema import BadEvent, Event, parse

#: Header: why a function last failed to handle the message.
REASON = "x-mp3burst-reason"
#: Header: how many times a function has failed to handle the message.
ATTEMPTS = "x-mp3burst-attempts"
#: Extension attribute that Knative adds to a dead letter: the URL that refused it.
ERROR_URL = "ce-knativeerrordest"
#: Extension attribute that Knative adds to a dead letter: the status that URL answered.
ERROR_STATUS = "ce-knativeerrorcode"
_FAILURE_HEADERS = (REASON, ATTEMPTS, ERROR_URL, ERROR_STATUS)

# Properties must fit into one frame, 128 KB at RabbitMQ; a copy with larger ones could never be published.
_MAX_REASON = 500  # characters
_MAX_HEADERS = 16_000  # characters of all names and values
_MAX_ATTEMPTS = 1_000_000

_REQUIRED = ("specversion", "id", "type", "source")
_ATTRIBUTE = re.compile(r"[a-z0-9]+")
# Section 3.1.3.2 of the HTTP binding: printable ASCII except space, double quote and percent goes unencoded.
_UNENCODED = "!#$&'()*+,/:;<=>?@[\\]^`{|}"


@dataclass(frozen=True, slots=True)
class Message:
    """The parts of an AMQP message that events need. Every message is persistent."""

    body: bytes
    headers: Mapping[str, Any]
    message_id: str | None = None
    content_type: str | None = None

    @property
    def attempts(self) -> int:
        """How many times a function has failed to handle it."""
        count = self.headers.get(ATTEMPTS, 0)
        return min(count, _MAX_ATTEMPTS) if isinstance(count, int) and count > 0 else 0

    def failed(self, reason: str, url: str | None = None, status: int | None = None) -> "Message":
        """Returns a copy with one more attempt and the reason of the failure."""
        headers = {**self._portable_headers(), ATTEMPTS: self.attempts + 1, REASON: reason[:_MAX_REASON]}
        if url is not None:
            headers[ERROR_URL] = url
        if status is not None:
            headers[ERROR_STATUS] = str(status)
        return replace(self, headers=headers)

    def burial_failed(self) -> "Message":
        """Returns a copy of a dead letter with one more attempt, keeping the reason it was dead-lettered for."""
        return replace(self, headers={**self._portable_headers(), ATTEMPTS: self.attempts + 1})

    def without_failures(self) -> "Message":
        """Returns a copy without any trace of earlier failures or dead-lettering."""
        headers = {name: value for name, value in self._portable_headers().items() if name not in _FAILURE_HEADERS}
        return replace(self, headers=headers)

    def _portable_headers(self) -> dict[str, Any]:
        # Leaves out headers that servers add on the way (x-death, x-delivery-count): a copy starts its own history.
        kept: dict[str, Any] = {}
        space = _MAX_HEADERS
        for name, value in self.headers.items():
            size = len(name) + len(str(value))
            if (name in _FAILURE_HEADERS or not name.startswith("x-")) and size <= space:
                kept[name] = value
                space -= size
        return kept


def to_message(event: Event, source: str) -> Message:
    """Converts an event to a message; ``source`` is the CloudEvents source, ``/mp3burst/FUNCTION``."""
    return Message(event.data(), event.headers(source), event.id, "application/json")


def from_message(message: Message) -> tuple[Event, dict[str, str]]:
    """Returns the message's event, and the headers to POST it with (CloudEvents HTTP binding, binary mode).

    Raises:
        BadEvent: the message is not one of our events; the error says what is wrong with it.
    """
    found = {}
    for header, value in message.headers.items():
        name = header.lower().removeprefix("ce-")
        if _ATTRIBUTE.fullmatch(name):
            found[name] = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    if missing := [name for name in _REQUIRED if not found.get(name)]:
        raise BadEvent(f"The message is not a CloudEvent: it has no {', no '.join(missing)}.")
    if found["specversion"] != "1.0":
        raise BadEvent(f"The message has CloudEvents version {found['specversion']!r}; only 1.0 is supported.")
    event = parse(found["type"], message.body)
    headers = {f"ce-{name}": quote(value, safe=_UNENCODED) for name, value in found.items()}
    return event, headers | {"content-type": "application/json"}

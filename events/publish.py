"""publish(event): hand an event to the broker and return once the broker has it.

The way is chosen by the environment: ``K_SINK`` (the URL of a CloudEvents broker, as Knative gives it) or ``AMQP_URL``.
"""

import contextlib
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping

from events.errors import Mp3burstError, TryAgain
from events.schema import Event

#: Hands over one event within so many seconds, or raises NotPublished.
Publish = Callable[[Event, float], None]


class NotPublished(TryAgain):
    """The broker did not confirm the event in time. The row that the event speaks of is still due: sweep emits it again."""


class NoBroker(Mp3burstError):
    """The environment names no broker."""


def publisher(environ: Mapping[str, str], source: str) -> Publish:
    """The way to publish that the environment asks for.

    Args:
        environ: ``K_SINK``, an HTTP URL, or ``AMQP_URL``; ``K_SINK`` wins.
        source: the CloudEvents source, ``/mp3burst/FUNCTION``.

    Raises:
        NoBroker: neither is set.
    """
    if sink := environ.get("K_SINK"):
        return lambda event, timeout: post(sink, source, event, timeout)
    raise NoBroker("Set K_SINK to the URL of a CloudEvents broker, so that events have somewhere to go.")


def headers(event: Event, source: str) -> dict[str, str]:
    """The event's attributes as headers of the CloudEvents HTTP binding, binary mode."""
    return {
        "ce-specversion": "1.0",
        "ce-id": event.id,
        "ce-type": event.type,
        "ce-source": source,
        "ce-subject": event.job,
        "content-type": "application/json",
    }


def post(sink: str, source: str, event: Event, timeout: float) -> None:
    """POST the event to a CloudEvents broker, CloudEvents HTTP binding in binary mode.

    Args:
        sink: the broker's URL.
        source: the CloudEvents source.
        event: what to say.
        timeout: seconds to wait for the broker.

    Raises:
        NotPublished: the broker answered anything but 2xx, or nothing in time.
    """
    request = urllib.request.Request(sink, event.data(), headers(event, source), method="POST")  # noqa: S310 - the operator's own URL
    try:
        with contextlib.closing(urllib.request.urlopen(request, timeout=timeout)):  # noqa: S310 - as above
            return
    except (OSError, urllib.error.URLError) as error:
        raise NotPublished("The event broker did not take the event; it is sent again later.") from error

"""publish(event): hand an event to the broker and return once the broker has it.

The way is chosen by the environment: ``K_SINK`` (the URL of a CloudEvents broker, as Knative gives it) or ``AMQP_URL``.
"""

import http.client
from collections.abc import Callable, Mapping

from events.errors import Mp3burstError, TryAgain
from events.http import Poster
from events.rabbitmq.topology import attributes, topology
from events.schema import Event

#: The sentence of NotPublished.
SENTENCE = "The event broker did not take the event; it is sent again later."

#: Hands over one event within so many seconds, or raises NotPublished.
Publish = Callable[[Event, float], None]


class NotPublished(TryAgain):
    """The broker did not confirm the event in time. The row it speaks of is still due: sweep emits it again."""


class NoBroker(Mp3burstError):
    """The environment names no broker."""


def publisher(environ: Mapping[str, str], source: str) -> Publish:
    """The way to publish that the environment asks for. Threads may share it, and it may be carried over a fork.

    Args:
        environ: ``K_SINK``, an HTTP URL, or ``AMQP_URL`` with the names of queues (``rabbitmq.topology``);
            ``K_SINK`` wins.
        source: the CloudEvents source, ``/mp3burst/FUNCTION``.

    Raises:
        NoBroker: neither is set.
        BadUrl: it is no URL.
        BadQueues: two queues have one name.
    """
    if sink := environ.get("K_SINK"):
        poster = Poster(sink)
        return lambda event, timeout: post(poster, source, event, timeout)
    if url := environ.get("AMQP_URL"):
        # Not at the top: pika costs 50 ms of a cold start, which a function behind K_SINK need not pay.
        from events.rabbitmq.publisher import Publisher

        return Publisher(url, source, topology(environ))
    raise NoBroker("Set K_SINK to the URL of a CloudEvents broker, or AMQP_URL, so that events have somewhere to go.")


def post(poster: Poster, source: str, event: Event, timeout: float) -> None:
    """POST the event to a CloudEvents broker, CloudEvents HTTP binding in binary mode.

    Args:
        poster: of the broker's URL.
        source: the CloudEvents source.
        event: what to say.
        timeout: seconds to wait for the broker.

    Raises:
        NotPublished: the broker answered anything but 2xx, or nothing in time.
    """
    try:
        status = poster.post(attributes(event, source), event.data(), timeout)
    except (OSError, http.client.HTTPException) as error:
        raise NotPublished(SENTENCE) from error
    if not 200 <= status < 300:
        raise NotPublished(SENTENCE)

"""publish(event): hands an event to the broker and returns once the broker has stored it.

The environment selects the transport: ``K_SINK`` (the URL of a CloudEvents broker, set by Knative) or ``AMQP_URL``.
"""

import http.client
from collections.abc import Callable, Mapping

from events.errors import Mp3burstError, NotPublished
from events.http import HttpSink
from events.rabbitmq.topology import Topology
from events.schema import Event

#: Publishes one event; raises NotPublished if the broker does not confirm it within so many seconds.
Publish = Callable[[Event, float], None]


class NoBroker(Mp3burstError):
    """The environment names no broker."""


def publisher(environ: Mapping[str, str], source: str) -> Publish:
    """Builds the publish function for this environment. It is thread-safe and may be inherited through a fork.

    Args:
        environ: ``K_SINK``, an HTTP URL, or ``AMQP_URL`` and optionally queue names (``rabbitmq.topology``);
            ``K_SINK`` takes precedence.
        source: the CloudEvents source, ``/mp3burst/FUNCTION``.

    Raises:
        NoBroker: neither is set.
        BadUrl: K_SINK is not an HTTP URL.
        BadQueues: two queues have the same name.
    """
    if url := environ.get("K_SINK"):
        sink = HttpSink(url)
        return lambda event, timeout: post(sink, source, event, timeout)
    if url := environ.get("AMQP_URL"):
        # Imported here: pika adds 50 ms to a cold start, which a function behind K_SINK does not need.
        from events.rabbitmq.publisher import Publisher

        return Publisher(url, source, Topology.from_environ(environ))
    raise NoBroker("No event broker is configured: set K_SINK to the URL of a CloudEvents broker, or set AMQP_URL.")


def post(sink: HttpSink, source: str, event: Event, timeout: float) -> None:
    """POSTs the event to a CloudEvents broker (CloudEvents HTTP binding, binary mode).

    Args:
        sink: the broker.
        source: the CloudEvents source.
        event: the event to publish.
        timeout: seconds to wait for the broker.

    Raises:
        NotPublished: the broker answered with a status other than 2xx, or did not answer in time.
    """
    try:
        status = sink.post(event.headers(source), event.data(), timeout)
    except (OSError, http.client.HTTPException) as error:
        raise NotPublished from error
    if not 200 <= status < 300:
        raise NotPublished

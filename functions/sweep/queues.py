"""Asks RabbitMQ how many events wait in the queues of Knative's broker."""

import base64
import http.client
import json
import re
import urllib.request
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlsplit

from events.errors import TryAgain


class QueuesUnknown(TryAgain):
    """RabbitMQ's management API does not answer."""


def queue_depths(url: str, namespace: str) -> dict[str, int]:
    """Returns how many events wait for each Trigger, and how many dead letters.

    Args:
        url: the management API's, with user and password.
        namespace: the broker's.

    Raises:
        QueuesUnknown: it does not answer.
    """
    address = urlsplit(url)
    basic = f"{unquote(address.username or '')}:{unquote(address.password or '')}".encode()
    host = address.netloc.rpartition("@")[2]
    request = urllib.request.Request(  # noqa: S310 - the operator's own URL
        f"{address.scheme}://{host}{address.path.rstrip('/')}/api/queues?columns=name,messages",
        headers={"Authorization": f"Basic {base64.b64encode(basic).decode()}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
            return depths(json.load(answer), namespace)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise QueuesUnknown(f"RabbitMQ's management API does not answer: {error}.") from error


def depths(queues: Iterable[Any], namespace: str) -> dict[str, int]:
    """Returns the events of each Trigger from RabbitMQ's list of queues.

    eventing-rabbitmq names a queue NAMESPACE.TRIGGER.UID. The names of dead letter queues start with ``b.`` (the
    broker's) or ``t.`` (a Trigger's): they are counted as "NAME, dead letters".
    """
    found: dict[str, int] = {}
    for queue in queues:
        match = re.fullmatch(rf"([bt]\.)?{re.escape(namespace)}\.([^.]+)\.(.+)", queue["name"])
        if match:
            name = f"{match[2]}, dead letters" if match[1] else match[2]
            found[name] = found.get(name, 0) + queue.get("messages", 0)
    return found

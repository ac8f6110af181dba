"""The edge of every event function: parses the CloudEvent, and maps the outcome to an answer to the broker.

There are two answers. 200 means that the event is settled: the work is done or recorded as failed, another worker has
it, or the event is not one of ours. 503 means that the broker should retry. No function answers with a 4xx, which
Knative sometimes takes for success and sometimes retries.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from cloudevents.http import CloudEvent
from werkzeug.exceptions import ServiceUnavailable

from events.errors import TryAgain, with_cause
from events.schema import BadEvent, Event, parse
from functions.state.database import shared
from functions.state.leases import LeaseLost
from functions.warm_up import before_first_request

log = logging.getLogger(__name__)


@before_first_request
def _connect() -> None:
    shared(os.environ).connect()


def received(event: CloudEvent) -> Event | None:
    """Parses the event; logs it and returns None if it is not one of ours, since retrying would not change that."""
    try:
        return parse(event["type"], event.get_data())
    except BadEvent as error:
        log.error("event %s from %s is ignored: %s", event["id"], event["source"], error)
        return None


@contextmanager
def handling(event: Event) -> Iterator[None]:
    """Maps what the block raises to the answer: 503 with the cause in the log, or 200 for LeaseLost.

    Raises:
        ServiceUnavailable: the block raised anything but LeaseLost.
    """
    try:
        yield
    except LeaseLost:
        log.info("%s: another worker is handling %s", event.about, event.type)
    except TryAgain as error:
        log.warning("%s: %s will be retried: %s", event.about, event.type, with_cause(error))
        raise ServiceUnavailable(str(error)) from error
    except Exception as error:
        log.exception("%s: %s failed", event.about, event.type)
        raise ServiceUnavailable("The function failed; its log has the cause.") from error

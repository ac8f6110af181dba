"""The edge of event functions: from a CloudEvent to one of ours, and from an outcome to the broker's yes or try again.

The broker knows two answers. 200 means that the event is done with: the work is done, recorded as failed, in another's
hands, or nobody knows it. 503 means try again. Knative takes every 4xx for success, and retries some of them.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from cloudevents.http import CloudEvent
from werkzeug.exceptions import ServiceUnavailable

from events.errors import TryAgain, with_cause
from events.schema import BadEvent, Event, parse
from functions.state.leases import LeaseLost

log = logging.getLogger(__name__)


def received(event: CloudEvent) -> Event | None:
    """Our event, or None, with a line in the log, where it is none: it would be none the next time too."""
    try:
        return parse(event["type"], event.get_data())
    except BadEvent as error:
        log.error("event %s from %s is passed over: %s", event["id"], event["source"], error)
        return None


@contextmanager
def handling(event: Event) -> Iterator[None]:
    """Answer for what happens in the block: 503 where another try may help, with the cause in the log.

    Raises:
        ServiceUnavailable: what was raised in the block was not LeaseLost, which is nothing to be tried again.
    """
    try:
        yield
    except LeaseLost:
        log.info("job %s: %s is in another's hands", event.job, event.type)
    except TryAgain as error:
        log.warning("job %s: %s is put off: %s", event.job, event.type, with_cause(error))
        raise ServiceUnavailable(str(error)) from error
    except Exception as error:
        log.exception("job %s: %s failed", event.job, event.type)
        raise ServiceUnavailable("The function failed; its log has the cause.") from error

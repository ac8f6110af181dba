"""``python -m infra.ping URL SECONDS``: POSTs an empty event at a fixed interval, as a PingSource does on Knative."""

import argparse
import http.client
import logging
import signal
import sys
import threading
import uuid
from datetime import UTC, datetime

from events.http import BadUrl, HttpSink

_TIMEOUT = 300.0  # seconds; sweep's own limit
_log = logging.getLogger(__name__)


def ping(url: str) -> None:
    """Posts one event of the type that PingSources send.

    Raises:
        OSError: the request failed, or the status is not 2xx.
        http.client.HTTPException: the response is not HTTP.
        BadUrl: it is not an HTTP URL.
    """
    headers = {
        "Content-Type": "application/json",
        "ce-specversion": "1.0",
        "ce-type": "dev.knative.sources.ping",
        "ce-source": "/mp3burst/ping",
        "ce-id": str(uuid.uuid4()),
        "ce-time": datetime.now(UTC).isoformat(),
    }
    sink = HttpSink(url)
    try:
        status = sink.post(headers, b"{}", _TIMEOUT)
    finally:
        sink.close()
    if not 200 <= status < 300:
        raise OSError(f"it answered {status}")


def interval(text: str) -> float:
    """Parses the seconds between two events."""
    seconds = float(text)
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise ValueError(text)
    return seconds


def main() -> int:
    """Pings at once and then at every interval, until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m infra.ping", description=__doc__.partition(": ")[2])
    parser.add_argument("url", help="where to POST the events")
    parser.add_argument("seconds", type=interval, help="the interval")
    options = parser.parse_args()
    try:
        HttpSink(options.url)
    except BadUrl as error:
        parser.error(str(error))
    logging.basicConfig(format="%(asctime)s ping %(levelname)s %(message)s", level=logging.INFO)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while True:
        try:
            ping(options.url)
        except (OSError, http.client.HTTPException) as error:
            _log.warning("Pinging %s failed: %s", options.url, error)
        if stop.wait(options.seconds):
            return 0


if __name__ == "__main__":
    sys.exit(main())

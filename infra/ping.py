"""``python -m infra.ping URL SECONDS``: a PingSource where there is no Knative: an empty event, again and again."""

import argparse
import http.client
import logging
import signal
import sys
import threading
import urllib.request
import uuid
from datetime import UTC, datetime

_TIMEOUT = 300.0  # seconds; sweep's own limit
_log = logging.getLogger(__name__)


def ping(url: str) -> None:
    """Post one event, of the type that a PingSource's have.

    Raises:
        OSError: nobody took it.
        http.client.HTTPException: the answer is not HTTP.
    """
    headers = {
        "Content-Type": "application/json",
        "ce-specversion": "1.0",
        "ce-type": "dev.knative.sources.ping",
        "ce-source": "/mp3burst/ping",
        "ce-id": str(uuid.uuid4()),
        "ce-time": datetime.now(UTC).isoformat(),
    }
    request = urllib.request.Request(url, b"{}", headers)  # noqa: S310 - the operator's own URL
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
        answer.read()


def main() -> int:
    """Until SIGTERM; the first at once."""
    parser = argparse.ArgumentParser(prog="python -m infra.ping", description=__doc__.partition(": ")[2])
    parser.add_argument("url", help="who is pinged")
    parser.add_argument("seconds", type=float, help="from one to the next")
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s ping %(levelname)s %(message)s", level=logging.INFO)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while True:
        try:
            ping(options.url)
        except (OSError, http.client.HTTPException) as error:
            _log.warning("%s: %s", options.url, error)
        if stop.wait(options.seconds):
            return 0


if __name__ == "__main__":
    sys.exit(main())

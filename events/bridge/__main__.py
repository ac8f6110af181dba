"""``python -m events.bridge``: events from RabbitMQ to functions, where there is no Knative to bring them.

python -m events.bridge --route 'video=http://127.0.0.1:8081;concurrency=2' --route mp3=http://127.0.0.1:8082
python -m events.bridge redrive video
"""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence

import pika  # type: ignore[import-untyped]  # pika carries no types
import pika.exceptions  # type: ignore[import-untyped]  # pika carries no types

from events.bridge.consumer import Bridge, Route
from events.errors import Mp3burstError
from events.rabbitmq.connection import parameters, properties, received
from events.rabbitmq.topology import Topology, dead, topology

_log = logging.getLogger(__name__)
_LONGEST = 1500.0  # seconds for one answer; RabbitMQ closes the channel after 1800 without an acknowledgement


class BadSettings(Mp3burstError):
    """The bridge was started with arguments or variables that make no sense."""


def parse_route(text: str, topology: Topology) -> Route:
    """The route that ``QUEUE=URL;concurrency=N;timeout=SECONDS`` means; all after the URL may be left out.

    Raises:
        BadSettings: it means none.
    """
    target, *options = text.split(";")
    name, _, url = target.partition("=")
    known = (*topology.queues, "dead")
    if name not in known:
        raise BadSettings(f"{text!r} is no route: it must begin with one of {', '.join(known)}, then = and a URL.")
    values = {"concurrency": 10.0, "timeout": 600.0}
    for option in options:
        key, _, value = option.partition("=")
        try:
            values[key] = _number(value, {"concurrency": 1000.0, "timeout": _LONGEST}[key])
        except (KeyError, ValueError) as error:
            raise BadSettings(
                f"{option!r} in {text!r} must be concurrency=1 to 1000 or timeout=SECONDS up to {_LONGEST:g}."
            ) from error
    return Route(name, url, int(values["concurrency"]), values["timeout"])


def redrive(url: str, queue: str) -> int:
    """Send the dead letters that a queue has now round again, as if they had never failed; how many there were.

    Killed on the way, one of them may go round twice.

    Raises:
        pika.exceptions.AMQPError: the server is away, or has no such queue.
    """
    connection = pika.BlockingConnection(parameters(url))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        count = channel.queue_declare(dead(queue), passive=True).method.message_count
        moved = 0
        while moved < count:
            method, read, body = channel.basic_get(dead(queue))
            if method is None:
                break
            message = received(body, read).afresh()
            channel.basic_publish("", queue, body, properties(message), mandatory=True)
            channel.basic_ack(method.delivery_tag)
            moved += 1
        return moved
    finally:
        if connection.is_open:
            connection.close()


def serve(bridge: Bridge, grace: float) -> int:
    """Run the bridge until SIGTERM or SIGINT; the exit code."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    bridge.start()
    while not stop.wait(1):
        if not bridge.alive:
            return 1
    _log.info("Stopping; what is under way gets %g s.", grace)
    bridge.stop(grace)
    return 0


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """The command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m events.bridge", description=__doc__.splitlines()[0])
    parser.add_argument("--url", default=environ.get("AMQP_URL"), help="AMQP URL (AMQP_URL)")
    parser.add_argument(
        "--route", action="append", metavar="QUEUE=URL[;concurrency=10][;timeout=600]",
        help="a queue and its function; QUEUE may be dead, for all dead letters (BRIDGE_ROUTES, with spaces between)",
    )  # fmt: skip
    parser.add_argument("--tries", default=environ.get("BRIDGE_TRIES") or "8", help="tries per event (BRIDGE_TRIES)")
    parser.add_argument(
        "--delay", default=environ.get("BRIDGE_DELAY") or "1", help="seconds before the second try (BRIDGE_DELAY)"
    )
    parser.add_argument(
        "--grace", default=environ.get("BRIDGE_GRACE") or "25", help="seconds to finish in when stopped (BRIDGE_GRACE)"
    )
    commands = parser.add_subparsers(dest="command", metavar="redrive QUEUE")
    commands.add_parser("redrive", help="send dead letters round again").add_argument("queue")
    given = parser.parse_args(arguments)
    logging.basicConfig(format="%(asctime)s bridge %(levelname)s %(message)s", level=logging.INFO)
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    try:
        if not given.url:
            raise BadSettings("AMQP_URL is not set: it must hold the URL of a RabbitMQ server.")
        queues = topology(environ)
        if given.command == "redrive":
            if given.queue not in queues.queues:
                raise BadSettings(f"{given.queue!r} is none of the queues {', '.join(queues.queues)}.")
            _log.info("%d dead letters of %s sent round again.", redrive(given.url, given.queue), given.queue)
            return 0
        texts = given.route or environ.get("BRIDGE_ROUTES", "").split()
        routes = [parse_route(text, queues) for text in texts]
        if not routes or len({route.queue for route in routes}) < len(routes):
            raise BadSettings("Give --route (or BRIDGE_ROUTES) one route for each queue, none twice.")
        try:
            tries, delay, grace = int(given.tries), _number(given.delay, 3600), _number(given.grace, 3600)
        except ValueError as error:
            raise BadSettings("--tries must be a whole number, --delay and --grace seconds.") from error
        bridge = Bridge(given.url, routes, queues, tries, delay)
    except Mp3burstError as error:
        _log.error("%s", error)
        return 2
    except pika.exceptions.AMQPError as error:
        _log.error("RabbitMQ: %r", error)
        return 1
    return serve(bridge, grace)


def _number(text: str, most: float) -> float:
    value = float(text)
    if not 0 < value <= most:
        raise ValueError(text)
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))

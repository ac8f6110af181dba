"""``python -m events.bridge``: delivers events from RabbitMQ to functions, in place of Knative.

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

from events.bridge.consumer import Bridge, RetryPolicy, Route
from events.errors import Mp3burstError
from events.rabbitmq.connection import from_delivery, parameters, to_properties
from events.rabbitmq.topology import Topology, dead_letter_queue

_log = logging.getLogger(__name__)

#: Seconds to wait for a response; RabbitMQ closes the channel after 1800 without an acknowledgement.
_MAX_TIMEOUT = 1500.0
_MAX_CONCURRENCY = 1000.0
#: Seconds, for --delay and --grace.
_MAX_SECONDS = 3600.0


class BadSettings(Mp3burstError):
    """The bridge was started with invalid arguments or variables."""


def parse_route(text: str, topology: Topology) -> Route:
    """Parses ``QUEUE=URL;concurrency=N;timeout=SECONDS``; both options may be left out.

    In place of the queue's name, the route may have that of its variable, such as ``VIDEO_QUEUE``.

    Raises:
        BadSettings: the text is not a route.
    """
    target, *options = text.split(";")
    name, _, url = target.partition("=")
    name = topology.named_by.get(name, name)
    known = (*topology.queues, "dead")
    if name not in known:
        raise BadSettings(f"{text!r} is not a route: it must begin with one of {', '.join(known)}, then = and a URL.")
    limits = {"concurrency": _MAX_CONCURRENCY, "timeout": _MAX_TIMEOUT}
    values = {"concurrency": 10.0, "timeout": 600.0}
    for option in options:
        key, _, value = option.partition("=")
        try:
            values[key] = _number(value, limits[key])
        except (KeyError, ValueError) as error:
            raise BadSettings(
                f"{option!r} in {text!r} is invalid: write concurrency=1 to {_MAX_CONCURRENCY:g}, "
                f"or timeout=SECONDS up to {_MAX_TIMEOUT:g}."
            ) from error
    return Route(name, url, int(values["concurrency"]), values["timeout"])


def redrive(url: str, queue: str) -> int:
    """Moves a queue's current dead letters back to it, as if they had never failed.

    If it is killed while moving one, that one may be delivered twice.

    Returns:
        How many dead letters were moved.

    Raises:
        pika.exceptions.AMQPError: the server is unavailable, or has no such queue.
    """
    connection = pika.BlockingConnection(parameters(url))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        dead_letters = dead_letter_queue(queue)
        count = channel.queue_declare(dead_letters, passive=True).method.message_count
        moved = 0
        while moved < count:
            method, properties, body = channel.basic_get(dead_letters)
            if method is None:
                break
            message = from_delivery(body, properties).without_failures()
            channel.basic_publish("", queue, body, to_properties(message), mandatory=True)
            channel.basic_ack(method.delivery_tag)
            moved += 1
        return moved
    finally:
        if connection.is_open:
            connection.close()


def serve(bridge: Bridge, grace: float) -> int:
    """Runs the bridge until SIGTERM or SIGINT, and returns the exit status: 1 if it ended by itself."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    bridge.start()
    while not stop.wait(1):
        if not bridge.alive:
            return 1
    _log.info("Stopping; running requests have %g s to finish.", grace)
    bridge.stop(grace)
    return 0


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Runs the command and returns its exit status: 2 for invalid settings, 1 if RabbitMQ is unavailable."""
    given = _parser(environ).parse_args(arguments)
    logging.basicConfig(format="%(asctime)s bridge %(levelname)s %(message)s", level=logging.INFO)
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    try:
        if not given.url:
            raise BadSettings("AMQP_URL is not set: set it to the URL of a RabbitMQ server.")
        topology = Topology.from_environ(environ)
        if given.command == "redrive":
            if given.queue not in topology.queues:
                raise BadSettings(f"There is no queue {given.queue!r}: choose one of {', '.join(topology.queues)}.")
            _log.info("Moved %d dead letters back to %s.", redrive(given.url, given.queue), given.queue)
            return 0
        routes = [parse_route(text, topology) for text in given.route or environ.get("BRIDGE_ROUTES", "").split()]
        if not routes or len({route.queue for route in routes}) < len(routes):
            raise BadSettings("Give exactly one --route per queue (or list them in BRIDGE_ROUTES).")
        try:
            retry = RetryPolicy(int(given.tries), _number(given.delay, _MAX_SECONDS))
            grace = _number(given.grace, _MAX_SECONDS)
        except ValueError as error:
            raise BadSettings(
                f"--tries must be an integer, --delay and --grace seconds up to {_MAX_SECONDS:g}."
            ) from error
        bridge = Bridge(given.url, routes, topology, retry)
    except Mp3burstError as error:
        _log.error("%s", error)
        return 2
    except pika.exceptions.AMQPError as error:
        _log.error("RabbitMQ is unavailable: %r", error)
        return 1
    return serve(bridge, grace)


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m events.bridge", description="Delivers events from RabbitMQ to functions."
    )
    parser.add_argument("--url", default=environ.get("AMQP_URL"), help="AMQP URL (AMQP_URL)")
    parser.add_argument(
        "--route", action="append", metavar="QUEUE=URL[;concurrency=10][;timeout=600]",
        help="a queue, or the variable that names it, and its function; the queue dead is all dead letters "
        "(BRIDGE_ROUTES, separated by spaces)",
    )  # fmt: skip
    parser.add_argument("--tries", default=environ.get("BRIDGE_TRIES") or "8", help="tries per event (BRIDGE_TRIES)")
    parser.add_argument(
        "--delay", default=environ.get("BRIDGE_DELAY") or "1", help="seconds before the second try (BRIDGE_DELAY)"
    )
    parser.add_argument(
        "--grace",
        default=environ.get("BRIDGE_GRACE") or "25",
        help="seconds that running requests have when the bridge is stopped (BRIDGE_GRACE)",
    )
    commands = parser.add_subparsers(dest="command", metavar="redrive QUEUE")
    commands.add_parser(
        "redrive", help="move a queue's dead letters back to it: those that no route dead takes"
    ).add_argument("queue")
    return parser


def _number(text: str, limit: float) -> float:
    value = float(text)
    if not 0 < value <= limit:
        raise ValueError(text)
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))

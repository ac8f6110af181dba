"""Small functions for the platform's tests. They write what they observe to the directory NOTES, a line per call."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import flask
import functions_framework
from cloudevents.http import CloudEvent
from werkzeug.exceptions import ClientDisconnected, ServiceUnavailable, UnprocessableEntity

Response = flask.typing.ResponseReturnValue


def note(name: str, line: str) -> None:
    with (Path(os.environ["NOTES"]) / name).open("a") as file:
        file.write(line + "\n")


def wait_for_file(name: str) -> None:
    """Waits until the test creates the file."""
    deadline = time.monotonic() + 60
    while not (Path(os.environ["NOTES"]) / name).exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def flood_chunks(size: int) -> Iterator[bytes]:
    block = bytes(1 << 16)
    try:
        for _ in range(size // len(block)):
            yield block
        note("flood", "complete")
    except GeneratorExit:
        note("flood", "disconnected")
        raise


def drip_chunks() -> Iterator[bytes]:
    while True:
        yield b"drip"
        time.sleep(0.05)


def count(request: flask.Request) -> Response:
    size = 0
    try:
        while chunk := request.stream.read(1 << 20):
            size += len(chunk)
    except (ClientDisconnected, OSError):
        note("count", "broken")
        return "broken", 400
    note("count", "complete")
    return str(size)


def flood(request: flask.Request) -> Response:
    size = int(request.args["bytes"])
    return flask.Response(flood_chunks(size), headers={"Content-Length": str(size)})


def wait(request: flask.Request) -> Response:
    note("wait", str(os.getpid()))
    wait_for_file(request.args["file"])
    return "done"


def boom(_: flask.Request) -> Response:
    raise RuntimeError("a secret")


def describe(request: flask.Request) -> Response:
    return {"pid": os.getpid(), "path": request.full_path, "headers": list(request.headers), "env": dict(os.environ)}


ACTIONS: dict[str, Callable[[flask.Request], Response]] = {
    "count": count,
    "early": lambda _: ("no", 401),
    "flood": flood,
    "drip": lambda _: flask.Response(drip_chunks()),
    "wait": wait,
    "boom": boom,
    "die": lambda _: os._exit(7),
    "cached": lambda _: ("", 304, {"ETag": '"a"'}),
    "ranged": lambda _: ("bc", 206, {"Content-Range": "bytes 1-2/3"}),
    "gzip": lambda _: (b"not really gzip", 200, {"Content-Encoding": "gzip", "Set-Cookie": "a=b"}),
}


@functions_framework.http
def web(request: flask.Request) -> Response:
    action = ACTIONS.get(request.path.rpartition("/")[2], describe)
    return action(request)


@functions_framework.cloud_event
def handle(event: CloudEvent) -> None:
    note("handle", json.dumps([event["id"], event["type"], event.data, time.time()]))
    kind = event["id"].partition(":")[0]
    if kind == "wait":
        wait_for_file("go")
    elif kind == "never":
        raise ServiceUnavailable
    elif kind == "wrong":
        raise UnprocessableEntity
    note("handled", event["id"])


@functions_framework.cloud_event
def bury(event: CloudEvent) -> None:
    note("bury", json.dumps([event["id"], event["knativeerrordest"], event["knativeerrorcode"]]))

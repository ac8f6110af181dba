"""Small functions for the platform's tests. What they see goes to the directory NOTES, a line per call."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import flask
import functions_framework
from cloudevents.http import CloudEvent
from werkzeug.exceptions import ClientDisconnected, ServiceUnavailable, UnprocessableEntity


def note(name: str, line: str) -> None:
    with (Path(os.environ["NOTES"]) / name).open("a") as file:
        file.write(line + "\n")


def hold(name: str) -> None:
    """Wait until the test makes the file."""
    deadline = time.monotonic() + 60
    while not (Path(os.environ["NOTES"]) / name).exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def flood(size: int) -> Iterator[bytes]:
    block = bytes(1 << 16)
    try:
        for _ in range(size // len(block)):
            yield block
        note("flood", "whole")
    except GeneratorExit:
        note("flood", "cut")
        raise


def drip() -> Iterator[bytes]:
    while True:
        yield b"drip"
        time.sleep(0.05)


@functions_framework.http
def web(request: flask.Request) -> flask.typing.ResponseReturnValue:
    action = request.path.rpartition("/")[2]
    if action == "count":
        size = 0
        try:
            while chunk := request.stream.read(1 << 20):
                size += len(chunk)
        except (ClientDisconnected, OSError):
            note("count", "broken")
            return "broken", 400
        note("count", "whole")
        return str(size)
    if action == "early":
        return "no", 401
    if action == "flood":
        size = int(request.args["bytes"])
        return flask.Response(flood(size), headers={"Content-Length": str(size)})
    if action == "drip":
        return flask.Response(drip())
    if action == "hold":
        note("hold", str(os.getpid()))
        hold(request.args["file"])
        return "held"
    if action == "boom":
        raise RuntimeError("a secret")
    if action == "die":
        os._exit(7)
    if action == "cached":
        return "", 304, {"ETag": '"a"'}
    if action == "ranged":
        return "bc", 206, {"Content-Range": "bytes 1-2/3"}
    if action == "gzip":
        return b"not really gzip", 200, {"Content-Encoding": "gzip", "Set-Cookie": "a=b"}
    return {"pid": os.getpid(), "path": request.full_path, "headers": list(request.headers), "env": dict(os.environ)}


@functions_framework.cloud_event
def eat(event: CloudEvent) -> None:
    note("eat", json.dumps([event["id"], event["type"], event.data, time.time()]))
    kind = event["id"].partition(":")[0]
    if kind == "hold":
        hold("go")
    elif kind == "never":
        raise ServiceUnavailable
    elif kind == "wrong":
        raise UnprocessableEntity
    note("eaten", event["id"])


@functions_framework.cloud_event
def bury(event: CloudEvent) -> None:
    note("bury", json.dumps([event["id"], event["knativeerrordest"], event["knativeerrorcode"]]))

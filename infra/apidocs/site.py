"""The static documents that the gateway and the embedded platform serve, by path."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from events.schema import EVENTS
from infra.apidocs import asyncapi, openapi
from infra.apidocs.page import page

_JSON: Final = "application/json"


class Document(NamedTuple):
    """A static document."""

    content_type: str
    content: bytes


@functools.cache
def documents() -> Mapping[str, Document]:
    """Returns every document by its path. The gateway derives the same content types from the paths."""
    api = openapi.document()
    found = {
        "/openapi.json": _json(api),
        "/asyncapi.json": _json(asyncapi.document()),
        "/docs": Document("text/html; charset=utf-8", page(api).encode()),
        "/docs.css": Document("text/css; charset=utf-8", Path(__file__).with_name("style.css").read_bytes()),
    }
    return found | {asyncapi.schema_path(event): _json(event.json_schema()) for event in EVENTS.values()}


def write(directory: Path) -> None:
    """Writes every document to its path below the directory."""
    for path, document in documents().items():
        file = directory / path.removeprefix("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(document.content)


def _json(value: Any) -> Document:
    return Document(_JSON, msgspec.json.encode(value))

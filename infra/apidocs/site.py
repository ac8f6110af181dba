"""The static documents that the gateway and the embedded platform serve, by path: those of the API, and the page.

``functions/gateway/site/build.mjs`` makes the files of the page.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from events.schema import EVENTS
from infra import front
from infra.apidocs import asyncapi, openapi
from infra.apidocs.page import page

_JSON: Final = "application/json"
#: The built page, and the content types of its files.
PAGE: Final = Path(__file__).parents[2] / "functions/gateway/site/dist"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}


class Document(NamedTuple):
    """A static document."""

    content_type: str
    content: bytes
    headers: Mapping[str, str] = front.DOCUMENT_HEADERS


@functools.cache
def documents() -> Mapping[str, Document]:
    """Returns every document by its path, the page's only if it is built.

    The gateway derives the same content types and headers from the paths.
    """
    api = openapi.document()
    found = {
        "/openapi.json": _json(api),
        "/asyncapi.json": _json(asyncapi.document()),
        "/docs": Document("text/html; charset=utf-8", page(api).encode()),
        "/docs.css": Document("text/css; charset=utf-8", Path(__file__).with_name("style.css").read_bytes()),
    }
    schemas = {asyncapi.schema_path(event): _json(event.json_schema()) for event in EVENTS.values()}
    return found | schemas | page_files(PAGE)


def page_files(directory: Path) -> dict[str, Document]:
    """Returns the files of the page that was built in a directory; none if it was not."""
    index = directory / "index.html"
    if not index.is_file():
        return {}
    assets = sorted((directory / "assets").iterdir())
    files = {
        f"/assets/{file.name}": Document(_TYPES[file.suffix], file.read_bytes(), front.ASSET_HEADERS) for file in assets
    }
    worker = directory / "share/worker.js"
    if worker.is_file():  # not in a page of an earlier version, which stays if a newer one cannot be built
        files["/share/worker.js"] = Document(_TYPES[".js"], worker.read_bytes(), front.WORKER_HEADERS)
    return {"/": Document(_TYPES[".html"], index.read_bytes(), front.PAGE_HEADERS)} | files


def write(directory: Path) -> None:
    """Writes every document to its path below the directory, that of ``/`` to index.html."""
    for path, document in documents().items():
        file = directory / (path.removeprefix("/") or "index.html")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(document.content)


def _json(value: Any) -> Document:
    return Document(_JSON, msgspec.json.encode(value))

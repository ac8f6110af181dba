"""Hands out MP3s, whole or in ranges, to their owner or to who has the link of the mail."""

import functools
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import functions_framework
from flask import Request, Response
from werkzeug.http import is_resource_modified

from functions.auth.links import Links
from functions.auth.tokens import verifier
from functions.http_endpoint import Routes, Unprocessable, problem
from functions.media import BlobNotFound, Media, Reader, connect, is_blob_id
from functions.state.database import Database, url
from functions.state.jobs import Job, JobNotFound, Jobs

_CHUNK: Final = 256 << 10
#: One range of bytes (RFC 9110, 14.1.2), of figures that int() takes.
_RANGE: Final = re.compile(r"bytes[ \t]*=[ \t]*(?P<first>[0-9]{0,18})[ \t]*-[ \t]*(?P<last>[0-9]{0,18})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Counter:
    """What a download takes."""

    media: Media
    jobs: Jobs
    links: Links


@functions_framework.http
def download(request: Request) -> Response:
    """GET and HEAD /download."""
    return _ROUTES.answer(request)


def _download(request: Request) -> Response:
    counter, fid = _counter(), request.args.get("fid", "")
    if not fid:
        raise Unprocessable("Say which MP3: /download?fid=MP3, as GET /jobs has it.", {"fid": "is missing"})
    if token := request.args.get("token"):
        owner = counter.links.verify(token, fid)
    else:
        owner = verifier(os.environ).bearer(request.headers.get("Authorization")).user
    try:
        return hand_out(request, *find(fid, owner, counter))
    except BlobNotFound as error:
        raise _not_found() from error


def find(fid: str, owner: str, counter: Counter) -> tuple[Job, Reader]:
    """The owner's MP3 of this id.

    Raises:
        JobNotFound: there is none, or it is somebody else's, a video's, or no id at all.
        BlobNotFound: its bytes are gone.
    """
    job = counter.jobs.with_mp3(fid, owner) if is_blob_id(fid) else None
    if job is None:
        raise _not_found()
    return job, counter.media.mp3s.open(fid)


def hand_out(request: Request, job: Job, mp3: Reader) -> Response:
    """The response to a request for this MP3: 200, 206, 304 or 416 (RFC 9110)."""
    size, etag = mp3.stat.size, f'"{job.mp3}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    # A blob never changes under its id, so that the id is a strong validator.
    if request.if_none_match and not is_resource_modified(request.environ, etag, ignore_if_range=True):
        with mp3:
            return Response(status=304, headers=headers)
    first, behind, status = 0, size, 200
    if (span := _range(request, etag, size)) is not None:
        if span[0] >= span[1]:
            with mp3:
                refused = problem(416, f"The MP3 has {size} bytes: ask for a range within them.")
            refused.headers["Content-Range"] = f"bytes */{size}"
            return refused
        (first, behind), status = span, 206
        headers["Content-Range"] = f"bytes {first}-{behind - 1}/{size}"
    headers["Content-Length"] = str(behind - first)
    headers["Content-Disposition"] = disposition(mp3.stat.description.filename)
    if request.method == "HEAD":
        mp3.__exit__(None, None, None)
        return Response(status=status, headers=headers, content_type="audio/mpeg")
    return Response(_chunks(mp3, first, behind), status, headers, content_type="audio/mpeg", direct_passthrough=True)


def _range(request: Request, etag: str, size: int) -> tuple[int, int] | None:
    """First byte of the one range that is asked for, and the byte behind its last; an empty one cannot be satisfied.

    None where everything is to be sent: what is no range, and several at once (RFC 9110, 14.2), and a part of
    what is no longer there (13.1.5: the same strong tag, or everything).
    """
    one = _RANGE.fullmatch(request.headers.get("Range", "").strip())
    if one is None or request.headers.get("If-Range", etag) != etag:
        return None
    first, last = one["first"], one["last"]
    if not first:
        return (max(0, size - int(last)), size) if last else None
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, size) if last else size


def _chunks(mp3: Reader, first: int, behind: int) -> Iterator[bytes]:
    with mp3:
        if first:
            mp3.seek(first)
        left = behind - first
        while left and (chunk := mp3.read(min(_CHUNK, left))):
            left -= len(chunk)
            yield chunk


def disposition(filename: str) -> str:
    """Content-Disposition for any file name (RFC 6266): the name itself, and one in ASCII for old clients."""
    from urllib.parse import quote

    plain = unicodedata.normalize("NFKD", filename).encode("ascii", "ignore").decode()
    plain = "".join(character for character in plain if character.isprintable() and character not in '"\\%').strip()
    if not plain.removesuffix(".mp3").strip():
        plain = "audio.mp3"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def _not_found() -> JobNotFound:
    return JobNotFound("There is no such MP3: GET /jobs lists yours.")


@functools.cache
def _counter() -> Counter:
    return Counter(connect(os.environ), Jobs(Database(url(os.environ))), Links.from_environ(os.environ))


_ROUTES = Routes({"GET /download": _download})

"""Serves MP3s, complete or in byte ranges, to their owner or to anyone with the link from the mail."""

import functools
import hashlib
import itertools
import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

import functions_framework
from flask import Request, Response
from werkzeug.http import is_resource_modified
from werkzeug.wsgi import ClosingIterator

from functions import security_log
from functions.auth.feeds import FEED_PREFIX, Feeds
from functions.auth.links import BadLink, Links
from functions.auth.profiles import Profiles
from functions.auth.shared_links import LINK_PREFIX, SharedLink, SharedLinks
from functions.auth.tokens import Identity
from functions.download import api
from functions.download.several import zip_of
from functions.download.streamed_zip import stream
from functions.http_endpoint import (
    Routes,
    Unprocessable,
    client_address,
    identify,
    iso_time,
    json_response,
    prepare_to_identify,
    problem,
    read_json,
    read_query,
    take_share,
)
from functions.media import BlobNotFound, Media, Reader, connect, is_blob_id, open_mp3
from functions.mp3.names import mp3_name
from functions.shares import Shares
from functions.state.database import Database, shared
from functions.state.jobs import Job, JobNotFound, Jobs
from functions.state.owners import may_enter
from functions.state.schema import UserId
from functions.warm_up import before_first_request

_CHUNK: Final = 256 << 10  # bytes
#: One byte range (RFC 9110, 14.1.2), with few enough digits for int().
_RANGE: Final = re.compile(r"bytes[ \t]*=[ \t]*(?P<first>[0-9]{0,18})[ \t]*-[ \t]*(?P<last>[0-9]{0,18})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The stores, tables, keys and limits that download uses."""

    media: Media
    jobs: Jobs
    links: Links
    shared_links: SharedLinks
    feeds: Feeds
    shares: Shares
    profiles: Profiles
    database: Database


class _File(NamedTuple):
    """What a response says of a file: what it is, its bytes, strong validator, name, and content type."""

    kind: str
    size: int
    etag: str
    name: str
    type: str


@functions_framework.http
def download(request: Request) -> Response:
    """Handles GET and HEAD /download and /jobs.zip, GET /export, /links and /feed."""
    return _ROUTES.answer(request)


def _download(request: Request) -> Response:
    deps = dependencies()
    query = read_query(request, api.DownloadQuery)
    owner = linked_owner(query, deps) or identify(request, os.environ).user

    def answer() -> Response:
        try:
            return respond(request, *find(query.fid, owner, deps))
        except BlobNotFound as error:
            raise _not_found() from error

    return _transferring(request, owner, answer)


def linked_owner(query: api.DownloadQuery, deps: Dependencies) -> UserId | None:
    """Returns the owner of the MP3 that the link of a request downloads; None if it has none.

    Raises:
        BadLink: the link is invalid or has expired, or is for another file; or its user was deleted or locked.
    """
    if not query.token:
        return None
    if query.token.startswith(FEED_PREFIX):
        return deps.feeds.verify(query.token)
    if query.token.startswith(LINK_PREFIX):
        return deps.shared_links.verify(query.token, query.fid)
    owner = deps.links.verify(query.token, query.fid)
    if not deps.database.read(lambda connection: may_enter(connection, owner)):
        raise BadLink("This link is no longer valid: its account was deleted or locked.")
    return owner


def _download_several(request: Request) -> Response:
    deps = dependencies()
    ids = [each for each in read_query(request, api.SeveralQuery).ids.split(",") if each]
    if not 0 < len(ids) <= api.MAX_MP3S:
        raise Unprocessable.naming({"ids": f"must be 1 to {api.MAX_MP3S} ids of jobs, separated by commas"})
    owner = identify(request, os.environ).user

    def answer() -> Response:
        archive, etag = zip_of(ids, owner, deps.jobs, deps.media)
        file = _File("zip file", archive.size, etag, "mp3burst.zip", "application/zip")
        return _respond(request, file, archive.stream)

    return _transferring(request, owner, answer)


def _transferring(request: Request, owner: UserId, answer: Callable[[], Response]) -> Response:
    """Returns an answer; its transfer counts among the user's until its last byte is sent."""
    end = take_share(request, owner, dependencies().shares)
    try:
        response = answer()
    except BaseException:
        end()
        raise
    if response.direct_passthrough:
        response.response = ClosingIterator(cast("Iterator[bytes]", response.response), end)
    else:
        end()
    return response


def _export(request: Request) -> Response:
    from functions.download.export import Tables, export

    deps = dependencies()
    identity = identify(request, os.environ, is_cached=False)
    headers = {"Content-Disposition": 'attachment; filename="mp3burst.zip"', "Cache-Control": "no-store"}
    if request.method == "HEAD":
        return Response(headers=headers, content_type="application/zip")

    def answer() -> Response:
        chunks = stream(export(identity.user, Tables.of(deps.database), deps.media))
        first = next(chunks)  # a store that does not answer still has a status
        body = ClosingIterator(itertools.chain((first,), chunks), chunks.close)
        return Response(body, 200, headers, content_type="application/zip", direct_passthrough=True)

    response = _transferring(request, identity.user, answer)
    _record(request, identity, "export.succeeded")
    return response


def _create_link(request: Request) -> Response:
    identity = _identify_now(request)
    created = create_link(read_json(request, api.NewLink), identity, dependencies())
    _record(request, identity, "link.created", link=created.id)
    return json_response(created, 201, {"Location": f"/links/{created.id}"})


def _identify_now(request: Request) -> Identity:
    """Returns who asks, by what the database says now: what was withdrawn can add nothing that outlasts it."""
    return identify(request, os.environ, is_cached=False)


def create_link(wanted: api.NewLink, identity: Identity, deps: Dependencies) -> api.CreatedLink:
    """Creates a link to the MP3 of a job.

    Raises:
        JobNotFound: the user has no such job.
        NoMp3: it is not done.
        TooManyLinks: the user has as many links as a user may have.
        OwnerChanged: the token was withdrawn, or the API key deleted, at the same time.
        BadSetting: PUBLIC_URL is not set.
    """
    job = deps.jobs.finished(wanted.job, identity.user)
    secret, link = deps.shared_links.create(
        identity.user, job.id, job.stored.mp3, wanted.expires_in, identity.token_version, identity.stored_key
    )
    return api.CreatedLink(**_link_fields(link), url=deps.links.download_url(link.mp3, secret))


def _list_links(request: Request) -> Response:
    links = dependencies().shared_links.of(identify(request, os.environ).user)
    return json_response(api.LinkList([api.Link(**_link_fields(link)) for link in links]))


def _delete_link(request: Request, link: str) -> Response:
    identity = identify(request, os.environ)
    dependencies().shared_links.delete(link, identity.user)
    _record(request, identity, "link.deleted", link=link)
    return Response(status=204)


def _link_fields(link: SharedLink) -> dict[str, Any]:
    """Returns the fields of ``api.Link``."""
    return {
        "id": link.id,
        "job": link.job,
        "mp3": link.mp3,
        "filename": link.filename,
        "created": iso_time(link.created_at),
        "expires": iso_time(link.expires_at),
    }


def _create_feed(request: Request) -> Response:
    identity = _identify_now(request)
    deps = dependencies()
    secret = deps.feeds.create(identity.user, identity.token_version, identity.stored_key)
    url = f"{deps.links.public_url}/feed?token={secret}"
    _record(request, identity, "feed.created")
    return json_response(api.CreatedFeed(url), 201)


def _delete_feed(request: Request) -> Response:
    identity = identify(request, os.environ)
    dependencies().feeds.delete(identity.user)
    _record(request, identity, "feed.deleted")
    return Response(status=204)


def _read_feed(request: Request) -> Response:
    from functions.download.feed import MAX_JOBS, rss

    deps = dependencies()
    secret = read_query(request, api.FeedQuery).token
    owner = deps.feeds.verify(secret)
    content = rss(deps.profiles.get(owner).name, deps.jobs.page(owner, MAX_JOBS), deps.links, secret)
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if request.if_none_match and not is_resource_modified(request.environ, etag):
        return Response(status=304, headers=headers)
    return Response(content, headers=headers, content_type=api.RSS)


def _record(request: Request, identity: Identity, event: str, **details: object) -> None:
    security_log.record(event, user=identity.username, address=client_address(request, os.environ), **details)


def find(fid: str, owner: UserId, deps: Dependencies) -> tuple[Job, Reader]:
    """Returns the job that made the MP3, and the open MP3.

    Raises:
        JobNotFound: the owner has no MP3 with this id: it belongs to another user, is a video's, or is malformed.
        BlobNotFound: its bytes were deleted.
    """
    job = deps.jobs.with_mp3(fid, owner) if is_blob_id(fid) else None
    if job is None:
        raise _not_found()
    return job, open_mp3(deps.media.mp3s, job.stored)


def respond(request: Request, job: Job, mp3: Reader) -> Response:
    """Returns the response to a request for this MP3: 200, 206, 304 or 416 (RFC 9110)."""
    # Blobs never change, so their ids are a strong validator.
    etag = f'"{job.mp3}"' if job.tag is None else f'"{job.mp3}-{job.tag}"'
    file = _File("MP3", mp3.stat.size, etag, mp3_name(job.filename), "audio/mpeg")
    response = _respond(request, file, functools.partial(_chunks, mp3))
    if not response.direct_passthrough:
        mp3.__exit__(None, None, None)
    return response


def _respond(request: Request, file: _File, stream: Callable[[int, int], Iterator[bytes]]) -> Response:
    """Returns the response to a request for a file, of which ``stream`` yields a range."""
    size = file.size
    headers = {
        "ETag": file.etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    if request.if_none_match and not is_resource_modified(request.environ, file.etag, ignore_if_range=True):
        return Response(status=304, headers=headers)
    start = 0
    stop = size
    status = 200
    if (requested := _range(request, file.etag, size)) is not None:
        start, stop = requested
        if start >= stop:
            unsatisfiable = problem(416, f"The range is outside the {file.kind}: it has {size} bytes.")
            unsatisfiable.headers["Content-Range"] = f"bytes */{size}"
            return unsatisfiable
        status = 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["Content-Length"] = str(stop - start)
    headers["Content-Disposition"] = disposition(file.name)
    if request.method == "HEAD":
        return Response(status=status, headers=headers, content_type=file.type)
    return Response(stream(start, stop), status, headers, content_type=file.type, direct_passthrough=True)


def _range(request: Request, etag: str, size: int) -> tuple[int, int] | None:
    """Returns the requested byte range as (start, stop), stop excluded; an empty one cannot be satisfied.

    Returns None if everything is to be sent: without a valid range, for several ranges at once (RFC 9110, 14.2), and
    if If-Range does not match the strong tag (13.1.5).
    """
    found = _RANGE.fullmatch(request.headers.get("Range", "").strip())
    if found is None or request.headers.get("If-Range", etag) != etag:
        return None
    first = found["first"]
    last = found["last"]
    if not first:
        return (max(0, size - int(last)), size) if last else None
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, size) if last else size


def _chunks(mp3: Reader, start: int, stop: int) -> Iterator[bytes]:
    with mp3:
        if start:
            mp3.seek(start)
        left = stop - start
        while left and (chunk := mp3.read(min(_CHUNK, left))):
            left -= len(chunk)
            yield chunk


def disposition(filename: str) -> str:
    """Returns the Content-Disposition for a file name (RFC 6266): the name itself, and an ASCII one for old clients."""
    from urllib.parse import quote

    ascii_name = unicodedata.normalize("NFKD", filename).encode("ascii", "ignore").decode()
    ascii_name = "".join(character for character in ascii_name if character.isprintable() and character not in '"\\%')
    ascii_name = ascii_name.strip()
    if not ascii_name.removesuffix(".mp3").strip():
        ascii_name = "audio.mp3"
    return f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(filename, safe='')}"


def _not_found() -> JobNotFound:
    return JobNotFound("MP3 not found: GET /jobs lists yours.")


@functools.cache
def dependencies() -> Dependencies:
    """Builds the dependencies from the environment, once per process."""
    database = shared(os.environ)
    return Dependencies(
        media=connect(os.environ),
        jobs=Jobs(database),
        links=Links.from_environ(os.environ),
        shared_links=SharedLinks(database),
        feeds=Feeds(database),
        shares=Shares.from_environ(os.environ),
        profiles=Profiles(database),
        database=database,
    )


@before_first_request
def _connect() -> None:
    dependencies().media.mp3s.connect()


before_first_request(prepare_to_identify)
_ROUTES = Routes(
    {
        api.DOWNLOAD: _download,
        api.DOWNLOAD_HEAD: _download,
        api.DOWNLOAD_SEVERAL: _download_several,
        api.DOWNLOAD_SEVERAL_HEAD: _download_several,
        api.EXPORT: _export,
        api.CREATE_LINK: _create_link,
        api.LIST_LINKS: _list_links,
        api.DELETE_LINK: _delete_link,
        api.CREATE_FEED: _create_feed,
        api.READ_FEED: _read_feed,
        api.DELETE_FEED: _delete_feed,
    }
)

"""The operations of ``download``, and their types."""

import dataclasses
from typing import Annotated, Final

from msgspec import Meta, Struct, field

from functions.operation import JSON, LIMITS, TOO_MANY_TRANSFERS, Answer, Body, Id, Operation, Timestamp

#: MP3s in one zip file: as many ids as fit into an address.
MAX_MP3S: Final = 200

RSS: Final = "application/rss+xml"


class DownloadQuery(Struct, frozen=True):
    """The query of /download."""

    fid: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=255,
            description="The id of the MP3: `mp3` of a job in GET /jobs.",
        ),
    ]
    token: Annotated[str, Meta(description="The token of a link, in place of the bearer token.")] = ""


class NewLink(Struct, frozen=True):
    """A link to create."""

    job: Annotated[str, Meta(min_length=1, max_length=255, description="The job whose MP3 it downloads.")]
    expires_in: Annotated[
        int, Meta(ge=60, le=316_224_000, description="Seconds after which it expires; by default 7 days.")
    ] = 604_800


class Link(Struct, frozen=True, kw_only=True):
    """A link, without its address."""

    id: Annotated[Id, Meta(description="Names the link in DELETE /links/LINK.")]
    job: Id
    mp3: Id
    filename: Annotated[str, Meta(description="The name of the job's video.")]
    created: Timestamp
    expires: Timestamp


class CreatedLink(Link, frozen=True, kw_only=True):
    """A new link."""

    url: Annotated[str, Meta(description="The address for others: no other response has it.")]


class LinkList(Struct, frozen=True):
    """The links of a user."""

    links: list[Link]


class CreatedFeed(Struct, frozen=True):
    """A podcast feed."""

    url: Annotated[str, Meta(description="The address for a podcast client: no other response has it.")]


class FeedQuery(Struct, frozen=True):
    """The query of /feed."""

    token: Annotated[str, Meta(description="The token of the feed's address.")] = ""


class FeedHeaders(Struct, frozen=True):
    """The request headers of /feed."""

    if_none_match: Annotated[str, Meta(description="The `ETag` of the feed that the client has.")] = field(
        default="", name="If-None-Match"
    )


class SeveralQuery(Struct, frozen=True):
    """The query of /jobs.zip."""

    ids: Annotated[
        str, Meta(min_length=1, max_length=8000, description=f"The ids of 1 to {MAX_MP3S} jobs, separated by commas.")
    ]


class DownloadHeaders(Struct, frozen=True):
    """The request headers of /download and /jobs.zip."""

    range: Annotated[str, Meta(description="One range of bytes; anything else is ignored (RFC 9110, 14.2).")] = field(
        default="", name="Range"
    )
    if_range: Annotated[str, Meta(description="The `ETag` for which Range applies.")] = field(
        default="", name="If-Range"
    )
    if_none_match: Annotated[str, Meta(description="The `ETag` of a file that the client has.")] = field(
        default="", name="If-None-Match"
    )


def _file(kind: str, text: str, content_type: str, etag: str, name: str) -> tuple[Answer, ...]:
    """Returns the answers of an operation that serves a file, or a range of it."""
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Disposition": name, **LIMITS}
    partial = {**headers, "Content-Range": f"Where the range is in the {kind}."}
    return (
        Answer(200, text, content_type=content_type, headers=headers),
        Answer(206, f"A range of the {kind}.", content_type=content_type, headers=partial),
        Answer(304, f"The client has this {kind}.", headers={"ETag": etag}),
    )


DOWNLOAD: Final = Operation(
    "GET",
    "/download",
    "Download an MP3",
    _file(
        "MP3",
        "The MP3.",
        "audio/mpeg",
        etag="A strong validator: it changes with the tags.",
        name="The file's name, made from the video's.",
    ),
    access="token or link",
    scope="read",
    query=DownloadQuery,
    headers=DownloadHeaders,
    problems={
        404: "There is no such MP3, or it is another user's.",
        416: "The range begins after the end of the MP3.",
        429: TOO_MANY_TRANSFERS,
    },
)
DOWNLOAD_HEAD: Final = dataclasses.replace(DOWNLOAD, method="HEAD", summary="Get the size and name of an MP3")
DOWNLOAD_SEVERAL: Final = Operation(
    "GET",
    "/jobs.zip",
    "Download several MP3s",
    _file(
        "zip file",
        "A zip file with the MP3s.",
        "application/zip",
        etag="A strong validator: it changes with the MP3s, their names and their tags.",
        name="The file's name.",
    ),
    description="The MP3s are in the order of the ids and have the names of their videos. The download can be resumed "
    "by `Range`.",
    scope="read",
    query=SeveralQuery,
    headers=DownloadHeaders,
    problems={
        404: "One of the jobs does not exist, is another user's or has no MP3 yet.",
        416: "The range begins after the end of the zip file.",
        429: TOO_MANY_TRANSFERS,
    },
)
DOWNLOAD_SEVERAL_HEAD: Final = dataclasses.replace(
    DOWNLOAD_SEVERAL, method="HEAD", summary="Get the size of a zip file of several MP3s"
)
EXPORT: Final = Operation(
    "GET",
    "/export",
    "Export the account",
    (
        Answer(
            200,
            "A zip file: `account.json` with the account, its keys, sessions, external logins, links, feed, "
            "webhooks, presets and jobs; the MP3s and videos that are stored.",
            content_type="application/zip",
            headers={"Content-Disposition": "The file's name.", **LIMITS},
        ),
    ),
    scope="account",
    problems={429: TOO_MANY_TRANSFERS},
)
CREATE_LINK: Final = Operation(
    "POST",
    "/links",
    "Create a link to an MP3",
    (Answer(201, "The link.", CreatedLink, headers={"Location": "The path of the link."}),),
    description="Whoever has its address downloads the MP3 without a login, with `GET`, `HEAD` and `Range`, until the "
    "link expires or is deleted, or the job is.",
    scope="upload",
    body=Body({JSON: NewLink}),
    problems={
        404: "There is no such job, or it is another user's.",
        409: "The job has no MP3 yet, or the user has as many links as allowed.",
    },
)
LIST_LINKS: Final = Operation(
    "GET",
    "/links",
    "List links",
    (Answer(200, "The links that lead to an MP3, newest first.", LinkList),),
    scope="read",
)
DELETE_LINK: Final = Operation(
    "DELETE",
    "/links/{link}",
    "Delete a link",
    (Answer(204, "The link is deleted; downloads that have begun are not interrupted."),),
    scope="delete",
    parameters={"link": "The id of the link, from GET /links."},
    problems={404: "There is no such link, or it is another user's."},
)
CREATE_FEED: Final = Operation(
    "POST",
    "/feed",
    "Create the podcast feed",
    (Answer(201, "The feed.", CreatedFeed),),
    description="Whoever has its address sees and downloads all MP3s of the user. The address of the feed before works "
    "no more.",
    scope="account",
)
READ_FEED: Final = Operation(
    "GET",
    "/feed",
    "Read the podcast feed",
    (
        Answer(200, "RSS 2.0 with the newest MP3s.", content_type=RSS, headers={"ETag": "It changes with the feed."}),
        Answer(304, "The client has this feed.", headers={"ETag": "That of the feed."}),
    ),
    access="link",
    query=FeedQuery,
    headers=FeedHeaders,
    problems={401: "The address is invalid, or was deleted or replaced."},
)
DELETE_FEED: Final = Operation(
    "DELETE",
    "/feed",
    "Delete the podcast feed",
    (Answer(204, "The address works no more, if there was one."),),
    scope="delete",
)

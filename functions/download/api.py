"""The operations of ``download``, and their types."""

import dataclasses
from typing import Annotated, Final

from msgspec import Meta, Struct, field

from functions.operation import LIMITS, Answer, Operation


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
    token: Annotated[str, Meta(description="The token of the link in a mail, in place of the bearer token.")] = ""


class DownloadHeaders(Struct, frozen=True):
    """The request headers of /download."""

    range: Annotated[str, Meta(description="One range of bytes; anything else is ignored (RFC 9110, 14.2).")] = field(
        default="", name="Range"
    )
    if_range: Annotated[str, Meta(description="The `ETag` for which Range applies.")] = field(
        default="", name="If-Range"
    )
    if_none_match: Annotated[str, Meta(description="The `ETag` of an MP3 that the client has.")] = field(
        default="", name="If-None-Match"
    )


_HEADERS: Final = {
    "ETag": "A strong validator: it changes with the tags.",
    "Accept-Ranges": "bytes",
    "Content-Disposition": "The file's name, made from the video's.",
    **LIMITS,
}
DOWNLOAD: Final = Operation(
    "GET",
    "/download",
    "Download an MP3",
    (
        Answer(200, "The MP3.", content_type="audio/mpeg", headers=_HEADERS),
        Answer(
            206,
            "A range of the MP3.",
            content_type="audio/mpeg",
            headers={**_HEADERS, "Content-Range": "Where the range is in the MP3."},
        ),
        Answer(304, "The client has this MP3.", headers={"ETag": _HEADERS["ETag"]}),
    ),
    access="token or link",
    scope="read",
    query=DownloadQuery,
    headers=DownloadHeaders,
    problems={
        404: "There is no such MP3, or it is another user's.",
        416: "The range begins after the end of the MP3.",
        429: "The user, or the client's network, has too many transfers: wait for the seconds in `Retry-After`.",
    },
)
DOWNLOAD_HEAD: Final = dataclasses.replace(DOWNLOAD, method="HEAD", summary="Get the size and name of an MP3")
EXPORT: Final = Operation(
    "GET",
    "/export",
    "Export the account",
    (
        Answer(
            200,
            "A zip file: `account.json` with the account, its keys and its jobs; the MP3s and videos that are stored.",
            content_type="application/zip",
            headers={"Content-Disposition": "The file's name."},
        ),
    ),
    scope="account",
    problems={429: "The user, or the client's network, has too many transfers: wait for the seconds in `Retry-After`."},
)

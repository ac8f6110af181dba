"""The operations of ``download``, and their types."""

import dataclasses
from typing import Annotated, Final

from msgspec import Meta, Struct, field

from functions.operation import LIMITS, TOO_MANY_TRANSFERS, Answer, Operation

#: MP3s in one zip file: as many ids as fit into an address.
MAX_MP3S: Final = 200


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
            "A zip file: `account.json` with the account, its keys and its jobs; the MP3s and videos that are stored.",
            content_type="application/zip",
            headers={"Content-Disposition": "The file's name.", **LIMITS},
        ),
    ),
    scope="account",
    problems={429: TOO_MANY_TRANSFERS},
)

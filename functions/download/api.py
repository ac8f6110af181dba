"""The operations of ``download``, and their types."""

import dataclasses
from typing import Annotated, Final

from msgspec import Meta, Struct, field

from functions.operation import LIMITS, Answer, Operation

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
_ZIP_HEADERS: Final = {
    "ETag": "A strong validator: it changes with the MP3s, their names and their tags.",
    "Accept-Ranges": "bytes",
    "Content-Disposition": "The file's name.",
    **LIMITS,
}
DOWNLOAD_SEVERAL: Final = Operation(
    "GET",
    "/jobs.zip",
    "Download several MP3s",
    (
        Answer(200, "A zip file with the MP3s.", content_type="application/zip", headers=_ZIP_HEADERS),
        Answer(
            206,
            "A range of the zip file.",
            content_type="application/zip",
            headers={**_ZIP_HEADERS, "Content-Range": "Where the range is in the zip file."},
        ),
        Answer(304, "The client has this zip file.", headers={"ETag": _ZIP_HEADERS["ETag"]}),
    ),
    description="The MP3s are in the order of the ids and have the names of their videos. The download can be resumed "
    "by `Range`.",
    scope="read",
    query=SeveralQuery,
    headers=DownloadHeaders,
    problems={
        404: "One of the jobs does not exist, is another user's or has no MP3 yet.",
        416: "The range begins after the end of the zip file.",
        429: "The user, or the client's network, has too many transfers: wait for the seconds in `Retry-After`.",
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
    problems={429: "The user, or the client's network, has too many transfers: wait for the seconds in `Retry-After`."},
)

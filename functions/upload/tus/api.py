"""The operations of /files, and the types of their headers (tus 1.0, https://tus.io/protocols/resumable-upload)."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field

from functions.operation import LIMITS, Answer, Body, Operation

VERSION: Final = "1.0.0"
#: Bytes of Upload-Metadata. HEAD returns it among other headers, and nginx accepts 4 KiB of those.
MAX_METADATA: Final = 3 << 10
PART_TYPE: Final = "application/offset+octet-stream"

_Version = Annotated[Literal["1.0.0"], Meta(description="The version of tus.")]
_Bytes = Annotated[int, Meta(ge=0, le=2**53 - 1)]
_Checksum = Annotated[str, Meta(description="`sha1` or `sha256`, a space, and the digest of the body in Base64.")]


class VersionHeader(Struct, frozen=True):
    """The request header that every request to /files has."""

    tus_resumable: _Version = field(name="Tus-Resumable")


class CreationHeaders(VersionHeader, frozen=True, kw_only=True):
    """The request headers of POST /files."""

    upload_length: Annotated[_Bytes | None, Meta(description="Bytes of the file.")] = field(
        default=None, name="Upload-Length"
    )
    upload_defer_length: Annotated[Literal["1"] | None, Meta(description="The length follows later.")] = field(
        default=None, name="Upload-Defer-Length"
    )
    upload_metadata: Annotated[
        Annotated[str, Meta(max_length=MAX_METADATA)] | None,
        Meta(description="`KEY BASE64,KEY BASE64`: the name of the file as `filename`, and the options."),
    ] = field(default=None, name="Upload-Metadata")
    upload_checksum: _Checksum | None = field(default=None, name="Upload-Checksum")


class PartHeaders(VersionHeader, frozen=True, kw_only=True):
    """The request headers of PATCH /files/UPLOAD."""

    upload_offset: Annotated[_Bytes, Meta(description="Where the part begins in the file.")] = field(
        name="Upload-Offset"
    )
    upload_length: Annotated[_Bytes | None, Meta(description="Bytes of the file, if they were deferred.")] = field(
        default=None, name="Upload-Length"
    )
    upload_checksum: _Checksum | None = field(default=None, name="Upload-Checksum")


_UPLOAD: Final = {"upload": "The id of the upload, from `Location` of the response of POST /files."}
_TUS: Final = {"Tus-Resumable": "The version of tus: 1.0.0."}
_PROGRESS: Final = {
    **_TUS,
    "Upload-Offset": "The bytes that have arrived.",
    "Upload-Expires": "When the upload is deleted unless more of it arrives.",
    "Mp3burst-Job": "The id of the job, once the upload is complete.",
    "Mp3burst-Future-Job": "The id of the job that the upload becomes, until it is complete.",
}
_WRONG_VERSION: Final = {412: "Tus-Resumable is missing, or another version."}
_OTHERS: Final = {
    404: "There is no such upload, or it is another user's.",
    410: "The upload has expired, or its job was deleted.",
}
_LOCKED: Final = {423: "Another request is writing the upload."}
_REFUSED: Final = {
    400: "A header is malformed, or the connection was lost.",
    403: "UPLOAD_ROLE restricts uploads to another role.",
    413: "The file is larger than MAX_UPLOAD_BYTES, or does not fit into the user's quota.",
    415: "The file is neither audio nor video, or the body is not bytes of a file.",
    422: "The file is empty, or an option is invalid.",
    429: "The user has too many uploads, conversions or transfers in progress: wait for the seconds in `Retry-After`.",
    460: "The part was damaged in transit and is not kept.",
    507: "The media store is full: wait for the seconds in `Retry-After`.",
}
_FOUND: Final = Answer(
    204,
    "The version and the extensions of tus that the server supports.",
    headers={
        **_TUS,
        "Tus-Version": "The versions.",
        "Tus-Extension": "The extensions.",
        "Tus-Max-Size": "The largest file, in bytes.",
        "Tus-Checksum-Algorithm": "The algorithms for Upload-Checksum.",
    },
)

DISCOVER: Final = Operation("OPTIONS", "/files", "Discover what the server supports", (_FOUND,), access="anyone")
DISCOVER_BELOW: Final = Operation(
    "OPTIONS",
    "/files/{upload}",
    "Discover what the server supports, at an upload",
    (_FOUND,),
    access="anyone",
    parameters=_UPLOAD,
)
CREATE: Final = Operation(
    "POST",
    "/files",
    "Begin a resumable upload",
    (
        Answer(
            201,
            "The upload exists: send its parts to `Location`.",
            headers={**_PROGRESS, **LIMITS, "Location": "`/files/UPLOAD`."},
        ),
    ),
    description="The body may have the first part of the file.",
    scope="upload",
    headers=CreationHeaders,
    body=Body({PART_TYPE: bytes}, required=False),
    problems={**_REFUSED, **_WRONG_VERSION, **_LOCKED},
)
OFFSET: Final = Operation(
    "HEAD",
    "/files/{upload}",
    "Get the offset at which an upload resumes",
    (
        Answer(
            200,
            "The offset.",
            headers={
                **_PROGRESS,
                "Upload-Length": "Bytes of the file, if they are known.",
                "Upload-Defer-Length": "1 if they are not.",
                "Upload-Metadata": "What the upload was created with.",
            },
        ),
    ),
    scope="upload",
    parameters=_UPLOAD,
    headers=VersionHeader,
    problems={**_OTHERS, **_WRONG_VERSION, 403: _REFUSED[403]},
)
APPEND: Final = Operation(
    "PATCH",
    "/files/{upload}",
    "Upload a part",
    (Answer(204, "The part is stored.", headers={**_PROGRESS, **LIMITS}),),
    description="A request that breaks off keeps what has arrived: ask for the offset and continue from there.",
    scope="upload",
    parameters=_UPLOAD,
    headers=PartHeaders,
    body=Body({PART_TYPE: bytes}),
    problems={
        **_REFUSED,
        **_OTHERS,
        **_WRONG_VERSION,
        **_LOCKED,
        409: "The part does not begin where the upload ends.",
    },
)
TERMINATE: Final = Operation(
    "DELETE",
    "/files/{upload}",
    "Abandon an upload",
    (Answer(204, "The upload is deleted.", headers=_TUS),),
    scope="upload",
    parameters=_UPLOAD,
    headers=VersionHeader,
    problems={**_OTHERS, **_WRONG_VERSION, **_LOCKED, 403: _REFUSED[403]},
)

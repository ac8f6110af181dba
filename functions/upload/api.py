"""The operations of ``upload``, and their types."""

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct, field

from functions.operation import JSON, LIMITS, Answer, Body, Id, Operation
from functions.options import BITRATES, MAX_FADE, MAX_SECONDS, MAX_TRACK, MAX_VBR, MAX_VOLUME

_TIME: Final[dict[str, Any]] = {"examples": ["83.5", "1:23.5", "1:02:03"]}
_SWITCH = Literal["true", "false"]


class OptionFields(Struct, frozen=True, kw_only=True):
    """The options of a conversion, as text. Empty ones are ignored; unknown ones are refused."""

    bitrate: Annotated[
        str | None,
        Meta(
            description=f"Constant bit rate: {', '.join(f'{rate}k' for rate in BITRATES)}; 192k by default.",
            examples=["128k"],
        ),
    ] = None
    vbr: Annotated[
        str | None,
        Meta(
            description=f"Quality of the variable bit rate, 0 (best) to {MAX_VBR}, in place of `bitrate`.",
            examples=["2"],
        ),
    ] = None
    track: Annotated[
        str | None,
        Meta(
            description=f"The audio track, 0 to {MAX_TRACK}, or two mono tracks for the left and the right channel.",
            examples=["1", "0,1"],
        ),
    ] = None
    start: Annotated[str | None, Meta(description="Where the MP3 begins in the audio.", **_TIME)] = None
    end: Annotated[
        str | None, Meta(description=f"Where the MP3 ends in the audio; at most {MAX_SECONDS / 3600:g} hours.", **_TIME)
    ] = None
    fade_in: Annotated[
        str | None, Meta(description=f"Seconds of fade at the beginning, at most {MAX_FADE:g}.", examples=["2"])
    ] = None
    fade_out: Annotated[
        str | None, Meta(description=f"Seconds of fade at the end, at most {MAX_FADE:g}.", examples=["2"])
    ] = None
    volume: Annotated[
        str | None,
        Meta(description=f"Decibels from -{MAX_VOLUME:g} to {MAX_VOLUME:g}.", examples=["6", "-3.5dB"]),
    ] = None
    normalize: Annotated[_SWITCH | None, Meta(description="Whether to normalize the loudness (EBU R 128).")] = None
    mono: Annotated[_SWITCH | None, Meta(description="Whether to mix all channels into one.")] = None
    cover: Annotated[
        str | None,
        Meta(
            description="`frame`, the second of the video to take a frame from, or `none`; by default the picture "
            "embedded in the file.",
            examples=["frame", "83.5"],
        ),
    ] = None
    gaps: Annotated[
        Literal["skip", "silence"] | None, Meta(description="What becomes of parts of the file that have no sound.")
    ] = None


class UploadFields(OptionFields, frozen=True, kw_only=True):
    """What an upload may say of itself beside its name."""

    preset: Annotated[
        str | None,
        Meta(
            description="The name of a preset of GET /presets: its options apply unless others are given.",
            examples=["speech"],
        ),
    ] = None
    callback: Annotated[
        str | None,
        Meta(
            description="An address that is told when the job has ended, like a webhook.",
            examples=["https://example.org/mp3burst"],
        ),
    ] = None


class UploadQuery(UploadFields, frozen=True, kw_only=True):
    """The query of POST /upload."""

    filename: Annotated[str | None, Meta(description="The name of the file, if the body is the file itself.")] = None


class UploadForm(UploadFields, frozen=True, kw_only=True):
    """An upload as a form: the options, then the file."""

    file: Annotated[str, Meta(description="The file.", extra_json_schema={"format": "binary"})]
    filename: Annotated[
        str | None, Meta(description="The name of the file, in place of the one in the part's header.")
    ] = None


class UploadAddress(UploadFields, frozen=True, kw_only=True):
    """An upload by an address: the options are texts, as in a form."""

    url: Annotated[
        str,
        Meta(
            description="The address of the video itself, not of a page that shows it: `https://` or `http://`.",
            examples=["https://example.org/talk.mp4"],
        ),
    ]
    filename: Annotated[
        str | None,
        Meta(description="The name of the file; by default the one that its server or its address says."),
    ] = None


class UploadHeaders(Struct, frozen=True):
    """The request headers of POST /upload."""

    idempotency_key: Annotated[
        Annotated[str, Meta(min_length=1, max_length=255)] | None,
        Meta(description="Another upload with the same key gets the same response and is not stored again."),
    ] = field(default=None, name="Idempotency-Key")


class NewJob(Struct, frozen=True):
    """A job that was created."""

    job: Annotated[Id, Meta(description="The id of the job.")]
    fid: Annotated[Id, Meta(description="The id of the video.")]


_REFUSED: Final = {
    403: "UPLOAD_ROLE restricts uploads to another role.",
    413: "The file is larger than MAX_UPLOAD_BYTES, or does not fit into the user's quota.",
    415: "The file is neither audio nor video, or the body is not one that is accepted.",
    429: "The user has too many uploads, conversions or transfers in progress: wait for the seconds in `Retry-After`.",
    507: "The media store is full: wait for the seconds in `Retry-After`.",
}

UPLOAD: Final = Operation(
    "POST",
    "/upload",
    "Upload a video in one request",
    (
        Answer(
            202,
            "The video is stored and waits to be converted, or it waits to be fetched from its address.",
            NewJob,
            headers={"Location": "`/jobs/JOB`.", **LIMITS},
        ),
    ),
    scope="upload",
    query=UploadQuery,
    headers=UploadHeaders,
    body=Body({"multipart/form-data": UploadForm, "video/*": bytes, "audio/*": bytes, JSON: UploadAddress}),
    problems={
        **_REFUSED,
        400: "The form or the JSON is malformed, or the connection was lost.",
        403: "UPLOAD_ROLE restricts uploads to another role, or FETCH_URLS is not on and the upload names an address.",
        422: "A field is invalid, or there is no file; `errors` says what is wrong with each.",
        429: "The user has too many uploads, conversions or transfers in progress, or has had too many files fetched: "
        "wait for the seconds in `Retry-After`.",
    },
)

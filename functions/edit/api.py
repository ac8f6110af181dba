"""The operations of ``edit``, and their types."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from functions.mp3.chapters import MAX_CHAPTERS
from functions.mp3.id3 import MAX_LINES, MAX_TEXT
from functions.operation import JSON, LIMITS, TOO_MANY_TRANSFERS, Answer, Body, Id, Operation

#: Bytes of a cover, and of a JSON body with one in Base64.
MAX_COVER: Final = 8 << 20
MAX_BODY: Final = 12 << 20
#: Parts that one request makes: as many as there can be chapters.
MAX_PARTS: Final = MAX_CHAPTERS
_MAX_SECONDS: Final = 4_294_967  # four bytes of milliseconds

_Text = Annotated[str, Meta(max_length=MAX_TEXT)]
_Lines = Annotated[str, Meta(max_length=MAX_LINES)]
_Seconds = Annotated[float, Meta(ge=0, le=_MAX_SECONDS)]


class ChapterChange(Struct, frozen=True):
    """A chapter to write."""

    start: Annotated[_Seconds, Meta(description="Where it begins, in seconds.")]
    title: _Text
    end: Annotated[
        _Seconds | None, Meta(description="Where it ends; by default where the next one begins, or the MP3 ends.")
    ] = None


class TagChange(Struct, frozen=True, kw_only=True):
    """Changes of tags. What is left out stays as it is; an empty text or list removes."""

    title: _Text | None = None
    subtitle: _Text | None = None
    artist: Annotated[_Text | None, Meta(description="Several are separated by semicolons.")] = None
    album: _Text | None = None
    album_artist: _Text | None = None
    composer: _Text | None = None
    genre: _Text | None = None
    date: Annotated[_Text | None, Meta(description="A year, or a day such as 2026-11-27.")] = None
    track: Annotated[_Text | None, Meta(description="The number of the track, such as 3 or 3/12.")] = None
    disc: Annotated[_Text | None, Meta(description="The number of the disc, such as 1 or 1/2.")] = None
    publisher: _Text | None = None
    copyright: _Text | None = None
    comment: _Lines | None = None
    lyrics: _Lines | None = None
    chapters: Annotated[
        Annotated[list[ChapterChange], Meta(max_length=MAX_CHAPTERS)] | None,
        Meta(description="All chapters, in order."),
    ] = None
    cover: Annotated[
        str | None,
        Meta(
            description=f"A JPEG or PNG image of at most {MAX_COVER >> 20} MB in Base64.",
            extra_json_schema={"contentEncoding": "base64"},
        ),
    ] = None


class Chapter(Struct, frozen=True):
    """A chapter of an MP3, in seconds."""

    start: float
    end: float
    title: str


class Cover(Struct, frozen=True):
    """The cover of an MP3."""

    type: Annotated[str, Meta(description="Its content type.")]
    size: Annotated[int, Meta(ge=1, description="Its bytes.")]


class Tags(Struct, frozen=True, kw_only=True):
    """The tags of an MP3. What it does not have is empty, and the cover null."""

    title: str
    subtitle: str
    artist: Annotated[str, Meta(description="Several are separated by slashes.")]
    album: str
    album_artist: str
    composer: str
    genre: str
    date: str
    track: str
    disc: str
    publisher: str
    copyright: str
    comment: str
    lyrics: str
    chapters: list[Chapter]
    cover: Cover | None


class SplitRequest(Struct, frozen=True):
    """Where to cut an MP3."""

    at: Annotated[
        Literal["chapters"] | Annotated[list[_Seconds], Meta(min_length=1, max_length=MAX_PARTS - 1)],
        Meta(
            description="`chapters`: where each chapter begins. Or the seconds at which all parts but the first begin, "
            "in order."
        ),
    ]
    titles: Annotated[
        Annotated[list[_Text], Meta(max_length=MAX_PARTS)] | None,
        Meta(description="The titles of the parts; by default those of the chapters that begin there."),
    ] = None


class Part(Struct, frozen=True):
    """A part of an MP3, which is a job of its own."""

    job: Annotated[Id, Meta(description="The id of its job.")]
    mp3: Annotated[Id, Meta(description="The id of its MP3, for GET /download.")]
    filename: str
    start: Annotated[float, Meta(description="Where it begins in the MP3 that was split, in seconds.")]
    end: Annotated[float, Meta(description="Where it ends.")]


class Split(Struct, frozen=True):
    """The parts of an MP3, in order."""

    parts: list[Part]


_JOB: Final = {"job": "The id of the job, from the response of POST /upload or from GET /jobs."}
_PROBLEMS: Final = {
    404: "There is no such job, or it is another user's, or its MP3 was deleted.",
    409: "The job has no MP3 yet.",
}
SHOW_TAGS: Final = Operation(
    "GET",
    "/jobs/{job}/tags",
    "Show the tags of an MP3",
    (Answer(200, "The tags.", Tags),),
    scope="read",
    parameters=_JOB,
    problems=_PROBLEMS,
)
CHANGE_TAGS: Final = Operation(
    "PATCH",
    "/jobs/{job}/tags",
    "Change the tags of an MP3",
    (Answer(200, "The tags after the change.", Tags, headers=LIMITS),),
    description="The sound is neither encoded nor copied again. The MP3 keeps its id and its links, and gets another "
    "`ETag`. Sending the same change again changes nothing.",
    scope="upload",
    parameters=_JOB,
    body=Body({JSON: TagChange}),
    problems={
        **_PROBLEMS,
        409: "The job has no MP3 yet, or other requests are changing its tags.",
        413: "The tags do not fit into the user's quota.",
        429: TOO_MANY_TRANSFERS,
        507: "The media store has too little free space.",
    },
)
SPLIT: Final = Operation(
    "POST",
    "/jobs/{job}/split",
    "Split an MP3",
    (Answer(201, "The parts, which are finished jobs of their own.", Split, headers=LIMITS),),
    description="The sound is neither encoded nor copied again, and the parts play without a gap: end to end, they are "
    "the samples of the MP3 that was split, which stays as it is. Splitting at the same places again makes no further "
    "parts, and gives those that are there the titles of the request or of the chapters.",
    scope="upload",
    parameters=_JOB,
    body=Body({JSON: SplitRequest}),
    problems={
        **_PROBLEMS,
        409: "The job has no MP3 yet, or other requests are splitting it.",
        413: "The tags of the parts do not fit into the user's quota.",
        429: TOO_MANY_TRANSFERS,
        507: "The media store has too little free space.",
    },
)

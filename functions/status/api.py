"""The operations of ``status``, and their types."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from functions.operation import Answer, Id, Operation, Timestamp

#: The longest time, in seconds, that a request may wait for its job to change.
MAX_WAIT: Final = 25.0

_JOB: Final = {"job": "The id of the job, from the response of POST /upload or from GET /jobs."}
_NOT_FOUND: Final = {404: "There is no such job, or it is another user's."}


class ListQuery(Struct, frozen=True):
    """The query of GET /jobs."""

    limit: Annotated[int, Meta(ge=1, le=500, description="Jobs in the page.")] = 50
    after: Annotated[str | None, Meta(description="`next` of the previous page.")] = None


class JobQuery(Struct, frozen=True):
    """The query of GET /jobs/JOB."""

    wait: Annotated[
        float,
        Meta(
            ge=0,
            le=MAX_WAIT,
            description="Seconds to hold the response until the status changes; it may end early.",
        ),
    ] = 0.0


class ListedJob(Struct, frozen=True, kw_only=True):
    """A job: the conversion of one video."""

    job: Annotated[Id, Meta(description="The id of the job.")]
    fid: Annotated[Id, Meta(description="The id of the video.")]
    filename: Annotated[str, Meta(description="The name of the video.")]
    status: Literal["uploaded", "converting", "done", "failed"]
    progress: Annotated[float, Meta(ge=0, le=1, description="The part of the conversion that is done.")]
    mp3: Annotated[Id | None, Meta(description="The id of the MP3, once the job is done.")]
    duration: Annotated[float | None, Meta(description="Seconds of the MP3, once they are known.")]
    options: Annotated[
        dict[str, str | float | bool],
        Meta(description="The options that were given, as numbers: kbit/s, seconds, decibels."),
    ]
    error: Annotated[str | None, Meta(description="Why the job failed and what to do: one sentence.")]
    warning: Annotated[str | None, Meta(description="What is missing from the MP3.")]
    created: Timestamp
    finished: Timestamp | None


class ListedTrack(Struct, frozen=True, kw_only=True):
    """An audio track of a video. What the file does not say is null."""

    number: Annotated[int, Meta(ge=0, description="The value of the option `track` that selects it.")]
    codec: Annotated[str | None, Meta(description="libavcodec's name for its codec.")]
    channels: Annotated[int, Meta(ge=1)] | None
    language: Annotated[str | None, Meta(description="A code of ISO 639-2 or a tag of BCP 47.")]
    title: str | None
    default: Annotated[bool, Meta(description="Whether it is converted without the option `track`.")]


class DetailedJob(ListedJob, frozen=True, kw_only=True):
    """A job: the conversion of one video, with the video's audio tracks."""

    tracks: Annotated[
        list[ListedTrack] | None, Meta(description="The audio tracks once they are known, also if the job failed.")
    ]


class JobPage(Struct, frozen=True):
    """A page of the list of jobs."""

    jobs: list[ListedJob]
    next: Annotated[str | None, Meta(description="The value of `after` for the next page; null on the last one.")]


LIST: Final = Operation(
    "GET",
    "/jobs",
    "List jobs",
    (Answer(200, "Jobs, newest first.", JobPage),),
    scope="read",
    query=ListQuery,
)
SHOW: Final = Operation(
    "GET",
    "/jobs/{job}",
    "Show a job",
    (Answer(200, "The job.", DetailedJob),),
    description="With `wait`, the response is sent as soon as the job's status changes.",
    scope="read",
    parameters=_JOB,
    query=JobQuery,
    problems=_NOT_FOUND,
)
DELETE: Final = Operation(
    "DELETE",
    "/jobs/{job}",
    "Delete a job",
    (Answer(204, "The job, its video and its MP3 are deleted; the next sweep frees the space."),),
    scope="delete",
    parameters=_JOB,
    problems=_NOT_FOUND,
)

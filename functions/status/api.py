"""The operations of ``status``, and their types."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field

from functions.operation import JSON, Answer, Body, Id, Operation, Timestamp
from functions.options import MAX_SECONDS
from functions.waveform import MAX_POINTS

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


class EventsHeaders(Struct, frozen=True, rename={"last_event_id": "Last-Event-ID"}):
    """The headers of GET /jobs/events."""

    last_event_id: Annotated[str | None, Meta(description="The id of the last event that was received.")] = None


class WaveformHeaders(Struct, frozen=True):
    """The headers of GET /jobs/JOB/waveform."""

    if_none_match: Annotated[str, Meta(description="The `ETag` of the waveform that the client has.")] = field(
        default="", name="If-None-Match"
    )


class EstimateRequest(Struct, frozen=True):
    """A conversion that is planned."""

    seconds: Annotated[float, Meta(gt=0, le=MAX_SECONDS, description="How long the video is.")]
    options: Annotated[
        dict[str, str], Meta(max_length=50, description="The options, and the preset, as in the form of POST /upload.")
    ] = field(default_factory=dict)


class Estimate(Struct, frozen=True, kw_only=True):
    """What a conversion will about take."""

    duration: Annotated[float, Meta(description="Seconds of the MP3.")]
    mp3_bytes: Annotated[int, Meta(ge=0, description="Bytes of the MP3, without its cover.")]
    cpu: Annotated[float | None, Meta(description="Seconds of CPU; null if no job is known.")]
    seconds: Annotated[
        float | None, Meta(description="Seconds from when a worker takes the job until it is done; null likewise.")
    ]
    jobs: Annotated[int, Meta(ge=0, description="The user's latest jobs that `cpu` and `seconds` follow from.")]


class Pieces(Struct, frozen=True):
    """How many pieces of a job are encoded."""

    done: Annotated[int, Meta(ge=0)]
    total: Annotated[int, Meta(ge=1)]


class Receipt(Struct, frozen=True, kw_only=True):
    """What a conversion took. What is not known, or does not apply, is null."""

    fetch: Annotated[float | None, Meta(description="Seconds until the video had been fetched, if it was.")]
    queue: Annotated[float | None, Meta(description="Seconds from the end of the upload until a worker took the job.")]
    read: Annotated[float | None, Meta(description="Seconds until the sound of the video had been read.")]
    encode: Annotated[float | None, Meta(description="Seconds until it was encoded.")]
    join: Annotated[float | None, Meta(description="Seconds until its pieces were joined, if it was split.")]
    cpu: Annotated[float, Meta(ge=0, description="Seconds of CPU, without those of attempts that failed.")]
    video_bytes: int | None
    mp3_bytes: int | None
    pods: Annotated[int | None, Meta(description="Processes that worked on it.")]


class ListedJob(Struct, frozen=True, kw_only=True):
    """A job: the conversion of one video."""

    job: Annotated[Id, Meta(description="The id of the job.")]
    fid: Annotated[Id, Meta(description="The id of the video.")]
    filename: Annotated[str, Meta(description="The name of the video.")]
    status: Literal["fetching", "uploaded", "converting", "done", "failed"]
    stage: Annotated[
        Literal["waiting", "fetching", "reading", "encoding", "joining", "done", "failed"],
        Meta(
            description="What is being done: `waiting` for a worker, `fetching` the video from its address, "
            "`reading` it, and so on."
        ),
    ]
    progress: Annotated[
        float, Meta(ge=0, le=1, description="The part of the conversion that is done, or of the video that is fetched.")
    ]
    pieces: Annotated[Pieces | None, Meta(description="The pieces of a long job, which are encoded at once.")]
    eta: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(description="Seconds that encoding will about take from now, once known."),
    ]
    mp3: Annotated[Id | None, Meta(description="The id of the MP3, once the job is done.")]
    duration: Annotated[float | None, Meta(description="Seconds of the MP3, once they are known.")]
    options: Annotated[
        dict[str, str | float | bool | list[int]],
        Meta(
            description="The options that were given, as numbers: kbit/s, seconds, decibels; `track` as two numbers if "
            "two tracks were named."
        ),
    ]
    error: Annotated[str | None, Meta(description="Why the job failed and what to do: one sentence.")]
    error_code: Annotated[
        str | None, Meta(description="The same for programs, if the video could not be fetched; null otherwise.")
    ]
    warning: Annotated[str | None, Meta(description="What is missing from the MP3.")]
    receipt: Annotated[Receipt | None, Meta(description="What the conversion took, once the job is done.")]
    created: Timestamp
    finished: Timestamp | None
    source: Annotated[Id | None, Meta(description="The job whose MP3 this one is a part of; null if it was converted.")]


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


class Waveform(Struct, frozen=True, kw_only=True):
    """The waveform of an MP3, as audiowaveform's version 2 has it in JSON."""

    version: Literal[2]
    channels: Annotated[Literal[1], Meta(description="All channels of the MP3 are in one waveform.")]
    sample_rate: Annotated[int, Meta(description="Samples a second of the MP3.")]
    samples_per_pixel: Annotated[int, Meta(description="Samples of a point; the last one may have fewer.")]
    bits: Literal[8]
    length: Annotated[int, Meta(ge=1, le=MAX_POINTS, description="Number of points.")]
    data: Annotated[
        list[Annotated[int, Meta(ge=-128, le=127)]],
        Meta(description="The lowest and the highest sample of each point in turn."),
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
    problems={404: "There is no job with the id in `after`."},
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
WAVEFORM: Final = Operation(
    "GET",
    "/jobs/{job}/waveform",
    "Show the waveform of an MP3",
    (
        Answer(200, "The waveform.", Waveform, headers={"ETag": "Names the waveform, which never changes."}),
        Answer(304, "The client has this waveform.", headers={"ETag": "That of the waveform."}),
    ),
    description=(
        "In the [format of BBC's audiowaveform](https://github.com/bbc/audiowaveform/blob/master/doc/DataFormat.md), "
        "which peaks.js reads. It is measured while the MP3 is encoded, "
        "and has at most 4,096 points."
    ),
    scope="read",
    parameters=_JOB,
    headers=WaveformHeaders,
    problems={
        404: "There is no such job, or it is another user's, or its MP3 has no waveform.",
        409: "The job is not done.",
    },
)
EVENTS: Final = Operation(
    "GET",
    "/jobs/events",
    "Follow all jobs",
    (
        Answer(
            200,
            "Server-sent events.",
            content_type="text/event-stream",
            headers={"X-Accel-Buffering": "no: proxies pass events on at once."},
        ),
    ),
    description=(
        "A stream of [server-sent events](https://html.spec.whatwg.org/multipage/server-sent-events.html), as "
        '`EventSource` in browsers reads it. First comes the event `jobs` with `{"jobs": [...]}`: all unfinished jobs, '
        "and those that have ended since the event `Last-Event-ID`, in the last hour. Then comes `job` with a job "
        'whenever one is new or has changed, and `deleted` with `{"job": ID}`. Jobs are as in the list. The '
        "connection ends after 25 seconds; `retry` says when to come back: after a second while something happens, "
        "later and later while nothing does."
    ),
    scope="read",
    headers=EventsHeaders,
    problems={429: "The user, or the network, follows jobs on too many connections at once."},
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
ESTIMATE: Final = Operation(
    "POST",
    "/estimate",
    "Estimate a conversion",
    (Answer(200, "What it will about take.", Estimate),),
    description="The size follows from the bit rate; sound that is MP3 already keeps its own if no option changes it. "
    "The times follow from what the user's latest jobs of 10 seconds and more have taken.",
    scope="read",
    body=Body({JSON: EstimateRequest}),
)

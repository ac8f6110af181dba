"""The operations of ``admin``, and their types."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from functions.operation import JSON, Answer, Body, Id, Operation, Timestamp

_USER: Final = {"user": "The id of the user, from GET /admin/users."}
_NOT_ALLOWED: Final = (
    "The user is no administrator, the API key lacks the scope, or the request comes from another site."
)
_LAST: Final = "The user is the last administrator."
_NO_USER: Final = {403: _NOT_ALLOWED, 404: "There is no such user."}
_LIMIT: Final = "Rows in the page."
_AFTER: Final = "`next` of the previous page."

JobState = Literal["fetching", "uploaded", "converting", "encoding", "joining", "done", "failed"]
StoreName = Literal["videos", "pieces", "mp3s"]
QueueName = Literal["fetch", "convert", "encode", "join", "notify", "hook"]


class UsersQuery(Struct, frozen=True, kw_only=True):
    """The query of GET /admin/users."""

    limit: Annotated[int, Meta(ge=1, le=500, description=_LIMIT)] = 50
    after: Annotated[str | None, Meta(description=_AFTER)] = None
    search: Annotated[
        str, Meta(max_length=254, description="Only users whose username, name or address contains this.")
    ] = ""
    role: Annotated[Literal["user", "admin"] | None, Meta(description="Only users with this role.")] = None
    locked: Annotated[bool | None, Meta(description="Only users who are locked, or only those who are not.")] = None


class UserQuota(Struct, frozen=True):
    """What a user may have in place of the installation's quota."""

    bytes: Annotated[
        Annotated[int, Meta(ge=0, le=1 << 60)] | None,
        Meta(description="Of videos and MP3s; null for the installation's quota, 0 for no limit."),
    ]
    jobs: Annotated[
        Annotated[int, Meta(ge=0, le=1_000_000)] | None,
        Meta(description="Uploads and conversions in progress; null for the installation's quota, 0 for no limit."),
    ]


class ManagedUser(Struct, frozen=True, kw_only=True):
    """A user, as administrators see it."""

    id: Id
    username: Annotated[str, Meta(description="What the user logs in with.")]
    name: Annotated[str, Meta(description="The name in mails.")]
    email: Annotated[str, Meta(description="Where mails are sent to.")]
    confirmed: Annotated[bool, Meta(description="Whether the address is confirmed.")]
    role: Literal["user", "admin"]
    created: Timestamp
    locked: Annotated[Timestamp | None, Meta(description="Since when the user is locked; null if not.")]
    bytes: Annotated[int, Meta(ge=0, description="Of videos and MP3s, with what is reserved for those in progress.")]
    bytes_limit: Annotated[int | None, Meta(description="The most of it; null without a limit.")]
    jobs: Annotated[int, Meta(ge=0, description="Uploads and conversions in progress.")]
    jobs_limit: Annotated[int | None, Meta(description="The most of them; null without a limit.")]
    quota: Annotated[UserQuota, Meta(description="What an administrator has set for this user.")]


class UserPage(Struct, frozen=True):
    """A page of the list of users."""

    users: list[ManagedUser]
    next: Annotated[str | None, Meta(description="The value of `after` for the next page; null on the last one.")]


class UserChange(Struct, frozen=True, kw_only=True):
    """What to change of a user. What is left out stays as it is."""

    role: Annotated[
        Literal["user", "admin"] | None,
        Meta(description="`admin` makes the user an administrator, `user` an ordinary one."),
    ] = None
    locked: Annotated[
        bool | None,
        Meta(description="Whether to keep the user out: no login, token, API key, feed or shared link works."),
    ] = None


class ObservedJobsQuery(Struct, frozen=True, kw_only=True):
    """The query of GET /admin/jobs."""

    limit: Annotated[int, Meta(ge=1, le=500, description=_LIMIT)] = 50
    after: Annotated[str | None, Meta(description=_AFTER)] = None
    user: Annotated[Id | None, Meta(description="Only jobs of the user with this id.")] = None
    state: Annotated[JobState | None, Meta(description="Only jobs in this state.")] = None


class ObservedJob(Struct, frozen=True, kw_only=True):
    """A job of any user, without its file's name, its options and its MP3."""

    job: Annotated[Id, Meta(description="The id of the job.")]
    user: Annotated[Id, Meta(description="The id of its user.")]
    username: Annotated[str | None, Meta(description="Null if the user was deleted.")]
    state: JobState
    deferred: Annotated[bool, Meta(description="Whether it waits because enough of its user's jobs are worked on.")]
    attempts: Annotated[int, Meta(ge=0, description="At its stage.")]
    error: Annotated[str | None, Meta(description="Why the job failed and what to do: one sentence for its user.")]
    warning: Annotated[str | None, Meta(description="What is missing from the MP3.")]
    duration: Annotated[float | None, Meta(description="Seconds of the MP3, once they are known.")]
    video_bytes: int | None
    mp3_bytes: int | None
    cpu: Annotated[float, Meta(ge=0, description="Seconds of CPU, without those of attempts that failed.")]
    pods: Annotated[int | None, Meta(description="Processes that worked on it.")]
    created: Timestamp
    started: Timestamp | None
    finished: Timestamp | None


class ObservedJobPage(Struct, frozen=True):
    """A page of the list of all users' jobs."""

    jobs: list[ObservedJob]
    next: Annotated[str | None, Meta(description="The value of `after` for the next page; null on the last one.")]


class Queue(Struct, frozen=True, kw_only=True):
    """The unfinished work of one function. Each row is counted once, but for `overdue`."""

    queue: Annotated[QueueName, Meta(description="The function that does the work.")]
    working: Annotated[int, Meta(ge=0, description="Being worked on.")]
    waiting: Annotated[int, Meta(ge=0, description="Waiting for a worker.")]
    deferred: Annotated[int, Meta(ge=0, description="Waiting for their user's turn.")]
    retrying: Annotated[int, Meta(ge=0, description="Waiting for another attempt, after one that failed.")]
    overdue: Annotated[
        int,
        Meta(
            ge=0,
            description="Those of `waiting` and `retrying` that are due: dead letters, lost events and retries, whose "
            "events the next sweep emits.",
        ),
    ]
    oldest: Annotated[Timestamp | None, Meta(description="When the oldest was created; null if there is none.")]


class GivenUp(Struct, frozen=True, kw_only=True):
    """What was given up in the last 7 days."""

    jobs: Annotated[int, Meta(ge=0, description="Jobs that have failed.")]
    mails: Annotated[int, Meta(ge=0, description="Mails that could not be sent.")]
    deliveries: Annotated[int, Meta(ge=0, description="Deliveries to webhooks that were not accepted.")]


class QueueList(Struct, frozen=True):
    """What waits, and what was given up."""

    queues: list[Queue]
    given_up: GivenUp


class Retried(Struct, frozen=True):
    """How much is due now."""

    rows: Annotated[int, Meta(ge=0, description="Rows that were to be tried later.")]


class StoreUse(Struct, frozen=True, kw_only=True):
    """What one media store has."""

    store: StoreName
    blobs: Annotated[int, Meta(ge=0)]
    bytes: Annotated[int, Meta(ge=0, description="What counts towards quotas: also what is reserved.")]
    expired: Annotated[int, Meta(ge=0, description="Blobs that the next sweep deletes.")]


class UserUse(Struct, frozen=True, kw_only=True):
    """What one user has stored."""

    user: Annotated[Id, Meta(description="The id of the user.")]
    username: Annotated[str | None, Meta(description="Null if the user was deleted.")]
    bytes: Annotated[int, Meta(ge=0)]


class Disk(Struct, frozen=True, kw_only=True):
    """A disk of media stores, as the latest sweep found it: sweeps run every 5 minutes."""

    stores: Annotated[list[StoreName], Meta(description="What is on it.")]
    level: Annotated[
        Literal["enough", "low", "full", "unknown"],
        Meta(description="`low` if less than twice `floor` is free, `full` if uploads are refused."),
    ]
    free: Annotated[int | None, Meta(description="Bytes; null if the media store does not tell.")]
    total: Annotated[int | None, Meta(description="Bytes; null if the media store does not tell.")]
    used: Annotated[
        int | None,
        Meta(description="Bytes; those of the stores alone if `total` is null. Null before the first measurement."),
    ]
    floor: Annotated[int | None, Meta(description="Uploads are refused when less is free (`MIN_FREE_BYTES`).")]
    measured: Annotated[Timestamp | None, Meta(description="When it was measured; null if it never was.")]
    silent_since: Annotated[
        Timestamp | None, Meta(description="Since when the media store has not answered; null if it answers.")
    ]


class Storage(Struct, frozen=True):
    """What is stored, as the database has it, and the space of the disks."""

    disks: Annotated[list[Disk], Meta(description="Empty before the first sweep.")]
    stores: list[StoreUse]
    largest: Annotated[list[UserUse], Meta(description="The ten users who have stored most.")]


LIST_USERS: Final = Operation(
    "GET",
    "/admin/users",
    "List users",
    (Answer(200, "Users in the order of their usernames.", UserPage),),
    scope="admin",
    query=UsersQuery,
    problems={403: _NOT_ALLOWED, 404: "There is no user with the id in `after`."},
)
SHOW_USER: Final = Operation(
    "GET",
    "/admin/users/{user}",
    "Show a user",
    (Answer(200, "The user.", ManagedUser),),
    scope="admin",
    parameters=_USER,
    problems=_NO_USER,
)
CHANGE_USER: Final = Operation(
    "PATCH",
    "/admin/users/{user}",
    "Change the role, lock or unlock",
    (Answer(200, "The user. Other functions know it within 30 seconds.", ManagedUser),),
    description="A user who is locked is kept out and gets no emails, and what is in progress goes on. Unlocking "
    "brings back all but these emails.",
    scope="admin",
    parameters=_USER,
    body=Body({JSON: UserChange}),
    problems={**_NO_USER, 409: _LAST},
)
SET_QUOTA: Final = Operation(
    "PUT",
    "/admin/users/{user}/quota",
    "Set the quota of a user",
    (Answer(200, "The user. Administrators have no quota, whatever is set.", ManagedUser),),
    scope="admin",
    parameters=_USER,
    body=Body({JSON: UserQuota}),
    problems=_NO_USER,
)
END_SESSIONS: Final = Operation(
    "DELETE",
    "/admin/users/{user}/sessions",
    "Log a user out everywhere",
    (Answer(204, "All tokens are withdrawn, and refused everywhere within 60 seconds. API keys stay."),),
    scope="admin",
    parameters=_USER,
    problems=_NO_USER,
)
DELETE_USER: Final = Operation(
    "DELETE",
    "/admin/users/{user}",
    "Delete a user",
    (Answer(204, "Nobody can log in any more; the next sweeps delete everything of the user. This cannot be undone."),),
    scope="admin",
    parameters=_USER,
    problems={**_NO_USER, 409: "It is the administrator's own account: POST /me/deletion deletes it."},
)
LIST_JOBS: Final = Operation(
    "GET",
    "/admin/jobs",
    "List the jobs of all users",
    (Answer(200, "Jobs, newest first.", ObservedJobPage),),
    description="Names of files and options are private, as MP3s are: a user who asks for help says when it was.",
    scope="admin",
    query=ObservedJobsQuery,
    problems={403: _NOT_ALLOWED, 404: "There is no job with the id in `after`."},
)
LIST_QUEUES: Final = Operation(
    "GET",
    "/admin/queues",
    "Show what waits",
    (Answer(200, "What waits for each function, and what was given up.", QueueList),),
    scope="admin",
    problems={403: _NOT_ALLOWED},
)
RETRY_QUEUE: Final = Operation(
    "POST",
    "/admin/queues/{queue}/retry",
    "Try soon what waits",
    (Answer(202, "The next sweep, within 5 minutes, emits the events.", Retried),),
    description="For when a mail server or a receiver works again: what waits for another attempt is due at once.",
    scope="admin",
    parameters={"queue": "The name of the queue, from GET /admin/queues."},
    problems={403: _NOT_ALLOWED, 404: "There is no such queue."},
)
SHOW_STORAGE: Final = Operation(
    "GET",
    "/admin/storage",
    "Show what is stored",
    (Answer(200, "What the media stores have, whose it is, and the space of the disks.", Storage),),
    scope="admin",
    problems={403: _NOT_ALLOWED},
)

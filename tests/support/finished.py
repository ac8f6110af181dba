"""A job that is done, for tests of what is made of one without a database."""

from events.schema import JobId
from functions.media import BlobId
from functions.options import Options
from functions.state.jobs import Job
from functions.state.schema import UserId

DONE = Job(
    id=JobId("a" * 32),
    owner=UserId("b" * 32),
    filename="talk.mp4",
    options=Options(),
    state="done",
    video=BlobId("c" * 24),
    mp3=BlobId("d" * 24),
    total=1,
    done=1,
    error=None,
    warning=None,
    duration=100.0,
    created_at=1_700_000_000_000,
    finished_at=1_700_000_100_000,
)

"""What an upload takes, whichever way it comes in, and who may."""

import functools
import os
from dataclasses import dataclass, field
from typing import Final

from flask import Request

from events.errors import Mp3burstError
from events.publish import publisher
from functions.auth.tokens import Identity, NotAllowed, verifier
from functions.media import Media, connect
from functions.settings import number
from functions.state.blobs import Blobs
from functions.state.database import Database, url
from functions.state.jobs import Jobs
from functions.state.outbox import Outbox
from functions.upload.limits import Quota
from functions.upload.tus.uploads import HOURS, Uploads

#: Seconds that an upload waits for the broker; sweep does what it does not.
PUBLISH_BUDGET: Final = 1.0
MAX_BYTES: Final = 8 << 30
#: Uploads and conversions that a user may have under way: enough for a folder of clips, and no queue for a day.
QUOTA_JOBS: Final = 200


class TooLarge(Mp3burstError):
    """The file is larger than MAX_UPLOAD_BYTES."""

    status = 413


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What an upload takes."""

    media: Media
    blobs: Blobs
    jobs: Jobs
    uploads: Uploads
    outbox: Outbox
    max_bytes: int = MAX_BYTES
    quota: Quota = field(default_factory=Quota)


@functools.cache
def dependencies() -> Dependencies:
    """What this process's environment names."""
    database = Database(url(os.environ))
    outbox = Outbox(database, publisher(os.environ, "/mp3burst/upload"))
    most = int(number(os.environ, "MAX_UPLOAD_BYTES", MAX_BYTES, 1))
    uploads = Uploads(database, number(os.environ, "UPLOAD_HOURS", HOURS, 0.25))
    quota = Quota(int(number(os.environ, "QUOTA_JOBS", QUOTA_JOBS)), int(number(os.environ, "QUOTA_BYTES", 0)))
    return Dependencies(connect(os.environ), Blobs(database), Jobs(database), uploads, outbox, most, quota)


def authorize(request: Request) -> Identity:
    """Who uploads.

    Raises:
        NotAuthenticated: nobody that we know. NotAllowed: somebody who may not.
    """
    identity = verifier(os.environ).authenticate(request.headers.get("Authorization"))
    if os.environ.get("UPLOAD_ROLE", "") not in ("", identity.role):
        raise NotAllowed("Only administrators may upload here: ask one of them.")
    return identity


def too_large(most: int) -> TooLarge:
    """The error for a file that is over the limit."""
    return TooLarge(f"The file is too large: at most {most} bytes are taken.")

"""Records resumable uploads: how far each one is, when it expires, and which request may write it.

An upload expires together with its blob; the blob's row has the time.
"""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, insert, select, update

from events.errors import Mp3burstError
from events.schema import JobId
from functions.media import BlobId, Checkpoint, StaleWriter, new_blob_id
from functions.options import Options
from functions.state.blobs import RENEWAL_SECONDS, Grant
from functions.state.database import Conflict, Database
from functions.state.jobs import new_job_id
from functions.state.leases import Lease, Leases, LeaseTerms
from functions.state.schema import HOUR, UserId, blobs, is_id, now, uploads

#: The lease is renewed whenever progress is saved, not from a thread. So a client that resumes after a lost connection
#: waits no longer than this for a request that still reads from the old connection.
TERMS: Final = LeaseTerms(lease=6_000, renewal=1_500, due=7_500)
#: Hours that an upload may wait for its next part, unless UPLOAD_HOURS says otherwise.
HOURS: Final = 24.0
#: Milliseconds after which a writer has certainly noticed that its upload was deleted.
_GRACE: Final = 60_000


class UploadNotFound(Mp3burstError):
    """The upload does not exist, or belongs to another user."""

    status = 404
    security_event = "object.refused"


class UploadGone(Mp3burstError):
    """The upload has expired, or its data was deleted."""

    status = 410


class UploadLocked(Mp3burstError):
    """Another request is writing this upload."""

    status = 423


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload, read from its row and its blob's. Times are in milliseconds, sizes in bytes.

    Attributes:
        blob: the id of its file in the videos store.
        job: the id of the job that it will become.
        options: that job's options in JSON.
        about: the Upload-Metadata header of the request that created it.
        length: the size of the complete file, or None if it is not known yet.
        received: bytes that are durable.
        crc32c: the CRC-32C of those bytes in hexadecimal.
        state: ``open``, or ``done`` once it is a job.
        attempts: how many requests have claimed it, which is the number of the latest.
        expires_at: when it expires; None once a job has the file.
        expires_in: time from now until then.
        size: bytes that are reserved in its owner's quota.
    """

    id: str
    owner: UserId
    blob: BlobId
    job: JobId
    filename: str
    options: str
    about: str
    length: int | None
    received: int
    crc32c: str
    state: str
    attempts: int
    expires_at: int | None
    expires_in: int | None
    size: int

    @property
    def checkpoint(self) -> Checkpoint:
        """What is durable of the file."""
        return Checkpoint(self.received, self.crc32c)

    @property
    def is_complete(self) -> bool:
        """Whether all of the file is durable."""
        return self.received == self.length


@dataclass(frozen=True, slots=True)
class _Progress:
    """What a request may have changed between ``find`` and ``writing``."""

    length: int | None
    received: int
    crc32c: str

    @classmethod
    def from_row(cls, row: Row[Any]) -> "_Progress":
        return cls(row.length, row.received, row.crc32c)


class Claim:
    """The exclusive right of one request to write an upload.

    Attributes:
        upload: the upload as it was when it was claimed.
        is_released: whether ``end`` has given the upload back.
    """

    def __init__(self, uploads: "Uploads", upload: Upload, lease: Lease[_Progress]) -> None:
        self.upload = upload
        self.is_released = False
        self._uploads = uploads
        self._lease = lease
        self._extended = time.monotonic()

    def save(self, checkpoint: Checkpoint) -> None:
        """Records progress and renews the claim.

        Raises:
            StaleWriter: another request has taken over the upload.
            UploadNotFound, UploadGone: it was deleted or has expired.
        """
        self._renew(received=checkpoint.size, crc32c=checkpoint.crc32c)

    def renew(self) -> None:
        """Renews the claim without progress. Raises what ``save`` does."""
        self._renew()

    def declare(self, length: int) -> Upload:
        """Records the length of the complete file, and returns the upload with it. Raises what ``save`` does."""
        self._renew(length=length)
        self.upload = replace(self.upload, length=length)
        return self.upload

    def end(self, checkpoint: Checkpoint) -> Upload:
        """Records progress, releases the upload, and returns it as it is now. Raises what ``save`` does."""
        received = checkpoint.size
        crc32c = checkpoint.crc32c
        self._uploads.renew(self.upload, self._lease, lease=None, lease_until=None, received=received, crc32c=crc32c)
        self.is_released = True
        return replace(self.upload, received=received, crc32c=crc32c)

    def _renew(self, **changes: object) -> None:
        self._uploads.renew(self.upload, self._lease, **changes)
        if time.monotonic() - self._extended > RENEWAL_SECONDS:
            self._uploads.extend(self.upload)
            self._extended = time.monotonic()


class Uploads:
    """The uploads table."""

    def __init__(self, database: Database, hours: float = HOURS, terms: LeaseTerms = TERMS) -> None:
        """Works on the table of this database; uploads expire after so many hours without a part."""
        self._database = database
        self._ttl = int(hours * HOUR)
        self._leases = Leases(database, uploads, _Progress.from_row, ("open",), terms, max_attempts=None)

    def begin(
        self, owner: UserId, filename: str, options: Options, about: str, length: int | None, grant: Grant
    ) -> Upload:
        """Records a new upload and its blob; nothing is stored yet. Raises what ``grant`` does.

        Args:
            owner: the user's id.
            filename: the video's file name.
            options: the options of the conversion.
            about: the Upload-Metadata header.
            length: bytes of the complete file, or None if the client sends it later.
            grant: reserves bytes in the owner's quota.
        """
        upload = secrets.token_hex(16)
        blob = new_blob_id()
        job = new_job_id()
        blob_row = {"id": blob, "store": "videos", "owner": owner, "job": job, "expires_at": now() + self._ttl}
        upload_row = {
            "id": upload,
            "owner": owner,
            "blob": blob,
            "job": job,
            "filename": filename,
            "options": options.to_json(),
            "about": about,
            "length": length,
            "state": "open",
            "created_at": now(),
        }

        def begin(connection: Connection) -> None:
            connection.execute(insert(blobs).values({**blob_row, "size": grant(connection, blob)}))
            connection.execute(insert(uploads).values(upload_row))

        # Ids are never reused, so a conflict means that the first try was committed and only its answer was lost.
        with suppress(Conflict):
            self._database.run(begin)
        return self.find(upload, owner)

    def find(self, upload: str, owner: UserId) -> Upload:
        """Returns the owner's upload. Costs one query by two primary keys.

        Raises:
            UploadNotFound: it does not exist, or belongs to another user.
            UploadGone: it has expired.
        """
        expires_in = (blobs.c.expires_at - now()).label("expires_in")
        query = (
            select(uploads, blobs.c.expires_at, blobs.c.size, expires_in)
            .join_from(uploads, blobs, blobs.c.id == uploads.c.blob)
            .where(uploads.c.id == upload, uploads.c.owner == owner)
        )
        row = None
        if is_id(upload):
            row = self._database.read(lambda connection: connection.execute(query).one_or_none())
        if row is None:
            raise UploadNotFound("There is no such upload: start a new one.")
        if row.expires_in is not None and row.expires_in <= 0:
            raise _expired()
        return Upload(**{name: getattr(row, name) for name in Upload.__dataclass_fields__})

    @contextmanager
    def writing(self, upload: Upload) -> Iterator[Claim]:
        """Claims the upload while a part arrives.

        If another request has it, waits until that request renews its claim, which refuses this one, or until the claim
        expires because that request has died.

        Args:
            upload: the upload as it was found.

        Raises:
            UploadLocked: another request is writing it.
            UploadNotFound, UploadGone: it was deleted or has expired.
        """
        if upload.expires_in is not None and upload.expires_in < self._ttl * 0.9:
            self.extend(upload)
            upload = self.find(upload.id, upload.owner)
        row = and_(uploads.c.id == upload.id, uploads.c.owner == upload.owner)
        lease = self._leases.claim(row)
        if lease is None:
            self.find(upload.id, upload.owner)
            raise UploadLocked("Another request is writing this upload: wait a moment, then ask for its offset.")
        upload = replace(upload, attempts=lease.attempts, **asdict(lease.row))
        claim = Claim(self, upload, lease)
        try:
            yield claim
        finally:
            if not claim.is_released:
                self._leases.renew(lease, lease=None, lease_until=None)

    def renew(self, upload: Upload, lease: Lease[_Progress], /, **changes: Any) -> None:
        """Renews the lease and changes columns of the upload's row.

        Raises:
            StaleWriter: the lease is lost.
            UploadNotFound, UploadGone: the upload was deleted or has expired.
        """
        if not self._leases.renew(lease, **changes):
            self.find(upload.id, upload.owner)
            raise StaleWriter

    def close(self, upload: Upload) -> None:
        """Records that the upload has become a job."""
        statement = update(uploads).where(uploads.c.id == upload.id).values(state="done")
        self._database.run(lambda connection: connection.execute(statement))

    def delete(self, upload: Upload) -> bool:
        """Deletes the upload's row, and lets its blob expire unless a job has it.

        Returns:
            Whether the file may be deleted at once. If a request may be writing it, sweep deletes it after ``_GRACE``.
        """
        row = and_(uploads.c.id == upload.id, uploads.c.owner == upload.owner)
        # A request gives its lease back when it ends. One whose client pauses lives on after the lease has expired.
        lease = select(uploads.c.lease).where(row).with_for_update()

        def forget(connection: Connection) -> bool:
            is_claimed = connection.scalar(lease) is not None
            _expire(connection, upload.blob, _GRACE if is_claimed else -1)
            connection.execute(delete(uploads).where(row))
            return not is_claimed

        return self._database.run(forget)

    def extend(self, upload: Upload) -> None:
        """Postpones the upload's expiry; UploadGone if it has expired."""
        alive = and_(blobs.c.id == upload.blob, blobs.c.expires_at > now())
        statement = update(blobs).where(alive).values(expires_at=now() + self._ttl)
        if not self._database.run(lambda connection: connection.execute(statement).rowcount):
            raise _expired()


def _expired() -> UploadGone:
    return UploadGone("This upload has expired: start a new one.")


def _expire(connection: Connection, blob: str, delay: int) -> None:
    """Lets a blob that no job has expire in ``delay`` milliseconds."""
    without_job: ColumnElement[bool] = and_(blobs.c.id == blob, blobs.c.expires_at.is_not(None))
    connection.execute(update(blobs).where(without_job).values(expires_at=now() + delay))

"""Uploads on record that come in over many requests: how far they are, and who writes them.

An upload lives as long as its blob may: the blob's row has the time at which both expire.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, insert, select, update

from events.errors import Mp3burstError
from events.schema import JobId
from functions.auth.accounts import UserId
from functions.media import BlobId, Checkpoint, StaleWriter, new_blob_id
from functions.options import Options
from functions.state.blobs import Grant
from functions.state.database import Conflict, Database
from functions.state.jobs import new_job_id
from functions.state.leases import Lease, Leases, LeaseTerms
from functions.state.schema import blobs, now, uploads

#: Kept by progress, not by a thread: whoever goes on after a line was cut waits no longer than this for a request that
#: still listens to the dead line.
TERMS: Final = LeaseTerms(lease=6_000, renewal=1_500, due=7_500)
HOURS: Final = 24.0
_HOUR: Final = 3_600_000
#: Milliseconds after which a writer has noticed that its upload was deleted.
_GRACE: Final = 60_000
_UPLOAD_ID: Final = re.compile("[0-9a-f]{32}")


class UploadNotFound(Mp3burstError):
    """No such upload, or somebody else's."""

    status = 404


class UploadGone(Mp3burstError):
    """The upload has expired."""

    status = 410


class UploadLocked(Mp3burstError):
    """Another request is writing this upload."""

    status = 423


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload as its row has it; times in milliseconds.

    Attributes:
        about: its Upload-Metadata.
        length: its size when it is whole, or None where that is not known yet.
        received: bytes that are checkpoint.
        attempts: the number of its last writer.
        expires_at: None where a job keeps the file.
        lives: milliseconds until then.
        size: bytes for which its owner has room.
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
    lives: int | None
    size: int

    @property
    def checkpoint(self) -> Checkpoint:
        """What is checkpoint."""
        return Checkpoint(self.received, self.crc32c)

    @property
    def is_whole(self) -> bool:
        """Whether every byte is checkpoint."""
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
    """A request's hold on the upload that it writes."""

    def __init__(self, record: "Uploads", upload: Upload, lease: Lease[_Progress]) -> None:
        self.upload = upload
        self.is_over = False
        self._record, self._lease = record, lease

    def save(self, checkpoint: Checkpoint) -> None:
        """So much is kept now; StaleWriter or UploadNotFound where the upload is another's, or gone."""
        self._record.renew(self.upload, self._lease, received=checkpoint.size, crc32c=checkpoint.crc32c)

    def renew(self) -> None:
        """Hold on without progress; raises as ``save``."""
        self._record.renew(self.upload, self._lease)

    def end(self, checkpoint: Checkpoint) -> Upload:
        """Let go of the upload, having kept so much; the upload as it is now. Raises as ``save``."""
        received, crc32c = checkpoint.size, checkpoint.crc32c
        self._record.renew(self.upload, self._lease, lease=None, lease_until=None, received=received, crc32c=crc32c)
        self.is_over = True
        return replace(self.upload, received=received, crc32c=crc32c)


class Uploads:
    """The uploads table."""

    def __init__(self, database: Database, hours: float = HOURS, terms: LeaseTerms = TERMS) -> None:
        self._database, self._ttl = database, int(hours * _HOUR)
        self._leases = Leases(database, uploads, _Progress.from_row, ("open",), terms, max_attempts=None)

    def begin(
        self, owner: str, filename: str, options: Options, about: str, length: int | None, admit: Grant
    ) -> Upload:
        """Put a new upload on record, and its blob; nothing is stored yet. Raises what ``admit`` does."""
        upload, blob, job = secrets.token_hex(16), new_blob_id(), new_job_id()
        file = {"id": blob, "store": "videos", "owner": owner, "job": job, "expires_at": now() + self._ttl}
        row = {
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
            connection.execute(insert(blobs).values({**file, "size": admit(connection, blob)}))
            connection.execute(insert(uploads).values(row))

        # A conflict: the first commit took place although its answer was lost; ids are never drawn twice.
        with suppress(Conflict):
            self._database.run(begin)
        return self.find(upload, owner)

    def find(self, upload: str, owner: str) -> Upload:
        """The owner's upload, by one look at two primary keys.

        Raises:
            UploadNotFound: there is none, or it is somebody else's.
            UploadGone: it has expired.
        """
        lives = (blobs.c.expires_at - now()).label("lives")
        query = select(uploads, blobs.c.expires_at, blobs.c.size, lives)
        both = query.join_from(uploads, blobs, blobs.c.id == uploads.c.blob)
        mine = both.where(uploads.c.id == upload, uploads.c.owner == owner)
        row = None
        if _UPLOAD_ID.fullmatch(upload):
            row = self._database.run(lambda connection: connection.execute(mine).one_or_none())
        if row is None:
            raise UploadNotFound("There is no such upload: begin a new one.")
        if row.lives is not None and row.lives <= 0:
            raise UploadGone("This upload has expired: begin a new one.")
        return Upload(**{name: getattr(row, name) for name in Upload.__dataclass_fields__})

    @contextmanager
    def writing(self, upload: Upload, length: int | None = None) -> Iterator[Claim]:
        """Hold the upload while bytes come in. Another's hold is waited for until it moves, or is past.

        Args:
            upload: as it was found.
            length: told with this request, of an upload whose length was not known.

        Raises:
            UploadLocked: another request is writing it.
            UploadNotFound, UploadGone: it is no more.
        """
        if upload.lives is not None and upload.lives < self._ttl * 0.9:
            self._prolong(upload)
            upload = self.find(upload.id, upload.owner)
        row = and_(uploads.c.id == upload.id, uploads.c.owner == upload.owner)
        lease = self._leases.claim(row, **({} if length is None else {"length": length}))
        if lease is None:
            self.find(upload.id, upload.owner)
            raise UploadLocked("Another request is writing this upload: wait a moment, then ask for its offset.")
        upload = replace(upload, attempts=lease.attempts, **asdict(lease.row))
        claim = Claim(self, upload, lease)
        try:
            yield claim
        finally:
            if not claim.is_over:
                self._leases.renew(lease, lease=None, lease_until=None)

    def renew(self, upload: Upload, lease: Lease[_Progress], /, **changes: Any) -> None:
        """Change the row, which must be held."""
        if not self._leases.renew(lease, **changes):
            self.find(upload.id, upload.owner)
            raise StaleWriter("Another request goes on with this upload: ask for its offset before you do.")

    def close(self, upload: Upload) -> None:
        """The upload is a job now."""
        statement = update(uploads).where(uploads.c.id == upload.id).values(state="done")
        self._database.run(lambda connection: connection.execute(statement))

    def delete(self, upload: Upload) -> bool:
        """Forget the upload; True where its file may be deleted at once.

        A file that somebody is writing is left for sweep, until that writer has noticed; one that is a job's stays.
        """
        row = and_(uploads.c.id == upload.id, uploads.c.owner == upload.owner)

        def forget(connection: Connection) -> bool:
            busy = connection.scalar(select(uploads.c.id).where(row, uploads.c.lease_until > now())) is not None
            _expire(connection, upload.blob, _GRACE if busy else -1)
            connection.execute(delete(uploads).where(row))
            return not busy

        return self._database.run(forget)

    def _prolong(self, upload: Upload) -> None:
        alive = and_(blobs.c.id == upload.blob, blobs.c.expires_at > now())
        statement = update(blobs).where(alive).values(expires_at=now() + self._ttl)
        if not self._database.run(lambda connection: connection.execute(statement).rowcount):
            raise UploadGone("This upload has expired: begin a new one.")


def _expire(connection: Connection, blob: str, when: int) -> None:
    unkept: ColumnElement[bool] = and_(blobs.c.id == blob, blobs.c.expires_at.is_not(None))
    connection.execute(update(blobs).where(unkept).values(expires_at=now() + when))

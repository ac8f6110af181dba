"""Receives one part of an upload, and creates the job of a complete one. Any instance resumes what another started."""

import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final

from werkzeug import exceptions

from events.errors import Mp3burstError
from events.schema import VideoUploaded
from functions.auth.tokens import Identity
from functions.file_checks import StreamChecks
from functions.http_endpoint import BadRequest, RequestTooSlow
from functions.media import Appender, BlobNotFound, Description
from functions.media.integrity import SAVE_INTERVAL, SAVE_SIZE
from functions.options import Options
from functions.sniff import HEAD_SIZE, UnsupportedMediaType
from functions.state.blobs import BlobExpired
from functions.state.jobs import NewJob
from functions.state.outbox import REQUEST_BUDGET
from functions.state.quota import Reservation
from functions.upload.callback import CALLBACK
from functions.upload.dependencies import Dependencies
from functions.upload.multipart import ClientDisconnected
from functions.upload.tus.headers import Checksum, parse_metadata
from functions.upload.tus.uploads import Claim, Upload, UploadGone

#: Bytes that are read at a time.
_MIN_CHUNK: Final = 16 << 10
_MAX_CHUNK: Final = 256 << 10


class WrongOffset(Mp3burstError):
    """The part does not start at the upload's offset."""

    status = 409


@dataclass(frozen=True, slots=True)
class Part:
    """What one request adds to an upload.

    Attributes:
        offset: where the part starts in the file, in bytes.
        content: its bytes in chunks.
        checksum: of the part, if the client sent one. The part is then stored completely or not at all.
        length: of the whole upload, if the client deferred it until this request.
    """

    offset: int
    content: Iterator[bytes]
    checksum: Checksum | None = None
    length: int | None = None


def chunks(stream: IO[bytes]) -> Iterator[bytes]:
    """Yields the body in chunks that arrive within about a second, however slow the connection.

    Bytes of an incomplete chunk are not saved yet.

    Raises:
        ClientDisconnected: the connection was lost. RequestTooSlow: the client was disconnected.
    """
    size = _MIN_CHUNK
    while True:
        began = time.monotonic()
        try:
            chunk = stream.read(size)
        except (exceptions.ClientDisconnected, OSError) as error:
            raise ClientDisconnected(
                "The connection was lost. Ask for the upload's offset and resume from there."
            ) from error
        if not chunk:
            return
        yield chunk
        seconds = time.monotonic() - began
        if seconds < 0.2:
            size = min(2 * size, _MAX_CHUNK)
        elif seconds > 1:
            size = max(size // 2, _MIN_CHUNK)


def receive(upload: Upload, part: Part, deps: Dependencies, identity: Identity) -> Upload:
    """Appends a part. If the connection is lost, what has arrived is saved.

    Args:
        upload: the upload as it was found.
        part: what the request adds.
        deps: the function's dependencies.
        identity: the upload's owner.

    Returns:
        The upload as it is now.

    Raises:
        WrongOffset, BadRequest, UploadLocked, UploadNotFound, UploadGone: nothing of this part was stored.
        StaleWriter: a later request has taken over the upload; nothing of this part is stored from now on.
        ClientDisconnected: the connection was lost. RequestTooSlow: the client was disconnected.
        ChecksumMismatch: nothing of this part was stored.
        TooLarge: the file exceeds the upload's length or the limit.
        QuotaFull: the file exceeds its owner's quota.
        DiskFull: the media store has too little space left.
        UnsupportedMediaType: the file is neither audio nor video; the upload has been deleted.
    """
    try:
        with deps.uploads.writing(upload) as claim:
            upload = claim.upload
            check_offset(upload, part.offset)
            if part.length is not None:
                check_length(upload, part.length)
                upload = claim.declare(part.length)
            with deps.media.videos.append(upload.blob, upload.checkpoint, upload.attempts) as appender:
                checks = _checks(upload, appender, deps, identity)
                _append(appender, checks.apply(part.content), claim, part.checksum)
                if checks.received == upload.length:
                    checks.finish()
                return claim.end(appender.sync())
    except Exception as error:
        if isinstance(error, UnsupportedMediaType):
            discard(upload, deps)
        # Whatever has failed: the upload may have been deleted before some of this part was stored.
        deps.blobs.delete_unwanted(deps.media, "videos", upload.blob)
        if isinstance(error, BlobNotFound | BlobExpired):
            raise _gone() from error
        raise


def _checks(upload: Upload, appender: Appender, deps: Dependencies, identity: Identity) -> StreamChecks:
    """Returns the checks of what arrives next. An upload of known length has all of it reserved before it is read."""
    reservation = Reservation(deps.blobs, upload.blob, upload.size, functools.partial(deps.quota.grow, identity))
    if upload.length is not None:
        reservation.require(upload.length)
    return StreamChecks(
        reservation,
        limit=upload.length if upload.length is not None else deps.max_bytes,
        received=upload.received,
        head=appender.tail if upload.received < HEAD_SIZE else None,
        space=deps.space,
    )


def _append(appender: Appender, content: Iterator[bytes], claim: Claim, checksum: Checksum | None) -> None:
    unsaved = 0
    saved_at = time.monotonic()
    try:
        for chunk in content:
            appender.write(chunk)
            unsaved += len(chunk)
            if checksum is not None:
                checksum.update(chunk)
            if unsaved >= SAVE_SIZE or time.monotonic() - saved_at > SAVE_INTERVAL:
                if checksum is None:
                    claim.save(appender.sync(full_blocks_only=unsaved >= SAVE_SIZE))
                else:
                    claim.renew()
                unsaved = 0
                saved_at = time.monotonic()
    except (ClientDisconnected, RequestTooSlow):
        if checksum is None:
            claim.end(appender.sync())
        raise
    if checksum is not None:
        checksum.check()


def check_offset(upload: Upload, offset: int) -> None:
    """Raises WrongOffset unless the part starts at the upload's offset."""
    if upload.received != offset:
        raise WrongOffset(f"The upload's offset is {upload.received}: resume from there.")


def check_length(upload: Upload, length: int) -> None:
    """Raises BadRequest unless this may be the upload's length: it is known already, or was deferred until now."""
    if upload.length not in (None, length) or length < upload.received:
        raise BadRequest("Upload-Length must be the upload's length, which may be set once.")


def complete(upload: Upload, deps: Dependencies) -> str:
    """Creates the job of a complete upload, unless it has one. Safe to repeat after any failure.

    Returns:
        The job's id.

    Raises:
        UploadGone: the upload has expired, or its job was deleted.
    """
    if upload.state != "done":
        description = Description(upload.owner, upload.job, upload.filename, "application/octet-stream")
        try:
            with deps.media.videos.append(upload.blob, upload.checkpoint, upload.attempts) as appender:
                appender.finish(description)
            options = Options.from_json(upload.options)
            job = deps.jobs.add(
                NewJob(
                    upload.job,
                    upload.owner,
                    upload.blob,
                    upload.filename,
                    options,
                    size=upload.received,
                    callback=parse_metadata(upload.about)[1].get(CALLBACK) or None,
                )
            )
        except Exception as error:
            deps.blobs.delete_unwanted(deps.media, "videos", upload.blob)
            if isinstance(error, BlobNotFound | BlobExpired):
                raise _gone() from error
            raise
        deps.uploads.close(upload)
        deps.outbox.emit(VideoUploaded(job.id), REQUEST_BUDGET)
    return upload.job


def discard(upload: Upload, deps: Dependencies) -> None:
    """Deletes an upload and its file, unless the file belongs to a job."""
    if deps.uploads.delete(upload):
        deps.blobs.discard(deps.media, "videos", upload.blob)


def _gone() -> UploadGone:
    return UploadGone("The uploaded data is no longer there: start a new upload.")

"""Takes in one part of an upload, and makes a job of what is whole. Any instance goes on where another ended."""

import time
from collections.abc import Iterator
from typing import IO, Final

from werkzeug import exceptions

from events.errors import Mp3burstError
from events.schema import VideoUploaded
from functions.auth.tokens import Identity
from functions.media import Appender, BlobNotFound, Description
from functions.media.integrity import BLOCK_SIZE, BLOCKS_PER_WRITE
from functions.options import Options
from functions.state.blobs import BlobExpired
from functions.state.jobs import NewJob
from functions.upload.dependencies import PUBLISH_BUDGET, Dependencies, too_large
from functions.upload.limits import STEP
from functions.upload.multipart import ClientDisconnected, WrongType, limited, with_room
from functions.upload.sniff import ENOUGH, is_media
from functions.upload.tus.headers import Checksum
from functions.upload.tus.uploads import Claim, Upload, UploadGone

#: What a killed process may lose: so many bytes and two pieces, and what came in so many seconds. With half of it
#: uploads took 15 to 19 % longer.
UNKEPT: Final = 2 * BLOCKS_PER_WRITE * BLOCK_SIZE
_SECONDS: Final = 2.0
_LEAST, _MOST = 16 << 10, 256 << 10


class WrongOffset(Mp3burstError):
    """The part does not begin where the upload ends."""

    status = 409


def chunks(stream: IO[bytes]) -> Iterator[bytes]:
    """The body, in pieces that a slow line fills within a second or so: what waits here is not kept yet.

    Raises:
        ClientDisconnected: the client went away.
    """
    size = _LEAST
    while True:
        began = time.monotonic()
        try:
            piece = stream.read(size)
        except (exceptions.ClientDisconnected, OSError) as error:
            raise ClientDisconnected("The upload broke off: ask for its offset and go on from there.") from error
        if not piece:
            return
        yield piece
        took = time.monotonic() - began
        size = min(2 * size, _MOST) if took < 0.2 else max(size // 2, _LEAST) if took > 1 else size


def receive(
    upload: Upload,
    offset: int,
    content: Iterator[bytes],
    deps: Dependencies,
    who: Identity,
    checksum: Checksum | None = None,
    length: int | None = None,
) -> Upload:
    """Append what comes in; what came before a line was cut is kept.

    Args:
        upload: as it was found.
        offset: where the part begins.
        content: its bytes.
        deps: what it takes.
        who: its owner.
        checksum: of the part, where the client sent one: the part is then kept as a whole or not at all.
        length: of the upload, where the client says it only now.

    Returns:
        The upload as it is now.

    Raises:
        WrongOffset, UploadLocked, UploadNotFound, UploadGone, StaleWriter: nothing of this part is kept, or no more.
        ClientDisconnected: the client went away. ChecksumMismatch: nothing of this part is kept.
        TooLarge: there were more bytes than the upload or any upload may have. QuotaFull: or than its owner may.
        WrongType: it is neither audio nor video, and deleted.
    """
    try:
        with deps.uploads.writing(upload, length) as claim:
            upload = claim.upload
            check_offset(upload, offset)
            with deps.media.videos.append(upload.blob, upload.checkpoint, upload.attempts) as appender:
                most = upload.length if upload.length is not None else deps.max_bytes
                allowed = _with_room(limited(content, most - offset, lambda: too_large(most)), upload, deps, who)
                _append(appender, _checked(allowed, appender), claim, checksum)
                if upload.length is not None and upload.length < ENOUGH and len(appender.tail) == upload.length:
                    _check(appender.tail)
                return claim.end(appender.sync())
    except WrongType:
        discard(upload, deps)
        raise
    except (BlobNotFound, BlobExpired) as error:
        raise _gone() from error


def _with_room(content: Iterator[bytes], upload: Upload, deps: Dependencies, who: Identity) -> Iterator[bytes]:
    """The same bytes; an upload of known length has room for all of it before the first is read."""

    def grow(size: int) -> int:
        return deps.blobs.grow(upload.blob, deps.quota.grow(who, size + STEP, STEP))

    room = upload.size
    if upload.length is not None and room < upload.length:
        room = deps.blobs.grow(upload.blob, deps.quota.grow(who, upload.length))
    return with_room(content, upload.received, room, grow)


def _append(appender: Appender, content: Iterator[bytes], claim: Claim, checksum: Checksum | None) -> None:
    unkept, since = 0, time.monotonic()
    try:
        for piece in content:
            appender.write(piece)
            unkept += len(piece)
            if checksum is not None:
                checksum.update(piece)
            if unkept >= UNKEPT or time.monotonic() - since > _SECONDS:
                if checksum is None:
                    claim.save(appender.sync(whole_blocks=unkept >= UNKEPT))
                else:
                    claim.renew()
                unkept, since = 0, time.monotonic()
    except ClientDisconnected:
        if checksum is None:
            claim.end(appender.sync())
        raise
    if checksum is not None:
        checksum.check()


def check_offset(upload: Upload, offset: int) -> None:
    """Raise WrongOffset if the part does not begin where the upload ends."""
    if upload.received != offset:
        raise WrongOffset(f"The upload goes on at {upload.received}: ask for its offset by HEAD.")


def complete(upload: Upload, deps: Dependencies) -> str:
    """Make a job of an upload that is whole, if it is none yet: its id. May be done again after any failure.

    Raises:
        UploadGone: it expired meanwhile, or its job has been deleted.
    """
    if upload.state != "done":
        about = Description(upload.owner, upload.job, upload.filename, "application/octet-stream")
        try:
            with deps.media.videos.append(upload.blob, upload.checkpoint, upload.attempts) as appender:
                appender.finish(about)
            options = Options.from_json(upload.options)
            job = deps.jobs.add(
                NewJob(upload.job, upload.owner, upload.blob, upload.filename, options, size=upload.received)
            )
        except (BlobNotFound, BlobExpired) as error:
            raise _gone() from error
        deps.uploads.close(upload)
        deps.outbox.emit(VideoUploaded(job.id), PUBLISH_BUDGET)
    return upload.job


def discard(upload: Upload, deps: Dependencies) -> None:
    """Forget an upload and its file, unless that is a job's."""
    if deps.uploads.delete(upload):
        deps.blobs.discard(deps.media, "videos", upload.blob)


def _gone() -> UploadGone:
    return UploadGone("What was uploaded is no longer there: begin a new upload.")


def _checked(content: Iterator[bytes], appender: Appender) -> Iterator[bytes]:
    """The same bytes, as long as the first of the file may be those of audio or video."""
    head = appender.tail if appender.checkpoint.size < ENOUGH else None
    for piece in content:
        if head is not None:
            head = (head + piece)[:ENOUGH]
            if len(head) == ENOUGH:
                _check(head)
                head = None
        yield piece


def _check(head: bytes) -> None:
    if not is_media(head):
        raise WrongType("This file is neither audio nor video: choose another.")

"""Reads many blobs one after the other, and opens the next ones while one is being read.

A small blob takes several round trips to its store, which are what reading many of them costs.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from typing import Final, NamedTuple

from functions.media.interface import BlobId, MediaUnavailable, Reader, Store

#: Bytes that are read at a time.
CHUNK_SIZE: Final = 1 << 20
#: Blobs that are read at the same time.
BLOBS_AHEAD: Final = 4
#: Chunks of a blob that are read before its turn, which are all chunks of most pieces; 16 MB in all.
CHUNKS_AHEAD: Final = 4


class _Opened(NamedTuple):
    """A blob whose first chunks have been read; closed by its stack."""

    stack: ExitStack
    reader: Reader
    chunks: list[bytes]


def read_blobs(store: Store, blobs: Iterable[BlobId]) -> Iterator[bytes]:
    """Yields the chunks of all the blobs, in order.

    Raises:
        BlobNotFound: there is no such blob.
        BlobCorrupt: a blob is damaged.
        MediaUnavailable: the store does not answer.
    """
    unread = iter(blobs)
    ahead: deque[Future[_Opened]] = deque()
    with ThreadPoolExecutor(BLOBS_AHEAD, "read-ahead") as workers:
        try:
            _submit(workers, store, islice(unread, BLOBS_AHEAD), ahead)
            while ahead:
                opened = ahead[0].result()
                _submit(workers, store, islice(unread, 1), ahead)
                yield from opened.chunks
                while chunk := opened.reader.read(CHUNK_SIZE):
                    yield chunk
                opened.stack.close()
                ahead.popleft()
        finally:
            for future in ahead:
                if not future.cancel() and future.exception() is None:
                    future.result().stack.close()


def _submit(workers: ThreadPoolExecutor, store: Store, blobs: Iterable[BlobId], ahead: deque[Future[_Opened]]) -> None:
    try:
        ahead.extend(workers.submit(_open, store, blob) for blob in blobs)
    except RuntimeError as error:  # no thread can be started
        raise MediaUnavailable("The service is too busy to reach the media store; try again later.") from error


def _open(store: Store, blob: BlobId) -> _Opened:
    chunks: list[bytes] = []
    with ExitStack() as stack:
        reader = stack.enter_context(store.open(blob))
        while len(chunks) < CHUNKS_AHEAD and (chunk := reader.read(CHUNK_SIZE)):
            chunks.append(chunk)
        opened = stack.pop_all()
    return _Opened(opened, reader, chunks)

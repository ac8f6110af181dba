"""Reading many blobs in order, from every media store."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from functions.media import BlobId, BlobNotFound, Reader, Store, new_blob_id
from functions.media.read_ahead import BLOBS_AHEAD, CHUNK_SIZE, CHUNKS_AHEAD, read_blobs
from tests.contract.media_places import A, Place

_SIZES = (CHUNK_SIZE + 1, 0, 5, CHUNK_SIZE * CHUNKS_AHEAD + 7, CHUNK_SIZE, 1, 300_000, 2)


def _stored(store: Store) -> dict[BlobId, bytes]:
    stored = {}
    for size in _SIZES:
        blob = new_blob_id()
        stored[blob] = os.urandom(size)
        with store.create(blob, A) as writer:
            writer.write(stored[blob])
    return stored


def _open_files() -> int:
    """Returns how many files this process has open, not counting the connections of drivers."""
    return sum(descriptor.is_file() for descriptor in Path("/proc/self/fd").iterdir())


def test_blobs_are_read_in_order(place: Place) -> None:
    stored = _stored(place.videos)
    chunks = list(read_blobs(place.videos, stored))
    assert b"".join(chunks) == b"".join(stored.values())
    assert max(map(len, chunks)) <= CHUNK_SIZE


def test_no_blob_is_nothing_to_read(place: Place) -> None:
    assert list(read_blobs(place.videos, [])) == []


def test_a_missing_blob_ends_the_reading_where_it_is(place: Place) -> None:
    stored = _stored(place.videos)
    lost = list(stored)[2]
    place.videos.delete(lost)
    files = _open_files()
    read = bytearray()
    with pytest.raises(BlobNotFound):
        for chunk in read_blobs(place.videos, stored):
            read += chunk
    assert read == b"".join(list(stored.values())[:2])
    assert _open_files() == files


def test_few_blobs_are_open_at_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trap: a job of 256 pieces needs 256 descriptors and all their bytes in memory."""
    stored = _stored(place.videos)
    opened: list[str] = []
    open_ = place.videos.open

    def counted(blob: str) -> Reader:
        opened.append(blob)
        return open_(blob)

    monkeypatch.setattr(place.videos, "open", counted)
    reading = read_blobs(place.videos, stored)
    assert isinstance(reading, Generator)
    next(reading)
    assert 0 < len(opened) <= BLOBS_AHEAD + 1
    reading.close()
    assert len(opened) <= BLOBS_AHEAD + 1

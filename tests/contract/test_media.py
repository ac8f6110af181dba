"""The contract of every media store: the fake in memory, the directory and GridFS."""

import hashlib
import os
import random
import zlib

import pytest
from fastcrc import crc32

from functions.media import (
    BlobCorrupt,
    BlobExists,
    BlobId,
    BlobNotFound,
    MediaUnavailable,
    Stat,
    StoredMp3,
    is_blob_id,
    new_blob_id,
    open_mp3,
)
from functions.media.gridfs import CHUNK_SIZE
from tests.contract.media_places import A, Place, drain, get, noise, put


@pytest.mark.parametrize(
    "size",
    [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 16 * CHUNK_SIZE, 16 * CHUNK_SIZE + 1, 60 * CHUNK_SIZE + 5],
)
def test_reading_returns_what_was_written(place: Place, size: int) -> None:
    content = noise(size)
    blob = put(place.videos, content)
    with place.videos.open(blob) as reader:
        sha256 = hashlib.sha256(content).hexdigest()
        crc32c = f"{crc32.iscsi(content):08x}"
        assert reader.stat == Stat(size, sha256, crc32c, A)
        assert drain(reader) == content
        assert reader.read(10) == b""
    with place.videos.open(blob) as reader:
        assert reader.read() == content
        assert reader.read() == b""


@pytest.mark.parametrize("stride", [1, 2, 4, 5])
def test_reads_with_gaps_return_the_right_bytes(place: Place, stride: int) -> None:
    content = noise(60 * CHUNK_SIZE + 5)
    with place.videos.open(put(place.videos, content)) as reader:
        sequential = range(0, 8 * CHUNK_SIZE, CHUNK_SIZE)  # enough for the reader to start streaming
        with_gaps = range(sequential.stop, len(content), stride * CHUNK_SIZE)
        for start in [*sequential, *with_gaps, 0, 3 * CHUNK_SIZE - 10, *sequential, 50 * CHUNK_SIZE]:
            reader.seek(start)
            assert reader.read(1000) == content[start : start + 1000]


def test_any_bytes_like_object_can_be_written(place: Place) -> None:
    blob = new_blob_id()
    with place.videos.create(blob, A) as writer:
        assert writer.write(b"") == 0
        assert writer.write(bytearray(b"ab")) == 2
        reused = bytearray(b"cdefgh")
        assert writer.write(memoryview(reused)[1:3]) == 2
        reused[:] = b"??????"
        assert writer.write(b"") == 0
    assert get(place.videos, blob) == b"abde"
    with pytest.raises(ValueError, match="with block"):
        writer.write(b"late")


def test_any_range_can_be_read(place: Place) -> None:
    content = noise(30 * CHUNK_SIZE + 77)
    blob = put(place.videos, content)
    chance = random.Random(2)  # noqa: S311 - offsets, not secrets
    with place.videos.open(blob) as reader:
        for _ in range(60):
            start = chance.randrange(len(content))
            size = chance.choice([1, 1000, CHUNK_SIZE, 3 * CHUNK_SIZE, 20 * CHUNK_SIZE])
            assert reader.seek(start) == start
            for _ in range(chance.choice([1, 1, 3, 12])):
                assert reader.read(size) == content[start : start + size]
                start += size


def test_seek_and_tell_work_as_in_a_file(place: Place) -> None:
    blob = put(place.videos, b"0123456789")
    with place.videos.open(blob) as reader:
        assert (reader.tell(), reader.read(3), reader.tell()) == (0, b"012", 3)
        assert (reader.seek(2, os.SEEK_CUR), reader.read(1)) == (5, b"5")
        assert (reader.seek(-2, os.SEEK_END), reader.read()) == (8, b"89")
        assert (reader.seek(100), reader.read(5), reader.tell()) == (100, b"", 100)
        with pytest.raises(ValueError, match="before the start"):
            reader.seek(-1)
        assert (reader.seek(0), reader.read(0), reader.read(1)) == (0, b"", b"0")


def test_an_unfinished_blob_is_not_visible(place: Place) -> None:
    blob = new_blob_id()
    with place.videos.create(blob, A) as writer:
        writer.write(noise(20 * CHUNK_SIZE))
        with pytest.raises(BlobNotFound):
            place.videos.open(blob)
    assert get(place.videos, blob) == noise(20 * CHUNK_SIZE)


def test_an_exception_leaves_nothing_behind(place: Place) -> None:
    blob = new_blob_id()
    with pytest.raises(ZeroDivisionError), place.videos.create(blob, A) as writer:
        writer.write(noise(20 * CHUNK_SIZE))
        _ = 1 / 0
    assert not place.remains(blob)


def test_writing_under_a_taken_id_leaves_the_other_blob_intact(place: Place) -> None:
    content = noise(3 * CHUNK_SIZE)
    blob = put(place.videos, content)
    with pytest.raises(BlobExists):
        put(place.videos, b"other", blob)
    assert get(place.videos, blob) == content


def test_concurrent_attempts_do_not_affect_each_other(place: Place) -> None:
    first = new_blob_id()
    second = new_blob_id()
    with place.videos.create(first, A) as one:
        one.write(noise(17 * CHUNK_SIZE, 1))
        with pytest.raises(ZeroDivisionError), place.videos.create(second, A) as two:
            two.write(noise(17 * CHUNK_SIZE, 2))
            _ = 1 / 0
        one.write(b"end")
    assert get(place.videos, first) == noise(17 * CHUNK_SIZE, 1) + b"end"
    assert not place.remains(second)


def test_a_blob_deleted_while_it_is_written_never_appears(place: Place) -> None:
    blob = new_blob_id()
    with pytest.raises(MediaUnavailable), place.videos.create(blob, A) as writer:
        writer.write(noise(17 * CHUNK_SIZE))
        place.videos.delete(blob)
        writer.write(noise(17 * CHUNK_SIZE))
    assert not place.remains(blob)


def test_delete_removes_everything_and_can_be_repeated(place: Place) -> None:
    other = put(place.videos, b"other")
    blob = put(place.videos, noise(3 * CHUNK_SIZE))
    for _ in range(2):
        place.videos.delete(blob)
        assert not place.remains(blob)
        with pytest.raises(BlobNotFound):
            place.videos.open(blob)
    place.videos.delete(new_blob_id())
    assert get(place.videos, other) == b"other"


def test_the_three_stores_are_separate(place: Place) -> None:
    blob = put(place.videos, b"a video")
    for name in ("pieces", "mp3s"):
        with pytest.raises(BlobNotFound):
            place.media[name].open(blob)


@pytest.mark.parametrize("blob", ["", "x", "../../etc/passwd", "AB" * 12, "ab" * 11, "ab" * 12 + "\n", "٣" * 24])
def test_a_malformed_id_is_not_found(place: Place, blob: str) -> None:
    assert not is_blob_id(blob)
    with pytest.raises(BlobNotFound):
        place.videos.open(blob)
    with pytest.raises(BlobNotFound), place.videos.create(blob, A):
        pass
    place.videos.delete(blob)


def test_replaced_tag_is_read_in_front_of_the_sound(place: Place) -> None:
    old, new, sound = noise(CHUNK_SIZE + 99), noise(300), noise(3 * CHUNK_SIZE)
    mp3, tag = put(place.videos, old + sound), put(place.videos, new)
    content = new + sound
    with open_mp3(place.videos, StoredMp3(BlobId(mp3), BlobId(tag), len(old))) as reader:
        assert reader.stat == Stat(len(content), "", "", A)
        assert drain(reader) == content
        for start, stop in [(0, 10), (290, 310), (300, 301), (305, 900), (len(content) - 5, len(content) + 5)]:
            reader.seek(start)
            assert reader.read(stop - start) == content[start:stop]
        reader.fetch_until(400)
        assert (reader.seek(-100, 2), reader.read(), reader.tell()) == (
            len(content) - 100,
            content[-100:],
            len(content),
        )


def test_damaged_sound_behind_a_replaced_tag_is_noticed(place: Place) -> None:
    mp3, tag = put(place.videos, noise(5000)), put(place.videos, noise(300))
    place.change(mp3, lambda content: content[:-1] + bytes([content[-1] ^ 1]))
    with open_mp3(place.videos, StoredMp3(BlobId(mp3), BlobId(tag), 1000)) as reader, pytest.raises(BlobCorrupt):
        drain(reader)


@pytest.mark.parametrize("is_tagged", [False, True])
def test_part_is_read_as_its_head_and_a_range_of_shared_sound(is_tagged: bool, place: Place) -> None:
    tag, head, sound = noise(200), noise(700), noise(2 * CHUNK_SIZE)
    blobs = [BlobId(put(place.videos, content)) for content in (tag, head, sound)]
    first, last = 900, CHUNK_SIZE + 5
    content = (tag + head[50:] if is_tagged else head) + sound[first:last]
    stored = StoredMp3(blobs[1], None, None, blobs[2], first, last, zlib.crc32(content))
    if is_tagged:
        stored = stored._replace(tag=blobs[0], sound_at=50)
    with open_mp3(place.videos, stored) as reader:
        assert reader.stat == Stat(len(content), "", "", A)
        assert drain(reader) == content
        for start, stop in [(0, 10), (190, 210), (600, 900), (len(content) - 5, len(content) + 5), (5, 40)]:
            reader.seek(start)
            assert reader.read(stop - start) == content[start:stop]


def test_damaged_part_is_noticed(place: Place) -> None:
    head, sound = BlobId(put(place.videos, noise(700))), BlobId(put(place.videos, noise(5000)))
    stored = StoredMp3(head, None, None, sound, 100, 4000, zlib.crc32(noise(700) + noise(5000)[100:4000]) ^ 1)
    with open_mp3(place.videos, stored) as reader, pytest.raises(BlobCorrupt):
        drain(reader)


def test_tag_or_sound_that_is_gone_is_not_found(place: Place) -> None:
    mp3 = put(place.videos, noise(50))
    with pytest.raises(BlobNotFound):
        open_mp3(place.videos, StoredMp3(BlobId(mp3), new_blob_id(), 10))
    with pytest.raises(BlobNotFound):
        open_mp3(place.videos, StoredMp3(new_blob_id(), BlobId(mp3), 10))

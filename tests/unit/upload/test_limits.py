"""The checks that both upload protocols apply to the bytes as they arrive."""

import functools
import itertools
from collections.abc import Iterator

import pytest

from functions.auth.tokens import Identity
from functions.file_checks import StreamChecks, TooLarge
from functions.http_endpoint import Unprocessable
from functions.media import new_blob_id
from functions.sniff import HEAD_SIZE, UnsupportedMediaType
from functions.state.blobs import Grant
from functions.state.quota import RESERVATION_STEP, Quota, Reservation
from functions.state.schema import UserId
from tests.e2e.client import wave_bytes

ADMIN = Identity(UserId("a" * 32), "ada", "admin", {})
SOUND = wave_bytes(0.1)
TEXT = b"text " * 200


class FakeBlobs:
    """Grants everything and remembers it."""

    def __init__(self) -> None:
        self.granted: list[int] = []

    def grow(self, blob: str, grant: Grant) -> int:
        self.granted.append(grant(None, blob))  # type: ignore[arg-type]
        return self.granted[-1]


def checks(
    limit: int = 1 << 30, reserved: int = 1 << 30, received: int = 0, head: bytes | None = b""
) -> tuple[StreamChecks, FakeBlobs]:
    blobs = FakeBlobs()
    reservation = Reservation(blobs, new_blob_id(), reserved, functools.partial(Quota().grow, ADMIN))  # type: ignore[arg-type]
    return StreamChecks(reservation, limit, received, head), blobs


def chunked(content: bytes, size: int) -> Iterator[bytes]:
    return (content[start : start + size] for start in range(0, len(content), size))


@pytest.mark.parametrize("size", [1, 100, HEAD_SIZE - 1, HEAD_SIZE, 1 << 20])
def test_media_passes_unchanged_in_chunks_of_any_size(size: int) -> None:
    stream, _ = checks()
    assert b"".join(stream.apply(chunked(SOUND, size))) == SOUND
    assert stream.received == len(SOUND)
    stream.finish()


@pytest.mark.parametrize("size", [1, 100, HEAD_SIZE - 1, HEAD_SIZE, 1 << 20])
def test_another_type_is_refused_before_its_head_is_complete(size: int) -> None:
    stream, _ = checks()
    passed = bytearray()
    with pytest.raises(UnsupportedMediaType):
        for chunk in stream.apply(chunked(TEXT, size)):
            passed += chunk
    assert len(passed) < HEAD_SIZE


def test_a_short_file_is_checked_at_its_end() -> None:
    for content, error in ((TEXT[:100], UnsupportedMediaType), (b"", Unprocessable)):
        stream, _ = checks()
        assert b"".join(stream.apply(iter([content]))) == content
        with pytest.raises(error):
            stream.finish()
    stream, _ = checks()
    assert b"".join(stream.apply(iter([SOUND[:100]]))) == SOUND[:100]
    stream.finish()


@pytest.mark.parametrize("first", [1, 100, HEAD_SIZE - 1])
def test_the_head_may_arrive_in_several_requests(first: int) -> None:
    stream, _ = checks(received=first, head=SOUND[:first])
    assert b"".join(stream.apply(iter([SOUND[first:]]))) == SOUND[first:]
    stream, _ = checks(received=first, head=TEXT[:first])
    with pytest.raises(UnsupportedMediaType):
        next(stream.apply(iter([TEXT[first:]])))


def test_a_head_that_was_checked_is_not_checked_again() -> None:
    stream, _ = checks(received=HEAD_SIZE, head=None)
    assert b"".join(stream.apply(iter([TEXT]))) == TEXT
    stream.finish()


@pytest.mark.parametrize("received", [0, 600])
def test_the_limit_applies_to_the_whole_file(received: int) -> None:
    head = b"" if received == 0 else None
    stream, _ = checks(limit=received + len(SOUND), received=received, head=head)
    assert b"".join(stream.apply(chunked(SOUND, 1000))) == SOUND
    stream, _ = checks(limit=received + len(SOUND) - 1, received=received, head=head)
    passed = stream.apply(chunked(SOUND, 1000))
    with pytest.raises(TooLarge, match=f"the limit is {received + len(SOUND) - 1} bytes"):
        for _ in passed:
            pass
    assert stream.received <= received + len(SOUND)


def test_bytes_are_reserved_in_steps() -> None:
    stream, blobs = checks(reserved=1000)
    passed = stream.apply(itertools.chain([SOUND[:1000]], chunked(SOUND[1000:], 500)))
    assert next(passed) == SOUND[:1000]
    assert blobs.granted == []
    assert next(passed) == SOUND[1000:1500]
    assert blobs.granted == [1500 + RESERVATION_STEP]
    assert b"".join(passed) == SOUND[1500:]
    assert len(blobs.granted) == 1

"""CRCs of concatenated bytes."""

import zlib

from fastcrc import crc16
from hypothesis import given
from hypothesis import strategies as st

from functions.mp3.crc import CRC16, CRC32, append_zeros, replace_beginning

BYTES = st.binary(max_size=60)


@given(BYTES, BYTES)
def test_crc_of_two_parts(first: bytes, second: bytes) -> None:
    both = first + second
    assert append_zeros(crc16.arc(first), len(second), CRC16) ^ crc16.arc(second) == crc16.arc(both)
    assert append_zeros(zlib.crc32(first), len(second), CRC32) ^ zlib.crc32(second) == zlib.crc32(both)


@given(BYTES, BYTES, BYTES)
def test_crc_after_the_beginning_was_replaced(old: bytes, new: bytes, rest: bytes) -> None:
    whole = zlib.crc32(old + rest)
    assert replace_beginning(whole, zlib.crc32(old), zlib.crc32(new), len(rest)) == zlib.crc32(new + rest)

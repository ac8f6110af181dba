"""Computes CRCs of concatenated bytes from those of their parts."""

from collections.abc import Sequence
from typing import Final

#: Reflected polynomials: CRC-16/ARC, of Info tags, and CRC-32, of zip files.
CRC16: Final = 0xA001
CRC32: Final = 0xEDB88320


def append_zeros(crc: int, count: int, polynomial: int) -> int:
    """Returns the CRC of a message with ``count`` zero bytes appended, without what those bytes alone have.

    Appending a zero byte is a linear map of the CRC's bits over GF(2); appending many is a power of that map. The CRC
    of A and B together is ``append_zeros(CRC of A, bytes of B) ^ CRC of B``, for CRC-32 too.

    Args:
        crc: the CRC of the message.
        count: zero bytes.
        polynomial: of the CRC, reflected, which also says how many bits it has.
    """
    power = [_append_zero(1 << bit, polynomial) for bit in range(polynomial.bit_length())]
    while count:
        if count & 1:
            crc = _apply(power, crc)
        power = [_apply(power, column) for column in power]
        count >>= 1
    return crc


def replace_beginning(crc: int, old: int, new: int, size: int) -> int:
    """Returns the CRC-32 of bytes whose beginning was replaced.

    Args:
        crc: the CRC-32 of all bytes before.
        old: that of the beginning before.
        new: that of the new beginning.
        size: bytes that follow the beginning.
    """
    return crc ^ append_zeros(old ^ new, size, CRC32)


def _append_zero(crc: int, polynomial: int) -> int:
    for _ in range(8):
        crc = crc >> 1 ^ (polynomial if crc & 1 else 0)
    return crc


def _apply(columns: Sequence[int], vector: int) -> int:
    result = 0
    for column in columns:
        if vector & 1:
            result ^= column
        vector >>= 1
    return result

"""A blob is written only as far as its owner's quota reserves bytes for it."""

from typing import cast

import pytest

from functions.state.blobs import RenewingWriter
from functions.state.quota import QuotaFull, Reservation, ReservedWriter


class Written:
    """Counts the bytes of a blob."""

    size = 0

    def write(self, data: bytes) -> int:
        self.size += len(data)
        return len(data)


class TenBytes:
    """Has ten bytes left."""

    def extend(self, size: int) -> None:
        if size > 10:
            raise QuotaFull("full", 0, 0)


def test_writing_stops_before_bytes_that_are_not_reserved() -> None:
    written = Written()
    writer = ReservedWriter(cast(RenewingWriter, written), cast(Reservation, TenBytes()))
    assert writer.write(bytes(6)) == 6
    with pytest.raises(QuotaFull):
        writer.write(bytes(5))
    assert writer.size == 6
    assert writer.write(bytes(4)) == 4

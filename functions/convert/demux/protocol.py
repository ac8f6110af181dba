"""What the reader and its parent say to each other by a socket.

First the parent says what to read, and then gives the source's bytes as it is asked for them; the reader tells what it
has seen.
"""

import errno
import json
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from functions.convert.demux.child.demuxer import BUFFER
from functions.convert.demux.positioned import Positioned

#: A request: what, and two numbers. READ size, offset; GATHER count, 0, then so many SPANs; COVER,
#: BEGUN and REPORT size, 0, then so many bytes.
REQUEST = struct.Struct("<cqq")
#: An answer to READ and GATHER: how many bytes follow.
ANSWER = struct.Struct("<q")
#: Offset and size.
SPAN = struct.Struct("<qq")
READ, GATHER, COVER, BEGUN, REPORT = b"r", b"g", b"c", b"b", b"d"

#: Spans, and bytes of them, that are gathered for one answer, at most.
MOST_SPANS, MOST_GATHERED = 32, 1 << 20
MAX_COVER = 16 << 20
#: A report takes its parent twenty times as much memory, if it is nothing but brackets.
MAX_REPORT = 4 << 20


class Gone(Exception):
    """The other side of the socket has ended."""


class Remote(Positioned):
    """The source, as the parent has it."""

    def __init__(self, link: socket.socket, size: int) -> None:
        self._link = link
        self._size = size
        self._position = 0

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes."""
        size = BUFFER if size < 0 else size
        self._link.sendall(REQUEST.pack(READ, size, self._position))
        data = self._answer()
        self._position += len(data)
        return data

    def gather(self, spans: Sequence[tuple[int, int]]) -> bytes:
        """All spans in one answer: each of them costs the processes less than to wake each other up for it."""
        asked = b"".join(SPAN.pack(start, end - start) for start, end in spans)
        self._link.sendall(REQUEST.pack(GATHER, len(spans), 0) + asked)
        return self._answer()

    def _answer(self) -> bytes:
        (length,) = ANSWER.unpack(receive(self._link, ANSWER.size))
        # Not in one call with MSG_WAITALL: a signal ends that early, and what is left would pass for the next answer.
        return bytes(receive(self._link, length))

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move; the next request says where to."""
        target = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if target < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._position = target
        return target


def send_order(link: socket.socket, order: Mapping[str, Any], target: int) -> None:
    """Tell a reader what to do, and hand over the open file that it writes; Gone where there is no reader."""
    data = json.dumps(order).encode()
    try:
        socket.send_fds(link, [ANSWER.pack(len(data))], [target])
        link.sendall(data)
    except OSError as error:
        raise Gone from error


def receive_order(link: socket.socket) -> tuple[dict[str, Any], int]:
    """The order and the open file; Gone where the parent is."""
    size, files, _, _ = socket.recv_fds(link, ANSWER.size, 1)
    if len(size) < ANSWER.size or not files:
        raise Gone
    order: dict[str, Any] = json.loads(receive(link, *ANSWER.unpack(size)))
    return order, files[0]


def receive(link: socket.socket, size: int) -> bytearray:
    """Exactly so many bytes of a socket; Gone where the other side is."""
    data = bytearray(size)
    view = memoryview(data)
    while view:
        try:
            got = link.recv_into(view)
        except OSError as error:
            raise Gone from error
        if not got:
            raise Gone
        view = view[got:]
    return data

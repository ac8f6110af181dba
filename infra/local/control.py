"""The platform's own pages, on a Unix socket in the data directory.

There functions publish events, the bridge delivers them, and tools read the platform's state. No request to the
ingress can reach these pages, whatever a proxy in front of it makes of the headers: only the user who runs the platform
may open the data directory.
"""

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from aiohttp import web

from events.errors import Mp3burstError
from infra.local.connections import Handler
from infra.local.problems import problem

#: The socket's name in the data directory.
SOCKET = "platform.sock"


class NoSocket(Mp3burstError):
    """The data directory is on a file system without Unix sockets."""


@contextlib.contextmanager
def listening(data: Path) -> Iterator[socket.socket]:
    """Yields the listening socket, and removes it at the end. Replaces the one of a platform that was killed.

    Args:
        data: the data directory, locked by this process.

    Raises:
        NoSocket: it cannot be created.
    """
    path = data / SOCKET
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(data, os.O_PATH | os.O_DIRECTORY)
        try:
            path.unlink(missing_ok=True)
            # An address has 108 bytes (unix(7)), and the path may be longer.
            listener.bind(f"/proc/self/fd/{folder}/{SOCKET}")
            path.chmod(0o600)
        except OSError as error:
            raise NoSocket(f"Cannot create a socket in {data} ({error.strerror}): choose another --data.") from error
        finally:
            os.close(folder)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def server(pages: Mapping[str, Handler]) -> web.Server:
    """Returns an asyncio protocol factory that serves these pages by path."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        handler = pages.get(request.rel_url.raw_path)
        return await handler(request) if handler else problem(404, "There is no such page: check the path.")

    return web.Server(handle, handler_cancellation=True, access_log=None)

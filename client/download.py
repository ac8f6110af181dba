"""Downloads MP3s: a download that was cut off continues where it was, also in another run."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote

import urllib3

from client.errors import ClientError, RequestRefused, Unreachable
from client.server import Retries, Server
from events.errors import TryAgain

_CHUNK: Final = 256 << 10  # bytes
_TOTAL: Final = re.compile(r"bytes (?:\d{1,18}-\d{1,18}|\*)/(\d{1,18})", re.ASCII)


def download(server: Server, fid: str, target: Path, on_progress: Callable[[int, int], None]) -> None:
    """Downloads an MP3; ``target`` is written at once when it is complete.

    Args:
        server: where it is.
        fid: the id of the MP3.
        target: the file, which is replaced if it exists. The bytes so far are beside it, in a file ``.FID.part``.
        on_progress: is told how many bytes are there, and how many there will be.

    Raises:
        ClientError: it cannot be written, or the server has named it by something else than an id.
    """
    if not (fid.isascii() and fid.isalnum()):
        raise ClientError(f"{server.url} does not answer as mp3burst does: check the address.")
    part = target.parent / f".{fid}.part"
    retries = Retries()
    reached = -1
    while True:
        try:
            _continue(server, fid, part, on_progress)
            part.replace(target)
            return
        except TryAgain as error:
            size = part.stat().st_size if part.exists() else 0
            if size > reached:
                reached = size
                retries.progressed()
            retries.pause(error)
        except OSError as error:
            raise ClientError(f"{target} cannot be written: {error.strerror}.") from error


def _continue(server: Server, fid: str, part: Path, on_progress: Callable[[int, int], None]) -> None:
    """Downloads what is missing from the part; the part is complete when it returns."""
    with part.open("ab") as file:
        offset = file.tell()
        # Its id is its ETag until its tags are changed. Then the bytes so far are downloaded again.
        headers = {"Range": f"bytes={offset}-", "If-Range": f'"{fid}"'} if offset else {}
        try:
            response = server.request("GET", f"/download?fid={quote(fid)}", headers=headers, stream=True)
        except RequestRefused as error:
            if error.code != 416:  # complete, but killed before it was renamed
                raise
            return
        try:
            if response.status != 206:
                file.truncate(0)
                offset = 0
            found = _TOTAL.fullmatch(response.headers.get("Content-Range", ""))
            total = int(found[1]) if found else int(response.headers["Content-Length"])
            for chunk in response.stream(_CHUNK):
                file.write(chunk)
                offset += len(chunk)
                on_progress(offset, total)
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"The connection to {server.url} was lost: try again.") from error
        finally:
            response.close()
        if offset != total:
            raise Unreachable(f"The connection to {server.url} was lost: try again.")
        file.flush()
        os.fsync(file.fileno())

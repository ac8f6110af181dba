"""Downloads MP3s: a download that was cut off continues where it was, also in another run."""

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Final

import urllib3
from urllib3 import BaseHTTPResponse

from client.display import Display
from client.errors import ClientError, RequestRefused, Unreachable, not_mp3burst
from client.records import Records, identity_of
from client.server import Retries, Server
from events.errors import TryAgain
from functions.mp3.names import mp3_file_name

_CHUNK: Final = 256 << 10  # bytes
_TOTAL: Final = re.compile(r"bytes (?:\d{1,18}-\d{1,18}|\*)/(\d{1,18})", re.ASCII)
_SIZE: Final = re.compile(r"\d{1,18}", re.ASCII)
_VERSION: Final = re.compile(r"[0-9A-Za-z-]{1,100}")


class Downloads:
    """Downloads the MP3s of jobs into a directory: each into a file of its own, and none that is there."""

    def __init__(
        self, server: Server, records: Records, directory: Path, display: Display, *, is_overwriting: bool
    ) -> None:
        """Prepares downloads.

        Args:
            server: where the MP3s are.
            records: where it is remembered which of them is in which file.
            directory: where they go.
            display: shows how far they are.
            is_overwriting: whether to replace files that were there before.
        """
        self._server = server
        self._records = records
        self._directory = directory
        self._display = display
        self._is_overwriting = is_overwriting
        self._files: set[tuple[int, int]] = set()

    def download(self, job: str) -> Path:
        """Downloads the MP3 of a job; returns where it is.

        Raises:
            ClientError: it is not done, or another file has its name.
        """
        found = self._server.json("GET", f"/jobs/{job}")
        if found["status"] != "done":
            raise ClientError(found["error"] or "The job is not done yet: mp3burst jobs shows how far it is.")
        target = self._target(mp3_file_name(found["filename"]))
        if target.exists() and not self._is_overwriting:
            # An earlier run that was interrupted has downloaded it.
            if not self._records.is_download(target, version_of(self._server, found["mp3"])):
                raise ClientError(f"{target} exists: name another directory with -o, or replace it with --overwrite.")
            self._display.end(job, f"{target} is there")
        else:
            update = partial(self._display.update, job, "downloading")
            download(self._server, found["mp3"], target, update, self._records)
            self._display.end(job, str(target))
        self._files.add(_file(target))
        return target

    def _target(self, name: str) -> Path:
        """Returns the file for an MP3: not one that has the MP3 of another job since this command began."""
        target = self._directory / name
        number = 2
        while target.exists() and _file(target) in self._files:
            target = self._directory / f"{name.removesuffix('.mp3')} ({number}).mp3"
            number += 1
        return target


def _file(path: Path) -> tuple[int, int]:
    """Returns what tells files apart although a file system may take two names for one."""
    status = path.stat()
    return status.st_dev, status.st_ino


def download(
    server: Server, fid: str, target: Path, on_progress: Callable[[int, int], None], records: Records | None = None
) -> None:
    """Downloads an MP3; ``target`` is written at once when it is complete.

    Args:
        server: where it is.
        fid: the id of the MP3.
        target: the file, which is replaced if it exists. The bytes so far are beside it, in a hidden file.
        on_progress: is told how many bytes are there, and how many there will be.
        records: where it is remembered which MP3 the file has.

    Raises:
        ClientError: it cannot be written, or the server has named it by something else than an id.
    """
    path = _path(server, fid)
    retries = Retries()
    reached = -1
    while True:
        try:
            part = _part(fid, target.parent)
            try:
                part = _continue(server, path, fid, part, on_progress)
                if records is not None:
                    records.keep_download(target, _version_in(part), identity_of(part.stat()))
                part.replace(target)
                return
            except TryAgain as error:
                part = _part(fid, target.parent)
                size = part.stat().st_size if part.exists() else 0
                if size > reached:
                    reached = size
                    retries.progressed()
                retries.pause(error)
        except OSError as error:
            raise ClientError(f"{target} cannot be written: {error.strerror}.") from error


def version_of(server: Server, fid: str) -> str:
    """Returns what names an MP3 with its tags as they are.

    Raises:
        ClientError: the server has named it by something else than an id.
    """
    return _version(server.request("HEAD", _path(server, fid)), fid)


def _path(server: Server, fid: str) -> str:
    if not (fid.isascii() and fid.isalnum()):
        raise not_mp3burst(server.url)
    return f"/download?fid={fid}"


def _part(fid: str, directory: Path) -> Path:
    """Returns the file of the bytes so far, which need not exist. Its name has the ETag of the MP3 that they are of."""
    found = sorted(directory.glob(f".{fid}*.part"))
    return found[0] if found else directory / f".{fid}.part"


def _version_in(part: Path) -> str:
    return part.name.removeprefix(".").removesuffix(".part")


def _continue(server: Server, path: str, fid: str, part: Path, on_progress: Callable[[int, int], None]) -> Path:
    """Downloads what is missing from a part; returns the complete file."""
    offset = part.stat().st_size if part.exists() else 0
    etag = _version_in(part)
    # If the tags were changed since, the server sends all of the MP3.
    headers = {"Range": f"bytes={offset}-", "If-Range": f'"{etag}"'} if offset else {}
    try:
        response = server.request("GET", path, headers=headers, stream=True)
    except RequestRefused as error:
        if error.code != 416:  # complete, but killed before it was renamed
            raise
        return part
    try:
        if response.status != 206:
            part.unlink(missing_ok=True)
            part = part.with_name(f".{_version(response, fid)}.part")
            offset = 0
        with part.open("ab") as file:
            _save(server, response, file, offset, on_progress)
    except urllib3.exceptions.HTTPError as error:
        raise _lost(server) from error
    finally:
        response.close()
    if part.stat().st_size != _size(server, response):
        raise _lost(server)
    return part


def _version(response: BaseHTTPResponse, fid: str) -> str:
    """Returns what the ETag has in quotation marks: the id of the MP3, and that of its tags if they were changed."""
    etag = response.headers.get("ETag", "").strip('"')
    return etag if etag.startswith(f"{fid}-") and _VERSION.fullmatch(etag) else fid


def _size(server: Server, response: BaseHTTPResponse) -> int:
    """Returns the bytes of the complete MP3."""
    found = _TOTAL.fullmatch(response.headers.get("Content-Range", ""))
    text = found[1] if found else response.headers.get("Content-Length", "")
    if not _SIZE.fullmatch(text):
        raise not_mp3burst(server.url)
    return int(text)


def _save(
    server: Server, response: BaseHTTPResponse, file: IO[bytes], offset: int, on_progress: Callable[[int, int], None]
) -> None:
    total = _size(server, response)
    for chunk in response.stream(_CHUNK):
        file.write(chunk)
        offset += len(chunk)
        on_progress(offset, total)
    file.flush()
    os.fsync(file.fileno())


def _lost(server: Server) -> Unreachable:
    return Unreachable(f"The connection to {server.url} was lost: try again.")

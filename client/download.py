"""Downloads MP3s: a download that was cut off continues where it was, also in another run."""

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, Self

import urllib3
from urllib3 import BaseHTTPResponse

from client.display import Display
from client.errors import ClientError, RequestRefused, TargetExists, Unreachable, not_mp3burst
from client.files import lock, place
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
        update = partial(self._display.update, job, "downloading")
        is_new = download(
            self._server, found["mp3"], target, update, self._records, is_overwriting=self._is_overwriting
        )
        self._display.end(job, str(target) if is_new else f"{target} is there")
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
    server: Server,
    fid: str,
    target: Path,
    on_progress: Callable[[int, int], None],
    records: Records | None = None,
    *,
    is_overwriting: bool = False,
    has_other_target: bool = False,
) -> bool:
    """Downloads an MP3; ``target`` is written at once when it is complete.

    Args:
        server: where it is.
        fid: the id of the MP3.
        target: the file. The bytes so far are beside it, in a hidden file.
        on_progress: is told how many bytes are there, and how many there will be.
        records: where it is remembered which MP3 the file has.
        is_overwriting: whether to replace another file.
        has_other_target: whether the caller tries another name in the directory if another file has this one: the bytes
            so far are kept for that.

    Returns:
        False if the file was there: an earlier run that was interrupted has downloaded it, or another command.

    Raises:
        TargetExists: another file has the name.
        ClientError: it cannot be written, or the server has named it by something else than an id.
    """
    path = _path(server, fid)
    retries = Retries()
    reached = -1
    try:
        with _Part(fid, target, records) as part:
            while True:
                try:
                    if not is_overwriting and _is_there(server, fid, target, records):
                        return False
                    _continue(server, path, fid, part, on_progress)
                    part.publish(is_overwriting=is_overwriting)
                    return True
                except TargetExists:
                    if not has_other_target:
                        part.discard()
                    raise
                except TryAgain as error:
                    if part.size > reached:
                        reached = part.size
                        retries.progressed()
                    retries.pause(error)
    except OSError as error:
        raise ClientError(f"{target} cannot be written: {error.strerror}.") from error


def _is_there(server: Server, fid: str, target: Path, records: Records | None) -> bool:
    """Returns whether a file is the MP3, as it was downloaded.

    Raises:
        TargetExists: it is another file.
    """
    if not os.path.lexists(target):
        return False
    if records is not None:
        version = _version(server.request("HEAD", _path(server, fid)), fid)
        if records.is_download(target, version):
            return True
        if records.is_reserved(target, version):
            return False
    raise TargetExists(target)


def _path(server: Server, fid: str) -> str:
    if not (fid.isascii() and fid.isalnum()):
        raise not_mp3burst(server.url)
    return f"/download?fid={fid}"


class _Part:
    """The bytes of an MP3 so far, in a hidden file.

    One process at a time has it, from the first byte until the MP3 has its name.

    Attributes:
        version: of the MP3 that the bytes are of, as its ETag has it in quotation marks.
    """

    def __init__(self, fid: str, target: Path, records: Records | None) -> None:
        """Opens the file of an earlier run, or creates it; waits for a process that has it.

        Args:
            fid: the id of the MP3.
            target: where the MP3 goes; the file is beside it.
            records: where it is remembered which MP3 a file has.
        """
        self._path = target.with_name(f".{fid}.part")
        self._target = target
        self._records = records
        self.version = fid
        while True:
            self._file = self._path.open("ab")
            lock(self._file)
            if self._has_name(self._path) and not self._was_published():
                break
            self._file.close()
        if records is not None:
            self.version = records.version_of(self._path) or fid
        for outdated in target.parent.glob(f".{fid}-*.part"):  # versions before named it after its tags
            outdated.unlink(missing_ok=True)

    def _was_published(self) -> bool:
        """Returns whether a run that was killed has given the file its name; takes the hidden name away."""
        if os.fstat(self._file.fileno()).st_nlink == 1:
            return False
        if self._records is not None and self._has_name(self._target):
            self.version = self._records.version_of(self._path) or self.version
            self._record()
        self._path.unlink()
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.size == 0:
            self.discard()
        self._file.close()

    def discard(self) -> None:
        """Deletes the file, which is of no use to another run."""
        if self._has_name(self._path):
            self._path.unlink()
            if self._records is not None:
                self._records.forget_download(self._path)

    @property
    def size(self) -> int:
        """The bytes so far."""
        return os.fstat(self._file.fileno()).st_size

    def restart(self, version: str) -> None:
        """Forgets the bytes so far; those that follow are of this version of the MP3."""
        self._file.truncate(0)
        self.version = version
        if self._records is not None:
            self._records.keep_download(self._path, version, "")

    def append(self, chunk: bytes) -> None:
        """Writes further bytes."""
        self._file.write(chunk)
        self._file.flush()

    def publish(self, *, is_overwriting: bool) -> None:
        """Gives the complete MP3 its name.

        Raises:
            TargetExists: another file has it.
        """
        os.fsync(self._file.fileno())
        if is_overwriting or (self._records is not None and self._records.is_reserved(self._target, self.version)):
            self._record()
            self._path.replace(self._target)
        else:
            place(self._path, self._target, self._record)
        if self._records is not None:
            self._records.forget_download(self._path)

    def _record(self) -> None:
        if self._records is not None:
            self._records.keep_download(self._target, self.version, identity_of(os.fstat(self._file.fileno())))

    def _has_name(self, path: Path) -> bool:
        try:
            return os.path.samestat(path.lstat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False


def _continue(server: Server, path: str, fid: str, part: _Part, on_progress: Callable[[int, int], None]) -> None:
    """Downloads what is missing from a part."""
    offset = part.size
    # If the tags were changed since, the server sends all of the MP3.
    headers = {"Range": f"bytes={offset}-", "If-Range": f'"{part.version}"'} if offset else {}
    try:
        response = server.request("GET", path, headers=headers, stream=True)
    except RequestRefused as error:
        if error.code != 416 or not offset:
            raise
        if error.headers.get("Content-Range") != f"bytes */{offset}":  # the part has bytes of something else
            part.restart(fid)
            _continue(server, path, fid, part, on_progress)
        return  # complete, but killed before it was published
    try:
        total = _size(server, response)
        if response.status != 206:
            part.restart(_version(response, fid))
            offset = 0
        for chunk in response.stream(_CHUNK):
            part.append(chunk)
            offset += len(chunk)
            on_progress(offset, total)
    except urllib3.exceptions.HTTPError as error:
        raise _lost(server) from error
    finally:
        response.close()
    if part.size != total:
        raise _lost(server)


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


def _lost(server: Server) -> Unreachable:
    return Unreachable(f"The connection to {server.url} was lost: try again.")

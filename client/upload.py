"""Uploads a file by tus 1.0 (https://tus.io/protocols/resumable-upload).

After a lost connection, or a killed client, an upload continues where the server says that it ends.
"""

import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from client.errors import FileChanged, RequestRefused, Stopped, not_mp3burst
from client.records import Content, Records
from client.server import Retries, Server
from client.sound.view import View
from events.errors import TryAgain

_VERSION: Final = {"Tus-Resumable": "1.0.0"}
#: Bytes that are read and sent at once.
_CHUNK: Final = 256 << 10
#: Seconds after which a request ends and another continues: on Knative a request may take 600 s.
_REQUEST_SECONDS: Final = 240.0
#: Upload has expired, or is another user's (a login as another user).
_GONE: Final = (404, 410)
#: The upload ends elsewhere, because more arrived than was known.
_WRONG_OFFSET: Final = 409
_MAX_DIGITS: Final = 19

Progress = Callable[[int], None]


class Upload:
    """One file on its way to the server."""

    def __init__(
        self,
        server: Server,
        records: Records,
        content: Content,
        view: View,
        metadata: Mapping[str, str],
        stopped: threading.Event,
    ) -> None:
        """Prepares the upload.

        Args:
            server: where it goes.
            records: where it is remembered.
            content: what it is.
            view: the bytes.
            metadata: the file's name and the options.
            stopped: once it is set, no further bytes are sent.
        """
        self._server = server
        self._records = records
        self._content = content
        self._view = view
        self._stopped = stopped
        #: Its path on the server. Another process that uploads the same may end first, and delete the record.
        self._location = ""
        self._metadata = ",".join(
            f"{name} {b64encode(value.encode(errors='replace')).decode()}" for name, value in metadata.items()
        )

    def run(self, on_progress: Progress) -> str:
        """Uploads what the server does not have yet; returns the job's id.

        Raises:
            TryAgain: the server could not be reached often enough, or the upload was stopped; it continues in another
                run.
            RequestRefused: the server does not want the file.
            FileChanged: the file was changed meanwhile; the upload is deleted.
            TargetExists: there is no upload, and the MP3 would replace a file.
        """
        retries = Retries(self._stopped)
        reached = -1
        while True:
            try:
                self._location, offset, job = self._position()
                if job:
                    self._view.check()
                    return job
                if offset > reached:
                    reached = offset
                    retries.progressed()
                on_progress(offset)
                job = self._send(self._location, offset, on_progress)
                if job:
                    return job
                if self._stopped.is_set():
                    raise Stopped("The upload was stopped: the same command continues it.")
            except TryAgain as error:
                retries.pause(error)
            except FileChanged:
                self._discard(self._location)
                raise

    def _position(self) -> tuple[str, int, str]:
        """Returns the upload's path, how much of it the server has, and its job, if it is complete."""
        record = self._records.find(self._content.id)
        location = self._location if record is None else record.location
        if location:
            try:
                headers = self._server.request("HEAD", location, headers=_VERSION).headers
                job = headers.get("Mp3burst-Job", "")
                if job or self._number(headers, "Upload-Length") == self._view.size:
                    return location, self._number(headers, "Upload-Offset"), job
                # What was begun is the complete file, and now it is the sound, or the other way round.
                self._discard(location)
            except RequestRefused as error:
                if error.code not in _GONE:
                    raise
                self._records.forget(self._content.id, location)
                self._location = ""
        with self._records.creating(self._content) as record:
            if record is None:
                return self._create(), 0, ""
        return self._position()  # another process has created it meanwhile

    def _create(self) -> str:
        creation = {"Upload-Length": str(self._view.size), "Upload-Metadata": self._metadata}
        location = self._server.request("POST", "/files", b"", _VERSION | creation).headers.get("Location", "")
        if not location.startswith("/"):
            raise not_mp3burst(self._server.url)
        self._records.begin(self._content.id, location, self._content.target)
        return location

    def _number(self, headers: Mapping[str, str], name: str) -> int:
        text = headers.get(name, "")
        if not (text.isascii() and text.isdigit() and len(text) < _MAX_DIGITS):
            raise not_mp3burst(self._server.url)
        return int(text)

    def _send(self, location: str, offset: int, on_progress: Progress) -> str:
        headers = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        try:
            response = self._server.request("PATCH", location, self._part(offset, on_progress), _VERSION | headers)
        except RequestRefused as error:
            if error.code not in (*_GONE, _WRONG_OFFSET):
                self._discard(location)
                raise
            return ""  # the next HEAD tells how it is
        return response.headers.get("Mp3burst-Job", "")

    def _part(self, offset: int, on_progress: Progress) -> Iterator[bytes]:
        end = time.monotonic() + _REQUEST_SECONDS
        while time.monotonic() < end and not self._stopped.is_set() and (chunk := self._view.read(offset, _CHUNK)):
            offset += len(chunk)
            if offset == self._view.size:
                self._view.check()  # before the server has a complete file
            yield chunk
            on_progress(offset)

    def _discard(self, location: str) -> None:
        """Deletes the upload on both sides; another one, which another process has created since, stays."""
        self._records.forget(self._content.id, location)
        self._location = ""
        try:
            self._server.request("DELETE", location, headers=_VERSION)
        except (TryAgain, RequestRefused):
            return  # it expires

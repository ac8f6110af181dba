"""A tus 1.0 client that sends request by request. Uses the standard library only.

upload = Tus(me).create(len(content), filename="a.wav")
upload.patch(content[:1000])
job = upload.patch(content[1000:]).headers["Mp3burst-Job"]
"""

import http.client
import time
from base64 import b64encode
from collections.abc import Iterable
from typing import Self
from urllib.parse import urlsplit

from tests.e2e.client import Answer, Client

VERSION = {"Tus-Resumable": "1.0.0"}
PART = {"Content-Type": "application/offset+octet-stream"}


def metadata(**fields: str) -> str:
    """Returns the value of Upload-Metadata for these fields."""
    return ",".join(f"{name} {b64encode(value.encode()).decode()}" for name, value in fields.items())


class Tus:
    """One upload of a user.

    Attributes:
        offset: the offset in the server's last response.
    """

    def __init__(self, user: Client, location: str = "/files", offset: int = 0) -> None:
        self.user = user
        self.location = location
        self.offset = offset

    def post(self, body: bytes = b"", **headers: str | None) -> Answer:
        """Sends POST /files with these headers, written with ``_`` for ``-``."""
        return self.user.call("POST", "/files", body, VERSION | dashed(headers))

    def create(self, length: int | None, **fields: str) -> Self:
        """Creates an upload, which must succeed, and returns it."""
        lengths = {"Upload_Defer_Length": "1"} if length is None else {"Upload_Length": str(length)}
        answer = self.post(b"", Upload_Metadata=metadata(**fields) or None, **lengths)
        assert answer.status == 201, answer.body
        return type(self)(self.user, answer.headers["Location"])

    def patch(self, body: bytes | Iterable[bytes], offset: int | None = None, **headers: str | None) -> Answer:
        """Sends PATCH at an offset, by default the upload's."""
        position = {"Upload-Offset": str(self.offset if offset is None else offset)}
        answer = self.user.call("PATCH", self.location, body, VERSION | PART | position | dashed(headers), 600)
        if "Upload-Offset" in answer.headers:
            self.offset = int(answer.headers["Upload-Offset"])
        return answer

    def rest(self, content: bytes) -> str:
        """Sends the missing bytes and returns the job's id. Asks for the offset again after a 409 or 423."""
        deadline = time.monotonic() + 60
        while True:
            assert self.head().status == 200
            answer = self.patch(content[self.offset :])
            if answer.status == 204:
                return answer.headers["Mp3burst-Job"]
            assert answer.status in (409, 423), answer.body
            assert time.monotonic() < deadline

    def head(self) -> Answer:
        """Sends HEAD."""
        answer = self.user.call("HEAD", self.location, None, VERSION)
        if answer.status == 200:
            self.offset = int(answer.headers["Upload-Offset"])
        return answer

    def delete(self) -> Answer:
        """Sends DELETE."""
        return self.user.call("DELETE", self.location, None, VERSION)

    def open_request(self, length: int, method: str = "PATCH", **headers: str | None) -> http.client.HTTPConnection:
        """Sends the headers of a request of ``length`` bytes, and returns its connection, which the caller closes."""
        parts = urlsplit(self.user.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        connection.putrequest(method, self.location)
        position = {"Upload-Offset": str(self.offset), "Content-Length": str(length)}
        authorization = {"Authorization": f"Bearer {self.user.token}"}
        for name, value in {**VERSION, **PART, **position, **authorization, **dashed(headers)}.items():
            connection.putheader(name, value or "")
        connection.endheaders()
        return connection


def dashed(headers: dict[str, str | None]) -> dict[str, str | None]:
    """Replaces ``_`` by ``-`` in the names of headers."""
    return {name.replace("_", "-"): value for name, value in headers.items()}

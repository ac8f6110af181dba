"""A user who uploads by tus 1.0, request by request. The standard library only.

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
    """Upload-Metadata."""
    return ",".join(f"{name} {b64encode(value.encode()).decode()}" for name, value in fields.items())


class Tus:
    """One upload of a user; ``offset`` is what the server said last."""

    def __init__(self, user: Client, location: str = "/files", offset: int = 0) -> None:
        self.user, self.location, self.offset = user, location, offset

    def post(self, body: bytes = b"", **headers: str | None) -> Answer:
        """POST /files, with these headers; ``_`` for ``-``."""
        return self.user.call("POST", "/files", body, VERSION | dashed(headers))

    def create(self, length: int | None, **fields: str) -> Self:
        """A new upload that is taken."""
        lengths = {"Upload_Defer_Length": "1"} if length is None else {"Upload_Length": str(length)}
        answer = self.post(b"", Upload_Metadata=metadata(**fields) or None, **lengths)
        assert answer.status == 201, answer.body
        return type(self)(self.user, answer.headers["Location"])

    def patch(self, body: bytes | Iterable[bytes], offset: int | None = None, **headers: str | None) -> Answer:
        """PATCH at the offset, by default where the upload ends."""
        where = {"Upload-Offset": str(self.offset if offset is None else offset)}
        answer = self.user.call("PATCH", self.location, body, VERSION | PART | where | dashed(headers), 600)
        if "Upload-Offset" in answer.headers:
            self.offset = int(answer.headers["Upload-Offset"])
        return answer

    def rest(self, content: bytes) -> str:
        """Send what is missing, as clients do: ask, go on, and ask again where another was faster; the job."""
        deadline = time.monotonic() + 60
        while True:
            assert self.head().status == 200
            answer = self.patch(content[self.offset :])
            if answer.status == 204:
                return answer.headers["Mp3burst-Job"]
            assert answer.status in (409, 423), answer.body
            assert time.monotonic() < deadline

    def head(self) -> Answer:
        """HEAD."""
        answer = self.user.call("HEAD", self.location, None, VERSION)
        if answer.status == 200:
            self.offset = int(answer.headers["Upload-Offset"])
        return answer

    def delete(self) -> Answer:
        """DELETE."""
        return self.user.call("DELETE", self.location, None, VERSION)

    def line(self, length: int, method: str = "PATCH", **headers: str | None) -> http.client.HTTPConnection:
        """The line of a request of so many bytes, none of which are sent yet; it is the caller's."""
        parts = urlsplit(self.user.url)
        line = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        line.putrequest(method, self.location)
        where = {"Upload-Offset": str(self.offset), "Content-Length": str(length)}
        speaker = {"Authorization": f"Bearer {self.user.token}"}
        for name, value in {**VERSION, **PART, **where, **speaker, **dashed(headers)}.items():
            line.putheader(name, value or "")
        line.endheaders()
        return line


def dashed(headers: dict[str, str | None]) -> dict[str, str | None]:
    """Headers by names with ``_`` for ``-``."""
    return {name.replace("_", "-"): value for name, value in headers.items()}

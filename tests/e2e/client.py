"""A client of mp3burst: registers, logs in, uploads, waits and downloads. Uses the standard library only.

with wave_file(seconds=2) as file:
    me = Client(platform.url).sign_up()
    job = me.wait(me.upload(file, "a.wav")["job"])
    mp3 = me.download(job["mp3"]).body
"""

import contextlib
import http.client
import io
import itertools
import json
import math
import secrets
import struct
import threading
import time
import wave
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, Self
from urllib.parse import quote, urlencode, urlsplit

PASSWORD = "correct horse battery"
BOUNDARY = "mp3burst-test-boundary"
_CHUNK = 1 << 20
#: Larger files, in bytes, are uploaded in parts.
_LARGE = 64 << 20
_number = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        """Parses the body as JSON."""
        return json.loads(self.body)

    def problem(self, status: int) -> dict[str, Any]:
        """Asserts that the response is a problem (RFC 9457) with a message in its detail, and returns it."""
        assert self.status == status, f"{self.status}: {self.body[:500]!r}"
        assert self.headers["Content-Type"] == "application/problem+json"
        problem: dict[str, Any] = self.json()
        assert {"type", "title", "status", "detail"} <= problem.keys()
        assert problem["status"] == status
        assert isinstance(problem["type"], str)
        assert problem["title"]
        assert len(problem["detail"]) > 10
        assert problem["detail"].endswith(".")
        return problem


class Client:
    """One user, or an anonymous client. Every call opens its own connection, so threads may share a client."""

    def __init__(self, url: str, token: str = "", username: str = "", user: str = "") -> None:
        self.url = url
        self.token = token
        self.username = username
        self.user = user

    def sign_up(self, username: str = "", name: str = "Ada") -> Self:
        """Registers a new user and returns their client, logged in."""
        username = username or f"user{next(_number)}.{secrets.token_hex(4)}@example.org"
        answer = self.register(name=name, username=username, password=PASSWORD)
        assert answer.status == 201, answer.body
        return type(self)(self.url, "", answer.json()["username"], answer.json()["id"]).log_in()

    def log_in(self) -> Self:
        """Returns the same user's client with a fresh token."""
        answer = self.login(self.username, PASSWORD)
        assert answer.status == 200, answer.body
        return type(self)(self.url, answer.json()["token"], self.username, self.user)

    def call(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str | None] | None = None,
        timeout: float = 60,
        source: str | None = None,
    ) -> Answer:
        """Sends a request with the user's token, unless ``headers`` has Authorization; a header of None is omitted."""
        token = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        sent = {name: value for name, value in (token | dict(headers or {})).items() if value is not None}
        parts = urlsplit(self.url)
        local = (source, 0) if source else None
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout, source_address=local)
        with contextlib.closing(connection):
            chunked = body is not None and not isinstance(body, bytes) and "Content-Length" not in sent
            # If the server stops reading before everything is sent, its response has already arrived.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, body, sent, encode_chunked=chunked)
            with connection.getresponse() as response:
                return Answer(response.status, response.headers, response.read())

    def post_json(self, path: str, value: object) -> Answer:
        """Sends a value as JSON by POST."""
        return self.call("POST", path, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def register(self, **form: object) -> Answer:
        """Calls POST /register."""
        return self.post_json("/register", form)

    def login(self, username: str, password: str, address: str | None = None) -> Answer:
        """Calls POST /login, from an address of the loopback network if one is given."""
        basic = b64encode(f"{username}:{password}".encode()).decode()
        return self.call("POST", "/login", b"", {"Authorization": f"Basic {basic}"}, source=address)

    def try_upload(
        self,
        file: IO[bytes],
        filename: str,
        options: Mapping[str, str] | None = None,
        key: str | None = None,
        timeout: float = 60,
    ) -> Answer:
        """Calls POST /upload with a form: the options, then the file, which is streamed."""
        fields = (field(name, value) for name, value in (options or {}).items())
        return self.post_form([*fields, file_part(filename, b"")[:-2]], file, key, timeout)

    def post_form(
        self, parts: Iterable[bytes], file: IO[bytes] | None = None, key: str | None = None, timeout: float = 60
    ) -> Answer:
        """Calls POST /upload with a form of these parts; a file's bytes follow the last part."""
        begin = b"".join(parts)
        end = f"--{BOUNDARY}--\r\n".encode()
        size = 0
        if file is not None:
            size = file.seek(0, io.SEEK_END)
            end = b"\r\n" + end
            file.seek(0)
        headers = {
            "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
            "Content-Length": str(len(begin) + size + len(end)),
            "Idempotency-Key": key,
        }
        content = iter(lambda: file.read(_CHUNK), b"") if file is not None else iter(())
        return self.call("POST", "/upload", itertools.chain([begin], content, [end]), headers, timeout)

    def upload(self, file: IO[bytes], filename: str, options: Mapping[str, str] | None = None) -> dict[str, str]:
        """Uploads a file, a large one in parts, and asserts that it is accepted. Returns ``{"job", "fid"}``."""
        if file.seek(0, io.SEEK_END) > _LARGE:
            job = self.upload_in_parts(file, {"filename": filename, **(options or {})})
            return {"job": job, "fid": self.job(job)["fid"]}
        answer = self.try_upload(file, filename, options)
        assert answer.status == 202, answer.body
        accepted: dict[str, str] = answer.json()
        return accepted

    def upload_in_parts(self, file: IO[bytes], metadata: Mapping[str, str], part: int = 16 << 20) -> str:
        """Uploads a file with tus (https://tus.io/protocols/resumable-upload) in parts of ``part`` bytes.

        Returns the job's id.
        """
        size = file.seek(0, io.SEEK_END)
        encoded = ",".join(f"{name} {b64encode(value.encode()).decode()}" for name, value in metadata.items())
        version = {"Tus-Resumable": "1.0.0"}
        answer = self.call("POST", "/files", b"", {**version, "Upload-Length": str(size), "Upload-Metadata": encoded})
        assert answer.status == 201, answer.body
        location = answer.headers["Location"]
        offset = 0
        while offset < size:
            file.seek(offset)
            headers = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)}
            answer = self.call("PATCH", location, file.read(part), version | headers, 600)
            assert answer.status == 204, answer.body
            offset = int(answer.headers["Upload-Offset"])
        return answer.headers["Mp3burst-Job"]

    def upload_raw(
        self, content: bytes | Iterable[bytes], type_: str = "audio/wav", size: int | None = None, **query: str
    ) -> Answer:
        """Calls POST /upload with the bare file as body, chunked if its size is unknown."""
        length = len(content) if isinstance(content, bytes) else size
        headers = {"Content-Type": type_, "Content-Length": None if length is None else str(length)}
        return self.call("POST", f"/upload?{urlencode(query)}", content, headers, 600)

    def job(self, job: str, wait: float | None = None) -> dict[str, Any]:
        """Calls GET /jobs/JOB and asserts that the job exists."""
        answer = self.call("GET", f"/jobs/{job}" + ("" if wait is None else f"?wait={wait:g}"))
        assert answer.status == 200, answer.body
        found: dict[str, Any] = answer.json()
        return found

    def wait(self, job: str, seconds: float = 120) -> dict[str, Any]:
        """Waits until the job is done or failed, and returns it."""
        deadline = time.monotonic() + seconds
        while (found := self.job(job, wait=10))["status"] not in ("done", "failed"):
            assert time.monotonic() < deadline, f"the job has not finished within {seconds:g} s: {found}"
        return found

    def convert(self, file: IO[bytes], filename: str, options: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Uploads a file and waits until its job is done or failed."""
        return self.wait(self.upload(file, filename, options)["job"])

    def jobs(self, **query: object) -> dict[str, Any]:
        """Calls GET /jobs."""
        answer = self.call("GET", f"/jobs?{urlencode(query)}")
        assert answer.status == 200, answer.body
        page: dict[str, Any] = answer.json()
        return page

    def download(self, fid: str, method: str = "GET", **headers: str | None) -> Answer:
        """Calls GET or HEAD /download; header names have ``_`` in place of ``-``."""
        return self.call(
            method, f"/download?fid={quote(fid)}", None, {name.replace("_", "-"): headers[name] for name in headers}
        )


def field(name: str, value: str) -> bytes:
    """Returns a field of a form."""
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


def file_part(filename: str, content: bytes, name: str = "file") -> bytes:
    """Returns a file of a form."""
    escaped = filename.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{escaped}"\r\n'
    return f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + content + b"\r\n"


def wave_bytes(seconds: float = 1.0, rate: int = 8000) -> bytes:
    """Returns a mono WAV file with a 440 Hz tone."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        count = round(seconds * rate)
        tone = (round(8000 * math.sin(2 * math.pi * 440 * n / rate)) for n in range(count))
        sound.writeframes(struct.pack(f"<{count}h", *tone))
    return file.getvalue()


class PeakRss:
    """Samples the peak memory of processes while a block runs: the kernel's figure, in bytes, by (name, pid)."""

    def __init__(self, pids: Callable[[], Iterable[tuple[str, int]]], every: float = 0.5) -> None:
        self._pids = pids
        self._every = every
        self.peaks: dict[tuple[str, int], int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._every):
            self.sample()

    def sample(self) -> None:
        """Takes one sample."""
        for name, pid in self._pids():
            if (peak := peak_rss(pid)) is not None:
                self.peaks[name, pid] = max(peak, self.peaks.get((name, pid), 0))


def peak_rss(pid: int) -> int | None:
    """Returns the peak memory of a process in bytes, or None if it has ended (proc(5): VmHWM)."""
    try:
        with open(f"/proc/{pid}/status") as status:  # noqa: PTH123 - no Path for a hundred reads a second
            return next((int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM:")), None)
    except (FileNotFoundError, ProcessLookupError):
        return None


def each(iterable: Iterable[bytes]) -> Iterator[bytes]:
    """Iterates over chunks without a known length, so that the request is sent chunked."""
    yield from iterable

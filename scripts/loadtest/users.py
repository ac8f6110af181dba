"""Sends the burst as one user with several clients, by the public calls."""

import base64
import http.client
import json
import secrets
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from scripts.loadtest.recording import ENDED

_PAGE = 100


@dataclass(frozen=True, slots=True)
class Burst:
    """What to send.

    Attributes:
        video: the file.
        count: how many times to upload it.
        clients: how many clients upload at once.
    """

    video: Path
    count: int
    clients: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What a user sees of their jobs.

    Attributes:
        jobs: the number of jobs in each state.
        pieces: the number of pieces of the jobs that were split.
        encoded: how many of them are encoded.
    """

    jobs: dict[str, int] = field(default_factory=dict)
    pieces: int = 0
    encoded: int = 0

    def ended(self) -> int:
        """Returns how many jobs have ended."""
        return sum(self.jobs.get(state, 0) for state in ENDED)


class Refused(Exception):
    """A call was answered with an error; the text has its message."""


class Api:
    """The calls of one user, once ``sign_up`` has been called. Every call opens a connection."""

    def __init__(self, url: str, connect: str = "") -> None:
        """Prepares the calls; makes none yet.

        Args:
            url: the platform's URL; ``{function}`` in it is replaced by the name of the called function.
            connect: HOST:PORT to connect to if the URL's host name does not resolve.
        """
        self.url = url
        self._connect = connect
        self._headers = {"Content-Type": "application/json"}

    def call(
        self, function: str, method: str, path: str, headers: dict[str, str] | None = None, body: Any = None
    ) -> Any:
        """Makes a call and returns the JSON of its answer.

        Raises:
            Refused: the answer is an error.
            OSError: there is no answer.
        """
        address = urlsplit(self.url.replace("{function}", function))
        kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._connect or address.netloc, timeout=1800)
        try:
            connection.request(method, path, body, {**self._headers, "Host": address.netloc, **(headers or {})})
            answer = connection.getresponse()
            content = answer.read()
        except http.client.HTTPException as error:
            raise OSError(f"{method} {path.partition('?')[0]} got no answer: {error!r}") from error
        finally:
            connection.close()
        if answer.status >= 300:
            raise Refused(f"{method} {path.partition('?')[0]} was answered {answer.status}: {content[:300]!r}")
        return json.loads(content)

    def sign_up(self) -> None:
        """Registers a new user and logs in."""
        name = f"burst-{secrets.token_hex(4)}@example.org"
        password = secrets.token_urlsafe(16)
        form = {"name": "Burst", "username": name, "password": password}
        self.call("register", "POST", "/register", body=json.dumps(form).encode())
        basic = base64.b64encode(f"{name}:{password}".encode()).decode()
        token = self.call("login", "POST", "/login", {"Authorization": f"Basic {basic}"})["token"]
        self._headers = {"Authorization": f"Bearer {token}"}

    def upload(self, video: Path) -> str:
        """Uploads a video and returns its job."""
        headers = {"Content-Type": "video/mp4", "Content-Length": str(video.stat().st_size)}
        with video.open("rb") as file:
            path = f"/upload?filename={quote(video.name)}"
            return str(self.call("upload", "POST", path, headers, file)["job"])

    def seen(self) -> Seen:
        """Returns the state of the user's jobs."""
        jobs: list[Any] = []
        after = ""
        while True:
            page = self.call("status", "GET", f"/jobs?limit={_PAGE}{after}")
            jobs += page["jobs"]
            if not page["next"]:
                break
            after = f"&after={page['next']}"
        pieces = [job["pieces"] for job in jobs if job["pieces"]]
        return Seen(
            dict(Counter(job["status"] for job in jobs)),
            sum(each["total"] for each in pieces),
            sum(each["done"] for each in pieces),
        )


class Uploads:
    """Uploads a video several times from several clients at once; a context manager."""

    def __init__(self, api: Api, burst: Burst) -> None:
        self._pool = ThreadPoolExecutor(burst.clients)
        self._sent: list[Future[str]] = [self._pool.submit(api.upload, burst.video) for _ in range(burst.count)]

    def __enter__(self) -> "Uploads":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def running(self) -> bool:
        """Returns whether an upload is not answered yet."""
        return not all(one.done() for one in self._sent)

    def accepted(self) -> int:
        """Returns how many uploads were accepted so far."""
        return sum(one.done() and one.exception() is None for one in self._sent)

    def errors(self) -> list[str]:
        """Returns the errors of the uploads that were not accepted."""
        return [str(error) for one in self._sent if one.done() and (error := one.exception())]

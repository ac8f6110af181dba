"""Who sends the burst: a user with several clients, by the calls that everybody has."""

import base64
import http.client
import json
import secrets
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

_PAGE = 100


class Refused(Exception):
    """A call was answered with an error; the text has its sentence."""


class Api:
    """The calls, of one user once ``sign_up`` has been called. Every call has a connection of its own."""

    def __init__(self, url: str, connect: str = "") -> None:
        """Connect to nothing yet.

        Args:
            url: where the platform is; ``{function}`` in it stands for the name of the function that is called.
            connect: HOST:PORT to connect to, where the URL's host name leads nowhere.
        """
        self.url, self._connect, self._bearer = url, connect, {"Content-Type": "application/json"}

    def call(
        self, function: str, method: str, path: str, headers: dict[str, str] | None = None, body: Any = None
    ) -> Any:
        """The answer's JSON.

        Raises:
            Refused: it is an error.
            OSError: nobody answers.
        """
        address = urlsplit(self.url.replace("{function}", function))
        kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._connect or address.netloc, timeout=1800)
        try:
            connection.request(method, path, body, {**self._bearer, "Host": address.netloc, **(headers or {})})
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
        """Register a user that nobody else is, and log in."""
        name, password = f"burst-{secrets.token_hex(4)}@example.org", secrets.token_urlsafe(16)
        form = {"name": "Burst", "username": name, "password": password}
        self.call("register", "POST", "/register", body=json.dumps(form).encode())
        basic = base64.b64encode(f"{name}:{password}".encode()).decode()
        token = self.call("login", "POST", "/login", {"Authorization": f"Basic {basic}"})["token"]
        self._bearer = {"Authorization": f"Bearer {token}"}

    def upload(self, video: Path, fields: str = "") -> str:
        """Send a video; its job. ``fields`` are options in the form of a query."""
        headers = {"Content-Type": "video/mp4", "Content-Length": str(video.stat().st_size)}
        with video.open("rb") as file:
            query = f"filename={quote(video.name)}" + (f"&{fields}" if fields else "")
            return str(self.call("upload", "POST", f"/upload?{query}", headers, file)["job"])

    def states(self) -> dict[str, int]:
        """How many of the user's jobs are in which state."""
        counts: dict[str, int] = {}
        after = ""
        while True:
            page = self.call("status", "GET", f"/jobs?limit={_PAGE}{after}")
            for job in page["jobs"]:
                counts[job["status"]] = counts.get(job["status"], 0) + 1
            if not page["next"]:
                return counts
            after = f"&after={page['next']}"


class Crowd:
    """Uploads at once by so many clients; a context manager."""

    def __init__(self, api: Api, video: Path, many: int, clients: int) -> None:
        self._pool = ThreadPoolExecutor(clients)
        self._sent: list[Future[str]] = [self._pool.submit(api.upload, video) for _ in range(many)]

    def __enter__(self) -> "Crowd":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def uploading(self) -> bool:
        """Whether one has no answer yet."""
        return not all(one.done() for one in self._sent)

    def taken(self) -> int:
        """How many were taken, of those that have their answer."""
        return sum(one.done() and one.exception() is None for one in self._sent)

    def refusals(self) -> list[str]:
        """Why the others were not."""
        return [str(error) for one in self._sent if one.done() and (error := one.exception())]

"""An OpenID Connect provider on loopback, whose users log in with one click: oidc-provider-mock."""

import contextlib
import http.client
import json
import sys
from urllib.parse import urlencode, urlsplit

from tests.support.servers.process import Server


class IdentityProvider(Server):
    """A provider; a context manager. ``url`` is its issuer, ``other_url`` that of a second one with the same users."""

    def __init__(self) -> None:
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}"
        self.other_url = f"http://localhost:{self.port}"

    def command(self) -> list[str]:
        """Returns the command that starts the server in the foreground."""
        return [sys.executable, "-m", "oidc_provider_mock", "--port", str(self.port)]

    def put(self, subject: str, **claims: object) -> None:
        """Creates an account, or replaces what is known of it."""
        self._call("PUT", f"/users/{subject}", json.dumps(claims), "application/json")

    def log_in(self, address: str, subject: str) -> str:
        """Logs in at the address that a browser was sent to; returns the one that it is sent back to."""
        parts = urlsplit(address)
        assert f"{parts.scheme}://{parts.netloc}" in (self.url, self.other_url)
        body = urlencode({"sub": subject})
        return self._call(
            "POST", f"{parts.path}?{parts.query}", body, "application/x-www-form-urlencoded", parts.netloc
        )

    def _call(self, method: str, path: str, body: str, kind: str, host: str = "") -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            headers = {"Content-Type": kind, "Host": host or f"127.0.0.1:{self.port}"}
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            assert response.status < 400, response.read()
            return response.headers.get("Location", "")

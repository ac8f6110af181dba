"""An OpenID Connect provider on loopback, whose users log in with one click: oidc-provider-mock."""

import contextlib
import http.client
import json
import sys
from urllib.parse import urlencode, urlsplit

from tests.support.servers.process import Server


class IdentityProvider(Server):
    """A provider; a context manager. ``url`` is its issuer."""

    def __init__(self) -> None:
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """Returns the command that starts the server in the foreground."""
        return [sys.executable, "-m", "oidc_provider_mock", "--port", str(self.port)]

    def put(self, subject: str, **claims: object) -> None:
        """Creates an account, or replaces what is known of it."""
        self._call("PUT", f"/users/{subject}", json.dumps(claims), "application/json")

    def log_in(self, address: str, subject: str) -> str:
        """Logs in at the address that a browser was sent to; returns the one that it is sent back to."""
        parts = urlsplit(address)
        assert f"{parts.scheme}://{parts.netloc}" == self.url
        body = urlencode({"sub": subject})
        return self._call("POST", f"{parts.path}?{parts.query}", body, "application/x-www-form-urlencoded")

    def _call(self, method: str, path: str, body: str, kind: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Content-Type": kind})
            response = connection.getresponse()
            assert response.status < 400, response.read()
            return response.headers.get("Location", "")

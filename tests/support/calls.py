"""Calls HTTP functions in this process, without a server."""

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import pytest
from flask import Request, Response
from sqlalchemy import insert
from werkzeug.test import EnvironBuilder

from functions.auth.tokens import Signer
from functions.state.database import Database
from functions.state.schema import UserId, users
from tests.support.databases import sqlite
from tests.unit.auth.test_tokens import KEY, private_pem, public_pem

LINK_KEY = "k" * 32
#: The user who exists at the beginning.
USER = "f" * 32
#: What the functions build once per process.
_CACHED = {
    "admin": "dependencies",
    "metrics": "latest",
    "register": "dependencies",
    "account": "dependencies",
    "confirm": "dependencies",
    "login": "dependencies",
    "status": "dependencies",
    "download": "dependencies",
    "upload": "dependencies",
}


@dataclass(frozen=True)
class Call:
    """A request to one function, from 127.0.0.1."""

    function: str
    method: str
    path: str
    query: str = ""
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    def send(self) -> Response:
        target: Callable[[Request], Response] = getattr(import_module(f"functions.{self.function}.main"), self.function)
        environ = EnvironBuilder("/", method=self.method, data=self.body).get_environ()
        environ |= {"PATH_INFO": self.path, "QUERY_STRING": self.query, "REMOTE_ADDR": "127.0.0.1"}
        for name, value in self.headers.items():
            key = name.upper().replace("-", "_")
            # As WSGI has them: bytes, decoded as Latin-1.
            environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value.encode().decode("latin-1")
        return target(Request(environ))

    def having(self, **headers: str) -> "Call":
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return Call(self.function, self.method, self.path, self.query, self.body, {**self.headers, **named})


def basic(username: str, password: str) -> str:
    """Returns an Authorization header with a username and a password."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def bearer(username: str, user: str = USER) -> str:
    """Returns an Authorization header with a valid token."""
    return "Bearer " + Signer(private_pem(KEY)).sign(UserId(user), username, "user")


def add_user(database: Database, user: str = USER, username: str = "ann") -> None:
    """Adds a user whose tokens are valid and who cannot log in."""
    row = {"id": user, "username": username, "email": "ann@example.org", "name": "Ann", "password_hash": ""}
    statement = insert(users).values(**row, role="user", created_at=0, confirmed_at=0)
    database.run(lambda connection: connection.execute(statement))


@contextmanager
def functions(directory: Path) -> Iterator[pytest.MonkeyPatch]:
    """Gives the functions a database with one user, a media directory and keys; makes them forget these afterwards."""
    with sqlite(directory) as database, pytest.MonkeyPatch.context() as patch:
        add_user(database)
        patch.setenv("DATABASE_URL", database.engine.url.render_as_string())
        patch.setenv("MEDIA_DIR", str(directory))
        patch.setenv("MIN_FREE_BYTES", "0")  # these tests do not mind a disk that is nearly full
        patch.setenv("K_SINK", "http://127.0.0.1:9")
        patch.setenv("TOKEN_PRIVATE_KEY", private_pem(KEY))
        patch.setenv("TOKEN_PUBLIC_KEYS", public_pem(KEY))
        patch.setenv("LINK_KEY", LINK_KEY)
        patch.setenv("LOG_KEY", "a key")
        _forget()
        yield patch
        _forget()


def _forget() -> None:
    for function, name in _CACHED.items():
        module = "dependencies" if function in ("account", "upload") else "main"
        getattr(import_module(f"functions.{function}.{module}"), name).cache_clear()

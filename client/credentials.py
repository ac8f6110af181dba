"""Keeps the server's address, and API keys in the system's keyring or else in a file that only its owner reads."""

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from client.errors import ClientError, NotLoggedIn
from client.server import Server, bearer

DEFAULT_URL: Final = "http://localhost:8080"
_SERVICE: Final = "mp3burst"


def directory(environ: Mapping[str, str], variable: str, default: str) -> Path:
    """Returns mp3burst's directory below one of the XDG base directories."""
    base = environ.get(variable) or ""
    return (Path(base) if Path(base).is_absolute() else Path.home() / default) / "mp3burst"


class Credentials:
    """The server that is logged in to, and its key."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Reads the environment: MP3BURST_URL and MP3BURST_KEY come before what is stored."""
        self._environ = environ
        self._path = directory(environ, "XDG_CONFIG_HOME", ".config") / "config.json"
        self._stored = self._read()

    @property
    def url(self) -> str:
        """The address of the server."""
        found: str = self._environ.get("MP3BURST_URL") or self._stored.get("url") or DEFAULT_URL
        return found.rstrip("/")

    def server(self) -> Server:
        """Returns the server with its key.

        Raises:
            NotLoggedIn: there is no key for it.
        """
        key = self._environ.get("MP3BURST_KEY") or self._stored.get("keys", {}).get(self.url) or _from_keyring(self.url)
        if not key:
            raise NotLoggedIn(f"You are not logged in to {self.url}: run mp3burst login.")
        return Server(self.url, bearer(key))

    def store(self, url: str, key: str) -> str:
        """Keeps a key and makes its server the current one; returns where the key is."""
        keys = {other: kept for other, kept in self._stored.get("keys", {}).items() if other != url}
        is_in_keyring = _to_keyring(url, key)
        if not is_in_keyring:
            keys[url] = key
        self._stored = {"url": url, "keys": keys}
        self._write()
        return "the keyring" if is_in_keyring else str(self._path)

    def forget(self) -> None:
        """Deletes the key of the current server."""
        self._stored.get("keys", {}).pop(self.url, None)
        _delete_from_keyring(self.url)
        if self._path.exists():
            self._write()

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ClientError(f"{self._path} cannot be read: delete it and run mp3burst login.") from error
        return found if isinstance(found, dict) else {}

    def _write(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor, name = tempfile.mkstemp(dir=self._path.parent)  # with mode 0600
            with os.fdopen(descriptor, "w") as file:
                json.dump(self._stored, file)
            Path(name).replace(self._path)
        except OSError as error:
            raise ClientError(f"{self._path} cannot be written ({error.strerror}): set XDG_CONFIG_HOME.") from error


def _from_keyring(url: str) -> str | None:
    import keyring
    import keyring.errors

    try:
        return keyring.get_password(_SERVICE, url)
    except keyring.errors.KeyringError:  # none is installed, or it is locked
        return None


def _to_keyring(url: str, key: str) -> bool:
    import keyring
    import keyring.errors

    try:
        keyring.set_password(_SERVICE, url, key)
        return keyring.get_password(_SERVICE, url) == key  # the backend "null" forgets it
    except keyring.errors.KeyringError:
        return False


def _delete_from_keyring(url: str) -> None:
    import keyring
    import keyring.errors

    with contextlib.suppress(keyring.errors.KeyringError):
        keyring.delete_password(_SERVICE, url)

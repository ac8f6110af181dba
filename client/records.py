"""Remembers uploads in a database of the user's own, so that a command that was killed goes on where it was."""

import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from client.credentials import directory
from client.errors import ClientError

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS uploads (
    server TEXT NOT NULL,
    content TEXT NOT NULL,
    location TEXT NOT NULL,
    mp3 TEXT,
    PRIMARY KEY (server, content)
)
"""
#: Seconds to wait for another process that writes.
_BUSY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Record:
    """An upload that was begun.

    Attributes:
        location: its path on the server, which also leads to its job.
        mp3: where the MP3 is; None until it is complete.
    """

    location: str
    mp3: Path | None


class Records:
    """The uploads to one server. Threads may share it."""

    def __init__(self, environ: Mapping[str, str], server: str) -> None:
        """Opens the database below XDG_STATE_HOME."""
        path = directory(environ, "XDG_STATE_HOME", ".local/state") / "uploads.db"
        self._server = server
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._database = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            self._database.execute(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ClientError(f"{path} cannot be opened ({error}): set XDG_STATE_HOME to a directory.") from error

    def find(self, content: str) -> Record | None:
        """Returns the upload of some content, whatever names it."""
        with self._lock:
            query = "SELECT location, mp3 FROM uploads WHERE server = ? AND content = ?"
            row = self._database.execute(query, (self._server, content)).fetchone()
        return None if row is None else Record(row[0], None if row[1] is None else Path(row[1]))

    def begin(self, content: str, location: str) -> None:
        """Records that an upload was created."""
        with self._lock:
            statement = "INSERT OR REPLACE INTO uploads (server, content, location) VALUES (?, ?, ?)"
            self._database.execute(statement, (self._server, content, location))

    def finish(self, content: str, mp3: Path) -> None:
        """Records where its MP3 is."""
        with self._lock:
            statement = "UPDATE uploads SET mp3 = ? WHERE server = ? AND content = ?"
            self._database.execute(statement, (str(mp3), self._server, content))

    def forget(self, content: str) -> None:
        """Deletes the record."""
        with self._lock:
            statement = "DELETE FROM uploads WHERE server = ? AND content = ?"
            self._database.execute(statement, (self._server, content))

"""Remembers uploads in a database of the user's own, so that a command that was killed goes on where it was."""

import os
import sqlite3
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from client.credentials import directory
from client.errors import ClientError, RecordsUnusable, TargetExists
from client.files import lock

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS uploads (
    server TEXT NOT NULL,
    content TEXT NOT NULL,
    location TEXT NOT NULL,
    target TEXT NOT NULL,
    is_done INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (server, content)
);
CREATE TABLE IF NOT EXISTS digests (
    path TEXT NOT NULL PRIMARY KEY,
    identity TEXT NOT NULL,
    digest TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS downloads (
    target TEXT NOT NULL PRIMARY KEY,
    server TEXT NOT NULL,
    version TEXT NOT NULL,
    identity TEXT NOT NULL
)
"""
#: Seconds to wait for another process that writes.
_BUSY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Record:
    """An upload that was begun.

    Attributes:
        location: its path on the server, which also leads to its job.
        target: where the MP3 is, or will be.
        is_done: whether the MP3 is there.
    """

    location: str
    target: Path
    is_done: bool


@dataclass(frozen=True, slots=True)
class Content:
    """What is uploaded, and where its MP3 goes.

    Attributes:
        id: identifies the bytes and the options.
        target: where the MP3 will be.
        is_target_free: whether the MP3 must not replace a file, nor get another name.
    """

    id: str
    target: Path
    is_target_free: bool = False


def identity_of(status: os.stat_result) -> str:
    """Returns what changes if a file does; renaming it changes nothing."""
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"


class Records:
    """The uploads to one server. Threads may share it."""

    def __init__(self, environ: Mapping[str, str], server: str) -> None:
        """Opens the database below XDG_STATE_HOME."""
        path = directory(environ, "XDG_STATE_HOME", ".local/state") / "uploads.db"
        self._server = server
        self._creating = path.with_suffix(".lock")
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._database = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            self._database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ClientError(f"{path} cannot be opened ({error}): set XDG_STATE_HOME to a directory.") from error

    def find(self, content: str) -> Record | None:
        """Returns the upload of some content, whatever names it."""
        query = "SELECT location, target, is_done FROM uploads WHERE server = ? AND content = ?"
        rows = self._run(query, self._server, content)
        return Record(rows[0][0], Path(rows[0][1]), bool(rows[0][2])) if rows else None

    def is_target(self, target: Path) -> bool:
        """Returns whether an upload's MP3 is, or will be, in this file."""
        return bool(self._run("SELECT 1 FROM uploads WHERE target = ?", str(target)))

    @contextmanager
    def creating(self, content: Content) -> Iterator[Record | None]:
        """Yields the upload of some content; without one, only this thread of this process may create it meanwhile.

        Raises:
            TargetExists: there is none, because another process has just finished it, or the target is another file.
            ClientError: the directory of the database cannot be written.
        """
        try:
            file = self._creating.open("ab")
        except OSError as error:
            raise ClientError(f"{self._creating} cannot be written ({error.strerror}): set XDG_STATE_HOME.") from error
        with file:
            lock(file)
            record = self.find(content.id)
            if record is None and content.is_target_free and os.path.lexists(content.target):
                raise TargetExists(content.target)
            yield record

    def begin(self, content: str, location: str, target: Path) -> None:
        """Records that an upload was created, and where its MP3 will be."""
        statement = "INSERT OR REPLACE INTO uploads (server, content, location, target) VALUES (?, ?, ?, ?)"
        self._run(statement, self._server, content, location, str(target))

    def move(self, content: str, target: Path) -> None:
        """Records that the MP3 of an upload will be in another file."""
        self._run("UPDATE uploads SET target = ? WHERE server = ? AND content = ?", str(target), self._server, content)

    def finish(self, content: str) -> None:
        """Records that its MP3 is there."""
        self._run("UPDATE uploads SET is_done = 1 WHERE server = ? AND content = ?", self._server, content)

    def forget(self, content: str, location: str = "") -> None:
        """Deletes the record; with ``location`` only that of this upload: another process may have created another."""
        statement = "DELETE FROM uploads WHERE server = ? AND content = ? AND ? IN (location, '')"
        self._run(statement, self._server, content, location)

    def is_download(self, target: Path, version: str) -> bool:
        """Returns whether a file is this version of an MP3, as it was downloaded."""
        query = "SELECT 1 FROM downloads WHERE target = ? AND server = ? AND version = ? AND identity = ?"
        return bool(self._run(query, str(target.absolute()), self._server, version, identity_of(target.lstat())))

    def is_reserved(self, target: Path, version: str = "") -> bool:
        """Returns whether a file is empty because a run was killed that was to put an MP3 there.

        Args:
            target: the file.
            version: of the MP3; without it any will do.
        """
        try:
            status = target.lstat()
        except FileNotFoundError:
            return False
        known = self.version_of(target)
        return stat.S_ISREG(status.st_mode) and status.st_size == 0 and known != "" and version in ("", known)

    def version_of(self, target: Path) -> str:
        """Returns which version of an MP3 was last said to be in a file; nothing if there was none."""
        query = "SELECT version FROM downloads WHERE target = ? AND server = ?"
        rows = self._run(query, str(target.absolute()), self._server)
        return rows[0][0] if rows else ""

    def forget_download(self, target: Path) -> None:
        """Deletes the record of a file that is gone."""
        self._run("DELETE FROM downloads WHERE target = ?", str(target.absolute()))

    def keep_download(self, target: Path, version: str, identity: str) -> None:
        """Records which version of an MP3 is, or will be, in a file."""
        statement = "INSERT OR REPLACE INTO downloads (target, server, version, identity) VALUES (?, ?, ?, ?)"
        self._run(statement, str(target.absolute()), self._server, version, identity)

    def digest(self, path: Path, identity: str) -> str | None:
        """Returns the digest of a file that has not changed since it was kept."""
        rows = self._run("SELECT digest FROM digests WHERE path = ? AND identity = ?", str(path), identity)
        return rows[0][0] if rows else None

    def keep_digest(self, path: Path, identity: str, digest: str) -> None:
        """Keeps the digest of a file."""
        statement = "INSERT OR REPLACE INTO digests (path, identity, digest) VALUES (?, ?, ?)"
        self._run(statement, str(path), identity, digest)

    def _run(self, statement: str, *values: str) -> list[Any]:
        try:
            with self._lock:
                return self._database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise RecordsUnusable(f"The list of uploads cannot be used ({error}): free space and try again.") from error

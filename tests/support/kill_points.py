"""A house whose inhabitants die: what a function is handed, wrapped so that its process is killed between two effects.

Between the end of one effect and the beginning of the next nothing but the process's own memory changes, so "after the
n-th call" and "before the next" are one moment, counted once. The moments are: before and after each transaction, and
within it just before its commit; before and after each call of a store, a writer, the broker and the mail server; and,
below the stores and the mail directory, before and after every file that is made durable and every change of a
directory. Death is SIGKILL, sent by a forked process to itself: no ``finally``, no rollback, no flush runs.
"""

import itertools
import math
import os
import shutil
import signal
import stat
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.headerregistry import Address
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, event, insert, select, update

from events.schema import Event, JobId, PieceCut, PiecesEncoded, VideoUploaded, parse
from functions.auth.accounts import UserId
from functions.auth.links import Links
from functions.auth.tokens import Identity
from functions.convert import handlers
from functions.convert.dependencies import Dependencies as ConvertDependencies
from functions.media import Appender, Checkpoint, Description, Media, Reader, Store, Writer
from functions.media.directory import DirectoryStore
from functions.notify.main import Dependencies as NotifyDependencies
from functions.notify.main import send_mail
from functions.notify.transports import Mail, MailDir
from functions.state.blobs import Blobs
from functions.state.database import Database
from functions.state.jobs import Jobs
from functions.state.mails import Mails
from functions.state.outbox import Outbox
from functions.state.overdue import Overdue
from functions.state.pieces import Pieces
from functions.state.schema import metadata, users
from functions.sweep.main import Dependencies as SweepDependencies
from functions.sweep.main import sweep_up
from functions.upload.dependencies import Dependencies as UploadDependencies
from functions.upload.tus.uploads import Uploads
from tests.support.databases import sqlite

T = TypeVar("T")
OWNER = "a" * 32
ADA = Identity(UserId(OWNER), "ada", "user", {})
_DAY = 86_400_000
#: What changes a directory; the bytes of files are written by way of the wrapped writers.
_CHANGES = ("mkdir", "rename", "replace", "unlink", "rmdir")


class Fate:
    """Counts the moments of a process, and ends it at the one that is its last; 0 lets it live.

    Args:
        last: which.
        diary: where it is written down before.
        begin: the effect after which counting begins.
    """

    def __init__(self, last: int = 0, diary: Path | None = None, begin: str = "") -> None:
        self._last, self._diary, self._begin = last, diary, begin
        self._moments, self._after, self._fresh = 0, "the beginning", True

    def moment(self, before: str) -> None:
        """Die here, if this is where."""
        if not self._fresh or self._begin:
            return
        self._fresh = False
        self._moments += 1
        if self._moments == self._last and self._diary:
            self._diary.write_text(f"after {self._after}, before {before}")
            os.kill(os.getpid(), signal.SIGKILL)

    def happened(self, what: str) -> None:
        """Something has changed that outlives the process."""
        self._after, self._fresh = what, True
        if what == self._begin:
            self._begin = ""

    @contextmanager
    def effect(self, what: str) -> Iterator[None]:
        """Something that changes the world, in the block."""
        self.moment(what)
        try:
            yield
        finally:
            self.happened(what)


class MortalDatabase(Database):
    """Dies before, within and after transactions."""

    def __init__(self, where: str, fate: Fate) -> None:
        super().__init__(where)
        self._fate = fate
        # A process that is killed loses nothing that it has given to the kernel.
        event.listen(
            self.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF").close()
        )

    def run(self, work: Callable[[Connection], T]) -> T:
        name = getattr(work, "__qualname__", "?").replace(".<locals>", "").replace(".<lambda>", "")

        def to_the_brink(connection: Connection) -> T:
            value = work(connection)
            self._fate.happened(f"the statements of {name}")
            self._fate.moment("their commit")
            return value

        with self._fate.effect(name):
            return super().run(to_the_brink)


class MortalStore:
    """Dies around every call, and in the middle of reading."""

    def __init__(self, store: Store, fate: Fate) -> None:
        self._store, self._fate = store, fate

    def create(self, blob: str, description: Description) -> Writer:
        with self._fate.effect("create"):
            return MortalWriter(self._store.create(blob, description), self._fate)

    def append(self, blob: str, checkpoint: Checkpoint, writer: int) -> Appender:
        with self._fate.effect("append"):
            return MortalAppender(self._store.append(blob, checkpoint, writer), self._fate)

    def open(self, blob: str) -> Reader:
        reader = self._store.open(blob)
        read, first = reader.read, itertools.chain([True], itertools.repeat(False))

        def mortal_read(size: int = -1, /) -> bytes:
            if next(first):
                with self._fate.effect("read"):
                    return read(size)
            return read(size)

        reader.read = mortal_read  # type: ignore[method-assign]
        return reader

    def delete(self, blob: str) -> None:
        with self._fate.effect("delete"):
            self._store.delete(blob)


class MortalWriter:
    """Dies around every call."""

    def __init__(self, writer: Writer, fate: Fate) -> None:
        self._writer, self._fate = writer, fate

    def __enter__(self) -> "MortalWriter":
        with self._fate.effect("the writer's beginning"):
            self._writer.__enter__()
        return self

    def write(self, data: bytes | bytearray | memoryview) -> int:
        with self._fate.effect("write"):
            return self._writer.write(data)

    def __exit__(self, *how: Any) -> None:
        with self._fate.effect("the writer's end"):
            self._writer.__exit__(*how)


class MortalAppender:
    """Dies around every call."""

    def __init__(self, appender: Appender, fate: Fate) -> None:
        self._appender, self._fate = appender, fate

    @property
    def checkpoint(self) -> Checkpoint:
        return self._appender.checkpoint

    @property
    def tail(self) -> bytes:
        return self._appender.tail

    def __enter__(self) -> "MortalAppender":
        with self._fate.effect("the appender's beginning"):
            self._appender.__enter__()
        return self

    def write(self, data: bytes | bytearray | memoryview) -> int:
        with self._fate.effect("write"):
            return self._appender.write(data)

    def sync(self, *, whole_blocks: bool = False) -> Checkpoint:
        with self._fate.effect("sync"):
            return self._appender.sync(whole_blocks=whole_blocks)

    def finish(self, description: Description) -> None:
        with self._fate.effect("finish"):
            self._appender.finish(description)

    def __exit__(self, *how: Any) -> None:
        self._appender.__exit__(*how)


class House:
    """A database, a media directory, a broker and a mail server, all in one directory; and what a process works with.

    Args:
        directory: of the house, with a migrated database in it.
        fate: of the process.
    """

    def __init__(self, directory: Path, fate: Fate | None = None) -> None:
        self.directory, self.fate = directory, fate or Fate()
        self.mail_directory, self._media = directory / "mail", directory / "media"
        self._taken, self._said = directory / "taken", directory / "said"
        self.convert: Callable[[JobId, ConvertDependencies], None] = handlers.convert
        self.fanout = math.inf

    @cached_property
    def database(self) -> Database:
        return MortalDatabase(f"sqlite:///{self.directory / 'test.db'}", self.fate)

    @cached_property
    def media(self) -> Media:
        stores = (DirectoryStore(self._media / name) for name in ("videos", "pieces", "mp3s"))
        return Media(*(MortalStore(store, self.fate) for store in stores))

    def for_upload(self) -> UploadDependencies:
        return UploadDependencies(
            media=self.media,
            blobs=Blobs(self.database),
            jobs=Jobs(self.database),
            uploads=Uploads(self.database),
            outbox=self.outbox(self.publish),
        )

    def for_convert(self, publish: Callable[[Event, float], None] | None = None) -> ConvertDependencies:
        outbox = self.outbox(publish or self.publish)
        return ConvertDependencies(
            media=self.media,
            blobs=Blobs(self.database),
            jobs=Jobs(self.database),
            joins=Jobs(self.database, stage="joining"),
            pieces=Pieces(self.database),
            outbox=outbox,
            encoders=1,
            fanout_seconds=self.fanout,
        )

    def for_notify(self) -> NotifyDependencies:
        return NotifyDependencies(Mails(self.database), Links(["k" * 32], "http://localhost", 7), self.send)

    def for_sweep(
        self, publish: Callable[[Event, float], None] | None = None, keep_days: float = 0
    ) -> SweepDependencies:
        outbox = self.outbox(publish or self.publish)
        return SweepDependencies(Overdue(self.database), Blobs(self.database), self.media, outbox, keep_days)

    def outbox(self, publish: Callable[[Event, float], None]) -> Outbox:
        return Outbox(self.database, publish)

    def publish(self, event: Event, _: float) -> None:
        """A broker that keeps what it is told, and delivers nothing yet."""
        with self.fate.effect("publish"), self._said.open("ab") as said:
            said.write(event.type.encode() + b" " + event.data() + b"\n")

    def said(self) -> list[Event]:
        """What the broker was told."""
        lines = self._said.read_bytes().splitlines() if self._said.exists() else []
        return [parse(kind.decode(), data) for kind, _, data in (line.partition(b" ") for line in lines)]

    def send(self, mail: Mail) -> None:
        """A mail server that takes every mail, and remembers how often."""
        MailDir(self.mail_directory, Address("mp3burst", "mp3burst", "localhost"))(mail)
        with self.fate.effect("the server's 250"), self._taken.open("ab") as taken:
            taken.write(mail.message_id.encode() + b"\n")

    def taken(self) -> list[str]:
        """The Message-ID of each mail that the server took."""
        return self._taken.read_text().splitlines() if self._taken.exists() else []

    def deliver(self, event: Event, _: float = 0) -> None:
        """A broker that delivers at once."""
        match event:
            case VideoUploaded():
                self.convert(event.job, self.for_convert(self.deliver))
            case PieceCut():
                handlers.encode(event.job, event.n, self.for_convert(self.deliver))
            case PiecesEncoded():
                handlers.join(event.job, self.for_convert(self.deliver))
            case _:
                send_mail(event.id, self.for_notify())

    def days_pass(self, keep_days: float = 0) -> None:
        """Let time go by and sweep, until nothing is due any more; every lease and every hour of a blob is over."""
        for _ in range(5):
            self._a_day_passes()
            sweep_up(self.for_sweep(self.deliver, keep_days))
            if not any(self.rows(table, "due_at") for table in ("jobs", "pieces", "mails")):
                break
        else:
            raise AssertionError("something stays due for ever")
        self._a_day_passes()
        sweep_up(self.for_sweep(self.deliver, keep_days))

    def _a_day_passes(self) -> None:
        # As tests.support.databases.make_past, in one transaction: this happens hundreds of times.
        with self.database.engine.begin() as connection:
            work = [(name, column) for name in ("jobs", "pieces", "mails") for column in ("due_at", "lease_until")]
            for name, column in [*work, ("blobs", "expires_at")]:
                table = metadata.tables[name]
                statement = update(table).where(table.c[column].is_not(None))
                connection.execute(statement.values({column: table.c[column] - _DAY}))

    def rows(self, table: str, present: str | None = None) -> list[Any]:
        """A table's rows, or those where one column is not NULL."""
        target = metadata.tables[table]
        query = select(target) if present is None else select(target).where(target.c[present].is_not(None))
        return self.database.run(lambda connection: list(connection.execute(query)))

    def count(self, table: str) -> int:
        return len(self.rows(table))

    def blobs_on_disk(self) -> set[tuple[str, str]]:
        """(store, blob) of every directory that a blob has or had or will have."""
        return {(path.parent.parent.name, path.name) for path in self._media.glob("*/*/*")}

    def bytes_of(self, store: str, blob: str) -> bytes:
        with self.media[store].open(blob) as reader:
            return reader.read()

    def is_tidy(self) -> None:
        """Every blob on disk is on record, and every blob on record is a job's; no row waits for anything."""
        jobs = self.rows("jobs")
        kept = {("videos", job.video) for job in jobs} | {("mp3s", job.mp3) for job in jobs if job.mp3}
        assert self.blobs_on_disk() == kept
        assert {(row.store, row.id) for row in self.rows("blobs")} == kept
        assert not self.rows("blobs", "expires_at")
        assert not self.rows("jobs", "due_at")
        assert not self.rows("mails", "due_at")
        assert not self.count("pieces")

    def close(self) -> None:
        self.database.close()


def found(directory: Path) -> Path:
    """A migrated database with one user in it, in a file that can be copied."""
    directory.mkdir()
    with sqlite(directory) as database:
        row = {"id": OWNER, "username": "ada", "email": "ada@example.org", "name": "Ada", "created_at": 0}
        with database.engine.begin() as connection:
            connection.execute(insert(users).values(password_hash="", role="user", **row))
    return directory


def houses(template: Path, place: Path) -> Iterator[Path]:
    """Fresh copies of a house, one after the other; each is torn down when the next is asked for."""
    for n in itertools.count(1):
        directory = place / str(n)
        shutil.copytree(template, directory)
        yield directory
        shutil.rmtree(directory)


def forked(work: Callable[[], None], directory: Path) -> int:
    """Run in a process of its own; its pid. It exits with 0, or 1 where the work raised."""
    pid = os.fork()
    if pid:
        return pid
    try:
        (directory / "tmp").mkdir(exist_ok=True)
        tempfile.tempdir = str(directory / "tmp")
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def outcome(pid: int, seconds: float = 60) -> int:
    """How a forked process ended: its exit status, or minus the signal."""
    deadline = time.monotonic() + seconds
    try:
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < deadline, f"a process has not ended in {seconds:g} s"
            time.sleep(0.005)
    except BaseException:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise


def killed(directory: Path, last: int, work: Callable[[House], Any], begin: str = "") -> str | None:
    """Run the work and kill it at its n-th moment after ``begin``; which that was, or None where it ended before."""
    diary = directory / "died"

    def live() -> None:
        house = House(directory, Fate(last, diary, begin))
        _watch_directories(house)
        work(house)
        house.fate.moment("the end")

    status = outcome(forked(live, directory))
    if status == -signal.SIGKILL:
        return diary.read_text()
    assert status == 0, f"the process failed by itself with {status}"
    assert not diary.exists()
    return None


def _watch_directories(house: House) -> None:
    """Make every change of a directory of the house a moment; only ever called in a process that is about to end."""
    ours = tuple(str(house.directory / name) for name in ("media", "mail"))

    def mortal(name: str, change: Callable[..., Any], path: Any, *args: Any, **kwargs: Any) -> Any:
        if not os.fspath(path).startswith(ours):
            return change(path, *args, **kwargs)
        if name in ("rename", "replace"):
            house.fate.happened("the bytes of a file")
        with house.fate.effect(name):
            return change(path, *args, **kwargs)

    def mortal_fsync(descriptor: Any) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            house.fate.happened("the flush of a file")
            house.fate.moment("its fsync")

    deadly: dict[str, Callable[..., Any]] = {name: partial(mortal, name, getattr(os, name)) for name in _CHANGES}
    for name, function in (deadly | {"fsync": mortal_fsync}).items():
        setattr(os, name, function)

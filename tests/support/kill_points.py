"""Kills a function's process at every point between two of its effects.

What a function depends on is wrapped, so that its process can be killed before or after each effect. Between the end of
one effect and the beginning of the next, nothing but the process's own memory changes, so "after the n-th effect" and
"before the next" are one kill point, counted once. The kill points are: before and after each transaction, and within
it just before its commit; before and after each call of a store, a writer, the broker and the mail server; and, below
the stores and the mail directory, before and after each file is made durable and each change of a directory. The
process is forked and sends itself SIGKILL: no ``finally``, no rollback and no flush runs.
"""

import copy
import functools
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
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, event, insert, select, update

from events.publish import Publish
from events.schema import DeliveryDue, Event, FetchDue, JobId, PieceCut, PiecesEncoded, VideoUploaded, parse
from functions.auth.accounts import Accounts
from functions.auth.allowance import FetchLimit, RegistrationLimit
from functions.auth.confirmation import Confirmations
from functions.auth.links import Links
from functions.auth.tokens import Identity
from functions.confirm.main import Dependencies as ConfirmDependencies
from functions.convert import handlers
from functions.convert.dependencies import Dependencies as ConvertDependencies
from functions.edit.splitting import Splitting
from functions.edit.tagging import Tagging
from functions.fetch import download
from functions.fetch.download import Dependencies as FetchDependencies
from functions.hook.delivery import Courier, deliver
from functions.media import Appender, Checkpoint, Description, Media, Reader, Store, Usage, Writer
from functions.media.directory import DirectoryStore
from functions.notify.main import Dependencies as NotifyDependencies
from functions.notify.main import send_mail
from functions.notify.transports import Mail, MailDir
from functions.outgoing.addresses import Policy
from functions.outgoing.handshake import Handshake
from functions.outgoing.signatures import Signer
from functions.presets import BUILT_IN
from functions.register.main import Dependencies as RegisterDependencies
from functions.state.blobs import Blobs
from functions.state.database import Database
from functions.state.deleted_users import DeletedUsers
from functions.state.disks import Disks
from functions.state.fetches import Fetches
from functions.state.jobs import Jobs
from functions.state.mails import Mails
from functions.state.outbox import Outbox
from functions.state.overdue import Overdue
from functions.state.parts import Parts
from functions.state.pieces import Pieces
from functions.state.presets import Presets
from functions.state.quota import Quota
from functions.state.schema import UserId, metadata, users
from functions.state.tags import Tags
from functions.state.webhooks import Deliveries
from functions.sweep.main import Dependencies as SweepDependencies
from functions.sweep.main import sweep_up
from functions.upload.dependencies import Dependencies as UploadDependencies
from functions.upload.tus.uploads import Uploads
from tests.support.databases import sqlite
from tests.support.rights import authorizer

T = TypeVar("T")
OWNER = UserId("a" * 32)
ADA = Identity(OWNER, "ada", "user", {})
_HOUR = 3_600_000
_DAY = 86_400_000
#: Where tests have their servers.
LOCAL_SOURCES = Policy.for_fetching({"FETCH_NETWORKS": "127.0.0.1/32"})
#: The tables whose rows are worked on.
_LEASED = ("jobs", "pieces", "mails", "deliveries")
#: The calls that change a directory; the bytes of files are written through the wrapped writers.
_DIRECTORY_CHANGES = ("mkdir", "rename", "replace", "unlink", "rmdir")


class KillSwitch:
    """Counts the kill points of a process, and kills it at one of them."""

    def __init__(self, kill_at: int = 0, report: Path | None = None, begin: str = "") -> None:
        """A switch that has counted no kill point yet.

        Args:
            kill_at: the kill point, from 1; 0 for never.
            report: the file to which the switch writes where it killed the process.
            begin: the effect after which counting begins; by default at once.
        """
        self._kill_at = kill_at
        self._report = report
        self._begin = begin
        self._count = 0
        self._last_effect = "the beginning"
        self._is_new = True

    def kill_point(self, before: str) -> None:
        """Kills the process if this is the kill point; counts it if anything has happened since the previous one."""
        if not self._is_new or self._begin:
            return
        self._is_new = False
        self._count += 1
        if self._count == self._kill_at and self._report:
            self._report.write_text(f"after {self._last_effect}, before {before}")
            os.kill(os.getpid(), signal.SIGKILL)

    def happened(self, what: str) -> None:
        """Notes a change that outlives the process."""
        self._last_effect = what
        self._is_new = True
        if what == self._begin:
            self._begin = ""

    @contextmanager
    def effect(self, what: str) -> Iterator[None]:
        """Surrounds a change that outlives the process with kill points."""
        self.kill_point(what)
        try:
            yield
        finally:
            self.happened(what)


class KillableDatabase(Database):
    """Has kill points before, within and after each transaction."""

    def __init__(self, where: str, kill_switch: KillSwitch) -> None:
        super().__init__(where)
        self._kill_switch = kill_switch
        # A killed process loses nothing that the kernel has already received.
        event.listen(
            self.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF").close()
        )

    def run(self, work: Callable[[Connection], T]) -> T:
        name = getattr(work, "__qualname__", "?").replace(".<locals>", "").replace(".<lambda>", "")

        def work_before_commit(connection: Connection) -> T:
            value = work(connection)
            self._kill_switch.happened(f"the statements of {name}")
            self._kill_switch.kill_point("their commit")
            return value

        with self._kill_switch.effect(name):
            return super().run(work_before_commit)


class KillableStore:
    """Has kill points around each call, and around the first read of a blob."""

    def __init__(self, store: Store, kill_switch: KillSwitch) -> None:
        self._store = store
        self._kill_switch = kill_switch

    def connect(self) -> None:
        self._store.connect()

    def create(self, blob: str, description: Description) -> Writer:
        with self._kill_switch.effect("create"):
            return KillableWriter(self._store.create(blob, description), self._kill_switch)

    def append(self, blob: str, checkpoint: Checkpoint, writer: int) -> Appender:
        with self._kill_switch.effect("append"):
            return KillableAppender(self._store.append(blob, checkpoint, writer), self._kill_switch)

    def open(self, blob: str) -> Reader:
        reader = self._store.open(blob)
        read = reader.read
        is_first = itertools.chain([True], itertools.repeat(False))

        def killable_read(size: int = -1, /) -> bytes:
            if next(is_first):
                with self._kill_switch.effect("read"):
                    return read(size)
            return read(size)

        reader.read = killable_read  # type: ignore[method-assign]
        return reader

    def delete(self, blob: str) -> None:
        with self._kill_switch.effect("delete"):
            self._store.delete(blob)

    def usage(self) -> Usage:
        with self._kill_switch.effect("usage"):
            return self._store.usage()


class KillableWriter:
    """Has kill points around each call."""

    def __init__(self, writer: Writer, kill_switch: KillSwitch) -> None:
        self._writer = writer
        self._kill_switch = kill_switch

    def __enter__(self) -> "KillableWriter":
        with self._kill_switch.effect("the writer's start"):
            self._writer.__enter__()
        return self

    def write(self, data: bytes | bytearray | memoryview) -> int:
        with self._kill_switch.effect("write"):
            return self._writer.write(data)

    def __exit__(self, *how: Any) -> None:
        with self._kill_switch.effect("the writer's end"):
            self._writer.__exit__(*how)


class KillableAppender:
    """Has kill points around each call."""

    def __init__(self, appender: Appender, kill_switch: KillSwitch) -> None:
        self._appender = appender
        self._kill_switch = kill_switch

    @property
    def checkpoint(self) -> Checkpoint:
        return self._appender.checkpoint

    @property
    def tail(self) -> bytes:
        return self._appender.tail

    def __enter__(self) -> "KillableAppender":
        with self._kill_switch.effect("the appender's start"):
            self._appender.__enter__()
        return self

    def write(self, data: bytes | bytearray | memoryview) -> int:
        with self._kill_switch.effect("write"):
            return self._appender.write(data)

    def sync(self, *, full_blocks_only: bool = False) -> Checkpoint:
        with self._kill_switch.effect("sync"):
            return self._appender.sync(full_blocks_only=full_blocks_only)

    def finish(self, description: Description) -> None:
        with self._kill_switch.effect("finish"):
            self._appender.finish(description)

    def __exit__(self, *how: Any) -> None:
        self._appender.__exit__(*how)


def as_function(*functions: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Has a method of System use a database that allows what these functions may do, and no more."""

    def decorate(method: Callable[..., T]) -> Callable[..., T]:
        @functools.wraps(method)
        def restricted(system: "System", *args: Any, **kwargs: Any) -> T:
            return method(system.restricted(functions), *args, **kwargs)

        return restricted

    return decorate


class System:
    """A database, media stores, a broker and a mail server, all in one directory, as one process sees them."""

    def __init__(self, directory: Path, kill_switch: KillSwitch | None = None) -> None:
        """The system in a directory.

        Args:
            directory: holds at least a migrated database, as ``new_system`` makes it.
            kill_switch: of the process; by default one that never kills it.
        """
        self.directory = directory
        self.kill_switch = kill_switch or KillSwitch()
        self.mail_directory = directory / "mail"
        self._media = directory / "media"
        self._accepted_mails = directory / "accepted_mails"
        self._published = directory / "published"
        self._restricted: dict[tuple[str, ...], Database] = {}
        self.convert: Callable[[JobId, ConvertDependencies], None] = handlers.convert
        self.fanout_seconds = math.inf
        self.max_seconds = math.inf
        self.quota = Quota()
        self.places = 0

    @cached_property
    def database(self) -> Database:
        return KillableDatabase(f"sqlite:///{self.directory / 'test.db'}", self.kill_switch)

    def restricted(self, functions: tuple[str, ...]) -> Self:
        """Returns the system as processes with the rights of these functions see it."""
        if functions not in self._restricted:
            database = KillableDatabase(f"sqlite:///{self.directory / 'test.db'}", self.kill_switch)
            allow = authorizer(functions)
            event.listen(database.engine, "connect", lambda connection, _: connection.set_authorizer(allow))
            self._restricted[functions] = database
        seen = copy.copy(self)
        seen.__dict__["database"] = self._restricted[functions]
        return seen

    @cached_property
    def media(self) -> Media:
        videos, pieces, mp3s = (
            KillableStore(DirectoryStore(self._media / name, 0), self.kill_switch)
            for name in ("videos", "pieces", "mp3s")
        )
        return Media(videos, pieces, mp3s)

    @as_function("upload")
    def for_upload(self) -> UploadDependencies:
        return UploadDependencies(
            media=self.media,
            blobs=Blobs(self.database),
            jobs=Jobs(self.database),
            uploads=Uploads(self.database),
            outbox=self.outbox(self.publish),
            presets=Presets(self.database, BUILT_IN),
            fetches=Fetches(self.database),
            fetch_limit=FetchLimit(self.database),
            sources=LOCAL_SOURCES,
        )

    @as_function("fetch")
    def for_fetch(self, publish: Publish | None = None) -> FetchDependencies:
        return FetchDependencies(
            media=self.media,
            blobs=Blobs(self.database),
            fetches=Fetches(self.database, places=self.places),
            outbox=self.outbox(publish or self.publish),
            policy=LOCAL_SOURCES,
            quota=self.quota,
            pause=lambda _: None,
        )

    @as_function("convert", "encode", "join")
    def for_convert(self, publish: Publish | None = None) -> ConvertDependencies:
        outbox = self.outbox(publish or self.publish)
        return ConvertDependencies(
            media=self.media,
            blobs=Blobs(self.database),
            jobs=Jobs(self.database, places=self.places),
            joins=Jobs(self.database, stage="joining", places=self.places),
            pieces=Pieces(self.database, places=self.places),
            outbox=outbox,
            encoders=1,
            fanout_seconds=self.fanout_seconds,
            max_seconds=self.max_seconds,
            quota=self.quota,
        )

    @as_function("edit")
    def for_edit(self) -> Tagging:
        database = self.database
        return Tagging(self.media, Jobs(database), Tags(database), Blobs(database), self.quota)

    @as_function("edit")
    def for_splitting(self) -> Splitting:
        return Splitting(self.for_edit(), Parts(self.database))

    @as_function("status")
    def for_status(self) -> Jobs:
        return Jobs(self.database)

    @as_function("register")
    def for_register(self) -> RegisterDependencies:
        limit = RegistrationLimit(self.database, 10)
        return RegisterDependencies(Accounts(self.database), limit, self.outbox(self.publish))

    @as_function("confirm")
    def for_confirm(self) -> ConfirmDependencies:
        return ConfirmDependencies(Confirmations(self.database), _links(), self.outbox(self.publish))

    @as_function("account")
    def for_account(self) -> DeletedUsers:
        return DeletedUsers(self.database)

    @as_function("notify")
    def for_notify(self) -> NotifyDependencies:
        return NotifyDependencies(Mails(self.database), _links(), self.send)

    @as_function("hook")
    def for_hook(self) -> Courier:
        handshake = Handshake(Policy.from_environ({"WEBHOOK_NETWORKS": "127.0.0.1/32"}), "localhost")
        return Courier(Deliveries(self.database), handshake, Signer("k" * 32), "http://localhost")

    @as_function("sweep")
    def for_sweep(self, publish: Publish | None = None, keep_days: float = 0) -> SweepDependencies:
        outbox = self.outbox(publish or self.publish)
        database = self.database
        return SweepDependencies(Overdue(database), Blobs(database), self.media, outbox, Disks(database), keep_days)

    def outbox(self, publish: Publish) -> Outbox:
        return Outbox(self.database, publish)

    def publish(self, event: Event, _: float) -> None:
        """Takes an event as a broker that delivers nothing yet."""
        with self.kill_switch.effect("publish"), self._published.open("ab") as file:
            file.write(event.type.encode() + b" " + event.data() + b"\n")

    def published(self) -> list[Event]:
        """The events that the broker has accepted, in order."""
        lines = self._published.read_bytes().splitlines() if self._published.exists() else []
        return [parse(kind.decode(), data) for kind, _, data in (line.partition(b" ") for line in lines)]

    def send(self, mail: Mail) -> None:
        """Takes a mail as a mail server that accepts every mail."""
        MailDir(self.mail_directory, Address("mp3burst", "mp3burst", "localhost"))(mail)
        with self.kill_switch.effect("the server's 250"), self._accepted_mails.open("ab") as file:
            file.write(mail.message_id.encode() + b"\n")

    def accepted_mails(self) -> list[str]:
        """The Message-ID of each mail that the mail server has accepted."""
        return self._accepted_mails.read_text().splitlines() if self._accepted_mails.exists() else []

    def deliver(self, event: Event, _: float = 0) -> None:
        """Delivers an event to its function at once."""
        match event:
            case FetchDue():
                download.fetch(event.job, self.for_fetch(self.deliver))
            case VideoUploaded():
                self.convert(event.job, self.for_convert(self.deliver))
            case PieceCut():
                handlers.encode(event.job, event.n, self.for_convert(self.deliver))
            case PiecesEncoded():
                handlers.join(event.job, self.for_convert(self.deliver))
            case DeliveryDue():
                deliver(event.delivery, self.for_hook())
            case _:
                send_mail(event.id, self.for_notify())

    def let_days_pass(self, keep_days: float = 0) -> None:
        """Runs sweep once a day until nothing is due; by then every lease and every unretained blob has expired."""
        for _ in range(5):
            self.let_a_day_pass()
            sweep_up(self.for_sweep(self.deliver, keep_days))
            if not any(self.rows(table, "due_at") for table in _LEASED):
                break
        else:
            raise AssertionError("a row stays due forever")
        self.let_a_day_pass()
        sweep_up(self.for_sweep(self.deliver, keep_days))

    def let_days_pass_soon(self) -> None:
        """Runs sweep an hour later, for what must be fetched within a day, then as ``let_days_pass``."""
        self._let_pass(_HOUR)
        sweep_up(self.for_sweep(self.deliver))
        self.let_days_pass()

    def let_a_day_pass(self) -> None:
        """Makes all leases, due times and deadlines of blobs and users a day older."""
        self._let_pass(_DAY)

    def _let_pass(self, milliseconds: int) -> None:
        # Like tests.support.databases.make_past, but in one transaction, because this runs hundreds of times.
        with self.database.engine.begin() as connection:
            leased = [(name, column) for name in _LEASED for column in ("due_at", "lease_until")]
            for name, column in [*leased, ("blobs", "expires_at"), ("users", "deleted_at")]:
                table = metadata.tables[name]
                statement = update(table).where(table.c[column].is_not(None))
                connection.execute(statement.values({column: table.c[column] - milliseconds}))

    def rows(self, table: str, present: str | None = None) -> list[Any]:
        """The rows of a table, or only those whose column ``present`` is not NULL."""
        target = metadata.tables[table]
        query = select(target) if present is None else select(target).where(target.c[present].is_not(None))
        return self.database.run(lambda connection: list(connection.execute(query)))

    def count(self, table: str) -> int:
        return len(self.rows(table))

    def blobs_on_disk(self) -> set[tuple[str, str]]:
        """The blobs on disk as (store, blob), including those that are unfinished or half deleted."""
        return {(path.parent.parent.name, path.name) for path in self._media.glob("*/*/*")}

    def bytes_of(self, store: str, blob: str) -> bytes:
        with self.media[store].open(blob) as reader:
            return reader.read()

    def assert_tidy(self) -> None:
        """Asserts that every blob on disk has a row, every row of a blob belongs to a job, and nothing is due."""
        jobs = self.rows("jobs")
        retained = {("videos", job.video) for job in jobs if not job.source}
        retained |= {("mp3s", blob) for job in jobs for blob in (job.mp3, job.tag, job.sound) if blob}
        assert self.blobs_on_disk() == retained
        assert {(row.store, row.id) for row in self.rows("blobs")} == retained
        assert not self.rows("blobs", "expires_at")
        assert not self.rows("jobs", "due_at")
        assert not self.rows("mails", "due_at")
        assert not self.rows("deliveries", "due_at")
        assert not self.count("pieces")

    def close(self) -> None:
        for database in (self.database, *self._restricted.values()):
            database.close()


def _links() -> Links:
    return Links(["k" * 32], "http://localhost", 7)


def new_system(directory: Path) -> Path:
    """Creates a system with one user, whose directory can be copied."""
    directory.mkdir()
    with sqlite(directory) as database:
        row = {
            "id": OWNER,
            "username": "ada",
            "email": "ada@example.org",
            "name": "Ada",
            "created_at": 0,
            "confirmed_at": 0,
        }
        with database.engine.begin() as connection:
            connection.execute(insert(users).values(password_hash="", role="user", **row))
    return directory


def copies(template: Path, directory: Path) -> Iterator[Path]:
    """Yields fresh copies of a system, and deletes each before the next."""
    for n in itertools.count(1):
        copy = directory / str(n)
        shutil.copytree(template, copy)
        yield copy
        shutil.rmtree(copy)


def fork(work: Callable[[], None], directory: Path) -> int:
    """Runs ``work`` in a forked process, which exits with 0, or with 1 if ``work`` raises; returns its pid."""
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


def exit_status(pid: int, seconds: float = 60) -> int:
    """Waits for a forked process; returns its exit status, or the negative signal that killed it."""
    deadline = time.monotonic() + seconds
    try:
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < deadline, f"the process has not ended within {seconds:g} s"
            time.sleep(0.005)
    except BaseException:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise


def run_and_kill(directory: Path, kill_at: int, work: Callable[[System], Any], begin: str = "") -> str | None:
    """Runs ``work`` in a process that is killed at its n-th kill point after ``begin``.

    Returns:
        Where it was killed, or None if it ended before.
    """
    report = directory / "killed"

    def run() -> None:
        system = System(directory, KillSwitch(kill_at, report, begin))
        _watch_directories(system)
        work(system)
        system.kill_switch.kill_point("the end")

    status = exit_status(fork(run, directory))
    if status == -signal.SIGKILL:
        return report.read_text()
    assert status == 0, f"the process failed with {status}"
    assert not report.exists()
    return None


def _watch_directories(system: System) -> None:
    """Adds kill points around every change of the system's directories; only for a process that will be killed."""
    watched = tuple(str(system.directory / name) for name in ("media", "mail"))

    def killable_change(name: str, change: Callable[..., Any], path: Any, *args: Any, **kwargs: Any) -> Any:
        if not os.fspath(path).startswith(watched):
            return change(path, *args, **kwargs)
        if name in ("rename", "replace"):
            system.kill_switch.happened("the bytes of a file")
        with system.kill_switch.effect(name):
            return change(path, *args, **kwargs)

    def killable_fsync(descriptor: Any) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            system.kill_switch.happened("the flush of a file")
            system.kill_switch.kill_point("its fsync")

    functions: dict[str, Callable[..., Any]] = {"fsync": killable_fsync}
    for name in _DIRECTORY_CHANGES:
        functions[name] = partial(killable_change, name, getattr(os, name))
    for name, function in functions.items():
        setattr(os, name, function)

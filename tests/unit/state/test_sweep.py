"""A sweep whose broker or store is unavailable ends in time and leaves the rest to the next."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from events.errors import NotPublished
from events.publish import Publish
from events.schema import Event, VideoUploaded
from functions.media import Media, MediaUnavailable, Usage
from functions.state.database import DatabaseUnavailable
from functions.state.disks import Disks
from functions.state.jobs import Jobs
from functions.state.leases import MAX_ATTEMPTS, LeaseTerms
from functions.state.outbox import Outbox
from functions.state.webhooks import Deliveries, Webhooks
from functions.sweep import __main__ as program
from functions.sweep import main
from functions.sweep.main import BUDGET, Dependencies, sweep_up
from tests.contract.test_jobs import OWNER, Records, make_due
from tests.support.calls import add_user
from tests.support.databases import make_past, sqlite
from tests.support.fakes import MemoryStore


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    with sqlite(tmp_path) as database:
        yield Records(database, LeaseTerms())


class Clock:
    """A clock of the sweep that moves only when something slow says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(main, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def dependencies(records: Records, publish: Publish) -> Dependencies:
    outbox = Outbox(records.database, publish)
    return Dependencies(records.overdue, records.blobs, records.media, outbox, Disks(records.database), keep_days=0)


def test_unavailable_broker_is_not_asked_for_every_failed_job(records: Records) -> None:
    for _ in range(5):
        job = records.job()
        for _ in range(MAX_ATTEMPTS):
            lease = records.jobs.claim(job.id)
            assert lease is not None
            records.jobs.release(lease)
            make_due(records, "jobs")
    asked = []

    def unavailable(event: Event, _: float) -> None:
        asked.append(event)
        raise NotPublished

    sweep_up(dependencies(records, unavailable))
    assert records.count("jobs", state="failed") == records.count("mails", state="due") == 5
    assert len(asked) <= 2


def test_retry_that_is_due_is_no_warning(records: Records, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "functions.sweep")
    add_user(records.database, OWNER)
    hooks = Webhooks(records.database)
    event = hooks.ping(hooks.add(OWNER, "https://example.org/").id, OWNER)
    table = Deliveries(records.database)
    lease = table.claim(event.delivery)
    assert lease is not None
    assert table.postpone(lease, 500, "The receiver answered 500.")
    make_past(records.database, "deliveries", "due_at")
    make_past(records.database, "deliveries", "lease_until")
    emitted: list[Event] = []
    sweep_up(dependencies(records, lambda event, _: emitted.append(event)))
    assert emitted == [event]
    assert [record.levelname for record in caplog.records] == ["INFO"]
    lost = records.job().id
    make_past(records.database, "jobs", "due_at")
    sweep_up(dependencies(records, lambda event, _: emitted.append(event)))
    assert emitted == [event, VideoUploaded(lost)]
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]


def test_slow_broker_does_not_delay_the_next_sweep(records: Records, clock: Clock) -> None:
    asked = []
    for _ in range(5):
        records.job()

    def slow(event: Event, _: float) -> None:
        asked.append(event)
        clock.now += BUDGET + 1

    sweep_up(dependencies(records, slow))
    assert len(asked) == 1
    assert len(records.overdue.due(10)) == 4


def test_events_leave_time_to_delete_what_has_expired(records: Records, clock: Clock) -> None:
    records.blob()
    make_past(records.database, "blobs", "expires_at")
    for _ in range(5):
        records.job()

    def slow(_: Event, __: float) -> None:
        clock.now += BUDGET / 4

    sweep_up(dependencies(records, slow))
    assert len(records.overdue.due(10)) == 2
    assert records.blobs.expired(10) == []


def test_hanging_store_does_not_delay_the_next_sweep(records: Records, clock: Clock) -> None:
    asked = []

    class Hanging(MemoryStore):
        def delete(self, blob: str) -> None:
            asked.append(blob)
            clock.now += BUDGET + 1
            raise MediaUnavailable("unavailable")

    for _ in range(5):
        records.blob()
    make_past(records.database, "blobs", "expires_at")
    media = Media(Hanging(), MemoryStore(), MemoryStore())
    sweep_up(replace(dependencies(records, lambda _, __: None), media=media))
    assert len(asked) == 1
    assert records.count("blobs") == 5


def test_job_whose_owner_has_nothing_at_work_any_more_is_admitted(records: Records) -> None:
    """The worker of the owner's other job was killed before it could admit this one."""
    shared = Jobs(records.database, places=2)
    running = shared.claim(records.job().id)
    deferred = records.job()
    assert running is not None
    assert shared.claim(deferred.id) is None
    published: list[Event] = []
    deps = dependencies(records, lambda event, _: published.append(event))
    sweep_up(deps)
    assert published == []
    shared.fail(running, "no audio")
    sweep_up(deps)
    assert VideoUploaded(deferred.id) in published


def test_program_sweeps_once(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[Event] = []
    deps = dependencies(records, lambda event, _: published.append(event))
    monkeypatch.setattr(main, "dependencies", lambda: deps)
    monkeypatch.setattr(main, "shared", lambda _: records.database)
    job = records.job().id
    make_past(records.database, "jobs", "due_at", 60_000)
    assert program.main() == 0
    assert published == [VideoUploaded(job)]


def test_program_that_cannot_sweep_says_why(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def unavailable() -> Dependencies:
        raise DatabaseUnavailable("The database is unavailable.")

    monkeypatch.setattr(main, "dependencies", unavailable)
    assert program.main() == 1
    assert "the sweep failed: The database is unavailable." in caplog.text


def test_store_that_does_not_answer_ends_no_sweep(records: Records) -> None:
    class Silent(MemoryStore):
        def usage(self) -> Usage:
            raise MediaUnavailable("The media store does not answer; try again later.")

    deps = dependencies(records, lambda *_: None)
    sweep_up(deps)
    [measured] = deps.disks.all()
    assert (measured.used, measured.silent_since) == (0, None)
    silent = Media(Silent(), MemoryStore(), MemoryStore())
    sweep_up(replace(deps, media=silent))
    [found] = deps.disks.all()
    assert found.silent_since is not None
    assert found.measured_at == measured.measured_at

"""What every SQL database must do so that counters are exact: count once, lose nothing, and never fall."""

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Delete, Table, delete, select, text, update

from events.schema import ConversionFailed, Event, Mp3Ready, PieceCut, VideoUploaded
from functions.state.counters import BOUNDS, Counter, Counters, Series, count, count_time, counts, times
from functions.state.database import Database
from functions.state.jobs import Job, Outcome, Usage
from functions.state.leases import MAX_ATTEMPTS, Lease, LeaseTerms
from functions.state.outbox import Outbox
from functions.state.parts import NewPart, Parts, part_id
from functions.state.schema import jobs, metadata
from tests.contract.test_fairness import Fair
from tests.contract.test_fetches import Fetching
from tests.contract.test_jobs import OTHER_USER, OWNER, Records, at_once
from tests.contract.test_webhooks import Hooks
from tests.support.databases import make_past, queries

BATCH = 500


@pytest.fixture
def records(database: Database) -> Records:
    return Records(database, LeaseTerms())


def amounts(database: Database) -> dict[Series, int]:
    """Returns the values of all counters but those of times."""
    found = database.read(counts)
    return {series: each.amount for series, each in found.items() if not series.counter.startswith("job_")}


def amount(database: Database, counter: Counter, *labels: str) -> int:
    return amounts(database).get(Series.of(counter, *labels), 0)


def rows(database: Database) -> int:
    return len(database.read(lambda connection: connection.execute(select(metadata.tables["counters"])).all()))


def claimed(records: Records) -> Lease[Job]:
    lease = records.jobs.claim(records.job().id)
    assert lease is not None
    return lease


def finish(records: Records, lease: Lease[Job]) -> list[Event] | None:
    mp3 = records.blob("mp3s", lease.row.id)
    return records.jobs.finish(lease, Outcome(mp3, 12.5, None, 300_000, Usage(cpu_ms=1500)))


def test_job_that_is_done_is_counted_with_its_times_and_sizes(records: Records) -> None:
    lease = claimed(records)
    with records.database.engine.begin() as connection:
        begun = {"created_at": jobs.c.created_at - 80_000, "started_at": jobs.c.started_at - 20_000, "size": 5_000_000}
        connection.execute(update(jobs).values(begun))
    assert finish(records, lease)
    assert amounts(records.database) == {
        Series.of("jobs_finished", "done", "upload", ""): 1,
        Series.of("audio_seconds"): 12_500,
        Series.of("cpu_seconds"): 1_500,
        Series.of("video_bytes"): 5_000_000,
        Series.of("mp3_bytes"): 300_000,
    }
    found = records.database.read(counts)
    waited = times(found, "job_wait_seconds")
    assert 60 <= waited.seconds < 75
    assert dict(waited.buckets) == {"1": 0, "5": 0, "15": 0, "60": 0, "300": 1, "900": 1, "3600": 1, "+Inf": 1}
    converted = times(found, "job_conversion_seconds")
    assert 20 <= converted.seconds < 35
    assert dict(converted.buckets)["60"] - dict(converted.buckets)["15"] == 1


def test_end_that_is_repeated_or_comes_too_late_is_counted_once(records: Records) -> None:
    lease = claimed(records)
    outcome = Outcome(records.blob("mp3s", lease.row.id), 1.0, None)
    assert records.jobs.finish(lease, outcome) == records.jobs.finish(lease, outcome) == [Mp3Ready(lease.row.id)]
    slow = claimed(records)
    make_past(records.database, "jobs", "lease_until")
    fast = records.jobs.claim(slow.row.id)
    assert fast is not None
    assert finish(records, slow) is None
    assert finish(records, fast)
    assert records.jobs.fail(slow, "The file has no sound.") == []
    finished = {series: n for series, n in amounts(records.database).items() if series.counter == "jobs_finished"}
    assert finished == {Series.of("jobs_finished", "done", "upload", ""): 2}


def test_end_that_is_undone_counts_nothing(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = claimed(records)
    lost: list[str] = []

    def lose(*_: object) -> list[Event]:
        lost.append("once")
        raise ConnectionError

    monkeypatch.setattr("functions.state.jobs.add_deliveries", lose)
    with pytest.raises(ConnectionError):
        finish(records, lease)
    assert lost
    assert amounts(records.database) == {}


def test_failures_are_counted_by_what_has_caused_them(database: Database, records: Records) -> None:
    records.jobs.fail(claimed(records), "The file has no sound.")
    for _ in range(MAX_ATTEMPTS):
        lease = records.jobs.claim(records.job("again").id)
        assert lease is not None
        records.jobs.release(lease)
        make_past(database, "jobs", "due_at")
        make_past(database, "jobs", "lease_until")
    [exhausted] = records.overdue.fail_exhausted()
    assert exhausted == ConversionFailed(records.job("again").id)
    fetching = Fetching(database)
    fetching.fetches.fail(fetching.claimed(fetching.begin()), "There is no such file.", "source-not-found")
    assert amounts(database) == {
        Series.of("jobs_finished", "failed", "upload", "refused"): 1,
        Series.of("jobs_finished", "failed", "upload", "exhausted"): 1,
        Series.of("jobs_finished", "failed", "fetch", "source-not-found"): 1,
        Series.of("attempts_failed", "convert"): MAX_ATTEMPTS,
    }


def test_fetch_is_counted_apart_from_the_conversion(database: Database) -> None:
    fetching = Fetching(database)
    job = fetching.begin()
    first = fetching.claimed(job)
    assert fetching.fetches.postpone(first, 0) == []
    make_past(database, "jobs", "lease_until")
    lease = fetching.claimed(job)
    assert fetching.fetches.finish(lease, 4000)
    assert fetching.fetches.finish(lease, 4000) is None
    conversion = fetching.jobs.claim(job.id)
    assert conversion is not None
    assert finish(fetching, conversion)
    found = amounts(database)
    assert found[Series.of("attempts_failed", "fetch")] == found[Series.of("videos_fetched")] == 1
    assert found[Series.of("fetched_bytes")] == 4000
    assert found[Series.of("jobs_finished", "done", "fetch", "")] == 1


def test_parts_are_counted_once_however_often_they_are_asked_for(records: Records) -> None:
    lease = claimed(records)
    assert finish(records, lease)
    source = records.jobs.get(lease.row.id, OWNER)
    assert source.mp3 is not None
    ids = [part_id(source.id, 0, 1152), part_id(source.id, 1152, 2304)]
    parts = [NewPart(each, "a.mp3", records.blob("mp3s", each), 1, source.mp3, 0, 4, "00000000", 1.0) for each in ids]
    assert Parts(records.database).add(source, parts)
    assert Parts(records.database).add(source, parts)
    assert amount(records.database, "jobs_finished", "done", "part", "") == 2


def test_counters_outlive_what_they_count(records: Records) -> None:
    for _ in range(3):
        finish(records, claimed(records))
    before = records.database.read(counts)
    make_past(records.database, "jobs", "finished_at")
    assert records.overdue.retire(1, BATCH) == 3
    assert records.count("jobs") == 0
    assert records.database.read(counts) == before


def test_adding_up_changes_no_value_and_leaves_one_row_for_each_series(records: Records) -> None:
    for _ in range(5):
        finish(records, claimed(records))
    before = records.database.read(counts)
    assert rows(records.database) > len(before)
    assert Counters(records.database).add_up(BATCH) is False
    assert records.database.read(counts) == before
    assert rows(records.database) == len(before)
    assert Counters(records.database).add_up(BATCH) is False
    assert records.database.read(counts) == before


@pytest.mark.parametrize("database", ["mariadb"], indirect=True)
def test_counting_several_series_is_one_insert(database: Database) -> None:
    def inserts(connection: Connection) -> int:
        return int(connection.execute(text("SHOW SESSION STATUS LIKE 'Com_insert'")).one()[1])

    with database.engine.begin() as connection:
        before = inserts(connection)
        count(connection, {Series.of("job_wait_seconds", bound): 1 for bound in BOUNDS})
        assert inserts(connection) == before + 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_adding_up_sorts_nothing(database: Database) -> None:
    """Each batch would sort all rows."""
    with queries(database) as executed:
        Counters(database).add_up(BATCH)
    assert not any("ORDER BY" in query for query in executed)


def test_adding_up_goes_on_while_there_is_more(records: Records) -> None:
    for _ in range(4):
        finish(records, claimed(records))
    before = records.database.read(counts)
    limit = len(before) + 1
    while Counters(records.database).add_up(limit):
        assert records.database.read(counts) == before
    assert records.database.read(counts) == before
    assert rows(records.database) == len(before)


def test_counting_reading_and_adding_up_at_once_loses_and_doubles_nothing(database: Database) -> None:
    """Eight workers count while two sweeps add up, and readers never see a value fall."""
    series = Series.of("jobs_finished", "done", "upload", "")
    seen: list[int] = []
    stop = threading.Event()

    def work(number: int) -> None:
        if number < 8:
            for _ in range(20):
                database.run(lambda connection: count(connection, {series: 1, Series.of("video_bytes"): 10}))
            return
        while not stop.is_set():
            if number < 10:
                Counters(database).add_up(BATCH)
            else:
                found = database.read(counts).get(series)
                seen.append(found.amount if found else 0)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(11)]
    for thread in threads:
        thread.start()
    for thread in threads[:8]:
        thread.join()
    stop.set()
    for thread in threads[8:]:
        thread.join()
    assert amounts(database) == {series: 160, Series.of("video_bytes"): 1600}
    assert seen == sorted(seen)
    Counters(database).add_up(BATCH)
    assert rows(database) == 2


def test_sweeps_that_add_up_the_same_rows_count_them_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        database.run(lambda connection: count(connection, {Series.of("videos_fetched"): 1}))
    overtaken: list[bool] = []

    def overtake(table: Table) -> Delete:
        """Before the rows are deleted that were read, another sweep adds them up."""
        if not overtaken and database.engine.dialect.name != "sqlite":
            overtaken.append(True)
            Counters(database).add_up(BATCH)
        return delete(table)

    monkeypatch.setattr("functions.state.counters.delete", overtake)
    assert Counters(database).add_up(BATCH) is False
    assert amount(database, "videos_fetched") == 3
    assert rows(database) == 1


def run_twice(database: Database, patch: pytest.MonkeyPatch) -> None:
    """Has each transaction be committed, and run again because the answer to the commit was lost."""
    run = database.run
    patch.setattr(database, "run", lambda work: [run(work), run(work)][1])


def test_lost_answers_to_commits_count_nothing_twice(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = claimed(records)
    failing = claimed(records)
    outcome = Outcome(records.blob("mp3s", lease.row.id), 1.0, None)
    run_twice(records.database, monkeypatch)
    assert records.jobs.finish(lease, outcome)
    records.jobs.release(failing)
    records.overdue.record_sweep()
    monkeypatch.undo()
    assert amount(records.database, "jobs_finished", "done", "upload", "") == 1
    assert amount(records.database, "attempts_failed", "convert") == 1
    assert amount(records.database, "sweeps") == 1


def test_mails_are_counted_by_kind_and_outcome(records: Records) -> None:
    def mailed(end: Callable[[Lease[Job]], list[Event]]) -> str:
        [event] = end(claimed(records))
        return event.id

    sent = records.mails.claim(mailed(lambda lease: finish(records, lease) or []))
    skipped = records.mails.claim(mailed(lambda lease: records.jobs.fail(lease, "no audio")))
    assert sent is not None
    assert skipped is not None
    records.mails.sent(sent)
    records.mails.sent(sent)
    records.mails.skip(skipped)
    refused = records.mails.claim(mailed(lambda lease: records.jobs.fail(lease, "no audio")))
    assert refused is not None
    records.mails.fail(refused)
    late = mailed(lambda lease: records.jobs.fail(lease, "no audio"))
    for _ in range(MAX_ATTEMPTS):
        lease = records.mails.claim(late)
        assert lease is not None
        records.mails.release(lease)
        make_past(records.database, "mails", "lease_until")
    make_past(records.database, "mails", "created_at")
    assert records.overdue.abandon_mails() == 1
    assert records.overdue.abandon_mails() == 0
    mails = {series: n for series, n in amounts(records.database).items() if series.counter == "mails_finished"}
    assert mails == {
        Series.of("mails_finished", "mp3.ready", "sent"): 1,
        Series.of("mails_finished", "conversion.failed", "skipped"): 1,
        Series.of("mails_finished", "conversion.failed", "refused"): 1,
        Series.of("mails_finished", "conversion.failed", "abandoned"): 1,
    }
    assert amount(records.database, "attempts_failed", "notify") == MAX_ATTEMPTS


def test_deliveries_are_counted_when_they_end(database: Database) -> None:
    hooks = Hooks(database, LeaseTerms())
    leases = []
    for _ in range(3):
        [due] = hooks.finish(callback="https://example.org/")
        lease = hooks.deliveries.claim(due.delivery)
        assert lease is not None
        leases.append(lease)
    delivered, gone, again = leases
    assert hooks.deliveries.delivered(delivered, 200)
    assert not hooks.deliveries.delivered(delivered, 200)
    assert hooks.deliveries.gone(gone, 410)
    assert hooks.deliveries.postpone(again, 500, "no")
    assert amount(database, "deliveries_finished", "delivered") == 1
    assert amount(database, "deliveries_finished", "failed") == 1
    assert amount(database, "attempts_failed", "hook") == 1


def test_dead_letter_is_counted_unless_it_is_of_no_row(records: Records) -> None:
    event = VideoUploaded(records.job().id)
    make_later(records.database)
    assert records.overdue.wake(event)
    assert not records.overdue.wake(PieceCut(event.job, 0))
    assert amounts(records.database) == {Series.of("dead_letters", "convert"): 1}


def test_dead_letters_of_rows_that_are_due_already_are_counted(database: Database) -> None:
    """An admitted row and one that was handed on are due before the broker gives their event up."""
    fair = Fair(database, places=2)
    lease = fair.start()
    assert fair.jobs.claim(fair.add()) is None  # deferred
    [admitted] = fair.finish(lease)
    fetching = Fetching(database)
    handed_on = fetching.fetches.hand_on(fetching.claimed(fetching.begin(owner=OTHER_USER)))
    assert handed_on is not None
    make_past(database, "jobs", "due_at", 30_000)
    for event in (admitted, *handed_on):
        assert fair.overdue.wake(event)
    assert amount(database, "dead_letters", "convert") == 1
    assert amount(database, "dead_letters", "fetch") == 1


def test_dead_letter_of_finished_work_is_not_counted(records: Records) -> None:
    lease = claimed(records)
    finish(records, lease)
    assert not records.overdue.wake(VideoUploaded(lease.row.id))
    assert amount(records.database, "dead_letters", "convert") == 0


def test_event_is_counted_as_repeated_unless_its_row_was_to_be_tried_again(records: Records) -> None:
    outbox = Outbox(records.database, lambda *_: None)

    def sweep() -> int:
        for column in ("due_at", "lease_until"):
            make_past(records.database, "jobs", column, 700_000)
        [due] = records.overdue.due(10)
        assert outbox.emit(due.event, seen=due.seen, is_repeated=not due.is_retry)
        assert outbox.emit(due.event, seen=due.seen, is_repeated=not due.is_retry)  # as another sweep does
        return amount(records.database, "events_repeated", "convert")

    assert outbox.emit(VideoUploaded(records.job().id))
    assert sweep() == 1
    for _ in range(2):
        lease = records.jobs.claim(records.row("jobs").id)
        assert lease is not None
        records.jobs.release(lease)
    assert sweep() == 1
    assert sweep() == 2  # nobody has come


def make_later(database: Database) -> None:
    """Postpones the jobs, as if their events had just been published."""
    make_past(database, "jobs", "due_at", -600_000)


def test_workers_that_finish_at_once_are_all_counted(records: Records) -> None:
    leases = [claimed(records) for _ in range(8)]
    assert all(at_once(8, lambda number: finish(records, leases[number])))
    assert amount(records.database, "jobs_finished", "done", "upload", "") == 8


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_times_that_were_counted_with_other_bounds_keep_their_place(database: Database) -> None:
    old = {Series.of("job_wait_seconds", "10"): 3, Series.of("job_wait_seconds", "sum"): 21_000}
    for amounts in (old, count_time("job_wait_seconds", 500)):
        database.run(lambda connection, amounts=amounts: count(connection, amounts))  # type: ignore[misc]
    found = times(database.read(counts), "job_wait_seconds")
    assert found.buckets[:3] == [("1", 1), ("5", 1), ("15", 4)]
    assert (found.buckets[-1], found.seconds) == (("+Inf", 4), 21.5)

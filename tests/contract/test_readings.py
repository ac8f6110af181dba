"""What the metrics read from every SQL database."""

import pytest

from events.schema import VideoUploaded
from functions.media import Space, Usage
from functions.metrics.readings import QueueReading, Reading, StoreReading, read_totals
from functions.metrics.readings import read as read_with
from functions.state.counters import Series
from functions.state.database import Database
from functions.state.disks import Disks
from functions.state.jobs import convert_again
from functions.state.schema import jobs
from tests.contract.test_fairness import Fair
from tests.contract.test_fetches import Fetching
from tests.contract.test_jobs import OTHER_USER
from tests.support.databases import make_past, queries

_EMPTY = QueueReading({}, 0, 0)


def read(database: Database) -> Reading:
    """Reads everything anew."""
    return read_with(database, read_totals(database))


@pytest.fixture
def fair(database: Database) -> Fair:
    return Fair(database, places=2)


def test_new_installation_has_nothing_but_zeros(database: Database) -> None:
    reading = read(database)
    assert (reading.jobs, reading.totals.stores, reading.counts) == ({}, {}, {})
    assert reading.totals.users == 0
    assert all(queue == _EMPTY for queue in reading.queues.values())


def test_jobs_are_read_by_where_they_are(database: Database, fair: Fair) -> None:
    fair.start()
    assert fair.jobs.claim(fair.add()) is None  # deferred
    fair.add(OTHER_USER)
    Fetching(database).begin(owner=OTHER_USER)
    reading = read(database)
    assert reading.jobs == {"converting": 1, "uploaded": 2, "fetching": 1}
    convert = reading.queues["convert"]
    assert convert.phases == {"working": 1, "deferred": 1, "waiting": 1}
    assert reading.queues["fetch"].phases == {"waiting": 1}
    assert reading.queues["join"] == reading.queues["notify"] == _EMPTY
    assert reading.totals.users == 2


def test_age_is_that_of_the_job_that_waits_for_its_first_attempt(database: Database, fair: Fair) -> None:
    lease = fair.start()
    assert fair.jobs.claim(fair.add()) is None  # deferred
    make_past(database, "jobs", "created_at", 3_600_000)
    assert read(database).queues["convert"].oldest == 0
    fair.add(OTHER_USER)
    make_past(database, "jobs", "created_at", 120_000)
    assert 120_000 <= read(database).queues["convert"].oldest < 180_000
    fair.jobs.release(lease)
    reading = read(database).queues["convert"]
    assert reading.phases["retrying"] == 1
    assert reading.oldest < 180_000


def test_age_of_an_admitted_job_begins_when_its_turn_came(database: Database, fair: Fair) -> None:
    lease = fair.start()
    job = fair.add()
    assert fair.jobs.claim(job) is None  # deferred
    make_past(database, "jobs", "created_at", 3_600_000)
    assert fair.finish(lease) == [VideoUploaded(job)]
    assert read(database).queues["convert"] == QueueReading({"waiting": 1}, 0, 0)
    make_past(database, "jobs", "lease_until", 1_000_000)
    assert 900_000 < read(database).queues["convert"].oldest < 1_000_000


def test_age_of_a_fetched_job_begins_when_its_video_is_there(database: Database) -> None:
    fetching = Fetching(database)
    job = fetching.begin()
    make_past(database, "jobs", "created_at", 3_600_000)
    assert fetching.fetches.finish(fetching.claimed(job), 5)
    assert read(database).queues["convert"].oldest < 60_000


def test_age_of_a_job_that_fell_back_begins_anew(database: Database, fair: Fair) -> None:
    job = fair.split_job(1)
    make_past(database, "jobs", "created_at", 3_600_000)
    assert database.run(lambda connection: convert_again(connection, job, jobs.c.id == job))
    reading = read(database).queues["convert"]
    assert reading.phases == {"waiting": 1}
    assert reading.oldest < 60_000


def test_age_of_a_join_begins_with_the_last_piece(database: Database, fair: Fair) -> None:
    job = fair.split_job(1)
    make_past(database, "jobs", "created_at", 3_600_000)
    assert read(database).queues["encode"].phases == {"waiting": 1}
    assert read(database).jobs == {"encoding": 1}
    fair.encode(job, 0)
    reading = read(database)
    assert reading.queues["join"].phases == {"waiting": 1}
    assert reading.queues["join"].oldest < 60_000


def test_rows_are_late_six_minutes_after_they_were_due(database: Database, fair: Fair) -> None:
    fair.start()
    assert fair.jobs.claim(fair.add()) is None  # deferred: nothing is late about it
    job = fair.add(OTHER_USER)
    assert read(database).queues["convert"].late == 0
    make_past(database, "jobs", "due_at", 1_000_000)  # a deferred row is due after 600 s
    assert read(database).queues["convert"].late == 1
    assert fair.jobs.claim(job) is not None
    assert read(database).queues["convert"].late == 0


def test_files_are_read_by_store(database: Database, fair: Fair) -> None:
    for _ in range(2):
        fair.add(size=7)
    fair.blob("mp3s")
    reading = read(database)
    assert reading.totals.stores == {"videos": StoreReading(2, 14, 0), "mp3s": StoreReading(1, 0, 0)}
    make_past(database, "blobs", "expires_at")
    assert read(database).totals.stores["mp3s"].expired == 1


def test_disks_are_read_as_sweep_has_measured_them(database: Database) -> None:
    Disks(database).record({("videos", "pieces"): Usage(5, Space(free=30, total=100)), ("mp3s",): None}, 0)
    videos, mp3s = sorted(read(database).disks, key=lambda disk: disk.stores, reverse=True)
    assert (videos.stores[0], videos.free, videos.total) == ("videos", 30, 100)
    assert (mp3s.free, mp3s.total, mp3s.measured_at) == (None, None, None)


def test_time_of_the_last_sweep_survives_adding_up(database: Database, fair: Fair) -> None:
    fair.overdue.record_sweep()
    make_past(database, "counters", "counted_at", 60_000)
    fair.overdue.record_sweep()
    before = read(database).counts[Series.of("sweeps")]
    fair.overdue.add_up_counters(500)
    assert read(database).counts[Series.of("sweeps")] == before
    assert before.amount == 2


def test_reading_takes_the_same_few_queries_however_much_there_is(database: Database, fair: Fair) -> None:
    with queries(database) as first:
        read(database)
    for _ in range(5):
        fair.add()
    with queries(database) as second:
        read(database)
    assert len(first) == len(second) == 11

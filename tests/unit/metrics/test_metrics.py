"""The text that Prometheus gets, and how often the database is read for it."""

import functools
import os
import re
import threading
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask import Response
from prometheus_client.parser import text_string_to_metric_families

from functions.media import Space, Usage
from functions.metrics import main
from functions.metrics.families import COUNTERS, TIMES, VERSION, exposition
from functions.metrics.main import MAX_AGE, TOTALS_MAX_AGE, Latest
from functions.metrics.readings import Reading, Totals, read, read_totals
from functions.state.counters import Count, Counter, Series
from functions.state.database import Database, DatabaseUnavailable, shared
from functions.state.disks import Disks
from functions.state.overdue import Overdue
from tests.support.calls import USER, Call, bearer, functions
from tests.support.databases import queries, set_role, sqlite
from tests.support.paths import ROOT
from tests.test_docs import quoted, rows, section


def samples(text: str) -> dict[str, float]:
    """Returns the values by name and labels, as in ``jobs{state="done"}``."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()) if value)
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def counted(counts: dict[Series, int]) -> dict[str, float]:
    reading = Reading({}, {}, Totals({}, 0), [], {series: Count(amount, 5_000) for series, amount in counts.items()})
    return samples(exposition(reading).decode())


def test_every_metric_is_described_as_it_is(tmp_path: Path) -> None:
    table = rows(section((ROOT / "docs/metrics.md").read_text(), "## What there is"))
    described = {quoted(row[0])[0]: (row[1], {*quoted(row[2])}) for row in table}
    with sqlite(tmp_path) as database:
        Overdue(database).record_sweep()
        Disks(database).record({("videos",): Usage(5, Space(free=30, total=100))}, 0)
        text = exposition(read(database, read_totals(database))).decode()
    shown = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        shown[name] = (family.type, labels)
    assert described == shown


def test_every_counter_is_shown() -> None:
    assert {*COUNTERS} | {*TIMES} == {*Counter.__args__}  # type: ignore[attr-defined]


def test_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION


def test_seconds_are_seconds_and_bytes_are_bytes() -> None:
    found = counted({Series.of("audio_seconds"): 12_500, Series.of("mp3_bytes"): 1 << 53})
    assert found["mp3burst_audio_seconds_total"] == 12.5
    assert found["mp3burst_mp3_bytes_total"] == 1 << 53


def test_times_are_a_histogram() -> None:
    found = counted(
        {
            Series.of("job_wait_seconds", "5"): 2,
            Series.of("job_wait_seconds", "+Inf"): 1,
            Series.of("job_wait_seconds", "sum"): 7_206_500,
        }
    )
    buckets = {name: value for name, value in found.items() if name.startswith("mp3burst_job_wait_seconds_bucket")}
    assert list(buckets.values()) == [0, 2, 2, 2, 2, 2, 2, 3]
    assert (found["mp3burst_job_wait_seconds_count"], found["mp3burst_job_wait_seconds_sum"]) == (3, 7206.5)


def test_what_can_go_wrong_is_shown_before_it_does() -> None:
    """A counter that begins with 1 has not increased for Prometheus."""
    found = counted({})
    assert found['mp3burst_jobs_finished_total{outcome="failed",reason="exhausted",source="upload"}'] == 0
    assert found['mp3burst_jobs_finished_total{outcome="failed",reason="internal",source="fetch"}'] == 0
    assert found['mp3burst_dead_letters_total{queue="convert"}'] == 0
    assert found['mp3burst_mails_finished_total{kind="mp3.ready",outcome="abandoned"}'] == 0
    assert "mp3burst_sweep_last_success_timestamp_seconds" not in found
    swept = counted({Series.of("sweeps"): 3})
    assert (swept["mp3burst_sweeps_total"], swept["mp3burst_sweep_last_success_timestamp_seconds"]) == (3, 5.0)


def test_counters_of_another_version_are_left_out() -> None:
    known = counted({})
    others = {Series("jobs_lost", ("x",)): 1, Series("jobs_finished", ("done",)): 1}
    assert counted(others) == known


def test_reason_that_is_new_is_shown() -> None:
    found = counted({Series.of("jobs_finished", "failed", "fetch", "host-unknown"): 2})
    assert found['mp3burst_jobs_finished_total{outcome="failed",reason="host-unknown",source="fetch"}'] == 2


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_metrics_are_read_once_in_five_seconds() -> None:
    clock = Clock()
    made = iter([b"first", b"second", b"third"])
    latest = Latest(lambda: next(made), clock=clock)
    assert [latest.get(), latest.get()] == [b"first", b"first"]
    clock.now = MAX_AGE - 0.01
    assert latest.get() == b"first"
    clock.now = MAX_AGE
    assert [latest.get(), latest.get()] == [b"second", b"second"]


def test_those_who_ask_at_once_wait_for_one_reading() -> None:
    begun, go_on = threading.Event(), threading.Event()
    made: list[None] = []

    def make() -> bytes:
        begun.set()
        assert go_on.wait(10)
        made.append(None)
        return b"text"

    latest = Latest(make)
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(latest.get) for _ in range(8)]
        assert begun.wait(10)
        go_on.set()
        assert [answer.result() for answer in answers] == [b"text"] * 8
    assert len(made) == 1


def test_failure_is_not_remembered() -> None:
    outcomes: list[bytes | Exception] = [DatabaseUnavailable("The database is away."), b"text"]

    def make() -> bytes:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    latest = Latest(make)
    with pytest.raises(DatabaseUnavailable):
        latest.get()
    assert latest.get() == b"text"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with functions(tmp_path):
        yield shared(os.environ)


def ask(authorization: str | None = None) -> Response:
    return Call("metrics", "GET", "/metrics", headers={"Authorization": authorization or bearer("ann")}).send()


@pytest.mark.usefixtures("database")
def test_only_administrators_read_them() -> None:
    assert ask().status_code == 403


def test_storm_of_scrapes_reads_the_database_once(database: Database) -> None:
    set_role(database, "ann", "admin")
    session = bearer("ann")
    first = ask(session)
    assert first.status_code == 200
    assert first.content_type == "text/plain; version=0.0.4; charset=utf-8"
    with queries(database) as executed:
        assert {ask(session).get_data() for _ in range(50)} == {first.get_data()}
    assert executed == []


def test_whole_tables_are_read_once_in_five_minutes(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    set_role(database, "ann", "admin")
    clock = Clock()
    monkeypatch.setattr(main, "Latest", functools.partial(Latest, clock=clock))

    def scans() -> int:
        with queries(database) as executed:
            assert ask().status_code == 200
        return sum("FROM blobs" in query or "count(users.id)" in query for query in executed)

    assert scans() == 2
    clock.now = TOTALS_MAX_AGE - 1
    assert scans() == 0
    clock.now = TOTALS_MAX_AGE + MAX_AGE
    assert scans() == 2


def test_nothing_in_the_text_is_of_a_user(database: Database) -> None:
    set_role(database, "ann", "admin")
    text = ask().get_data(as_text=True)
    assert not re.search(rf"\bann\b|{USER}|[0-9a-f]{{24}}", text, re.IGNORECASE)
    assert main.latest() is main.latest()

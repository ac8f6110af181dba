"""Sweep, where what it stands on is away: it comes to an end, and leaves the rest to the next."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from events.errors import NotPublished
from events.schema import Event
from functions.media import Media, MediaUnavailable
from functions.state.leases import MAX_ATTEMPTS, LeaseTerms
from functions.state.outbox import Outbox
from functions.sweep.main import Dependencies as SweepDependencies
from functions.sweep.main import sweep_up
from tests.contract.test_jobs import House
from tests.support.databases import make_past, sqlite
from tests.support.fakes import MemoryStore


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with sqlite(tmp_path) as database:
        yield House(database, LeaseTerms())


def test_a_broker_that_is_away_is_not_asked_for_every_job_that_failed(house: House) -> None:
    for _ in range(5):
        job = house.job()
        for _ in range(MAX_ATTEMPTS):
            lease = house.jobs.claim(job.id)
            assert lease is not None
            house.jobs.release(lease)
    make_past(house.database, "jobs", "due_at")
    asked = []

    def away(event: Event, _: float) -> None:
        asked.append(event)
        raise NotPublished

    sweep_up(SweepDependencies(house.overdue, house.blobs, house.media, Outbox(house.database, away), 0))
    assert house.count("jobs", state="failed") == house.count("mails", state="due") == 5
    assert len(asked) <= 2


def test_a_slow_broker_does_not_hold_up_the_next_sweep(house: House) -> None:
    budget, asked = 0.5, []
    for _ in range(5):
        house.job()

    def slow(event: Event, _: float) -> None:
        asked.append(event)
        time.sleep(budget)

    sweep_up(SweepDependencies(house.overdue, house.blobs, house.media, Outbox(house.database, slow), 0), budget)
    assert len(asked) == 1
    assert len(house.overdue.due(10)) == 4


def test_a_store_that_does_not_answer_does_not_hold_up_the_next_sweep(house: House) -> None:
    budget, asked = 0.5, []

    class Hanging(MemoryStore):
        def delete(self, blob: str) -> None:
            asked.append(blob)
            time.sleep(budget)
            raise MediaUnavailable("away")

    for _ in range(5):
        house.blob()
    make_past(house.database, "blobs", "expires_at")
    media = Media(Hanging(), MemoryStore(), MemoryStore())
    sweep_up(
        SweepDependencies(house.overdue, house.blobs, media, Outbox(house.database, lambda _, __: None), 0), budget
    )
    assert len(asked) == 1
    assert house.count("blobs") == 5

"""Kills workers that defer and admit jobs at each of their kill points: every job is done."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from events.schema import JobId, Mp3Ready, VideoUploaded
from functions.convert import handlers
from tests.support.databases import make_past
from tests.support.kill_points import System, new_system
from tests.unit.state.test_killed import add, change, kill_everywhere, prepare

pytestmark = pytest.mark.usefixtures("memoized")

#: Of these, one owner alone gets one.
PLACES = 2
_FAR_FUTURE = 10**15


def fair(work: Callable[[System], Any]) -> Callable[[System], Any]:
    """Returns the work in a system that has PLACES."""

    def fairly(system: System) -> Any:
        system.places = PLACES
        return work(system)

    return fairly


def ids(system: System) -> dict[str, JobId]:
    return {row.filename: JobId(row.id) for row in system.rows("jobs")}


def convert(system: System, name: str) -> None:
    handlers.convert(ids(system)[name], system.for_convert())


def start_first(system: System) -> None:
    """Has the first job at work, by a worker whose lease does not expire."""
    add(system, "first")
    add(system, "second")
    first = ids(system)["first.wav"]
    assert system.for_convert().jobs.claim(first) is not None
    change(system, "jobs", first, lease_until=_FAR_FUTURE)


@pytest.fixture(scope="module")
def one_at_work(place: Path) -> Path:
    return prepare(new_system(place / "empty"), place / "one at work", fair(start_first))


@pytest.fixture(scope="module")
def one_deferred(one_at_work: Path, place: Path) -> Path:
    """The first job's worker has died, and the second job is deferred."""

    def let_first_die(system: System) -> None:
        change(system, "jobs", ids(system)["first.wav"], lease_until=1)

    return prepare(one_at_work, place / "deferred", fair(lambda system: convert(system, "second.wav")), let_first_die)


def assert_all_done(system: System) -> None:
    assert {row.state for row in system.rows("jobs")} == {"done"}
    assert not system.rows("jobs", "deferred_at")
    accepted = sorted(system.accepted_mails())
    assert accepted == sorted(f"<{Mp3Ready(job).id}@mp3burst>" for job in ids(system).values())
    system.assert_tidy()


def test_second_job_is_deferred(one_deferred: Path) -> None:
    system = System(one_deferred)
    [row] = system.rows("jobs", "deferred_at")
    assert (row.filename, row.state, row.attempts) == ("second.wav", "uploaded", 0)
    system.close()


def test_killed_worker_of_the_first_job_leaves_the_second_no_stall(one_deferred: Path, tmp_path: Path) -> None:
    """The broker's redelivery alone completes both jobs, unless the second was admitted and not yet announced."""
    not_announced = []
    uploads = 2
    for where, system in kill_everywhere(
        one_deferred, tmp_path, fair(lambda system: convert(system, "first.wav")), begin="the writer's end"
    ):
        system.places = PLACES
        make_past(system.database, "jobs", "lease_until")
        for event in [VideoUploaded(ids(system)["first.wav"]), *system.published()[uploads:]]:
            system.deliver(event)
        if {row.state for row in system.rows("jobs")} != {"done"}:
            not_announced.append(where)
            [row] = [row for row in system.rows("jobs") if row.state != "done"]
            assert (row.filename, row.deferred_at) == ("second.wav", None)  # sweep emits its event
        system.let_days_pass()
        assert_all_done(system)
    assert not_announced == ["after Jobs.admit, before publish"]


def test_killed_worker_that_defers_a_job_leaves_it_to_the_end_of_the_other(one_at_work: Path, tmp_path: Path) -> None:
    for _, system in kill_everywhere(one_at_work, tmp_path, fair(lambda system: convert(system, "second.wav"))):
        system.places = PLACES
        first = ids(system)["first.wav"]
        make_past(system.database, "jobs", "lease_until", _FAR_FUTURE)
        for event in [VideoUploaded(ids(system)["second.wav"]), VideoUploaded(first)]:
            system.deliver(event)
        assert {row.state for row in system.rows("jobs")} == {"done"}
        system.let_days_pass()
        assert_all_done(system)

"""How one attempt ends, and what is recorded of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import true

from events.errors import Mp3burstError, PermanentFailure, TryAgain
from events.schema import ConversionFailed, Event, JobId, Mp3Ready
from functions.convert.errors import UnusableMedia
from functions.media import MediaUnavailable
from functions.notify.transports import MailRefused
from functions.state.database import DatabaseUnavailable
from functions.state.leases import ATTEMPTS_EXHAUSTED, Lease, LeaseLost, Output, attempt

JOB = JobId("a" * 32)


class Table:
    """A leased table that notes what is done to it, in order."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    @contextmanager
    def renewing(self, _: object) -> Iterator[Any]:
        self.calls.append("renewing")
        yield None
        self.calls.append("renewed")

    def fail(self, _: object, error: str) -> list[Event]:
        self.calls.append(("fail", error))
        return [ConversionFailed(JOB)]

    def release(self, _: object, error: Exception | None = None) -> None:
        self.calls.append(("release", error))


def run(table: Any, work: Callable[[Any], Output | None], *, exhausted: bool = False) -> list[Event]:
    lease = Lease("token", true(), row=None, attempts=1, exhausted=exhausted, age=0)
    return attempt(table, lease, work, f"job {JOB}")


def raising(error: Exception) -> Callable[[Any], Output]:
    def work(_: Any) -> Output:
        raise error

    return work


def test_output_is_recorded_under_the_lease() -> None:
    table = Table()

    def record() -> list[Event]:
        table.calls.append("record")
        return [Mp3Ready(JOB)]

    assert run(table, lambda _: Output(record, pytest.fail)) == [Mp3Ready(JOB)]
    assert table.calls == ["renewing", "record", "renewed"]


def test_output_is_kept_if_no_event_follows() -> None:
    assert run(Table(), lambda _: Output(list, pytest.fail)) == []


def test_output_of_a_lost_row_is_discarded() -> None:
    table = Table()
    assert run(table, lambda _: Output(lambda: None, lambda: table.calls.append("discard"))) == []
    assert table.calls == ["renewing", "renewed", "discard"]


def test_work_without_output_records_nothing() -> None:
    table = Table()
    assert run(table, lambda _: None) == []
    assert table.calls == ["renewing", "renewed"]


def test_permanent_failure_fails_the_row_with_its_message() -> None:
    table = Table()
    assert run(table, raising(PermanentFailure("No sound."))) == [ConversionFailed(JOB)]
    assert table.calls == ["renewing", ("fail", "No sound.")]


def test_exhausted_attempt_fails_the_row_without_work() -> None:
    table = Table()
    assert run(table, raising(AssertionError("not called")), exhausted=True) == [ConversionFailed(JOB)]
    assert table.calls == [("fail", ATTEMPTS_EXHAUSTED)]


@pytest.mark.parametrize("error", [TryAgain("later"), LeaseLost("gone"), ValueError("a bug")])
def test_any_other_failure_releases_the_row_and_is_raised(error: Exception) -> None:
    table = Table()
    with pytest.raises(type(error)):
        run(table, raising(error))
    assert table.calls == ["renewing", ("release", error)]


def test_failure_to_record_releases_the_row_and_keeps_the_output_for_sweep() -> None:
    table = Table()
    error = DatabaseUnavailable("unavailable")

    def record() -> list[Event]:
        raise error

    with pytest.raises(DatabaseUnavailable):
        run(table, lambda _: Output(record, pytest.fail))
    assert table.calls == ["renewing", ("release", error)]


@pytest.mark.parametrize(
    ("error", "counts"),
    [(Mp3burstError, True), (TryAgain, True), (DatabaseUnavailable, False), (MediaUnavailable, False)],
)
def test_error_knows_whether_the_attempt_counts(error: type[Mp3burstError], counts: bool) -> None:
    assert error.counts_as_attempt is counts


@pytest.mark.parametrize("error", [UnusableMedia, MailRefused])
def test_hopeless_work_is_not_retried(error: type[Exception]) -> None:
    assert issubclass(error, PermanentFailure)

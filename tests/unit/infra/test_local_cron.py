from datetime import UTC, datetime, timedelta, timezone

import pytest

from infra.local.cron import BadSchedule, next_time

#: A Friday.
START = datetime(2026, 11, 20, 23, 57, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("* * * * *", "2026-11-20 23:58"),
        ("*/5 * * * *", "2026-11-21 00:00"),
        ("57 23 * * *", "2026-11-21 23:57"),
        ("10-20/5 4,6 * * *", "2026-11-21 04:10"),
        ("7/20 * * * *", "2026-11-21 00:07"),
        ("0 0 1 1 *", "2027-01-01 00:00"),
        ("0 0 29 2 *", "2028-02-29 00:00"),
        ("0 12 * * 0", "2026-11-22 12:00"),
        ("0 12 * * 7", "2026-11-22 12:00"),
        ("0 12 * * 1-5", "2026-11-23 12:00"),
        ("0 0 25 * 1", "2026-11-23 00:00"),  # the 25th or a Monday
        ("0 0 */2 * 1", "2026-11-23 00:00"),  # an odd day and a Monday
        ("59 23 31 12 *", "2026-12-31 23:59"),
    ],
)
def test_next_time(schedule: str, expected: str) -> None:
    assert next_time(schedule, START) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


def test_schedule_is_in_utc() -> None:
    here = START.astimezone(timezone(timedelta(hours=9)))
    assert next_time("0 0 * * *", here) == datetime(2026, 11, 21, tzinfo=UTC)


def test_matching_time_is_not_returned_again() -> None:
    assert next_time("0 0 * * *", datetime(2026, 11, 21, tzinfo=UTC)) == datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    "schedule", ["", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "a * * * *", "5-1 * * * *", "*/0 * * * *"]
)
def test_invalid_schedule_is_an_error(schedule: str) -> None:
    with pytest.raises(BadSchedule, match="is not a schedule"):
        next_time(schedule, START)


def test_nonexistent_date_is_an_error() -> None:
    with pytest.raises(BadSchedule, match="does not exist"):
        next_time("0 0 31 2 *", START)

"""Schedules of PingSources: cron's five fields, in UTC as on Knative."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from events.errors import Mp3burstError

#: Least and greatest value of minute, hour, day of month, month, day of week (7 is Sunday too).
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
#: 29 February of a leap year that is no multiple of 400 comes after eight years at the latest.
_HORIZON = 366 * 8 + 2


class BadSchedule(Mp3burstError):
    """The schedule is not one that cron knows, or never comes."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to fire: the values of each field, and whether a date matches."""

    minutes: frozenset[int]
    hours: frozenset[int]
    is_day: Callable[[datetime], bool]

    def after(self, moment: datetime) -> datetime:
        """The first time after ``moment``, to the minute, in UTC.

        Raises:
            BadSchedule: there is none.
        """
        moment = moment.astimezone(UTC)
        for days in range(_HORIZON):
            day = moment + timedelta(days=days)
            if not self.is_day(day):
                continue
            for hour in sorted(self.hours):
                for minute in sorted(self.minutes):
                    found = datetime.combine(day, time(hour, minute), UTC)
                    if found > moment:
                        return found
        raise BadSchedule("A PingSource's schedule names a day that never comes.")


def parse(text: str) -> Schedule:
    """A schedule from ``minute hour day month weekday``: ``*``, numbers, lists, ranges and steps.

    Raises:
        BadSchedule: it is none.
    """
    fields = text.split()
    try:
        if len(fields) != len(_RANGES):
            raise ValueError(text)
        minutes, hours, days, months, weekdays = (
            _values(field, *limits) for field, limits in zip(fields, _RANGES, strict=True)
        )
    except ValueError as error:
        raise BadSchedule(f"{text!r} is no schedule: write five fields, such as */5 * * * *.") from error
    # As in every cron: where both days are restricted, either is enough.
    either = not (fields[2].startswith("*") or fields[4].startswith("*"))

    def is_day(moment: datetime) -> bool:
        by_date, by_weekday = moment.day in days, moment.isoweekday() % 7 in {day % 7 for day in weekdays}
        return moment.month in months and ((by_date or by_weekday) if either else (by_date and by_weekday))

    return Schedule(minutes, hours, is_day)


def _values(field: str, least: int, most: int) -> frozenset[int]:
    values: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        start = least if span == "*" else int(first)
        end = most if span == "*" or (step and not last) else int(last or first)
        found = range(start, end + 1, int(step or 1))
        if not found or start < least or end > most:
            raise ValueError(part)
        values.update(found)
    return frozenset(values)

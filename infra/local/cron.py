"""Schedules of PingSources: cron's five fields, in UTC as on Knative.

A parser of our own: croniter needs dateutil, and cronsim accepts a sixth field for seconds that Knative does not know,
so either would need a wrapper almost as long as this module.
"""

from datetime import UTC, datetime, timedelta

from events.errors import Mp3burstError

#: Minimum and maximum of minute, hour, day of month, month, day of week (both 0 and 7 are Sunday).
_LIMITS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
#: 29 February returns within eight years: 2100 is not a leap year.
_HORIZON = timedelta(days=366 * 8)


class BadSchedule(Mp3burstError):
    """The schedule is not valid cron syntax, or never matches."""


def next_time(schedule: str, after: datetime) -> datetime:
    """Returns the first full minute after ``after`` that matches ``minute hour day month weekday``.

    Raises:
        BadSchedule: a field does not consist of ``*``, numbers, lists, ranges and steps, or the date does not exist.
    """
    fields = schedule.split()
    try:
        values = [_values(field, *limits) for field, limits in zip(fields, _LIMITS, strict=True)]
    except ValueError as error:
        raise BadSchedule(f"{schedule!r} is not a schedule: write five fields, such as */5 * * * *.") from error
    minutes, hours, days, months, weekdays = values
    # As in every cron: if both day fields are restricted, either may match.
    combine = all if "*" in (fields[2][0], fields[4][0]) else any
    time = after.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    end = time + _HORIZON
    while time < end:
        weekday = {time.isoweekday(), time.isoweekday() % 7}
        if time.month not in months or not combine((time.day in days, bool(weekday & weekdays))):
            time = time.replace(hour=0, minute=0) + timedelta(days=1)
        elif time.hour not in hours or time.minute not in minutes:
            time += timedelta(minutes=1)
        else:
            return time
    raise BadSchedule(f"The schedule {schedule!r} names a date that does not exist: correct the day or the month.")


def _values(field: str, minimum: int, maximum: int) -> set[int]:
    values: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        if span == "*":
            start = minimum
            end = maximum
        else:
            first, _, last = span.partition("-")
            start = int(first)
            end = int(last or (maximum if step else first))
        if not minimum <= start <= end <= maximum:
            raise ValueError(part)
        values.update(range(start, end + 1, int(step or 1)))
    return values

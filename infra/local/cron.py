"""Schedules of PingSources: cron's five fields, in UTC as on Knative."""

from datetime import UTC, datetime, timedelta

from events.errors import Mp3burstError

#: Least and greatest value of minute, hour, day of month, month, day of week (7 is Sunday too).
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
#: 29 February comes after eight years at the latest: 2100 is no leap year.
_HORIZON = timedelta(days=366 * 8)


class BadSchedule(Mp3burstError):
    """The schedule is not one that cron knows, or never comes."""


def following(schedule: str, moment: datetime) -> datetime:
    """The first time after ``moment``, to the minute, of ``minute hour day month weekday``.

    Raises:
        BadSchedule: a field is not made of ``*``, numbers, lists, ranges and steps, or the day never comes.
    """
    fields = schedule.split()
    try:
        sets = [_values(field, *limits) for field, limits in zip(fields, _RANGES, strict=True)]
    except ValueError as error:
        raise BadSchedule(f"{schedule!r} is no schedule: write five fields, such as */5 * * * *.") from error
    minutes, hours, days, months, weekdays = sets
    # As in every cron: where both days are restricted, either is enough.
    agree = all if "*" in (fields[2][0], fields[4][0]) else any
    moment = moment.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    end = moment + _HORIZON
    while moment < end:
        weekday = {moment.isoweekday(), moment.isoweekday() % 7}
        if moment.month not in months or not agree((moment.day in days, bool(weekday & weekdays))):
            moment = moment.replace(hour=0, minute=0) + timedelta(days=1)
        elif moment.hour not in hours or moment.minute not in minutes:
            moment += timedelta(minutes=1)
        else:
            return moment
    raise BadSchedule(f"The schedule {schedule!r} names a day that never comes.")


def _values(field: str, least: int, most: int) -> set[int]:
    values: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        start, end = (least, most) if span == "*" else (int(first), int(last or (most if step else first)))
        if not least <= start <= end <= most:
            raise ValueError(part)
        values.update(range(start, end + 1, int(step or 1)))
    return values

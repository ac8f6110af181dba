"""Counters that only grow, although the rows that they count are deleted in time.

Whatever is counted is counted in the transaction that makes it so: the conditional statement that takes place once
counts once, whoever is killed or repeats it. Counting inserts rows, and locks none, so that any number of workers can
count at the same time. Sweep replaces the rows of a series by their sum; a sum of all rows is always the value.
"""

import contextlib
import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import Connection, Row, delete, func, insert, select

from functions.state.database import Conflict, Database
from functions.state.schema import counters, now

Counter = Literal[
    "jobs_finished",
    "job_wait_seconds",
    "job_conversion_seconds",
    "audio_seconds",
    "cpu_seconds",
    "video_bytes",
    "mp3_bytes",
    "videos_fetched",
    "fetched_bytes",
    "attempts_failed",
    "dead_letters",
    "events_repeated",
    "mails_finished",
    "deliveries_finished",
    "sweeps",
]
#: The upper bounds of the buckets in which times are counted, in seconds.
BOUNDS: Final = ("1", "5", "15", "60", "300", "900", "3600", "+Inf")
#: Separates the name of a counter from its labels, and these from each other.
_SEPARATOR: Final = "|"
#: The functions that work on the rows of tables other than jobs.
_QUEUES: Final = {"pieces": "encode", "mails": "notify", "deliveries": "hook"}
#: Part of a series of times: what their sum is counted under, in place of a bound.
_SUM: Final = "sum"


class Series(NamedTuple):
    """One counter with one set of labels, in the order in which functions/metrics names them."""

    counter: str
    labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, counter: Counter, *labels: str) -> "Series":
        """Returns the series of a counter."""
        return cls(counter, labels)


@dataclass(frozen=True, slots=True)
class Count:
    """What was counted of a series.

    Attributes:
        amount: of what is measured in seconds, milliseconds.
        counted_at: when it was counted last, in milliseconds since 1970.
    """

    amount: int
    counted_at: int


def count(connection: Connection, amounts: Mapping[Series, int]) -> None:
    """Adds to counters within the caller's transaction; locks nothing.

    Args:
        connection: the caller's.
        amounts: what to add to each series; of what is measured in seconds, milliseconds.
    """
    rows: list[dict[str, Any]] = [
        {"id": secrets.token_hex(16), "series": _SEPARATOR.join((series.counter, *series.labels)), "amount": amount}
        for series, amount in amounts.items()
        if amount
    ]
    if rows:
        # PyMySQL sends rows at once only if their values are literal: it would send one INSERT for each with now().
        counted_at = connection.scalar(select(now()))
        connection.execute(insert(counters), [{**row, "counted_at": counted_at} for row in rows])


def count_time(counter: Counter, milliseconds: int) -> dict[Series, int]:
    """Returns what to add for a time: one to its bucket, and the time to the sum."""
    bound = next(bound for bound in BOUNDS if milliseconds <= float(bound) * 1000)
    return {Series.of(counter, bound): 1, Series.of(counter, _SUM): milliseconds}


def queue_of(table: str, state: str) -> str:
    """Returns the function that works on the rows of a table that are in this state."""
    if table == "jobs":
        return {"fetching": "fetch", "joining": "join"}.get(state, "convert")
    return _QUEUES[table]


class Times(NamedTuple):
    """Times that were counted: how many are no longer than each bound, and their sum in seconds."""

    buckets: list[tuple[str, int]]
    seconds: float


def times(counts: Mapping[Series, Count], counter: Counter) -> Times:
    """Returns the times of a counter. Those that were counted when there were other bounds have their place, too."""
    found = {series.labels[0]: each.amount for series, each in counts.items() if series.counter == counter}
    total = found.pop(_SUM, 0)
    buckets = [
        (bound, sum(amount for other, amount in found.items() if float(other) <= float(bound))) for bound in BOUNDS
    ]
    return Times(buckets, total / 1000)


def counts(connection: Connection) -> dict[Series, Count]:
    """Returns all counters, by one statement: each row is counted once, also while sweep adds them up."""
    query = select(counters.c.series, func.sum(counters.c.amount), func.max(counters.c.counted_at))
    found = {}
    for text, amount, counted_at in connection.execute(query.group_by(counters.c.series)):
        counter, *labels = text.split(_SEPARATOR)
        found[Series(counter, tuple(labels))] = Count(int(amount), counted_at)
    return found


class Counters:
    """What sweep does with counters."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record_sweep(self) -> None:
        """Counts a sweep that has come to its end."""
        row = {"id": secrets.token_hex(16), "series": "sweeps", "amount": 1, "counted_at": now()}
        with contextlib.suppress(Conflict):  # the first try was committed, and only its answer was lost
            self._database.run(lambda connection: connection.execute(insert(counters).values(**row)))

    def add_up(self, limit: int) -> bool:
        """Replaces rows of the same series by one with their sum.

        Args:
            limit: rows in one call; more than there are series.

        Returns:
            Whether there may be more.
        """
        # In any order: to sort all rows for each batch would take time that is quadratic in their number.
        query = select(counters).limit(limit)

        def add_up(connection: Connection) -> bool:
            by_series: dict[str, list[Row[Any]]] = defaultdict(list)
            chosen = connection.execute(query).all()
            for row in chosen:
                by_series[row.series].append(row)
            several = {series: rows for series, rows in by_series.items() if len(rows) > 1}
            ids = [row.id for rows in several.values() for row in rows]
            if not ids:
                return False
            if connection.execute(delete(counters).where(counters.c.id.in_(ids))).rowcount != len(ids):
                raise Conflict("Another sweep has added up the same rows.")
            connection.execute(insert(counters), [_sum(series, rows) for series, rows in several.items()])
            return len(chosen) == limit

        try:
            return self._database.run(add_up)
        except Conflict:
            return False


def _sum(series: str, rows: Sequence[Row[Any]]) -> dict[str, object]:
    return {
        "id": secrets.token_hex(16),
        "series": series,
        "amount": sum(row.amount for row in rows),
        "counted_at": max(row.counted_at for row in rows),
    }

"""What the disks of the media stores have: sweep measures it, so that others need no access to the stores."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from sqlalchemy import Connection, delete, func, insert, select, update

from functions.media.interface import Usage
from functions.state.database import Conflict, Database
from functions.state.schema import disks, now

StoreName = Literal["videos", "pieces", "mp3s"]
#: A disk is nearly full if it has less than this many times the floor.
_LOW: Final = 2


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of media stores.

    Attributes:
        stores: what is on it.
        used: bytes; None before the first measurement. If the total is unknown, those of the stores alone.
        total: bytes; None if the stores' server does not tell.
        floor: bytes that uploads leave free.
        measured_at: when it was measured, in milliseconds since 1970; None if it never was.
        silent_since: since when the stores have not answered; None if they answered when they were asked last.
    """

    stores: tuple[StoreName, ...]
    used: int | None
    total: int | None
    floor: int | None
    measured_at: int | None
    silent_since: int | None

    @property
    def free(self) -> int | None:
        """Bytes; None if that is unknown."""
        return None if self.total is None or self.used is None else max(self.total - self.used, 0)

    @property
    def level(self) -> Literal["enough", "low", "full", "unknown"]:
        """Whether there is enough space, uploads will be refused soon, or they are refused."""
        if self.free is None or self.floor is None:
            return "unknown"
        if self.free <= self.floor:
            return "full"
        return "low" if self.free < _LOW * self.floor else "enough"


class Disks:
    """The queries. Any number of sweeps may run at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, found: Mapping[tuple[str, ...], Usage | None], min_free: int | None) -> None:
        """Records what was measured now, and forgets disks that are no longer used.

        Args:
            found: what the disk of these stores has; None if a store did not answer: what was measured before stays.
            min_free: MIN_FREE_BYTES; None for the default.
        """

        def write(connection: Connection) -> None:
            connection.execute(delete(disks).where(disks.c.id.not_in([stores[0] for stores in found])))
            for stores, usage in found.items():
                values = {"stores": ",".join(stores), **_measured(usage, min_free)}
                if not connection.execute(update(disks).where(disks.c.id == stores[0]).values(values)).rowcount:
                    if usage is None:
                        values["silent_since"] = now()
                    connection.execute(insert(disks).values(id=stores[0], **values))

        with contextlib.suppress(Conflict):  # another sweep has just recorded it
            self._database.run(write)

    def all(self) -> list[Disk]:
        """Returns what was measured last."""
        return self._database.read(read)


def read(connection: Connection) -> list[Disk]:
    """Returns what was measured last, as a part of a transaction."""
    return [
        Disk(
            stores=tuple(name for name in get_args(StoreName) if name in row.stores.split(",")),
            used=row.used,
            total=row.total,
            floor=row.floor,
            measured_at=row.measured_at,
            silent_since=row.silent_since,
        )
        for row in connection.execute(select(disks).order_by(disks.c.id.desc()))
    ]


def _measured(usage: Usage | None, min_free: int | None) -> dict[str, Any]:
    if usage is None:
        return {"silent_since": func.coalesce(disks.c.silent_since, now())}
    space = usage.space
    return {
        "used": usage.used if space is None else space.total - space.free,
        "total": None if space is None else space.total,
        "floor": None if space is None else space.floor(min_free),
        "measured_at": now(),
        "silent_since": None,
    }

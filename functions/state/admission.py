"""Emits the events of an owner's deferred rows that may start, around each attempt at another row of that owner."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from events.schema import Event
from functions.state.database import DatabaseUnavailable
from functions.state.outbox import Outbox
from functions.state.schema import UserId

log = logging.getLogger(__name__)


class FairTable(Protocol):
    """What is admitted: Jobs, Pieces or Fetches."""

    def admit(self, owner: UserId, /) -> Sequence[Event]:
        """Admits as many of the owner's deferred rows as may start; returns their events."""


def admit(table: FairTable, owner: UserId | None, outbox: Outbox) -> None:
    """Emits the events of the owner's deferred rows that may start; of nobody's if the row and its owner are gone."""
    if owner is not None:
        outbox.emit_all(table.admit(owner))


@contextmanager
def admitting(table: FairTable, owner: UserId, outbox: Outbox) -> Iterator[None]:
    """Admits deferred rows of the owner at once, if there is room for more, and after the attempt."""
    try:
        admit(table, owner, outbox)
    except DatabaseUnavailable:
        log.warning("No deferred work was admitted: the database is unavailable. The end of this attempt does it.")
    try:
        yield
    finally:
        admit(table, owner, outbox)

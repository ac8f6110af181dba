"""What a worker learns of its lease while it works."""

import threading
import time
from collections.abc import Callable

import pytest

from functions.state.database import DatabaseUnavailable
from functions.state.leases import LeaseLost, LeaseRenewer, LeaseTerms

TERMS = LeaseTerms(lease=60_000, renewal=10, due=60_000)


def test_loss_of_a_lease_interrupts_what_waits() -> None:
    is_lost = threading.Event()
    interrupted = threading.Event()
    calls: list[str] = []
    with LeaseRenewer(lambda _: not is_lost.is_set(), TERMS) as renewer:
        with renewer.interrupting(lambda: calls.append("ended before")):
            pass
        is_lost.set()
        with renewer.interrupting(interrupted.set):
            assert interrupted.wait(20)
        with renewer.interrupting(lambda: calls.append("begun after")):
            assert calls == ["begun after"]
    assert calls == ["begun after"]


def test_lease_that_is_kept_interrupts_nothing() -> None:
    renewed = threading.Event()

    def renew(_: float) -> bool:
        renewed.set()
        return True

    calls: list[str] = []
    with LeaseRenewer(renew, TERMS) as renewer, renewer.interrupting(lambda: calls.append("interrupted")):
        assert renewed.wait(20)
    assert calls == []


def without_pauses(
    renew: Callable[[float], bool], terms: LeaseTerms, claimed: float | None = None, *, renewals: int
) -> tuple[list[float | None], LeaseRenewer]:
    """Lets a renewer renew so many times, and returns how long it would have waited before each and at the end."""
    pauses: list[float | None] = []

    class Pauses(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout)
            return len(pauses) > renewals

    renewer = LeaseRenewer(renew, terms, claimed)
    renewer._stopped = Pauses()
    with renewer:
        pass
    return pauses, renewer


def test_renewal_that_the_database_could_not_do_is_tried_again_soon() -> None:
    """A renewal that has waited 10 s for a lock leaves 5 s of the lease."""
    calls: list[float] = []

    def renew(progress: float) -> bool:
        calls.append(progress)
        if len(calls) == 1:
            raise DatabaseUnavailable
        return True

    pauses, renewer = without_pauses(renew, LeaseTerms(lease=60_000, renewal=1000, due=60_000), renewals=2)
    assert pauses[1:] == [0.2, 1.0]
    renewer.check()


def test_lease_counts_from_the_claim() -> None:
    """Its worker may have been stopped before the first renewal."""

    def fail(_: float) -> bool:
        raise DatabaseUnavailable

    pauses, renewer = without_pauses(fail, LeaseTerms(), time.monotonic() - 20, renewals=1)
    assert pauses == [0.0]  # the first renewal is overdue, too
    with pytest.raises(LeaseLost):
        renewer.check()


def test_renewing_at_once_tells_that_the_lease_is_lost() -> None:
    interrupted = threading.Event()
    is_held = True
    with LeaseRenewer(lambda _: is_held, LeaseTerms()) as renewer, renewer.interrupting(interrupted.set):
        renewer.renew()
        renewer.check()
        is_held = False
        with pytest.raises(LeaseLost):
            renewer.renew()
        with pytest.raises(LeaseLost):
            renewer.check()
    assert interrupted.is_set()

"""What a worker learns of its lease while it works."""

import threading
import time

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


def test_renewal_that_the_database_could_not_do_is_tried_again_soon() -> None:
    """A renewal that has waited 10 s for a lock leaves 5 s of the lease."""
    calls: list[float] = []
    again = threading.Event()

    def renew(_: float) -> bool:
        calls.append(time.monotonic())
        if len(calls) == 1:
            raise DatabaseUnavailable
        again.set()
        return True

    with LeaseRenewer(renew, LeaseTerms(lease=60_000, renewal=1000, due=60_000)) as renewer:
        assert again.wait(20)
        renewer.check()
    assert calls[1] - calls[0] < 0.9


def test_lease_counts_from_the_claim() -> None:
    """Its worker may have been stopped before the first renewal."""

    def fail(_: float) -> bool:
        raise DatabaseUnavailable

    lost = threading.Event()
    with LeaseRenewer(fail, LeaseTerms(), time.monotonic() - 20) as renewer, renewer.interrupting(lost.set):
        assert lost.wait(4)  # the first renewal is overdue, too
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

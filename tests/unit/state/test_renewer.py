"""What a worker learns of its lease while it works."""

import threading

from functions.state.leases import LeaseRenewer, LeaseTerms

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

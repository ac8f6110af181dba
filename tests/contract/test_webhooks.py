"""What every SQL database must do with webhooks and deliveries."""

import pytest
from sqlalchemy import update

from events.schema import ConversionFailed, DeliveryDue, Event, Mp3Ready
from functions.auth.allowance import AllowanceUsedUp, WebhookLimit
from functions.options import Options
from functions.state import webhooks as module
from functions.state.database import Database, DatabaseUnavailable
from functions.state.jobs import NewJob, Outcome, new_job_id
from functions.state.leases import Lease, LeaseTerms
from functions.state.outbox import Outbox
from functions.state.schema import UserId, deliveries, users
from functions.state.webhooks import (
    MAX_WEBHOOKS,
    Deliveries,
    Delivery,
    TooManyPings,
    TooManyWebhooks,
    WebhookNotFound,
    Webhooks,
    delete_webhooks,
)
from tests.contract.test_jobs import OTHER_USER, OWNER, Records, at_once
from tests.support.databases import SHORT, make_past

URL = "https://example.org/hook"


class Hooks(Records):
    """Records with webhooks of two users."""

    def __init__(self, database: Database, terms: LeaseTerms) -> None:
        super().__init__(database, terms)
        self.webhooks = Webhooks(database)
        self.deliveries = Deliveries(database, terms)
        rows = [
            {"id": user, "username": user, "email": "a@example.org", "name": "A", "created_at": 0}
            for user in (OWNER, OTHER_USER)
        ]
        statement = users.insert().values(password_hash="", role="user")
        database.run(lambda connection: connection.execute(statement, rows))

    def finish(self, callback: str | None = None, owner: UserId = OWNER) -> list[DeliveryDue]:
        """Finishes a job; returns the events of its deliveries."""
        blob = self.blob()
        job = self.jobs.add(NewJob(new_job_id(), owner, blob, "a.mp4", Options(), callback=callback))
        lease = self.jobs.claim(job.id)
        assert lease is not None
        events = self.jobs.finish(lease, Outcome(self.blob("mp3s", job.id), 1.0, None))
        assert events is not None
        assert events[0] == Mp3Ready(job.id)
        return [event for event in events if isinstance(event, DeliveryDue)]


@pytest.fixture
def hooks(database: Database) -> Hooks:
    return Hooks(database, LeaseTerms())


@pytest.fixture
def short_hooks(database: Database) -> Hooks:
    return Hooks(database, SHORT)


def test_end_of_a_job_records_a_delivery_for_each_webhook_and_the_callback(hooks: Hooks) -> None:
    mine = hooks.webhooks.add(OWNER, URL)
    hooks.webhooks.add(OTHER_USER, "https://example.org/other")
    events = hooks.finish(callback="https://example.org/callback")
    found = hooks.webhooks.deliveries(OWNER, 10)
    assert {(each.webhook, each.url) for each in found} == {
        (mine.id, URL),
        (None, "https://example.org/callback"),
    }
    assert {each.id for each in found} == {event.delivery for event in events}
    assert {each.kind for each in found} == {Mp3Ready.type}
    assert hooks.webhooks.deliveries(OTHER_USER, 10) == []
    due = {due.event for due in hooks.overdue.due(10)}
    assert {*events} <= due
    lease = hooks.jobs.claim(hooks.job(owner=OTHER_USER).id)
    assert lease is not None
    [failed, event] = hooks.jobs.fail(lease, "no audio")
    assert isinstance(failed, ConversionFailed)
    assert [each.id for each in hooks.webhooks.deliveries(OTHER_USER, 10)] == [event.subject]


@pytest.mark.parametrize("how", ["put off", "released"])
def test_confirming_an_event_leaves_when_a_fast_worker_made_it_due(hooks: Hooks, how: str) -> None:
    """Neither counts as an attempt."""
    webhook = hooks.webhooks.add(OWNER, URL)
    due: list[int] = []

    def publish(event: Event, _: float) -> None:
        assert isinstance(event, DeliveryDue)
        lease = hooks.deliveries.claim(event.delivery)
        assert lease is not None
        if how == "put off":
            hooks.deliveries.put_off(lease)
        else:
            hooks.deliveries.release(lease, DatabaseUnavailable())
        due.append(hooks.row("deliveries").due_at)

    assert Outbox(hooks.database, publish).emit(hooks.webhooks.ping(webhook.id, OWNER))
    assert [hooks.row("deliveries").due_at] == due


def test_published_delivery_is_emitted_again_by_sweep_alone(hooks: Hooks) -> None:
    hooks.webhooks.add(OWNER, URL)
    [event] = hooks.finish()
    assert Outbox(hooks.database, lambda *_: None).emit(event)
    assert event not in {due.event for due in hooks.overdue.due(10)}
    make_past(hooks.database, "deliveries", "due_at")
    assert event in {due.event for due in hooks.overdue.due(10)}
    assert hooks.overdue.wake(event)


def test_only_one_worker_makes_a_delivery_and_a_slow_one_disturbs_nobody(short_hooks: Hooks) -> None:
    short_hooks.webhooks.add(OWNER, URL)
    [event] = short_hooks.finish()
    leases = [lease for lease in at_once(4, lambda _: short_hooks.deliveries.claim(event.delivery)) if lease]
    assert len(leases) >= 1
    slow = leases[0]
    make_past(short_hooks.database, "deliveries", "lease_until")
    successor = short_hooks.deliveries.claim(event.delivery)
    assert successor is not None
    assert not short_hooks.deliveries.delivered(slow, 200)
    assert not short_hooks.deliveries.postpone(slow, 500, "late")
    assert not short_hooks.deliveries.gone(slow, 410)
    assert short_hooks.webhooks.of(OWNER)[0].state == "active"
    assert short_hooks.deliveries.delivered(successor, 204)
    [delivery] = short_hooks.webhooks.deliveries(OWNER, 10)
    assert (delivery.state, delivery.status, delivery.attempts >= 2) == ("delivered", 204, True)
    assert short_hooks.deliveries.claim(event.delivery) is None


def test_postponed_delivery_cannot_be_claimed_or_woken_before_it_is_due(hooks: Hooks) -> None:
    hooks.webhooks.add(OWNER, URL)
    [event] = hooks.finish()
    lease = hooks.deliveries.claim(event.delivery)
    assert lease is not None
    assert hooks.deliveries.postpone(lease, 500, "x" * 9000)
    assert hooks.deliveries.claim(event.delivery) is None
    assert not hooks.overdue.wake(event)
    assert event not in {due.event for due in hooks.overdue.due(10)}
    make_past(hooks.database, "deliveries", "due_at", 7000)
    make_past(hooks.database, "deliveries", "lease_until", 7000)
    assert event in {due.event for due in hooks.overdue.due(10)}
    assert hooks.deliveries.claim(event.delivery) is not None


def test_resent_delivery_keeps_its_id_and_one_in_progress_is_left_alone(hooks: Hooks) -> None:
    hooks.webhooks.add(OWNER, URL)
    [event] = hooks.finish()
    lease = hooks.deliveries.claim(event.delivery)
    assert lease is not None
    assert hooks.webhooks.resend(event.delivery, OWNER) == event
    assert hooks.deliveries.delivered(lease, 200)
    assert hooks.webhooks.resend(event.delivery, OWNER) == event
    again = hooks.deliveries.claim(event.delivery)
    assert again is not None
    assert (again.row.id, again.attempts) == (event.delivery, 1)
    for who, what in ((OTHER_USER, event.delivery), (OWNER, "0" * 32), (OWNER, "x")):
        with pytest.raises(WebhookNotFound):
            hooks.webhooks.resend(what, who)


def test_user_has_ten_webhooks_at_most(hooks: Hooks) -> None:
    def add(_: int) -> object:
        try:
            return hooks.webhooks.add(OWNER, URL)
        except TooManyWebhooks:
            return None

    added = at_once(MAX_WEBHOOKS + 4, add)
    assert len([each for each in added if each]) == len(hooks.webhooks.of(OWNER)) == MAX_WEBHOOKS
    hooks.webhooks.add(OTHER_USER, URL)


def test_deleted_webhook_takes_its_deliveries_with_it(hooks: Hooks) -> None:
    mine = hooks.webhooks.add(OWNER, URL)
    with pytest.raises(WebhookNotFound):
        hooks.webhooks.delete(mine.id, OTHER_USER)
    hooks.finish(callback="https://example.org/callback")
    hooks.webhooks.delete(mine.id, OWNER)
    assert [each.webhook for each in hooks.webhooks.deliveries(OWNER, 10)] == [None]
    with pytest.raises(WebhookNotFound):
        hooks.webhooks.ping(mine.id, OWNER)
    with pytest.raises(WebhookNotFound):
        hooks.webhooks.delete(mine.id, OWNER)
    [delivery] = hooks.webhooks.deliveries(OWNER, 10)
    assert delivery.job is not None
    hooks.jobs.delete(delivery.job, OWNER)
    assert hooks.count("deliveries") == 0


def test_receiver_is_called_no_more_often_than_it_allows(hooks: Hooks) -> None:
    limited = hooks.webhooks.add(OWNER, URL, 3)
    other = hooks.webhooks.add(OWNER, URL)

    def lease_of(webhook: str) -> Lease[Delivery]:
        lease = hooks.deliveries.claim(hooks.webhooks.ping(webhook, OWNER).delivery)
        assert lease is not None
        return lease

    leases = [lease_of(limited.id) for _ in range(6)]
    assert sorted(at_once(6, lambda n: hooks.deliveries.permission(leases[n]))) == ["later"] * 3 + ["now"] * 3
    make_past(hooks.database, "webhooks", "free_at", 58_000)
    assert hooks.deliveries.permission(leases[0]) == "later"
    assert {hooks.deliveries.permission(lease_of(other.id)) for _ in range(6)} == {"now"}
    make_past(hooks.database, "webhooks", "free_at", 2_000)
    assert [hooks.deliveries.permission(each) for each in leases] == ["now"] * 3 + ["later"] * 3


def test_user_may_have_webhooks_called_a_hundred_times_at_once(hooks: Hooks) -> None:
    limit = WebhookLimit(hooks.database)
    for _ in range(100):
        limit.use(OWNER)
    with pytest.raises(AllowanceUsedUp, match=r"^You have called webhooks too often: wait \d s"):
        limit.use(OWNER)
    limit.use(OTHER_USER)
    make_past(hooks.database, "logins", "clears_at", 2000)
    limit.use(OWNER)


def test_deliveries_are_listed_in_pages(hooks: Hooks) -> None:
    mine = hooks.webhooks.add(OWNER, URL)
    pings = {hooks.webhooks.ping(mine.id, OWNER).delivery for _ in range(5)}
    first = hooks.webhooks.deliveries(OWNER, 3)
    rest = hooks.webhooks.deliveries(OWNER, 3, first[-1].id)
    assert {each.id for each in (*first, *rest)} == pings
    assert len(first) == 3
    with pytest.raises(WebhookNotFound):
        hooks.webhooks.deliveries(OTHER_USER, 3, first[-1].id)


def test_number_of_pings_that_are_due_is_limited(hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PINGS", 2)
    mine = hooks.webhooks.add(OWNER, URL)
    ping = hooks.webhooks.ping(mine.id, OWNER)
    hooks.webhooks.ping(mine.id, OWNER)
    with pytest.raises(TooManyPings):
        hooks.webhooks.ping(mine.id, OWNER)
    lease = hooks.deliveries.claim(ping.delivery)
    assert lease is not None
    hooks.deliveries.delivered(lease, 200)
    hooks.webhooks.ping(mine.id, OWNER)


def test_pings_are_forgotten_after_a_week_and_a_users_rows_with_the_user(hooks: Hooks) -> None:
    mine = hooks.webhooks.add(OWNER, URL)
    other = hooks.webhooks.add(OTHER_USER, URL)
    for webhook, owner in ((mine, OWNER), (other, OTHER_USER)):
        lease = hooks.deliveries.claim(hooks.webhooks.ping(webhook.id, owner).delivery)
        assert lease is not None
        hooks.deliveries.delivered(lease, 200)
    waiting = hooks.webhooks.ping(mine.id, OWNER)
    hooks.overdue.forget_pings(100)
    assert hooks.count("deliveries") == 3
    make_past(hooks.database, "deliveries", "tried_at", 7 * 86_400_000 + 1)
    hooks.overdue.forget_pings(100)
    assert [each.id for each in hooks.webhooks.deliveries(OWNER, 10)] == [waiting.delivery]
    hooks.database.run(lambda connection: delete_webhooks(connection, OWNER))
    assert hooks.count("deliveries") == 0
    assert hooks.webhooks.of(OWNER) == []
    assert len(hooks.webhooks.of(OTHER_USER)) == 1


@pytest.mark.parametrize("has_time", [True, False])
def test_pings_are_forgotten_whose_receiver_wants_no_more_events(hooks: Hooks, has_time: bool) -> None:
    webhook = hooks.webhooks.add(OWNER, URL)
    lease = hooks.deliveries.claim(hooks.webhooks.ping(webhook.id, OWNER).delivery)
    assert lease is not None
    assert hooks.deliveries.gone(lease, 410)
    [delivery] = hooks.webhooks.deliveries(OWNER, 10)
    assert delivery.tried_at is not None
    if not has_time:  # as earlier versions left it
        statement = update(deliveries).values(tried_at=None)
        hooks.database.run(lambda connection: connection.execute(statement))
    hooks.overdue.forget_pings(100)
    assert hooks.count("deliveries") == 1
    for column in ("created_at", "tried_at"):
        make_past(hooks.database, "deliveries", column, 7 * 86_400_000 + 1)
    hooks.overdue.forget_pings(100)
    assert hooks.count("deliveries") == 0

"""What hook does with each answer of a receiver."""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import select, update
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from functions.hook.delivery import Courier, deliver
from functions.hook.slow import LIMITED, SLOW, SlowReceivers
from functions.outgoing.addresses import AddressRefused, Policy
from functions.outgoing.client import retry_after
from functions.outgoing.handshake import Handshake, HandshakeRefused
from functions.outgoing.signatures import Signer
from functions.settings import BadSetting
from functions.state.leases import Lease, LeaseLost, LeaseTerms
from functions.state.schema import deliveries, webhooks
from functions.state.webhooks import SCHEDULE, Deliveries, Delivery, Permission, Webhooks
from tests.contract.test_jobs import OWNER, Records
from tests.support.databases import make_past, sqlite
from tests.support.servers.receiver import Answer, Message, Receiver

LOCAL = Policy.from_environ({"WEBHOOK_NETWORKS": "127.0.0.1/32"})
SIGNER = Signer("k" * 32)


class Hook:
    """A database with a finished job, its owner's webhook at a receiver, and hook."""

    def __init__(self, records: Records, receiver: Receiver) -> None:
        self.database = records.database
        self.receiver = receiver
        self.answer: Answer = (200, {})
        receiver.answer = lambda _: self.answer
        self.webhooks = Webhooks(self.database)
        handshake = Handshake(LOCAL, "mp3.example")
        self.courier = Courier(Deliveries(self.database), handshake, SIGNER, "https://mp3.example")
        self.webhook = self.webhooks.ping(self._add(receiver.url), OWNER)

    def _add(self, url: str) -> str:
        statement = webhooks.insert().values(id="e" * 32, owner=OWNER, url=url, state="active", created_at=0)
        self.database.run(lambda connection: connection.execute(statement))
        return "e" * 32

    @property
    def row(self) -> Any:
        return self.database.run(lambda connection: connection.execute(select(deliveries)).one())

    def attempt(self, answer: Answer) -> Any:
        """Makes an attempt that is answered so; returns the row afterwards."""
        self.answer = answer
        make_past(self.database, "deliveries", "due_at")
        make_past(self.database, "deliveries", "lease_until")
        deliver(self.row.id, self.courier)
        return self.row


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[Hook]:
    with sqlite(tmp_path) as database, Receiver() as receiver:
        yield Hook(Records(database, LeaseTerms()), receiver)


def test_accepted_event_is_delivered_once_with_both_signatures(hook: Hook) -> None:
    row = hook.attempt((204, {}))
    assert (row.state, row.status, row.error, row.due_at, row.attempts) == ("delivered", 204, None, None, 1)
    deliver(row.id, hook.courier)
    [message] = hook.receiver.messages
    assert message.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert message.headers["webhook-id"] == row.id
    event = json.loads(message.body)
    assert (event["id"], event["type"], event["specversion"]) == (row.id, "dev.mp3burst.ping", "1.0")
    assert event["source"] == "https://mp3.example"
    verifier = Webhook(SIGNER.secret("e" * 32))
    assert verifier.verify(message.body, message.headers) == event
    with pytest.raises(WebhookVerificationError):
        verifier.verify(message.body + b" ", message.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SIGNER.secret(OWNER)).verify(message.body, message.headers)
    check_v1a(message)


def check_v1a(message: Message) -> None:
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(SIGNER.public_key.removeprefix("whpk_")))
    [signature] = [each[4:] for each in message.headers["webhook-signature"].split() if each.startswith("v1a,")]
    signed = b".".join(
        (message.headers["webhook-id"].encode(), message.headers["webhook-timestamp"].encode(), message.body)
    )
    key.verify(base64.b64decode(signature), signed)
    with pytest.raises(InvalidSignature):
        key.verify(base64.b64decode(signature), signed + b".")


@pytest.mark.parametrize("answer", [(301, {"Location": "/"}), (404, {}), (429, {}), (500, {}), None])
def test_any_other_answer_is_tried_again_later(hook: Hook, answer: Answer) -> None:
    row = hook.attempt(answer)
    assert (row.state, row.attempts, row.status) == ("due", 1, None if answer is None else answer[0])
    assert row.error
    assert 5000 <= row.due_at - row.tried_at <= 6100
    # The event that the broker delivers again finds nothing to do.
    deliver(row.id, hook.courier)
    assert len(hook.receiver.messages) == 1
    assert hook.attempt((200, {})).state == "delivered"
    assert {message.headers["webhook-id"] for message in hook.receiver.messages} == {row.id}


def test_ten_attempts_are_made_over_75_hours(hook: Hook) -> None:
    waits = []
    for n in range(1, 10):
        row = hook.attempt((503, {}))
        assert (row.state, row.attempts) == ("due", n)
        waits.append(row.due_at - row.tried_at)
    assert all(planned <= wait <= planned * 1.2 + 1000 for planned, wait in zip(SCHEDULE, waits, strict=True))
    assert 75 <= sum(waits) / 3_600_000 <= 92
    row = hook.attempt((503, {}))
    assert (row.state, row.status, row.due_at) == ("failed", 503, None)
    deliver(row.id, hook.courier)
    assert len(hook.receiver.messages) == 10


def test_attempts_that_were_killed_count(hook: Hook) -> None:
    for _ in range(10):
        make_past(hook.database, "deliveries", "lease_until")
        assert hook.courier.deliveries.claim(hook.row.id) is not None
    row = hook.attempt((200, {}))
    assert (row.state, hook.receiver.messages) == ("failed", [])
    assert row.error == "No attempt at this delivery could be completed. Send it again."


def test_retry_after_is_obeyed(hook: Hook) -> None:
    row = hook.attempt((429, {"Retry-After": "3600"}))
    assert 3_599_000 <= row.due_at - row.tried_at <= 3_601_000
    in_two_hours = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)
    row = hook.attempt((503, {"Retry-After": in_two_hours}))
    assert 7_100_000 <= row.due_at - row.tried_at <= 7_201_000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, 0),
        ("x", 0),
        ("-5", 0),
        ("30", 30),
        ("9" * 50, 999_999_999),
        ("\xa0" * 9 + "1", 1),
        ("Tue, 1 Jan", 0),
        ("Mon, 20 Nov 1995 19:12:08 +99999999999999999999", 0),
    ],
)
def test_retry_after_that_is_missing_or_invalid_is_ignored(text: str | None, seconds: float) -> None:
    assert retry_after(text) == seconds


def test_410_ends_the_webhook_until_it_is_pinged(hook: Hook) -> None:
    row = hook.attempt((410, {}))
    assert (row.state, row.status) == ("failed", 410)
    [webhook] = hook.webhooks.of(OWNER)
    assert webhook.state == "gone"
    hook.webhooks.resend(row.id, OWNER)
    assert hook.attempt((200, {})).state == "failed"
    assert len(hook.receiver.messages) == 1
    hook.webhooks.ping(webhook.id, OWNER)
    assert hook.webhooks.of(OWNER)[0].state == "active"


def test_slow_receivers_of_one_user_leave_threads_to_others(hook: Hook) -> None:
    time = [0.0]
    slow = SlowReceivers(2, lambda: time[0])
    courier = replace(hook.courier, slow=slow)
    fast = [slow.begin(OWNER) for _ in range(8)]
    assert None not in fast, "nobody is limited whose receivers answer soon"
    time[0] += SLOW
    for end in fast:
        assert end is not None
        end()
    waiting = [slow.begin(OWNER) for _ in range(2)]
    assert slow.begin("another") is not None
    deliver(hook.row.id, courier)
    assert (hook.row.state, hook.row.attempts, hook.receiver.messages) == ("due", 0, [])
    assert 29_000 <= hook.row.due_at - hook.row.created_at <= 40_000
    deliver(hook.row.id, courier)  # the broker delivers the event again
    assert hook.row.attempts == 0
    make_past(hook.database, "deliveries", "due_at", 40_000)
    make_past(hook.database, "deliveries", "lease_until", 40_000)
    assert waiting[0] is not None
    waiting[0]()
    deliver(hook.row.id, courier)
    assert (hook.row.state, hook.row.attempts) == ("delivered", 1)
    time[0] += LIMITED
    assert None not in [slow.begin(OWNER) for _ in range(8)]


def test_delivery_beyond_the_rate_of_the_receiver_is_put_off(hook: Hook) -> None:
    limit = update(webhooks).values(rate=1)
    hook.database.run(lambda connection: connection.execute(limit))
    assert hook.attempt((500, {})).attempts == 1
    row = hook.attempt((200, {}))
    assert (row.state, row.attempts, row.status) == ("due", 1, 500)
    assert row.due_at > row.tried_at
    assert len(hook.receiver.posts) == 1
    make_past(hook.database, "webhooks", "free_at")
    assert hook.attempt((200, {})).state == "delivered"


def test_address_that_has_become_private_is_not_called(hook: Hook) -> None:
    courier = Courier(hook.courier.deliveries, Handshake(Policy(), "x"), SIGNER, "https://mp3.example")
    deliver(hook.row.id, courier)
    row = hook.row
    assert (row.state, row.status) == ("due", None)
    assert "https://" in row.error
    assert hook.receiver.messages == []


@pytest.mark.parametrize(
    ("answer", "optional", "required"),
    [
        ((200, {"WebHook-Allowed-Origin": "*"}), True, True),
        ((200, {"WebHook-Allowed-Origin": "mp3.example"}), True, True),
        ((200, {"WebHook-Allowed-Origin": "other.example"}), False, False),
        ((405, {}), True, False),
        (None, True, False),
    ],
)
def test_receivers_are_asked(answer: Answer, optional: bool, required: bool) -> None:
    with Receiver(lambda _: answer) as receiver:
        for is_required, is_allowed in ((False, optional), (True, required)):
            handshake = Handshake(LOCAL, "mp3.example", is_required)
            if is_allowed:
                handshake.ask(receiver.url)
            else:
                with pytest.raises(HandshakeRefused):
                    handshake.ask(receiver.url)
        assert {message.method for message in receiver.messages} == {"OPTIONS"}
        assert {message.headers["webhook-request-origin"] for message in receiver.messages} == {"mp3.example"}


@pytest.mark.parametrize(
    ("rate", "allowed"),
    [("120", 120), (" 5 ", 5), ("*", None), ("", None), ("0", None), ("-1", None), ("1.5", None), ("9" * 99, None)],
)
def test_receiver_may_limit_the_rate(rate: str, allowed: int | None) -> None:
    with Receiver(lambda _: (200, {"WebHook-Allowed-Origin": "*", "WebHook-Allowed-Rate": rate})) as receiver:
        assert Handshake(LOCAL, "mp3.example").ask(receiver.url) == allowed


def test_handshake_checks_the_address_first() -> None:
    with pytest.raises(AddressRefused):
        Handshake(Policy(), "mp3.example").ask("https://127.0.0.1/")


def test_settings() -> None:
    assert Handshake.from_environ({"PUBLIC_URL": "https://mp3.example:8443"}).origin == "mp3.example"
    with pytest.raises(BadSetting, match="WEBHOOK_HANDSHAKE"):
        Handshake.from_environ({"PUBLIC_URL": "https://mp3.example", "WEBHOOK_HANDSHAKE": "on"})
    for key in ("", "k" * 31):
        with pytest.raises(BadSetting, match="WEBHOOK_KEY"):
            Signer.from_environ({"WEBHOOK_KEY": key})


def test_receiver_is_not_called_by_a_worker_that_has_lost_its_lease(hook: Hook) -> None:
    class Stalled(Deliveries):
        def permission(self, lease: Lease[Delivery]) -> Permission:
            make_past(hook.database, "deliveries", "lease_until")
            deliver(lease.row.id, hook.courier)
            return super().permission(lease)

    with pytest.raises(LeaseLost):
        deliver(hook.row.id, replace(hook.courier, deliveries=Stalled(hook.database)))
    assert len(hook.receiver.messages) == 1
    assert hook.row.state == "delivered"

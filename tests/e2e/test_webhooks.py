"""Webhooks and callbacks on a platform of real processes."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from functions.auth.allowance import subject_id
from functions.state.database import Database
from functions.state.schema import logins
from tests.e2e.client import Client, wave_bytes
from tests.support.platform import Platform, start
from tests.support.processes import wait_for
from tests.support.servers.receiver import Answer, Message, Receiver

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform whose webhooks may reach 127.0.0.1."""
    env = {"WEBHOOK_NETWORKS": "127.0.0.1/32"}
    with start(tmp_path_factory.mktemp("hooked") / "data", env=env) as running:
        yield running


@pytest.fixture
def user(hooked: Platform) -> Client:
    return Client(hooked.url).sign_up()


def create(user: Client, url: str) -> Any:
    return user.call("POST", "/webhooks", json.dumps({"url": url}).encode(), JSON)


def deliveries(user: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = user.call("GET", "/webhooks/deliveries").json()["deliveries"]
    return found


def test_webhook_and_callback_are_told_of_a_job_and_can_be_told_again(user: Client) -> None:
    with Receiver() as receiver, Receiver() as callback:
        answer = create(user, receiver.url)
        assert answer.status == 201
        webhook = answer.json()
        assert answer.headers["Location"] == f"/webhooks/{webhook['id']}"
        assert [message.method for message in receiver.messages] == ["OPTIONS"]
        job = user.wait(user.upload(BytesIO(wave_bytes(1)), "a.wav", {"callback": callback.url})["job"])
        for each in (receiver, callback):
            wait_for(lambda each=each: each.posts, "the event")  # type: ignore[misc]
        listed = user.call("GET", "/webhooks").json()
        assert listed["webhooks"] == [webhook]
        for each, secret in ((receiver, webhook["secret"]), (callback, listed["callback_secret"])):
            [message] = each.posts
            event = Webhook(secret).verify(message.body, message.headers)
            assert (event["type"], event["subject"]) == ("dev.mp3burst.mp3.ready", job["job"])
            assert (event["data"]["status"], event["data"]["mp3"]) == ("done", job["mp3"])
        wait_for(lambda: {each["state"] for each in deliveries(user)} == {"delivered"}, "the record")
        assert {each["webhook"] for each in deliveries(user)} == {webhook["id"], None}
        [delivery] = [each for each in deliveries(user) if each["webhook"]]
        assert (delivery["status"], delivery["attempts"], delivery["job"]) == (200, 1, job["job"])
        again = user.call("POST", f"/webhooks/deliveries/{delivery['id']}/resend")
        assert (again.status, again.json()) == (202, {"delivery": delivery["id"]})
        wait_for(lambda: len(receiver.posts) == 2, "the event again")
        assert len({message.headers["webhook-id"] for message in receiver.posts}) == 1
        ping = user.call("POST", f"/webhooks/{webhook['id']}/ping")
        assert ping.status == 202
        wait_for(lambda: len(receiver.posts) == 3, "the ping")
        assert json.loads(receiver.posts[2].body)["type"] == "dev.mp3burst.ping"
        assert user.call("DELETE", f"/webhooks/{webhook['id']}").status == 204
        assert user.call("GET", "/webhooks").json()["webhooks"] == []


def test_receiver_that_answers_410_gets_nothing_more(user: Client) -> None:
    with Receiver(lambda message: (410, {}) if message.method == "POST" else (200, {})) as receiver:
        webhook = create(user, receiver.url).json()
        for _ in range(2):
            user.convert(BytesIO(wave_bytes(1)), "a.wav")
            wait_for(lambda: {each["state"] for each in deliveries(user)} <= {"failed"}, "the record")
        [found] = user.call("GET", "/webhooks").json()["webhooks"]
        assert (found["id"], found["state"]) == (webhook["id"], "gone")
        assert len(receiver.posts) == 1


@pytest.mark.parametrize(
    "url",
    [
        *("http://169.254.169.254/latest/meta-data", "https://127.0.0.2/", "https://[::1]/"),
        *("https://[::ffff:127.0.0.1]/", "https://2130706433/", "http://example.org/", "https://example.org:22/", "x"),
    ],
)
def test_addresses_that_are_not_public_are_refused(user: Client, url: str) -> None:
    assert "url" in create(user, url).problem(422)["errors"]
    assert deliveries(user) == []
    if "example.org" in url:
        return  # could be on one of this platform's WEBHOOK_NETWORKS, so hook decides
    answer = user.call("POST", f"/upload?filename=a.wav&callback={url}", wave_bytes(1), {"Content-Type": "audio/wav"})
    assert "callback" in answer.problem(422)["errors"]


def test_receiver_that_allows_others_alone_is_refused(user: Client) -> None:
    with Receiver(lambda _: (200, {"WebHook-Allowed-Origin": "other.example"})) as receiver:
        create(user, receiver.url).problem(422)


def test_user_whose_calls_are_used_up_waits(hooked: Platform, user: Client) -> None:
    with Receiver() as receiver:
        webhook = create(user, receiver.url).json()["id"]
        delivery = user.call("POST", f"/webhooks/{webhook}/ping").json()["delivery"]
        wait_for(lambda: receiver.posts, "the ping")
        subject = subject_id("webhook-calls", user.call("GET", "/me").json()["id"])
        full = logins.update().where(logins.c.subject == subject).values(clears_at=logins.c.clears_at + 256_001)
        database = Database(f"sqlite:///{hooked.data / 'mp3burst.db'}")
        database.run(lambda connection: connection.execute(full))
        database.close()
        for answer in (
            create(user, receiver.url),
            user.call("POST", f"/webhooks/{webhook}/ping"),
            user.call("POST", f"/webhooks/deliveries/{delivery}/resend"),
        ):
            answer.problem(429)
            assert int(answer.headers["Retry-After"]) <= 62
        assert [message.method for message in receiver.messages] == ["OPTIONS", "POST"]
        assert create(Client(hooked.url).sign_up(), receiver.url).status == 201


def test_receivers_that_do_not_answer_take_a_quarter_of_the_threads(user: Client) -> None:
    answered = threading.Event()

    def wait(_: Message) -> Answer:
        answered.wait(30)
        return 200, {}

    with Receiver(wait) as receiver, ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(create, user, receiver.url) for _ in range(2)]
        wait_for(lambda: len(receiver.messages) == 2, "both handshakes")
        create(user, receiver.url).problem(429)
        answered.set()
        assert [each.result().status for each in waiting] == [201, 201]


def test_another_users_webhook_and_delivery_are_not_found(hooked: Platform, user: Client) -> None:
    other = Client(hooked.url).sign_up()
    with Receiver() as receiver:
        webhook = create(user, receiver.url).json()["id"]
        delivery = user.call("POST", f"/webhooks/{webhook}/ping").json()["delivery"]
        for method, path in (
            ("DELETE", f"/webhooks/{webhook}"),
            ("POST", f"/webhooks/{webhook}/ping"),
            ("POST", f"/webhooks/deliveries/{delivery}/resend"),
        ):
            other.call(method, path).problem(404)
        wait_for(lambda: receiver.posts, "the ping")

"""Kills convert and hook at each of their kill points: each webhook is told once, or twice under one id."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert

from events.schema import DeliveryDue, Mp3Ready, VideoUploaded
from functions.convert import handlers
from functions.hook.delivery import deliver
from functions.state.schema import webhooks
from tests.support.kill_points import OWNER, System, new_system
from tests.support.servers.receiver import Receiver
from tests.unit.state.test_killed import kill_everywhere, only_job, only_job_id, prepare, upload

pytestmark = pytest.mark.usefixtures("memoized")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture
def subscribed(place: Path, receiver: Receiver) -> Path:
    """A system with an uploaded video, whose owner has a webhook."""

    def subscribe(system: System) -> None:
        row = {"id": "e" * 32, "owner": OWNER, "url": receiver.url, "state": "active", "created_at": 0}
        system.database.run(lambda connection: connection.execute(insert(webhooks).values(**row)))
        upload(system)

    name = f"subscribed{receiver.port}"
    return prepare(new_system(place / f"empty{receiver.port}"), place / name, subscribe)


def test_killed_converter_leaves_one_delivery(subscribed: Path, tmp_path: Path, receiver: Receiver) -> None:
    job = only_job_id(subscribed)
    for _, system in kill_everywhere(
        subscribed, tmp_path, lambda system: handlers.convert(job, system.for_convert()), "the writer's end"
    ):
        receiver.messages.clear()
        system.let_a_day_pass()  # a lease of the killed process would be waited for
        for event in (VideoUploaded(job), *system.published()):
            system.deliver(event)
        system.let_days_pass()
        assert only_job(system).state == "done"
        [row] = system.rows("deliveries")
        assert (row.state, row.job, row.kind) == ("delivered", job, Mp3Ready.type)
        assert [message.headers["webhook-id"] for message in receiver.messages] == [row.id]
        system.assert_tidy()


def test_killed_hook_tells_the_receiver_under_one_id(subscribed: Path, place: Path, receiver: Receiver) -> None:
    name = f"converted{receiver.port}"
    job = only_job_id(subscribed)
    converted = prepare(subscribed, place / name, lambda system: handlers.convert(job, system.for_convert()))
    system = System(converted)
    [row] = system.rows("deliveries")
    system.close()
    counts = set()
    for _, killed in kill_everywhere(
        converted, place / f"killed{receiver.port}", lambda system: deliver(row.id, system.for_hook())
    ):
        killed.let_a_day_pass()
        killed.deliver(DeliveryDue(row.id))
        killed.let_days_pass()
        assert [each.state for each in killed.rows("deliveries")] == ["delivered"]
        assert {message.headers["webhook-id"] for message in receiver.messages} == {row.id}
        counts.add(len(receiver.messages))
        receiver.messages.clear()
    assert counts == {1, 2}

"""The bridge as a process on a real RabbitMQ: killed, stopped, slow functions, messages of strangers."""

import threading
import time
from collections.abc import Iterator

import pytest

from events.amqp import FOREIGN, REASON
from events.schema import VideoUploaded
from tests.servers.bridge import Bridge
from tests.servers.function import Function
from tests.servers.load import Load, job, stranger, wait_until
from tests.servers.rabbitmq import RabbitMQ


@pytest.fixture(scope="module")
def server() -> Iterator[RabbitMQ]:
    with RabbitMQ() as running:
        yield running


@pytest.fixture
def function() -> Iterator[Function]:
    with Function() as running:
        yield running


def test_a_function_may_work_longer_than_two_heartbeats(server: RabbitMQ, function: Function) -> None:
    slow, quick = VideoUploaded(job()), VideoUploaded(job())
    function.answer = lambda request, _: (lambda: time.sleep(4)) if request.id == slow.id else 200
    through = f"{server.url}?heartbeat=1"
    with Bridge(server.url, {"video": function.url}, through=through, options=";concurrency=1") as bridge:
        bridge.publish(slow, 10)
        bridge.publish(quick, 10)
        function.wait(lambda: quick.id in function.ids)
        assert function.ids == [slow.id, quick.id]
        assert "No connection" not in bridge.log()


def test_a_killed_bridge_loses_nothing(server: RabbitMQ, function: Function) -> None:
    release, event = threading.Event(), VideoUploaded(job())
    function.answer = lambda _, delivery: (lambda: void(release.wait(30))) if delivery == 1 else 200
    with Bridge(server.url, {"video": function.url}) as bridge:
        bridge.publish(event, 10)
        function.wait(lambda: len(function.got) == 1)
        bridge.kill()
        bridge.start()
        function.wait(lambda: len(function.got) == 2)
        release.set()
        wait_until(lambda: not bridge.left())
        assert function.ids == [event.id] * 2


def test_a_bridge_killed_while_an_event_waits_loses_nothing(server: RabbitMQ, function: Function) -> None:
    function.answer = lambda _, delivery: 500 if delivery == 1 else 200
    event = VideoUploaded(job())
    with Bridge(server.url, {"video": function.url}) as bridge:
        bridge.publish(event, 10)
        wait_until(lambda: "try 1" in bridge.log())
        bridge.kill()
        bridge.start()
        function.wait(lambda: len(function.got) >= 2)


def test_a_stopped_bridge_lets_the_function_finish(server: RabbitMQ, function: Function) -> None:
    release, first, second = threading.Event(), VideoUploaded(job()), VideoUploaded(job())
    function.answer = lambda request, _: (lambda: void(release.wait(30))) if request.id == first.id else 200
    with Bridge(server.url, {"video": function.url}, options=";concurrency=1") as bridge:
        bridge.publish(first, 10)
        bridge.publish(second, 10)
        function.wait(lambda: len(function.got) == 1)
        bridge.terminate()
        wait_until(lambda: "Stopping" in bridge.log())
        release.set()
        assert bridge.wait() == 0
        assert function.ids == [first.id]
        assert bridge.left() == {bridge.queue("video"): 1}
        bridge.start()
        function.wait(lambda: len(function.got) == 2)
        assert function.ids == [first.id, second.id]


def test_a_bridge_whose_queue_is_deleted_makes_it_anew(server: RabbitMQ, function: Function) -> None:
    with Bridge(server.url, {"video": function.url}) as bridge:
        bridge.clear()
        with Load(bridge.publish) as load:
            load.wait(10)
        function.wait(lambda: set(load.confirmed[-5:]) <= set(function.ids))


def test_a_foreign_message_is_a_dead_letter_at_once(server: RabbitMQ, function: Function) -> None:
    with Bridge(server.url, {"video": function.url}) as bridge, stranger(server) as channel:
        channel.basic_publish("", bridge.queue("video"), b'{"video_fid": "1"}')
        letters = bridge.queue("video") + ".dead"
        wait_until(lambda: bridge.left() == {letters: 1})
        _, read, body = channel.basic_get(letters, auto_ack=True)
        assert body == b'{"video_fid": "1"}'
        assert "no CloudEvent" in read.headers[REASON]
    assert function.got == []


def test_bury_gets_no_foreign_messages(server: RabbitMQ, function: Function) -> None:
    with Bridge(server.url, {"video": function.url, "dead": function.url}) as bridge, stranger(server) as channel:
        channel.basic_publish("", bridge.queue("video"), b"hello")
        wait_until(lambda: channel.queue_declare(FOREIGN, passive=True).method.message_count == 1)
        channel.queue_purge(FOREIGN)
    assert function.got == []


def void(_: object) -> None:
    """Forget a result."""

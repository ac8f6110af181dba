"""The bridge as a process on a real RabbitMQ: killed, stopped, with slow functions and foreign messages."""

import struct
import threading
import time
from typing import Any

import pika  # type: ignore[import-untyped]  # pika carries no types
import pytest

from events.rabbitmq.message import ATTEMPTS, REASON
from events.rabbitmq.topology import FOREIGN_QUEUE
from events.schema import JobId, VideoUploaded
from tests.support.processes import wait_for
from tests.support.servers.bridge import Bridge
from tests.support.servers.function import Function
from tests.support.servers.load import Load, job, raw_channel
from tests.support.servers.rabbitmq import RabbitMQ


def test_function_may_run_longer_than_two_heartbeats(rabbitmq: RabbitMQ, function: Function) -> None:
    slow = VideoUploaded(job())
    quick = VideoUploaded(job())
    function.answer = lambda request, _: (lambda: time.sleep(4)) if request.id == slow.id else 200
    through = f"{rabbitmq.url}?heartbeat=1"
    with Bridge(rabbitmq.url, {"video": function.url}, through=through, options=";concurrency=1") as bridge:
        bridge.publish(slow, 10)
        bridge.publish(quick, 10)
        function.wait(lambda: quick.id in function.ids)
        assert function.ids == [slow.id, quick.id]
        assert "No connection" not in bridge.log()


def test_killed_bridge_loses_nothing(rabbitmq: RabbitMQ, function: Function) -> None:
    release = threading.Event()
    event = VideoUploaded(job())
    function.answer = lambda _, delivery: (lambda: void(release.wait(30))) if delivery == 1 else 200
    with Bridge(rabbitmq.url, {"video": function.url}) as bridge:
        bridge.publish(event, 10)
        function.wait(lambda: len(function.requests) == 1)
        bridge.kill()
        bridge.start()
        function.wait(lambda: len(function.requests) == 2)
        release.set()
        wait_for(lambda: not bridge.waiting())
        assert function.ids == [event.id] * 2


def test_bridge_killed_while_a_retry_waits_loses_nothing(rabbitmq: RabbitMQ, function: Function) -> None:
    function.answer = lambda _, delivery: 500 if delivery == 1 else 200
    event = VideoUploaded(job())
    with Bridge(rabbitmq.url, {"video": function.url}) as bridge:
        bridge.publish(event, 10)
        wait_for(lambda: "try 1" in bridge.log())
        bridge.kill()
        bridge.start()
        function.wait(lambda: len(function.requests) >= 2)


def test_stopped_bridge_lets_running_requests_finish(rabbitmq: RabbitMQ, function: Function) -> None:
    release = threading.Event()
    first = VideoUploaded(job())
    second = VideoUploaded(job())
    function.answer = lambda request, _: (lambda: void(release.wait(30))) if request.id == first.id else 200
    with Bridge(rabbitmq.url, {"video": function.url}, options=";concurrency=1") as bridge:
        bridge.publish(first, 10)
        bridge.publish(second, 10)
        function.wait(lambda: len(function.requests) == 1)
        bridge.terminate()
        wait_for(lambda: "Stopping" in bridge.log())
        release.set()
        assert bridge.wait() == 0
        assert function.ids == [first.id]
        assert bridge.waiting() == {bridge.queue("video"): 1}
        bridge.start()
        function.wait(lambda: len(function.requests) == 2)
        assert function.ids == [first.id, second.id]


def test_bridge_declares_a_deleted_queue_again(rabbitmq: RabbitMQ, function: Function) -> None:
    with Bridge(rabbitmq.url, {"video": function.url}) as bridge:
        bridge.delete_queues()
        # Publishing earlier may fail: RabbitMQ 3.10 moves the consumer of a deleted quorum queue to one declared with
        # the same name at the same moment, and sometimes loses it on the way.
        wait_for(lambda: bridge.log().count("Consuming:") == 2)
        with Load(bridge.publish) as load:
            load.wait(10)
        function.wait(lambda: set(load.confirmed[-5:]) <= set(function.ids))


def test_foreign_message_is_dead_lettered_at_once(rabbitmq: RabbitMQ, function: Function) -> None:
    with Bridge(rabbitmq.url, {"video": function.url}) as bridge, raw_channel(rabbitmq) as channel:
        channel.basic_publish("", bridge.queue("video"), b'{"video_fid": "1"}')
        letters = bridge.queue("video") + ".dead"
        wait_for(lambda: bridge.waiting() == {letters: 1})
        _, read, body = channel.basic_get(letters, auto_ack=True)
        assert body == b'{"video_fid": "1"}'
        assert "not a CloudEvent" in read.headers[REASON]
    assert function.requests == []


OURS = VideoUploaded(JobId("0" * 32)).headers("/mp3burst/test")


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param({"speed": 1.5}, b"hello", id="a number that pika reads but cannot write"),
        pytest.param({"nested": [{"speed": 1.5}]}, b"hello", id="a nested one"),
        pytest.param({"n\xff\xfe": "no UTF-8"}, b"hello", id="a name that is not text"),
        pytest.param({**OURS, "ce-type": "x" * 100_000}, b"hello", id="a header as long as a frame"),
        pytest.param({ATTEMPTS: 2**63 - 1}, b"hello", id="too many attempts"),
        pytest.param(OURS, b"[" * 100_000, id="deeply nested JSON"),
        pytest.param(OURS, b'{"job": "\\ud800"}', id="half a surrogate pair"),
        pytest.param(OURS, b'{"job": "\\u0000"}', id="NUL"),
        pytest.param({**OURS, "ce-type": "dev.mp3burst.piece.cut"}, b'{"job": "%s", "n": %d}' % (b"0" * 32, 2**31)),
    ],
)
def test_no_message_stops_the_bridge(
    rabbitmq: RabbitMQ, function: Function, headers: dict[str, Any], body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that crashed the bridge would be redelivered to the next one and crash it too."""
    written = pika.data.encode_value

    def write(pieces: list[bytes], value: object) -> int:
        if isinstance(value, float):
            pieces.append(struct.pack(">cd", b"d", value))
            return 9
        return int(written(pieces, value))

    monkeypatch.setattr(pika.data, "encode_value", write)
    monkeypatch.setattr(pika.data, "as_bytes", lambda text: text if isinstance(text, bytes) else text.encode("latin-1"))
    with Bridge(rabbitmq.url, {"video": function.url}) as bridge:
        with raw_channel(rabbitmq) as channel:
            channel.basic_publish("", bridge.queue("video"), body, pika.BasicProperties(headers=headers))
        monkeypatch.undo()
        valid = VideoUploaded(job())
        bridge.publish(valid, 10)
        function.wait(lambda: bool(function.requests))  # an empty queue may still have an event in flight
        assert function.ids == [valid.id]
        wait_for(lambda: bridge.waiting() == {bridge.queue("video") + ".dead": 1})
        assert bridge.redrive("video") == 1
        wait_for(lambda: bridge.waiting() == {bridge.queue("video") + ".dead": 1})


def test_bury_receives_no_foreign_messages(rabbitmq: RabbitMQ, function: Function) -> None:
    with (
        Bridge(rabbitmq.url, {"video": function.url, "dead": function.url}) as bridge,
        raw_channel(rabbitmq) as channel,
    ):
        channel.basic_publish("", bridge.queue("video"), b"hello")
        wait_for(lambda: channel.queue_declare(FOREIGN_QUEUE, passive=True).method.message_count == 1)
        channel.queue_purge(FOREIGN_QUEUE)
    assert function.requests == []


def void(_: object) -> None:
    """Discards a result."""

"""Faults of a real server: it stops, hangs, restarts, drops connections or is killed, and nothing may be lost."""

import os
import signal
import threading
import time
from collections import Counter

import pytest

from events.errors import NotPublished
from events.publish import Publish, publisher
from events.rabbitmq.publisher import Publisher
from events.schema import VideoUploaded
from tests.support.processes import wait_for
from tests.support.servers.bridge import Bridge
from tests.support.servers.function import Answer, Function, Request
from tests.support.servers.load import Load, job, raw_channel
from tests.support.servers.proxy import Proxy
from tests.support.servers.rabbitmq import RabbitMQ

#: Seconds that a publish may exceed its timeout by, on a busy machine. A lost timeout would cost 10 s or more.
SLACK = 5.0


def failed_publish_seconds(publish: Publish, timeout: float) -> float:
    """Publishes an event that must fail, and returns the seconds it took."""
    began = time.monotonic()
    with pytest.raises(NotPublished):
        publish(VideoUploaded(job()), timeout)
    return time.monotonic() - began


def test_stopped_server_costs_only_the_timeout(rabbitmq: RabbitMQ, function: Function) -> None:
    with Bridge(rabbitmq.url, {"video": function.url}) as bridge:
        bridge.publish(VideoUploaded(job()), 10)
        rabbitmq.stop()
        try:
            assert failed_publish_seconds(bridge.publish, 1) < 1 + SLACK
        finally:
            rabbitmq.start()
        event = VideoUploaded(job())
        bridge.publish(event, 30)
        function.wait(lambda: event.id in function.ids)


def test_hanging_server_costs_only_the_timeout(rabbitmq: RabbitMQ, function: Function) -> None:
    with Bridge(rabbitmq.url, {"video": function.url}) as bridge:
        bridge.publish(VideoUploaded(job()), 10)
        fresh = publisher(bridge.environ, "/mp3burst/test")
        assert isinstance(fresh, Publisher)
        rabbitmq.suspend()
        try:
            for timeout in (0.2, 1):
                assert timeout <= failed_publish_seconds(bridge.publish, timeout) < timeout + SLACK
                assert timeout <= failed_publish_seconds(fresh, timeout) < timeout + SLACK
        finally:
            rabbitmq.resume()
        event = VideoUploaded(job())
        fresh(event, 30)
        bridge.publish(event, 30)
        function.wait(lambda: function.ids.count(event.id) >= 2)
        fresh.close()


def test_alarm_costs_only_the_timeout(rabbitmq: RabbitMQ, function: Function) -> None:
    with Bridge(rabbitmq.url, {"video": function.url}) as bridge:
        bridge.publish(VideoUploaded(job()), 10)
        rabbitmq.control("set_vm_memory_high_watermark", "0.000001")
        try:
            assert failed_publish_seconds(bridge.publish, 1) < 1 + SLACK
        finally:
            rabbitmq.control("set_vm_memory_high_watermark", "0.4")
        event = VideoUploaded(job())
        bridge.publish(event, 30)
        function.wait(lambda: event.id in function.ids)


def test_alarm_delays_only_failed_events(rabbitmq: RabbitMQ, function: Function) -> None:
    """During an alarm RabbitMQ reads nothing more from a connection that publishes, not even acknowledgements."""
    alarm = threading.Event()
    bad = VideoUploaded(job())
    first = [VideoUploaded(job()) for _ in range(2)]
    others = [VideoUploaded(job()) for _ in range(5)]

    def wait_for_alarm() -> None:
        alarm.wait(60)

    def answer(request: Request, delivery: int) -> Answer:
        if request.id in {event.id for event in first}:
            return wait_for_alarm
        return 500 if request.id == bad.id and delivery == 1 else 200

    function.answer = answer
    with Bridge(rabbitmq.url, {"video": function.url}, options=";concurrency=2") as bridge:
        for event in (*first, bad, *others):
            bridge.publish(event, 10)
        function.wait(lambda: len(function.requests) == 2)
        rabbitmq.control("set_vm_memory_high_watermark", "0.000001")
        try:
            alarm.set()
            function.wait(lambda: {event.id for event in others} <= set(function.ids))
            assert function.ids.count(bad.id) == 1
        finally:
            alarm.set()
            rabbitmq.control("set_vm_memory_high_watermark", "0.4")
        function.wait(lambda: function.ids[-1] == bad.id)
        wait_for(lambda: not bridge.waiting())
        assert len(function.requests) == 9


def test_missing_queue_is_not_published_and_declared_again(rabbitmq: RabbitMQ) -> None:
    with Bridge(rabbitmq.url, {"mp3": "http://127.0.0.1:9/"}) as bridge:
        bridge.publish(VideoUploaded(job()), 10)
        bridge.delete_queues()
        assert failed_publish_seconds(bridge.publish, 30) < SLACK
        bridge.publish(VideoUploaded(job()), 10)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_restart_under_load_loses_nothing(rabbitmq: RabbitMQ, function: Function, how: str) -> None:
    with Bridge(rabbitmq.url, {"video": function.url}) as bridge:
        with Load(bridge.publish) as load:
            load.wait(100)
            getattr(rabbitmq, how)()
            rabbitmq.start()
            load.wait(100)
        function.wait(lambda: set(load.confirmed) <= set(function.ids), 60)
        wait_for(lambda: not bridge.waiting())


def test_lost_connection_under_load_loses_nothing(rabbitmq: RabbitMQ, function: Function) -> None:
    with Proxy(rabbitmq.port) as proxy:
        through = f"amqp://guest:guest@127.0.0.1:{proxy.port}/%2F"
        with Bridge(rabbitmq.url, {"video": function.url}, through=through) as bridge:
            with Load(bridge.publish) as load:
                for _ in range(5):
                    load.wait(50)
                    assert proxy.disconnect() > 0
                load.wait(50)
            function.wait(lambda: set(load.confirmed) <= set(function.ids), 60)
            wait_for(lambda: not bridge.waiting())


def test_silent_connection_is_dropped(rabbitmq: RabbitMQ, function: Function) -> None:
    with Proxy(rabbitmq.port) as proxy:
        through = f"amqp://guest:guest@127.0.0.1:{proxy.port}/%2F?heartbeat=1"
        with Bridge(rabbitmq.url, {"video": function.url}, through=through) as bridge:
            bridge.publish(VideoUploaded(job()), 10)
            proxy.stall()
            assert failed_publish_seconds(bridge.publish, 0.5) < 0.5 + SLACK
            wait_for(lambda: "No connection" in bridge.log())
            proxy.disconnect()
            proxy.resume()
            event = VideoUploaded(job())
            bridge.publish(event, 30)
            function.wait(lambda: event.id in function.ids)


def test_existing_queues_with_other_arguments_are_used(rabbitmq: RabbitMQ, function: Function) -> None:
    bridge = Bridge(rabbitmq.url, {"video": function.url})
    with raw_channel(rabbitmq) as channel:
        channel.queue_declare(bridge.queue("video"), durable=True)  # a classic queue, as in the tutorials
        channel.queue_declare(bridge.queue("piece") + ".dead", durable=False)
    with bridge:
        event = VideoUploaded(job())
        bridge.publish(event, 10)
        function.wait(lambda: function.ids == [event.id])


def test_forked_child_opens_its_own_connection(rabbitmq: RabbitMQ, function: Function) -> None:
    with Bridge(rabbitmq.url, {"video": function.url}) as bridge:
        first = VideoUploaded(job())
        from_child = VideoUploaded(job())
        last = VideoUploaded(job())
        bridge.publish(first, 10)
        assert isinstance(bridge.publisher, Publisher)
        lock = bridge.publisher._lock
        lock.acquire()  # held as if by a thread that does not exist in the child
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(30)
            try:
                bridge.publish(from_child, 10)
                os._exit(0)
            finally:
                os._exit(1)
        lock.release()
        assert os.waitpid(child, 0)[1] == 0
        bridge.publish(last, 10)
        function.wait(lambda: len(function.requests) >= 3)
        assert Counter(function.ids) == Counter([first.id, from_child.id, last.id])

"""Publishing and delivery: the same tests for the in-memory broker and for RabbitMQ with the bridge."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Protocol

import pytest

from events.errors import NotPublished
from events.rabbitmq.topology import Topology
from events.schema import Event, Mp3Ready, PieceCut, VideoUploaded
from tests.support.fake_broker import FakeBroker
from tests.support.processes import wait_for
from tests.support.servers.bridge import Bridge
from tests.support.servers.function import Function
from tests.support.servers.load import job
from tests.support.servers.rabbitmq import RabbitMQ


class Broker(Protocol):
    """What the tests need of a broker."""

    def publish(self, event: Event, timeout: float) -> None: ...

    def redrive(self, queue: str) -> int: ...


#: Makes a broker that delivers the queues with these default names to these URLs, with at most three tries.
Make = Callable[[Mapping[str, str]], Broker]


@contextmanager
def fake() -> Iterator[Make]:
    with ExitStack() as stack:
        yield lambda urls: stack.enter_context(FakeBroker(Topology.from_environ({}), urls))


@contextmanager
def real(server: RabbitMQ) -> Iterator[Make]:
    with ExitStack() as stack:
        yield lambda urls: stack.enter_context(Bridge(server.url, urls))


@pytest.fixture(params=["fake", "rabbitmq"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    if request.param == "fake":
        with fake() as maker:
            yield maker
    else:
        with real(request.getfixturevalue("rabbitmq")) as maker:
            yield maker


def test_event_arrives_unchanged(make: Make, function: Function) -> None:
    broker = make({"piece": function.url})
    event = PieceCut(job(), 3)
    broker.publish(event, 10)
    function.wait(lambda: len(function.requests) == 1)
    assert function.requests[0].data == {"job": event.job, "n": 3}
    assert function.requests[0].headers["ce-type"] == "dev.mp3burst.piece.cut"
    assert function.requests[0].headers["ce-id"] == event.id
    assert function.requests[0].headers["ce-subject"] == event.job
    assert function.requests[0].headers["content-type"] == "application/json"


def test_each_queue_has_its_function(make: Make, function: Function) -> None:
    with Function() as notify:
        broker = make({"video": function.url, "mp3": notify.url})
        name = job()
        broker.publish(Mp3Ready(name), 10)
        broker.publish(VideoUploaded(name), 10)
        function.wait(lambda: function.ids == [VideoUploaded(name).id])
        notify.wait(lambda: notify.ids == [Mp3Ready(name).id])


@pytest.mark.parametrize("fault", [500, 503, 404, None])
def test_failed_delivery_is_retried(make: Make, function: Function, fault: int | None) -> None:
    function.answer = lambda _, delivery: fault if delivery < 3 else 200
    event = VideoUploaded(job())
    make({"video": function.url}).publish(event, 10)
    function.wait(lambda: len(function.requests) >= 3)
    assert function.ids == [event.id] * 3


def test_failing_event_does_not_delay_others(make: Make, function: Function) -> None:
    broker = make({"video": function.url})
    bad = job()
    function.answer = lambda request, _: 500 if request.data["job"] == bad else 200
    others = [VideoUploaded(job()) for _ in range(30)]
    for event in [VideoUploaded(bad), *others]:
        broker.publish(event, 10)
    function.wait(lambda: {event.id for event in others} <= set(function.ids))


def test_dead_letter_reaches_bury_with_its_reason(make: Make, function: Function) -> None:
    function.answer = lambda _, __: 503
    with Function(lambda _, delivery: 503 if delivery < 2 else 200) as bury:  # bury may fail too
        event = VideoUploaded(job())
        make({"video": function.url, "dead": bury.url}).publish(event, 10)
        bury.wait(lambda: len(bury.requests) >= 2)
        assert function.ids == [event.id] * 3
        assert bury.ids == [event.id] * 2
        assert bury.requests[1].data == {"job": event.job}
        assert bury.requests[1].headers["ce-knativeerrordest"] == function.url
        assert bury.requests[1].headers["ce-knativeerrorcode"] == "503"


def test_redriven_dead_letters_are_delivered_again(make: Make, function: Function) -> None:
    broker = make({"video": function.url})
    event = VideoUploaded(job())
    function.answer = lambda _, delivery: 500 if delivery < 6 else 200
    broker.publish(event, 10)
    redriven = 0

    def redrive_once() -> bool:
        nonlocal redriven
        redriven += broker.redrive("video")
        return redriven == 1

    wait_for(redrive_once)
    function.wait(lambda: len(function.requests) >= 6)  # three more tries, as if it had never failed
    assert broker.redrive("video") == 0


def test_many_threads_can_publish_at_once(make: Make, function: Function) -> None:
    broker = make({"video": function.url})
    events = [VideoUploaded(job()) for _ in range(300)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda event: broker.publish(event, 20), events))
    function.wait(lambda: len(function.requests) >= 300)
    assert Counter(function.ids) == Counter(event.id for event in events)


def test_unavailable_broker_is_not_published() -> None:
    with FakeBroker(Topology.from_environ({}), {}) as broker:
        broker.up = False
        with pytest.raises(NotPublished, match="sent again later"):
            broker.publish(VideoUploaded(job()), 1)

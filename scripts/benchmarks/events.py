"""events: from publish through RabbitMQ and the bridge to a function that does nothing, against bare pika."""

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from events.schema import JobId, VideoUploaded
from scripts.benchmarks import timing
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.report import Row, at_least, at_most
from scripts.benchmarks.timing import CannotMeasure

_PUBLISHERS = 16
_numbers = itertools.count()


def events(bench: Bench) -> Iterator[Row]:
    """The rate with 16 threads that publish at once, and the latency at 100 events a second."""
    from tests.support.servers.bridge import Bridge
    from tests.support.servers.function import Function

    url = bench.rabbitmq()
    if url is None:
        raise CannotMeasure("RabbitMQ is not installed.")
    count = 200 if bench.quick else 2000
    rates: list[float] = []
    bare: list[float] = []
    latencies: list[float] = []
    with Function() as function, Bridge(url, {"video": function.url}) as bridge:
        _rate(bridge, function, 100)
        for _ in range(bench.rounds):
            bare.append(_bare(url, count))
            rates.append(_rate(bridge, function, count))
        for _ in range(bench.rounds):
            latencies += _latencies(bridge, function, 100 if bench.quick else 500)
    rate = timing.quantile(rates, 0.5)
    reference = timing.quantile(bare, 0.5)
    yield Row(
        "events",
        f"{count} events, {_PUBLISHERS} publishers",
        rate,
        "/s",
        f"bare pika, one connection, confirmed one by one: {reference:.0f} /s",
        **at_least(rate, 400),
        details={"ratio": rate / reference, "rounds": rates},
    )
    p50, p99 = (timing.quantile(latencies, fraction) * 1000 for fraction in (0.5, 0.99))
    yield Row("events", "latency at 100/s, p99", p99, "ms", "none", **at_most(p99, 50), details={"p50, ms": p50})


def _job() -> JobId:
    return JobId(f"{time.time_ns():x}{next(_numbers):x}".rjust(32, "0"))


def _rate(bridge: Any, function: Any, count: int) -> float:
    function.requests.clear()
    events = [VideoUploaded(_job()) for _ in range(count)]
    begin = time.perf_counter()
    with ThreadPoolExecutor(_PUBLISHERS) as pool:
        list(pool.map(lambda event: bridge.publish(event, 30), events))
    function.wait(lambda: len(function.requests) >= count, 120)
    seconds = time.perf_counter() - begin
    if {event.id for event in events} != set(function.ids):
        raise CannotMeasure("Events were lost.")
    return count / seconds


def _latencies(bridge: Any, function: Any, count: int) -> list[float]:
    """Returns the seconds from the call of publish until the function has the event, at 100 events a second."""
    function.requests.clear()
    arrived: dict[str, float] = {}
    lock = threading.Lock()

    def answer(request: Any, _: int) -> int:
        with lock:
            arrived.setdefault(request.id, time.perf_counter())
        return 200

    function.answer = answer
    sent: dict[str, float] = {}
    begin = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        for number in range(count):
            time.sleep(max(begin + number / 100 - time.perf_counter(), 0))
            event = VideoUploaded(_job())
            sent[event.id] = time.perf_counter()
            pool.submit(bridge.publish, event, 30)
    function.wait(lambda: len(arrived) >= count, 60)
    function.answer = lambda _request, _number: 200
    return [arrived[id_] - at for id_, at in sent.items()]


def _bare(url: str, count: int) -> float:
    """Publishes, confirms and consumes with pika alone, without a function; returns the rate."""
    import pika  # type: ignore[import-untyped]  # pika carries no types

    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        channel = connection.channel()
        queue = channel.queue_declare("bench-bare", durable=True).method.queue
        channel.confirm_delivery()
        channel.basic_qos(prefetch_count=100)
        properties = pika.BasicProperties(delivery_mode=2)
        body = b'{"job": "%032d"}' % 0
        begin = time.perf_counter()
        for _ in range(count):
            channel.basic_publish("", queue, body, properties, mandatory=True)
        for number, (method, _, _) in enumerate(channel.consume(queue), 1):
            channel.basic_ack(method.delivery_tag)
            if number == count:
                break
        seconds = time.perf_counter() - begin
        channel.cancel()
        channel.queue_delete(queue)
        return count / seconds
    finally:
        connection.close()

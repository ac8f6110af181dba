"""Publishing to a CloudEvents broker over HTTP, and reusing the connection."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from events.errors import NotPublished
from events.http import BadUrl, HttpSink
from events.publish import NoBroker, publisher
from events.schema import JobId, PieceCut
from tests.support.servers import free_port
from tests.support.servers.function import Function

EVENT = PieceCut(JobId("0123456789abcdef0123456789abcdef"), 4)


@pytest.fixture
def broker() -> Iterator[Function]:
    with Function(lambda _, __: 202) as running:
        yield running


def test_event_arrives_in_binary_mode(broker: Function) -> None:
    publisher({"K_SINK": broker.url, "AMQP_URL": "amqp://nowhere"}, "/mp3burst/convert")(EVENT, 5)
    request = broker.requests[0]
    assert request.data == {"job": EVENT.job, "n": 4}
    assert {k: v for k, v in request.headers.items() if k.startswith(("ce-", "content-type"))} == {
        "ce-specversion": "1.0",
        "ce-id": EVENT.id,
        "ce-type": "dev.mp3burst.piece.cut",
        "ce-source": "/mp3burst/convert",
        "ce-subject": EVENT.job,
        "ce-dataschema": "urn:mp3burst:event:piece.cut:1",
        "ce-shard": str(EVENT.shard),
        "content-type": "application/json",
    }


def test_connection_is_reused_and_replaced_once_closed(broker: Function) -> None:
    publish = publisher({"K_SINK": broker.url}, "/mp3burst/convert")
    for _ in range(3):
        publish(EVENT, 5)
    assert broker.close_connections() == 1
    publish(EVENT, 5)
    assert len(broker.requests) == 4


@pytest.mark.parametrize("answer", [302, 400, 404, 500, 503, None])
def test_status_other_than_2xx_is_not_published(broker: Function, answer: int | None) -> None:
    broker.answer = lambda _, __: answer
    with pytest.raises(NotPublished, match="sent again later"):
        publisher({"K_SINK": broker.url}, "/mp3burst/convert")(EVENT, 5)
    assert len(broker.requests) == 1


def test_refused_connection_is_not_published() -> None:
    with pytest.raises(NotPublished):
        publisher({"K_SINK": f"http://127.0.0.1:{free_port()}"}, "/mp3burst/convert")(EVENT, 5)


def test_hanging_broker_costs_only_the_timeout(broker: Function) -> None:
    release = threading.Event()
    broker.answer = lambda _, __: lambda: [release.wait(10)].clear()
    publish = publisher({"K_SINK": broker.url}, "/mp3burst/convert")
    began = time.monotonic()
    with pytest.raises(NotPublished):
        publish(EVENT, 0.3)
    assert 0.3 <= time.monotonic() - began < 5
    release.set()
    broker.answer = lambda _, __: 200
    publish(EVENT, 5)  # on a new connection, which cannot receive the first response


def test_non_http_response_is_not_published() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_smtp() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"220 mail.example ESMTP\r\n\r\n")

        thread = threading.Thread(target=answer_smtp)
        thread.start()
        with pytest.raises(NotPublished):
            publisher({"K_SINK": f"http://127.0.0.1:{listener.getsockname()[1]}"}, "/mp3burst/convert")(EVENT, 5)
        thread.join()


def test_missing_or_invalid_broker_is_an_error() -> None:
    with pytest.raises(NoBroker, match="K_SINK"):
        publisher({}, "/mp3burst/convert")
    for url in ("broker", "amqp://h", "http://", "http://[", "http://h:99999", "http://h:a"):
        with pytest.raises(BadUrl, match="is not a URL"):
            HttpSink(url)

"""Events as AMQP messages: the mapping and the count of failures, without a server."""

from collections import Counter
from dataclasses import replace

import pytest

from events.rabbitmq.message import Message, from_message, to_message
from events.schema import SHARDS, BadEvent, Event, JobId, Mp3Ready, PieceCut, VideoUploaded

JOB = JobId("0123456789abcdef0123456789abcdef")


@pytest.mark.parametrize("event", [VideoUploaded(JOB), PieceCut(JOB, 7), Mp3Ready(JOB)])
def test_event_survives_the_round_trip(event: Event) -> None:
    parsed, headers = from_message(to_message(event, "/mp3burst/upload"))
    assert parsed == event
    assert headers == {
        "ce-specversion": "1.0",
        "ce-id": event.id,
        "ce-type": event.type,
        "ce-source": "/mp3burst/upload",
        "ce-subject": JOB,
        "ce-dataschema": event.schema_id(),
        "ce-shard": str(event.shard),
        "content-type": "application/json",
    }


def test_pieces_of_a_job_are_spread_over_all_shards_and_stay_there() -> None:
    pieces = [PieceCut(JOB, n) for n in range(256)]
    counts = Counter(piece.headers("/mp3burst/convert")["ce-shard"] for piece in pieces)
    assert set(counts) == {str(shard) for shard in range(SHARDS)}
    assert min(counts.values()) > 256 / SHARDS / 2
    assert PieceCut(JOB, 7).shard == 2, "deliveries under way would change their Trigger in an update"


def test_message_follows_the_knative_binding() -> None:
    message = to_message(PieceCut(JOB, 7), "/mp3burst/convert")
    assert message.message_id == message.headers["ce-id"] == f"{JOB}.piece.cut.7"
    assert message.content_type == "application/json"
    assert message.body == b'{"job": "%s", "n": 7}' % JOB.encode()


def test_headers_without_prefix_are_accepted() -> None:
    message = to_message(VideoUploaded(JOB), "/mp3burst/upload")
    unprefixed = replace(message, headers={k.removeprefix("ce-"): v for k, v in message.headers.items()})
    assert from_message(unprefixed)[1]["ce-id"] == VideoUploaded(JOB).id


def test_header_values_cannot_inject_headers() -> None:
    message = to_message(VideoUploaded(JOB), "/mp3burst/upload")
    evil = replace(message, headers={**message.headers, "ce-subject": "a\r\nx: y", "x-death": ["!"], "ce-b": b"\xff %"})
    headers = from_message(evil)[1]
    assert headers["ce-subject"] == "a%0D%0Ax:%20y"
    assert headers["ce-b"] == "%EF%BF%BD%20%25"
    assert not any("death" in name for name in headers)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"ce-id": ""}, "no id"),
        ({"ce-type": None}, "not an event of mp3burst"),
        ({"ce-type": "dev.mp3burst.cat.found"}, "cat.found"),
        ({"ce-specversion": "0.3"}, "0.3"),
    ],
)
def test_foreign_message_error_names_the_fault(change: dict[str, object], fault: str) -> None:
    message = to_message(VideoUploaded(JOB), "/mp3burst/upload")
    with pytest.raises(BadEvent, match=fault):
        from_message(replace(message, headers={**message.headers, **change}))


def test_message_without_headers_lacks_every_attribute() -> None:
    with pytest.raises(BadEvent, match="no specversion, no id, no type, no source"):
        from_message(Message(b"hello", {}))


def test_failures_are_counted_and_can_be_removed() -> None:
    message = to_message(VideoUploaded(JOB), "/mp3burst/upload")
    failed = message.failed("The function answered 500.", "http://convert", 500).failed(
        "The function answered 503.", "http://convert", 503
    )
    assert failed.attempts == 2
    assert failed.burial_failed().attempts == 3
    assert failed.headers["x-mp3burst-reason"] == "The function answered 503."
    assert from_message(failed)[1]["ce-knativeerrorcode"] == "503"
    assert from_message(failed)[1]["ce-knativeerrordest"] == "http://convert"
    assert failed.without_failures() == message
    redelivered = replace(failed, headers={**failed.headers, "x-death": [], "x-delivery-count": 1})
    assert redelivered.failed("", "http://convert", 503).headers == failed.failed("", "http://convert", 503).headers
    assert redelivered.without_failures() == message
    assert Message(b"", {"x-mp3burst-attempts": "many"}).attempts == 0

"""The exchanges and queues that events pass through, without a server."""

import pytest

from events.rabbitmq.topology import DEAD_LETTER_EXCHANGE, BadQueues, Exchange, Queue, Topology
from events.schema import EVENTS


def test_every_event_has_a_queue_with_dead_letters() -> None:
    topology = Topology.from_environ({"VIDEO_QUEUE": "films", "MP3_QUEUE": ""})
    assert set(topology.queue_of) == set(EVENTS)
    assert topology.queues == ("films", "piece", "pieces", "mp3", "hook", "fetch")
    declared = topology.declarations()
    for name in topology.queues:
        assert any(isinstance(q, Queue) and (q.exchange, q.key) == (DEAD_LETTER_EXCHANGE, name) for q in declared)


def test_declarations_are_in_dependency_order() -> None:
    exchanges = {""}
    for item in Topology.from_environ({}).declarations([1000, 2000]):
        if isinstance(item, Exchange):
            exchanges.add(item.name)
        else:
            assert {item.exchange, item.arguments.get("x-dead-letter-exchange", "")} <= exchanges


def test_functions_cannot_share_a_queue() -> None:
    with pytest.raises(BadQueues, match="VIDEO_QUEUE and PIECE_QUEUE"):
        Topology.from_environ({"VIDEO_QUEUE": "a", "PIECE_QUEUE": "a"})


def test_classic_arguments_omit_quorum_settings() -> None:
    delay_queue = Topology.from_environ({}).declarations([1000])[-1]
    assert isinstance(delay_queue, Queue)
    assert delay_queue.classic_arguments() == {"x-message-ttl": 1000, "x-dead-letter-exchange": ""}

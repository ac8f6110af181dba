"""What a server may do before its file arrives."""

import threading

import pytest

from functions.fetch.remote import arriving
from functions.outgoing.client import Limits, TimedOut
from functions.state.fetches import Source
from tests.support.kill_points import LOCAL_SOURCES
from tests.support.servers.source import FileServer, Served


def test_redirects_share_the_time_of_one_request() -> None:
    slow = Served(status=302, headers={"Location": "/a"}, hold_head=threading.Event(), hold_seconds=0.2)
    with (
        FileServer({"/a": slow}) as server,
        pytest.raises(TimedOut, match=r"0\.5 seconds"),  # six of them take 1.2
        arriving(Source(f"{server.url}/a"), LOCAL_SOURCES, Limits("server", 0.5)),
    ):
        pass

"""The overview of an installation: what is under way, late or failed, and how many events wait."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from functions.state.database import Database
from functions.sweep.overview import overview
from functions.sweep.queues import QueuesUnknown, depths, queue_depths
from tests.contract.test_fairness import Fair
from tests.contract.test_jobs import OWNER
from tests.support.databases import make_past

#: What RabbitMQ answers to GET /api/queues?columns=name,messages.
LISTED = [
    {"name": "mp3burst.convert.0a1b", "messages": 3},
    {"name": "b.mp3burst.mp3burst.dlq.0a1b", "messages": 1},
    {"name": "other.convert.0a1b", "messages": 9},
    {"name": "video"},
    {"name": "mp3burst.mp3-ready.0a1b"},
]


def lines(database: Database, **environ: str) -> list[str]:
    """Returns the lines, with one space between words."""
    return [" ".join(line.split()) for line in overview(database, environ)]


def test_nothing_is_under_way(database: Database) -> None:
    assert lines(database) == ["Nothing is under way."]


def test_rows_are_counted_by_state(database: Database) -> None:
    fair = Fair(database, places=2)
    fair.start()
    for _ in range(2):
        assert fair.jobs.claim(fair.add()) is None  # deferred
    fair.add()
    counted = [line.partition(" the oldest")[0] for line in lines(database)]
    assert counted == ["jobs converting 1", "jobs deferred 2", "jobs uploaded 1"]


def test_what_nobody_works_on_is_late(database: Database) -> None:
    fair = Fair(database, places=4)
    job = fair.add()
    fair.start()
    make_past(database, "jobs", "created_at", 7_200_000)
    make_past(database, "jobs", "due_at", 300_000)
    late = [line for line in lines(database) if line.startswith("late")]
    assert late == [f"late job {job}: uploaded, 0 attempts, due for 5 min"]
    assert "jobs uploaded 1 the oldest is 2 h old" in lines(database)


def test_what_is_tried_again_is_late(database: Database) -> None:
    fair = Fair(database, places=4)
    lease = fair.start()
    fair.jobs.release(lease)
    again = fair.jobs.claim(lease.row.id)
    assert again is not None
    fair.jobs.release(again)
    (late,) = (line for line in lines(database) if line.startswith("late"))
    assert late.startswith(f"late job {lease.row.id}: converting, 2 attempts, due in ")


def test_failures_and_their_mails_are_counted(database: Database) -> None:
    fair = Fair(database, places=4)
    fair.jobs.fail(fair.start(OWNER), "The file has no sound.")
    mail, failed = lines(database)
    assert mail.startswith("mails due 1 the oldest is")
    assert failed == "jobs failed within a day 1"


@contextmanager
def management(status: int, body: bytes) -> Iterator[tuple[str, list[str]]]:
    """Runs a stand-in for RabbitMQ's management API; yields its address and the credentials that it gets."""
    seen: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_queues_are_listed_with_the_users_password(database: Database) -> None:
    with management(200, json.dumps(LISTED).encode()) as (url, seen):
        account = {"RABBITMQ_USER": "ann", "RABBITMQ_PASSWORD": "a:b/c@d", "NAMESPACE": "mp3burst"}
        found = lines(database, RABBITMQ_URL=url, **account)
    assert found[1:] == ["queue convert 3", "queue mp3-ready 0", "queue mp3burst, dead letters 1"]
    assert seen == ["Basic YW5uOmE6Yi9jQGQ="]


@pytest.mark.parametrize(("status", "body"), [(401, b""), (200, b"no JSON")])
def test_a_management_api_that_refuses_is_named(status: int, body: bytes) -> None:
    with management(status, body) as (url, _), pytest.raises(QueuesUnknown, match="management API does not answer"):
        queue_depths(url, "mp3burst")


def test_queues_are_named_after_their_triggers() -> None:
    assert depths(LISTED, "mp3burst") == {"convert": 3, "mp3-ready": 0, "mp3burst, dead letters": 1}

"""One user's long jobs do not keep the functions from another user's, on the embedded broker and through RabbitMQ."""

import io
from collections.abc import Iterator

import pytest

from tests.e2e.client import Client, wave_bytes
from tests.support import clips
from tests.support.platform import Platform, start
from tests.support.servers.rabbitmq import RabbitMQ

#: More than convert and encode have places on the largest machine.
LONG_JOBS = 25


@pytest.fixture(scope="module", params=["embedded", "rabbitmq"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that splits sounds of a minute and more."""
    data = tmp_path_factory.mktemp("fairness") / "data"
    if request.param == "embedded":
        with start(data, env={"FANOUT_SECONDS": "60"}) as platform:
            yield platform
        return
    with RabbitMQ() as rabbitmq, start(data, env={"FANOUT_SECONDS": "60", "AMQP_URL": rabbitmq.url}) as platform:
        yield platform


@pytest.fixture(scope="module")
def half_a_day(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return clips.half_a_day(tmp_path_factory.mktemp("sounds") / "a.flac").read_bytes()


@pytest.mark.parametrize(
    ("options", "seconds"),
    [({"normalize": "true", "bitrate": "64k"}, 2), ({"bitrate": "64k"}, 61)],
    ids=["convert", "encode"],
)
def test_another_users_job_is_done_while_long_ones_wait(
    shared: Platform, half_a_day: bytes, options: dict[str, str], seconds: float
) -> None:
    greedy = Client(shared.url).sign_up()
    other = Client(shared.url).sign_up()
    waiting = [greedy.upload(io.BytesIO(half_a_day), "a.flac", options)["job"] for _ in range(LONG_JOBS)]
    # Behind the long jobs in every queue.
    job = other.upload(io.BytesIO(wave_bytes(seconds)), "a.wav")["job"]
    assert other.wait(job)["status"] == "done"
    statuses = [greedy.call("GET", f"/jobs/{each}").json()["status"] for each in waiting]
    assert not {"done", "failed"} & set(statuses)
    for each in waiting:
        assert greedy.call("DELETE", f"/jobs/{each}").status == 204

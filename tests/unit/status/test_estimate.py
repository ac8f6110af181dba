"""An estimate follows from the options, and from the user's latest conversions."""

from dataclasses import replace

import pytest

from events.schema import JobId
from functions.options import BadOption, Options
from functions.state.jobs import Record
from functions.status.estimate import estimate
from tests.support.finished import DONE as FINISHED

DONE = replace(FINISHED, created_at=0, finished_at=15_000, record=Record(started_at=10_000, cpu_ms=4_000))


@pytest.mark.parametrize(
    ("form", "duration", "size"),
    [
        ({}, 3600, 3600 * 24_000),
        ({"bitrate": "64k"}, 3600, 3600 * 8_000),
        ({"vbr": "0"}, 3600, 3600 * 30_625),
        ({"start": "10:00", "end": "20:00"}, 600, 600 * 24_000),
        ({"start": "10:00", "end": "2:00:00"}, 3000, 3000 * 24_000),
    ],
    ids=["default", "bitrate", "vbr", "cut", "late end"],
)
def test_size_follows_from_the_bit_rate_and_the_cut(form: dict[str, str], duration: float, size: int) -> None:
    found = estimate(3600, Options.from_form(form), [])
    assert (found.duration, found.mp3_bytes) == (duration, size)
    assert (found.cpu, found.seconds, found.jobs) == (None, None, 0)


def test_times_follow_from_conversions_weighted_by_their_length() -> None:
    longer = replace(DONE, duration=300.0, finished_at=20_000, record=Record(started_at=15_000, cpu_ms=8_000))
    found = estimate(800, Options(), [DONE, longer])
    assert found.cpu == pytest.approx(24)
    assert found.seconds == pytest.approx(20)
    assert found.jobs == 2


def test_jobs_that_say_nothing_are_left_out() -> None:
    others = [
        replace(DONE, state="failed", mp3=None),
        replace(DONE, source=JobId("e" * 32)),
        replace(DONE, duration=1.0),
        replace(DONE, record=Record()),
    ]
    assert estimate(800, Options(), others).jobs == 0


def test_nothing_left_of_the_sound_is_refused() -> None:
    with pytest.raises(BadOption):
        estimate(60, Options(start=60.0), [])

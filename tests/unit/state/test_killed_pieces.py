"""A conversion that is shared out, killed at every moment of its workers: the same bytes, one mail, nothing left."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from events.schema import Event, Mp3Ready, PieceCut, PiecesEncoded, VideoUploaded
from functions.convert import handlers
from functions.upload.main import create_job
from functions.upload.multipart import Form
from tests.e2e.client import wave_bytes
from tests.support.kill_points import ADA, House, forked, found, outcome
from tests.support.memoized_media import rehearsed
from tests.unit.state.test_killed import deaths, has_told, job_of, prepared, the_job

#: Long enough for two pieces, and at 8 kHz quickly encoded.
SOUND = wave_bytes(30)


def upload(house: House) -> None:
    create_job(Form("a.wav", {}, iter([SOUND])), ADA, None, house.for_upload())


@pytest.fixture(scope="module", autouse=True)
def _sound_once() -> Iterator[None]:
    with rehearsed():
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("houses")


@pytest.fixture(scope="module")
def uploaded(place: Path) -> Path:
    return prepared(found(place / "empty"), place / "uploaded", upload)


@pytest.fixture(scope="module")
def mp3(uploaded: Path, place: Path) -> bytes:
    """The MP3 that one encoder makes."""
    house = House(
        prepared(uploaded, place / "alone", lambda house: house.convert(the_job(house).id, house.for_convert()))
    )
    content = house.bytes_of("mp3s", the_job(house).mp3)
    house.close()
    return content


@pytest.fixture(scope="module")
def cut(uploaded: Path, place: Path) -> Path:
    def work(house: House) -> None:
        house.fanout = 0
        handlers.convert(the_job(house).id, house.for_convert())

    return prepared(uploaded, place / "cut", work)


@pytest.fixture(scope="module")
def half(cut: Path, place: Path) -> Path:
    """With one of two pieces encoded."""
    return prepared(cut, place / "half", lambda house: handlers.encode(the_job(house).id, 1, house.for_convert()))


@pytest.fixture(scope="module")
def encoded(half: Path, place: Path) -> Path:
    return prepared(half, place / "encoded", lambda house: handlers.encode(the_job(house).id, 0, house.for_convert()))


def is_done(house: House, mp3: bytes) -> None:
    job = the_job(house)
    assert (job.state, job.error) == ("done", None)
    assert house.bytes_of("mp3s", job.mp3) == mp3
    has_told(house, Mp3Ready(job.id))
    house.is_tidy()


def comes_to_its_end(house: House, mp3: bytes, *late: Event) -> None:
    """Days go by; then everything that was ever said comes again."""
    house.fanout = 0
    said = house.said()
    house.days_pass()
    is_done(house, mp3)
    for event in [*said, *late]:
        house.deliver(event)
    is_done(house, mp3)


def worker(house: House, work: Callable[[House], None]) -> None:
    house.fanout = 0
    work(house)


def test_two_pieces_are_what_one_encoder_makes(cut: Path) -> None:
    house = House(cut)
    assert house.count("pieces") == 2
    assert {type(event) for event in house.said()} == {VideoUploaded, PieceCut}
    house.close()


def test_a_converter_that_is_killed_while_it_cuts(uploaded: Path, tmp_path: Path, mp3: bytes) -> None:
    job = job_of(uploaded)
    work = functools.partial(worker, work=lambda house: handlers.convert(job, house.for_convert()))
    for _, house in deaths(uploaded, tmp_path, work, begin="read"):
        comes_to_its_end(house, mp3, VideoUploaded(job))


def test_an_encoder_that_is_killed(half: Path, tmp_path: Path, mp3: bytes) -> None:
    """The one that completes the set."""
    job = job_of(half)
    for _, house in deaths(half, tmp_path, lambda house: handlers.encode(job, 0, house.for_convert())):
        comes_to_its_end(house, mp3, PieceCut(job, 0), PieceCut(job, 1))


def test_a_joiner_that_is_killed(encoded: Path, tmp_path: Path, mp3: bytes) -> None:
    job = job_of(encoded)
    for _, house in deaths(encoded, tmp_path, lambda house: handlers.join(job, house.for_convert())):
        comes_to_its_end(house, mp3, PiecesEncoded(job))


def test_pieces_that_come_three_times_at_once_and_out_of_order(cut: Path, tmp_path: Path, mp3: bytes) -> None:
    house = House(prepared(cut, tmp_path / "house"))
    job = the_job(house).id
    house.close()
    order = [1, 0, 1, 1, 0, 0]

    def work(n: int) -> None:
        mine = House(tmp_path / "house")
        mine.deliver(PieceCut(job, n))

    pids = [forked(functools.partial(work, n), tmp_path / "house") for n in order]
    assert [outcome(pid, 90) for pid in pids] == [0] * 6
    house = House(tmp_path / "house")
    house.days_pass()
    is_done(house, mp3)
    house.close()

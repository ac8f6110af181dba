"""Every plain function is killed at every moment of its life (``tests.support.kill_points``); then sweep and the
broker run alone for a day, and what a user notices is compared with what was promised.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from events.schema import ConversionFailed, Event, JobId, Mp3Ready, VideoUploaded
from functions.convert import handlers
from functions.convert.dependencies import Dependencies as ConvertDependencies
from functions.media import Description
from functions.notify.main import send_mail
from functions.state.blobs import Blobs
from functions.state.jobs import Job, Jobs, Outcome
from functions.state.leases import ATTEMPTS_EXHAUSTED, MAX_ATTEMPTS, Lease
from functions.state.schema import metadata
from functions.sweep.main import sweep_up
from functions.upload.main import create_job
from functions.upload.multipart import Form
from tests.e2e.client import wave_bytes
from tests.support.databases import make_past
from tests.support.kill_points import ADA, OWNER, House, forked, found, houses, killed, outcome
from tests.support.memoized_media import rehearsed

KEY = "once"
SOUND = wave_bytes(0.5)
#: It looks like a sound as far as upload looks.
NOISE = SOUND[:12] + os.urandom(2000)


def upload(house: House, content: bytes = SOUND, key: str | None = KEY) -> Job:
    """Upload as a client does, in two chunks."""
    return create_job(Form("a.wav", {}, iter([content[:1000], content[1000:]])), ADA, key, house.for_upload())


def prepared(template: Path, place: Path, *works: Callable[[House], Any]) -> Path:
    """A copy of a house in which something has been done."""
    shutil.copytree(template, place)
    house = House(place)
    for work in works:
        work(house)
    house.close()
    return place


@pytest.fixture(scope="module", autouse=True)
def _sound_once() -> Iterator[None]:
    with rehearsed():
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("houses")


@pytest.fixture(scope="module")
def empty(place: Path) -> Path:
    return found(place / "empty")


@pytest.fixture(scope="module")
def uploaded(empty: Path, place: Path) -> Path:
    return prepared(empty, place / "uploaded", upload)


@pytest.fixture(scope="module")
def converted(uploaded: Path, place: Path) -> Path:
    """With an MP3 whose mail is not sent."""
    return prepared(
        uploaded, place / "converted", lambda house: handlers.convert(the_job(house).id, house.for_convert())
    )


@pytest.fixture(scope="module")
def mp3(converted: Path) -> bytes:
    """The MP3 of ``SOUND`` when nobody dies."""
    house = House(converted)
    content = house.bytes_of("mp3s", the_job(house).mp3)
    house.close()
    assert len(content) > 3000
    return content


def the_job(house: House) -> Any:
    [job] = house.rows("jobs")
    return job


def job_of(place: Path) -> JobId:
    """The id of the one job in a house that nobody is in."""
    house = House(place)
    job = JobId(the_job(house).id)
    house.close()
    return job


def is_done(house: House, mp3: bytes, copies: int = 1) -> None:
    """One finished job, its MP3, its mail, and nothing else."""
    job = the_job(house)
    assert (job.state, job.error) == ("done", None)
    assert house.bytes_of("mp3s", job.mp3) == mp3
    assert house.bytes_of("videos", job.video) == SOUND
    has_told(house, Mp3Ready(job.id), copies)
    house.is_tidy()


def has_told(house: House, event: Event, copies: int = 1) -> None:
    """The mail of the event has been sent, by one Message-ID, and no other."""
    [mail] = house.rows("mails")
    assert (mail.id, mail.kind, mail.state) == (event.id, event.type, "sent")
    assert house.taken() == [f"<{event.id}@mp3burst>"] * copies
    assert [path.name for path in house.mail_directory.glob("*.eml")] == [f"{event.id}.eml"]


def deaths(template: Path, place: Path, work: Callable[[House], Any], begin: str = "") -> Iterator[tuple[str, House]]:
    """Each moment at which the work was killed, with the house as it was left; at last the work alive."""
    for n, directory in zip(count(1), houses(template, place), strict=False):
        died = killed(directory, n, work, begin)
        house = House(directory)
        try:
            yield died or "alive", house
        except BaseException as error:
            error.add_note(f"killed at moment {n}, {died}")
            raise
        finally:
            house.close()
        if died is None:
            assert n > 5, "it had hardly begun"
            return


def test_an_upload_that_is_killed_is_one_job_or_none(empty: Path, tmp_path: Path, mp3: bytes) -> None:
    seen: Counter[int] = Counter()
    for died, house in deaths(empty, tmp_path, upload):
        jobs = house.count("jobs")
        seen[jobs] += 1
        house.days_pass()  # What the broker was told is lost,
        for event in house.said():
            house.deliver(event)  # and comes late.
        if not jobs:
            assert died != "alive"
            assert [house.count(table) for table in ("jobs", "mails", "blobs")] == [0, 0, 0]
            house.is_tidy()
            continue
        is_done(house, mp3)
        assert upload(house).id == the_job(house).id  # The client heard nothing, and tries again.
        is_done(house, mp3)
    assert min(seen[0], seen[1]) >= 3


def test_a_converter_that_is_killed_makes_one_mp3(uploaded: Path, tmp_path: Path, mp3: bytes) -> None:
    job = job_of(uploaded)
    for _, house in deaths(uploaded, tmp_path, lambda house: handlers.convert(job, house.for_convert())):
        said = house.said()
        house.days_pass()
        is_done(house, mp3)
        for event in [*said, VideoUploaded(job)]:
            house.deliver(event)
        is_done(house, mp3)


def test_a_converter_that_is_killed_refuses_a_file_once(empty: Path, place: Path, tmp_path: Path) -> None:
    refused = prepared(empty, place / "refused", lambda house: upload(house, NOISE))
    job = job_of(refused)
    # Up to the first read it is as with a file that can be converted.
    for _, house in deaths(refused, tmp_path, lambda house: handlers.convert(job, house.for_convert()), begin="read"):
        house.days_pass()
        assert the_job(house).state == "failed"
        assert "not a video or audio file" in the_job(house).error
        house.deliver(VideoUploaded(job))
        house.deliver(ConversionFailed(job))
        has_told(house, ConversionFailed(job))
        house.is_tidy()


def test_a_converter_that_was_overtaken_deletes_its_mp3(uploaded: Path, tmp_path: Path, mp3: bytes) -> None:
    house, job = House(shutil.copytree(uploaded, tmp_path / "house")), job_of(uploaded)

    class Slow(Jobs):
        def finish(self, lease: Lease[Job], outcome: Outcome) -> Event | None:
            make_past(house.database, "jobs", "lease_until")
            handlers.convert(job, house.for_convert(house.deliver))
            assert len(house.blobs_on_disk()) == 3
            return super().finish(lease, outcome)

    workshop = replace(house.for_convert(), jobs=Slow(house.database))
    handlers.convert(job, workshop)
    is_done(house, mp3)
    house.close()


def test_a_mail_goes_out_twice_only_where_the_servers_yes_was_not_recorded(
    converted: Path, tmp_path: Path, mp3: bytes
) -> None:
    doubled, event = [], Mp3Ready(job_of(converted))
    for died, house in deaths(converted, tmp_path, lambda house: send_mail(event.id, house.for_notify())):
        taken, [mail] = len(house.taken()), house.rows("mails")
        assert all(path.read_bytes().endswith(b"--\r\n") for path in house.mail_directory.glob("*.eml"))
        copies = 2 if taken and mail.state == "due" else 1
        doubled += [died] if copies == 2 else []
        house.days_pass()
        house.deliver(event)
        is_done(house, mp3, copies)
    assert doubled == [
        "after the server's 250, before Mails._close",
        "after the statements of Mails._close, before their commit",
    ]


def test_a_sweep_that_is_killed_does_nothing_twice(empty: Path, place: Path, tmp_path: Path) -> None:
    messy = prepared(empty, place / "messy", mess)
    house = House(messy)
    names = {row.filename: row.id for row in house.rows("jobs")}
    house.close()

    for _, house in deaths(messy, tmp_path, lambda house: sweep_up(house.for_sweep(keep_days=1))):
        house.convert = quick_convert
        for event in house.said():
            house.deliver(event)
        house.days_pass(keep_days=1)
        states = {row.filename: (row.state, row.error) for row in house.rows("jobs")}
        assert states == {
            "lost.wav": ("done", None),
            "spent.wav": ("failed", ATTEMPTS_EXHAUSTED),
            "unheard.wav": ("done", None),
            "unreachable.wav": ("done", None),
        }
        told = [Mp3Ready(names["lost.wav"]), ConversionFailed(names["spent.wav"]), Mp3Ready(names["unheard.wav"])]
        assert sorted(house.taken()) == sorted(f"<{event.id}@mp3burst>" for event in told)
        assert Counter(row.state for row in house.rows("mails")) == {"sent": 3, "abandoned": 1}
        house.is_tidy()


def mess(house: House) -> None:
    """What sweep finds: an event that got lost, a job that was tried too often, an old job, an unsent mail, one that
    cannot be sent, and what a killed writer has left.
    """
    ids = {name: add(house, name) for name in ("lost", "spent", "old", "unheard", "unreachable")}
    for name in ("old", "unheard", "unreachable"):
        quick_convert(ids[name], house.for_convert())
    send_mail(Mp3Ready(ids["old"]).id, house.for_notify())
    change(house, "jobs", ids["spent"], attempts=MAX_ATTEMPTS)
    change(house, "jobs", ids["old"], finished_at=1)
    change(house, "mails", Mp3Ready(ids["unreachable"]).id, created_at=1, attempts=MAX_ATTEMPTS)
    for name in ("lost", "spent"):
        change(house, "jobs", ids[name], due_at=1)
    for name in ("unheard", "unreachable"):
        change(house, "mails", Mp3Ready(ids[name]).id, due_at=1)

    def half_written() -> None:
        about = Description(OWNER, "f" * 32, "a.mp3", "audio/mpeg")
        with Blobs(house.database).writing(house.media, "mp3s", about) as writer:
            writer.write(b"half")
            os._exit(0)

    house.close()
    assert outcome(forked(half_written, house.directory)) == 0
    for row in house.rows("blobs", "expires_at"):
        change(house, "blobs", row.id, expires_at=1)
    (house.directory / "said").unlink(missing_ok=True)
    (house.directory / "taken").unlink()


def add(house: House, name: str) -> JobId:
    return create_job(Form(f"{name}.wav", {}, iter([SOUND])), ADA, None, house.for_upload()).id


def change(house: House, table: str, row: str, **values: object) -> None:
    target = metadata.tables[table]
    statement = update(target).where(target.c.id == row).values(**values)
    house.database.run(lambda connection: connection.execute(statement))


def quick_convert(job: JobId, workshop: ConvertDependencies) -> None:
    """Convert as convert does, but for the sound."""
    jobs: Jobs = workshop.jobs
    if lease := jobs.claim(job):
        about = Description(OWNER, job, "a.mp3", "audio/mpeg")
        with workshop.blobs.writing(workshop.media, "mp3s", about) as writer:
            writer.write(b"sound")
        if event := jobs.finish(lease, Outcome(writer.blob, 1.0, None)):
            workshop.outbox.emit(event)


def at_the_same_moment(house: House, number: int, work: Callable[[House], Any]) -> list[int]:
    """Run the work in so many processes, let go together; how each ended."""
    waiting, go = os.pipe()
    house.close()

    def wait_and_work() -> None:
        os.close(go)
        os.read(waiting, 1)
        work(House(house.directory))

    pids = [forked(wait_and_work, house.directory) for _ in range(number)]
    os.close(waiting)
    os.close(go)
    return [outcome(pid) for pid in pids]


@pytest.mark.parametrize("together", [False, True])
def test_an_event_that_comes_three_times_is_one_mp3_and_one_mail(
    uploaded: Path, tmp_path: Path, mp3: bytes, together: bool
) -> None:
    house = House(shutil.copytree(uploaded, tmp_path / "house"))
    job = the_job(house).id

    def thrice(work: Callable[[House], Any]) -> None:
        if together:
            assert at_the_same_moment(house, 3, work) == [0, 0, 0]
        else:
            for _ in range(3):
                work(house)

    thrice(lambda house: handlers.convert(job, house.for_convert()))
    # The upload's own event, and one of the MP3: of three workers one has something to say.
    assert house.said() == [VideoUploaded(job), Mp3Ready(job)]
    thrice(lambda house: send_mail(Mp3Ready(job).id, house.for_notify()))
    is_done(house, mp3)
    assert the_job(house).attempts == 1
    house.close()

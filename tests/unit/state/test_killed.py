"""Kills every function at each of its kill points, then lets sweep and the broker run for days by themselves.

What the user would notice afterwards must be what was promised. See ``tests.support.kill_points``.
"""

import functools
import io
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from events.schema import ConversionFailed, Event, JobId, Mp3Ready, VideoUploaded
from functions.convert import handlers, pipeline
from functions.convert.dependencies import Dependencies as ConvertDependencies
from functions.media import Description
from functions.notify.main import send_mail
from functions.options import Options
from functions.state.blobs import Blobs
from functions.state.jobs import Job, Jobs, Outcome
from functions.state.leases import ATTEMPTS_EXHAUSTED, MAX_ATTEMPTS, Lease
from functions.state.schema import metadata
from functions.sweep.main import sweep_up
from functions.upload.main import create_job
from functions.upload.multipart import Form
from tests.e2e.client import wave_bytes
from tests.support.databases import make_past
from tests.support.kill_points import ADA, OWNER, System, copies, exit_status, fork, new_system, run_and_kill

pytestmark = pytest.mark.usefixtures("memoized")

KEY = "once"
SOUND = wave_bytes(0.5)
#: Noise whose first bytes pass for sound when upload sniffs them.
NOISE = SOUND[:12] + os.urandom(2000)


def upload(
    system: System, content: bytes = SOUND, key: str | None = KEY, options: Mapping[str, str] | None = None
) -> Job:
    """Uploads as a client does, in two chunks."""
    form = Form("a.wav", dict(options or {}), iter([content[:1000], content[1000:]]))
    return create_job(form, ADA, key, system.for_upload())


def prepare(template: Path, directory: Path, *steps: Callable[[System], Any]) -> Path:
    """Copies a system and takes some steps in the copy."""
    shutil.copytree(template, directory)
    system = System(directory)
    for step in steps:
        step(system)
    system.close()
    return directory


@pytest.fixture(scope="module")
def empty(place: Path) -> Path:
    return new_system(place / "empty")


@pytest.fixture(scope="module")
def uploaded(empty: Path, place: Path) -> Path:
    return prepare(empty, place / "uploaded", upload)


@pytest.fixture(scope="module")
def converted(uploaded: Path, place: Path) -> Path:
    """A system with an MP3 whose mail was not sent."""
    return prepare(
        uploaded, place / "converted", lambda system: handlers.convert(only_job(system).id, system.for_convert())
    )


@pytest.fixture(scope="module")
def mp3(converted: Path) -> bytes:
    """The MP3 of ``SOUND`` when nothing is killed."""
    system = System(converted)
    content = system.bytes_of("mp3s", only_job(system).mp3)
    system.close()
    assert len(content) > 3000
    return content


def only_job(system: System) -> Any:
    [job] = system.rows("jobs")
    return job


def only_job_id(directory: Path) -> JobId:
    """The id of the one job in a system that no process has open."""
    system = System(directory)
    job = JobId(only_job(system).id)
    system.close()
    return job


@functools.cache
def waveform_of(video: bytes) -> bytes:
    """Returns the waveform of a video's MP3, as one encoder makes it."""
    settings = pipeline.Settings(options=Options(), filename="a.wav", encoders=1)
    with tempfile.TemporaryDirectory() as directory:
        made = pipeline.to_mp3(
            io.BytesIO(video), io.BytesIO(), settings, directory=Path(directory), on_progress=lambda _: None
        )
    assert made.waveform is not None
    return made.waveform.to_bytes()


def assert_done(system: System, mp3: bytes, mails: int = 1) -> None:
    """Asserts that there is one finished job, its MP3, its mail, and nothing else."""
    job = only_job(system)
    assert (job.state, job.error) == ("done", None)
    assert [track["number"] for track in json.loads(job.tracks)] == [0]
    assert job.created_at <= job.started_at <= job.read_at <= job.finished_at
    assert (job.size, job.mp3_size, job.pods) == (len(SOUND), len(mp3), 1)
    assert system.bytes_of("mp3s", job.mp3) == mp3
    assert system.bytes_of("videos", job.video) == SOUND
    assert job.waveform == waveform_of(SOUND)
    assert_mailed(system, Mp3Ready(job.id), mails)
    system.assert_tidy()


def assert_mailed(system: System, event: Event, mails: int = 1) -> None:
    """Asserts that the event's mail has been sent so many times under one Message-ID, and no other mail."""
    [mail] = system.rows("mails")
    assert (mail.id, mail.kind, mail.state) == (event.id, event.type, "sent")
    assert system.accepted_mails() == [f"<{event.id}@mp3burst>"] * mails
    assert [path.name for path in system.mail_directory.glob("*.eml")] == [f"{event.id}.eml"]


def kill_everywhere(
    template: Path, directory: Path, work: Callable[[System], Any], begin: str = ""
) -> Iterator[tuple[str | None, System]]:
    """Runs the work once for each of its kill points, each time in a fresh copy of the system.

    Yields:
        Where the work was killed, and the system as it was left; at last None and the system after a complete run.
    """
    for n, copy in zip(count(1), copies(template, directory), strict=False):
        where = run_and_kill(copy, n, work, begin)
        system = System(copy)
        try:
            yield where, system
        except BaseException as error:
            error.add_note(f"killed at kill point {n}, {where}")
            raise
        finally:
            system.close()
        if where is None:
            assert n > 5, "the work has hardly any effects"
            return


def test_killed_upload_is_one_job_or_none(empty: Path, tmp_path: Path, mp3: bytes) -> None:
    seen: Counter[int] = Counter()
    for where, system in kill_everywhere(empty, tmp_path, upload):
        jobs = system.count("jobs")
        seen[jobs] += 1
        system.let_days_pass()  # the broker delivers nothing meanwhile,
        for event in system.published():
            system.deliver(event)  # and everything afterwards
        if not jobs:
            assert where is not None
            assert [system.count(table) for table in ("jobs", "mails", "blobs")] == [0, 0, 0]
            system.assert_tidy()
            continue
        assert_done(system, mp3)
        assert upload(system).id == only_job(system).id  # the client got no answer and retries
        assert_done(system, mp3)
    assert min(seen[0], seen[1]) >= 3


def test_killed_converter_makes_one_mp3(uploaded: Path, tmp_path: Path, mp3: bytes) -> None:
    job = only_job_id(uploaded)
    for _, system in kill_everywhere(uploaded, tmp_path, lambda system: handlers.convert(job, system.for_convert())):
        published = system.published()
        system.let_days_pass()
        assert_done(system, mp3)
        for event in [*published, VideoUploaded(job)]:
            system.deliver(event)
        assert_done(system, mp3)


def test_killed_converter_rejects_a_file_once(empty: Path, place: Path, tmp_path: Path) -> None:
    rejected = prepare(empty, place / "rejected", lambda system: upload(system, NOISE))
    job = only_job_id(rejected)
    # Up to the first read, the steps are those for a file that can be converted.
    for _, system in kill_everywhere(
        rejected, tmp_path, lambda system: handlers.convert(job, system.for_convert()), begin="read"
    ):
        system.let_days_pass()
        assert only_job(system).state == "failed"
        assert "not a video or audio file" in only_job(system).error
        system.deliver(VideoUploaded(job))
        system.deliver(ConversionFailed(job))
        assert_mailed(system, ConversionFailed(job))
        system.assert_tidy()


def test_killed_converter_lists_the_tracks_of_a_file_without_the_requested_one(
    empty: Path, place: Path, tmp_path: Path
) -> None:
    rejected = prepare(empty, place / "other track", lambda system: upload(system, options={"track": "5"}))
    job = only_job_id(rejected)
    for _, system in kill_everywhere(
        rejected, tmp_path, lambda system: handlers.convert(job, system.for_convert()), begin="read"
    ):
        system.let_days_pass()
        failed = only_job(system)
        assert (failed.state, [track["codec"] for track in json.loads(failed.tracks)]) == ("failed", ["pcm_s16le"])
        assert_mailed(system, ConversionFailed(job))
        system.assert_tidy()


def test_overtaken_converter_deletes_its_mp3(uploaded: Path, tmp_path: Path, mp3: bytes) -> None:
    system = System(shutil.copytree(uploaded, tmp_path / "system"))
    job = only_job_id(uploaded)

    class Slow(Jobs):
        def finish(self, lease: Lease[Job], outcome: Outcome) -> list[Event] | None:
            make_past(system.database, "jobs", "lease_until")
            handlers.convert(job, system.for_convert(system.deliver))
            assert len(system.blobs_on_disk()) == 3
            return super().finish(lease, outcome)

    handlers.convert(job, replace(system.for_convert(), jobs=Slow(system.database)))
    assert_done(system, mp3)
    system.close()


def test_mail_is_sent_twice_only_if_its_acceptance_was_not_recorded(
    converted: Path, tmp_path: Path, mp3: bytes
) -> None:
    event = Mp3Ready(only_job_id(converted))
    sent_twice = []
    for where, system in kill_everywhere(converted, tmp_path, lambda system: send_mail(event.id, system.for_notify())):
        is_accepted = bool(system.accepted_mails())
        [mail] = system.rows("mails")
        assert all(path.read_bytes().endswith(b"--\r\n") for path in system.mail_directory.glob("*.eml"))
        mails = 2 if is_accepted and mail.state == "due" else 1
        if mails == 2:
            sent_twice.append(where)
        system.let_days_pass()
        system.deliver(event)
        assert_done(system, mp3, mails)
    assert sent_twice == [
        "after the server's 250, before Mails._close.close",
        "after the statements of Mails._close.close, before their commit",
    ]


def test_killed_sweep_does_nothing_twice(empty: Path, place: Path, tmp_path: Path) -> None:
    messy = prepare(empty, place / "messy", make_mess)
    system = System(messy)
    names = {row.filename: row.id for row in system.rows("jobs")}
    system.close()

    for _, system in kill_everywhere(messy, tmp_path, lambda system: sweep_up(system.for_sweep(keep_days=1))):
        system.convert = quick_convert
        for event in system.published():
            system.deliver(event)
        system.let_days_pass(keep_days=1)
        states = {row.filename: (row.state, row.error) for row in system.rows("jobs")}
        assert states == {
            "lost.wav": ("done", None),
            "exhausted.wav": ("failed", ATTEMPTS_EXHAUSTED),
            "unsent.wav": ("done", None),
            "undeliverable.wav": ("done", None),
        }
        announced = [
            Mp3Ready(names["lost.wav"]),
            ConversionFailed(names["exhausted.wav"]),
            Mp3Ready(names["unsent.wav"]),
        ]
        assert sorted(system.accepted_mails()) == sorted(f"<{event.id}@mp3burst>" for event in announced)
        assert Counter(row.state for row in system.rows("mails")) == {"sent": 3, "abandoned": 1}
        system.assert_tidy()


def make_mess(system: System) -> None:
    """Leaves work for sweep: a lost event, a job whose attempts are exhausted, an old job, an unsent mail, a mail that
    cannot be sent, and the blob of a killed writer.
    """
    ids = {name: add(system, name) for name in ("lost", "exhausted", "old", "unsent", "undeliverable")}
    for name in ("old", "unsent", "undeliverable"):
        quick_convert(ids[name], system.for_convert())
    send_mail(Mp3Ready(ids["old"]).id, system.for_notify())
    change(system, "jobs", ids["exhausted"], attempts=MAX_ATTEMPTS)
    change(system, "jobs", ids["old"], finished_at=1)
    change(system, "mails", Mp3Ready(ids["undeliverable"]).id, created_at=1, attempts=MAX_ATTEMPTS)
    for name in ("lost", "exhausted"):
        change(system, "jobs", ids[name], due_at=1)
    for name in ("unsent", "undeliverable"):
        change(system, "mails", Mp3Ready(ids[name]).id, due_at=1)

    def half_written() -> None:
        description = Description(OWNER, "f" * 32, "a.mp3", "audio/mpeg")
        with Blobs(system.database).writing(system.media, "mp3s", description) as writer:
            writer.write(b"half")
            os._exit(0)

    system.close()
    assert exit_status(fork(half_written, system.directory)) == 0
    for row in system.rows("blobs", "expires_at"):
        change(system, "blobs", row.id, expires_at=1)
    (system.directory / "published").unlink(missing_ok=True)
    (system.directory / "accepted_mails").unlink()


def add(system: System, name: str) -> JobId:
    return create_job(Form(f"{name}.wav", {}, iter([SOUND])), ADA, None, system.for_upload()).id


def change(system: System, table: str, row: str, **values: object) -> None:
    target = metadata.tables[table]
    statement = update(target).where(target.c.id == row).values(**values)
    system.database.run(lambda connection: connection.execute(statement))


def quick_convert(job: JobId, deps: ConvertDependencies) -> None:
    """Does what convert does, without any sound."""
    if lease := deps.jobs.claim(job):
        description = Description(OWNER, job, "a.mp3", "audio/mpeg")
        with deps.blobs.writing(deps.media, "mp3s", description) as writer:
            writer.write(b"sound")
        if events := deps.jobs.finish(lease, Outcome(writer.blob, 1.0, None)):
            deps.outbox.emit_all(events)


def in_parallel(system: System, number: int, work: Callable[[System], Any]) -> list[int]:
    """Runs the work in so many processes that start together; returns their exit statuses."""
    gate, opener = os.pipe()
    system.close()

    def wait_and_work() -> None:
        os.close(opener)
        os.read(gate, 1)
        work(System(system.directory))

    pids = [fork(wait_and_work, system.directory) for _ in range(number)]
    os.close(gate)
    os.close(opener)
    return [exit_status(pid) for pid in pids]


@pytest.mark.parametrize("at_once", [False, True])
def test_event_delivered_three_times_makes_one_mp3_and_one_mail(
    uploaded: Path, tmp_path: Path, mp3: bytes, at_once: bool
) -> None:
    system = System(shutil.copytree(uploaded, tmp_path / "system"))
    job = only_job(system).id

    def run_three_times(work: Callable[[System], Any]) -> None:
        if at_once:
            assert in_parallel(system, 3, work) == [0, 0, 0]
        else:
            for _ in range(3):
                work(system)

    run_three_times(lambda system: handlers.convert(job, system.for_convert()))
    # The upload's event and one for the MP3: only one of the three workers emits anything.
    assert system.published() == [VideoUploaded(job), Mp3Ready(job)]
    run_three_times(lambda system: send_mail(Mp3Ready(job).id, system.for_notify()))
    assert_done(system, mp3)
    assert only_job(system).attempts == 1
    system.close()

"""Kills what counts at each of its kill points: whatever is repeated afterwards, everything is counted once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from events.schema import Mp3Ready, VideoUploaded
from functions.convert import handlers
from functions.notify.main import send_mail
from functions.state.counters import Counter, Counters, Series, counts
from functions.state.overdue import Overdue
from functions.sweep.main import sweep_up
from tests.support.kill_points import System, copies, new_system, run_and_kill
from tests.unit.state.test_killed import (
    kill_everywhere,
    make_mess,
    only_job,
    only_job_id,
    prepare,
    quick_convert,
    upload,
)

pytestmark = pytest.mark.usefixtures("memoized")


@pytest.fixture(scope="module")
def empty(place: Path) -> Path:
    return new_system(place / "empty")


@pytest.fixture(scope="module")
def uploaded(empty: Path, place: Path) -> Path:
    return prepare(empty, place / "uploaded", upload)


@pytest.fixture(scope="module")
def converted(uploaded: Path, place: Path) -> Path:
    return prepare(
        uploaded, place / "converted", lambda system: handlers.convert(only_job(system).id, system.for_convert())
    )


def counted(system: System, *names: Counter) -> dict[Series, int]:
    """Returns the values of these counters."""
    found = system.database.read(counts)
    return {series: count.amount for series, count in found.items() if series.counter in names}


def test_killed_converter_is_counted_once_with_what_it_has_made(uploaded: Path, tmp_path: Path) -> None:
    job = only_job_id(uploaded)
    for _, system in kill_everywhere(uploaded, tmp_path, lambda system: handlers.convert(job, system.for_convert())):
        for event in (*system.published(), VideoUploaded(job)):
            system.let_a_day_pass()
            system.deliver(event)
        system.let_days_pass()
        [row] = system.rows("jobs")
        assert counted(system, "jobs_finished", "mp3_bytes", "video_bytes", "cpu_seconds", "audio_seconds") == {
            Series.of("jobs_finished", "done", "upload", ""): 1,
            Series.of("audio_seconds"): int(row.duration * 1000),
            Series.of("cpu_seconds"): row.cpu_ms,
            Series.of("video_bytes"): row.size,
            Series.of("mp3_bytes"): row.mp3_size,
        }


def test_killed_notifier_counts_a_mail_once_even_if_it_is_sent_twice(converted: Path, tmp_path: Path) -> None:
    mail = Mp3Ready(only_job_id(converted)).id
    sent = set()
    for _, system in kill_everywhere(converted, tmp_path, lambda system: send_mail(mail, system.for_notify())):
        system.let_days_pass()
        system.deliver(Mp3Ready(only_job(system).id))
        assert counted(system, "mails_finished") == {Series.of("mails_finished", "mp3.ready", "sent"): 1}
        sent.add(len(system.accepted_mails()))
    assert sent == {1, 2}


def test_killed_sweep_counts_once_and_loses_nothing_by_adding_up(empty: Path, place: Path, tmp_path: Path) -> None:
    messy = prepare(empty, place / "messy", make_mess)
    for _, system in kill_everywhere(messy, tmp_path, lambda system: sweep_up(system.for_sweep(keep_days=1))):
        system.convert = quick_convert
        for event in system.published():
            system.deliver(event)
        system.let_days_pass(keep_days=1)
        assert counted(system, "jobs_finished", "mails_finished", "audio_seconds") == {
            Series.of("jobs_finished", "done", "upload", ""): 4,
            Series.of("jobs_finished", "failed", "upload", "exhausted"): 1,
            Series.of("mails_finished", "mp3.ready", "sent"): 3,
            Series.of("mails_finished", "conversion.failed", "sent"): 1,
            Series.of("mails_finished", "mp3.ready", "abandoned"): 1,
            Series.of("audio_seconds"): 4000,
        }
        assert system.count("jobs") == 4


def test_killed_bury_counts_every_dead_letter(uploaded: Path, tmp_path: Path) -> None:
    """Nothing tells a dead letter that is delivered again from another one of the same row: it may count twice."""
    job = only_job_id(uploaded)

    def bury(system: System) -> None:
        Overdue(system.restricted(("bury",)).database).wake(VideoUploaded(job))

    amounts = set()
    for n, copy in zip(range(1, 10), copies(uploaded, tmp_path), strict=False):
        where = run_and_kill(copy, n, bury)
        system = System(copy)
        if where is not None:
            bury(system)
        amounts.add(counted(system, "dead_letters")[Series.of("dead_letters", "convert")])
        system.close()
        if where is None:
            break
    assert amounts == {1, 2}


def test_killed_adding_up_changes_no_value(empty: Path, place: Path, tmp_path: Path) -> None:
    messy = prepare(empty, place / "many", make_mess)
    system = System(messy)
    before = counted(system, "jobs_finished", "audio_seconds", "mp3_bytes", "mails_finished")
    system.close()
    assert before

    def add_up(system: System) -> None:
        Counters(system.restricted(("sweep",)).database).add_up(500)

    kill_often(
        messy, tmp_path / "killed", add_up, before, "jobs_finished", "audio_seconds", "mp3_bytes", "mails_finished"
    )


def kill_often(
    template: Path, directory: Path, work: Callable[[System], None], expected: dict[Series, int], *names: Counter
) -> None:
    """Kills short work wherever it can be killed, repeats it, and compares the counters."""
    directory.mkdir()
    for n, copy in zip(range(1, 10), copies(template, directory), strict=False):
        where = run_and_kill(copy, n, work)
        system = System(copy)
        work(system)
        work(system)
        assert counted(system, *names) == expected, where
        system.close()
        if where is None:
            assert n > 2
            return
    raise AssertionError("the work never ends")

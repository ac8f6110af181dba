"""Records a burst: takes snapshots of a platform from before the burst until nothing of it runs any more."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from scripts.loadtest.recording import Platform, Recording
from scripts.loadtest.users import Api, Burst, Seen, Uploads

#: Seconds that a burst may take.
_MAX_SECONDS = 3600.0


class TooSlow(Exception):
    """The burst did not end within an hour."""


@dataclass(frozen=True, slots=True)
class Observer:
    """How to watch a burst.

    Attributes:
        platform: the platform to watch.
        every: seconds between two snapshots.
        tail: seconds to wait at most for the last pod to stop.
        say: called with each line of progress.
    """

    platform: Platform
    every: float
    tail: float
    say: Callable[[str], None]


class _Watch:
    """Takes snapshots in a thread while the block runs; a context manager that raises the thread's error."""

    def __init__(self, recording: Recording, observer: Observer) -> None:
        self._recording = recording
        self._observer = observer
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._errors: list[Exception] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.seen = Seen()

    def __enter__(self) -> "_Watch":
        self._add_snapshot()
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if kind is None:
            self.check()
            self._add_snapshot()

    def check(self) -> None:
        """Raises the error that ended the thread, if there is one."""
        if self._errors:
            raise self._errors[0]

    @property
    def at(self) -> float:
        """Seconds since the recording started."""
        return time.monotonic() - self._began

    def is_idle(self) -> bool:
        """Returns whether no function had a pod in the last snapshot."""
        return not any(self._recording.samples[-1].pods.values())

    def _run(self) -> None:
        try:
            while not self._ended.wait(self._observer.every):
                self._add_snapshot()
        except Exception as error:  # the main thread raises it
            self._errors.append(error)

    def _add_snapshot(self) -> None:
        snapshot = self._observer.platform.snapshot()
        self._recording.add(self.at, snapshot, self.seen.jobs, self.seen.pieces, self.seen.encoded)


def record_idle(recording: Recording, observer: Observer, seconds: float) -> None:
    """Sends nothing, and fills in the recording for so many seconds."""
    recording.is_idle = True
    with _Watch(recording, observer) as watch:
        observer.say(f"watching for {seconds:g} s")
        while watch.at < seconds:
            time.sleep(observer.every)
            watch.check()


def record(recording: Recording, observer: Observer, api: Api, burst: Burst) -> None:
    """Sends the burst and fills in the recording.

    Args:
        recording: a recording without samples.
        observer: how to watch it.
        api: the calls of the platform.
        burst: what to send.

    Raises:
        TooSlow: it takes more than an hour.
        Refused: a call other than an upload was answered with an error.
        OSError: there was no answer.
    """
    say = observer.say
    with _Watch(recording, observer) as watch:
        api.sign_up()
        recording.began = watch.at
        say(f"signed up; starting {burst.count} uploads from {burst.clients} clients")
        with Uploads(api, burst) as uploads:
            while uploads.running() or watch.seen.ended() < uploads.accepted():
                time.sleep(observer.every)
                watch.check()
                watch.seen = api.seen()
                if not recording.accepted and not uploads.running():
                    recording.accepted = watch.at
                    say(f"{uploads.accepted()} of {burst.count} accepted")
                if watch.at > _MAX_SECONDS:
                    raise TooSlow(f"The burst did not end within {_MAX_SECONDS:.0f} s: {watch.seen.jobs}.")
            errors = uploads.errors()
        recording.accepted = recording.accepted or watch.at
        recording.finished = watch.at
        recording.refused = len(errors)
        say(", ".join(f"{count} {state}" for state, count in sorted(watch.seen.jobs.items())) or "no jobs")
        for message in sorted(set(errors)):
            say(f"refused: {message}")
        deadline = watch.at + observer.tail
        while watch.at < deadline and not watch.is_idle():
            time.sleep(observer.every)
            watch.check()
        say("every pod has stopped" if watch.is_idle() else "stopped watching; some pods still run")

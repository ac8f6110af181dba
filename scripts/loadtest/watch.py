"""Looks at a platform again and again, from before the burst until nothing of it is left."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from scripts.loadtest.recording import ENDED, Look, Recording
from scripts.loadtest.users import Api, Crowd

#: Seconds that a burst may take.
_MOST = 3600.0

Say = Callable[[str], None]


class TooSlow(Exception):
    """The burst has not ended in an hour."""


class Platform(Protocol):
    """What can be watched."""

    name: str

    def look(self) -> Look:
        """What it shows now."""


class Watch:
    """Looks from a thread of its own while the block runs; a context manager that passes the thread's error on."""

    def __init__(self, recording: Recording, platform: Platform, every: float) -> None:
        self._recording, self._platform, self._every = recording, platform, every
        self.began = time.monotonic()
        self.jobs: dict[str, int] = {}
        self._ended, self._error = threading.Event(), list[Exception]()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Watch":
        self._look()
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if kind is None:
            self.check()
            self._look()

    def check(self) -> None:
        """Raise what the thread ended with."""
        if self._error:
            raise self._error[0]

    @property
    def at(self) -> float:
        """Seconds since the recording began."""
        return time.monotonic() - self.began

    def rests(self) -> bool:
        """Whether no function had a pod at the last look."""
        return not any(self._recording.samples[-1].pods.values())

    def _run(self) -> None:
        try:
            while not self._ended.wait(self._every):
                self._look()
        except Exception as error:  # the main thread raises it
            self._error.append(error)

    def _look(self) -> None:
        look = self._platform.look()
        self._recording.add(self.at, look, self.jobs)


def record(
    recording: Recording,
    platform: Platform,
    api: Api,
    video: Path,
    many: int,
    clients: int,
    every: float,
    tail: float,
    say: Say,
) -> None:
    """Send the burst and fill in the recording.

    Args:
        recording: empty yet.
        platform: that is watched.
        api: the same platform, as a user has it.
        video: that is sent.
        many: times.
        clients: that send at once.
        every: seconds between two looks.
        tail: seconds to wait at most for the last pod to stop.
        say: is told how it goes.

    Raises:
        TooSlow: it takes more than an hour.
        Refused: a call other than an upload was answered with an error.
        OSError: nobody answers.
    """
    with Watch(recording, platform, every) as watch:
        api.sign_up()
        recording.began = watch.at
        say(f"signed up; {many} uploads by {clients} clients begin")
        with Crowd(api, video, many, clients) as crowd:
            while crowd.uploading() or sum(watch.jobs.get(state, 0) for state in ENDED) < crowd.taken():
                time.sleep(every)
                watch.check()
                watch.jobs = api.states()
                if not recording.accepted and not crowd.uploading():
                    recording.accepted = watch.at
                    say(f"{crowd.taken()} of {many} are accepted")
                if watch.at > _MOST:
                    raise TooSlow(f"The burst has not ended in {_MOST:.0f} s: {watch.jobs}.")
            refusals = crowd.refusals()
        recording.accepted = recording.accepted or watch.at
        recording.finished, recording.refused = watch.at, len(refusals)
        say(", ".join(f"{count} {state}" for state, count in sorted(watch.jobs.items())) or "no job")
        for sentence in sorted(set(refusals)):
            say(f"refused: {sentence}")
        until = watch.at + tail
        while watch.at < until and not watch.rests():
            time.sleep(every)
            watch.check()
        say("nothing runs any more" if watch.rests() else "the tail is over, and some pods still run")

"""The recording of a burst: plain data, written as JSON so that it can be drawn again."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

#: A job's final states.
ENDED = ("done", "failed")


class BadRecording(Exception):
    """A file is not a recording of a burst; the text is the message to print."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Something that runs whether anybody uploads or not.

    Attributes:
        pods: the number of pods or processes.
        anyway: whether a deployment that is always on would need it too, like a database.
        cores: CPUs that all of its pods reserve.
    """

    pods: int
    anyway: bool = False
    cores: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a platform at one moment.

    Attributes:
        pods: the pods of each function, including those that start or stop.
        queues: the events in each queue that wait or are being handled.
        cpu: CPU seconds so far of each function and of each ``standing``; they never decrease.
        cores: CPUs that one pod of each function reserves.
        standing: what runs beside the functions.
        dead_letters: the number of dead letters, if the platform counts them.
    """

    pods: Mapping[str, int]
    queues: Mapping[str, int]
    cpu: Mapping[str, float]
    cores: Mapping[str, float]
    standing: Mapping[str, Standing]
    dead_letters: int = 0


class Platform(Protocol):
    """Something that can be watched."""

    name: str

    def snapshot(self) -> Snapshot:
        """Returns the current state."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment of the recording.

    Attributes:
        at: seconds since the recording started.
        pods: the pods of each function.
        queues: the events in each queue.
        cpu: CPU seconds so far.
        jobs: the number of jobs in each state, from the last GET /jobs.
        pieces: the number of pieces of the jobs that were split, from the same.
        encoded: how many of them were encoded.
    """

    at: float
    pods: dict[str, int]
    queues: dict[str, int]
    cpu: dict[str, float]
    jobs: dict[str, int]
    pieces: int = 0
    encoded: int = 0


@dataclass(slots=True)
class Recording:
    """A burst, from just before it until nothing of it runs any more.

    Attributes:
        platform: embedded or knative.
        what: a description of what was sent.
        machine: a description of the machine.
        samples: in the order of time.
        cores: CPUs that one pod of each function reserves.
        standing: what runs beside the functions, at its maximum.
        began: when the first upload started, in seconds since the recording started.
        accepted: when the last upload was answered.
        finished: when the last job ended.
        dead_letters: the number of dead letters.
        refused: the number of uploads that were not accepted.
        is_idle: whether nothing was sent on purpose.
    """

    platform: str
    what: str
    machine: dict[str, Any]
    samples: list[Sample] = field(default_factory=list)
    cores: dict[str, float] = field(default_factory=dict)
    standing: dict[str, Standing] = field(default_factory=dict)
    began: float = 0.0
    accepted: float = 0.0
    finished: float = 0.0
    dead_letters: int = 0
    refused: int = 0
    is_idle: bool = False

    def add(self, at: float, snapshot: Snapshot, jobs: Mapping[str, int], pieces: int = 0, encoded: int = 0) -> None:
        """Adds a snapshot as a sample. CPU seconds are counted from the first sample on."""
        counts = (dict(snapshot.pods), dict(snapshot.queues), dict(snapshot.cpu), dict(jobs))
        self.samples.append(Sample(at, *counts, pieces, encoded))
        self.cores.update(snapshot.cores)
        for name, one in snapshot.standing.items():
            if name not in self.standing or self.standing[name].pods < one.pods:
                self.standing[name] = one
        self.dead_letters = max(self.dead_letters, snapshot.dead_letters)

    def functions(self) -> list[str]:
        """Returns the functions that had a pod, sorted by name."""
        return sorted({name for sample in self.samples for name, count in sample.pods.items() if count})

    def write(self, path: Path) -> None:
        """Writes the recording as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a file that ``write`` wrote.

        Raises:
            BadRecording: the file cannot be read or is something else.
        """
        try:
            values = json.loads(path.read_text())
            values["samples"] = [Sample(**sample) for sample in values["samples"]]
            values["standing"] = {name: Standing(**one) for name, one in values["standing"].items()}
            return cls(**values)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise BadRecording(f"{path} is not a recording of a burst: {error}.") from error


class Meter:
    """Adds up the CPU counters of processes and pods; the count of one that has ended is kept."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, float]] = {}

    def read(self, counters: Mapping[str, tuple[str, float]]) -> dict[str, float]:
        """Returns the sum of each owner.

        Args:
            counters: the owner and the count so far of each running process or pod, by a unique key. A counter that
                decreases, as when it is read while its process ends, is kept at its last value.
        """
        for key, (owner, value) in counters.items():
            self._last[key] = (owner, max(value, self._last.get(key, (owner, 0.0))[1]))
        sums: dict[str, float] = {}
        for owner, value in self._last.values():
            sums[owner] = sums.get(owner, 0.0) + value
        return sums


def cpus_of(quantity: str) -> float:
    """Parses a CPU quantity of Kubernetes: ``1``, ``0.5``, ``100m`` (kubernetes.io, "Resource units in Kubernetes")."""
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)

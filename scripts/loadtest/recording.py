"""What was seen of a burst: plain data, written as JSON, so that it can be drawn again."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

#: A job's last states.
ENDED = ("done", "failed")


class BadRecording(Exception):
    """A file is no recording of a burst; the text is the sentence to print."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Something that is up whether anybody comes or not.

    Attributes:
        pods: how many pods, or processes.
        anyway: whether deployments that are always on would need it as well, as they need stores.
        cores: what all of its pods reserve.
    """

    pods: int
    anyway: bool = False
    cores: float = 0.0


@dataclass(frozen=True, slots=True)
class Look:
    """What a platform shows at one moment.

    Attributes:
        pods: by function, those that start and stop included.
        queues: by queue, the events that wait or are being handled.
        cpu: CPU seconds by function or by what stands, so far; they never fall.
        cores: by function, what one pod reserves.
        standing: what is up beside the functions.
        dead_letters: how many events were given up, where the platform counts them.
    """

    pods: Mapping[str, int]
    queues: Mapping[str, int]
    cpu: Mapping[str, float]
    cores: Mapping[str, float]
    standing: Mapping[str, Standing]
    dead_letters: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment of the recording.

    Attributes:
        at: seconds since the recording began.
        pods: by function.
        queues: by queue.
        cpu: CPU seconds since the recording began.
        jobs: how many are in which state, as GET /jobs said last.
    """

    at: float
    pods: dict[str, int]
    queues: dict[str, int]
    cpu: dict[str, float]
    jobs: dict[str, int]


@dataclass(slots=True)
class Recording:
    """A burst from the moment before it until nothing of it is left.

    Attributes:
        platform: embedded or knative.
        what: what was sent, in words.
        machine: what it ran on.
        samples: in their order.
        cores: by function, what one pod reserves.
        standing: what is up beside the functions, the most that was seen.
        began: when the first byte was sent, in seconds since the recording began.
        accepted: when the last upload had its answer.
        finished: when the last job had ended.
        dead_letters: how many events were given up.
        refused: how many uploads were not taken.
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

    def add(self, at: float, look: Look, jobs: Mapping[str, int]) -> None:
        """Take in what was seen at a moment; the first moment's CPU seconds are where counting begins."""
        self.samples.append(Sample(at, dict(look.pods), dict(look.queues), dict(look.cpu), dict(jobs)))
        self.cores.update(look.cores)
        for name, one in look.standing.items():
            if name not in self.standing or self.standing[name].pods < one.pods:
                self.standing[name] = one
        self.dead_letters = max(self.dead_letters, look.dead_letters)

    def functions(self) -> list[str]:
        """The functions that had a pod, by name."""
        return sorted({name for sample in self.samples for name, count in sample.pods.items() if count})

    def write(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """From what ``write`` wrote.

        Raises:
            BadRecording: the file is another, or cannot be read.
        """
        try:
            values = json.loads(path.read_text())
            values["samples"] = [Sample(**sample) for sample in values["samples"]]
            values["standing"] = {name: Standing(**one) for name, one in values["standing"].items()}
            return cls(**values)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise BadRecording(f"{path} is no recording of a burst: {error}.") from error


class Meter:
    """Adds up counters of processes and pods that come and go: what one had counted stays when it is gone."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, float]] = {}

    def read(self, counters: Mapping[str, tuple[str, float]]) -> dict[str, float]:
        """The sums by owner.

        Args:
            counters: the owner and the count so far of each process or pod that is there now, by a name that no other
                has. A counter that falls, as one does that is read while its process ends, stays where it was.
        """
        for key, (owner, value) in counters.items():
            self._last[key] = (owner, max(value, self._last.get(key, (owner, 0.0))[1]))
        sums: dict[str, float] = {}
        for owner, value in self._last.values():
            sums[owner] = sums.get(owner, 0.0) + value
        return sums

"""What a burst used, and what as many pods that are always on would have used: arithmetic on a recording."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from scripts.loadtest.recording import Recording, Sample


@dataclass(frozen=True, slots=True)
class Line:
    """A function, something that stands, or a sum of them.

    Attributes:
        name: of it.
        peak: the most pods at once.
        pods: pod-seconds, starting and stopping included.
        always: pod-seconds of as many pods as the peak, up for the whole recording.
        cpu: CPU seconds used.
        reserved: core-seconds that the pods reserved, whether they used them or not.
        reserved_always: core-seconds that the pods would reserve that are always on.
    """

    name: str
    peak: int
    pods: float
    always: float
    cpu: float
    reserved: float = 0.0
    reserved_always: float = 0.0


@dataclass(frozen=True, slots=True)
class Account:
    """The whole of it.

    Attributes:
        seconds: that the recording lasts.
        functions: a line for each.
        standing: a line for each thing that is up whether anybody comes or not.
        work: the functions' sum.
        whole: the sum of everything.
    """

    seconds: float
    functions: list[Line]
    standing: list[Line]
    work: Line
    whole: Line

    @property
    def break_even(self) -> float:
        """Seconds between two such bursts below which pods that are always on would take fewer pod-seconds."""
        always, own = sum(one.always for one in self.standing), sum(one.pods for one in self.standing)
        saved = (self.work.always + always - own) / self.seconds if self.seconds else 0.0
        return self.work.pods / saved if saved > 0 else float("inf")

    @property
    def hourly(self) -> tuple[float, float]:
        """Pod-seconds of an hour with one such burst in it, and of an hour of pods that are always on."""
        hours = 3600 / self.seconds if self.seconds else 0.0
        own = self.work.pods + hours * sum(one.pods for one in self.standing)
        return own, hours * self.whole.always


def account(recording: Recording) -> Account:
    """Add everything up."""
    samples = recording.samples
    seconds = samples[-1].at - samples[0].at if samples else 0.0
    functions = [_function(recording, name, seconds) for name in recording.functions()]
    rest = set().union(*(sample.cpu for sample in samples)) - {one.name for one in functions} - {*recording.standing}
    # CPU time of processes that were gone before it could be read of themselves.
    functions += [Line(name, 0, 0.0, 0.0, _cpu(samples, name)) for name in sorted(rest) if _cpu(samples, name) >= 0.005]
    standing = [_standing(recording, name, seconds) for name in sorted(recording.standing)]
    return Account(seconds, functions, standing, _sum("functions", functions), _sum("all", functions + standing))


def pod_seconds(samples: Sequence[Sample], function: str) -> float:
    """Pods times seconds; what a sample saw is taken to last until the next one."""
    return sum(one.pods.get(function, 0) * (other.at - one.at) for one, other in pairwise(samples))


def table(made: Account) -> str:
    """The account as lines of text."""
    heads = ("", "peak", "pod-s", "always on", "CPU-s", "reserved core-s", "always on")
    rows: list[tuple[str, ...]] = [heads]
    for line in (*made.functions, made.work, *made.standing, made.whole):
        figures = (line.pods, line.always, line.cpu, line.reserved, line.reserved_always)
        shown = [f"{figure:.1f}" if figure else "-" for figure in figures]
        rows.append((line.name, str(line.peak or "-"), *shown))
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(text.rjust(n) for text, n in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


def sentences(recording: Recording, made: Account) -> list[str]:
    """What the figures say."""
    jobs = recording.samples[-1].jobs if recording.samples else {}
    ended = ", ".join(f"{count} {state}" for state, count in sorted(jobs.items()))
    said = [
        f"{recording.what}: all accepted after {recording.accepted - recording.began:.1f} s, all ended after "
        f"{recording.finished - recording.began:.1f} s; jobs: {ended or 'none'}; {recording.refused} uploads refused, "
        f"{recording.dead_letters} dead letters.",
        f"The functions' pods were up for {made.work.pods:.0f} pod-seconds in {made.seconds:.0f} s and used "
        f"{made.work.cpu:.1f} CPU-seconds; as many pods always on: {made.work.always:.0f} pod-seconds.",
    ]
    if made.break_even < float("inf"):
        own, always = made.hourly
        said.append(
            f"Counting what stays up, one such burst an hour takes {own:.0f} pod-seconds an hour and always on "
            f"{always:.0f}: arithmetic on these figures. Always on takes fewer only if such a burst comes more often "
            f"than every {made.break_even:.0f} s."
        )
    if recording.samples and any(recording.samples[-1].pods.values()):
        said.append("The recording ended before every pod had: what they went on to use is not in it.")
    return said


def _function(recording: Recording, name: str, seconds: float) -> Line:
    samples, cores = recording.samples, recording.cores.get(name, 0.0)
    peak = max(sample.pods.get(name, 0) for sample in samples)
    used, always = pod_seconds(samples, name), peak * seconds
    return Line(name, peak, used, always, _cpu(samples, name), used * cores, always * cores)


def _standing(recording: Recording, name: str, seconds: float) -> Line:
    one = recording.standing[name]
    used, cores = one.pods * seconds, one.cores * seconds
    return Line(name, one.pods, used, used * one.anyway, _cpu(recording.samples, name), cores, cores * one.anyway)


def _cpu(samples: Sequence[Sample], name: str) -> float:
    return samples[-1].cpu.get(name, 0.0) - samples[0].cpu.get(name, 0.0)


def _sum(name: str, lines: Iterable[Line]) -> Line:
    columns = zip(*((o.peak, o.pods, o.always, o.cpu, o.reserved, o.reserved_always) for o in lines), strict=True)
    peak, *figures = [sum(column) for column in columns] or [0] * 6
    return Line(name, int(peak), *figures)

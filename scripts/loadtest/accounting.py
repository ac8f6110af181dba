"""Adds up what a burst used and what as many pods would have used that are always on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from scripts.loadtest.recording import Recording, Sample


@dataclass(frozen=True, slots=True)
class Line:
    """The figures of a function, of something that runs all the time, or of a sum of them.

    Attributes:
        name: its name.
        peak: the highest number of pods at once.
        pods: pod-seconds, including starting and stopping.
        always: pod-seconds of as many pods as the peak, running during the whole recording.
        cpu: CPU seconds used.
        reserved: CPU-seconds that the pods reserved, used or not.
        reserved_always: CPU-seconds that pods which are always on would reserve.
    """

    name: str
    peak: int
    pods: float
    always: float
    cpu: float
    reserved: float = 0.0
    reserved_always: float = 0.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Every figure of a recording.

    Attributes:
        seconds: the length of the recording.
        functions: a line for each function.
        standing: a line for each thing that runs whether anybody uploads or not.
        work: the sum of the functions.
        total: the sum of everything.
    """

    seconds: float
    functions: list[Line]
    standing: list[Line]
    work: Line
    total: Line

    @property
    def break_even(self) -> float:
        """Seconds between two such bursts below which pods that are always on would take fewer pod-seconds."""
        always = sum(one.always for one in self.standing)
        ours = sum(one.pods for one in self.standing)
        saved = (self.work.always + always - ours) / self.seconds if self.seconds else 0.0
        return self.work.pods / saved if saved > 0 else float("inf")

    @property
    def hourly(self) -> tuple[float, float]:
        """Pod-seconds of an hour with one such burst, and of an hour of pods that are always on."""
        hours = 3600 / self.seconds if self.seconds else 0.0
        ours = self.work.pods + hours * sum(one.pods for one in self.standing)
        return ours, hours * self.total.always


def usage_of(recording: Recording) -> Usage:
    """Adds up a recording."""
    samples = recording.samples
    seconds = samples[-1].at - samples[0].at if samples else 0.0
    functions = [_function(recording, name, seconds) for name in recording.functions()]
    rest = set().union(*(sample.cpu for sample in samples)) - {one.name for one in functions} - {*recording.standing}
    # CPU time of processes that ended before they could be read.
    functions += [Line(name, 0, 0.0, 0.0, _cpu(samples, name)) for name in sorted(rest) if _cpu(samples, name) >= 0.005]
    standing = [_standing(recording, name, seconds) for name in sorted(recording.standing)]
    return Usage(seconds, functions, standing, _sum("functions", functions), _sum("all", functions + standing))


def pod_seconds(samples: Sequence[Sample], function: str) -> float:
    """Returns pods times seconds. The pods of a sample count until the next sample."""
    return sum(one.pods.get(function, 0) * (other.at - one.at) for one, other in pairwise(samples))


def table(usage: Usage) -> str:
    """Returns the figures as a table in text."""
    heads = ("", "peak", "pod-s", "always on", "CPU-s", "reserved CPU-s", "always on")
    rows: list[tuple[str, ...]] = [heads]
    for line in (*usage.functions, usage.work, *usage.standing, usage.total):
        values = (line.pods, line.always, line.cpu, line.reserved, line.reserved_always)
        shown = [f"{value:.1f}" if value else "-" for value in values]
        rows.append((line.name, str(line.peak or "-"), *shown))
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(text.rjust(n) for text, n in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


def sentences(recording: Recording, usage: Usage) -> list[str]:
    """Describes the figures in sentences."""
    if recording.is_idle:
        return [_idle(usage)]
    jobs = recording.samples[-1].jobs if recording.samples else {}
    ended = ", ".join(f"{count} {state}" for state, count in sorted(jobs.items()))
    lines = [
        f"{recording.what}: all accepted after {recording.accepted - recording.began:.1f} s, all ended after "
        f"{recording.finished - recording.began:.1f} s; jobs: {ended or 'none'}; {recording.refused} uploads refused, "
        f"{recording.dead_letters} dead letters.",
        f"The functions' pods ran for {usage.work.pods:.0f} pod-seconds in {usage.seconds:.0f} s and used "
        f"{usage.work.cpu:.1f} CPU-seconds. As many pods, always on, would have "
        f"taken {usage.work.always:.0f} pod-seconds.",
    ]
    if usage.break_even < float("inf"):
        ours, always = usage.hourly
        lines.append(
            f"Including what runs all the time, an hour with one such burst takes {ours:.0f} pod-seconds and an hour "
            f"of always on {always:.0f} (calculated from these usage). Always on takes fewer only if such a burst "
            f"comes more often than every {usage.break_even:.0f} s."
        )
    if recording.samples and any(recording.samples[-1].pods.values()):
        lines.append("The recording ended while pods were still running: what they used later is not included.")
    return lines


def _idle(usage: Usage) -> str:
    share = usage.work.pods / usage.seconds if usage.seconds else 0.0
    standing = sum(one.peak for one in usage.standing)
    return (
        f"The functions' pods ran for {usage.work.pods:.0f} pod-seconds in {usage.seconds:.0f} s, {share:.1%} of a pod "
        f"that is always on. Beside them, {standing} pods of the broker, of Knative and of servers ran all the time "
        f"and used {sum(one.cpu for one in usage.standing):.1f} CPU-seconds."
    )


def _function(recording: Recording, name: str, seconds: float) -> Line:
    samples = recording.samples
    cpus = recording.cores.get(name, 0.0)
    peak = max(sample.pods.get(name, 0) for sample in samples)
    used = pod_seconds(samples, name)
    always = peak * seconds
    return Line(name, peak, used, always, _cpu(samples, name), used * cpus, always * cpus)


def _standing(recording: Recording, name: str, seconds: float) -> Line:
    one = recording.standing[name]
    used = one.pods * seconds
    reserved = one.cores * seconds
    return Line(name, one.pods, used, used * one.anyway, _cpu(recording.samples, name), reserved, reserved * one.anyway)


def _cpu(samples: Sequence[Sample], name: str) -> float:
    return samples[-1].cpu.get(name, 0.0) - samples[0].cpu.get(name, 0.0)


def _sum(name: str, lines: Iterable[Line]) -> Line:
    columns = zip(*((o.peak, o.pods, o.always, o.cpu, o.reserved, o.reserved_always) for o in lines), strict=True)
    peak, *figures = [sum(column) for column in columns] or [0] * 6
    return Line(name, int(peak), *figures)

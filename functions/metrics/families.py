"""The metrics, as Prometheus reads them. docs/metrics.md describes the same."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from functions.metrics.readings import Reading
from functions.state.counters import Counter, Series, times
from functions.state.overview import PHASES

#: The version of mp3burst; that of pyproject.toml, which images do not have.
VERSION: Final = "0.1.0"
PREFIX: Final = "mp3burst_"
_STATES: Final = ("fetching", "uploaded", "converting", "encoding", "joining")
_STORES: Final = ("videos", "pieces", "mp3s")
_QUEUES: Final = ("fetch", "convert", "encode", "join", "notify", "hook")
_MAIL_KINDS: Final = ("mp3.ready", "conversion.failed", "address.unconfirmed", "password.forgotten")
_MAIL_OUTCOMES: Final = ("sent", "skipped", "refused", "abandoned")


class Counted(NamedTuple):
    """A counter.

    Attributes:
        meaning: what it counts, a sentence without its period.
        labels: their names.
        known: label values that are shown from the beginning. A counter that begins with 1 has not increased for
            Prometheus, which would then miss the first failure.
        unit: by what its amounts are divided.
    """

    meaning: str
    labels: tuple[str, ...] = ()
    known: tuple[tuple[str, ...], ...] = ((),)
    unit: int = 1


COUNTERS: Final[dict[Counter, Counted]] = {
    "jobs_finished": Counted(
        "Jobs that have ended, with their outcome",
        ("outcome", "source", "reason"),
        (
            ("done", "upload", ""),
            ("done", "fetch", ""),
            ("done", "part", ""),
            ("failed", "upload", "refused"),
            ("failed", "upload", "exhausted"),
            ("failed", "fetch", "refused"),
            ("failed", "fetch", "exhausted"),
            ("failed", "fetch", "internal"),
        ),
    ),
    "audio_seconds": Counted("Seconds of the MP3s that conversions have made", unit=1000),
    "cpu_seconds": Counted("CPU seconds of the attempts that have led to an MP3", unit=1000),
    "video_bytes": Counted("Bytes of the videos that were converted"),
    "mp3_bytes": Counted("Bytes of the MP3s that conversions have made"),
    "videos_fetched": Counted("Videos that were downloaded from an address"),
    "fetched_bytes": Counted("Bytes of the videos that were downloaded from an address"),
    "attempts_failed": Counted(
        "Attempts that have failed and are repeated", ("queue",), tuple((queue,) for queue in _QUEUES)
    ),
    "dead_letters": Counted(
        "Events that could not be delivered, of work that was still to be done",
        ("queue",),
        tuple((queue,) for queue in _QUEUES),
    ),
    "events_repeated": Counted(
        "Events that sweep has emitted again, because nobody works on their rows",
        ("queue",),
        tuple((queue,) for queue in _QUEUES),
    ),
    "mails_finished": Counted(
        "Mails that were sent, skipped, refused or abandoned",
        ("kind", "outcome"),
        tuple((kind, outcome) for kind in _MAIL_KINDS for outcome in _MAIL_OUTCOMES),
    ),
    "deliveries_finished": Counted(
        "Deliveries to webhooks that have ended", ("outcome",), (("delivered",), ("failed",))
    ),
    "sweeps": Counted("Sweeps that have come to their end"),
}
TIMES: Final[dict[Counter, str]] = {
    "job_wait_seconds": "Time from a complete upload to the first attempt, of jobs that are done",
    "job_conversion_seconds": "Time from the first attempt to the MP3, of jobs that are done",
}


def exposition(reading: Reading) -> bytes:
    """Returns the metrics in the text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Read(reading))
    return generate_latest(registry)


class _Read(Collector):
    """Hands what was read to the library."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def collect(self) -> Iterable[Metric]:
        return families(self._reading)


def families(reading: Reading) -> Iterator[Metric]:
    """Yields the metrics."""
    yield InfoMetricFamily(f"{PREFIX}build", "The version of mp3burst", {"version": VERSION})
    yield _gauge("jobs", "Unfinished jobs", ("state",), (((state,), reading.jobs.get(state, 0)) for state in _STATES))
    yield from _of_queues(reading)
    yield from _of_stores(reading)
    yield from _of_disks(reading)
    yield _gauge("users", "Users, without those who were deleted", (), [((), reading.totals.users)])
    yield from (_counter(reading, name, counted) for name, counted in COUNTERS.items())
    for name, meaning in TIMES.items():
        found = times(reading.counts, name)
        yield HistogramMetricFamily(f"{PREFIX}{name}", meaning, buckets=found.buckets, sum_value=found.seconds)
    last = reading.counts.get(Series.of("sweeps"))
    seconds = [] if last is None else [((), last.counted_at / 1000)]
    meaning = "When the last sweep came to its end, in seconds since 1970"
    yield _gauge("sweep_last_success_timestamp_seconds", meaning, (), seconds)


def _of_queues(reading: Reading) -> Iterator[Metric]:
    queues = reading.queues.items()
    rows = (((name, phase), queue.phases.get(phase, 0)) for name, queue in queues for phase in PHASES)
    yield _gauge("queue_rows", "Unfinished rows that a function works on, and where they are", ("queue", "phase"), rows)
    late = (((name,), queue.late) for name, queue in queues)
    yield _gauge("queue_late_rows", "Rows due for more than six minutes that nobody works on", ("queue",), late)
    oldest = (((name,), queue.oldest / 1000) for name, queue in queues)
    meaning = "Age of the row that has waited longest for its first attempt"
    yield _gauge("queue_oldest_waiting_seconds", meaning, ("queue",), oldest)


def _of_stores(reading: Reading) -> Iterator[Metric]:
    for name, meaning, attribute in (
        ("stored_blobs", "Files in a media store", "blobs"),
        ("stored_bytes", "Bytes of a media store, with what is reserved for uploads and conversions", "size"),
        ("expired_blobs", "Files in a media store that the next sweep deletes", "expired"),
    ):
        values = (((store,), getattr(reading.totals.stores.get(store), attribute, 0)) for store in _STORES)
        yield _gauge(name, meaning, ("store",), values)


def _of_disks(reading: Reading) -> Iterator[Metric]:
    free = (((disk.stores[0],), disk.free) for disk in reading.disks if disk.free is not None)
    yield _gauge("disk_free_bytes", "Free space of a disk, under the name of the first store on it", ("disk",), free)
    size = (((disk.stores[0],), disk.total) for disk in reading.disks if disk.total is not None)
    yield _gauge("disk_size_bytes", "Size of a disk", ("disk",), size)
    measured = (((disk.stores[0],), disk.measured_at / 1000) for disk in reading.disks if disk.measured_at is not None)
    meaning = "When sweep measured a disk last, in seconds since 1970"
    yield _gauge("disk_measured_timestamp_seconds", meaning, ("disk",), measured)


def _gauge(name: str, meaning: str, labels: tuple[str, ...], values: Iterable[tuple[Sequence[str], float]]) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}{name}", meaning, labels=labels)
    for each, value in values:
        family.add_metric(each, value)
    return family


def _counter(reading: Reading, name: Counter, counted: Counted) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}{name}", counted.meaning, labels=counted.labels)
    amounts = dict.fromkeys(counted.known, 0)
    for series, found in reading.counts.items():
        # Another version may have labels that this one does not know.
        if series.counter == name and len(series.labels) == len(counted.labels):
            amounts[series.labels] = found.amount
    for labels, amount in amounts.items():
        family.add_metric(labels, amount / counted.unit if counted.unit > 1 else amount)
    return family

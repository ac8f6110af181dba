"""What a conversion will about take, by its options and by what the latest ones of its user have taken."""

from collections.abc import Iterable

from functions.options import DEFAULT_BITRATE, VBR_BITRATES, BadOption, Options
from functions.state.jobs import Job
from functions.status.api import Estimate

#: Jobs that are looked at, the latest.
MAX_JOBS = 100
#: Seconds of sound below which most of the time is not spent on the sound.
_SHORTEST = 10.0


def estimate(seconds: float, options: Options, jobs: Iterable[Job]) -> Estimate:
    """Returns what the conversion of a video of this length will about take.

    Args:
        seconds: of the video's sound.
        options: of the conversion.
        jobs: of the same user.

    Raises:
        BadOption: nothing is left of the sound.
    """
    length = min(seconds, options.end or seconds) - (options.start or 0.0)
    if length <= 0:
        raise BadOption("start", "start must be before the end of the sound.")
    bitrate = options.bitrate or DEFAULT_BITRATE if options.vbr is None else VBR_BITRATES[options.vbr]
    known = [job for job in jobs if _is_typical(job)]
    total = sum(job.duration or 0.0 for job in known)
    cpu = sum(job.record.cpu_ms for job in known) / 1000
    worked = sum((job.finished_at or 0) - (job.record.started_at or 0) for job in known) / 1000
    return Estimate(
        duration=length,
        mp3_bytes=round(length * bitrate * 125),
        cpu=cpu / total * length if known else None,
        seconds=worked / total * length if known else None,
        jobs=len(known),
    )


def _is_typical(job: Job) -> bool:
    """Returns whether a job was converted, not cut out of another one, and has a receipt."""
    is_converted = job.state == "done" and job.source is None
    return is_converted and job.record.started_at is not None and (job.duration or 0.0) >= _SHORTEST

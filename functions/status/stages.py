"""What a job's owner learns about the work on it: the stage, the pieces, the time left, and at the end a receipt."""

import math
from typing import Literal

from functions.progress import READ_SHARE, seconds_left
from functions.state.jobs import STEPS, Job
from functions.status.api import Pieces, Receipt

Stage = Literal["waiting", "fetching", "reading", "encoding", "joining", "done", "failed"]


def fraction(job: Job) -> float:
    """Returns the part of the conversion that is done, 0 to 1."""
    return 1.0 if job.state == "done" else min(job.done / (job.total or STEPS), 1.0)


def stage(job: Job) -> Stage:
    """Returns what is being done for the job."""
    match job.state:
        case "done" | "failed" | "encoding" | "joining":
            return job.state
        case "fetching" if job.is_leased and not job.is_deferred:
            return "fetching"
        case "converting" if job.is_leased and not job.is_deferred:
            return "reading" if fraction(job) < READ_SHARE else "encoding"
        case _:
            return "waiting"


def pieces(job: Job) -> Pieces | None:
    """Returns how many pieces are encoded, if the job was split; None if it failed and no track was stored."""
    # The row names no track if the encoders read the video itself.
    is_split = job.audio is not None or job.state in ("encoding", "joining") or job.record.encoded_at is not None
    return Pieces(job.done, job.total) if is_split else None


def eta(job: Job) -> int | None:
    """Returns how many seconds the rest will about take, if that can be told from what is done."""
    began = job.record.stage_at
    if stage(job) not in ("reading", "encoding") or began is None or job.seen_at is None:
        return None
    left = seconds_left((job.seen_at - began) / 1000, fraction(job))
    return None if left is None else math.ceil(left)


def receipt(job: Job) -> Receipt | None:
    """Returns what the conversion took, once the job is done; None for jobs from before there were receipts."""
    record = job.record
    if job.state != "done" or record.started_at is None:
        return None
    return Receipt(
        fetch=_seconds(job.created_at, record.fetched_at),
        queue=_seconds(record.fetched_at or job.created_at, record.started_at),
        read=_seconds(record.started_at, record.read_at),
        encode=_seconds(record.read_at, record.encoded_at or job.finished_at),
        join=_seconds(record.encoded_at, job.finished_at),
        cpu=record.cpu_ms / 1000,
        video_bytes=record.size,
        mp3_bytes=record.mp3_size,
        pods=record.pods,
    )


def _seconds(begin: int | None, end: int | None) -> float | None:
    return None if begin is None or end is None else max(end - begin, 0) / 1000

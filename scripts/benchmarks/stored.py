"""Puts files into the media store and jobs on record, without the functions that do it."""

from pathlib import Path

from sqlalchemy import func, select

from functions.media import BlobId, Description, connect
from functions.options import Options
from functions.state.blobs import Blobs
from functions.state.database import Database
from functions.state.jobs import Jobs, NewJob, Outcome, new_job_id
from functions.state.schema import jobs
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.clock import CannotMeasure
from scripts.benchmarks.serving import USER

_CHUNK = 1 << 20


def store(bench: Bench, file: Path, as_mp3: bool = False, where: dict[str, str] | None = None) -> BlobId:
    """Put a file into the store of videos or of MP3s, the bench's or that of other variables; the blob's id."""
    media = connect(where or bench.media())
    database = Database(bench.database())
    name = "mp3s" if as_mp3 else "videos"
    about = Description(USER, new_job_id(), file.name, "video/mp4")
    with file.open("rb") as source, Blobs(database).writing(media, name, about) as target:
        while data := source.read(_CHUNK):
            target.write(data)
    database.close()
    return target.blob


def finished(bench: Bench, mp3: BlobId) -> None:
    """Put a job on record that is done with this MP3, whatever it really is."""
    database = Database(bench.database())
    record = Jobs(database)
    job = record.add(NewJob(new_job_id(), USER, mp3, "video.mp4", Options()))
    lease = record.claim(job.id)
    if lease is None or record.finish(lease, Outcome(mp3, 1.0, None)) is None:
        raise CannotMeasure("The job could not be put on record.")
    database.close()


def states(database: Database) -> dict[str, int]:
    """How many jobs are in each state."""
    query = select(jobs.c.state, func.count()).group_by(jobs.c.state)
    rows = database.run(lambda connection: connection.execute(query).all())
    return {str(state): int(count) for state, count in rows}

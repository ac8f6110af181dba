"""Measures the work of one reference in a process of its own, without the process's start, and prints the time as JSON.

python -m scripts.benchmarks.references put URI FILE
"""

import importlib
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from functions.media import Description, Media, connect, new_blob_id

_CHUNK = 1 << 20
_DESCRIPTION = Description("5a" * 16, "a0" * 16, "video.mp4", "video/mp4")


def _database(uri: str) -> Any:
    import pymongo

    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(uri)
    return client.get_default_database()


def _connected(uri: str) -> Media:
    """Returns the stores after their first use, which imports and connects everything."""
    media = connect({"MONGO_URI": uri})
    for store in (media.videos, media.mp3s):
        store.delete(new_blob_id())
    return media


def put(uri: str, file: str) -> Callable[[], object]:
    """Returns a function that calls pymongo's GridFS.put."""
    import gridfs

    bucket = gridfs.GridFS(_database(uri))

    def work() -> None:
        with Path(file).open("rb") as source:
            bucket.put(source, filename="video.mp4")

    return work


def read(uri: str, blob: str) -> Callable[[], object]:
    """Returns a function that reads a file's chunks in order, 16 per answer."""
    from bson import ObjectId

    chunks = _database(uri)["fs.chunks"]

    def work() -> int:
        return sum(len(one["data"]) for one in chunks.find({"files_id": ObjectId(blob)}).sort("n", 1).batch_size(16))

    return work


def store_put(uri: str, file: str) -> Callable[[], object]:
    """Returns a function that writes with our store alone, without the upload function."""
    store = _connected(uri).videos

    def work() -> None:
        with Path(file).open("rb") as source, store.create(new_blob_id(), _DESCRIPTION) as target:
            while data := source.read(_CHUNK):
                target.write(data)

    return work


def store_read(uri: str, blob: str) -> Callable[[], object]:
    """Returns a function that reads with our store alone, without the download function."""
    store = _connected(uri).videos

    def work() -> None:
        with store.open(blob) as source:
            while source.read(_CHUNK):
                pass

    return work


def moviepy(uri: str, blob: str) -> Callable[[], object]:
    """Returns the converter of the tutorial systems: everything in memory and temporary files, MoviePy in between."""
    import gridfs
    from bson import ObjectId

    editor: Any = importlib.import_module("moviepy")  # it has no types
    database = _database(uri)
    mp3s = gridfs.GridFS(database.client[f"{database.name}-tutorial"])

    def work() -> None:
        with tempfile.NamedTemporaryFile(suffix=".mp4") as video, tempfile.NamedTemporaryFile(suffix=".mp3") as mp3:
            # They call videos.get(...).read(). Answers of 16 chunks suit servers without MongoDB's limit of 48 MB.
            found = database["fs.chunks"].find({"files_id": ObjectId(blob)}).sort("n", 1).batch_size(16)
            video.write(b"".join(chunk["data"] for chunk in found))
            video.flush()
            clip = editor.VideoFileClip(video.name)
            # 192k as the others here. The tutorials leave it to ffmpeg's default.
            clip.audio.write_audiofile(mp3.name, bitrate="192k", logger=None)
            clip.close()
            mp3s.put(Path(mp3.name).read_bytes())

    return work


def pipeline(uri: str, blob: str) -> Callable[[], object]:
    """Returns a conversion from the store into the store, as the function convert runs it."""
    from functions.convert.cpus import available_cpus
    from functions.convert.pipeline import Settings, to_mp3
    from functions.options import Options

    media = _connected(uri)

    def work() -> None:
        with (
            tempfile.TemporaryDirectory() as folder,
            media.videos.open(blob) as video,
            media.mp3s.create(new_blob_id(), _DESCRIPTION) as mp3,
        ):
            to_mp3(
                video,
                mp3,
                Settings(
                    options=Options(bitrate=192),
                    filename="video.mp4",
                    encoders=available_cpus(),
                    ffmpeg=os.environ.get("FFMPEG"),
                ),
                directory=Path(folder),
                on_progress=lambda _: None,
            )

    return work


def main() -> None:
    """Prepares a reference, then measures its work alone."""
    name, uri, what = sys.argv[1:]
    prepare = {
        "put": put,
        "read": read,
        "store-put": store_put,
        "store-read": store_read,
        "moviepy": moviepy,
        "pipeline": pipeline,
    }[name]
    work = prepare(uri, what)
    before = _cpu()
    begin = time.perf_counter()
    work()
    print(json.dumps({"seconds": time.perf_counter() - begin, "cpu": _cpu() - before}))


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()

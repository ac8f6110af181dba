"""The media stores that the contract tests run on, and helpers for these tests."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymongo
import pytest
from bson import ObjectId

from functions.media import Description, Media, Reader, Store, connect, gridfs, new_blob_id
from tests.support.fakes import MemoryStore, memory_media
from tests.support.servers.mongodb import MongoDB

A = Description("3f" * 16, "a0" * 16, 'Grüße из 日本 🎬 "1".mp4', "video/mp4")


@dataclass
class Place:
    """Media stores of one kind, with ways to inspect and damage them that the interface does not offer.

    Attributes:
        environ: the settings that lead another process to the stores; empty if none can reach them.
        change: rewrites the stored bytes of a video.
        remains: returns whether anything is left of a video.
        stored: returns how many bytes the store has for a video, finished or not.
    """

    media: Media
    environ: dict[str, str]
    change: Callable[[str, Callable[[bytes], bytes]], None]
    remains: Callable[[str], bool]
    stored: Callable[[str], int]

    @property
    def videos(self) -> Store:
        return self.media.videos


@contextlib.contextmanager
def opened(kind: str, request: pytest.FixtureRequest) -> Iterator[Place]:
    """Yields empty stores of a kind: memory, directory, or gridfs, for which the test needs a fixture ``mongodb``."""
    if kind == "memory":
        yield memory()
    elif kind == "directory":
        yield directory(request.getfixturevalue("tmp_path"))
    else:
        with in_mongodb(request.getfixturevalue("mongodb")) as place:
            yield place


@contextlib.contextmanager
def server() -> Iterator[MongoDB]:
    with MongoDB() as running:
        yield running
        gridfs.disconnect()


def memory() -> Place:
    media = memory_media()
    store = media.videos
    assert isinstance(store, MemoryStore)

    def change(blob: str, how: Callable[[bytes], bytes]) -> None:
        stat, content = store.blobs[blob]
        store.blobs[blob] = stat, how(content)

    def stored(blob: str) -> int:
        return len(store.blobs[blob][1] if blob in store.blobs else store.parts.get(blob, b""))

    return Place(media, {}, change, lambda blob: blob in store.blobs or blob in store.parts, stored)


def directory(root: Path) -> Place:
    environ = {"MEDIA_DIR": str(root / "media")}

    def change(blob: str, how: Callable[[bytes], bytes]) -> None:
        file = root / "media" / "videos" / blob[:2] / blob / "bytes"
        file.write_bytes(how(file.read_bytes()))

    def stored(blob: str) -> int:
        return sum(file.stat().st_size for file in root.glob(f"media/videos/*/{blob}*/bytes"))

    return Place(connect(environ), environ, change, lambda blob: any(root.glob(f"media/videos/*/{blob}*")), stored)


@contextlib.contextmanager
def in_mongodb(running: MongoDB) -> Iterator[Place]:
    name = f"videos{new_blob_id()}"
    environ = {"MONGO_URI": f"{running.url}/{name}"}
    with pymongo.MongoClient[dict[str, Any]](running.url) as client:
        bucket = client[name]["fs"]

        def change(blob: str, how: Callable[[bytes], bytes]) -> None:
            for chunk in list(bucket["chunks"].find({"files_id": ObjectId(blob)}).sort("n", -1).limit(1)):
                bucket["chunks"].update_one({"_id": chunk["_id"]}, {"$set": {"data": how(chunk["data"])}})

        def remains(blob: str) -> bool:
            files = bucket["files"].count_documents({"_id": ObjectId(blob)})
            return bool(files + bucket["chunks"].count_documents({"files_id": ObjectId(blob)}))

        def stored(blob: str) -> int:
            return sum(len(chunk["data"]) for chunk in bucket["chunks"].find({"files_id": ObjectId(blob)}))

        yield Place(connect(environ), environ, change, remains, stored)
        client.drop_database(name)


def noise(size: int, seed: int = 1) -> bytes:
    return hashlib.shake_128(bytes([seed])).digest(size)


def put(store: Store, content: bytes, blob: str | None = None) -> str:
    blob = blob or new_blob_id()
    with store.create(blob, A) as writer:
        for start in range(0, len(content), 300_007):
            writer.write(content[start : start + 300_007])
    return blob


def drain(reader: Reader, block: int = 100_003) -> bytes:
    parts = []
    while part := reader.read(block):
        parts.append(part)
    return b"".join(parts)


def get(store: Store, blob: str, block: int = 100_003) -> bytes:
    with store.open(blob) as reader:
        return drain(reader, block)

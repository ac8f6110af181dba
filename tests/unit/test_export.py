"""The export of an account: looked up as it is streamed."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Request, Response
from sqlalchemy import insert, update
from werkzeug.test import EnvironBuilder

from functions.auth.external_logins import Person
from functions.auth.feeds import Feeds
from functions.auth.links import Links
from functions.auth.profiles import Profiles
from functions.auth.shared_links import SharedLinks
from functions.auth.tokens import Identity
from functions.download import main
from functions.media import BlobId, Media, MediaUnavailable
from functions.presets import BUILT_IN
from functions.shares import Shares
from functions.state.leases import LeaseTerms
from functions.state.presets import Presets
from functions.state.schema import external_logins, jobs, users
from functions.state.webhooks import Webhooks
from tests.contract.test_jobs import OWNER, Records
from tests.support.databases import sqlite
from tests.support.fakes import MemoryReader, MemoryStore


class Counting(MemoryStore):
    """Counts the blobs that are opened, and may be unavailable."""

    opened = 0
    is_available = True

    def open(self, blob: str) -> MemoryReader:
        if not self.is_available:
            raise MediaUnavailable("The media store does not answer: try again later.")
        self.opened += 1
        return super().open(blob)


class Export:
    """A user with jobs, and GET /export."""

    def __init__(self, records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
        user = insert(users).values(id=OWNER, username="ann", email="ann@example.org", name="Ann", password_hash="")
        records.database.run(lambda connection: connection.execute(user.values(role="user", created_at=1)))
        self.store = Counting()
        records.media = Media(videos=self.store, pieces=MemoryStore(), mp3s=MemoryStore())
        self.records = records
        self.shares = Shares(1, 1, 1)
        deps = main.Dependencies(
            media=records.media,
            jobs=records.jobs,
            links=Links(["k" * 32], ""),
            shared_links=SharedLinks(records.database),
            feeds=Feeds(records.database),
            shares=self.shares,
            profiles=Profiles(records.database),
            database=records.database,
        )
        monkeypatch.setattr(main, "dependencies", lambda: deps)
        monkeypatch.setattr(main, "identify", lambda *_, **__: Identity(OWNER, "ann", "user", {}))

    def ask(self, method: str = "GET") -> Response:
        return main._ROUTES.answer(Request(EnvironBuilder("/export", method=method).get_environ()))


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Export]:
    with sqlite(tmp_path) as database:
        yield Export(Records(database, LeaseTerms()), monkeypatch)


def test_first_byte_waits_for_one_file_and_head_for_none(export: Export) -> None:
    for _ in range(3):
        export.records.job()
    assert export.ask("HEAD").status_code == 200
    assert export.store.opened == 0
    answer = export.ask()
    assert (answer.status_code, export.store.opened) == (200, 1)
    assert export.ask().status_code == 429
    body = b"".join(bytes(chunk) for chunk in answer.iter_encoded())
    answer.close()
    assert export.store.opened == 3
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        listed = json.loads(archive.read("account.json"))["jobs"]
        assert {archive.read(job["video"]) for job in listed} == {b"bytes"}
    assert export.ask().status_code == 200


def test_what_gives_access_is_listed_without_its_secret(export: Export) -> None:
    database = export.records.database
    job = export.records.job()
    done = {"state": "done", "mp3": "a" * 24}
    database.run(lambda connection: connection.execute(update(jobs).where(jobs.c.id == job.id).values(done)))
    secret, link = SharedLinks(database).create(OWNER, job.id, BlobId("a" * 24), 3600)
    feed = Feeds(database).create(OWNER)
    webhook = Webhooks(database).add(OWNER, "https://example.org/hook")
    person = Person("https://auth.example.org", "1", "ann@example.org", "Ann")
    row = insert(external_logins).values(id=person.id, owner=OWNER, provider=person.provider, created_at=1)
    database.run(lambda connection: connection.execute(row))
    Presets(database, BUILT_IN).put("Mine", {"bitrate": "64k"}, OWNER)
    body = b"".join(bytes(chunk) for chunk in export.ask().iter_encoded())
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        text = archive.read("account.json").decode()
    account = json.loads(text)
    assert [(each["id"], each["job"]) for each in account["links"]] == [(link.id, job.id)]
    assert [(each["id"], each["url"]) for each in account["webhooks"]] == [(webhook.id, "https://example.org/hook")]
    assert [(each["id"], each["provider"]) for each in account["logins"]] == [(person.id, person.provider)]
    assert account["presets"] == [{"name": "Mine", "options": {"bitrate": "64k"}}]
    assert account["feed"]["created"].endswith("Z")
    assert secret not in text
    assert feed not in text


def test_mp3_of_a_renamed_part_has_its_name(export: Export) -> None:
    """The name in the media store is that of the MP3 that was split."""
    job = export.records.job()
    part = {"state": "done", "mp3": export.records.blob("mp3s", job.id), "filename": "Intro: 1.mp3"}
    export.records.database.run(
        lambda connection: connection.execute(update(jobs).where(jobs.c.id == job.id).values(part))
    )
    body = b"".join(bytes(chunk) for chunk in export.ask().iter_encoded())
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.read(f"mp3s/{job.id}-Intro_ 1.mp3") == b"bytes"
        assert json.loads(archive.read("account.json"))["jobs"][0]["mp3"] == f"mp3s/{job.id}-Intro_ 1.mp3"


def test_video_that_is_gone_is_left_out(export: Export) -> None:
    gone = export.records.job()
    kept = export.records.job()
    export.store.delete(BlobId(gone.video))
    body = b"".join(bytes(chunk) for chunk in export.ask().iter_encoded())
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        listed = json.loads(archive.read("account.json"))["jobs"]
        assert {job["job"]: job["video"] is None for job in listed} == {gone.id: True, kept.id: False}
        assert len(archive.namelist()) == 2


def test_unavailable_store_has_a_status_and_takes_no_share(export: Export) -> None:
    export.records.job()
    export.store.is_available = False
    assert export.ask().status_code == 503
    export.store.is_available = True
    assert export.ask().status_code == 200


def test_deletion_of_jobs_meanwhile_does_not_end_the_export(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after KEEP_DAYS: the oldest job, which the export reaches last."""
    monkeypatch.setattr("functions.download.export._PAGE", 2)
    listed = [export.records.job().id for _ in range(4)]
    body = b""
    for chunk in export.ask().iter_encoded():
        body += bytes(chunk)
        for job in [job for job in listed if job.encode() in body]:
            listed.remove(job)
            export.records.jobs.delete(job, OWNER)
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert len(json.loads(archive.read("account.json"))["jobs"]) == 4

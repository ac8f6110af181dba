"""Resumable uploads: the rules of tus 1.0 one by one, with media in a directory and in GridFS."""

import hashlib
import os
import shutil
import subprocess
import threading
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from sqlalchemy import func, select, update
from tusclient.client import TusClient

from functions.media import Store, connect
from functions.media.integrity import BLOCK_SIZE
from functions.state.database import Database
from functions.state.schema import blobs, now, uploads
from tests.contract.media_places import server
from tests.e2e.client import Client, wave_bytes
from tests.e2e.tus import PART, VERSION, Tus, metadata
from tests.support.platform import Platform, start
from tests.support.processes import wait_for
from tests.support.servers import program
from tests.support.servers.nginx import Gateway, upstreams

SOUND = wave_bytes(1.0)
#: A sound, followed by bytes that decoders ignore, to fill several chunks of a store.
LONG = SOUND + bytes(range(256)) * (3 * BLOCK_SIZE // 256)
EXTENSIONS = {"creation", "creation-with-upload", "creation-defer-length", "termination", "expiration", "checksum"}
JS = Path(__file__).parent / "tus_js"


@dataclass(frozen=True)
class Place:
    """A platform, and the store of its videos."""

    platform: Platform
    videos: Store

    def content(self, user: Client, job: str) -> bytes:
        """Returns the bytes of a job's video."""
        with self.videos.open(user.job(job)["fid"]) as reader:
            return reader.read()

    def change(self, statement: object) -> None:
        """Executes a statement, to change rows as the passing of time would."""
        database = Database(f"sqlite:///{self.platform.data / 'mp3burst.db'}")
        database.run(lambda connection: connection.execute(statement))  # type: ignore[call-overload]
        database.close()

    def blobs_of(self, user: str) -> int:
        """Returns how many blobs of a user the database has."""
        query = select(func.count()).where(blobs.c.owner == user)
        database = Database(f"sqlite:///{self.platform.data / 'mp3burst.db'}")
        found = database.run(lambda connection: connection.scalar(query))
        database.close()
        return found or 0


@pytest.fixture(scope="module")
def gridfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with server() as mongodb:
        environ = {"MONGO_URI": mongodb.url}
        with start(tmp_path_factory.mktemp("tus") / "data", env=environ) as running:
            yield Place(running, connect(environ).videos)


@pytest.fixture(params=["directory", "gridfs"])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "gridfs":
        found: Place = request.getfixturevalue("gridfs")
        return found
    platform: Platform = request.getfixturevalue("platform")
    return Place(platform, connect({"MEDIA_DIR": str(platform.data / "media")}).videos)


@pytest.fixture
def me(place: Place) -> Client:
    return Client(place.platform.url).sign_up()


def checksum(algorithm: str, content: bytes) -> str:
    return f"{algorithm} {b64encode(hashlib.new(algorithm, content).digest()).decode()}"


@pytest.mark.parametrize("path", ["/files", "/files/", "/files/" + "0" * 32])
def test_anybody_may_ask_for_the_supported_protocol(place: Place, path: str) -> None:
    answer = Client(place.platform.url).call("OPTIONS", path)
    assert answer.status == 204
    assert answer.headers["Tus-Version"] == "1.0.0"
    assert set(answer.headers["Tus-Extension"].split(",")) == EXTENSIONS
    assert int(answer.headers["Tus-Max-Size"]) == 8 << 30
    assert answer.headers["Tus-Checksum-Algorithm"].split(",") == ["sha1", "sha256"]


def test_a_file_in_parts_of_any_size_becomes_a_job(place: Place, me: Client) -> None:
    upload = Tus(me).create(len(LONG), filename="Täglich.wav", bitrate="128k")
    assert upload.location.startswith("/files/")
    head = upload.head()
    assert (head.status, head.headers["Upload-Offset"], head.headers["Upload-Length"]) == (200, "0", str(len(LONG)))
    assert head.headers["Upload-Metadata"] == metadata(filename="Täglich.wav", bitrate="128k")
    assert head.headers["Cache-Control"] == "no-store"
    assert "Upload-Expires" in head.headers
    future = head.headers["Mp3burst-Future-Job"]
    for size in (1, 600, BLOCK_SIZE - 601, BLOCK_SIZE, BLOCK_SIZE // 2, 0):
        answer = upload.patch(LONG[upload.offset : upload.offset + size])
        assert answer.status == 204
        assert answer.headers["Tus-Resumable"] == "1.0.0"
        assert upload.head().headers["Upload-Offset"] == answer.headers["Upload-Offset"]
        assert "Mp3burst-Job" not in answer.headers
        assert answer.headers["Mp3burst-Future-Job"] == future
    answer = upload.patch(LONG[upload.offset :])
    assert upload.offset == len(LONG)
    job = answer.headers["Mp3burst-Job"]
    assert job == future
    head = upload.head()
    assert "Mp3burst-Future-Job" not in head.headers
    assert (head.headers["Upload-Offset"], head.headers["Mp3burst-Job"]) == (str(len(LONG)), job)
    assert upload.patch(b"").headers["Mp3burst-Job"] == job
    assert place.content(me, job) == LONG
    done = me.wait(job)
    assert (done["status"], done["filename"], done["options"]["bitrate"]) == ("done", "Täglich.wav", 128)
    assert [found["job"] for found in me.jobs()["jobs"]] == [job]


def test_the_first_part_may_come_with_the_creation(place: Place, me: Client) -> None:
    answer = Tus(me).post(
        SOUND[:700], Upload_Length=str(len(SOUND)), **{k.replace("-", "_"): v for k, v in PART.items()}
    )
    assert (answer.status, answer.headers["Upload-Offset"]) == (201, "700")
    upload = Tus(me, answer.headers["Location"], 700)
    job = upload.patch(SOUND[700:]).headers["Mp3burst-Job"]
    assert place.content(me, job) == SOUND
    answer = Tus(me).post(SOUND, Upload_Length=str(len(SOUND)), Content_Type=PART["Content-Type"])
    assert (answer.status, answer.headers["Upload-Offset"]) == (201, str(len(SOUND)))
    assert place.content(me, answer.headers["Mp3burst-Job"]) == SOUND


@pytest.mark.parametrize("late", [True, False])
def test_the_length_may_come_later(place: Place, me: Client, late: bool) -> None:
    upload = Tus(me).create(None, filename="a.wav")
    head = upload.head()
    assert head.headers["Upload-Defer-Length"] == "1"
    assert "Upload-Length" not in head.headers
    upload.patch(SOUND[:1000])
    length = str(len(SOUND))
    if late:
        assert "Mp3burst-Job" not in upload.patch(SOUND[1000:]).headers
        answer = upload.patch(b"", Upload_Length=length)
    else:
        assert upload.patch(SOUND[1000:2000], Upload_Length=length).status == 204
        assert upload.head().headers["Upload-Length"] == length
        upload.patch(b"", Upload_Length="9").problem(400)
        answer = upload.patch(SOUND[2000:])
    assert place.content(me, answer.headers["Mp3burst-Job"]) == SOUND


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_part_damaged_in_transit_is_discarded(place: Place, me: Client, algorithm: str) -> None:
    upload = Tus(me).create(len(LONG))
    upload.patch(LONG[:1000], Upload_Checksum=checksum(algorithm, LONG[:1000]))
    assert upload.offset == 1000
    broken = LONG[1000:2000] + bytes(BLOCK_SIZE)
    answer = upload.patch(broken, Upload_Checksum=checksum(algorithm, LONG[1000:]))
    assert answer.status == 460
    assert upload.head().headers["Upload-Offset"] == "1000"
    answer = upload.patch(LONG[1000:], Upload_Checksum=checksum(algorithm, LONG[1000:]))
    assert place.content(me, answer.headers["Mp3burst-Job"]) == LONG


def test_bytes_before_a_lost_connection_are_saved(place: Place, me: Client) -> None:
    upload = Tus(me).create(len(LONG))
    length = len(LONG) - 1000
    connection = upload.open_request(len(LONG))
    connection.send(LONG[:length])
    connection.close()
    wait_for(lambda: upload.head().status and upload.offset > length - BLOCK_SIZE, "the bytes that were sent")
    assert upload.offset <= length
    assert place.content(me, upload.rest(LONG)) == LONG


@pytest.mark.parametrize("place", ["directory"], indirect=True)
def test_of_two_concurrent_writers_one_is_refused(place: Place, me: Client) -> None:
    upload = Tus(me).create(len(LONG))
    begun = threading.Event()
    over = threading.Event()

    def slowly() -> Iterator[bytes]:
        for offset in range(0, len(LONG), 16_000):
            yield LONG[offset : offset + 16_000]
            begun.set()
            over.wait(0.1)

    answers: list[int] = []
    first = Tus(me, upload.location)
    second = Tus(me, upload.location)
    thread = threading.Thread(target=lambda: answers.append(first.patch(slowly()).status))
    thread.start()
    begun.wait(30)
    answers.append(second.patch(LONG[:1000]).status)
    over.set()
    thread.join()
    assert sorted(answers) in ([204, 409], [204, 423])
    assert place.content(me, upload.rest(LONG)) == LONG


@pytest.mark.parametrize("place", ["gridfs"], indirect=True)
def test_a_dead_connection_does_not_block_the_upload(place: Place, me: Client) -> None:
    """A request that receives nothing more is replaced, and the bytes that it receives later are ignored."""
    upload = Tus(me).create(len(LONG))
    dead = upload.open_request(len(LONG))
    dead.send(LONG[:1000])
    job = upload.rest(LONG)
    dead.send(b"?" * (len(LONG) - 1000))
    assert dead.getresponse().status in (409, 410, 423)
    dead.close()
    assert place.content(me, job) == LONG


def test_deleting_an_upload_leaves_the_job_that_it_became(place: Place, me: Client) -> None:
    upload = Tus(me).create(len(SOUND))
    upload.patch(SOUND[:1000])
    answer = upload.delete()
    assert (answer.status, answer.headers["Tus-Resumable"]) == (204, "1.0.0")
    assert [call.status for call in (upload.head(), upload.patch(b"x"), upload.delete())] == [404] * 3
    upload = Tus(me).create(len(SOUND))
    job = upload.patch(SOUND).headers["Mp3burst-Job"]
    assert upload.delete().status == 204
    assert upload.head().status == 404
    assert place.content(me, job) == SOUND


def test_deleting_a_job_ends_its_upload(me: Client) -> None:
    upload = Tus(me).create(len(SOUND))
    job = upload.patch(SOUND).headers["Mp3burst-Job"]
    assert me.call("DELETE", f"/jobs/{job}").status == 204
    assert upload.head().status in (404, 410)
    upload.patch(b"").problem(410)


def test_an_upload_expires_later_after_every_part(place: Place, me: Client) -> None:
    upload = Tus(me).create(len(SOUND))
    mine = blobs.c.id.in_(uploads.select().with_only_columns(uploads.c.blob).where(uploads.c.owner == me.user))
    place.change(update(blobs).where(mine).values(expires_at=now() + 60_000))
    soon = upload.head().headers["Upload-Expires"]
    assert upload.patch(SOUND[:1000]).headers["Upload-Expires"] != soon
    place.change(update(blobs).where(mine).values(expires_at=now() - 1))
    upload.patch(SOUND[1000:]).problem(410)
    assert upload.head().status == 410


def test_another_user_cannot_find_the_upload(me: Client) -> None:
    upload = Tus(me).create(len(SOUND))
    other_user = Tus(Client(me.url).sign_up(), upload.location)
    assert other_user.head().status == 404
    other_user.patch(SOUND).problem(404)
    other_user.delete().problem(404)
    anonymous = Tus(Client(me.url), upload.location)
    anonymous.patch(SOUND).problem(401)
    anonymous.post(Upload_Length="1").problem(401)
    assert upload.patch(SOUND).status == 204


@pytest.mark.parametrize("version", [None, "0.2.2", "1.0.1"])
def test_another_version_is_refused_and_ours_is_named(me: Client, version: str | None) -> None:
    upload = Tus(me).create(len(SOUND))
    calls = [("POST", "/files"), ("PATCH", upload.location), ("HEAD", upload.location), ("DELETE", upload.location)]
    headers = {"Tus-Resumable": version, "Upload-Length": "9", "Upload-Offset": "0", **PART}
    for method, path in calls:
        answer = me.call(method, path, b"" if method != "HEAD" else None, headers)
        assert (answer.status, answer.headers["Tus-Version"]) == (412, "1.0.0")
    assert upload.head().headers["Upload-Offset"] == "0"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Upload-Length": "-1"},
        {"Upload-Length": "ten"},
        {"Upload-Length": "1" * 30},
        {"Upload-Length": "9", "Upload-Defer-Length": "1"},
        {"Upload-Defer-Length": "2"},
        {"Upload-Length": "9", "Upload-Metadata": "filename ???"},
        {"Upload-Length": "9", "Upload-Metadata": "a YQ==,a YQ=="},
        {"Upload-Length": "9", "Upload-Metadata": ",,"},
    ],
)
def test_a_malformed_creation_is_refused(me: Client, headers: dict[str, str]) -> None:
    me.call("POST", "/files", b"", VERSION | headers).problem(400)


def test_malformed_parts_are_refused_and_change_nothing(me: Client) -> None:
    upload = Tus(me).create(len(SOUND))
    upload.patch(SOUND, Upload_Offset="x").problem(400)
    upload.patch(SOUND, Upload_Offset=None).problem(400)
    for bad in ("md5 YQ==", "sha1", "sha1 ???", "sha1 YQ=="):
        upload.patch(SOUND, Upload_Checksum=bad).problem(400)
    upload.patch(SOUND, Content_Type="video/mp4").problem(415)
    upload.patch(SOUND, offset=5).problem(409)
    upload.patch(SOUND, offset=len(SOUND) + 5).problem(409)
    upload.patch(SOUND + b"more").problem(413)
    upload.patch(iter([SOUND, b"more"])).problem(413)
    me.call("GET", upload.location, None, VERSION).problem(405)
    assert upload.head().headers["Upload-Offset"] == "0"
    assert upload.patch(SOUND).status == 204


def test_the_limits_of_post_upload_apply(me: Client) -> None:
    Tus(me).post(Upload_Length=str((8 << 30) + 1)).problem(413)
    Tus(me).post(Upload_Length="0").problem(422)
    fields = Tus(me).post(Upload_Length="9", Upload_Metadata=metadata(bitrate="loud")).problem(422)["errors"]
    assert list(fields) == ["bitrate"]
    fields = Tus(me).post(Upload_Length="9", Upload_Metadata=metadata(bitrat="64k")).problem(422)["errors"]
    assert list(fields) == ["bitrat"]


@pytest.mark.parametrize("sizes", [[3000], [100, 2900], [100, 100]])
def test_a_file_that_is_not_media_is_refused_and_deleted(me: Client, sizes: list[int]) -> None:
    upload = Tus(me).create(sum(sizes), filename="letter.mp4")
    *before, last = sizes
    for size in before:
        assert upload.patch(b"Dear Ann, " * (size // 10)).status == 204
    upload.patch(b"Dear Bob, " * (last // 10)).problem(415)
    assert upload.head().status == 404


def test_creation_with_a_failing_body_leaves_nothing_behind(place: Place, me: Client) -> None:
    lengths = {"Upload_Length": str(len(SOUND)), "Content_Type": PART["Content-Type"]}
    broken = Tus(me).post(SOUND, Upload_Checksum=checksum("sha1", b"other"), **lengths)
    assert broken.status == 460
    connection = Tus(me).open_request(len(SOUND), "POST", Upload_Length=str(len(SOUND)))
    connection.send(SOUND[:1000])
    connection.close()
    wait_for(lambda: not place.blobs_of(me.user), "the blob to be deleted")


def test_concatenation_is_refused(me: Client) -> None:
    for concat in ("partial", "final;/files/a /files/b"):
        detail = Tus(me).post(Upload_Length="9", Upload_Concat=concat).problem(400)["detail"]
        assert "Upload-Concat" in detail


def test_every_response_names_the_protocol(me: Client) -> None:
    upload = Tus(me).create(len(SOUND))
    anonymous = Client(me.url)
    answers = {
        200: upload.head(),
        201: Tus(me).post(Upload_Length="9"),
        400: Tus(me).post(),
        401: Tus(anonymous, upload.location).head(),
        404: Tus(me, "/files/x").head(),
        405: me.call("PUT", upload.location, b"", VERSION),
        409: upload.patch(b"x", offset=5),
        412: me.call("HEAD", upload.location),
        413: Tus(me).post(Upload_Length=f"{9 << 30}"),
        415: upload.patch(SOUND, Content_Type="video/mp4"),
    }
    for status, answer in answers.items():
        assert (answer.status, answer.headers.get_all("Tus-Resumable")) == (status, ["1.0.0"])
        assert answer.headers["Cache-Control"] == "no-store"
    assert "Upload-Offset" not in answers[404].headers


def test_the_method_may_be_overridden_by_a_header(me: Client) -> None:
    upload = Tus(me).create(len(SOUND))
    for method in ("GET", "PUT", "PATCH"):
        assert me.call(method, upload.location, None, VERSION | {"X-HTTP-Method-Override": "head"}).status == 200
    unknown = me.call("HEAD", upload.location, None, VERSION | {"X-HTTP-Method-Override": "BREW"})
    assert (unknown.status, unknown.body) == (405, b"")
    assert me.call("PATCH", "/files", None, {"X-HTTP-Method-Override": "OPTIONS"}).status == 204
    headers = {"Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert me.call("POST", upload.location, SOUND[:1000], VERSION | PART | headers).headers["Upload-Offset"] == "1000"
    assert me.call("POST", upload.location, b"", VERSION | {"X-HTTP-Method-Override": "DELETE"}).status == 204
    assert upload.head().status == 404


def test_tuspy_uploads_through_the_gateway(place: Place, me: Client) -> None:
    environ = upstreams(f"127.0.0.1:{place.platform.port}")
    with Gateway(environ | {"NGINX_LOCAL_RESOLVERS": "127.0.0.1"}) as gateway:
        client = TusClient(f"{gateway.url}/files", headers={"Authorization": f"Bearer {me.token}"})
        fields = {"filename": "Grüße.wav", "vbr": "2"}
        first = client.uploader(file_stream=BytesIO(LONG), chunk_size=200_000, metadata=fields, upload_checksum=True)
        first.upload(stop_at=400_000)
        url = str(first.url)
        # A second client resumes the upload.
        second = client.uploader(file_stream=BytesIO(LONG), chunk_size=300_001, url=url)
        assert second.offset == 400_000
        second.upload()
    job = Tus(me, url.removeprefix(gateway.url)).head().headers["Mp3burst-Job"]
    assert place.content(me, job) == LONG
    assert me.job(job)["filename"] == "Grüße.wav"


@pytest.fixture(scope="session")
def tus_js() -> Path:
    """The node_modules directory with tus-js-client as pinned by the lock file, cached between runs."""
    npm = program("npm")
    lock = JS / "package-lock.json"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mp3burst"
    folder = cache / f"tus-js-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(JS / name, folder)
        command = [npm, "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(command, cwd=folder, check=True, timeout=120)
        (folder / "done").touch()
    return folder / "node_modules"


def test_tus_js_client_uploads(place: Place, me: Client, tus_js: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(LONG)
    command = [program("node"), str(JS / "upload.cjs"), f"{me.url}/files", me.token, str(file)]
    environ = os.environ | {"NODE_PATH": str(tus_js)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    job = done.stdout.strip()
    assert place.content(me, job) == LONG
    assert me.job(job)["filename"] == "Grüße.wav"

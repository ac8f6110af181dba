"""The HTTP contract: every endpoint and every status, tested against real processes."""

import base64
import contextlib
import email
import email.policy
import hashlib
import http.client
import itertools
import json
import re
import socket
import sqlite3
import threading
import time
import zipfile
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import feedparser  # type: ignore[import-untyped]  # it carries no types
import podcastparser  # type: ignore[import-untyped]  # nor does it
import pytest

from functions.auth.accounts import normalize_username
from functions.media import new_blob_id
from functions.mp3 import tags
from functions.state.database import Database
from tests.e2e.client import (
    BOUNDARY,
    PASSWORD,
    Answer,
    Client,
    each,
    field,
    file_part,
    peak_rss,
    wave_bytes,
)
from tests.support import clips
from tests.support.databases import set_role
from tests.support.platform import Platform, start
from tests.support.processes import cpu_seconds, descendants, wait_for

WAV = wave_bytes(1.0)
JSON = {"Content-Type": "application/json"}


# --- helpers


def rows(platform: Platform, query: str, *arguments: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(platform.data / "mp3burst.db", timeout=10)) as database:
        return database.execute(query, arguments).fetchall()


def blobs_of(platform: Platform, user: str) -> list[tuple[str, str]]:
    return rows(platform, "SELECT store, id FROM blobs WHERE owner = ?", user)


def leaves_nothing(platform: Platform, user: Client) -> None:
    """Asserts that nothing of the user remains, neither in the database nor in files."""
    assert not blobs_of(platform, user.user)
    assert user.jobs()["jobs"] == []
    stats = (platform.data / "media").glob("*/*/*/stat.json")
    assert not [path for path in stats if user.user in path.read_text()]
    wait_for(lambda: not list((platform.data / "media").glob("*/*/*.part")), "partial files to be deleted")


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform on which only admins may upload, at most 100 kB."""
    env = {"UPLOAD_ROLE": "admin", "MAX_UPLOAD_BYTES": "100000"}
    with start(tmp_path_factory.mktemp("strict") / "data", env=env) as running:
        yield running


@pytest.fixture(scope="module")
def admin(strict: Platform) -> Client:
    user = Client(strict.url).sign_up()
    database = Database(f"sqlite:///{strict.data}/mp3burst.db")
    try:
        set_role(database, user.username, "admin")
    finally:
        database.close()
    return user.log_in()


@pytest.fixture(scope="module")
def owner(platform: Platform) -> Client:
    return Client(platform.url).sign_up()


@pytest.fixture(scope="module")
def other_user(platform: Platform) -> Client:
    return Client(platform.url).sign_up()


@pytest.fixture(scope="module")
def done(owner: Client) -> dict[str, Any]:
    """A finished job of ``owner``."""
    job = owner.convert(BytesIO(wave_bytes(3)), "Ärger & Spaß «» 日本.wav")
    assert job["status"] == "done", job
    return job


@pytest.fixture(scope="module")
def mp3(owner: Client, done: dict[str, Any]) -> bytes:
    answer = owner.download(done["mp3"])
    assert answer.status == 200
    return answer.body


# --- register


@pytest.mark.parametrize(
    ("form", "username"),
    [
        ({"name": "Ada", "username": "ada.register@example.org", "password": "r7kq-9wz"}, "ada.register@example.org"),
        ({"name": "Bo", "username": "bo", "password": "x" * 128, "email": "bo@example.org"}, "bo"),
        ({"name": "日本", "username": "  Čeněk  ", "password": PASSWORD, "email": "c@example.org"}, "čeněk"),
    ],
)
def test_register(platform: Platform, form: dict[str, str], username: str) -> None:
    answer = Client(platform.url).register(**form)
    assert answer.status == 201
    assert answer.json().keys() == {"id", "username"}
    assert answer.json()["username"] == username
    assert Client(platform.url).login(form["username"], form["password"]).status == 200


@pytest.mark.parametrize("spelling", ["{}", "  {} ", "\N{FULLWIDTH LATIN CAPITAL LETTER U}{}"])
def test_register_rejects_a_taken_username(platform: Platform, spelling: str) -> None:
    anonymous = Client(platform.url)
    name = f"taken-{hashlib.sha256(spelling.encode()).hexdigest()[:8]}"
    form = {"name": "A", "password": PASSWORD, "email": "a@example.org"}
    assert anonymous.register(**form, username=normalize_username(spelling.format(name))).status == 201
    anonymous.register(**form, username=spelling.format(name).upper()).problem(409)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"text"', b"null", b"\xff\xfe", b"name=Ada", b"[" * 60_000, b'{"a":"' + b"x" * 70_000]
)
def test_register_rejects_anything_but_a_json_object(platform: Platform, body: bytes) -> None:
    Client(platform.url).call("POST", "/register", body, {"Content-Type": "application/json"}).problem(400)


GOOD = {"name": "Ada", "username": "ada", "password": PASSWORD, "email": "ada@example.org"}


@pytest.mark.parametrize(
    ("fields", "change"),
    [
        ({"name"}, {"name": None}),
        ({"name"}, {"name": "   "}),
        ({"name"}, {"name": "x" * 201}),
        ({"name"}, {"name": 7}),
        ({"username"}, {"username": ""}),
        ({"username"}, {"username": ["ada"]}),
        ({"username"}, {"username": "a\nb"}),
        ({"password"}, {"password": None}),
        ({"password"}, {"password": "1234567"}),
        ({"password"}, {"password": "Password1"}),
        ({"password"}, {"password": " " * 9}),
        ({"password"}, {"password": "x" * 129}),
        ({"password"}, {"password": {"a": 1}}),
        ({"email"}, {"email": None}),
        ({"email"}, {"email": "ada"}),
        ({"email"}, {"email": "ada@example"}),
        ({"email"}, {"email": "ada@example.org\nBcc: all@example.org"}),
        ({"name", "username", "password", "email"}, dict.fromkeys(GOOD)),
    ],
)
def test_register_names_every_invalid_field(platform: Platform, fields: set[str], change: dict[str, object]) -> None:
    problem = Client(platform.url).register(**(GOOD | change)).problem(422)
    assert problem["errors"].keys() == fields
    assert all(name in problem["detail"] for name in fields)


# --- login


def test_login(platform: Platform, owner: Client) -> None:
    answer = owner.login(owner.username.upper(), PASSWORD)
    assert answer.status == 200
    assert answer.json().keys() == {"token", "expires_in"}
    assert answer.json()["expires_in"] == 24 * 3600
    assert "no-store" in answer.headers["Cache-Control"]
    claims = Client(platform.url, answer.json()["token"]).call("POST", "/validate").json()
    assert claims["sub"] == owner.user


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Basic", "Basic !!!", "Basic " + base64.b64encode(b"no colon").decode(), "Bearer abc", "Digest a=b"],
)
def test_login_rejects_missing_and_malformed_credentials(platform: Platform, authorization: str | None) -> None:
    Client(platform.url).call("POST", "/login", b"", {"Authorization": authorization}).problem(401)


def test_login_does_not_reveal_whether_a_user_exists(platform: Platform, me: Client) -> None:
    servers = [each["pid"] for each in platform.instances("login") if each["pid"]]
    processes = [*servers, *itertools.chain.from_iterable(map(descendants, servers))]

    def timed(username: str, address: str) -> tuple[Answer, float]:
        before = sum(map(cpu_seconds, processes))
        return me.login(username, "wrong password", address), sum(map(cpu_seconds, processes)) - before

    pairs = [  # five pairs: the sixth failure would lock the account
        (timed(me.username, f"127.2.1.{n + 1}"), timed(f"nobody{n}@example.org", f"127.2.2.{n + 1}")) for n in range(5)
    ]
    answers = [answer for pair in pairs for answer, _ in pair]
    for answer in answers:
        answer.problem(401)
    assert len({answer.body for answer in answers}) == 1
    # Without computing a hash, it would take at most a fifth of the time.
    assert 0.4 < min(wrong[1] for wrong, _ in pairs) / min(unknown[1] for _, unknown in pairs) < 2.5


def test_login_locks_an_account_after_failures_for_a_short_time(me: Client) -> None:
    told = []
    for _ in range(6):
        wrong = me.login(me.username, "wrong password", "127.2.0.100")
        wrong.problem(401)
        told.append(wrong.headers["RateLimit"])
    assert told == [f'"failed-logins";r={left}' for left in (4, 3, 2, 1, 0, 0)]
    locked = me.login(me.username, PASSWORD, "127.2.0.100")
    locked.problem(429)
    assert 1 <= int(locked.headers["Retry-After"]) <= 2
    assert locked.headers["RateLimit-Policy"] == '"failed-logins";q=5;w=4500'
    assert locked.headers["RateLimit"] == f'"failed-logins";r=0;t={locked.headers["Retry-After"]}'
    # The owner can still use a token, log in from another address, and log in from here a little later.
    assert me.jobs()["jobs"] == []
    assert me.login(me.username, PASSWORD, "127.2.0.7").status == 200
    wait_for(lambda: me.login(me.username, PASSWORD, "127.2.0.100").status == 200, "the lock to expire", 10)


def test_login_locks_an_address_that_tries_many_accounts(owner: Client) -> None:
    address = "127.2.0.9"
    with ThreadPoolExecutor(4) as threads:
        guesses = [
            threads.submit(owner.login, f"victim{n}@example.org", "wrong password", address).result for n in range(51)
        ]
        assert {guess().status for guess in guesses} <= {401, 429}
    assert owner.login(owner.username, PASSWORD, address).status == 429
    basic = base64.b64encode(f"{owner.username}:{PASSWORD}".encode()).decode()
    for forwarded in ("203.0.113.1", f"203.0.113.1, {address}", "127.2.0.11"):
        headers = {"Authorization": f"Basic {basic}", "X-Forwarded-For": forwarded}
        assert owner.call("POST", "/login", b"", headers, source=address).status == 429
    assert owner.login(owner.username, PASSWORD, "127.2.0.10").status == 200


def test_jwks_contains_the_public_key_of_tokens(platform: Platform, owner: Client) -> None:
    answer = Client(platform.url).call("GET", "/.well-known/jwks.json")
    assert answer.status == 200
    (key,) = answer.json()["keys"]
    assert {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig"}.items() <= key.items()
    assert "d" not in key
    header = json.loads(base64.urlsafe_b64decode(owner.token.split(".")[0] + "=="))
    assert header["kid"] == key["kid"]
    assert header["alg"] == "EdDSA"


# --- validate


def test_validate(owner: Client) -> None:
    answer = owner.call("POST", "/validate")
    assert answer.status == 200
    claims = answer.json()
    assert (claims["sub"], claims["username"], claims["role"]) == (owner.user, owner.username, "user")
    assert claims["exp"] > time.time() > claims["iat"] - 5


def tampered(token: str) -> str:
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "==")) | {"role": "admin"}
    return f"{head}.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.{signature}"


def unsigned(token: str) -> str:
    head = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
    return f"{head}.{token.split('.')[1]}."


AUTHORIZATIONS: dict[str, Callable[[str], str | None]] = {
    "missing": lambda _: None,
    "empty": lambda _: "",
    "Basic": lambda token: f"Basic {token}",
    "Bearer without a token": lambda _: "Bearer ",
    "malformed": lambda _: "Bearer abc",
    "alg none": lambda token: f"Bearer {unsigned(token)}",
    "tampered": lambda token: f"Bearer {tampered(token)}",
    "truncated signature": lambda token: f"Bearer {token[:-4]}",
    "trailing character": lambda token: f"Bearer {token}~",
}
PROTECTED = [
    "POST /validate",
    "POST /upload",
    "GET /jobs",
    "GET /jobs/events",
    "GET /jobs/0123456789abcdef0123456789abcdef",
    "DELETE /jobs/0123456789abcdef0123456789abcdef",
    "GET /download?fid=0123456789abcdef01234567",
    "HEAD /download?fid=0123456789abcdef01234567",
]


@pytest.mark.parametrize("call", PROTECTED)
def test_protected_endpoints_reject_missing_and_invalid_tokens(owner: Client, call: str) -> None:
    method, path = call.split()
    for name, make in AUTHORIZATIONS.items():
        answer = owner.call(method, path, b"" if method == "POST" else None, {"Authorization": make(owner.token)})
        assert answer.status == 401, name
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        if method != "HEAD":
            answer.problem(401)


# --- upload: accepted


def test_upload_a_form(me: Client) -> None:
    answer = me.try_upload(BytesIO(WAV), "a.wav", {"bitrate": "64k"})
    assert answer.status == 202
    assert answer.json().keys() == {"job", "fid"}
    assert answer.headers["Location"] == f"/jobs/{answer.json()['job']}"
    job = me.job(answer.json()["job"])
    assert job["fid"] == answer.json()["fid"]
    assert job["options"] == {"bitrate": 64}
    assert job["filename"] == "a.wav"


def test_upload_a_bare_body(me: Client) -> None:
    for content in (WAV, each([WAV[:100], WAV[100:]])):  # with Content-Length, and chunked
        answer = me.upload_raw(content, filename="Ä b.wav", vbr="2")
        assert answer.status == 202, answer.body
        job = me.job(answer.json()["job"])
        assert (job["filename"], job["options"]) == ("Ä b.wav", {"vbr": 2})
    assert me.upload_raw(WAV, "video/mp4; codecs=avc1").status == 202


def test_upload_accepts_options_after_the_file_and_in_the_query(me: Client) -> None:
    after = me.post_form([file_part("a.wav", WAV), field("bitrate", "320"), field("vbr", "")])
    assert me.job(after.json()["job"])["options"] == {"bitrate": 320}
    type_ = f"multipart/form-data; boundary={BOUNDARY}"
    body = file_part("a.wav", WAV) + f"--{BOUNDARY}--\r\n".encode()
    query = me.call("POST", "/upload?vbr=0&track=0", body, {"Content-Type": type_})
    assert query.status == 202, query.body
    assert me.job(query.json()["job"])["options"] == {"vbr": 0, "track": 0}


def test_upload_accepts_a_lower_case_bearer_scheme(me: Client) -> None:
    answer = me.call("POST", "/upload", WAV, {"Content-Type": "audio/wav", "Authorization": f"bearer {me.token}"})
    assert answer.status == 202


def test_upload_twice_with_one_idempotency_key_creates_one_job(platform: Platform, me: Client) -> None:
    answers = [me.try_upload(BytesIO(WAV), "a.wav", key="k 1") for _ in range(2)]
    assert [answer.status for answer in answers] == [202, 202]
    assert answers[0].body == answers[1].body
    assert answers[0].headers["Location"] == answers[1].headers["Location"]
    assert me.try_upload(BytesIO(WAV), "a.wav", key="k 2").json() != answers[0].json()
    other = Client(platform.url).sign_up()
    assert other.try_upload(BytesIO(WAV), "a.wav", key="k 1").json() != answers[0].json()
    assert len(me.jobs()["jobs"]) == 2


def test_simultaneous_uploads_with_one_idempotency_key_create_one_job(platform: Platform, me: Client) -> None:
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: me.try_upload(BytesIO(WAV), "a.wav", key="once"), range(6)))
    assert {answer.status for answer in answers} == {202}
    assert len({answer.body for answer in answers}) == 1
    (job,) = me.jobs()["jobs"]
    me.wait(job["job"])
    assert sorted(store for store, _ in blobs_of(platform, me.user)) == ["mp3s", "videos"]


# --- upload: rejected


def test_upload_rejects_an_invalid_idempotency_key(platform: Platform, me: Client) -> None:
    assert "Idempotency-Key" in me.try_upload(BytesIO(WAV), "a.wav", key="k" * 256).problem(422)["errors"]
    assert "Idempotency-Key" in me.try_upload(BytesIO(WAV), "a.wav", key="").problem(422)["errors"]
    leaves_nothing(platform, me)


TEXT = b"Not a video, whatever its name.\n" * 100
INVALID_FORMS = {
    "no parts": ([], "file"),
    "no file": ([field("bitrate", "64k")], "file"),
    "a field instead of the file": ([field("file", "a.wav")], "file"),
    "an empty file": ([file_part("a.wav", b"")], "file"),
    "two files": ([file_part("a.wav", WAV), file_part("b.wav", WAV)], "file"),
    "two files in different fields": ([file_part("a.wav", WAV), file_part("b.wav", WAV, "other")], "other"),
    "a file in the wrong field": ([file_part("a.wav", WAV, "video")], "video"),
    "an invalid bit rate": ([field("bitrate", "100k"), file_part("a.wav", WAV)], "bitrate"),
    "an invalid quality": ([field("vbr", "10"), file_part("a.wav", WAV)], "vbr"),
    "an invalid track": ([field("track", "-1"), file_part("a.wav", WAV)], "track"),
    "an unknown option": ([field("loudness", "11"), file_part("a.wav", WAV)], "loudness"),
    "both bit rate and quality": ([field("bitrate", "64"), field("vbr", "2"), file_part("a.wav", WAV)], "vbr"),
    "an option twice": ([field("vbr", "2"), field("vbr", "2"), file_part("a.wav", WAV)], "vbr"),
    "an invalid option after the file": ([file_part("a.wav", WAV), field("bitrate", "1")], "bitrate"),
    "an option repeated after the file": ([field("vbr", "2"), file_part("a.wav", WAV), field("vbr", "2")], "vbr"),
}


@pytest.mark.parametrize("what", INVALID_FORMS)
def test_upload_of_an_invalid_form_names_the_field(platform: Platform, me: Client, what: str) -> None:
    parts, field_name = INVALID_FORMS[what]
    assert field_name in me.post_form(parts).problem(422)["errors"]
    leaves_nothing(platform, me)


@pytest.mark.parametrize(
    ("query", "option"), [({"bitrate": "7"}, "bitrate"), ({"speed": "2"}, "speed"), ({"vbr": "x"}, "vbr")]
)
def test_upload_with_an_invalid_query(platform: Platform, me: Client, query: dict[str, str], option: str) -> None:
    answer = me.call("POST", f"/upload?{urlencode(query)}", WAV, {"Content-Type": "audio/wav"})
    assert option in answer.problem(422)["errors"]
    leaves_nothing(platform, me)


def test_upload_of_an_empty_body(platform: Platform, me: Client) -> None:
    assert "file" in me.upload_raw(b"").problem(422)["errors"]
    leaves_nothing(platform, me)


@pytest.mark.parametrize("type_", ["application/xml", "text/plain", "multipart/form-data", "image/png", ""])
def test_upload_of_an_unsupported_content_type(platform: Platform, me: Client, type_: str) -> None:
    me.call("POST", "/upload", WAV, {"Content-Type": type_}).problem(415)
    leaves_nothing(platform, me)


@pytest.mark.parametrize("content", [TEXT, b"\x89PNG\r\n\x1a\n" + bytes(1000), b"%PDF-1.7\n", b"PK\x03\x04", b"x"])
def test_upload_of_other_content_is_rejected_whatever_its_name(platform: Platform, me: Client, content: bytes) -> None:
    me.try_upload(BytesIO(content), "video.mp4").problem(415)
    me.upload_raw(content, "video/mp4", filename="video.mp4").problem(415)
    leaves_nothing(platform, me)


@pytest.mark.parametrize(
    "body",
    [
        file_part("a.wav", WAV),  # no closing boundary
        file_part("a.wav", WAV)[:-40],
        f"--{BOUNDARY}\r\nno header at all\r\n\r\nx\r\n--{BOUNDARY}--\r\n".encode(),
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=".encode() + b"x" * 3_000_000,
        field("bitrate", "6" * 20_000) + file_part("a.wav", WAV) + f"--{BOUNDARY}--\r\n".encode(),
        b"".join(field(f"f{n}", "") for n in range(100)) + file_part("a.wav", WAV) + f"--{BOUNDARY}--\r\n".encode(),
    ],
    ids=["no closing boundary", "truncated", "no header", "endless header", "huge field", "many fields"],
)
def test_upload_of_a_malformed_form(platform: Platform, me: Client, body: bytes) -> None:
    me.call("POST", "/upload", body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}).problem(400)
    leaves_nothing(platform, me)


def test_upload_can_be_restricted_to_admins(strict: Platform, admin: Client) -> None:
    user = Client(strict.url).sign_up()
    user.try_upload(BytesIO(WAV), "a.wav").problem(403)
    leaves_nothing(strict, user)
    assert admin.try_upload(BytesIO(WAV), "a.wav").status == 202


def test_upload_over_the_limit(strict: Platform, admin: Client) -> None:
    before = blobs_of(strict, admin.user)
    sizes: dict[str, Callable[[], Answer]] = {
        "by its length": lambda: admin.upload_raw(iter([WAV, bytes(10)]), size=50 << 20),
        "by its bytes": lambda: admin.upload_raw(each([WAV, *[bytes(10_000)] * 10])),
        "in a form": lambda: admin.try_upload(BytesIO(WAV + bytes(100_000)), "a.wav"),
    }
    for upload in sizes.values():
        assert "100000" in upload().problem(413)["detail"]
    assert set(blobs_of(strict, admin.user)) - set(before) <= {
        blob for blob in blobs_of(strict, admin.user) if blob[0] == "mp3s"
    }
    exact = WAV + bytes(100_000 - len(WAV))
    assert admin.upload_raw(exact).status == 202


def test_upload_whose_client_disconnects_leaves_nothing(platform: Platform, me: Client) -> None:
    parts = urlsplit(me.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as line:
        head = (
            f"POST /upload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {me.token}\r\n"
            "Content-Type: audio/wav\r\nContent-Length: 10000000\r\n\r\n"
        )
        line.sendall(head.encode() + WAV + bytes(1_000_000))
        wait_for(lambda: blobs_of(platform, me.user), "the upload to begin")
    wait_for(lambda: not blobs_of(platform, me.user), "the partial upload to be deleted")
    leaves_nothing(platform, me)


def test_unauthorized_upload_is_rejected_without_buffering_its_body(platform: Platform, me: Client) -> None:
    assert me.try_upload(BytesIO(WAV), "a.wav").status == 202  # starts a process to measure
    size = 300 << 20

    def content() -> Iterator[bytes]:
        for _ in range(size >> 20):
            yield bytes(1 << 20)

    pids = [pid for one in platform.instances("upload") for pid in (one["pid"], *descendants(one["pid"]))]
    before = {pid: peak_rss(pid) for pid in pids}
    headers = {"Content-Length": str(size), "Content-Type": "video/mp4"}
    me.call("POST", "/upload", content(), headers | {"Authorization": None}).problem(401)
    growth = [(peak_rss(pid) or 0) - (peak or 0) for pid, peak in before.items()]
    assert growth
    assert max(growth) < 16 << 20, f"grew by {max(growth) >> 20} MB"


def test_unauthorized_upload_is_rejected_before_its_body_is_sent(platform: Platform) -> None:
    """The response arrives after 64 kB of 300 MB, with Expect: 100-continue, as curl sends it, and without."""
    parts = urlsplit(platform.url)
    for expect in ("Expect: 100-continue\r\n", ""):
        head = f"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000000\r\n{expect}\r\n"
        with (
            socket.create_connection((parts.hostname or "", parts.port or 0), 10) as line,
            line.makefile("rb") as answer,
        ):
            line.sendall(head.encode() + bytes(1 << 16))
            lines = list(itertools.islice(answer, 3))
            assert [status for status in lines if status.startswith(b"HTTP/1.1 401 ")], (expect, lines)


# --- jobs


def test_job_has_the_fields_of_the_contract(done: dict[str, Any]) -> None:
    names = (
        "job fid filename status stage progress pieces eta mp3 duration options error error_code warning receipt"
        " created finished source tracks"
    )
    assert done.keys() == set(names.split())
    assert re.fullmatch("[0-9a-f]{32}", done["job"])
    assert re.fullmatch("[0-9a-f]{24}", done["fid"])
    assert re.fullmatch("[0-9a-f]{24}", done["mp3"])
    assert done["mp3"] != done["fid"]
    assert (done["status"], done["progress"], done["error"], done["warning"]) == ("done", 1.0, None, None)
    assert done["duration"] == pytest.approx(3, abs=0.15)
    assert done["filename"] == "Ärger & Spaß «» 日本.wav"
    created, finished = (datetime.fromisoformat(done[name]) for name in ("created", "finished"))
    assert created <= finished <= datetime.now(UTC)


def test_new_job(me: Client) -> None:
    accepted = me.upload(BytesIO(wave_bytes(1)), "a.wav")
    job = me.job(accepted["job"])
    assert job["status"] in ("uploaded", "converting", "done")
    if job["status"] != "done":
        assert (job["mp3"], job["finished"]) == (None, None)
        assert 0 <= job["progress"] <= 1


def test_jobs_are_listed_newest_first_in_pages(me: Client) -> None:
    assert me.jobs() == {"jobs": [], "next": None}
    uploaded = [me.upload(BytesIO(WAV), f"{n}.wav")["job"] for n in range(5)]
    newest = uploaded[::-1]
    assert [job["job"] for job in me.jobs()["jobs"]] == newest
    assert me.jobs()["next"] is None
    seen: list[str] = []
    pages: list[str | None] = []
    after: dict[str, object] = {}
    for _ in range(3):
        page = me.jobs(limit=2, **after)
        seen += [job["job"] for job in page["jobs"]]
        pages.append(page["next"])
        after = {"after": page["next"]}
    assert seen == newest
    assert pages == [newest[1], newest[3], None]
    assert me.jobs(limit=5)["next"] is None
    assert me.jobs(after=newest[4])["jobs"] == []
    assert me.call("GET", "/jobs/").status == 200


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "limit=nan", "limit=", "limit=-1"])
def test_list_rejects_an_invalid_limit(owner: Client, query: str) -> None:
    assert "limit" in owner.call("GET", f"/jobs?{query}").problem(422)["errors"]


def test_list_after_another_users_job_is_not_found(other_user: Client, done: dict[str, Any]) -> None:
    for after in (done["job"], "0" * 32, "x"):
        other_user.call("GET", f"/jobs?after={after}").problem(404)


@pytest.mark.parametrize("wait", ["-1", "26", "x", "inf", "nan", ""])
def test_job_rejects_an_invalid_wait(owner: Client, done: dict[str, Any], wait: str) -> None:
    assert "wait" in owner.call("GET", f"/jobs/{done['job']}?wait={wait}").problem(422)["errors"]


def test_wait_ends_when_the_status_changes(me: Client) -> None:
    job = me.upload(BytesIO(wave_bytes(20, 44100)), "a.wav")["job"]
    states = [me.job(job)["status"]]
    while states[-1] not in ("done", "failed"):
        before = time.monotonic()
        states.append(me.job(job, wait=25)["status"])
        assert time.monotonic() - before < 20
        assert states[-1] != states[-2], "the wait ended without a change"
    assert states[-1] == "done"


def follow(user: Client) -> Generator[dict[str, Any]]:
    """Yields the events of the user's jobs. A response ends after 25 s: the next goes on where it ended."""
    parts = urlsplit(user.url)
    last_id = ""
    while True:
        headers = {"Authorization": f"Bearer {user.token}"} | ({"Last-Event-ID": last_id} if last_id else {})
        with contextlib.closing(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)) as connection:
            connection.request("GET", "/jobs/events", headers=headers)
            response = connection.getresponse()
            assert response.headers["Content-Type"] == "text/event-stream"
            assert response.readline().startswith(b"retry: ")
            for line in iter(response.readline, b""):
                if line.startswith(b"id: "):
                    last_id = line[4:].decode().strip()
                if line.startswith(b"data: {"):
                    yield json.loads(line[6:])


def test_jobs_are_followed_from_the_upload_to_the_receipt(me: Client) -> None:
    events = follow(me)
    assert next(events) == {"jobs": []}
    video = wave_bytes(180, 44100)  # which takes longer than it takes to look
    job = me.upload(BytesIO(video), "a.wav")["job"]
    shown: list[dict[str, Any]] = []
    while not shown or shown[-1]["stage"] != "done":
        event = next(events)
        shown += [each for each in event.get("jobs", [event]) if each["job"] == job]
    events.close()
    stages = [each["stage"] for each in shown]
    assert stages[0] in ("waiting", "reading", "encoding")
    assert stages[-1] == "done"
    receipt = shown[-1]["receipt"]
    found = me.job(job)
    assert receipt == found["receipt"]
    assert (receipt["join"], receipt["pods"], found["pieces"], found["eta"]) == (None, 1, None, None)
    assert receipt["video_bytes"] == len(video)
    assert receipt["mp3_bytes"] == len(me.download(found["mp3"]).body)
    assert receipt["cpu"] > 0
    assert all(receipt[name] >= 0 for name in ("queue", "read", "encode"))


def test_wait_lasts_as_long_as_requested(platform: Platform, me: Client) -> None:
    job = me.upload(BytesIO(WAV), "a.wav")["job"]
    me.wait(job)
    with contextlib.closing(sqlite3.connect(platform.data / "mp3burst.db", timeout=10)) as database, database:
        database.execute("UPDATE jobs SET state = 'uploaded', finished_at = NULL WHERE id = ?", (job,))
    before = time.monotonic()
    assert me.job(job, wait=1.5)["status"] == "uploaded"
    assert 1.4 < time.monotonic() - before < 6
    me.call("DELETE", f"/jobs/{job}")


def test_wait_for_a_finished_job_returns_at_once(owner: Client, done: dict[str, Any]) -> None:
    before = time.monotonic()
    assert owner.job(done["job"], wait=25)["status"] == "done"
    assert time.monotonic() - before < 5


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_another_users_job_is_not_found(owner: Client, other_user: Client, done: dict[str, Any], method: str) -> None:
    bodies = set()
    for job in (done["job"], "0" * 32, "x", quote("'; DROP TABLE jobs"), done["job"].upper(), "%00"):
        answer = other_user.call(method, f"/jobs/{job}")
        answer.problem(404)
        bodies.add(answer.body)
    assert len(bodies) == 1
    assert owner.job(done["job"]) == done
    assert done["job"] not in {job["job"] for job in other_user.jobs()["jobs"]}


def test_waveform_in_the_format_of_audiowaveform(owner: Client, other_user: Client, done: dict[str, Any]) -> None:
    path = f"/jobs/{done['job']}/waveform"
    answer = owner.call("GET", path)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    found = answer.json()
    data = found.pop("data")
    size = found["samples_per_pixel"]
    length = -(-3 * 8000 // size)
    expected = {"version": 2, "channels": 1, "sample_rate": 8000, "samples_per_pixel": size, "bits": 8}
    assert found == {**expected, "length": length}
    samples = memoryview(wave_bytes(3)[44:]).cast("h")
    points = [samples[at : at + size] for at in range(0, len(samples), size)]
    assert data == pytest.approx([one(point) / 256 for point in points for one in (min, max)], abs=1)
    known = owner.call("GET", path, None, {"If-None-Match": answer.headers["ETag"]})
    assert (known.status, known.body, known.headers["Cache-Control"]) == (304, b"", "private, no-cache")
    other_user.call("GET", path).problem(404)


def test_mp3_without_a_waveform(me: Client, tmp_path: Path) -> None:
    copied = clips.clip(tmp_path / "copied.mp3", seconds=1)
    with copied.open("rb") as content:
        job = me.convert(content, "copied.mp3")
    assert "waveform" in me.call("GET", f"/jobs/{job['job']}/waveform").problem(404)["detail"]
    failed = me.convert(BytesIO(WAV), "a.wav", {"start": "100"})
    me.call("GET", f"/jobs/{failed['job']}/waveform").problem(409)


def test_deleting_a_job_deletes_its_mp3(me: Client) -> None:
    job = me.convert(BytesIO(WAV), "a.wav")
    assert me.download(job["mp3"]).status == 200
    deleted = me.call("DELETE", f"/jobs/{job['job']}")
    assert (deleted.status, deleted.body) == (204, b"")
    me.call("GET", f"/jobs/{job['job']}").problem(404)
    me.call("DELETE", f"/jobs/{job['job']}").problem(404)
    me.download(job["mp3"]).problem(404)
    assert me.jobs()["jobs"] == []


def test_wait_ends_when_the_job_is_deleted(me: Client) -> None:
    job = me.upload(BytesIO(wave_bytes(60, 44100)), "a.wav")["job"]
    answers: list[int] = []
    waiting = threading.Thread(target=lambda: answers.extend(_poll_until_deleted(me, job)))
    waiting.start()
    assert me.call("DELETE", f"/jobs/{job}").status == 204
    waiting.join(30)
    assert answers[-1] == 404
    assert me.jobs()["jobs"] == []


def _poll_until_deleted(user: Client, job: str) -> Iterator[int]:
    for _ in range(100):
        answer = user.call("GET", f"/jobs/{job}?wait=25")
        yield answer.status
        if answer.status != 200:
            return


# --- download


def test_download(owner: Client, done: dict[str, Any], mp3: bytes) -> None:
    answer = owner.download(done["mp3"])
    assert answer.status == 200
    headers = answer.headers
    assert headers["Content-Type"] == "audio/mpeg"
    assert int(headers["Content-Length"]) == len(mp3) == len(answer.body)
    assert headers["Accept-Ranges"] == "bytes"
    assert re.fullmatch('"[^"]+"', headers["ETag"])
    assert mp3.startswith(b"ID3\x03")
    disposition = headers["Content-Disposition"]
    assert disposition.startswith("attachment;")
    assert "filename*=UTF-8''" + quote("Ärger & Spaß «» 日本.mp3", safe="") in disposition
    assert 'filename="Arger & Spa' in disposition


def test_several_mp3s_are_one_zip_file_that_can_be_resumed(me: Client, done: dict[str, Any]) -> None:
    jobs = [me.convert(BytesIO(WAV), name) for name in ("talk.wav", "talk.wav", "ünî.wav")]
    path = f"/jobs.zip?ids={','.join(job['job'] for job in jobs)}"
    answer = me.call("GET", path)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/zip")
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    with zipfile.ZipFile(BytesIO(answer.body)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["talk.mp3", "talk (2).mp3", "ünî.mp3"]
        assert [archive.read(name) for name in archive.namelist()] == [me.download(job["mp3"]).body for job in jobs]
    conditions = {"Range": "bytes=5000-", "If-Range": answer.headers["ETag"]}
    rest = me.call("GET", path, None, conditions)
    assert (rest.status, rest.body) == (206, answer.body[5000:])
    assert me.call("HEAD", path).headers["Content-Length"] == answer.headers["Content-Length"]
    me.call("PATCH", f"/jobs/{jobs[0]['job']}/tags", b'{"title": "Other"}', JSON)
    changed = me.call("GET", path, None, conditions)
    assert changed.status == 200
    with zipfile.ZipFile(BytesIO(changed.body)) as archive:
        assert archive.read("talk.mp3") == me.download(jobs[0]["mp3"]).body
    me.call("GET", "/jobs.zip").problem(422)
    me.call("GET", "/jobs.zip?ids=,").problem(422)
    me.call("GET", f"{path},{done['job']}").problem(404)


def test_new_tags_do_not_touch_the_sound(owner: Client, me: Client) -> None:
    job = me.convert(BytesIO(WAV), "tagged.wav")
    path = f"/jobs/{job['job']}/tags"
    before = me.download(job["mp3"])
    etag = before.headers["ETag"]
    assert me.call("GET", path).json()["title"] == "tagged"
    cover = base64.b64encode(b"\xff\xd8\xff" + bytes(200_000)).decode()  # more than other functions accept

    answer = me.call("PATCH", path, json.dumps({"title": "Other", "cover": cover}).encode(), JSON)

    assert answer.status == 200
    assert (answer.json()["title"], answer.json()["cover"]["size"]) == ("Other", 200_003)
    after = me.download(job["mp3"])
    assert after.body.endswith(before.body[tags.size_of(before.body) :])
    assert tags.read(after.body[: tags.size_of(after.body)]).fields["title"] == "Other"
    assert me.job(job["job"])["receipt"]["mp3_bytes"] == len(after.body)
    assert me.download(job["mp3"], Range="bytes=9-", If_Range=etag).status == 200
    part = me.download(job["mp3"], Range="bytes=199000-201000", If_Range=after.headers["ETag"])
    assert (part.status, part.body) == (206, after.body[199000:201001])
    me.call("PATCH", path, b'{"title": 7}', JSON).problem(422)
    me.call("PATCH", path, b'{"chapters": [{}]}', JSON).problem(422)
    owner.call("GET", path).problem(404)
    owner.call("PATCH", path, b'{"title": "Mine"}', JSON).problem(404)


def test_mp3_is_split_into_jobs_of_their_own(owner: Client, me: Client) -> None:
    job = me.convert(BytesIO(WAV), "long talk.wav")
    path = f"/jobs/{job['job']}/split"
    answer = me.call("POST", path, b'{"at": [0.4], "titles": ["Intro", "Talk"]}', JSON)
    assert answer.status == 201
    parts = answer.json()["parts"]
    assert [part["filename"] for part in parts] == ["long talk - 1 Intro.mp3", "long talk - 2 Talk.mp3"]
    assert me.call("POST", path, b'{"at": [0.4]}', JSON).json()["parts"] == parts
    found = [me.job(part["job"]) for part in parts]
    assert {(each["status"], each["source"]) for each in found} == {("done", job["job"])}
    assert sum(each["duration"] for each in found) == pytest.approx(job["duration"], abs=0.001)
    mp3s = [me.download(part["mp3"]).body for part in parts]
    assert [tags.read(mp3[: tags.size_of(mp3)]).fields["title"] for mp3 in mp3s] == ["Intro", "Talk"]
    assert me.download(parts[1]["mp3"], Range="bytes=100-3000").body == mp3s[1][100:3001]
    owner.call("POST", path, b'{"at": [0.4]}', JSON).problem(404)
    me.call("POST", path, b'{"at": "chapters"}', JSON).problem(422)
    assert me.call("DELETE", f"/jobs/{job['job']}").status == 204
    archive = me.call("GET", f"/jobs.zip?ids={','.join(part['job'] for part in parts)}").body
    with zipfile.ZipFile(BytesIO(archive)) as several:
        assert [several.read(name) for name in several.namelist()] == mp3s


def test_preset_stands_for_its_options(me: Client, owner: Client) -> None:
    path = "/presets/" + quote("My talks")
    assert me.call("PUT", path, b'{"options": {"bitrate": "64k", "volume": "-3dB"}}', JSON).status == 200
    assert me.call("PUT", path, b'{"options": {"bitrate": "64k", "mono": "true", "vbr": ""}}', JSON).status == 200
    mine = {"name": "My talks", "options": {"bitrate": "64k", "mono": "true"}, "origin": "user"}
    found = me.call("GET", "/presets").json()["presets"]
    assert found[0] == mine
    assert {"name": "best", "options": {"bitrate": "320k"}, "origin": "server"} in found
    form = [field("preset", "My talks"), field("volume", "2"), file_part("a.wav", WAV)]
    job = me.job(me.post_form(form).json()["job"])
    assert job["options"] == {"bitrate": 64, "mono": True, "volume": 2.0}
    wanted = {"seconds": 10, "options": {"preset": "My talks"}}
    assert me.post_json("/estimate", wanted).json()["mp3_bytes"] == 80_000
    for problem in (
        owner.post_form([field("preset", "My talks"), file_part("a.wav", WAV)]).problem(422),
        me.post_form([file_part("a.wav", WAV), field("preset", "My talk")]).problem(422),
        owner.call("POST", "/estimate", json.dumps(wanted).encode(), JSON).problem(422),
    ):
        assert problem["detail"] == "There is no such preset: GET /presets lists them."
    me.call("PUT", path, b'{"options": {"preset": "best"}}', JSON).problem(422)
    me.call("PUT", "/presets/a%09b", b'{"options": {}}', JSON).problem(422)
    assert me.call("DELETE", path).status == 204
    me.call("GET", path).problem(404)
    me.call("DELETE", path).problem(404)


def test_link_downloads_an_mp3_without_a_login_until_it_is_deleted(owner: Client, me: Client) -> None:
    job = me.convert(BytesIO(WAV), "talk.wav")
    mp3 = me.download(job["mp3"]).body
    answer = me.post_json("/links", {"job": job["job"], "expires_in": 3600})
    link = answer.json()
    path = link["url"].removeprefix(me.url)
    anyone = Client(me.url)
    assert anyone.call("GET", path).body == mp3
    part = anyone.call("GET", path, None, {"Range": "bytes=100-199"})
    assert (part.status, part.body) == (206, mp3[100:200])
    assert anyone.call("HEAD", path).headers["Content-Length"] == str(len(mp3))
    listed = me.call("GET", "/links").json()["links"]
    assert listed == [{name: value for name, value in link.items() if name != "url"}]
    owner.post_json("/links", {"job": job["job"]}).problem(404)
    owner.call("DELETE", answer.headers["Location"]).problem(404)
    assert me.call("DELETE", answer.headers["Location"]).status == 204
    assert "ask for another one" in anyone.call("GET", path).problem(401)["detail"]
    me.post_json("/links", {"job": job["job"], "expires_in": 59}).problem(422)
    broken = me.convert(BytesIO(WAV[:20]), "broken.wav")
    me.post_json("/links", {"job": broken["job"]}).problem(409)


def test_podcast_client_plays_a_private_feed(me: Client) -> None:
    job = me.convert(BytesIO(WAV), "R&D <talk>.wav")
    me.upload(BytesIO(WAV[:20]), "broken.wav")
    url = me.call("POST", "/feed").json()["url"].removeprefix(me.url)
    anyone = Client(me.url)
    answer = anyone.call("GET", url)
    feed = feedparser.parse(answer.body, response_headers={"content-type": answer.headers["Content-Type"]})
    assert (feed.bozo, feed.version, feed.feed.itunes_block) == (False, "rss20", 1)
    [entry] = feed.entries
    assert (entry.title, entry.id, entry.itunes_duration) == ("R&D <talk>", job["mp3"], "1")
    mp3 = me.download(job["mp3"]).body
    in_gpodder = podcastparser.parse(me.url + url, BytesIO(answer.body))  # the parser of gPodder
    [episode] = in_gpodder["episodes"]
    assert (episode["title"], episode["guid"], episode["total_time"]) == (entry.title, entry.id, 1)
    [enclosure] = entry.enclosures
    assert episode["enclosures"] == [
        {"url": enclosure.href, "file_size": len(mp3), "mime_type": "audio/mpeg"},
    ]
    assert (enclosure.type, int(enclosure.length)) == ("audio/mpeg", len(mp3))
    path = enclosure.href.removeprefix(me.url)
    assert anyone.call("GET", path).body == mp3
    assert anyone.call("HEAD", path).headers["Content-Length"] == str(len(mp3))
    assert anyone.call("GET", path, None, {"Range": "bytes=5-9"}).body == mp3[5:10]
    assert anyone.call("GET", url, None, {"If-None-Match": answer.headers["ETag"]}).status == 304
    other = me.call("POST", "/feed").json()["url"].removeprefix(me.url)
    assert anyone.call("GET", other).status == 200
    anyone.call("GET", url).problem(401)
    anyone.call("GET", path).problem(401)
    assert me.call("DELETE", "/feed").status == 204
    anyone.call("GET", other).problem(401)


def test_estimate_is_based_on_jobs(me: Client) -> None:
    job = me.convert(BytesIO(wave_bytes(11, 44100)), "a.wav", {"bitrate": "128k"})
    found = me.post_json("/estimate", {"seconds": job["duration"], "options": {"bitrate": "128k"}}).json()
    assert found["mp3_bytes"] == pytest.approx(job["receipt"]["mp3_bytes"], rel=0.05)
    assert found["cpu"] == pytest.approx(job["receipt"]["cpu"], rel=0.01)
    assert (found["jobs"], found["seconds"] > 0) == (1, True)
    problem = me.post_json("/estimate", {"seconds": 10, "options": {"bitrate": "17"}}).problem(422)
    assert problem["errors"] == {"bitrate": problem["detail"]}
    me.post_json("/estimate", {"seconds": 0}).problem(422)


def test_download_head(owner: Client, done: dict[str, Any]) -> None:
    get = owner.download(done["mp3"])
    head = owner.download(done["mp3"], "HEAD")
    assert (head.status, head.body) == (200, b"")
    for name in ("Content-Length", "Content-Type", "ETag", "Accept-Ranges", "Content-Disposition"):
        assert head.headers[name] == get.headers[name]
    ranged = owner.download(done["mp3"], "HEAD", Range="bytes=0-9")
    assert (ranged.status, ranged.headers["Content-Length"], ranged.body) == (206, "10", b"")


@pytest.mark.parametrize(
    ("requested", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=10-99", 10, 99),
        ("bytes=1000-", 1000, None),
        ("bytes=-1", -1, None),
        ("bytes=-500", -500, None),
        ("bytes=-99999999", 0, None),
        ("bytes=5-99999999", 5, None),
        ("BYTES=7-8", 7, 8),
    ],
)
def test_download_a_range(
    owner: Client, done: dict[str, Any], mp3: bytes, requested: str, first: int, last: int | None
) -> None:
    answer = owner.download(done["mp3"], Range=requested)
    assert answer.status == 206
    start = first if first >= 0 else len(mp3) + first
    end = len(mp3) - 1 if last is None else last
    assert answer.body == mp3[start : end + 1]
    assert answer.headers["Content-Range"] == f"bytes {start}-{end}/{len(mp3)}"
    assert answer.headers["Content-Length"] == str(end - start + 1)


@pytest.mark.parametrize(
    "requested", ["bytes=5-2", "lines=0-1", "bytes=", "bytes=a-b", "bytes=0-1,5-6", "bytes=--5", "bytes", "bytes=-"]
)
def test_download_ignores_invalid_and_multiple_ranges(
    owner: Client, done: dict[str, Any], mp3: bytes, requested: str
) -> None:
    answer = owner.download(done["mp3"], Range=requested)
    assert answer.status == 200
    assert answer.body == mp3


@pytest.mark.parametrize("requested", ["bytes=99999999-", "bytes=99999999-100000000", "bytes=-0"])
def test_download_of_a_range_beyond_the_end(owner: Client, done: dict[str, Any], mp3: bytes, requested: str) -> None:
    answer = owner.download(done["mp3"], Range=requested)
    answer.problem(416)
    assert answer.headers["Content-Range"] == f"bytes */{len(mp3)}"


def test_download_if_none_match(owner: Client, done: dict[str, Any], mp3: bytes) -> None:
    etag = owner.download(done["mp3"], "HEAD").headers["ETag"]
    for given in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = owner.download(done["mp3"], If_None_Match=given)
        assert (answer.status, answer.body) == (304, b""), given
        assert answer.headers["ETag"] == etag
    assert owner.download(done["mp3"], "HEAD", If_None_Match=etag).status == 304
    assert owner.download(done["mp3"], If_None_Match=etag, Range="bytes=0-1").status == 304
    assert owner.download(done["mp3"], If_None_Match='"other"').body == mp3


def test_download_if_range(owner: Client, done: dict[str, Any], mp3: bytes) -> None:
    etag = owner.download(done["mp3"], "HEAD").headers["ETag"]
    assert owner.download(done["mp3"], Range="bytes=9-", If_Range=etag).body == mp3[9:]
    for other in ('"other"', f"W/{etag}", "Wed, 21 Oct 2015 07:28:00 GMT"):
        answer = owner.download(done["mp3"], Range="bytes=9-", If_Range=other)
        assert (answer.status, answer.body) == (200, mp3), other


def test_download_finds_only_the_users_own_mp3s(owner: Client, other_user: Client, done: dict[str, Any]) -> None:
    other_user.download(done["mp3"]).problem(404)
    other_user.download(done["mp3"], Range="bytes=0-1").problem(404)
    assert other_user.download(done["mp3"], "HEAD").status == 404
    for fid in (done["fid"], done["job"], new_blob_id(), "../../etc/passwd", "x", done["mp3"].upper(), "日本", "\0"):
        owner.download(fid).problem(404)


def test_download_requires_a_fid(owner: Client) -> None:
    assert "fid" in owner.call("GET", "/download").problem(422)["errors"]
    owner.call("GET", "/download?fid=").problem(422)


@pytest.fixture(scope="module")
def link(platform: Platform, done: dict[str, Any]) -> str:
    """The path and query of the link in the mail."""
    text = mail_text(platform, done["job"])
    (url,) = re.findall(r"^http://\S+/download\S+", text, re.MULTILINE)
    assert url.startswith(f"{platform.url}/download?")
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def mails_of(platform: Platform, job: str) -> list[Path]:
    return list((platform.data / "mail").glob(f"*{job}*.eml"))


def mail_text(platform: Platform, job: str) -> str:
    (path,) = wait_for(lambda: mails_of(platform, job), "the mail")
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    body = message.get_body(("plain",))
    assert body is not None
    text: str = body.get_content()
    return text


def test_download_with_the_link_in_the_mail(platform: Platform, link: str, mp3: bytes) -> None:
    anonymous = Client(platform.url)
    assert anonymous.call("GET", link).body == mp3
    assert anonymous.call("HEAD", link).status == 200
    ranged = anonymous.call("GET", link, None, {"Range": "bytes=3-5"})
    assert (ranged.status, ranged.body) == (206, mp3[3:6])


def test_download_rejects_a_modified_link(platform: Platform, owner: Client, link: str) -> None:
    anonymous = Client(platform.url)
    other = owner.convert(BytesIO(WAV), "other.wav")["mp3"]
    query = parse_qs(urlsplit(link).query)
    token = query["token"][0]
    fid = query["fid"][0]
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "==")) | {"fid": other}
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    for path in (
        f"/download?fid={other}&token={token}",
        f"/download?fid={other}&token={head}.{forged}.{signature}",
        f"/download?fid={fid}&token={token[:-3]}",
        f"/download?fid={fid}&token={unsigned(token)}",
        f"/download?fid={fid}&token={owner.token}",
        f"/download?fid={fid}&token=",
        f"/download?fid={fid}",
    ):
        anonymous.call("GET", path).problem(401)
    anonymous.call("GET", f"/download?token={token}").problem(422)
    # A link cannot be used as an access token.
    Client(platform.url, token).call("GET", "/jobs").problem(401)
    Client(platform.url, token).download(fid).problem(401)


# --- everything else


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/register/x",
        "/login/x",
        "/validate/x",
        "/upload/x",
        "/uploads",
        "/jobs/a/b",
        "/download/x",
        "/convert",
        "/notify",
        "/sweep",
        "/bury",
        "/.well-known/other",
        "//upload",
        "/jobs//",
        "/upload/../sweep",
    ],
)
def test_other_paths_are_not_found(owner: Client, path: str) -> None:
    for method in ("GET", "POST"):
        owner.call(method, path, b"" if method == "POST" else None).problem(404)


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [
        ("/register", "GET", {"POST"}),
        ("/login", "GET", {"POST"}),
        ("/validate", "GET", {"POST"}),
        ("/upload", "GET", {"POST"}),
        ("/upload", "PUT", {"POST"}),
        ("/jobs", "POST", {"GET", "HEAD"}),
        ("/jobs", "DELETE", {"GET", "HEAD"}),
        ("/jobs/x", "PATCH", {"GET", "HEAD", "DELETE"}),
        ("/jobs/x/waveform", "DELETE", {"GET", "HEAD"}),
        ("/download", "POST", {"GET", "HEAD"}),
        ("/.well-known/jwks.json", "POST", {"GET", "HEAD"}),
        ("/.well-known/jwks.json", "DELETE", {"GET", "HEAD"}),
    ],
)
def test_other_methods_are_not_allowed(owner: Client, path: str, method: str, allow: set[str]) -> None:
    answer = owner.call(method, path, None if method in ("GET", "DELETE") else b"")
    answer.problem(405)
    assert set(answer.headers["Allow"].replace(" ", "").split(",")) == allow


def test_functions_answer_at_their_own_host_names(platform: Platform, owner: Client) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", platform.port, timeout=30)) as line:
        line.request("GET", "/jobs", headers={"Host": "status.localhost", "Authorization": f"Bearer {owner.token}"})
        assert line.getresponse().status == 200
    for name in ("convert", "notify", "sweep", "bury"):  # handle events only
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", platform.port, timeout=30)) as line:
            line.request("POST", "/", b"{}", headers={"Host": f"{name}.localhost"})
            assert line.getresponse().status == 404


def test_nobody_else_can_read_what_is_stored(platform: Platform, owner: Client, done: dict[str, Any]) -> None:
    """The platform runs with the umask 0 in a directory that was open to all."""
    mails = platform.data / "mail"
    wait_for(lambda: [*mails.glob(f"{done['job']}.*")], "the mail")
    stored = [platform.data, *platform.data.rglob("*")]
    assert {"mp3burst.db", "mp3burst.db-wal", "broker.db", "platform.sock", "old.eml", "link"} <= {
        p.name for p in stored
    }
    assert owner.user in "".join(path.read_text() for path in platform.data.rglob("stat.json"))
    assert [str(path) for path in stored if path.stat().st_mode & 0o077] == []

"""Accounts and API keys, against real processes."""

import email
import email.policy
import json
import re
import sqlite3
import zipfile
from base64 import b64encode
from collections.abc import Callable
from contextlib import closing
from io import BytesIO
from urllib.parse import urlencode

from tests.e2e.client import PASSWORD, Answer, Client, wave_bytes
from tests.support.platform import Platform
from tests.support.processes import wait_for

WAV = wave_bytes(0.5)


def key_of(me: Client, *scopes: str, **form: object) -> tuple[Client, str]:
    """Creates a key; returns a client that uses it, and its id."""
    answer = me.post_json("/keys", {"name": "test", "scopes": scopes, **form})
    assert answer.status == 201, answer.body
    created = answer.json()
    assert answer.headers["Location"] == f"/keys/{created['id']}"
    return Client(me.url, created["key"], me.username, me.user), created["id"]


def test_key_works_wherever_a_token_does(me: Client) -> None:
    program, key = key_of(me, "upload", "read", "delete", "account")
    job = program.convert(BytesIO(WAV), "a.wav")
    assert program.jobs()["jobs"][0]["job"] == job["job"]
    assert program.download(job["mp3"]).status == 200
    program.upload_in_parts(BytesIO(WAV), {"filename": "b.wav"})
    claims = program.call("POST", "/validate", b"").json()
    assert (claims["sub"], claims["username"], claims["scope"]) == (me.user, me.username, "account delete read upload")
    assert program.call("POST", "/confirm/again", b"").json() == {"confirmed": True}
    assert program.call("DELETE", f"/jobs/{job['job']}").status == 204
    [listed] = program.call("GET", "/keys").json()["keys"]
    assert "key" not in listed
    assert (listed["id"], listed["name"], listed["expires"]) == (key, "test", None)
    assert listed["last_used"] in (listed["created"][:10], None) or listed["last_used"] > listed["created"][:10]
    program.post_json("/keys", {"name": "more", "scopes": ["read"]}).problem(403)


def test_key_does_only_what_its_scopes_say(me: Client) -> None:
    job = me.convert(BytesIO(WAV), "a.wav")
    calls: dict[str, Callable[[Client], Answer]] = {
        "upload": lambda client: client.try_upload(BytesIO(WAV), "b.wav"),
        "read": lambda client: client.call("GET", f"/jobs/{job['job']}"),
        "account": lambda client: client.call("GET", "/keys"),
        "delete": lambda client: client.call("DELETE", f"/jobs/{job['job']}"),
    }
    for scope in calls:
        program, _ = key_of(me, scope)
        for other, call in calls.items():
            if other != scope:
                assert f"scope {other}" in call(program).problem(403)["detail"]
    for scope, call in calls.items():
        program, _ = key_of(me, scope)
        assert call(program).status in (200, 202, 204)


def test_key_without_the_scope_account_creates_no_feed(me: Client) -> None:
    program, _ = key_of(me, "upload", "read", "delete")
    assert "scope account" in program.call("POST", "/feed").problem(403)["detail"]


def test_deleted_key_is_refused(platform: Platform, me: Client) -> None:
    program, key = key_of(me, "read", "account")
    assert program.call("GET", "/keys").status == 200
    Client(platform.url).sign_up().call("DELETE", f"/keys/{key}").problem(404)
    assert me.call("DELETE", f"/keys/{key}").status == 204
    program.call("GET", "/keys").problem(401)
    program.call("GET", "/jobs").problem(401)
    me.call("DELETE", f"/keys/{key}").problem(404)


def test_key_must_be_described(me: Client) -> None:
    forms: list[tuple[dict[str, object], set[str]]] = [
        ({}, {"name", "scopes"}),
        ({"name": "", "scopes": []}, {"name", "scopes"}),
        ({"name": 1, "scopes": "read"}, {"name", "scopes"}),
        ({"name": "a", "scopes": ["write"]}, {"scopes"}),
        ({"name": " ", "scopes": ["read"]}, {"name"}),
        ({"name": "a\nb", "scopes": ["read"]}, {"name"}),
    ]
    for form, invalid in forms:
        assert me.post_json("/keys", form).problem(422)["errors"].keys() == invalid
    for seconds in (0, -1, 1.5, "60", 10**12, True):
        assert me.post_json("/keys", {"name": "a", "scopes": ["read"], "expires_in": seconds}).problem(422)[
            "errors"
        ].keys() == {"expires_in"}
    program, _ = key_of(me, "read", expires_in=60)
    assert program.jobs()["jobs"] == []


def change(client: Client, method: str, path: str, **form: object) -> Answer:
    return client.call(method, path, json.dumps(form).encode(), {"Content-Type": "application/json"})


def test_account_says_what_is_used_and_left(me: Client) -> None:
    before = me.call("GET", "/me").json()
    assert (before["id"], before["username"], before["name"]) == (me.user, me.username, "Ada")
    assert (before["email"], before["confirmed"], before["role"]) == (me.username, True, "user")
    assert before["usage"] == {
        "bytes": 0,
        "bytes_limit": 20_000_000_000,
        "bytes_left": 20_000_000_000,
        "jobs": 0,
        "jobs_limit": 200,
        "jobs_left": 200,
    }
    job = me.convert(BytesIO(WAV), "a.wav")
    size = len(WAV) + len(me.download(job["mp3"]).body)
    usage = me.call("GET", "/me").json()["usage"]
    assert (usage["bytes"], usage["bytes_left"], usage["jobs"]) == (size, 20_000_000_000 - size, 0)


def test_name_and_address_are_changed(me: Client) -> None:
    assert change(me, "PATCH", "/me", name=" Ann ").json()["name"] == "Ann"
    change(me, "PATCH", "/me", email="ann@example.org").problem(403)
    changed = change(me, "PATCH", "/me", email="ann@example.org", password=PASSWORD)
    assert changed.json()["email"] == me.call("GET", "/me").json()["email"] == "ann@example.org"
    assert change(me, "PATCH", "/me", name="").problem(422)["errors"].keys() == {"name"}
    for wrong in ("ann", "ann@localhost", "ann@[127.0.0.1]", "x" * 300 + "@example.org"):
        assert change(me, "PATCH", "/me", email=wrong, password=PASSWORD).problem(422)["errors"].keys() == {"email"}
    assert change(me, "PATCH", "/me").json()["name"] == "Ann"


def test_new_password_ends_every_session(me: Client) -> None:
    other = me.log_in()
    program, _ = key_of(me, "account")
    assert other.jobs()["jobs"] == []
    change(me, "POST", "/me/password", old="wrong horse", new="another horse").problem(403)
    for bad in ("12345678", me.username, "short"):
        assert change(me, "POST", "/me/password", old=PASSWORD, new=bad).problem(422)["errors"].keys() == {"new"}
    assert change(me, "POST", "/me/password", old=PASSWORD, new="another horse").status == 204
    for client in (me, other):
        client.call("GET", "/me").problem(401)
        client.call("GET", "/download?fid=0").problem(401)
    assert program.call("GET", "/me").status == 200, "keys stay"
    me.login(me.username, PASSWORD).problem(401)
    answer = me.login(me.username, "another horse")
    new = Client(me.url, answer.json()["token"])
    assert new.call("GET", "/me").status == new.call("GET", "/jobs").status == 200, "also where the old one is known"


def test_guesses_of_the_own_password_are_limited(me: Client) -> None:
    statuses = {change(me, "POST", "/me/password", old=f"wrong {n}", new="another horse").status for n in range(8)}
    assert statuses == {403, 429}
    change(me, "POST", "/me/deletion", password=PASSWORD).problem(429)


def test_logging_out_everywhere(me: Client) -> None:
    other = me.log_in()
    assert other.call("DELETE", "/sessions").status == 204
    for client in (me, other):
        client.call("GET", "/me").problem(401)
    assert me.log_in().call("GET", "/me").status == 200


def test_deleted_account_leaves_nothing(platform: Platform, me: Client) -> None:
    program, _ = key_of(me, "read", "account")
    job = me.convert(BytesIO(WAV), "a.wav")
    change(me, "POST", "/me/deletion", password="wrong horse").problem(403)
    assert change(me, "POST", "/me/deletion", password=PASSWORD).status == 204
    for client in (me, program):
        client.call("GET", "/me").problem(401)
        client.call("GET", f"/download?fid={job['mp3']}").problem(401)
    me.login(me.username, PASSWORD).problem(401)
    with closing(sqlite3.connect(platform.data / "mp3burst.db")) as database:
        for query in (
            "SELECT id FROM jobs WHERE owner = ?",
            "SELECT id FROM api_keys WHERE owner = ?",
            "SELECT id FROM mails WHERE owner = ?",
            "SELECT id FROM blobs WHERE owner = ? AND expires_at IS NULL",
            "SELECT id FROM users WHERE id = ? AND deleted_at IS NULL",
        ):
            assert database.execute(query, (me.user,)).fetchall() == [], query
    again = me.register(name="Ada", username=me.username, password=PASSWORD)
    assert again.status == 201
    assert again.json()["id"] != me.user


def reset_link(platform: Platform, address: str) -> str:
    """Waits for the mail that resets a password; returns the path and the query of its link."""

    def links() -> list[str]:
        texts = [path.read_text() for path in (platform.data / "mail").glob("*.eml")]
        mine = [email.message_from_string(text, policy=email.policy.default) for text in texts if address in text]
        bodies = [mail.get_body(("plain",)) for mail in mine if mail["Subject"] == "Reset your password"]
        return [link for body in bodies if body for link in re.findall(r"(/password-reset/new\S+)", body.get_content())]

    wait_for(lambda: bool(links()), "the mail", 60)
    [link] = links()
    return link


def test_forgotten_password_is_reset_once(platform: Platform, me: Client) -> None:
    anonymous = Client(platform.url)
    answers = [anonymous.post_json("/password-reset", {"username": name}) for name in (me.username, "nobody at all")]
    assert [(answer.status, answer.body) for answer in answers] == [(202, b"")] * 2
    link = reset_link(platform, me.username)
    page = anonymous.call("GET", link)
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b'type="password"' in page.body
    assert page.headers["Referrer-Policy"] == "no-referrer"
    program, _ = key_of(me, "read")

    def reset(password: str, to: str = link) -> Answer:
        return post_form(anonymous, to, password=password)

    for bad in ("", "12345678", me.username):
        assert reset(bad).status == 422
    assert reset("another horse", link[:-4] + "AAAA").status == 401
    assert reset("another horse").status == 200
    assert reset("a third horse").status == 401
    me.call("GET", "/me").problem(401)
    me.login(me.username, PASSWORD).problem(401)
    assert me.login(me.username, "another horse").status == 200
    program.call("GET", "/jobs").problem(401)


def test_link_works_only_while_the_user_has_the_address_that_it_was_sent_to(platform: Platform, me: Client) -> None:
    anonymous = Client(platform.url)
    anonymous.post_json("/password-reset", {"username": me.username})
    link = reset_link(platform, me.username)
    program, _ = key_of(me, "read")
    move_to(me, f"new-{me.username}")
    assert post_form(anonymous, link, password="another horse").status == 401
    assert me.login(me.username, PASSWORD).status == 200
    move_to(me, me.username)
    assert post_form(anonymous, link, password="another horse", keep_keys="true").status == 200
    assert me.login(me.username, "another horse").status == 200
    assert program.call("GET", "/jobs").status == 200


def move_to(me: Client, address: str) -> None:
    assert change(me, "PATCH", "/me", email=address, password=PASSWORD).status == 200


def post_form(client: Client, path: str, **fields: str) -> Answer:
    return client.call("POST", path, urlencode(fields).encode(), {"Content-Type": "application/x-www-form-urlencoded"})


class Browser:
    """A browser with a session on the installation's own pages, unless its requests say otherwise."""

    def __init__(self, me: Client, name: str = "browser") -> None:
        self._client = Client(me.url)
        basic = b64encode(f"{me.username}:{PASSWORD}".encode()).decode()
        headers = {"Authorization": f"Basic {basic}", "Origin": me.url, "User-Agent": name}
        answer = self._client.call("POST", "/login?cookie=true", b"", headers)
        assert answer.status == 200, answer.body
        assert answer.json()["token"] is None
        self.cookie = answer.headers["Set-Cookie"]

    def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._client.call(method, path, body, {"Cookie": f"a=b; {self.cookie.partition(';')[0]}", **sent})


def test_session_in_a_browser(me: Client) -> None:
    browser = Browser(me)
    name, *attributes = browser.cookie.split("; ")
    assert name.startswith("mp3burst=")
    assert {"HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=86400"} == set(attributes)
    assert browser.call("GET", "/me").json()["username"] == me.username
    wav = {"Content_Type": "audio/wav"}
    upload = browser.call("POST", "/upload?filename=a.wav", WAV, Origin=me.url, **wav)
    assert upload.status == 202
    job = me.wait(upload.json()["job"])
    assert browser.call("GET", f"/jobs/{job['job']}").json() == job
    assert browser.call("GET", f"/download?fid={job['mp3']}").status == 200
    assert browser.call("DELETE", f"/jobs/{job['job']}", Sec_Fetch_Site="same-origin").status == 204


def test_other_sites_cannot_use_a_session(me: Client) -> None:
    """Even if a browser sends them the cookie."""
    browser = Browser(me)
    job = me.convert(BytesIO(WAV), "a.wav")["job"]
    elsewhere: list[dict[str, str]] = [
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": me.url.replace("http", "https")},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "https://evil.example", "Sec_Fetch_Site": "same-origin"},
    ]
    for headers in elsewhere:
        browser.call("DELETE", f"/jobs/{job}", None, **headers).problem(403)
        browser.call("DELETE", "/sessions", None, **headers).problem(403)
        browser.call("POST", "/upload?filename=a.wav", WAV, Content_Type="audio/wav", **headers).problem(403)
        browser.call("POST", "/files", b"", Tus_Resumable="1.0.0", Upload_Length="9", **headers).problem(403)
    override = {"Tus_Resumable": "1.0.0", "X_HTTP_Method_Override": "POST", "Upload_Length": "9"}
    browser.call("GET", "/files", None, **override).problem(403)
    basic = b64encode(f"{me.username}:{PASSWORD}".encode()).decode()
    evil = {"Authorization": f"Basic {basic}", "Origin": "https://evil.example"}
    Client(me.url).call("POST", "/login?cookie=true", b"", evil).problem(403)
    assert me.call("GET", f"/jobs/{job}").status == 200


def test_logging_out_ends_one_session(me: Client) -> None:
    browser = Browser(me)
    answer = browser.call("DELETE", "/session", Origin=me.url)
    assert answer.status == 204
    assert "Max-Age=0" in answer.headers["Set-Cookie"]
    browser.call("GET", "/me").problem(401)
    browser.call("GET", "/jobs").problem(401)
    assert me.call("GET", "/me").status == 200
    assert me.call("DELETE", "/session").status == 204
    me.call("GET", "/me").problem(401)
    program, _ = key_of(me.log_in(), "account")
    program.call("DELETE", "/session").problem(403)


def test_sessions_are_listed_and_ended_one_by_one(me: Client) -> None:
    other = Browser(me, "Firefox")
    [newest, first] = listed = me.call("GET", "/sessions").json()["sessions"]
    assert [session["current"] for session in listed] == [False, True]
    assert (newest["agent"], newest["network"], first["agent"]) == ("Firefox", "127.0.0.1", None)
    assert newest["created"].startswith(newest["last_used"])
    assert first["expires"] > first["created"]
    path = f"/sessions/{newest['id']}"
    stranger = Client(me.url).sign_up()
    stranger.call("DELETE", path).problem(404)
    key_of(me, "read")[0].call("DELETE", path).problem(403)
    program, _ = key_of(me, "account")
    assert [session["current"] for session in program.call("GET", "/sessions").json()["sessions"]] == [False, False]
    other.call("DELETE", f"/sessions/{first['id']}", None, Origin="https://evil.example").problem(403)
    for _ in range(2):
        assert me.call("DELETE", path).status == 204
    other.call("GET", "/me").problem(401)
    assert me.call("GET", "/sessions").json()["sessions"] == [first]


def test_export_has_everything(me: Client) -> None:
    program, _ = key_of(me, "account")
    job = me.convert(BytesIO(WAV), "a.wav")
    failed = me.convert(BytesIO(b"ID3" + bytes(5000)), "Grüße ☃.wav")
    answer = me.call("GET", "/export")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/zip")
    head = me.call("HEAD", "/export")
    assert (head.status, head.headers["Content-Type"]) == (200, "application/zip")
    with zipfile.ZipFile(BytesIO(answer.body)) as archive:
        assert archive.testzip() is None
        content = json.loads(archive.read("account.json"))
        assert content["account"]["username"] == me.username
        assert [key["name"] for key in content["keys"]] == ["test"]
        assert [session["network"] for session in content["sessions"]] == ["127.0.0.1"]
        assert [each["job"] for each in content["jobs"]] == [failed["job"], job["job"]]
        listed = content["jobs"][1]
        assert archive.read(listed["mp3"]) == me.download(job["mp3"]).body
        assert archive.read(listed["video"]) == WAV
        assert content["jobs"][0]["video"].endswith("-Grüße ☃.wav")
        assert len(archive.namelist()) == 4
    assert program.call("GET", "/export").status == 200
    other = Client(me.url).sign_up()
    with zipfile.ZipFile(BytesIO(other.call("GET", "/export").body)) as archive:
        assert archive.namelist() == ["account.json"]
    key_of(me, "read")[0].call("GET", "/export").problem(403)
    Client(me.url).call("GET", "/export").problem(401)

"""The security log: which lines a request writes, and what they must not contain."""

import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from flask import Response

from functions import security_log
from functions.auth.links import Links
from functions.security_log import pseudonym
from functions.state.database import Database
from functions.state.schema import UserId
from tests.support.calls import LINK_KEY, USER, Call, add_user, basic, bearer, functions
from tests.support.databases import set_role

JOB = "0123456789abcdef0123456789abcdef"
FID = "0123456789abcdef01234567"
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(600)
PASSWORD = "correct horse"
ROOT = "e" * 32


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[pytest.MonkeyPatch]:
    caplog.set_level(logging.INFO, "mp3burst.security")
    with functions(tmp_path) as patch:
        patch.delenv("FUNCTION_TARGET", raising=False)  # functions-framework sets it, in the tests of others
        yield patch


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, str]]:
    """Returns the fields of every line since the last call."""
    records = [record.getMessage() for record in caplog.records if record.name == "mp3burst.security"]
    caplog.clear()
    return [dict(field.split("=", 1) for field in line.split(" ")) for line in records]


def register(username: str = "Ann@Example.org", password: str = PASSWORD) -> int:
    body = json.dumps({"name": "Ann", "username": username, "password": password, "email": "ann@example.org"})
    return Call("register", "POST", "/register", body=body.encode()).send().status_code


def login(username: str, password: str) -> int:
    return Call("login", "POST", "/login", headers={"Authorization": basic(username, password)}).send().status_code


def test_every_line_says_when_what_where_and_who(caplog: pytest.LogCaptureFixture) -> None:
    assert register() == 201
    [line] = lines(caplog)
    assert line["event"] == "registration.succeeded"
    age = datetime.now(UTC) - datetime.fromisoformat(line["time"])
    assert line["time"].endswith("Z")
    assert 0 <= age.total_seconds() < 60
    assert line["user"] == pseudonym("user", "ann@example.org")
    assert line["address"] == pseudonym("address", "127.0.0.1")
    assert re.fullmatch("[0-9a-f]{16}", line["user"])


def test_logins(caplog: pytest.LogCaptureFixture) -> None:
    register()
    lines(caplog)
    assert login("ann@EXAMPLE.org", PASSWORD) == 200
    assert login("ann@example.org", "wrong horse") == 401
    succeeded, failed = lines(caplog)
    assert (succeeded["event"], failed["event"]) == ("login.succeeded", "login.failed")
    assert succeeded["user"] == failed["user"] == pseudonym("user", "ann@example.org")


def test_logins_without_credentials(caplog: pytest.LogCaptureFixture) -> None:
    for headers in ({}, {"Authorization": "Basic ?"}, {"Authorization": bearer("ann")}):
        assert Call("login", "POST", "/login", headers=headers).send().status_code == 401
    assert [(line["event"], line["reason"]) for line in lines(caplog)] == [("login.failed", "missing")] * 3


def test_locks(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(6):
        assert login("bob", "wrong horse") == 401
    assert login("bob", "wrong horse") == 429
    events = [(line["event"], line.get("subject"), line.get("seconds")) for line in lines(caplog)]
    assert events[:5] == [("login.failed", None, None)] * 5
    assert events[5:7] == [("login.locked", "account_here", "2"), ("login.failed", None, None)]
    assert events[7][0] == "login.refused"


def test_refused_registrations(caplog: pytest.LogCaptureFixture) -> None:
    register()
    lines(caplog)
    assert register() == 409
    assert register(password="12345678") == 422
    taken, invalid = lines(caplog)
    assert (taken["event"], taken["reason"]) == ("registration.refused", "taken")
    assert (invalid["event"], invalid["reason"], invalid["fields"]) == ("registration.refused", "invalid", "password")


def test_confirmations_and_subscriptions(caplog: pytest.LogCaptureFixture) -> None:
    body = json.dumps({"name": "Ann", "username": "ann@example.org", "password": PASSWORD})
    user = UserId(json.loads(Call("register", "POST", "/register", body=body.encode()).send().data)["id"])
    lines(caplog)
    links = Links([LINK_KEY], "https://mp3.example")
    confirm = links.make_confirmation(user, "ann@example.org")
    stop = links.make_unsubscription(user)
    again = bearer("ann@example.org", user)
    for method, link, authorization, status, event in (
        ("GET", confirm, "", 200, None),
        ("POST", f"{confirm}x", "", 401, "link.refused"),
        ("POST", stop.replace("/unsubscribe", "/confirm"), "", 401, "link.refused"),
        ("POST", confirm.replace("/confirm", "/unsubscribe"), "", 401, "link.refused"),
        ("GET", "/confirm", "", 401, "link.refused"),
        ("POST", "/confirm/again", "", 401, "token.refused"),
        ("POST", "/confirm/again", again, 429, "confirmation.refused"),
        ("POST", confirm, "", 200, "confirmation.succeeded"),
        ("POST", "/confirm/again", again, 200, None),
        ("POST", stop, "", 200, "unsubscription.succeeded"),
        ("POST", stop.replace("/unsubscribe", "/unsubscribe/undo"), "", 200, "subscription.succeeded"),
    ):
        parts = urlsplit(link)
        headers = {"Authorization": authorization} if authorization else {}
        assert Call("confirm", method, parts.path, parts.query, headers=headers).send().status_code == status, link
        seen = lines(caplog)
        assert [line["event"] for line in seen] == ([event] if event else []), link
        if event and event.endswith(".succeeded"):
            assert seen[0]["user"] == pseudonym("user", "ann@example.org")


def test_throttled_registrations(settings: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    settings.setenv("REGISTRATIONS_PER_HOUR", "2")
    assert [register(f"user{n}") for n in range(3)] == [201, 201, 429]
    first, *others, throttled = lines(caplog)
    assert first["event"] == "registration.succeeded"
    assert [line["event"] for line in others] == ["confirmation.refused", "registration.succeeded"], "one mail to ann"
    assert (throttled["event"], throttled["reason"]) == ("registration.refused", "throttled")
    assert 1 <= int(throttled["seconds"]) <= 1800


@pytest.mark.parametrize(
    ("authorization", "reason"), [(None, "missing"), ("Bearer a.b.c", "invalid"), ("Basic YTpi", "missing")]
)
@pytest.mark.parametrize(
    ("function", "method", "path"),
    [
        ("validate", "POST", "/validate"),
        ("status", "GET", "/jobs"),
        ("status", "DELETE", f"/jobs/{JOB}"),
        ("download", "GET", "/download"),
        ("upload", "POST", "/upload"),
        ("upload", "POST", "/files"),
    ],
)
def test_refused_tokens(
    caplog: pytest.LogCaptureFixture, function: str, method: str, path: str, authorization: str | None, reason: str
) -> None:
    headers = {"Tus-Resumable": "1.0.0", **({"Authorization": authorization} if authorization else {})}
    assert Call(function, method, path, f"fid={FID}", headers=headers).send().status_code == 401
    [line] = lines(caplog)
    assert (line["event"], line["reason"], line["user"]) == ("token.refused", reason, "-")


def test_refused_links(caplog: pytest.LogCaptureFixture) -> None:
    link = Links([LINK_KEY], "https://example.org").make(UserId(JOB), FID)
    query = link.partition("?")[2][:-4] + "AAAA"
    assert Call("download", "GET", "/download", query).send().status_code == 401
    [line] = lines(caplog)
    assert line["event"] == "link.refused"


@pytest.mark.parametrize(
    ("function", "method", "path"),
    [
        ("status", "GET", f"/jobs/{JOB}"),
        ("status", "DELETE", f"/jobs/{JOB}"),
        ("download", "GET", "/download"),
        ("upload", "HEAD", f"/files/{JOB}"),
    ],
)
def test_objects_of_others(caplog: pytest.LogCaptureFixture, function: str, method: str, path: str) -> None:
    headers = {"Tus-Resumable": "1.0.0", "Authorization": bearer("ann")}
    assert Call(function, method, path, f"fid={FID}", headers=headers).send().status_code == 404
    [line] = lines(caplog)
    assert (line["event"], line["user"]) == ("object.refused", pseudonym("user", "ann"))


def upload(user: str = "f" * 32) -> Call:
    headers = {"Authorization": bearer("ann", user), "Content-Type": "audio/wav"}
    return Call("upload", "POST", "/upload", "filename=a.wav", WAV, headers)


def test_uploads_beyond_the_quota(caplog: pytest.LogCaptureFixture, settings: pytest.MonkeyPatch) -> None:
    settings.setenv("QUOTA_BYTES", "100")
    assert upload().send().status_code == 413
    [line] = lines(caplog)
    assert (line["event"], line["reason"], line["user"]) == ("upload.refused", "bytes", pseudonym("user", "ann"))


def test_too_many_uploads(caplog: pytest.LogCaptureFixture, settings: pytest.MonkeyPatch) -> None:
    settings.setenv("QUOTA_JOBS", "1")
    assert upload().send().status_code == 202
    assert lines(caplog) == []
    assert upload().send().status_code == 429
    [line] = lines(caplog)
    assert (line["event"], line["reason"]) == ("upload.refused", "jobs")


def test_uploads_that_the_role_forbids(caplog: pytest.LogCaptureFixture, settings: pytest.MonkeyPatch) -> None:
    settings.setenv("UPLOAD_ROLE", "admin")
    assert upload().send().status_code == 403
    [line] = lines(caplog)
    assert (line["event"], line["user"]) == ("role.refused", pseudonym("user", "ann"))


def test_deleted_jobs(caplog: pytest.LogCaptureFixture) -> None:
    job = json.loads(upload().send().get_data())["job"]
    assert Call("status", "DELETE", f"/jobs/{job}", headers={"Authorization": bearer("ann")}).send().status_code == 204
    [line] = lines(caplog)
    assert (line["event"], line["job"], line["user"]) == ("job.deleted", job, pseudonym("user", "ann"))


def test_no_secret_name_or_address_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The security log and all other logs of these requests."""
    caplog.set_level(logging.DEBUG)
    register()
    login("ann@example.org", PASSWORD)
    login("ann@example.org", "a wrong secret")
    login("a typed secret", "x")
    login("evil\r\nevent=login.succeeded", "x")
    token = bearer("ann@example.org")
    Call("status", "GET", "/jobs", headers={"Authorization": token + "x"}).send()
    text = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("sqlalchemy"))
    for secret in ("ann", "example.org", PASSWORD, "secret", "127.0.0.1", token[7:], "\r", "evil"):
        assert secret not in text, secret
    assert len(lines(caplog)) == 6


def test_values_cannot_add_fields_or_lines(caplog: pytest.LogCaptureFixture) -> None:
    security_log.record("job.deleted", job="a b=c\nd\u2028e")
    [record] = caplog.records
    assert record.getMessage().endswith(" job=a?b?c?d?e")


def test_a_pseudonym_depends_on_the_key_and_the_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    first = pseudonym("user", "ann")
    assert pseudonym("address", "ann") != first
    monkeypatch.setenv("LOG_KEY", "another key")
    assert pseudonym("user", "ann") != first
    monkeypatch.setenv("LOG_KEY", "a key")
    assert pseudonym("user", "ann") == first


def test_without_a_key_a_random_one_is_used_for_the_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("LOG_KEY")
    security_log._key.cache_clear()
    first = pseudonym("user", "ann")
    assert pseudonym("user", "ann") == first
    assert [record.getMessage() for record in caplog.records if "LOG_KEY" in record.getMessage()]
    security_log._key.cache_clear()
    assert pseudonym("user", "ann") != first


def test_addresses_of_one_ipv6_network_are_the_same(caplog: pytest.LogCaptureFixture) -> None:
    for address in ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"):
        security_log.record("login.failed", address=address)
    first, second, third = (line["address"] for line in lines(caplog))
    assert first == second != third


def admin(method: str, path: str, value: object = None) -> Response:
    body = b"" if value is None else json.dumps(value).encode()
    return Call("admin", method, path, body=body, headers={"Authorization": bearer("root", ROOT)}).send()


def test_what_administrators_change(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    path = f"/admin/users/{USER}"
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    add_user(database, ROOT, "root")
    assert admin("GET", "/admin/users").status_code == 403
    [line] = lines(caplog)
    assert (line["event"], line["function"], line["user"]) == ("role.refused", "-", pseudonym("user", "root"))
    set_role(database, "root", "admin")
    for method, address, value, expected in (
        ("PATCH", path, {"role": "admin"}, {"event": "role.changed", "role": "admin"}),
        ("PATCH", path, {"role": "user", "locked": True}, {"event": "role.changed", "role": "user"}),
        ("PATCH", path, {"locked": False}, {"event": "account.unlocked"}),
        ("PUT", f"{path}/quota", {"bytes": 5, "jobs": None}, {"event": "quota.changed", "bytes": "5", "jobs": "None"}),
        ("DELETE", f"{path}/sessions", None, {"event": "sessions.ended"}),
        ("DELETE", path, None, {"event": "account.deleted"}),
    ):
        assert admin(method, address, value).status_code in (200, 204)
        first, *_ = lines(caplog)
        who = {"user": pseudonym("user", "root"), "target": pseudonym("user", "ann")}
        assert {name: first[name] for name in {**expected, **who}} == {**expected, **who}
    assert admin("POST", "/admin/queues/hook/retry").status_code == 202
    [line] = lines(caplog)
    assert (line["event"], line["queue"], line["rows"]) == ("queue.retried", "hook", "0")

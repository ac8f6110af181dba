"""API keys, against real processes."""

from collections.abc import Callable
from io import BytesIO

from tests.e2e.client import Answer, Client, wave_bytes
from tests.support.platform import Platform

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

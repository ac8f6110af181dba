"""Administrators manage users and see what goes on, against real processes whose database rights are enforced."""

import json
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from functions.media import Space, Usage
from functions.state.database import Database
from functions.state.disks import Disks
from tests.e2e.client import PASSWORD, Answer, Client, wave_bytes
from tests.e2e.test_account import key_of
from tests.e2e.test_client import Terminal
from tests.e2e.test_http import mail_text
from tests.support.databases import set_role
from tests.support.platform import Platform, start
from tests.support.processes import wait_for

WAV = wave_bytes(0.5)
#: Every operation of administrators, but for the values in its body.
OPERATIONS = (
    ("GET", "/admin/users"),
    ("GET", "/admin/users/{user}"),
    ("PATCH", "/admin/users/{user}"),
    ("PUT", "/admin/users/{user}/quota"),
    ("DELETE", "/admin/users/{user}/sessions"),
    ("DELETE", "/admin/users/{user}"),
    ("GET", "/admin/jobs"),
    ("GET", "/admin/queues"),
    ("POST", "/admin/queues/convert/retry"),
    ("GET", "/admin/storage"),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform of its own: its users are counted."""
    with start(tmp_path_factory.mktemp("administration") / "data") as running:
        yield running


@pytest.fixture
def admin(site: Platform) -> Iterator[Client]:
    """The only administrator."""
    user = Client(site.url).sign_up()
    database = Database(f"sqlite:///{site.data}/mp3burst.db")
    set_role(database, user.username, "admin")
    yield user
    set_role(database, user.username, "user")
    database.close()


@pytest.fixture
def user(site: Platform) -> Client:
    return Client(site.url).sign_up()


def send(client: Client, method: str, path: str, value: object = None) -> Answer:
    body = b"" if value is None else json.dumps(value).encode()
    return client.call(method, path, body, {"Content-Type": "application/json"})


def test_nobody_else_may_do_anything(admin: Client, user: Client) -> None:
    strangers = {
        "an ordinary user": user,
        "a key of an administrator with all other scopes": key_of(admin, "upload", "read", "delete", "account")[0],
    }
    for who, client in strangers.items():
        for method, path in OPERATIONS:
            answer = send(client, method, path.replace("{user}", user.user), {})
            assert answer.problem(403)["detail"].count(".") <= 1, who
    for method, path in OPERATIONS:
        send(Client(user.url), method, path.replace("{user}", user.user), {}).problem(401)
    detail = user.post_json("/keys", {"name": "mine", "scopes": ["read", "admin"]}).problem(403)["detail"]
    assert detail == "Only administrators may create a key with the scope admin: choose other scopes."
    assert user.call("GET", "/me").status == 200


def test_key_with_the_scope_works_as_long_as_its_owner_is_an_administrator(admin: Client, user: Client) -> None:
    program, _ = key_of(admin, "admin")
    send(program, "PATCH", f"/admin/users/{user.user}", {"role": "admin"})
    assert [each["username"] for each in program.call("GET", "/admin/users?role=admin").json()["users"]] == sorted(
        [admin.username, user.username]
    )
    assert send(user, "PATCH", f"/admin/users/{admin.user}", {"role": "user"}).status == 200
    program.call("GET", "/admin/users").problem(403)
    admin.call("GET", "/admin/users").problem(403)
    own = send(user, "PATCH", f"/admin/users/{user.user}", {"role": "user"})
    assert own.problem(409)["detail"] == "This is the last administrator: make another user an administrator first."
    own = user.post_json("/me/deletion", {"password": PASSWORD})
    assert own.problem(409)["detail"] == "This is the last administrator: make another user an administrator first."
    assert "/me/deletion" in send(user, "DELETE", f"/admin/users/{user.user}").problem(409)["detail"]
    send(user, "PATCH", f"/admin/users/{admin.user}", {"role": "admin"})
    send(admin, "PATCH", f"/admin/users/{user.user}", {"role": "user"})


def test_users_are_listed_and_found(admin: Client, user: Client) -> None:
    job = user.convert(BytesIO(WAV), "a.wav")
    path = f"/admin/users/{user.user}"
    shown = admin.call("GET", path).json()
    size = user.call("GET", "/me").json()["usage"]["bytes"]
    assert (shown["username"], shown["role"], shown["locked"]) == (user.username, "user", None)
    assert (shown["bytes"], shown["jobs"], shown["quota"]) == (size, 0, {"bytes": None, "jobs": None})
    assert shown["jobs_limit"] == 200
    [found] = admin.call("GET", f"/admin/users?search={user.username.upper()[2:]}").json()["users"]
    assert found == shown
    first = admin.call("GET", "/admin/users?limit=1").json()
    rest = admin.call("GET", f"/admin/users?after={first['next']}").json()
    names = [each["username"] for each in [*first["users"], *rest["users"]]]
    assert names == sorted(names)
    assert {user.username, admin.username} <= set(names)
    admin.call("GET", "/admin/users?limit=0&role=root").problem(422)
    detail = admin.call("GET", "/admin/users?role=null&locked=").problem(422)["detail"]
    wanted = "role must be one of user, admin; locked must be true or false"
    assert detail == f"Correct the following and try again: {wanted}."
    admin.call("GET", f"/admin/users/{'f' * 32}").problem(404)
    admin.call("GET", "/admin/users/%00").problem(404)
    user.call("DELETE", f"/jobs/{job['job']}")


def test_quota_of_a_user(admin: Client, user: Client) -> None:
    path = f"/admin/users/{user.user}/quota"
    changed = send(admin, "PUT", path, {"bytes": 100, "jobs": None}).json()
    assert (changed["bytes_limit"], changed["jobs_limit"]) == (100, 200)
    assert user.call("GET", "/me").json()["usage"]["bytes_limit"] == 100
    refused = user.try_upload(BytesIO(WAV), "a.wav").problem(413)["detail"]
    assert refused.startswith("You may store 100 bytes")
    assert send(admin, "PUT", path, {"bytes": 0, "jobs": 0}).json()["bytes_limit"] is None
    user.convert(BytesIO(WAV), "a.wav")
    send(admin, "PUT", path, {"bytes": -1, "jobs": None}).problem(422)
    send(admin, "PUT", path, {"bytes": 1}).problem(422)


def test_user_is_locked_and_unlocked(site: Platform, admin: Client, user: Client) -> None:
    key, _ = key_of(user, "read")
    job = user.convert(BytesIO(WAV), "a.wav")["job"]
    [link] = re.findall(r"(/download\?\S+)", mail_text(site, job))
    stranger = Client(user.url)
    assert stranger.call("GET", link).status == 200
    path = f"/admin/users/{user.user}"
    assert send(admin, "PATCH", path, {"locked": True}).json()["locked"] is not None
    detail = user.login(user.username, PASSWORD).problem(403)["detail"]
    assert detail == "Your account is locked: ask an administrator of this installation to unlock it."
    user.login(user.username, "wrong horse").problem(401)  # nobody learns that the account is locked
    for client in (user, key):
        wait_for(lambda client=client: client.call("GET", "/jobs").status == 403, "the user to be kept out")  # type: ignore[misc]
        client.call("GET", "/jobs").problem(403)
    user.call("GET", "/me").problem(403)
    stranger.call("GET", link).problem(401)
    assert send(admin, "PATCH", path, {"locked": False}).json()["locked"] is None
    assert user.call("GET", "/me").status == stranger.call("GET", link).status == 200
    assert user.login(user.username, PASSWORD).status == 200


def test_user_is_logged_out_and_deleted(admin: Client, user: Client) -> None:
    path = f"/admin/users/{user.user}"
    assert send(admin, "DELETE", f"{path}/sessions").status == 204
    user.call("GET", "/me").problem(401)
    user = user.log_in()
    assert send(admin, "DELETE", path).status == 204
    send(admin, "DELETE", path).problem(404)
    user.call("GET", "/me").problem(401)
    user.login(user.username, PASSWORD).problem(401)


def test_jobs_of_all_users_tell_nothing_of_their_files(admin: Client, user: Client) -> None:
    secret = "diary-of-ada"
    user.convert(BytesIO(WAV), f"{secret}.wav")
    failed = user.upload(BytesIO(WAV), f"{secret}.wav", {"track": "5"})["job"]
    user.wait(failed)
    answer = admin.call("GET", f"/admin/jobs?user={user.user}")
    assert secret.encode() not in answer.body
    jobs = answer.json()["jobs"]
    assert {job["username"] for job in jobs} == {user.username}
    [job] = admin.call("GET", f"/admin/jobs?user={user.user}&state=failed&limit=1").json()["jobs"]
    assert job["job"] == failed
    assert job["error"] == user.job(failed)["error"]
    page = admin.call("GET", "/admin/jobs?limit=1").json()
    assert page["next"] == page["jobs"][0]["job"]
    assert admin.call("GET", f"/admin/jobs?after={page['next']}").json()["jobs"][0]["job"] != page["next"]
    mp3 = next(job["mp3"] for job in user.jobs()["jobs"] if job["mp3"])
    admin.download(mp3).problem(404)
    admin.call("GET", f"/jobs/{failed}").problem(404)
    admin.call("GET", f"/admin/jobs?after={'f' * 32}").problem(404)
    assert set(admin.call("GET", "/admin/jobs?user=null&state=null").problem(422)["errors"]) == {"user", "state"}
    assert admin.call("GET", f"/admin/jobs?user={'f' * 32}").json()["jobs"] == []


def test_queues_and_storage(site: Platform, admin: Client, user: Client) -> None:
    user.convert(BytesIO(WAV), "a.wav")
    found = admin.call("GET", "/admin/queues").json()
    assert [queue["queue"] for queue in found["queues"]] == ["fetch", "convert", "encode", "join", "notify", "hook"]
    assert found["given_up"]["jobs"] >= 0
    assert admin.call("POST", "/admin/queues/notify/retry", b"").json()["rows"] >= 0
    admin.call("POST", "/admin/queues/films/retry", b"").problem(404)
    disks = Disks(Database(f"sqlite:///{site.data}/mp3burst.db"))
    disks.record({("videos", "pieces", "mp3s"): Usage(95, Space(5, 100))}, None)
    stored = admin.call("GET", "/admin/storage").json()
    [disk] = stored["disks"]
    assert (disk["stores"], disk["level"]) == (["videos", "pieces", "mp3s"], "full")
    assert (disk["free"], disk["used"], disk["total"], disk["floor"]) == (5, 95, 100, 25)
    assert disk["measured"]
    assert disk["silent_since"] is None
    sizes = {store["store"]: store["bytes"] for store in stored["stores"]}
    assert sizes["videos"] >= len(WAV)
    assert sizes["mp3s"] > 0
    assert user.username in {each["username"] for each in stored["largest"]}


def test_command_line_manages_users(admin: Client, user: Client, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, admin.url)
    key = terminal_key(admin)
    env = {"MP3BURST_URL": admin.url, "MP3BURST_KEY": key}

    def run(*arguments: str, status: int = 0, typed: str = "") -> tuple[str, str]:
        return terminal.mp3burst("admin", "--key", *arguments, env=env, status=status, typed=typed)

    [listed] = json.loads(run("users", user.username, "--json")[0])
    assert listed == admin.call("GET", f"/admin/users/{user.user}").json()
    assert len(json.loads(run("users", "--limit", "1", "--json")[0])) == 1
    assert user.username in run("users", user.username.upper())[0]
    run("role", user.username, "admin")
    assert user.call("GET", "/me").json()["role"] == "admin"
    run("role", user.username.upper(), "user")
    assert "30.0 GB" in run("quota", user.username, "--bytes", "30GB")[0]
    assert "of 5 jobs" in run("quota", user.username, "--jobs", "5")[0]
    usage = user.call("GET", "/me").json()["usage"]
    assert (usage["bytes_limit"], usage["jobs_limit"]) == (30_000_000_000, 5)
    run("quota", user.username, "--bytes", "unlimited", "--jobs", "default")
    usage = user.call("GET", "/me").json()["usage"]
    assert (usage["bytes_limit"], usage["jobs_limit"]) == (None, 200)
    for size in ("0", "many", "5 XB", "-1"):
        assert run("quota", user.username, f"--bytes={size}", status=1)[1].count("\n") == 1
    run("lock", user.username)
    assert "locked" in run("users", "--locked")[0]
    user.call("GET", "/me").problem(403)
    run("unlock", user.username)
    run("logout", user.username)
    user.call("GET", "/me").problem(401)
    assert f"There is no user {user.username[:-1]}" in run("lock", user.username[:-1], status=1)[1]
    run("rm", user.username, status=1, typed="n\n")
    run("rm", user.username, "--yes")
    user.login(user.username, PASSWORD).problem(401)
    assert json.loads(run("users", user.username, "--json")[0]) == []


def terminal_key(admin: Client) -> str:
    return str(admin.post_json("/keys", {"name": "terminal", "scopes": ["admin"]}).json()["key"])


def test_command_line_shows_what_goes_on(site: Platform, admin: Client, user: Client, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, admin.url)
    failed = user.upload(BytesIO(WAV), "diary.wav", {"track": "5"})["job"]
    user.wait(failed)
    env = {"MP3BURST_URL": admin.url}
    by_password = ("admin", "--username", admin.username)

    def run(*arguments: str) -> str:
        return terminal.mp3burst(*by_password, *arguments, env=env, typed=f"{PASSWORD}\n")[0]

    [line] = run("jobs", "--user", user.username, "--state", "failed").splitlines()
    assert line.startswith(failed)
    assert line.endswith(user.job(failed)["error"])
    assert json.loads(run("jobs", "--user", user.username, "--json"))[0]["job"] == failed
    heading, *lines = run("queues").splitlines()
    assert heading.split() == ["queue", "working", "waiting", "deferred", "retrying", "overdue", "oldest"]
    assert [line.split()[0] for line in lines] == ["fetch", "convert", "encode", "join", "notify", "hook", "given"]
    assert run("retry", "notify").endswith(" due now\n")
    disks = Disks(Database(f"sqlite:///{site.data}/mp3burst.db"))
    stores = ("videos", "pieces", "mp3s")
    for usage, text in (
        (Usage(40, Space(60, 100)), "60 B free of 100 B"),
        (Usage(60, Space(40, 100)), "40 B free of 100 B, nearly full"),
        (Usage(90, Space(10, 100)), "10 B free of 100 B, full: uploads need 25 B"),
        (Usage(2_500_000_000, None), "2.5 GB used"),
    ):
        disks.record({stores: usage}, None)
        assert run("storage").splitlines()[0] == f"disk of videos, pieces, mp3s: {text}"
    disks.record({stores: None}, None)
    line, *lines = run("storage").splitlines()
    assert line.startswith("disk of videos, pieces, mp3s: no answer since 20")
    assert "videos" in " ".join(lines)
    stored = json.loads(run("storage", "--json"))
    assert {"disks", "stores", "largest"} == stored.keys()
    env["MP3BURST_KEY"] = str(user.post_json("/keys", {"name": "read", "scopes": ["read"]}).json()["key"])
    _, err = terminal.mp3burst("admin", "--key", "users", env=env, status=1)
    assert err == "mp3burst: This API key does not have the scope admin: use a key that has it, or log in.\n"

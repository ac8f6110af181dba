"""Logins by a header of a proxy: settings, and what the header says."""

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from functions.auth.external_logins import Person
from functions.login.provider import LoginRefused
from functions.login.proxy import ProxyLogin
from functions.settings import BadSetting
from infra import config

SECRET = "s" * 32
SETTINGS = {
    "PROXY_LOGIN_SECRET": SECRET,
    "PROXY_LOGIN_HEADER": "Remote-Email",
    "PROXY_LOGIN_NETWORKS": "10.0.9.9/32",
    "TRUSTED_PROXIES": "127.0.0.0/8",
}


def person(monkeypatch: pytest.MonkeyPatch, header: str = "Remote-Email", **headers: str) -> Person:
    """Returns whom a request that came through the proxy is from."""
    environ = EnvironBuilder("/", environ_base={"REMOTE_ADDR": "127.0.0.1"}).get_environ()
    # As WSGI has them: bytes, decoded as Latin-1.
    sent = {"X_FORWARDED_FOR": "192.0.2.7, 10.0.9.9", "PROXY_LOGIN_SECRET": SECRET} | headers
    environ |= {f"HTTP_{name.upper()}": value.encode().decode("latin-1") for name, value in sent.items()}
    monkeypatch.setenv("TRUSTED_PROXIES", SETTINGS["TRUSTED_PROXIES"])
    login = ProxyLogin.from_environ(SETTINGS | {"PROXY_LOGIN_HEADER": header})
    assert login is not None
    return login.person(Request(environ))


@pytest.mark.parametrize(
    "changed",
    [
        {"PROXY_LOGIN_HEADER": "Remote-User"},
        {"PROXY_LOGIN_SECRET": ""},
        {"PROXY_LOGIN_SECRET": "s" * 31},
        {"PROXY_LOGIN_NETWORKS": ""},
        {"PROXY_LOGIN_NETWORKS": "authelia"},
        {"TRUSTED_PROXIES": ""},
        {"TRUSTED_PROXIES": "10.0.0.1/8"},
        {"PROXY_LOGIN_CREATE_USERS": "no"},
    ],
    ids=lambda changed: "-".join(changed),
)
def test_invalid_settings_are_named_at_the_start(changed: dict[str, str]) -> None:
    with pytest.raises(BadSetting, match=next(iter(changed))):
        config.check({"SANDBOX": "off"} | SETTINGS | changed)


def test_without_a_header_there_is_no_login() -> None:
    assert ProxyLogin.from_environ({"TRUSTED_PROXIES": ""}) is None


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Gi\u0142", "Gi\u0142"),
        ("=?utf-8?q?Gi=C5=82?=", "Gi\u0142"),
        ("=?utf-8?q?a=0Ab?=", "ab"),
        ("=?nonsense?q?a?=", "=?nonsense?q?a?="),
        ("=?utf-8?b?a?=", "=?utf-8?b?a?="),
        ("", "Gil"),
        (" ", "Gil"),
        ("x" * 1000, "x" * 200),
    ],
    ids=["utf-8", "encoded", "line", "charset", "base64", "none", "blank", "long"],
)
def test_name_is_readable(monkeypatch: pytest.MonkeyPatch, name: str, shown: str) -> None:
    found = person(monkeypatch, remote_email="Gil@example.org", remote_name=name)
    assert found == Person("proxy", "gil@example.org", "Gil@example.org", shown)


def test_another_header_or_proxy_has_the_same_users(monkeypatch: pytest.MonkeyPatch) -> None:
    first = person(monkeypatch, remote_email="gil@example.org")
    second = person(monkeypatch, "x-authentik-email", x_authentik_email="GIL@example.org", remote_email="a@b.org")
    assert first.id == second.id


@pytest.mark.parametrize("email", ["", "gil", "gil@intranet", "a@example.org, b@example.org"])
def test_header_without_an_address_logs_nobody_in(monkeypatch: pytest.MonkeyPatch, email: str) -> None:
    with pytest.raises(LoginRefused, match="no email address"):
        person(monkeypatch, remote_email=email)


def test_request_past_the_proxy_logs_nobody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LoginRefused, match="did not come through"):
        person(monkeypatch, remote_email="gil@example.org", x_forwarded_for="10.0.9.9, 192.0.2.7")


@pytest.mark.parametrize("secret", ["", "s" * 33, "S" * 32, "\u0161" * 32])
def test_request_without_the_secret_logs_nobody_in(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    with pytest.raises(LoginRefused, match="did not come through"):
        person(monkeypatch, remote_email="gil@example.org", proxy_login_secret=secret)

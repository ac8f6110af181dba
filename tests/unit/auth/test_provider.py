"""The identity provider, as it must not be: it does not respond, or with something else than the protocol says."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from functions.auth.external_logins import Person
from functions.auth.sessions import login_cookie_name
from functions.login import main
from functions.login.provider import Begun, LoginRefused, Provider, ProviderUnavailable
from functions.settings import BadSetting
from infra import config
from tests.support.calls import Call, functions

KEY = ECKey.generate_key("P-256")
BEGUN = Begun("state", "nonce", "v" * 64)
#: A claim that a token does not have.
MISSING = object()


class Issuer:
    """A provider on loopback that serves these documents and makes these claims; a context manager."""

    def __init__(self) -> None:
        self.before: Callable[[], None] = lambda: None
        self.codes: list[str] = []
        self.claims: dict[str, Any] = {"sub": "1", "email": "ann@example.org", "email_verified": True, "name": "Ann"}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.before()
                self.answer(outer.metadata if "well-known" in self.path else {"keys": [KEY.as_dict(private=False)]})

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                outer.codes += form["code"]
                self.answer({"access_token": "a", "token_type": "Bearer", "id_token": outer.id_token()})

            def answer(self, document: object) -> None:
                body = json.dumps(document).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.metadata: dict[str, object] = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
        }

    def id_token(self) -> str:
        seconds = int(time.time())
        standard = {"iss": self.url, "aud": "mp3burst", "iat": seconds, "exp": seconds + 60, "nonce": BEGUN.nonce}
        claims = {name: value for name, value in (standard | self.claims).items() if value is not MISSING}
        return jwt.encode({"alg": "ES256"}, claims, KEY)

    def provider(self) -> Provider:
        return Provider(self.url, "mp3burst", "secret", "http://localhost/sso/callback")

    def __enter__(self) -> "Issuer":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as running:
        yield running


def test_account_is_the_one_of_the_token(issuer: Issuer) -> None:
    assert issuer.provider().person("code", BEGUN) == Person(issuer.url, "1", "ann@example.org", "Ann")


@pytest.mark.parametrize("value", [MISSING, None, 7, [], ""], ids=["missing", "null", "number", "list", "empty"])
@pytest.mark.parametrize("endpoint", ["authorization_endpoint", "token_endpoint", "jwks_uri"])
def test_metadata_without_an_address_makes_the_provider_unavailable(
    issuer: Issuer, endpoint: str, value: object
) -> None:
    issuer.metadata[endpoint] = value
    if value is MISSING:
        del issuer.metadata[endpoint]
    with pytest.raises(ProviderUnavailable) as caught:
        issuer.provider().address_for(BEGUN)
    assert endpoint in str(caught.value.__cause__)


@pytest.mark.parametrize("subject", [MISSING, None, 7, [], ""], ids=["missing", "null", "number", "list", "empty"])
def test_account_without_an_id_is_nobody(issuer: Issuer, subject: object) -> None:
    """Otherwise all of them would be the same user."""
    issuer.claims["sub"] = subject
    with pytest.raises(ProviderUnavailable):
        issuer.provider().person("code", BEGUN)


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"aud": "another"},
        {"iss": "https://another.example"},
        {"exp": 1},
        {"exp": "never"},
        {"iat": None},
    ],
    ids=lambda claims: "-".join(f"{name}-{value}" for name, value in claims.items()),
)
def test_token_for_something_else_logs_nobody_in(issuer: Issuer, claims: Mapping[str, object]) -> None:
    issuer.claims |= claims
    with pytest.raises(ProviderUnavailable):
        issuer.provider().person("code", BEGUN)


@pytest.mark.parametrize("email", [MISSING, None, 7, ["ann@example.org"], "ann"])
def test_account_without_an_address_is_refused(issuer: Issuer, email: object) -> None:
    issuer.claims["email"] = email
    with pytest.raises(LoginRefused, match="does not confirm"):
        issuer.provider().person("code", BEGUN)


@pytest.mark.parametrize("name", [MISSING, None, 7, {"first": "Ann"}, " "])
def test_account_without_a_name_has_that_of_its_address(issuer: Issuer, name: object) -> None:
    issuer.claims["name"] = name
    assert issuer.provider().person("code", BEGUN).name == "ann"


@pytest.fixture
def login(issuer: Issuer, tmp_path: Path) -> Iterator[Call]:
    with functions(tmp_path) as patch:
        patch.setenv("PUBLIC_URL", "http://localhost")
        patch.setenv("OIDC_ISSUER", issuer.url)
        patch.setenv("OIDC_CLIENT_ID", "mp3burst")
        patch.setenv("THREADS", "8")
        main.sso_dependencies.cache_clear()
        yield Call("login", "GET", "/sso")
        main.sso_dependencies.cache_clear()


def test_one_of_several_providers_is_chosen(issuer: Issuer, login: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OIDC_ISSUER")
    google = {"issuer": issuer.url, "client_id": "a", "title": "Google <&>"}
    monkeypatch.setenv("OIDC_PROVIDERS", json.dumps({"google": google, "work": {**google, "title": ""}}))
    main.sso_dependencies.cache_clear()
    page = replace(login, query="to=/jobs%3Flimit=1").send()
    assert (page.status_code, page.mimetype) == (200, "text/html")
    text = page.get_data(as_text=True)
    assert '<a href="/sso/google?to=%2Fjobs%3Flimit%3D1">Google &lt;&amp;&gt;</a>' in text
    assert '<a href="/sso/work?to=%2Fjobs%3Flimit%3D1">work</a>' in text
    listed = replace(login, path="/sso/providers").send()
    assert listed.get_json() == {
        "providers": [
            {"name": "google", "title": "Google <&>", "path": "/sso/google"},
            {"name": "work", "title": "work", "path": "/sso/work"},
        ],
        "proxy": False,
    }
    sent = replace(login, path="/sso/work").send()
    query = parse_qs(urlsplit(sent.headers["Location"]).query)
    assert query["redirect_uri"] == ["http://localhost/sso/work/callback"]
    monkeypatch.setenv("OIDC_PROVIDERS", json.dumps({"google": google}))
    main.sso_dependencies.cache_clear()
    assert login.send().status_code == 302


def test_response_of_one_provider_is_none_of_another(
    issuer: Issuer, login: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a provider that was taken over could have the codes of others sent to it (mix-up)."""
    with Issuer() as other:
        monkeypatch.setenv("OIDC_PROVIDERS", json.dumps({"other": {"issuer": other.url, "client_id": "mp3burst"}}))
        main.sso_dependencies.cache_clear()
        begun = login.send()
        state = parse_qs(urlsplit(begun.headers["Location"]).query)["state"][0]
        back = login.having(Cookie=begun.headers["Set-Cookie"].partition(";")[0])
        back = replace(back, query=f"code=code&state={state}")
        assert replace(back, path="/sso/other/callback").send().status_code == 401
        assert other.codes == []
        replace(back, path="/sso/callback").send()
        assert issuer.codes == ["code"]


def test_login_that_was_begun_before_an_update_ends_after_it(issuer: Issuer, login: Call) -> None:
    ticket = main.dependencies().signer.sign_ticket("sso-begun", {**asdict(BEGUN), "to": ""}, 60)
    back = login.having(Cookie=f"{login_cookie_name(os.environ)}={ticket}")
    back = replace(back, path="/sso/callback", query=f"code=code&state={BEGUN.state}")
    assert back.send().status_code < 500
    assert issuer.codes == ["code"]


@pytest.mark.parametrize(
    "providers",
    [
        "{",
        "[]",
        {"google": {}},
        {"google": {"issuer": "https://a.example"}},
        {"google": {"issuer": "https://a.example", "client_id": ""}},
        {"google": {"issuer": "http://a.example", "client_id": "a"}},
        {"google": {"issuer": "https://a.example", "client_id": "a", "secret": "x"}},
        {"callback": {"issuer": "https://a.example", "client_id": "a"}},
        {"providers": {"issuer": "https://a.example", "client_id": "a"}},
        {"Google": {"issuer": "https://a.example", "client_id": "a"}},
        {"a/b": {"issuer": "https://a.example", "client_id": "a"}},
    ],
    ids=str,
)
def test_invalid_providers_are_named_at_the_start(providers: object) -> None:
    text = providers if isinstance(providers, str) else json.dumps(providers)
    with pytest.raises(BadSetting, match="OIDC_PROVIDERS"):
        config.check({"SANDBOX": "off", "OIDC_PROVIDERS": text})


def test_provider_that_does_not_respond_leaves_threads_and_places_to_others(
    login: Call, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Semaphore(0)
    goes_on = threading.Event()

    def hang() -> None:
        asked.release()
        goes_on.wait(60)

    issuer.before = hang
    monkeypatch.setenv("TRUSTED_PROXIES", "127.0.0.1")
    with Issuer() as responsive, ThreadPoolExecutor() as pool:
        other = {"other": {"issuer": responsive.url, "client_id": "mp3burst"}}
        monkeypatch.setenv("OIDC_PROVIDERS", json.dumps(other))
        main.sso_dependencies.cache_clear()
        waiting = [pool.submit(login.having(X_Forwarded_For=f"192.0.2.{n // 2}").send) for n in range(3)]
        try:
            assert all(asked.acquire(timeout=60) for _ in waiting)
            refused = login.having(X_Forwarded_For="198.51.100.1").send()
            assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
            assert "Too many logins at once: try again in a few seconds." in refused.get_data(as_text=True)
            to_other = replace(login, path="/sso/other")
            assert to_other.having(X_Forwarded_For="192.0.2.0").send().status_code == 429, "this network has its share"
            assert to_other.having(X_Forwarded_For="198.51.100.1").send().status_code == 302
        finally:
            goes_on.set()
        assert [each.result().status_code for each in waiting] == [302] * 3
    assert login.send().status_code == 302


def test_failure_of_the_provider_is_logged_with_its_cause(
    login: Call, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    del issuer.metadata["jwks_uri"]
    failed = login.send()
    assert (failed.status_code, failed.headers["Retry-After"]) == (503, "5")
    assert "has no jwks_uri" in caplog.text

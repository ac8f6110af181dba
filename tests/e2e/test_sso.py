"""Logins by an identity provider, which is oidc-provider-mock over HTTP, and by a proxy in front, which is the test."""

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.e2e.client import PASSWORD, Answer, Client
from tests.e2e.test_account import reset_link
from tests.support.platform import Platform, start
from tests.support.servers.provider import IdentityProvider

FORM = "application/x-www-form-urlencoded"
#: What the proxy adds to every request.
PROXY = {"Proxy-Login-Secret": "the proxy's, of 32 bytes or more"}


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    with IdentityProvider() as running:
        yield running


@pytest.fixture(scope="module")
def own_platform(provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    environ = {"OIDC_ISSUER": provider.url, "OIDC_CLIENT_ID": "mp3burst", "OIDC_CLIENT_SECRET": "secret"}
    other = {"issuer": provider.other_url, "client_id": "mp3burst", "client_secret": "secret", "title": "Another"}
    environ |= {"OIDC_PROVIDERS": json.dumps({"other": other, "closed": {**other, "create_users": False}})}
    # What connects from 127.0.0.1 is the proxy; other addresses of the loopback network are clients.
    environ |= {
        "PROXY_LOGIN_HEADER": "Remote-Email",
        "PROXY_LOGIN_SECRET": PROXY["Proxy-Login-Secret"],
        "PROXY_LOGIN_NETWORKS": "127.0.0.1",
        "TRUSTED_PROXIES": "127.0.0.1",
    }
    with start(tmp_path_factory.mktemp("sso") / "data", env=environ) as running:
        yield running


class Browser:
    """A browser: remembers cookies, and follows no redirect by itself."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.cookies: dict[str, str] = {}

    def call(
        self,
        method: str,
        path: str,
        form: dict[str, str] | None = None,
        origin: str = "",
        source: str | None = None,
        said: Mapping[str, str] | None = None,
    ) -> Answer:
        """Sends a request from the address ``source``, with headers that say who its user is."""
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()), **(said or {})}
        if form is not None:
            headers |= {"Content-Type": FORM, "Origin": origin or self.url}
        body = None if form is None else urlencode(form).encode()
        answer = Client(self.url).call(method, path, body, headers, source=source)
        for cookie in answer.headers.get_all("Set-Cookie", ()):
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
            if "Max-Age=0" in cookie:
                del self.cookies[name]
        return answer

    def begin(self, to: str = "", path: str = "/sso") -> str:
        """Returns the address that it is sent to."""
        answer = self.call("GET", f"{path}?{urlencode({'to': to})}")
        assert answer.status == 302, answer.body
        assert "SameSite=Lax" in answer.headers["Set-Cookie"]
        return answer.headers["Location"]

    def come_back(self, address: str) -> Answer:
        """Follows the provider's redirect."""
        assert address.startswith(f"{self.url}/sso/")
        return self.call("GET", address.removeprefix(self.url))

    def log_in(self, provider: IdentityProvider, subject: str, to: str = "", path: str = "/sso") -> Answer:
        return self.come_back(provider.log_in(self.begin(to, path), subject))

    def username(self) -> str:
        answer = self.call("GET", "/me")
        assert answer.status == 200, answer.body
        return str(answer.json()["username"])


@pytest.fixture
def browser(own_platform: Platform) -> Browser:
    return Browser(own_platform.url)


def test_ways_to_log_in_are_listed(own_platform: Platform, platform: Platform) -> None:
    offered = Client(own_platform.url).call("GET", "/sso/providers").json()
    assert [(each["name"], each["title"], each["path"]) for each in offered["providers"]] == [
        ("", None, "/sso"),
        ("other", "Another", "/sso/other"),
        ("closed", "Another", "/sso/closed"),
    ]
    assert offered["proxy"] is True
    assert Client(platform.url).call("GET", "/sso/providers").json() == {"providers": [], "proxy": False}


def test_first_login_creates_an_account_and_later_ones_find_it(browser: Browser, provider: IdentityProvider) -> None:
    provider.put("1", email="ann@example.org", email_verified=True, name="Ann")
    page = browser.log_in(provider, "1", to="/jobs?limit=1")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b'content="0; url=/jobs?limit=1"' in page.body
    cookies = page.headers.get_all("Set-Cookie", ())
    assert any("HttpOnly" in cookie and "SameSite=Strict" in cookie for cookie in cookies)
    account = browser.call("GET", "/me").json()
    assert (account["username"], account["name"], account["confirmed"]) == ("ann@example.org", "Ann", True)
    assert Client(browser.url).login("ann@example.org", "").status == 401
    # Whatever becomes of the address: the account at the provider stays the same.
    provider.put("1", email="ann@example.net", email_verified=False)
    again = Browser(browser.url)
    provider.put("1", email="ann@example.net", email_verified=True)
    assert again.log_in(provider, "1").status == 200
    assert again.username() == "ann@example.org"


def test_user_removes_an_external_login_but_not_the_last_way_in(
    browser: Browser, provider: IdentityProvider, own_platform: Platform
) -> None:
    provider.put("40", email="lea@example.org", email_verified=True, name="Lea")
    browser.log_in(provider, "40")
    listed = browser.call("GET", "/logins").json()
    [login] = listed["logins"]
    assert (login["provider"], listed["password"]) == (provider.url, False)
    assert "set a password" in browser.call("DELETE", f"/logins/{login['id']}", {}).problem(409)["detail"]
    me = Client(browser.url).sign_up()
    assert me.call("GET", "/logins").json() == {"logins": [], "password": True}
    me.call("DELETE", f"/logins/{login['id']}").problem(404)
    me.post_json("/password-reset", {"username": "lea@example.org"})
    reset = {"password": "another horse", "keep_keys": "true"}
    assert browser.call("POST", reset_link(own_platform, "lea@example.org"), reset).status == 200
    browser = Browser(browser.url)
    assert browser.log_in(provider, "40").status == 200
    assert browser.call("DELETE", f"/logins/{login['id']}", {}).status == 204
    assert browser.username() == "lea@example.org", "the session goes on"
    assert Browser(browser.url).log_in(provider, "40").status == 409, "asks for the password"


def test_login_ends_in_the_browser_that_began_it_and_once(browser: Browser, provider: IdentityProvider) -> None:
    provider.put("2", email="bob@example.org", email_verified=True)
    address = provider.log_in(browser.begin(), "2")
    assert Browser(browser.url).come_back(address).status == 401, "login CSRF"
    wrong = address.replace(parse_qs(urlsplit(address).query)["state"][0], "x" * 43)
    assert browser.come_back(wrong).status == 401
    ticket = dict(browser.cookies)
    assert browser.come_back(address).status == 200
    assert browser.come_back(address).status == 401, "the browser's ticket is gone"
    replay = Browser(browser.url)
    replay.cookies = ticket
    assert replay.come_back(address).status == 401, "the provider takes a code once"
    assert "mp3burst" not in replay.cookies
    other = Browser(browser.url)
    other.begin()
    other.cookies["mp3burst"] = ticket["mp3burst-login"]
    assert other.call("GET", "/me").status == 401, "a ticket is no token"


def test_code_of_another_login_is_refused(browser: Browser, provider: IdentityProvider) -> None:
    """An attacker who got hold of a code cannot use it for a login of his own (PKCE, nonce)."""
    provider.put("3", email="eve@example.org", email_verified=True)
    code = parse_qs(urlsplit(provider.log_in(browser.begin(), "3")).query)["code"][0]
    attacker = Browser(browser.url)
    own = provider.log_in(attacker.begin(), "3")
    answer = attacker.come_back(own.replace(parse_qs(urlsplit(own).query)["code"][0], code))
    assert answer.status in (401, 503)
    assert "mp3burst" not in attacker.cookies


def test_simultaneous_first_logins_create_one_account(own_platform: Platform, provider: IdentityProvider) -> None:
    provider.put("4", email="cas@example.org", email_verified=True)
    browsers = [Browser(own_platform.url) for _ in range(2)]
    addresses = [provider.log_in(each.begin(), "4") for each in browsers]
    with ThreadPoolExecutor() as pool:
        pages = list(pool.map(lambda pair: pair[0].come_back(pair[1]).status, zip(browsers, addresses, strict=True)))
    assert pages == [200] * 2
    assert len({each.call("GET", "/me").json()["id"] for each in browsers}) == 1


@pytest.mark.parametrize(
    "claims", [{}, {"email_verified": False}, {"email_verified": "true"}], ids=["none", "no", "text"]
)
def test_unverified_address_gets_no_account(
    browser: Browser, provider: IdentityProvider, claims: dict[str, object]
) -> None:
    provider.put("5", email="victim@example.org", **claims)
    page = browser.log_in(provider, "5")
    assert page.status == 403
    assert b"does not confirm" in page.body
    assert "mp3burst" not in browser.cookies


def test_account_with_the_address_is_linked_with_its_password(browser: Browser, provider: IdentityProvider) -> None:
    me = Client(browser.url).sign_up()
    provider.put("6", email=me.username.upper(), email_verified=True)
    page = browser.log_in(provider, "6")
    assert page.status == 409
    assert b'action="/sso/link"' in page.body
    assert me.username.encode() not in page.body
    assert page.headers["Referrer-Policy"] == "same-origin", "without it, the form's Origin is null"
    form = {"username": me.username, "password": PASSWORD}
    assert browser.call("POST", "/sso/link", form, origin="https://evil.example").status == 403
    assert browser.call("POST", "/sso/link", form | {"password": "wrong horse"}).status == 401
    assert Browser(browser.url).call("POST", "/sso/link", form).status == 401, "not after a login at the provider"
    assert browser.call("POST", "/sso/link", form).status == 200
    assert browser.username() == me.username
    again = Browser(browser.url)
    assert again.log_in(provider, "6").status == 200
    assert again.username() == me.username


def test_username_that_somebody_else_has_taken_is_not_in_the_way(browser: Browser, provider: IdentityProvider) -> None:
    address = "dan@example.org"
    squatter = Client(browser.url).register(name="x", username=address, password=PASSWORD, email="eve@example.com")
    assert squatter.status == 201
    provider.put("7", email=address, email_verified=True)
    assert browser.log_in(provider, "7").status == 200
    account = browser.call("GET", "/me").json()
    assert account["email"] == address
    assert re.fullmatch(r"dan@example\.org#[0-9a-f]{8}", account["username"])
    assert account["id"] != squatter.json()["id"]


@pytest.mark.parametrize("to", ["https://evil.example", "//evil.example", "/\\evil.example", '/a"><script>'])
def test_login_goes_on_only_to_own_pages(browser: Browser, provider: IdentityProvider, to: str) -> None:
    provider.put("8", email="fay@example.org", email_verified=True)
    assert b'content="0; url=/docs"' in browser.log_in(provider, "8", to=to).body


def test_refusal_of_the_provider_is_told(browser: Browser) -> None:
    state = parse_qs(urlsplit(browser.begin()).query)["state"][0]
    page = browser.call("GET", f"/sso/callback?{urlencode({'error': 'access_denied', 'state': state})}")
    assert page.status == 403
    assert b"refused" in page.body


def test_each_provider_has_its_own_users(browser: Browser, provider: IdentityProvider) -> None:
    provider.put("9", email="jan@example.org", email_verified=True)
    assert browser.log_in(provider, "9").status == 200
    other = Browser(browser.url)
    provider.put("9", email="jan@example.net", email_verified=True)
    page = other.log_in(provider, "9", to="/jobs", path="/sso/other")
    assert page.status == 200
    assert b'content="0; url=/jobs"' in page.body
    assert (browser.username(), other.username()) == ("jan@example.org", "jan@example.net")
    assert other.call("GET", "/sso/another").status == 404
    # Both names have the same issuer, so the same users; this one creates none.
    assert other.log_in(provider, "9", path="/sso/closed").status == 200
    assert other.username() == "jan@example.net"
    provider.put("10", email="kim@example.org", email_verified=True)
    assert b"no account here" in Browser(browser.url).log_in(provider, "10", path="/sso/closed").body


def test_proxy_logs_in_whom_it_has_authenticated(browser: Browser) -> None:
    said = PROXY | {
        "Remote-Email": "Gil@example.org",
        "Remote-Name": "=?utf-8?q?Gi=C5=82?=",
        "X-Forwarded-For": "192.0.2.7",
    }
    page = browser.call("GET", "/sso/proxy?to=/jobs", said=said)
    assert page.status == 200, page.body
    assert b'content="0; url=/jobs"' in page.body
    assert any("SameSite=Strict" in cookie for cookie in page.headers.get_all("Set-Cookie", ()))
    account = browser.call("GET", "/me").json()
    assert (account["username"], account["name"], account["confirmed"]) == ("gil@example.org", "Gi\u0142", True)
    again = Browser(browser.url)
    assert again.call("GET", "/sso/proxy", said=said | {"Remote-Email": "gil@Example.org"}).status == 200
    assert again.call("GET", "/me").json()["id"] == account["id"]


def test_clients_cannot_say_themselves_who_they_are(browser: Browser) -> None:
    said = PROXY | {"Remote-Email": "victim@example.org", "X-Forwarded-For": "192.0.2.7, 127.0.0.1"}
    page = browser.call("GET", "/sso/proxy", source="127.0.0.2", said=said)
    assert page.status == 403
    assert b"did not come through the proxy" in page.body
    without_secret = browser.call("GET", "/sso/proxy", said={"Remote-Email": "victim@example.org"})
    assert b"did not come through the proxy" in without_secret.body
    for email in ("", "victim", "a@example.org, victim@example.org", "victim@[127.0.0.1]"):
        assert browser.call("GET", "/sso/proxy", said=PROXY | {"Remote-Email": email}).status == 403, email
    # WSGI cannot tell this name from Remote-Email, which a proxy that replaces that header does not know.
    assert (
        Client(browser.url).call("GET", "/sso/proxy", headers=PROXY | {"Remote_Email": "victim@example.org"}).status
        == 403
    )
    assert browser.cookies == {}


def test_proxy_logs_nobody_in_who_looks_at_a_page_of_another_site(browser: Browser) -> None:
    """A page could load the address as an image a thousand times, and so withdraw all tokens of its visitor."""
    said = PROXY | {"Remote-Email": "joe@example.org"}
    for embedded in ("image", "iframe", "empty"):
        page = browser.call("GET", "/sso/proxy", said=said | {"Sec-Fetch-Dest": embedded})
        assert page.status == 403, embedded
        assert b"open this address yourself" in page.body
    assert browser.cookies == {}
    assert browser.call("GET", "/sso/proxy", said=said | {"Sec-Fetch-Dest": "document"}).status == 200


def test_header_is_read_by_the_login_only(browser: Browser) -> None:
    said = PROXY | {"Remote-Email": "hal@example.org"}
    assert browser.call("GET", "/sso/proxy", said=said).status == 200
    for path in ("/me", "/jobs", "/validate"):
        assert Browser(browser.url).call("GET", path, said=said).status in (401, 405), path


def test_account_with_the_address_of_the_proxy_is_linked_with_its_password(browser: Browser) -> None:
    me = Client(browser.url).sign_up()
    said = PROXY | {"Remote-Email": me.username}
    page = browser.call("GET", "/sso/proxy", said=said)
    assert page.status == 409
    assert browser.call("POST", "/sso/link", {"username": me.username, "password": PASSWORD}).status == 200
    assert browser.username() == me.username
    again = Browser(browser.url)
    assert again.call("GET", "/sso/proxy", said=said).status == 200
    assert again.username() == me.username


def test_after_a_reset_of_the_password_the_login_asks_for_it(own_platform: Platform, browser: Browser) -> None:
    said = PROXY | {"Remote-Email": "ida@example.org"}
    assert browser.call("GET", "/sso/proxy", said=said).status == 200
    Client(browser.url).post_json("/password-reset", {"username": "ida@example.org"})
    link = reset_link(own_platform, "ida@example.org")
    assert browser.call("POST", link, {"password": "another horse"}).status == 200
    assert browser.call("GET", "/sso/proxy", said=said).status == 409
    form = {"username": "ida@example.org", "password": "another horse"}
    assert browser.call("POST", "/sso/link", form).status == 200
    assert browser.call("GET", "/sso/proxy", said=said).status == 200


def test_without_a_provider_or_a_proxy_there_is_none(platform: Platform) -> None:
    for path, missing in {
        "/sso": "no such identity provider",
        "/sso/callback": "no such identity provider",
        "/sso/google": "no such identity provider",
        "/sso/google/callback": "no such identity provider",
        "/sso/proxy": "No proxy",
    }.items():
        assert missing in Client(platform.url).call("GET", path).problem(404)["detail"]

"""Cookies of sessions: their attributes, and attacks by other sites."""

import pytest

from functions.auth.sessions import ForeignOrigin, cookie, cookie_name, require_own_origin
from functions.settings import BadSetting

HTTPS = {"PUBLIC_URL": "https://mp3.example/"}
HTTP = {"PUBLIC_URL": "http://localhost:8080"}


def test_cookie_is_kept_from_scripts_and_other_sites() -> None:
    header = cookie("a.b.c", 3600, HTTPS)
    assert header == "__Host-mp3burst=a.b.c; Path=/; Max-Age=3600; HttpOnly; SameSite=Strict; Secure"
    assert cookie_name(HTTPS) == "__Host-mp3burst"


def test_cookie_works_without_https() -> None:
    """Browsers refuse Secure, and so __Host-, over HTTP."""
    assert cookie("a.b.c", 3600, HTTP) == "mp3burst=a.b.c; Path=/; Max-Age=3600; HttpOnly; SameSite=Strict"


def test_logging_out_deletes_the_cookie() -> None:
    assert "=; Path=/; Max-Age=0;" in cookie("", 0, HTTPS)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET ", "get", "MKCOL"])
@pytest.mark.parametrize(
    ("origin", "site"),
    [
        (None, None),
        (None, "cross-site"),
        (None, "same-site"),
        (None, "none"),
        ("", "same-origin"),
        ("null", "same-origin"),
        ("https://evil.example", "same-origin"),
        ("http://mp3.example", "same-site"),
        ("https://mp3.example.evil.example", None),
        ("https://mp3.example:8443", None),
        ("https://sub.mp3.example", "same-site"),
        ("https://mp3.example/", None),
        ("https://mp3.example https://evil.example", None),
    ],
)
def test_changes_from_elsewhere_are_refused(method: str, origin: str | None, site: str | None) -> None:
    with pytest.raises(ForeignOrigin, match=r"does not come from https://mp3\.example:"):
        require_own_origin(method, origin, site, HTTPS)


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_changes_from_our_pages_are_accepted(method: str) -> None:
    require_own_origin(method, "https://mp3.example", "same-origin", HTTPS)
    require_own_origin(method, "https://MP3.example", None, HTTPS)
    require_own_origin(method, None, "same-origin", HTTPS)
    require_own_origin(method, "http://localhost:8080", None, HTTP)


def test_reading_needs_no_origin() -> None:
    for method in ("GET", "HEAD", "OPTIONS"):
        require_own_origin(method, "https://evil.example", "cross-site", {})


def test_without_a_public_url_nothing_is_accepted() -> None:
    with pytest.raises(BadSetting, match="PUBLIC_URL"):
        require_own_origin("POST", "http://localhost", None, {})

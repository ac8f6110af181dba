"""Signed download links: each downloads one MP3 and nothing else until it expires."""

import base64
import json
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest

from functions.auth.links import BadLink, Links
from functions.settings import BadSetting
from functions.state.schema import UserId

OWNER = UserId("7")
KEY = "k" * 32
OTHER_KEY = "o" * 32
FID = "0123456789abcdef01234567"
OTHER_FID = "76543210fedcba9876543210"
CLAIMS = {"aud": "download", "iss": "mp3burst", "sub": "7", "fid": FID, "exp": int(time.time()) + 86_400}


def links(*keys: str, days: float = 7) -> Links:
    return Links(keys or [KEY], "https://mp3.example/", days)


def token_of(url: str) -> str:
    return parse_qs(urlsplit(url).query)["token"][0]


def signed(key: str = KEY, algorithm: str = "HS256", **changes: Any) -> str:
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}
    return jwt.encode(claims, key, algorithm=algorithm)


def test_link_verifies_as_its_owner() -> None:
    url = links().make(OWNER, FID)

    assert url.startswith(f"https://mp3.example/download?fid={FID}&token=")
    assert links().verify(token_of(url), FID) == "7"


def test_link_is_valid_for_the_given_days() -> None:
    claims = jwt.decode(token_of(links(days=3).make(OWNER, FID)), options={"verify_signature": False})

    assert claims["exp"] - time.time() == pytest.approx(3 * 86400, abs=5)


def test_token_with_all_claims_is_accepted() -> None:
    assert links().verify(signed(), FID) == "7"


def test_expired_link_says_what_to_do() -> None:
    with pytest.raises(BadLink, match="expired: log in") as caught:
        links().verify(token_of(links(days=-1).make(OWNER, FID)), FID)
    assert caught.value.status == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "mp3burst"},
        {"aud": None},
        {"iss": "another"},
        {"iss": None},
        {"sub": None},
        {"sub": 7},
        {"fid": None},
        {"fid": OTHER_FID},
        {"exp": None},
        {"exp": "tomorrow"},
    ],
    ids=str,
)
def test_token_with_an_invalid_or_missing_claim_is_rejected(changes: dict[str, Any]) -> None:
    with pytest.raises(BadLink, match="invalid"):
        links().verify(signed(**changes), FID)


def test_link_for_another_file_is_rejected() -> None:
    with pytest.raises(BadLink):
        links().verify(token_of(links().make(OWNER, FID)), OTHER_FID)


def test_another_key_is_rejected() -> None:
    with pytest.raises(BadLink):
        links().verify(signed(OTHER_KEY), FID)


def test_another_algorithm_is_rejected() -> None:
    with pytest.raises(BadLink):
        links().verify(signed("k" * 64, "HS512"), FID)


def test_unsigned_token_is_rejected() -> None:
    for algorithm in ("none", "None", "NONE"):
        head, body = (
            base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
            for part in ({"alg": algorithm, "typ": "JWT"}, CLAIMS)
        )
        for token in (f"{head}.{body}.", f"{head}.{body}.{signed().split('.')[2]}"):
            with pytest.raises(BadLink):
                links().verify(token, FID)


def test_tampered_token_is_rejected() -> None:
    head, _, signature = signed().split(".")
    body = base64.urlsafe_b64encode(json.dumps({**CLAIMS, "sub": "8"}).encode()).rstrip(b"=").decode()

    with pytest.raises(BadLink):
        links().verify(f"{head}.{body}.{signature}", FID)


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "é", "\udcff", "." * 1000, signed()[:-20]])
def test_malformed_token_is_rejected(token: str) -> None:
    with pytest.raises(BadLink):
        links().verify(token, FID)


def test_key_rotation_breaks_no_link() -> None:
    before = token_of(links(OTHER_KEY).make(OWNER, FID))
    during = links(KEY, OTHER_KEY)

    assert during.verify(before, FID) == "7"
    assert links(KEY).verify(token_of(during.make(OWNER, FID)), FID) == "7"
    with pytest.raises(BadLink):
        links(KEY).verify(before, FID)


def test_expired_link_of_the_old_key_is_reported_as_expired() -> None:
    with pytest.raises(BadLink, match="expired"):
        links(KEY, OTHER_KEY).verify(signed(OTHER_KEY, exp=1), FID)


def test_settings_are_read_from_the_environment() -> None:
    made = Links.from_environ({"LINK_KEY": f"{KEY}, {OTHER_KEY}", "LINK_DAYS": "2", "PUBLIC_URL": "http://x"})

    assert made.days == 2
    assert made.make(OWNER, FID).startswith("http://x/download?")
    assert made.verify(signed(OTHER_KEY), FID) == "7"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LINK_KEY": ""},
        {"LINK_KEY": " , "},
        {"LINK_KEY": "k" * 31},
        {"LINK_KEY": f"{KEY},short"},
        {"LINK_KEY": KEY, "LINK_DAYS": "week"},
        {"LINK_KEY": KEY, "LINK_DAYS": "0"},
    ],
    ids=str,
)
def test_error_names_the_invalid_setting(environ: dict[str, str]) -> None:
    with pytest.raises(BadSetting, match="LINK_"):
        Links.from_environ(environ)


def test_only_making_a_link_needs_the_public_url() -> None:
    made = Links.from_environ({"LINK_KEY": KEY})

    assert made.verify(signed(), FID) == "7"
    with pytest.raises(BadSetting, match="PUBLIC_URL"):
        made.make(OWNER, FID)

"""Access tokens: valid ones, and every kind of invalid one."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from functions.auth.tokens import AUDIENCE, ISSUER, NotAuthenticated, Signer, Verifier, bearer, verifier
from functions.settings import BadSetting
from functions.state.schema import UserId


def private_pem(key: Any) -> str:
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem.decode()


def public_pem(key: Any) -> str:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


USER = UserId("u")
KEY = Ed25519PrivateKey.generate()
OTHER = Ed25519PrivateKey.generate()
SIGNER = Signer(private_pem(KEY))
VERIFIER = Verifier(public_pem(KEY))
KID = VERIFIER.jwks[0]["kid"]


def claims(**changes: object) -> dict[str, object]:
    now = int(time.time())
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "u", "username": "ada", "role": "user", "iat": now, "exp": now + 60}
    return {name: value for name, value in (good | changes).items() if value is not None}


def signed(key: Any = KEY, algorithm: str = "EdDSA", kid: object = KID, **changes: object) -> str:
    return jwt.encode(claims(**changes), key, algorithm, headers=None if kid is None else {"kid": kid})


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def hs256(secret: bytes) -> str:
    """Returns a token signed with HS256, made by hand because libraries refuse to use a public key for it."""
    content = f"{encoded({'alg': 'HS256', 'typ': 'JWT', 'kid': KID})}.{encoded(claims())}"
    signature = hmac.new(secret, content.encode(), hashlib.sha256).digest()
    return f"{content}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def tampered(token: str) -> str:
    head, body, signature = token.split(".")
    content = json.loads(base64.urlsafe_b64decode(body + "=="))
    return f"{head}.{encoded(content | {'role': 'admin'})}.{signature}"


def test_token_identifies_its_user() -> None:
    identity = VERIFIER.verify(SIGNER.sign(UserId("u1"), "ada@example.org", "admin"))
    assert (identity.user, identity.username, identity.role) == ("u1", "ada@example.org", "admin")
    assert identity.claims["exp"] - identity.claims["iat"] == SIGNER.seconds == 24 * 3600
    assert VERIFIER.verify(signed()).user == "u"


def test_login_clock_may_be_ahead() -> None:
    assert VERIFIER.verify(signed(iat=int(time.time()) + 20)).user == "u"


GOOD = SIGNER.sign(USER, "ada", "user")
BAD = {
    "empty": "",
    "malformed": "abc",
    "two parts": "a.b",
    "not JSON": "a.b.c",
    "expired": signed(exp=int(time.time()) - 1),
    "not valid yet": signed(nbf=int(time.time()) + 1000),
    "issued in the future": signed(iat=int(time.time()) + 1000),
    "iat is not a number": signed(iat="soon"),
    "wrong audience": signed(aud="download"),
    "list of other audiences": signed(aud=["other"]),
    "wrong issuer": signed(iss="other"),
    **{f"without {name}": signed(KEY, "EdDSA", KID, **{name: None}) for name in ("exp", "iat", "sub", "aud", "iss")},
    "exp is not a number": f"{encoded({'alg': 'EdDSA', 'kid': KID})}.{encoded(claims(exp='soon'))}.AAAA",
    "another key": signed(OTHER),
    "another key with its own kid": signed(OTHER, kid=Verifier(public_pem(OTHER)).jwks[0]["kid"]),
    "without kid": signed(kid=None),
    "unknown kid": signed(kid="unknown"),
    "kid is a path": signed(kid="../../dev/null"),
    "kid is a list": f"{encoded({'alg': 'EdDSA', 'kid': [KID]})}.{'.'.join(GOOD.split('.')[1:])}",
    "alg none": f"{encoded({'alg': 'none', 'kid': KID})}.{encoded(claims())}.",
    "alg none, signature kept": f"{encoded({'alg': 'none', 'kid': KID})}.{'.'.join(GOOD.split('.')[1:])}",
    "HS256 with the public PEM": hs256(public_pem(KEY).encode()),
    "HS256 with the raw public key": hs256(KEY.public_key().public_bytes_raw()),
    "HS256 with an empty key": hs256(b""),
    "ES256": signed(generate_private_key(SECP256R1()), "ES256"),
    "tampered": tampered(GOOD),
    "truncated signature": GOOD[:-4],
    "no signature": GOOD.rpartition(".")[0] + ".",
    "trailing character": GOOD + "~",
    "trailing padding": GOOD + "==",
    "not ASCII": GOOD + "é",
    "trailing newline": GOOD + "\n",
    "too many parts": GOOD + ".AAAA",
}


@pytest.mark.parametrize("what", BAD)
def test_invalid_token_is_rejected(what: str) -> None:
    with pytest.raises(NotAuthenticated, match=r"log in"):
        VERIFIER.verify(BAD[what])


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", f"Basic {GOOD}", GOOD, f"Token {GOOD}"])
def test_scheme_must_be_bearer(header: str | None) -> None:
    with pytest.raises(NotAuthenticated, match="Authorization: Bearer"):
        bearer(header)


def test_scheme_is_case_insensitive() -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert bearer(f"{scheme}  {GOOD} ") == GOOD


def test_key_rotation_keeps_old_tokens_valid() -> None:
    old = SIGNER.sign(USER, "ada", "user")
    new = Signer(private_pem(OTHER)).sign(USER, "ada", "user")
    both = Verifier(public_pem(KEY) + "\n" + public_pem(OTHER))
    assert len({key["kid"] for key in both.jwks}) == 2
    assert both.verify(old) == VERIFIER.verify(old)
    assert both.verify(new).user == "u"
    after = Verifier(public_pem(OTHER))
    assert after.verify(new).user == "u"
    with pytest.raises(NotAuthenticated):
        after.verify(old)


def test_jwks_can_be_read_by_other_libraries() -> None:
    (jwk,) = VERIFIER.jwks
    key = jwt.PyJWK(jwk)
    assert jwt.decode(GOOD, key, ["EdDSA"], audience=AUDIENCE)["sub"] == "u"
    # RFC 8037, appendix A.3: the thumbprint of a known key.
    x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    raw = base64.urlsafe_b64decode(x + "=")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    known = Ed25519PublicKey.from_public_bytes(raw)
    pem = known.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    assert Verifier(pem).jwks[0]["kid"] == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


TRUNCATED_KEY = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2Vw\n-----END PUBLIC KEY-----"


@pytest.mark.parametrize(
    "keys", ["", "nonsense", TRUNCATED_KEY, private_pem(KEY), public_pem(generate_private_key(SECP256R1()))]
)
def test_invalid_public_keys(keys: str) -> None:
    with pytest.raises(BadSetting, match="TOKEN_PUBLIC_KEYS"):
        verifier({"TOKEN_PUBLIC_KEYS": keys})


@pytest.mark.parametrize("key", ["nonsense", public_pem(KEY), private_pem(generate_private_key(SECP256R1()))])
def test_invalid_private_keys(key: str) -> None:
    with pytest.raises(BadSetting, match="TOKEN_PRIVATE_KEY"):
        Signer.from_environ({"TOKEN_PRIVATE_KEY": key})


def test_token_lifetime_is_configurable() -> None:
    signer = Signer.from_environ({"TOKEN_PRIVATE_KEY": private_pem(KEY), "TOKEN_HOURS": "0.5"})
    signed_claims = VERIFIER.verify(signer.sign(USER, "ada", "user")).claims
    assert signed_claims["exp"] - signed_claims["iat"] == signer.seconds == 1800

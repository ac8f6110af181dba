"""Attacks every input of every HTTP function with the longest and most expensive values that can arrive.

No server limits what arrives here: a header may have 800 kB, as much as gunicorn passes on if a field is repeated. Each
request may cost twice the CPU time of an ordinary one and HEADROOM times that of a request to an unknown path.
"""

import base64
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from events.errors import Mp3burstError
from functions.auth.accounts import Accounts, WrongCredentials, normalize_username
from functions.auth.links import Links
from functions.auth.throttle import Standing
from functions.email_address import MAX_LENGTH, BadAddress, parse
from functions.file_names import base_name
from functions.http_endpoint import JSON_LIMIT
from functions.options import Options
from functions.state.schema import UserId
from functions.upload.multipart import read
from tests.support.calls import LINK_KEY, Call, basic, bearer, functions
from tests.unit.auth.test_tokens import encoded

#: A request to an unknown path takes about 0.1 ms: each may cost about 20 ms more.
HEADROOM = 200
#: Bytes: what one header line may have, and what gunicorn makes of 100 lines.
SIZES = (8_190, 800_000)
#: Each is repeated to the size that is needed; what is quadratic needs both halves of a pair.
WORST: dict[str, tuple[str, ...]] = {
    "letters": ("a",),
    "digits": ("9",),
    "spaces": (" ",),
    "combining marks in the wrong order": ("\u0344", "\u0316"),
    "ligatures of 18 characters": ("\ufdfa",),
    "letters that folding decomposes": ("\u1fb3\u0316",),
    "commas": (",",),
    "quotes": ('"',),
    "backslashes": ('"' + "\\" * 50,),
    "brackets": ("[",),
    "objects": ('{"a":',),
    "dots": (".a",),
    "labels": ("a@", "\ufdfa"),
    "parameters": ('a="b",',),
    "continued parameters": ("; a*0=b",),
    "proxies": ("::1,",),
    "tags": ('W/"a",',),
    "dashes": ("1-,",),
    "query": ("&a=b",),
    "percents": ("%41",),
    "slashes": ("/../",),
}
JOB = "0123456789abcdef0123456789abcdef"
FID = "0123456789abcdef01234567"
TOKEN = bearer("ann")
TUS = {"Tus-Resumable": "1.0.0", "Upload-Length": "9"}
HEADERS = (
    *("Accept", "Authorization", "Content-Type", "Cookie", "Forwarded", "Host", "Idempotency-Key", "If-Match"),
    *("If-Modified-Since", "If-None-Match", "If-Range", "Origin", "Range", "Tus-Resumable", "Upload-Checksum"),
    *("Upload-Defer-Length", "Upload-Length", "Upload-Metadata", "Upload-Offset", "X-Forwarded-For"),
    *("X-Forwarded-Host", "X-Forwarded-Proto", "X-HTTP-Method-Override"),
)


def worst(size: int) -> Iterator[tuple[str, str]]:
    """Yields the name of each expensive text, and the text with about so many bytes in UTF-8."""
    for name, parts in WORST.items():
        each = size // len(parts)
        yield name, "".join(part * (each // len(part.encode())) for part in parts).strip(",")


GOOD = {"name": "Ann", "username": "", "password": "correct horse", "email": "ann@example.org"}
REGISTER = Call("register", "POST", "/register", body=json.dumps(GOOD).encode())
DOWNLOAD = Call("download", "GET", "/download", f"fid={FID}", headers={"Authorization": TOKEN})
UPLOAD = Call("upload", "POST", "/upload", "vbr=99", headers={"Authorization": TOKEN, "Content-Type": "video/mp4"})
TUS_UPLOAD = Call("upload", "POST", "/files", headers={"Authorization": TOKEN, **TUS, "Upload-Metadata": "vbr OTk="})
CALLS = (
    REGISTER,
    Call("login", "POST", "/login", headers={"Authorization": basic("ann", "wrong horse")}),
    Call("confirm", "GET", "/confirm", "token=a.b.c"),
    Call("confirm", "POST", "/unsubscribe", "token=a.b.c"),
    Call("validate", "POST", "/validate", headers={"Authorization": TOKEN}),
    Call("status", "GET", "/jobs", headers={"Authorization": TOKEN}),
    Call("status", "GET", f"/jobs/{JOB}", headers={"Authorization": TOKEN}),
    Call("status", "DELETE", f"/jobs/{JOB}", headers={"Authorization": TOKEN}),
    DOWNLOAD,
    UPLOAD,
    TUS_UPLOAD,
    Call("upload", "PATCH", f"/files/{JOB}", headers={"Authorization": TOKEN, **TUS}),
    Call("account", "POST", "/password-reset", body=b'{"username": "ann"}'),
    Call("account", "GET", "/password-reset/new", "token=a.b.c"),
)
every_call = pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.method} {call.path}")


@pytest.fixture(scope="module", autouse=True)
def _functions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with functions(tmp_path_factory.mktemp("functions")) as patch:
        # Locks would answer before anything is parsed, and hashing a password takes longer than any attack should.
        standing = Standing(is_known=False, has_failures=False, is_fresh=False)
        patch.setattr("functions.auth.throttle.Throttle.check", lambda *_: standing)
        patch.setattr("functions.auth.throttle.Throttle.record_failure", lambda *_: {})
        patch.setattr(Accounts, "authenticate", _refuse)
        yield


def _refuse(_: Accounts, username: str, __: str) -> None:
    normalize_username(username)
    raise WrongCredentials("Wrong username or password.")


def cpu_time(work: Callable[[], object], enough: float = 0) -> float:
    """Returns the least CPU time of three runs in seconds; stops early at a run that takes at most ``enough``."""
    least = float("inf")
    for _ in range(3):
        began = time.process_time()
        work()
        least = min(least, time.process_time() - began)
        if least <= enough:
            break
    return least


def budget(call: Call) -> float:
    """Returns the seconds of CPU time that an attack on this call may cost."""
    call.send()  # imports
    nothing = Call(call.function, "GET", "/nothing")
    return 2 * cpu_time(call.send) + HEADROOM * cpu_time(nothing.send)


def attack(calls: dict[str, Call], limit: float) -> None:
    """Sends every call; none may cost more than the limit or fail on the server's side."""
    spent = {}
    for name, call in calls.items():
        statuses = []
        if (seconds := cpu_time(lambda: statuses.append(call.send().status_code), limit)) > limit:  # noqa: B023
            spent[name] = round(seconds, 3)
        assert max(statuses) < 500, name
    assert not spent, f"cost more than {limit:.3f} s"


@every_call
@pytest.mark.parametrize("size", SIZES)
def test_headers(call: Call, size: int) -> None:
    calls = {f"{header}: {name}": call.having(**{header: text}) for header in HEADERS for name, text in worst(size)}
    attack(calls, budget(call))


@every_call
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["Basic", "Bearer", "Digest"])
def test_credentials(call: Call, size: int, scheme: str) -> None:
    calls = {name: call.having(Authorization=f"{scheme} {text}") for name, text in worst(size)}
    for name, text in worst(size * 3 // 4 - 10):
        calls[f"encoded {name}"] = call.having(Authorization=f"{scheme} {base64.b64encode(text.encode()).decode()}")
        calls[f"username {name}"] = call.having(Authorization=basic(text, "wrong horse"))
        calls[f"password {name}"] = call.having(Authorization=basic("ann", text))
        calls[f"token {name}"] = call.having(Authorization=f"Bearer {_base64url(text)}.e30.e30")
        header = encoded({"alg": "EdDSA"})
        calls[f"payload {name}"] = call.having(Authorization=f"Bearer {header}.{_base64url(text)}.e30")
    attack(calls, budget(call))


def _base64url(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@every_call
@pytest.mark.parametrize("size", SIZES)
def test_queries_and_paths(call: Call, size: int) -> None:
    names = (*Options.__dataclass_fields__, "fid", "token", "after", "limit", "wait", "filename", "unknown")
    calls = {}
    for name, text in worst(size):
        raw = text.encode().decode("latin-1")
        calls[name] = Call(call.function, call.method, call.path, raw, call.body, call.headers)
        path = f"{call.path}/{raw}"
        calls[f"path {name}"] = Call(call.function, call.method, path, call.query, call.body, call.headers)
        for key in names:
            query = f"{call.query}&{key}={raw}"
            calls[f"{key} {name}"] = Call(call.function, call.method, call.path, query, call.body, call.headers)
    attack(calls, budget(call))


def register(body: bytes) -> Call:
    return Call("register", "POST", "/register", body=body)


@pytest.mark.parametrize("key", GOOD)
def test_fields_of_a_registration(key: str) -> None:
    texts = worst(JSON_LIMIT - 1_000)
    calls = {name: register(json.dumps(GOOD | {key: text}, ensure_ascii=False).encode()) for name, text in texts}
    attack(calls, budget(REGISTER))


def test_json_of_a_registration() -> None:
    calls = {name: register(text.encode()) for name, text in worst(JSON_LIMIT)}
    calls["escapes"] = register(b'{"name":"' + b"\\u0344" * 10_000)
    calls["many keys"] = register(json.dumps(dict.fromkeys(map(str, range(8_000)))).encode()[:JSON_LIMIT])
    calls["endless"] = register(b"[" * (8 << 20))
    attack(calls, budget(REGISTER))


@pytest.mark.parametrize("key", GOOD)
def test_half_a_surrogate_pair_is_no_text(key: str) -> None:
    attack({"half": register(json.dumps(GOOD | {key: "\ud800"}).encode())}, budget(REGISTER))
    attack({"half": Call("account", "POST", "/password-reset", body=b'{"username": "\\ud800"}')}, budget(REGISTER))


def test_tus_metadata() -> None:
    calls = {}
    for size in SIZES:
        for name, text in worst(size * 3 // 4 - 20):
            for key in ("filename", "start", "unknown"):
                pair = f"{key} {base64.b64encode(text.encode()).decode()}"
                calls[f"{key} {name}"] = TUS_UPLOAD.having(Upload_Metadata=f"vbr OTk=,{pair}")
        calls[f"{size} keys"] = TUS_UPLOAD.having(Upload_Metadata=",".join(f"k{n} YQ==" for n in range(size // 12)))
    attack(calls, budget(TUS_UPLOAD))


BOUNDARY = "b" * 30
FILE = 'Content-Disposition: form-data; name="file"; filename="a.mp4"'
#: Bytes of a form: as many as would take a second if they were parsed as headers.
FORM = 3 << 20


def part(head: str, content: bytes = b"", boundary: str = BOUNDARY) -> bytes:
    return f"--{boundary}\r\n{head}\r\n\r\n".encode() + content + b"\r\n"


def hostile_forms() -> dict[str, bytes]:
    end = f"--{BOUNDARY}--\r\n".encode()
    named = "Content-Disposition: form-data; name="
    heads = {
        "a long file name": f'{FILE[:-7]}"{"a" * FORM}.mp4"',
        "an escaped file name": f'{FILE[:-7]}"' + '\\"' * (FORM // 2) + '"',
        "many headers": FILE + "\r\na:b" * (FORM // 5),
        "continuation lines": FILE + "\r\n c" * (FORM // 4),
        "many parameters": FILE + "; a*0=b" * (FORM // 7),
    }
    forms = {name: part(head, b"x") + end for name, head in heads.items()}
    forms |= {f"{name} after the file": part(FILE, b"x") + part(head) + end for name, head in heads.items()}
    many = [part(f'{named}"f{n}"' + "; a*0=b" * 9_000) for n in range(50)]
    forms |= {
        "long headers of fields": b"".join(many) + part(FILE, b"x") + end,
        "long headers of fields after the file": part(FILE, b"x") + b"".join(many) + end,
        "fields": b"".join(part(f'{named}"f{n}"', b"x" * 4_000) for n in range(900)) + end,
        "a long field": part(f'{named}"vbr"', b"1" * FORM) + end,
        "a long name": part(f'{named}"{"v" * FORM}"', b"1") + end,
        "lines before the form": b"\r\n" * (FORM // 2),
        "spaces after a boundary": (f"--{BOUNDARY}" + " \t" * 50_000 + "x").encode() * 30,
        "boundaries that go on": part(FILE, (f"\r\n--{BOUNDARY}c".encode()) * (FORM // 35)) + end,
        "beginnings of boundaries": part(FILE, (b"\r\n--" + b"b" * 29) * (FORM // 33)) + end,
    }
    return forms


def parsed(body: bytes, boundary: str = BOUNDARY) -> None:
    environ = EnvironBuilder("/upload", method="POST", data=body).get_environ()
    environ["CONTENT_TYPE"] = f"multipart/form-data; boundary={boundary}"
    with contextlib.suppress(Mp3burstError):
        for _ in read(Request(environ)).content:
            pass


@pytest.mark.parametrize("name", hostile_forms())
def test_forms(name: str) -> None:
    ordinary = part(FILE, bytes(FORM)) + f"--{BOUNDARY}--\r\n".encode()
    trivial = cpu_time(UPLOAD.send)
    form = hostile_forms()[name]
    assert cpu_time(lambda: parsed(form)) < 10 * cpu_time(lambda: parsed(ordinary)) + HEADROOM * trivial


def test_a_long_boundary() -> None:
    boundary = "b" * 8_000
    body = part(FILE, b"\r\n--" + b"b" * FORM, boundary)
    assert cpu_time(lambda: parsed(body, boundary)) < HEADROOM * cpu_time(UPLOAD.send)


@pytest.mark.parametrize(
    "work",
    [normalize_username, base_name, lambda text: _refused(parse, text), lambda text: _refused(parse, f"a@{text}")],
    ids=["username", "file name", "address", "domain"],
)
@pytest.mark.parametrize("size", [MAX_LENGTH, 1_000, 60_000])
def test_functions_that_parse_a_text(work: Callable[[str], object], size: int) -> None:
    """Counted in characters, not bytes."""
    trivial = cpu_time(Call("register", "GET", "/nothing").send)
    for name, text in worst(3 * size):
        assert cpu_time(lambda text=text[:size]: work(text)) < HEADROOM * trivial, name  # type: ignore[misc]


def _refused(parse: Callable[[str], Any], text: str) -> None:
    with contextlib.suppress(BadAddress):
        parse(text)


def test_download_links() -> None:
    link = Links([LINK_KEY], "https://example.org").make(UserId(JOB), FID)
    head, payload, signature = link.rpartition("token=")[2].split(".")
    calls = {}
    for name, text in worst(6_000):
        forged = _base64url(text)
        for token in (f"{forged}.{payload}.{signature}", f"{head}.{forged}.{signature}", f"{head}.{payload}.{forged}"):
            calls[f"{name} {token[:20]}"] = Call("download", "GET", "/download", f"fid={FID}&token={token}")
    attack(calls, budget(DOWNLOAD))

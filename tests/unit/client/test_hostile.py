"""The client with a server that is hostile, or no mp3burst, and with a file made to break it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import keyring
import pytest
from click.testing import CliRunner, Result
from keyring.backends import null

from client.cli import mp3burst
from client.convert import Converter, Task, mp3_of, targets
from client.credentials import Credentials
from client.display import Display
from client.records import Records
from client.server import Server
from client.sound import matroska
from client.sound.view import UnsupportedLayout, View

ESCAPE = "\x1b]0;pwned\x07"


@contextmanager
def server(status: int, content: bytes, asked: list[str] | None = None) -> Iterator[str]:
    """A server that gives every request the same answer, and notes it in ``asked``; its address."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            if asked is not None:
                asked.append(f"{self.command} {self.path} {self.headers.get('Proxy-Authorization')}")
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = do_CONNECT = answer

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}"
        finally:
            running.shutdown()
            thread.join()


def run(tmp_path: Path, url: str, *arguments: str, typed: str = "") -> Result:
    environ = {"MP3BURST_URL": url, "MP3BURST_KEY": "x"} | dict.fromkeys(
        ("XDG_CONFIG_HOME", "XDG_STATE_HOME"), str(tmp_path)
    )
    return CliRunner().invoke(mp3burst, list(arguments), input=typed, env=environ)


def job(**fields: object) -> dict[str, object]:
    shown = {"job": "a" * 32, "status": "done", "stage": "done", "created": "2026-11-27T00:00", "filename": "a.mp4"}
    return {**shown, "error": None, "mp3": "b" * 24, **fields}


@pytest.mark.parametrize("field", ["filename", "stage", "created", "error"])
def test_list_of_jobs_cannot_control_the_terminal(tmp_path: Path, field: str) -> None:
    with server(200, json.dumps({"jobs": [job(**{field: ESCAPE})]}).encode()) as url:
        result = run(tmp_path, url, "jobs")
    assert (result.exit_code, result.output.isascii()) == (0, True)
    assert "pwned" in result.output
    assert "\x1b" not in result.output


@pytest.mark.parametrize("arguments", [("jobs",), ("rm", "a")])
def test_message_of_a_server_cannot_control_the_terminal(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with server(404, json.dumps({"detail": ESCAPE}).encode()) as url:
        result = run(tmp_path, url, *arguments)
    assert result.exit_code == 1
    assert "pwned" in result.output
    assert "\x1b" not in result.output


def test_server_that_is_no_mp3burst_is_named(tmp_path: Path) -> None:
    with server(200, b"<html>Log in to the Wi-Fi</html>") as url:
        result = run(tmp_path, url, "login", url, "--key", typed="x\n")
    assert result.exit_code == 1
    assert f"mp3burst: {url} does not answer as mp3burst does: check the address." in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "content"),
    [
        (("jobs",), b"{}"),
        (("jobs",), b'{"jobs": [{}]}'),
        (("jobs",), b"[]"),
        (("split", "a"), b"{}"),
        (("download", "a"), b'{"status": "done"}'),
        (("keys", "--username", "a", "list"), b"{}"),
        (("convert", "--no-wait", "a.wav"), b"{}"),
        (("admin", "--key", "users"), b"{}"),
        (("admin", "--key", "queues"), b'{"queues": [7], "given_up": 1}'),
        (("admin", "--key", "storage"), b'{"stores": [{"store": "a", "blobs": 1, "bytes": "b", "expired": 0}]}'),
    ],
    ids=["jobs", "job", "list", "split", "download", "keys", "convert", "users", "queues", "storage"],
)
def test_answer_that_is_not_of_mp3burst_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "a.wav").write_bytes(bytes(100))
    with server(200, content) as url:
        result = run(tmp_path, url, *arguments, typed="x\n")
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 1
    assert f"{url} does not answer as mp3burst does: check the address." in result.output


def test_proxy_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    with server(407, b"", asked) as url:
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setenv("https_proxy", f"user:secret@{url.removeprefix('http://')}")
        run(tmp_path, "http://mp3burst.test", "jobs")
        run(tmp_path, "https://mp3burst.test", "jobs")
        monkeypatch.setenv("no_proxy", "mp3burst.test")
        run(tmp_path, "http://mp3burst.test", "jobs")
    assert asked == [
        "GET http://mp3burst.test/jobs?limit=50 None",
        "CONNECT mp3burst.test:443 Basic dXNlcjpzZWNyZXQ=",
    ]


def test_address_that_is_no_proxy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "ftp://nonsense")
    result = run(tmp_path, "http://mp3burst.test", "jobs")
    assert "HTTP_PROXY is not the address of a proxy: set it to http://HOST:PORT, or unset it." in result.output


def test_long_name_of_a_video_is_shortened_for_its_mp3(tmp_path: Path) -> None:
    for name, stem in (("x" * 252, "x" * 251), ("\u8b1b" * 84, "\u8b1b" * 83), ("short", "short")):
        (task,), _ = targets([tmp_path / f"{name}.ts"], None, is_overwriting=False)
        assert task.target.name == f"{stem}.mp3"
    assert mp3_of("x" * 250, " (2)") == "x" * 247 + " (2).mp3"


def test_server_cannot_choose_where_a_download_is_kept(tmp_path: Path) -> None:
    (tmp_path / "out/.x").mkdir(parents=True)
    (tmp_path / "out/.a.mp3.x").mkdir()
    with server(200, json.dumps(job(mp3="x/../../../evil")).encode()) as url:
        result = run(tmp_path, url, "download", "a", "-o", str(tmp_path / "out"))
    assert result.exit_code == 1
    ours = {"mp3burst", "uploads.db"}
    assert sorted(path.name for path in tmp_path.rglob("*") if path.name not in ours) == [".a.mp3.x", ".x", "out"]


def test_name_that_is_too_long_for_a_file_is_shortened(tmp_path: Path) -> None:
    with server(200, json.dumps(job(filename="\u8b1b" * 120 + ".mp4")).encode()) as url:
        result = run(tmp_path, url, "download", "a", "-o", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert [path.name for path in tmp_path.glob("*.mp3")] == ["\u8b1b" * 80 + ".mp3"]


def test_key_is_kept_though_the_keyring_forgets_it(tmp_path: Path) -> None:
    before = keyring.get_keyring()
    keyring.set_keyring(null.Keyring())  # type: ignore[no-untyped-call]
    try:
        environ = {"XDG_CONFIG_HOME": str(tmp_path)}
        assert Credentials(environ).store("http://localhost", "key").endswith("config.json")
        Credentials(environ).server()
    finally:
        keyring.set_keyring(before)


def test_fault_while_uploading_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The main thread waits for the upload: what ends it must not leave the command waiting for ever."""

    def fail(*_: object) -> None:
        raise RecursionError

    records = Records({"XDG_STATE_HOME": str(tmp_path)}, "http://localhost")
    converter = Converter(Server("http://localhost"), records, {}, Display())
    monkeypatch.setattr(converter, "_open", fail)
    raised: list[BaseException] = []

    def convert() -> None:
        try:
            converter.run([Task(tmp_path / "a.mp4", tmp_path / "a.mp3")])
        except RecursionError as error:
            raised.append(error)

    thread = threading.Thread(target=convert, daemon=True)
    thread.start()
    thread.join(10)
    assert raised


def element(id_: int, body: bytes) -> bytes:
    return id_.to_bytes((id_.bit_length() + 7) // 8) + (1 << 56 | len(body)).to_bytes(8) + body


def test_matroska_of_elements_in_elements_is_uploaded_as_it_is(tmp_path: Path) -> None:
    cues = b""
    for _ in range(2000):
        cues = element(0xB7, cues)
    track = element(0xD7, b"\1") + element(0x83, b"\1") + element(0x86, b"V_VP9")
    segment = element(0x1654AE6B, element(0xAE, track)) + element(0x1C53BB6B, cues)
    path = tmp_path / "a.mkv"
    path.write_bytes(element(0x1A45DFA3, b"") + element(0x18538067, segment))
    with View(path) as view, pytest.raises(UnsupportedLayout):
        matroska.spans(view)

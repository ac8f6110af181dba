"""MP3s on this machine: two commands at once, files that appear meanwhile, and commands that are killed."""

import contextlib
import errno
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import functions.convert.__main__
from client.cli import mp3burst
from client.convert import Converter, Task
from client.display import Display
from client.download import download
from client.errors import RequestRefused, TargetExists
from client.files import place
from client.records import Content, Records
from client.server import Server
from client.sound.view import View
from client.upload import Upload
from tests.support.servers.loopback import LoopbackServer, QuietHandler

FID = "f" * 24
MP3 = os.urandom(1_500_000)
#: Bytes that the server sends at once.
CHUNK = 100_000


class Web(QuietHandler):
    """A server with one MP3, to which every upload leads."""

    case: "Case"

    def do_GET(self) -> None:
        if self.path.startswith("/jobs/"):
            self.case.at_job()
            state = {"status": "done", "stage": "done", "progress": 1, "mp3": FID, "error": None, "warning": None}
            content = json.dumps({"job": "a" * 32, "filename": "talk.mp4", **state}).encode()
            self._answer(200, {"Content-Length": str(len(content))})
            self.wfile.write(content)
            return
        if self.case.is_gone:
            self._answer(404, {"Content-Length": "0"})
            return
        begin = re.match("bytes=([0-9]+)-", self.headers.get("Range", ""))
        offset = int(begin[1]) if begin else 0
        if offset >= len(MP3):
            self._answer(416, {"Content-Length": "0"} | self.case.range_of_416)
            return
        place = {"Content-Range": f"bytes {offset}-{len(MP3) - 1}/{len(MP3)}"} if begin else {}
        self._answer(206 if begin else 200, {"Content-Length": str(len(MP3) - offset), "ETag": f'"{FID}"', **place})
        for start in range(offset, len(MP3), CHUNK):
            self.case.sent += len(MP3[start : start + CHUNK])
            self.wfile.write(MP3[start : start + CHUNK])
            self.case.at_chunk()

    def do_HEAD(self) -> None:
        job = {} if self.case.is_busy else {"Mp3burst-Job": "a" * 32}
        upload = {"Upload-Length": "100", "Upload-Offset": "10" if self.case.is_busy else "100", **job}
        self._answer(200, {"ETag": f'"{FID}"', "Content-Length": str(len(MP3)), **upload})

    def do_PATCH(self) -> None:
        while size := int(self.rfile.readline(), 16):
            self.rfile.read(size + len(b"\r\n"))
        self.rfile.readline()
        if self.case.is_busy:
            self.case.at_chunk()
            self._answer(423, {"Content-Length": "0"})
        else:
            self._answer(204, {"Mp3burst-Job": "a" * 32})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        with self.case.lock:
            self.case.keys.append(self.headers.get("Idempotency-Key", ""))
            number = len(self.case.keys)
        self.case.at_creation()
        content = json.dumps({"job": "a" * 32}).encode()
        self._answer(201, {"Location": f"/files/{number}", "Content-Length": str(len(content))})
        self.wfile.write(content)

    def _answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


class Case:
    """What happens while the server answers."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.is_gone = False
        self.is_busy = False  # whether another command sends the bytes of an upload
        self.sent = 0
        self.keys: list[str] = []
        self.range_of_416 = {"Content-Range": f"bytes */{len(MP3)}"}
        self.at_chunk: Callable[[], object] = lambda: None
        self.at_job: Callable[[], object] = lambda: None
        self.at_creation: Callable[[], object] = lambda: None
        self.url = ""


@pytest.fixture
def case() -> Iterator[Case]:
    made = Case()
    with LoopbackServer(type("Handler", (Web,), {"case": made})) as server:
        made.url = f"http://127.0.0.1:{server.port}"
        yield made


def records(folder: Path, case: Case) -> Records:
    """Returns records as each process has its own."""
    return Records({"XDG_STATE_HOME": str(folder / "state")}, case.url)


def fetch(folder: Path, case: Case, *, is_overwriting: bool = False) -> bool:
    """Downloads the MP3 as a process does."""
    target = folder / "talk.mp3"
    kept = records(folder, case)
    return download(Server(case.url), FID, target, lambda *_: None, kept, is_overwriting=is_overwriting)


def run(folder: Path, case: Case, *arguments: str) -> Result:
    environ = {"MP3BURST_URL": case.url, "MP3BURST_KEY": "x", "XDG_STATE_HOME": str(folder / "state")}
    return CliRunner().invoke(mp3burst, list(arguments), env=environ)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


@pytest.mark.parametrize("is_overwriting", [False, True])
def test_two_commands_that_download_one_mp3_leave_it_whole(tmp_path: Path, case: Case, is_overwriting: bool) -> None:
    begun = threading.Event()
    case.at_chunk = begun.set
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(fetch, tmp_path, case, is_overwriting=is_overwriting)
        assert begun.wait(20)
        second = pool.submit(fetch, tmp_path, case, is_overwriting=is_overwriting)
        assert (first.result(20), second.result(20)) == (True, is_overwriting)
    assert (tmp_path / "talk.mp3").read_bytes() == MP3
    assert names(tmp_path) == ["talk.mp3"]
    assert case.sent == len(MP3) * (2 if is_overwriting else 1)


@pytest.mark.parametrize("range_of_416", [{"Content-Range": f"bytes */{len(MP3)}"}, {}], ids=["says", "silent"])
def test_part_that_is_longer_than_the_mp3_is_downloaded_again(
    tmp_path: Path, case: Case, range_of_416: dict[str, str]
) -> None:
    case.range_of_416 = range_of_416
    (tmp_path / f".{FID}.part").write_bytes(MP3 + b"more")
    assert fetch(tmp_path, case)
    assert (tmp_path / "talk.mp3").read_bytes() == MP3
    assert names(tmp_path) == ["talk.mp3"]


def test_complete_part_is_not_downloaded_again(tmp_path: Path, case: Case) -> None:
    (tmp_path / f".{FID}.part").write_bytes(MP3)
    assert fetch(tmp_path, case)
    assert (tmp_path / "talk.mp3").read_bytes() == MP3
    assert case.sent == 0


def test_part_that_an_earlier_version_has_named_is_deleted(tmp_path: Path, case: Case) -> None:
    (tmp_path / f".{FID}-{'a' * 24}.part").write_bytes(b"other tags")
    (tmp_path / f".{'e' * 24}-1.part").write_bytes(b"another MP3")
    assert fetch(tmp_path, case)
    assert names(tmp_path) == [f".{'e' * 24}-1.part", "talk.mp3"]
    assert (tmp_path / "talk.mp3").read_bytes() == MP3


def test_nothing_is_left_of_a_download_that_is_refused(tmp_path: Path, case: Case) -> None:
    case.is_gone = True
    with pytest.raises(RequestRefused):
        fetch(tmp_path, case)
    assert names(tmp_path) == []


class Killed(BaseException):
    """A signal that nothing handles."""


@pytest.mark.parametrize("is_linking", [True, False], ids=["links", "no links"])
@pytest.mark.parametrize("effect", range(4))
def test_command_that_is_killed_while_it_publishes_is_completed_by_another(
    tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch, effect: int, is_linking: bool
) -> None:
    """The effects are killed in turn; that one is done nobody learns, so the last run may find nothing to do."""
    with monkeypatch.context() as patch:
        _limit_effects(patch, effect, is_linking=is_linking)
        with pytest.raises(Killed):
            fetch(tmp_path, case)
    assert set(names(tmp_path)) <= {f".{FID}.part", "talk.mp3"}
    with monkeypatch.context() as patch:
        _limit_effects(patch, 100, is_linking=is_linking)
        fetch(tmp_path, case)
    assert (tmp_path / "talk.mp3").read_bytes() == MP3
    assert names(tmp_path) == ["talk.mp3"]
    assert case.sent == len(MP3)
    assert not fetch(tmp_path, case), "it is known which MP3 the file has"


def test_convert_completes_what_it_was_killed_in_on_a_file_system_without_links(
    tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is taken by an empty file when the command is killed. Another empty file stays."""
    (tmp_path / "talk.mp4").write_bytes(bytes(100))
    (tmp_path / "other.mp4").write_bytes(bytes(90))
    (tmp_path / "other.mp3").touch()
    command = ("convert", "--whole", str(tmp_path / "talk.mp4"))

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def kill(*_: object) -> None:
        raise SystemExit(137)

    monkeypatch.setattr(os, "link", refuse)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", kill)
        run(tmp_path, case, *command)
    assert (tmp_path / "talk.mp3").read_bytes() == b""
    result = run(tmp_path, case, *command, str(tmp_path / "other.mp4"))
    assert (result.exit_code, "other.mp3 exists" in _line(result)) == (1, True)
    assert (tmp_path / "talk.mp3").read_bytes() == MP3
    assert names(tmp_path) == ["other.mp3", "other.mp4", "talk.mp3", "talk.mp4"]
    assert len(case.keys) == 1


def _limit_effects(patch: pytest.MonkeyPatch, limit: int, *, is_linking: bool) -> None:
    """Kills whatever would have an effect on the MP3's name once there have been ``limit``."""
    left = limit
    link = os.link
    is_publishing = False

    def counted(owner: type, name: str) -> None:
        effect = getattr(owner, name)

        def run(*arguments: object) -> object:
            nonlocal left
            if is_publishing:
                if left == 0:
                    raise Killed
                left -= 1
            return effect(*arguments)

        patch.setattr(owner, name, run)

    def begin(source: Path, target: Path) -> None:
        nonlocal is_publishing, left
        is_publishing = True
        if not is_linking:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        if left == 0:
            raise Killed
        left -= 1
        link(source, target)
        if left == 0:
            raise Killed

    patch.setattr(os, "link", begin)
    counted(Records, "keep_download")
    counted(Records, "forget_download")
    for name in ("open", "unlink", "replace"):
        counted(Path, name)
    patch.setattr(Records, "finish", lambda *_: None)


def test_file_without_hard_links_never_replaces_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "old").write_bytes(b"old")
    with pytest.raises(TargetExists):
        place(tmp_path / "new", tmp_path / "old")
    assert ((tmp_path / "new").read_bytes(), (tmp_path / "old").read_bytes()) == (b"new", b"old")
    place(tmp_path / "new", tmp_path / "free")
    assert (tmp_path / "free").read_bytes() == b"new"


def test_empty_file_of_the_user_is_not_replaced(tmp_path: Path, case: Case) -> None:
    (tmp_path / "talk.mp3").touch()
    with pytest.raises(TargetExists):
        fetch(tmp_path, case)


def test_convert_does_not_replace_a_file_that_appears_meanwhile(tmp_path: Path, case: Case) -> None:
    (tmp_path / "talk.mp4").write_bytes(bytes(100))
    case.at_job = lambda: (tmp_path / "talk.mp3").write_bytes(b"the user's own")
    command = ("convert", "--whole", str(tmp_path / "talk.mp4"))
    result = run(tmp_path, case, *command)
    assert result.exit_code == 1
    assert "talk.mp3 exists: name another directory with -o, or replace it with --overwrite." in _line(result)
    assert (tmp_path / "talk.mp3").read_bytes() == b"the user's own"
    assert run(tmp_path, case, *command, "--overwrite").exit_code == 0
    assert (tmp_path / "talk.mp3").read_bytes() == MP3


def test_download_does_not_replace_a_file_that_appears_meanwhile(tmp_path: Path, case: Case) -> None:
    case.at_chunk = lambda: (tmp_path / "talk.mp3").write_bytes(b"the user's own")
    result = run(tmp_path, case, "download", "a" * 32, "-o", str(tmp_path))
    assert (result.exit_code, "talk.mp3 exists" in _line(result)) == (1, True)
    assert (tmp_path / "talk.mp3").read_bytes() == b"the user's own"
    assert names(tmp_path) == ["talk.mp3"]


def test_convert_leaves_no_hidden_file_where_another_has_the_name(tmp_path: Path, case: Case) -> None:
    """The file appears during the download; then the MP3 goes to another directory."""
    (tmp_path / "out").mkdir()
    (tmp_path / "talk.mp4").write_bytes(bytes(100))
    case.at_chunk = lambda: (tmp_path / "talk.mp3").write_bytes(b"the user's own")
    command = ("convert", "--whole", str(tmp_path / "talk.mp4"))
    assert run(tmp_path, case, *command).exit_code == 1
    assert names(tmp_path) == ["talk.mp3", "talk.mp4"]
    case.at_chunk = lambda: None
    assert run(tmp_path, case, *command, "-o", str(tmp_path / "out")).exit_code == 0
    assert (tmp_path / "out/talk.mp3").read_bytes() == MP3


def test_mp3_that_gets_another_name_is_not_downloaded_again(tmp_path: Path, case: Case) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/talk.mp4").write_bytes(bytes(100))
    case.at_chunk = lambda: (tmp_path / "in/talk.mp3").write_bytes(b"the user's own")
    result = run(tmp_path, case, "watch", "--once", "--whole", "--interval", "0.1", str(tmp_path / "in"))
    assert (result.exit_code, (tmp_path / "in/talk (2).mp3").read_bytes() == MP3) == (0, True)
    assert names(tmp_path / "in") == ["talk (2).mp3", "talk.mp3", "talk.mp4"]
    assert case.sent == len(MP3)


def test_local_conversion_does_not_replace_a_file_that_appears_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(_: Path, out: Path, *others: Any) -> None:
        rename = others[-1]
        out.write_bytes(b"the user's own")
        (tmp_path / "new").write_bytes(MP3)
        rename(tmp_path / "new", out)

    monkeypatch.setattr(functions.convert.__main__, "convert", convert)
    (tmp_path / "talk.mp4").write_bytes(bytes(100))
    result = CliRunner().invoke(mp3burst, ["convert", "--local", str(tmp_path / "talk.mp4")])
    assert (result.exit_code, "talk.mp3 exists" in _line(result)) == (1, True)
    assert (tmp_path / "talk.mp3").read_bytes() == b"the user's own"


def _line(result: Result) -> str:
    return " ".join(result.output.split())


def test_watch_does_not_replace_a_file_that_appears_meanwhile(tmp_path: Path, case: Case) -> None:
    """The MP3 gets another name, and the video is not converted again."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/talk.mp4").write_bytes(bytes(100))
    case.at_job = lambda: (tmp_path / "in/talk.mp3").write_bytes(b"the user's own")
    for _ in range(2):
        result = run(tmp_path, case, "watch", "--once", "--whole", "--interval", "0.1", str(tmp_path / "in"))
        assert result.exit_code == 0, result.output
    assert (tmp_path / "in/talk.mp3").read_bytes() == b"the user's own"
    assert (tmp_path / "in/talk (2).mp3").read_bytes() == MP3
    assert names(tmp_path / "in") == ["talk (2).mp3", "talk.mp3", "talk.mp4"]
    assert len(case.keys) == 1


def test_watch_does_not_replace_a_file_that_appeared_since_it_was_killed(tmp_path: Path, case: Case) -> None:
    command = ("watch", "--once", "--whole", "--interval", "0.1", str(tmp_path / "in"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in/talk.mp4").write_bytes(bytes(100))

    def kill() -> None:
        raise ConnectionResetError

    case.at_job = kill
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("client.server._MAX_FAILURES", 1)
        assert run(tmp_path, case, *command).exit_code == 4
    (tmp_path / "in/talk.mp3").write_bytes(b"the user's own")
    case.at_job = lambda: None
    assert run(tmp_path, case, *command).exit_code == 0
    assert (tmp_path / "in/talk.mp3").read_bytes() == b"the user's own"
    assert (tmp_path / "in/talk (2).mp3").read_bytes() == MP3


def test_two_commands_that_upload_one_content_create_one_upload(tmp_path: Path, case: Case) -> None:
    """The first creation is answered once there is another, which does not come."""
    case.at_creation = _second()
    (tmp_path / "talk.mp4").write_bytes(bytes(100))

    def upload() -> str:
        with View(tmp_path / "talk.mp4") as view:
            kept = records(tmp_path, case)
            content = Content("content", tmp_path / "talk.mp3", is_target_free=True)
            made = Upload(Server(case.url), kept, content, view, {}, threading.Event())
            return made.run(lambda _: None)

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(upload) for _ in range(2)]
        assert [job.result(20) for job in jobs] == ["a" * 32] * 2
    assert len(case.keys) == 1


def test_upload_that_another_command_has_completed_and_forgotten_leads_to_its_job(tmp_path: Path, case: Case) -> None:
    """The other has its MP3 while this one waits for the end of the other's request."""
    (tmp_path / "talk.mp4").write_bytes(bytes(100))
    first = records(tmp_path, case)
    first.begin("content", "/files/1", tmp_path / "first.mp3")
    case.is_busy = True

    def end() -> None:
        first.forget("content")
        case.is_busy = False

    case.at_chunk = end
    with View(tmp_path / "talk.mp4") as view:
        content = Content("content", tmp_path / "talk.mp3", is_target_free=True)
        second = Upload(Server(case.url), records(tmp_path, case), content, view, {}, threading.Event())
        assert second.run(lambda _: None) == "a" * 32
    assert case.keys == []


@pytest.mark.parametrize("is_address", [False, True])
def test_file_that_another_command_has_converted_meanwhile_is_not_uploaded(
    tmp_path: Path, case: Case, is_address: bool
) -> None:
    """It was to be converted after others; with --overwrite, it is."""
    (tmp_path / "talk.mp4").write_bytes(bytes(100))
    (tmp_path / "talk.mp3").write_bytes(MP3)
    url = "https://example.org/talk.mp4" if is_address else ""
    task = Task(tmp_path / "talk.mp4", tmp_path / "talk.mp3", url=url)
    outcomes: list[str | None] = []
    for is_overwriting in (False, True):
        kept = records(tmp_path, case)
        converter = Converter(Server(case.url), kept, {}, Display(), is_whole=True, is_overwriting=is_overwriting)
        converter.run([task], lambda outcome: outcomes.append(outcome.error))
    assert outcomes == [str(TargetExists(tmp_path / "talk.mp3")), None]
    assert len(case.keys) == 1


def test_two_commands_that_name_one_address_name_it_by_one_key(
    tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = Records.find
    second = _second()

    def find_late(self: Records, content: str) -> object:
        found = find(self, content)
        second()
        return found

    monkeypatch.setattr(Records, "find", find_late)
    task = Task(tmp_path / "talk.mp4", tmp_path / "talk.mp3", url="https://example.org/talk.mp4")

    def name() -> None:
        Converter(Server(case.url), records(tmp_path, case), {}, Display(), is_awaited=False).run([task])

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(name) for _ in range(2)]:
            done.result(20)
    assert len(case.keys) == 2
    assert len({*case.keys}) == 1


def _second() -> Callable[[], object]:
    """Returns what waits for another thread to call it, as long as one would take if nothing held it up."""
    both = threading.Barrier(2)

    def wait() -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(1)

    return wait

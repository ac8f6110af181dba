"""``mp3burst watch``: its exit status, and what it does after a lost connection."""

import base64
import errno
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import client.convert
import client.server
from client.cli import mp3burst
from client.convert import Converter, Task
from client.display import Display
from client.errors import ClientError, RecordsUnusable, ServerBusy
from client.records import Records
from client.server import Server
from client.watch import Watch
from tests.support.processes import wait_for
from tests.support.servers.loopback import LoopbackServer, QuietHandler

#: Seconds after which a test gives up.
_PATIENCE = 20


class Tus(QuietHandler):
    """A server that converts at once. What is sent to it, and when it answers, is in ``case``."""

    case: "Case"

    def do_POST(self) -> None:
        if self.path == "/validate":
            self._answer(200)
            return
        fields = dict(field.split() for field in self.headers["Upload-Metadata"].split(","))
        name = base64.b64decode(fields["filename"]).decode()
        self.case.created[name] += 1
        self._answer(self.case.refusals.get(name, 201), {"Location": f"/files/{name}"})

    def do_HEAD(self) -> None:
        self._answer(200, self._upload(self.path.rpartition("/")[2]))

    def do_PATCH(self) -> None:
        name = self.path.rpartition("/")[2]
        while size := int(self.rfile.readline(), 16):
            self.rfile.read(size)
            self.rfile.readline()
            self.case.received[name] += size
        self.rfile.readline()
        if name == self.case.slow:
            self.case.is_slow.set()
            wait_for(self.case.is_released, "the first run to end", _PATIENCE)
        self._answer(204, self._upload(name))

    def do_GET(self) -> None:
        if self.path == "/jobs/events":
            # The connection is lost while the upload of the second file is under way.
            assert self.case.is_slow.wait(_PATIENCE)
            self._answer(503)
            return
        job = self.path.rpartition("/")[2]
        status = "converting" if self.case.is_working else "done"
        mp3 = {"mp3": "f" * 24, "error": None, "warning": None, "stage": "encoding", "progress": 0.5}
        content = {"job": job, "status": status, **mp3} if self.path.startswith("/jobs/") else {}
        self._answer(200, content=json.dumps(content).encode())

    def _upload(self, name: str) -> dict[str, str]:
        size = self.case.received[name]
        job = {"Mp3burst-Job": f"job{name[0]}"} if size == 100 else {}
        return {"Upload-Length": "100", "Upload-Offset": str(size), **job}

    def _answer(self, status: int, headers: Mapping[str, str] | None = None, content: bytes = b"{}") -> None:
        self.send_response(status)
        for header, value in (headers or {}).items():
            self.send_header(header, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if status != 204 and self.command != "HEAD":
            self.wfile.write(content)


class Case:
    """What a server does in one test.

    Attributes:
        refusals: the status of the answer to uploads of these names.
        slow: the name of the file whose upload is answered late.
        is_working: whether conversions are not done yet.
        created: how many uploads of each name were begun.
        received: how many bytes of each name arrived.
        is_slow: is set once the slow upload waits.
        is_released: whether the slow upload may be answered.
    """

    def __init__(self) -> None:
        self.refusals: dict[str, int] = {}
        self.slow = ""
        self.is_working = False
        self.created: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.is_slow = threading.Event()
        self.is_released: Callable[[], bool] = lambda: True
        self.url = ""


@pytest.fixture
def case() -> Iterator[Case]:
    made = Case()
    with LoopbackServer(type("Handler", (Tus,), {"case": made})) as server:
        made.url = f"http://127.0.0.1:{server.port}"
        yield made


def files(folder: Path, *names: str) -> None:
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(name.encode() * 10 + bytes(100 - 10 * len(name)))


def watch(folder: Path, case: Case, monkeypatch: pytest.MonkeyPatch, steps: Iterable[Callable[[], object]]) -> None:
    """Watches a folder, and takes one of the steps after each look until there are no more."""
    rest = iter(steps)

    def sleep(_: float) -> None:
        step = next(rest, None)
        if step is None:
            raise KeyboardInterrupt
        step()

    monkeypatch.setattr("time.sleep", sleep)
    records = Records({"XDG_STATE_HOME": str(folder.parent)}, case.url)
    converter = Converter(Server(case.url), records, {}, Display())
    with pytest.raises(KeyboardInterrupt):
        Watch(folder, folder, converter, records, Display(), {}).run(2.0)


def once(folder: Path, url: str) -> Result:
    environ = {"MP3BURST_URL": url, "MP3BURST_KEY": "x", "XDG_STATE_HOME": str(folder.parent)}
    return CliRunner().invoke(mp3burst, ["watch", "--once", "--interval", "0.1", str(folder)], env=environ)


def test_once_fails_if_a_file_does(tmp_path: Path, case: Case) -> None:
    files(tmp_path / "in", "a.wav", "b.wav")
    case.refusals["a.wav"] = 415
    result = once(tmp_path / "in", case.url)
    assert (result.exit_code, (tmp_path / "in/b.mp3").exists()) == (1, True), result.output
    assert "a.wav: " in result.stderr
    (tmp_path / "in/a.wav").unlink()
    assert once(tmp_path / "in", case.url).exit_code == 0, "what is done is no failure"


def test_once_fails_if_a_file_cannot_be_read(tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    files(tmp_path / "in", "a.wav")

    def unreadable(*_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("client.watch.Watch._digest", unreadable)
    result = once(tmp_path / "in", case.url)
    assert result.exit_code == 1
    assert "a.wav cannot be read: Permission denied." in " ".join(result.stderr.split())


def test_once_fails_if_the_server_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.server, "_MAX_FAILURES", 1)
    files(tmp_path / "in", "a.wav")
    assert once(tmp_path / "in", "http://127.0.0.1:1").exit_code == 4


def test_once_fails_if_the_directory_goes_away(tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    files(tmp_path / "in")
    monkeypatch.setattr("time.sleep", lambda _: (tmp_path / "in").rmdir())
    result = once(tmp_path / "in", case.url)
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 1
    assert "in cannot be read: No such file or directory." in " ".join(result.stderr.split())


def test_directory_that_comes_back_is_watched_again(
    tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Between the looks it is there, gone twice, and there with a file."""
    folder = tmp_path / "in"
    files(folder)
    steps: list[Callable[[], object]] = [
        folder.rmdir,
        lambda: None,
        lambda: files(folder, "a.wav"),
        lambda: None,
        lambda: None,
    ]
    watch(folder, case, monkeypatch, steps)
    assert (folder / "a.mp3").exists()
    lines = " ".join(capfd.readouterr().err.split())
    assert lines.count("in cannot be read: No such file or directory. Trying again.") == 1


@pytest.mark.parametrize("gone", ["in", "out"])
@pytest.mark.parametrize("step", ["open_sound", "download"])
def test_file_whose_directory_goes_away_meanwhile_is_converted_later(
    tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch, gone: str, step: str
) -> None:
    """The directory is back before the next look."""
    files(tmp_path / "in", "a.wav")
    (tmp_path / "out").mkdir()
    taken = [tmp_path / gone]
    original = getattr(client.convert, step)

    def lose(*arguments: object, **options: object) -> object:
        for folder in taken:
            folder.rename(tmp_path / "gone")
        taken.clear()
        return original(*arguments, **options)

    def sleep(_: float) -> None:
        if (tmp_path / "gone").exists():
            (tmp_path / "gone").rename(tmp_path / gone)
        if not taken and done.exists():
            raise KeyboardInterrupt
        looks.append(1)
        assert len(looks) < 10

    done = tmp_path / "out/a.mp3"
    looks: list[int] = []
    monkeypatch.setattr(client.convert, step, lose)
    monkeypatch.setattr("time.sleep", sleep)
    records = Records({"XDG_STATE_HOME": str(tmp_path)}, case.url)
    converter = Converter(Server(case.url), records, {}, Display())
    with pytest.raises(KeyboardInterrupt):
        Watch(tmp_path / "in", tmp_path / "out", converter, records, Display(), {}).run(2.0)
    assert case.created["a.wav"] == 1


@pytest.mark.parametrize("full", ["MP3s", "records"])
def test_full_disk_is_waited_for_and_no_file_is_uploaded_twice_meanwhile(
    tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    """One file is refused; the other has no space until the fourth look."""
    files(tmp_path / "in", "a.wav", "b.wav")
    case.refusals["a.wav"] = 415
    looks: list[int] = []
    owner, step = (client.convert, "download") if full == "MP3s" else (Records, "keep_digest")
    original = getattr(owner, step)

    def write(*arguments: object, **options: object) -> object:
        if len(looks) < 4:
            if full == "MP3s":
                raise ClientError("no space") from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise RecordsUnusable("no space")
        return original(*arguments, **options)

    def sleep(_: float) -> None:
        if (tmp_path / "in/b.mp3").exists():
            raise KeyboardInterrupt
        looks.append(1)
        assert len(looks) < 20

    monkeypatch.setattr(owner, step, write)
    monkeypatch.setattr("time.sleep", sleep)
    records = Records({"XDG_STATE_HOME": str(tmp_path)}, case.url)
    converter = Converter(Server(case.url), records, {}, Display())
    with pytest.raises(KeyboardInterrupt):
        Watch(tmp_path / "in", tmp_path / "in", converter, records, Display(), {}).run(2.0)
    assert case.created == {"a.wav": 1, "b.wav": 1}


def test_file_that_failed_and_comes_back_is_converted(
    tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a disk that was unmounted leaves is an empty directory."""
    files(tmp_path / "in", "a.wav")
    case.refusals["a.wav"] = 415
    steps: list[Callable[[], object]] = [
        lambda: None,
        lambda: (tmp_path / "in/a.wav").rename(tmp_path / "a.wav"),
        case.refusals.clear,
        lambda: (tmp_path / "a.wav").rename(tmp_path / "in/a.wav"),
        lambda: None,
    ]
    watch(tmp_path / "in", case, monkeypatch, steps)
    assert (tmp_path / "in/a.mp3").exists()


@pytest.mark.parametrize(
    ("number", "action"),
    [(errno.EACCES, "check that it exists and that you may use it"), (errno.ENOSPC, "free space and try again")],
)
def test_problem_of_the_file_system_is_one_sentence(
    tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch, number: int, action: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path / "x"))

    monkeypatch.setattr("client.watch.Watch.__init__", refuse)
    files(tmp_path / "in")
    result = once(tmp_path / "in", case.url)
    assert isinstance(result.exception, SystemExit)
    assert (result.exit_code, result.stderr) == (1, f"mp3burst: {tmp_path}/x: {os.strerror(number)}: {action}.\n")


def test_another_run_after_a_lost_connection_uploads_nothing_twice(
    tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run ends while its second upload is under way, and its third has not begun."""
    monkeypatch.setattr(client.server, "_MAX_FAILURES", 1)
    files(tmp_path / "in", "a.wav", "b.wav", "c.wav")
    case.slow = "b.wav"
    case.is_working = True
    records = Records({"XDG_STATE_HOME": str(tmp_path)}, case.url)
    converter = Converter(Server(case.url), records, {}, Display())
    tasks = [Task(path, path.with_suffix(".mp3"), path.name) for path in sorted((tmp_path / "in").iterdir())]
    case.is_released = lambda: converter._stopped.is_set()
    threads = set(threading.enumerate())

    with pytest.raises(ServerBusy):
        converter.run(tasks)

    ours = [thread.name for thread in set(threading.enumerate()) - threads if "upload_all" in thread.name]
    assert ours == [], "they would upload beside those of the next run"
    assert case.created == {"a.wav": 1, "b.wav": 1}
    case.is_working = False
    done: list[str] = []
    converter.run(tasks, lambda outcome: done.append(Path(outcome.file).name))
    assert case.created == {"a.wav": 1, "b.wav": 1, "c.wav": 1}
    assert case.received == {"a.wav": 100, "b.wav": 100, "c.wav": 100}
    assert sorted(done) == ["a.wav", "b.wav", "c.wav"]

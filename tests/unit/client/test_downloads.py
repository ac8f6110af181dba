"""``mp3burst download``: every MP3 gets a file of its own, and a second run knows which one has it."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner, Result

from client.cli import mp3burst

#: Ids of jobs whose videos had the same name and whose MP3s are as large.
ALICE, BOB = "a" * 32, "b" * 32


class Jobs(BaseHTTPRequestHandler):
    """A server on which every job is done; the id of a job and of its MP3 is one letter over and over."""

    tags: dict[str, str]

    def do_GET(self) -> None:
        if self.path.startswith("/jobs/"):
            self._answer(json.dumps(self._job(self.path[len("/jobs/")])).encode())
        else:
            self._answer(self._letter().encode() * 1000, self._version())

    def do_POST(self) -> None:
        self._answer(json.dumps({"parts": [self._job(letter) for letter in "ab"]}).encode())

    def do_HEAD(self) -> None:
        self._answer(self._letter().encode() * 1000, self._version())

    def _letter(self) -> str:
        return self.path.partition("=")[2][0]

    def _version(self) -> str:
        return self._letter() * 24 + self.tags.get(self._letter(), "")

    def _job(self, letter: str) -> dict[str, object]:
        shown = {"job": letter * 32, "status": "done", "mp3": letter * 24, "filename": "talk.mp4", "error": None}
        return {**shown, "start": 0, "end": 1}

    def _answer(self, content: bytes, version: str = "") -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{version}"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


class Shell:
    """Runs commands in an empty directory."""

    def __init__(self, folder: Path, url: str, tags: dict[str, str]) -> None:
        self.folder = folder
        self.tags = tags
        self._environ = {"MP3BURST_URL": url, "MP3BURST_KEY": "x", "XDG_STATE_HOME": str(folder / "state")}

    def run(self, *arguments: str, status: int = 0) -> Result:
        result = CliRunner().invoke(mp3burst, list(arguments), env=self._environ)
        assert result.exit_code == status, result.output
        return result

    def owners(self) -> dict[str, str]:
        """Returns the letter of the job whose MP3 is in each file."""
        return {path.name: path.read_text()[:1] for path in self.folder.glob("*.mp3")}


@contextmanager
def served(tags: dict[str, str]) -> Iterator[str]:
    handler = type("Handler", (Jobs,), {"tags": tags})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}"
        finally:
            running.shutdown()
            thread.join()


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    tags: dict[str, str] = {}
    with served(tags) as url:
        yield Shell(tmp_path, url, tags)


@pytest.mark.parametrize("arguments", [("download", ALICE, BOB), ("split", ALICE, "--at", "1")])
@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_no_mp3_replaces_another_of_the_same_name_and_size(
    shell: Shell, arguments: tuple[str, ...], overwrite: tuple[str, ...]
) -> None:
    both = {"talk.mp3": "a", "talk (2).mp3": "b"}
    shell.run(*arguments, *overwrite)
    assert shell.owners() == both
    again = shell.run(*arguments, *overwrite)
    assert shell.owners() == both
    assert again.output.count(" is there") == (0 if overwrite else 2)


def test_same_job_is_downloaded_once(shell: Shell) -> None:
    shell.run("download", ALICE, ALICE, "--overwrite")
    assert shell.owners() == {"talk.mp3": "a"}


def test_file_of_another_job_of_the_same_size_is_not_taken_for_the_mp3(shell: Shell) -> None:
    shell.run("download", ALICE)
    assert "talk.mp3 exists" in shell.run("download", BOB, status=1).output
    shell.run("download", BOB, "--overwrite")
    assert shell.owners() == {"talk.mp3": "b"}
    assert "talk.mp3 exists" in shell.run("download", ALICE, status=1).output


def test_file_that_has_changed_on_either_side_is_not_taken_for_the_mp3(shell: Shell) -> None:
    shell.run("download", ALICE)
    file = shell.folder / "talk.mp3"
    os.utime(file, (1, 1))  # somebody edited it
    assert "talk.mp3 exists" in shell.run("download", ALICE, status=1).output
    shell.run("download", ALICE, "--overwrite")
    assert "talk.mp3 is there" in shell.run("download", ALICE).output
    shell.tags["a"] = "-1"
    assert "talk.mp3 exists" in shell.run("download", ALICE, status=1).output

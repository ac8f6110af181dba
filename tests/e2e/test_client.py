"""The command line: every command as a process of its own, as a user starts it."""

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from client.records import Records
from tests.e2e.client import PASSWORD, Client, wave_bytes
from tests.support import clips
from tests.support.paths import ROOT
from tests.support.platform import Platform
from tests.support.processes import wait_for

#: Files that are watched while the command is killed half as often, from the third time on at any moment.
WATCHED = int(os.environ.get("MP3BURST_WATCHED", "4"))


class Terminal:
    """A user's shell in an empty home; ``mp3burst`` runs a command."""

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self.url = url

    def environ(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """Returns the environment: no keyring, and nothing else of the machine's."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "PYTHONPATH": str(ROOT),
            "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
            **(env or {}),
        }

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Starts a command."""
        command = [sys.executable, "-m", "client", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.home, env=self.environ(env), stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )

    def mp3burst(
        self, *arguments: str, typed: str = "", status: int = 0, env: Mapping[str, str] | None = None
    ) -> tuple[str, str]:
        """Runs a command, asserts its exit status, and returns its output and its messages."""
        with self.start(*arguments, env=env) as process:
            out, err = process.communicate(typed, timeout=60)
        assert process.returncode == status, (out, err)
        return out, err

    def json(self, *arguments: str, status: int = 0) -> list[Any]:
        """Runs a command with --json; returns the JSON of each line."""
        out, _ = self.mp3burst(*arguments, "--json", status=status)
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def terminal(platform: Platform, me: Client, tmp_path: Path) -> Terminal:
    """The terminal of a user who has logged in."""
    found = Terminal(tmp_path, platform.url)
    found.mp3burst("login", platform.url, "--username", me.username, typed=f"{PASSWORD}\n")
    return found


def sound(path: Path, seconds: float = 1.0) -> Path:
    path.write_bytes(wave_bytes(seconds))
    return path


def test_files_become_mp3s_beside_them(terminal: Terminal, me: Client) -> None:
    """Two files at once, one of them broken; the key is the command's own, in a file that nobody else reads."""
    sound(terminal.home / "a.wav")
    (terminal.home / "b.wav").write_bytes(wave_bytes()[:20])

    done, failed = sorted(terminal.json("convert", "a.wav", "b.wav", status=1), key=lambda each: str(each["file"]))

    assert (done["file"], done["status"], done["mp3"]) == ("a.wav", "done", "a.mp3")
    assert (terminal.home / "a.mp3").read_bytes() == me.download(me.job(done["job"])["mp3"]).body
    assert failed["status"] == "failed"
    assert failed["error"] == me.job(failed["job"])["error"]
    config = terminal.home / ".config/mp3burst/config.json"
    assert config.stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in config.read_text()
    assert sorted(path.name for path in terminal.home.iterdir() if not path.name.startswith(".")) == [
        *("a.mp3", "a.wav", "b.wav"),
    ]


def test_options_reach_the_job_and_a_second_run_replaces_nothing(terminal: Terminal, me: Client) -> None:
    sound(terminal.home / "a.wav")
    (terminal.home / "out").mkdir()
    convert = ("convert", "a.wav", "-o", "out", "--volume", "-3dB", "--mono", "--fade-in", "0.5")

    (done,) = terminal.json(*convert)
    _, err = terminal.mp3burst(*convert, status=1)

    assert done["mp3"] == "out/a.mp3"
    assert me.job(done["job"])["options"] == {"volume": -3.0, "mono": True, "fade_in": 0.5}
    assert err == ("a.wav: out/a.mp3 exists: name another directory with -o, or replace it with --overwrite.\n")
    assert len(me.jobs()["jobs"]) == 1
    sound(terminal.home / "b.wav", 0.5)
    exists, done = terminal.json(*convert, "b.wav", status=1)
    assert ((exists["file"], exists["status"]), done["mp3"]) == (("a.wav", "failed"), "out/b.mp3")
    _, err = terminal.mp3burst("convert", "a.wav", "--bitrate", "17", "-o", "out", "--overwrite", status=1)
    assert "bitrate must be one of 64k" in err


def test_jobs_are_listed_downloaded_and_deleted(terminal: Terminal, me: Client) -> None:
    sound(terminal.home / "a.wav")
    (uploaded,) = terminal.json("convert", "a.wav", "--no-wait")
    job = uploaded["job"]
    assert uploaded["status"] == "uploaded"
    mp3 = me.download(me.wait(job)["mp3"]).body

    out, _ = terminal.mp3burst("jobs")
    assert out.split() == [job, out.split()[1], "done", "a.wav"]
    terminal.mp3burst("download", job)
    assert (terminal.home / "a.mp3").read_bytes() == mp3
    terminal.mp3burst("rm", job)
    assert me.jobs()["jobs"] == []
    _, err = terminal.mp3burst("rm", job, status=1)
    assert err == f"{job}: {me.call('DELETE', f'/jobs/{job}').problem(404)['detail']}\n"


def test_a_killed_upload_continues_and_is_converted_once(terminal: Terminal, me: Client) -> None:
    with sound(terminal.home / "a.wav").open("ab") as file:
        file.write(bytes(range(256)) * (32 << 12))  # which decoders ignore, and take longer than the kill
    with terminal.start("convert", "a.wav") as process:
        location = terminal.home / ".local/state/mp3burst/uploads.db"
        wait_for(lambda: location.exists() and _uploads(location) != [], "the upload to begin")
        process.send_signal(signal.SIGKILL)
        process.communicate()

    (path,) = _uploads(location)
    (done,) = terminal.json("convert", "a.wav")

    assert me.call("HEAD", path, None, {"Tus-Resumable": "1.0.0"}).headers["Mp3burst-Job"] == done["job"]
    assert len(me.jobs()["jobs"]) == 1
    assert _uploads(location) == []


def _uploads(database: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        try:
            return [row[0] for row in connection.execute("SELECT location FROM uploads")]
        except sqlite3.OperationalError:  # not created yet
            return []


def test_a_cut_off_download_continues(terminal: Terminal, me: Client) -> None:
    """A part that was downloaded before is not downloaded again: here it differs, and shows in the MP3."""
    with sound(terminal.home / "a.wav").open("rb") as file:
        job = me.convert(file, "a.wav")
    mp3 = me.download(job["mp3"]).body
    (terminal.home / f".{job['mp3']}.part").write_bytes(b"begun" + mp3[5:1000])

    terminal.mp3burst("download", job["job"])

    assert (terminal.home / "a.mp3").read_bytes() == b"begun" + mp3[5:]
    assert not list(terminal.home.glob(".*.part"))


def test_an_mp3_is_split_and_its_parts_are_downloaded(terminal: Terminal, me: Client) -> None:
    with sound(terminal.home / "a.wav").open("rb") as file:
        job = me.convert(file, "a.wav")["job"]
    split = ("split", job, "--at", "0:00.4", "--title", "One", "--title", "Two")

    first, second = terminal.json(*split)

    assert (first["start"], first["end"], second["start"]) == (0, 0.4, 0.4)
    assert (first["mp3"], second["mp3"]) == ("a - 1 One.mp3", "a - 2 Two.mp3")
    for part in (first, second):
        assert (terminal.home / part["mp3"]).read_bytes() == me.download(me.job(part["job"])["mp3"]).body
    (terminal.home / "a - 2 Two.mp3").write_bytes(b"of something else")
    _, err = terminal.mp3burst(*split, status=1)
    assert "a - 1 One.mp3 is there" in err
    assert f"{second['job']}: a - 2 Two.mp3 exists" in err
    (terminal.home / "a - 2 Two.mp3").unlink()
    assert terminal.json(*split) == [first, second]
    _, err = terminal.mp3burst(*split, "--no-download")
    assert err == f"a - 1 One.mp3 is job {first['job']}\na - 2 Two.mp3 is job {second['job']}\n"
    assert len(me.jobs()["jobs"]) == 3


def test_an_mp3_is_split_in_its_silence(terminal: Terminal, me: Client) -> None:
    silent = "volume=0:enable='between(t,0.4,0.8)'"
    clips.run("-f", "lavfi", "-i", "sine=duration=1.2", "-af", silent, terminal.home / "a.wav")
    with (terminal.home / "a.wav").open("rb") as file:
        job = me.convert(file, "a.wav")["job"]

    first, second = terminal.json("split", job, "--silence", "0.3", "--no-download")

    assert (first["start"], first["end"], second["end"]) == (0, pytest.approx(0.6, abs=0.02), 1.2)
    _, err = terminal.mp3burst("split", job, "--silence", "0.5", "--below", "-30", status=1)
    assert err.startswith("mp3burst: No silence of 0.5 seconds is below -30 dB")


def test_presets_are_saved_used_and_deleted(terminal: Terminal, me: Client) -> None:
    sound(terminal.home / "a.wav")
    terminal.mp3burst("presets", "save", "My talks", "--preset", "speech", "--vbr", "9")

    (done,) = terminal.json("convert", "a.wav", "--preset", "My talks", "--volume", "-3dB", "--no-wait")

    assert me.job(done["job"])["options"] == {"vbr": 9, "mono": True, "normalize": True, "volume": -3.0}
    (done,) = terminal.json("convert", "a.wav", "--preset", "speech", "--no-mono", "--no-wait")
    assert me.job(done["job"])["options"] == {"bitrate": 96, "normalize": True}
    out, _ = terminal.mp3burst("presets")
    assert out.splitlines()[0].split() == ["My", "talks", "user", "mono=true", "normalize=true", "vbr=9"]
    terminal.mp3burst("presets", "rm", "My talks")
    _, err = terminal.mp3burst("convert", "a.wav", "--preset", "My talks", status=1)
    assert err == "mp3burst: There is no such preset: GET /presets lists them.\n"
    _, err = terminal.mp3burst("convert", "a.wav", "--preset", "My talks", "--local", status=1)
    assert err.startswith("mp3burst: There is no built-in preset My talks: use standard, ")


def test_a_cut_off_download_continues_with_changed_tags(terminal: Terminal, me: Client) -> None:
    """Bytes of other tags are downloaded again, those of the same are not: here they differ, and show in the MP3."""
    with sound(terminal.home / "a.wav").open("rb") as file:
        job = me.convert(file, "a.wav")
    me.call("PATCH", f"/jobs/{job['job']}/tags", b'{"title": "Other"}', {"Content-Type": "application/json"})
    answer = me.download(job["mp3"])
    (terminal.home / f".{job['mp3']}.part").write_bytes(b"of the tags before")
    terminal.mp3burst("download", job["job"])
    assert (terminal.home / "a.mp3").read_bytes() == answer.body
    version = answer.headers["ETag"].strip('"')
    part = terminal.home / f".{job['mp3']}.part"
    part.write_bytes(b"begun" + answer.body[5:1000])
    Records({"XDG_STATE_HOME": str(terminal.home / ".local/state")}, me.url).keep_download(part, version, "")

    terminal.mp3burst("download", job["job"], "--overwrite")

    assert (terminal.home / "a.mp3").read_bytes() == b"begun" + answer.body[5:]
    assert not list(terminal.home.glob(".*.part"))


def test_keys_are_listed_created_and_deleted_with_the_password(terminal: Terminal, me: Client) -> None:
    keys = ("keys", "--username", me.username)
    key = terminal.mp3burst(*keys, "create", "backup", "--scope", "read", typed=f"{PASSWORD}\n")[0].strip()

    out, _ = terminal.mp3burst(*keys, "list", typed=f"{PASSWORD}\n")
    assert out.splitlines()[0].split()[-1] == "backup"
    assert len(out.splitlines()) == 2
    assert Client(me.url, key).jobs()["jobs"] == []
    terminal.mp3burst("login", me.url, "--key", typed=f"{key}\n")
    _, err = terminal.mp3burst("convert", str(sound(terminal.home / "a.wav")), status=1)
    assert "upload" in err
    terminal.mp3burst(*keys, "rm", out.split()[0], typed=f"{PASSWORD}\n")


@pytest.mark.parametrize(
    ("arguments", "env", "status", "message"),
    [
        (["jobs"], {}, 3, "You are not logged in to http://localhost:8080: run mp3burst login."),
        (["jobs"], {"MP3BURST_KEY": "mp3b_wrong"}, 3, "Invalid API key"),
        (["jobs"], {"MP3BURST_URL": "http://localhost:1", "MP3BURST_KEY": "x"}, 4, "localhost:1 cannot be reached"),
        (["jobs"], {"MP3BURST_URL": "localhost", "MP3BURST_KEY": "x"}, 1, "begins with https:// or http://"),
        (["convert", "none.mp4"], {}, 2, "'none.mp4' does not exist"),
        (["convert"], {}, 2, "Missing argument 'FILES...'"),
    ],
    ids=["no login", "wrong key", "unreachable", "no address", "no file", "usage"],
)
def test_failures_are_one_sentence_and_a_status(
    platform: Platform, tmp_path: Path, arguments: list[str], env: dict[str, str], status: int, message: str
) -> None:
    terminal = Terminal(tmp_path, platform.url)
    if env.keys() == {"MP3BURST_KEY"}:
        env = {**env, "MP3BURST_URL": platform.url}

    out, err = terminal.mp3burst(*arguments, status=status, env=env)

    assert out == ""
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(tmp_path: Path, shell: str) -> None:
    script, _ = Terminal(tmp_path, "").mp3burst("completion", shell)
    assert "_MP3BURST_COMPLETE" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_a_watched_directory_is_converted_once_though_the_command_is_killed(terminal: Terminal, me: Client) -> None:
    """Files of the same name have MP3s of different names; a copy, and a restart, convert nothing again."""
    inbox = terminal.home / "in"
    inbox.mkdir()
    for number in range(WATCHED):
        sound(inbox / f"{number}.wav", 0.1 + number / 100)
    sound(inbox / "0.aiff", 0.05)
    shutil.copy(inbox / "1.wav", inbox / "copy.wav")
    (inbox / "notes.txt").write_text("no sound")
    (inbox / "link.wav").symlink_to(sound(terminal.home / "private.wav", 0.6))
    for kill in range(WATCHED // 2):
        with terminal.start("watch", "in", "--mono", "--interval", "0.2") as process:
            if kill < 2:
                enough = (1, 3)[kill]
                wait_for(lambda enough=enough: len(list(inbox.glob("*.mp3"))) >= enough, "MP3s")  # type: ignore[misc]
            else:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(random.uniform(0.2, 5))  # noqa: S311 - any moment
            process.send_signal(signal.SIGKILL)
            process.communicate()

    terminal.mp3burst("watch", "in", "--mono", "--interval", "0.2", "--once")
    terminal.mp3burst("watch", "in", "--mono", "--interval", "0.2", "--once")

    names = {"0 (2).mp3", "0.aiff", *(f"{number}.{kind}" for number in range(WATCHED) for kind in ("mp3", "wav"))}
    assert {path.name for path in inbox.iterdir()} - {"copy.wav", "link.wav", "notes.txt"} == names
    assert len(me.jobs(limit=500)["jobs"]) == WATCHED + 1


@pytest.mark.parametrize(
    "arguments",
    [("watch", "in", "--once", "--interval", "0.1"), ("convert", "in/0.wav", "in/1.wav", "in/2.wav")],
    ids=["watch", "convert"],
)
def test_three_commands_at_once_convert_each_file_once(
    terminal: Terminal, me: Client, arguments: tuple[str, ...]
) -> None:
    (terminal.home / "in").mkdir()
    for number in range(3):
        sound(terminal.home / f"in/{number}.wav", 5 + number)

    running = [terminal.start(*arguments) for _ in range(3)]
    for process in running:
        _, err = process.communicate(timeout=60)
        # convert says of what another command has just converted, as of what was there before, that it exists.
        assert process.returncode == 0 or (" exists: " in err and arguments[0] == "convert"), err

    jobs = me.jobs()["jobs"]
    assert sorted(job["filename"] for job in jobs) == ["0.wav", "1.wav", "2.wav"]
    for job in jobs:
        mp3 = terminal.home / "in" / job["filename"].replace("wav", "mp3")
        assert mp3.read_bytes() == me.download(job["mp3"]).body
    assert len(list((terminal.home / "in").iterdir())) == 6


def test_a_file_is_converted_on_this_machine_without_a_server(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    terminal = Terminal(tmp_path, "")

    (done,) = terminal.json("convert", "--local", "a.wav", "--volume", "-3")

    assert (done["status"], done["mp3"], done["job"]) == ("done", "a.mp3", None)
    assert (tmp_path / "a.mp3").read_bytes()[:3] == b"ID3" or (tmp_path / "a.mp3").read_bytes()[:1] == b"\xff"

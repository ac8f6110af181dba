"""Every answer of a running platform is one that its OpenAPI document declares: schemathesis looks for others.

``MP3BURST_API_SECONDS=600 ./scripts/test tests/e2e/test_document.py`` looks longer.
"""

import io
import json
import os
import re
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.client import Client, wave_bytes
from tests.e2e.tus import Tus
from tests.support.paths import ROOT
from tests.support.platform import Platform, start
from tests.support.processes import wait_for
from tests.test_docs import section

#: A number of requests takes as long as they do; a longer look takes so many seconds in each of two runs.
LONGER: Final = os.environ.get("MP3BURST_API_SECONDS", "")
#: 410, 412, 413, 423 and 460 are those of tus, 414 that of a long path, 507 that of a full disk. Three paths are also
#: paths of an operation with a parameter, whose method their Allow has, too. What is valid for the last operations, a
#: document cannot say: which bytes are a video, which text is an address or a name, which of two headers is needed,
#: which options there are, and where a chapter may end or a part begin.
CONFIGURATION: Final = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 409, 410, 412, 413, 414, 415, 422, 423, 429, 460, 507]
[checks.missing_required_header]
expected-statuses = [400, 401, 403, 404, 412, 415, 422, 429]
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 412, 429]
[[operations]]
include-path = ["/jobs/events", "/webhooks/deliveries", "/sso/link"]
checks.allow_header_conformance.enabled = false
[[operations]]
include-name = ["POST /files", "PATCH /files/{upload}", "POST /upload", "PATCH /jobs/{job}/tags",
    "POST /jobs/{job}/split", "POST /register", "PATCH /me", "POST /me/password", "POST /password-reset/new",
    "POST /webhooks", "POST /keys", "POST /estimate", "PUT /presets/{preset}"]
checks.positive_data_acceptance.enabled = false
"""
#: Beside the values at each limit of the document, which have a phase of their own.
EXAMPLES: Final = """
[phases.fuzzing.generation]
max-examples = 1
[phases.stateful.generation]
max-examples = 10
"""


@pytest.fixture(scope="module")
def own_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform for these tests alone: they log in with wrong passwords until their network is locked out."""
    with start(tmp_path_factory.mktemp("document") / "data", env={"CONFIRM_EMAIL": "on"}) as platform:
        yield platform


@pytest.mark.parametrize("has_token", [True, False], ids=["with a token", "without"])
def test_answers_are_those_of_the_document(own_platform: Platform, has_token: bool, tmp_path: Path) -> None:
    me = Client(own_platform.url).sign_up()
    configuration = tmp_path / "schemathesis.toml"
    configuration.write_text(CONFIGURATION if LONGER else CONFIGURATION + EXAMPLES)
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(configuration)]
    command += ["run", f"{own_platform.url}/openapi.json"]
    command += ["--no-shrink", "--continue-on-failure", "--no-color", "--warnings", "off"]
    command += ["--max-time", LONGER] if LONGER else ["--seed", "1"]
    # A stream of events takes 25 s, and three calls may end the session. Without a token all are refused.
    excluded = ("GET /jobs/events", "DELETE /session", "DELETE /sessions", "DELETE /sessions/{session}")
    if has_token:
        command += ["--header", f"Authorization: Bearer {me.token}"]
        command += [option for name in excluded for option in ("--exclude-name", name)]
    elif not LONGER:  # nearly all are refused, whatever else is in them
        command += ["--phases", "examples,fuzzing"]
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks",
        "MP3BURST_OWN": json.dumps(belongings(me)),
    }
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def belongings(me: Client) -> dict[str, str]:
    """Returns what the user has: a job that is done, its MP3, an upload that is not complete, and a sound."""
    wav = ascii_wave()
    job = me.convert(io.BytesIO(wav), "a.wav")
    upload = Tus(me).create(len(wav), filename="b.wav").location.rpartition("/")[2]
    return {"job": job["job"], "fid": job["mp3"], "upload": upload, "wav": wav.decode("ascii")}


def ascii_wave() -> bytes:
    """Returns half a second of a square wave, all of whose bytes, those of the header too, are ASCII."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(1)
        writer.setframerate(8000)
        writer.writeframes((b"\x70" * 16 + b"\x10" * 16) * 128)
    return file.getvalue()


class Shell:
    """Runs commands of the documentation one by one, with what earlier ones have printed in place of the names."""

    def __init__(self, folder: Path, **known: str) -> None:
        self.folder = folder
        self.known = known

    def run(self, command: str) -> str:
        for name, value in self.known.items():
            command = re.sub(rf"\$?\b{name}\b", value, command)
        done = subprocess.run(["bash", "-c", command], cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr)
        assert "about:blank" not in done.stdout, (command, done.stdout)
        return done.stdout


def commands(heading: str) -> list[str]:
    """Returns the commands of a section of docs/api.md."""
    code = section((ROOT / "docs/api.md").read_text(), heading).replace("\\\n", "")
    return [line.strip() for line in code.splitlines() if line.startswith("    ")]


def test_examples_of_the_documentation_work(own_platform: Platform, tmp_path: Path) -> None:
    mails = tmp_path / "data/mail"
    mails.mkdir(parents=True)
    (tmp_path / "video.mp4").write_bytes(wave_bytes(1))
    shell = Shell(tmp_path, **{"localhost:8080": own_platform.url.removeprefix("http://")})
    register, mail, confirm, log_in, validate, upload, jobs, job, download, delete = commands("## Try the calls")

    shell.run(register)
    place = own_platform.data / "mail"
    (letter, *_) = wait_for(lambda: [each for each in place.glob("*.eml") if b"ann@" in each.read_bytes()], "the mail")
    (mails / letter.name).symlink_to(letter)
    assert mail.startswith("LINK=$(")
    shell.known["LINK"] = shell.run(f"{mail}; echo $LINK").strip()
    assert "confirmed" in shell.run(confirm)
    assert log_in.startswith("TOKEN=$(")
    shell.known["TOKEN"] = shell.run(f"{log_in}; echo $TOKEN").strip()
    assert json.loads(shell.run(validate))["username"] == "ann@example.org"
    shell.known["JOB"] = json.loads(shell.run(upload))["job"]
    assert json.loads(shell.run(jobs))["jobs"][0]["job"] == shell.known["JOB"]
    done = wait_for(lambda: (found := json.loads(shell.run(job)))["status"] == "done" and found, "the MP3")
    shell.known["MP3"] = done["mp3"]
    shell.run(download)
    assert (tmp_path / "video.mp3").stat().st_size > 1000

    create, ask, append = commands("## Uploads that resume")
    location = re.search(r"Location: /files/(\w+)", shell.run(create))
    assert location
    shell.known["UPLOAD"] = location[1]
    offset = re.search(r"Upload-Offset: (\d+)", shell.run(ask))
    assert offset
    shell.known["OFFSET"] = offset[1]
    assert "Mp3burst-Job: " in shell.run(append)
    shell.run(delete)

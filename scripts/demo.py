"""Converts a video with mp3burst as a user would, and shows each step as a command that you can type."""

import argparse
import base64
import contextlib
import email.policy
import http.client
import io
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path
from types import FrameType
from typing import IO, Any, Final

_CHUNK: Final = 1 << 18
_BAR: Final = 40
#: Files of more bytes are uploaded with tus, which resumes after a lost connection.
_LARGE: Final = 64 << 20
#: How often an upload is resumed without progress.
_MAX_TRIES: Final = 3
#: Another request is still writing the upload: try again.
_UPLOAD_BUSY: Final = {409, 423}
_ROOT: Final = Path(__file__).resolve().parents[1]
#: Not passed to the platform: an operator's servers must not get the demo's users and files, and mails, which the demo
#: shows, must be files.
_SERVER_VARIABLES: Final = {
    *("DATABASE_URL", "MYSQL_HOST", "MONGO_URI", "MONGO_MP3_URI", "MEDIA_DIR", "AMQP_URL"),
    *("SENDGRID_API_KEY", "SMTP_HOST", "GMAIL_ADDRESS"),
}


class DemoError(Exception):
    """The demo cannot continue; the text is the message to print."""


class Api:
    """The calls of mp3burst."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://localhost:{port}"
        self.token = ""

    def call(self, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> dict[str, Any]:
        """Makes a call and returns the JSON of its answer; raises DemoError with the message of an error."""
        connection = http.client.HTTPConnection("localhost", self.port, timeout=120)
        try:
            connection.request(method, path, body, headers)
            return _json(connection.getresponse())
        finally:
            connection.close()

    def press_button(self, link: str) -> None:
        """Does what the button on the page of a mail's link does; raises DemoError if it does not work."""
        connection = http.client.HTTPConnection("localhost", self.port, timeout=120)
        parts = urllib.parse.urlsplit(link)
        try:
            connection.request("POST", f"{parts.path}?{parts.query}")
            answer = connection.getresponse()
            answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise DemoError(f"mp3burst answered {answer.status} for {link}.")

    def create_upload(self, video: Path) -> str:
        """Creates a resumable upload by tus 1.0 and returns its path."""
        headers = {"Upload-Length": str(video.stat().st_size), "Upload-Metadata": f"filename {_base64(video.name)}"}
        return str(self._tus("POST", "/files", headers)["Location"])

    def resume_upload(self, video: Path, path: str) -> str:
        """Sends the rest of an upload, again after a lost connection, and returns the job."""
        size = video.stat().st_size
        fruitless = 0
        last = -1
        while True:
            answer = self._tus("HEAD", path, {})
            offset = int(answer["Upload-Offset"])
            if offset == size:
                return str(answer["Mp3burst-Job"])
            fruitless = fruitless + 1 if offset == last else 0
            if fruitless > _MAX_TRIES:
                raise DemoError("The upload makes no progress: check the connection and try again.")
            last = offset
            with video.open("rb") as file, contextlib.suppress(OSError, http.client.HTTPException):
                file.seek(offset)
                headers = {
                    "Upload-Offset": str(offset),
                    "Content-Type": "application/offset+octet-stream",
                    "Content-Length": str(size - offset),
                }
                self._tus("PATCH", path, headers, _with_bar(file, offset, size))
            print()

    def _tus(self, method: str, path: str, headers: dict[str, str], body: Iterator[bytes] | None = None) -> Any:
        connection = http.client.HTTPConnection("localhost", self.port, timeout=120)
        headers = {"Tus-Resumable": "1.0.0", **self.bearer(), **headers}
        try:
            with contextlib.suppress(
                BrokenPipeError, ConnectionResetError
            ):  # Rejected before the end; the answer says why.
                connection.request(method, path, body, headers)
            answer = connection.getresponse()
            if answer.status not in _UPLOAD_BUSY:
                _json(answer)
            return answer.headers
        finally:
            connection.close()

    def bearer(self) -> dict[str, str]:
        """Returns the header with the token."""
        return {"Authorization": f"Bearer {self.token}"}

    def upload(self, video: Path) -> dict[str, Any]:
        """Uploads with a form, as a browser does."""
        boundary = secrets.token_hex(16)
        size = video.stat().st_size
        name = urllib.parse.quote(video.name, safe=" !#$&'()+,-.;=@[]^_`{}~")
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"; '
            f"filename*=UTF-8''{urllib.parse.quote(video.name)}\r\nContent-Type: application/octet-stream\r\n\r\n"
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        connection = http.client.HTTPConnection("localhost", self.port, timeout=120)
        connection.putrequest("POST", "/upload")
        connection.putheader("Authorization", f"Bearer {self.token}")
        connection.putheader("Content-Type", f"multipart/form-data; boundary={boundary}")
        connection.putheader("Content-Length", str(len(head) + size + len(tail)))
        connection.endheaders(head)
        sent = 0
        try:
            with video.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    connection.send(chunk)
                    sent += len(chunk)
                    _bar("uploading", sent / size)
            connection.send(tail)
        except (BrokenPipeError, ConnectionResetError):
            pass  # Rejected before the end; the answer says why.
        print()
        try:
            return _json(connection.getresponse())
        finally:
            connection.close()


def _with_bar(file: IO[bytes], sent: int, size: int) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk
        sent += len(chunk)
        _bar("uploading", sent / size)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _json(answer: http.client.HTTPResponse) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(answer.read() or b"{}")
    if answer.status >= 400:
        raise DemoError(str(value.get("detail", f"mp3burst answered {answer.status}.")))
    return value


def main() -> int:
    """Returns the exit status: 0 if the MP3 is correct and everything ended well."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("video", nargs="?", type=Path, help="the video to convert; without one, a short video is made")
    parser.add_argument("--once", action="store_true", help="stop after the job instead of keeping mp3burst running")
    parser.add_argument(
        "--data", type=Path, default=_ROOT / "data", metavar="DIR", help="the directory for all data (data)"
    )
    parser.add_argument("--port", type=int, default=8080, help="the port of mp3burst (8080)")
    arguments = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # Show every step at once, in a pipe too.
    _handle_signals()
    video = arguments.video
    data = arguments.data.resolve()
    correct = False
    platform: subprocess.Popen[str] | None = None
    try:
        if video is not None and not video.is_file():
            raise DemoError(f"There is no file {arguments.video}: name a video, or leave it out and one is made.")
        platform, began = start(data, arguments.port)
        wait_until_ready(platform, data / "platform.log", began)
        user, password = convert(Api(arguments.port), video or make_clip(data), data)
        correct = True
        if not arguments.once:
            where = f"http://localhost:{arguments.port}"
            print(f"\nThe page shows this MP3 after you log in as {user} with the password {password}")
            print(f"mp3burst is running on {where}: open it in a browser. Press Ctrl-C to stop it.")
            platform.wait()
            raise DemoError(f"mp3burst stopped unexpectedly: see {_short(data / 'platform.log')}.")
        return 0
    except DemoError as error:
        print(error, file=sys.stderr)
        return 1
    except (OSError, http.client.HTTPException) as error:
        print(f"mp3burst does not answer ({error!r}): see {_short(data / 'platform.log')}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # The terminal may be gone.
            print()
        return 0 if correct else 130
    finally:
        # A second Ctrl-C sends another SIGTERM, which makes the platform stop at once.
        while platform is not None and platform.poll() is None:
            with contextlib.suppress(KeyboardInterrupt):
                platform.terminate()
                platform.wait()


def _handle_signals() -> None:
    # The platform runs in a session of its own and would otherwise outlive the demo and keep its port.
    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP.
            signal.signal(number, end)


def start(data: Path, port: int) -> "tuple[subprocess.Popen[str], int]":
    """Starts the platform; returns it and the size of its log so far. Raises DemoError if nothing can be written."""
    log = data / "platform.log"
    print("# Start mp3burst")
    print(f"$ ./scripts/up --data {_typed(data)} --port {port} 2> {_typed(log)}")
    # The clip, the log and the MP3 are for this user only, like everything that the platform writes.
    os.umask(0o077)
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        errors = log.open("a")
    except OSError as error:
        raise DemoError(f"Cannot write to {data} ({error.strerror}): choose another --data.") from error
    with errors:
        # A session of its own: only the demo receives Ctrl-C, and stops the platform gracefully.
        began = log.stat().st_size
        platform = subprocess.Popen(
            [sys.executable, "-m", "infra.local", "--data", str(data), "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name not in _SERVER_VARIABLES}
            | {"MAIL_DIR": str(data / "mail"), "CONFIRM_EMAIL": "on"},
        )
    return platform, began


def wait_until_ready(platform: "subprocess.Popen[str]", log: Path, began: int) -> None:
    """Waits until the platform is ready; raises DemoError with its own message if it does not start."""
    assert platform.stdout is not None  # noqa: S101 - for mypy: it is a pipe
    ready = platform.stdout.readline()
    if not ready:
        platform.wait()
        lines = log.read_bytes()[began:].decode(errors="replace").strip().splitlines()
        raise DemoError(lines[-1] if lines else f"mp3burst did not start: check the free space in {log.parent}.")
    print(ready, end="")


def convert(api: Api, video: Path, data: Path) -> tuple[str, str]:
    """Registers, confirms the address, logs in, uploads, waits, reads the mail, downloads the MP3 and checks it.

    Returns:
        The username and the password that it has registered.
    """
    user = f"demo-{secrets.token_hex(3)}@example.org"
    password = secrets.token_urlsafe(12)
    form = {"name": "Demo", "username": user, "password": password}
    print("\n# Register a user")
    print(f"$ curl {api.url}/register -H 'Content-Type: application/json' -d '{json.dumps(form)}'")
    registered = api.call("POST", "/register", {}, json.dumps(form).encode())
    print(json.dumps(registered))
    confirm(api, data, registered["id"])

    print("\n# Log in")
    print(f"$ curl -X POST -u '{user}:{password}' {api.url}/login")
    basic = base64.b64encode(f"{user}:{password}".encode()).decode()
    api.token = api.call("POST", "/login", {"Authorization": f"Basic {basic}"})["token"]
    print(f'{{"token": "{api.token[:20]}...", "expires_in": ...}}')
    print(f"\n$ TOKEN={api.token}")

    id_ = upload(api, video)

    print("\n# Wait for the conversion")
    print(f'$ curl -H "Authorization: Bearer $TOKEN" "{api.url}/jobs/{id_}?wait=25"')
    job = await_job(api, id_)
    print(json.dumps(job, ensure_ascii=False))

    read_mail(data, id_, "Read the email")
    if job["status"] == "failed":
        raise DemoError(job["error"])

    mp3 = data / "demo" / job["job"] / f"{Path(job['filename']).stem}.mp3"
    mp3.parent.mkdir(parents=True)  # For this job alone, so nothing is overwritten.
    print("\n# Download the MP3")
    print(f'$ curl -H "Authorization: Bearer $TOKEN" "{api.url}/download?fid={job["mp3"]}" -o {_typed(mp3)}')
    download(api, job["mp3"], mp3)
    check(mp3, job["duration"])
    print(f"\nSaved {mp3}: {job['duration']:.2f} s, {mp3.stat().st_size} bytes. It was decoded without errors.")
    return user, password


def confirm(api: Api, data: Path, user: str) -> None:
    """Confirms the user's address by the link in the first mail."""
    text = read_mail(data, user, "Read the email that asks to confirm the address")
    link = next(line for line in text.splitlines() if "/confirm?" in line)
    print("\n# Confirm the address: the link opens a page with a button, which sends this")
    print(f'$ curl -X POST "{link}"')
    api.press_button(link)
    print("Your address is confirmed")


def read_mail(data: Path, subject: str, title: str) -> str:
    """Waits for the mail about a job or a user, shows it, and returns its text."""
    letter = await_mail(data / "mail", subject)
    text = text_of(letter)
    print(f"\n# {title}")
    print(f"$ cat {_typed(letter)}\n")
    print("\n".join("    " + line for line in text.splitlines()))
    return text


def upload(api: Api, video: Path) -> str:
    """Uploads the video, a large one so that it can be resumed, and returns the job."""
    if video.stat().st_size <= _LARGE:
        print("\n# Upload the video")
        print(f'$ curl -H "Authorization: Bearer $TOKEN" -F {_typed(video, "file=@")} {api.url}/upload')
        accepted = api.upload(video)
        print(json.dumps(accepted))
        return str(accepted["job"])
    tus = "curl -i -H \"Authorization: Bearer $TOKEN\" -H 'Tus-Resumable: 1.0.0'"
    metadata = f"-H 'Upload-Length: {video.stat().st_size}' -H 'Upload-Metadata: filename {_base64(video.name)}'"
    print("\n# Upload the video. It is large, so the upload can be resumed (tus)")
    print(f"$ {tus} -X POST {metadata} {api.url}/files")
    path = api.create_upload(video)
    print(f"Location: {path}")
    offset = "-H 'Content-Type: application/offset+octet-stream' -H 'Upload-Offset: 0'"
    print(f"\n$ {tus} -X PATCH {offset} -T {_typed(video)} {api.url}{path}")
    job = api.resume_upload(video, path)
    print(f"Mp3burst-Job: {job}")
    return job


def await_job(api: Api, id_: str) -> dict[str, Any]:
    """Waits until the job is done or failed, and returns it."""
    while True:
        job = api.call("GET", f"/jobs/{id_}?wait=1", api.bearer())
        _bar("converting", job["progress"])
        if job["status"] in ("done", "failed"):
            print()
            return job


def await_mail(folder: Path, subject: str) -> Path:
    """Waits for the mail about a job or a user, which arrives within seconds."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for letter in folder.glob(f"{subject}.*.eml"):
            return letter
        time.sleep(0.05)
    raise DemoError(f"No email arrived within a minute: see {folder.parent / 'platform.log'}.")


def text_of(letter: Path) -> str:
    """Returns the main headers and the plain text of a mail."""
    mail = message_from_bytes(letter.read_bytes(), policy=email.policy.default)
    body = mail.get_body(("plain",))
    lines = [f"{name}: {mail[name]}" for name in ("From", "To", "Subject", "Message-ID")]
    return "\n".join([*lines, "", body.get_content() if body is not None else ""])


def download(api: Api, fid: str, target: Path) -> None:
    """Saves the MP3, chunk by chunk."""
    connection = http.client.HTTPConnection("localhost", api.port, timeout=120)
    try:
        connection.request("GET", f"/download?fid={fid}", headers=api.bearer())
        answer = connection.getresponse()
        if answer.status != 200:
            _json(answer)
        with target.open("wb") as file:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
    finally:
        connection.close()


def check(mp3: Path, duration: float) -> None:
    """Decodes the whole MP3; raises DemoError if it is damaged or has another length."""
    command = [_ffmpeg(), "-nostdin", "-v", "error", "-i", str(mp3), "-f", "s16le", "-ar", "8000", "-ac", "1", "pipe:1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as decoder:
        assert decoder.stdout is not None and decoder.stderr is not None  # noqa: S101, PT018 - for mypy
        samples = 0
        while chunk := decoder.stdout.read(_CHUNK):
            samples += len(chunk) // 2
        errors = decoder.stderr.read().decode()
    # An MP3 frame of 1152 samples lasts 144 ms at 8 kHz, the lowest sample rate.
    if errors or decoder.returncode or abs(samples / 8000 - duration) > 0.144:
        raise DemoError(f"{mp3} is damaged: {samples / 8000:.2f} s instead of {duration:.2f} s. {errors}")


def make_clip(data: Path) -> Path:
    """Makes a video of 20 s with a melody, with the ffmpeg of the dependencies."""
    clip = data / "demo.mp4"
    if not clip.exists():
        print(f"\nNo video was named, so the demo makes one: {_short(clip)}")
        tune = r"0.3*sin(2*PI*t*220*pow(2\,floor(mod(t*4\,8))*2/12))+0.2*sin(2*PI*t*110)"
        unfinished = data / "demo.unfinished.mp4"
        command = [
            *(_ffmpeg(), "-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25"),
            *("-f", "lavfi", "-i", f"aevalsrc={tune}|{tune}:s=44100", "-t", "20"),
            *("-c:v", "mpeg4", "-q:v", "5", "-c:a", "aac", "-metadata", "title=mp3burst demo", str(unfinished)),
        ]
        if subprocess.run(command, check=False).returncode:
            unfinished.unlink(missing_ok=True)
            raise DemoError(
                "The video could not be made (see ffmpeg's message above): name a video, or free some space."
            )
        unfinished.rename(clip)
    return clip


def _ffmpeg() -> str:
    import imageio_ffmpeg  # type: ignore[import-untyped]  # it has no types

    return os.environ.get("FFMPEG") or str(imageio_ffmpeg.get_ffmpeg_exe())


def _bar(what: str, fraction: float) -> None:
    if sys.stdout.isatty() or fraction >= 1:
        done = int(fraction * _BAR)
        print(f"\r{what} [{'#' * done}{'.' * (_BAR - done)}] {fraction:4.0%}", end="", flush=True)


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _typed(path: Path, before: str = "") -> str:
    """Returns the path as it is typed into a shell, quoted if necessary."""
    return shlex.quote(before + _short(path))


if __name__ == "__main__":
    sys.exit(main())

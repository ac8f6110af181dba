"""Takes a video through mp3burst as a user would, and shows every step as the command a person could type."""

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
#: Bytes from which on a file is uploaded so that a line that is cut costs nothing.
_LARGE: Final = 64 << 20
#: How often an upload is gone on with in vain.
_TRIES: Final = 3
#: After these an upload goes on where it is: another request is still writing it.
_PASSING: Final = {409, 423}
_ROOT: Final = Path(__file__).resolve().parents[1]
#: Not passed on: the demo shows the mail, and so it must find it.
_MAIL: Final = {"SENDGRID_API_KEY", "SMTP_HOST", "GMAIL_ADDRESS"}


class DemoError(Exception):
    """The demo cannot go on; the text is the sentence to print."""


class Api:
    """The calls of mp3burst, each shown as the curl command that does the same."""

    def __init__(self, port: int) -> None:
        self.port, self.url, self.token = port, f"http://localhost:{port}", ""

    def call(self, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> dict[str, Any]:
        """The JSON of an answer; DemoError with the problem's sentence where it is an error."""
        connection = http.client.HTTPConnection("localhost", self.port, timeout=120)
        try:
            connection.request(method, path, body, headers)
            return _json(connection.getresponse())
        finally:
            connection.close()

    def resumable(self, video: Path) -> str:
        """Begin an upload in parts, by tus 1.0; its path."""
        headers = {"Upload-Length": str(video.stat().st_size), "Upload-Metadata": f"filename {_base64(video.name)}"}
        return str(self._tus("POST", "/files", headers)["Location"])

    def send(self, video: Path, path: str) -> str:
        """Send what is missing of an upload in parts, with a bar, again where the line is cut; the job."""
        size, fruitless, last = video.stat().st_size, 0, -1
        while True:
            answer = self._tus("HEAD", path, {})
            offset = int(answer["Upload-Offset"])
            if offset == size:
                return str(answer["Mp3burst-Job"])
            fruitless = fruitless + 1 if offset == last else 0
            if fruitless > _TRIES:
                raise DemoError("The upload gets no further: try again later.")
            last = offset
            with video.open("rb") as file, contextlib.suppress(OSError, http.client.HTTPException):
                file.seek(offset)
                part = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
                self._tus("PATCH", path, {**part, "Content-Length": str(size - offset)}, _watched(file, offset, size))
            print()

    def _tus(self, method: str, path: str, headers: dict[str, str], body: Iterator[bytes] | None = None) -> Any:
        connection = http.client.HTTPConnection("localhost", self.port, timeout=120)
        headers = {"Tus-Resumable": "1.0.0", **self.bearer(), **headers}
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # Refused half-way; the answer says why.
                connection.request(method, path, body, headers)
            answer = connection.getresponse()
            if answer.status not in _PASSING:
                _json(answer)
            return answer.headers
        finally:
            connection.close()

    def bearer(self) -> dict[str, str]:
        """The header that says who we are."""
        return {"Authorization": f"Bearer {self.token}"}

    def upload(self, video: Path) -> dict[str, Any]:
        """Upload by a form, as a browser does, with a bar."""
        boundary, size = secrets.token_hex(16), video.stat().st_size
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
            pass  # Refused half-way; the answer says why.
        print()
        try:
            return _json(connection.getresponse())
        finally:
            connection.close()


def _watched(file: IO[bytes], sent: int, size: int) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk
        sent += len(chunk)
        _bar("uploading", sent / size)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _json(answer: http.client.HTTPResponse) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(answer.read() or b"{}")
    if answer.status >= 400:
        raise DemoError(str(value.get("detail", f"The answer was {answer.status}.")))
    return value


def main() -> int:
    """Exit status 0 if the MP3 is right and everything ended well."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("video", nargs="?", type=Path, help="the video to convert; without it, one is made")
    parser.add_argument("--once", action="store_true", help="end after the job instead of staying up")
    parser.add_argument(
        "--data", type=Path, default=_ROOT / "data", metavar="DIR", help="where everything is kept (data)"
    )
    parser.add_argument("--port", type=int, default=8080, help="where it is reached (8080)")
    arguments = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # In a pipe, too, every step is seen when it is taken.
    _heed_signals()
    video, data, right = arguments.video, arguments.data.resolve(), False
    platform: subprocess.Popen[str] | None = None
    try:
        if video is not None and not video.is_file():
            raise DemoError(f"There is no file {arguments.video}: name a video, or leave it out and one is made.")
        platform, began = start(data, arguments.port)
        await_ready(platform, data / "platform.log", began)
        show(Api(arguments.port), video or make_clip(data), data)
        right = True
        if not arguments.once:
            print(f"\nmp3burst stays up on http://localhost:{arguments.port} until Ctrl-C.")
            platform.wait()
            raise DemoError(f"mp3burst has ended: look into {_short(data / 'platform.log')}.")
        return 0
    except DemoError as error:
        print(error, file=sys.stderr)
        return 1
    except (OSError, http.client.HTTPException) as error:
        print(f"mp3burst does not answer: {error!r}; look into {_short(data / 'platform.log')}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # The terminal may be gone.
            print()
        return 0 if right else 130
    finally:
        # Ctrl-C once more is passed on: the platform hurries then.
        while platform is not None and platform.poll() is None:
            with contextlib.suppress(KeyboardInterrupt):
                platform.terminate()
                platform.wait()


def _heed_signals() -> None:
    # The platform is in a session of its own, so that it would outlive us and keep its port.
    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # As with nohup.
            signal.signal(number, end)


def start(data: Path, port: int) -> "tuple[subprocess.Popen[str], int]":
    """The platform, not ready yet, and where its log begins, in bytes; DemoError where nothing can be written."""
    log = data / "platform.log"
    print(f"$ ./scripts/up --data {_typed(data)} --port {port} 2> {_typed(log)}")
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        errors = log.open("a")
    except OSError as error:
        raise DemoError(f"Nothing can be kept in {data} ({error.strerror}): choose another --data.") from error
    with errors:
        # A session of its own: Ctrl-C comes to us, and we end it in good order.
        began = log.stat().st_size
        platform = subprocess.Popen(
            [sys.executable, "-m", "infra.local", "--data", str(data), "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name not in _MAIL}
            | {"MAIL_DIR": str(data / "mail")},
        )
    return platform, began


def await_ready(platform: "subprocess.Popen[str]", log: Path, began: int) -> None:
    """Wait until it is ready; DemoError with its own sentence where it does not start."""
    assert platform.stdout is not None  # noqa: S101 - for mypy: it was asked for
    ready = platform.stdout.readline()
    if not ready:
        platform.wait()
        said = log.read_bytes()[began:].decode(errors="replace").strip().splitlines()
        raise DemoError(
            said[-1] if said else f"mp3burst did not start: look whether there is room left in {log.parent}."
        )
    print(ready, end="")


def show(api: Api, video: Path, data: Path) -> None:
    """Register, log in, upload, wait, read the mail, download and check."""
    user, password = f"demo-{secrets.token_hex(3)}@example.org", secrets.token_urlsafe(12)
    form = {"name": "Demo", "username": user, "password": password}
    print(f"\n$ curl {api.url}/register -H 'Content-Type: application/json' -d '{json.dumps(form)}'")
    print(json.dumps(api.call("POST", "/register", {}, json.dumps(form).encode())))

    print(f"\n$ curl -X POST -u '{user}:{password}' {api.url}/login")
    basic = base64.b64encode(f"{user}:{password}".encode()).decode()
    api.token = api.call("POST", "/login", {"Authorization": f"Basic {basic}"})["token"]
    print(f'{{"token": "{api.token[:20]}...", "expires_in": ...}}')
    print(f"\n$ TOKEN={api.token}")

    accepted = send(api, video)

    print(f'\n$ curl -H "Authorization: Bearer $TOKEN" "{api.url}/jobs/{accepted}?wait=25"')
    job = finish(api, accepted)
    print(json.dumps(job, ensure_ascii=False))

    letter = await_mail(data / "mail", accepted)
    print(f"\n$ cat {_typed(letter)}\n")
    print("\n".join("    " + line for line in text_of(letter).splitlines()))
    if job["status"] == "failed":
        raise DemoError(job["error"])

    mp3 = data / "demo" / job["job"] / f"{Path(job['filename']).stem}.mp3"
    mp3.parent.mkdir(parents=True)  # Of this job alone: nothing that is there is overwritten.
    print(f'\n$ curl -H "Authorization: Bearer $TOKEN" "{api.url}/download?fid={job["mp3"]}" -o {_typed(mp3)}')
    download(api, job["mp3"], mp3)
    check(mp3, job["duration"])
    print(f"{mp3} is a right MP3: {job['duration']:.2f} s, {mp3.stat().st_size} bytes.")


def send(api: Api, video: Path) -> str:
    """Upload the video, a large one so that it can be gone on with; the job."""
    if video.stat().st_size <= _LARGE:
        print(f'\n$ curl -H "Authorization: Bearer $TOKEN" -F {_typed(video, "file=@")} {api.url}/upload')
        accepted = api.upload(video)
        print(json.dumps(accepted))
        return str(accepted["job"])
    tus = "curl -i -H \"Authorization: Bearer $TOKEN\" -H 'Tus-Resumable: 1.0.0'"
    about = f"-H 'Upload-Length: {video.stat().st_size}' -H 'Upload-Metadata: filename {_base64(video.name)}'"
    print(f"\n$ {tus} -X POST {about} {api.url}/files")
    path = api.resumable(video)
    print(f"Location: {path}")
    part = "-H 'Content-Type: application/offset+octet-stream' -H 'Upload-Offset: 0'"
    print(f"\n$ {tus} -X PATCH {part} -T {_typed(video)} {api.url}{path}")
    job = api.send(video, path)
    print(f"Mp3burst-Job: {job}")
    return job


def finish(api: Api, job: str) -> dict[str, Any]:
    """The job once it is done or failed."""
    while True:
        state = api.call("GET", f"/jobs/{job}?wait=1", api.bearer())
        _bar("converting", state["progress"])
        if state["status"] in ("done", "failed"):
            print()
            return state


def await_mail(folder: Path, job: str) -> Path:
    """The job's mail; it comes within seconds."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for letter in folder.glob(f"{job}.*.eml"):
            return letter
        time.sleep(0.05)
    raise DemoError(f"No mail came within a minute: look into {folder.parent / 'platform.log'}.")


def text_of(letter: Path) -> str:
    """Headers worth reading and the plain text of a mail."""
    mail = message_from_bytes(letter.read_bytes(), policy=email.policy.default)
    body = mail.get_body(("plain",))
    lines = [f"{name}: {mail[name]}" for name in ("From", "To", "Subject", "Message-ID")]
    return "\n".join([*lines, "", body.get_content() if body is not None else ""])


def download(api: Api, fid: str, target: Path) -> None:
    """Save the MP3, chunk by chunk."""
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
    """Decode the MP3 from its first frame to its last; DemoError where it is broken or of another length."""
    command = [_ffmpeg(), "-nostdin", "-v", "error", "-i", str(mp3), "-f", "s16le", "-ar", "8000", "-ac", "1", "pipe:1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as decoder:
        assert decoder.stdout is not None and decoder.stderr is not None  # noqa: S101, PT018 - for mypy
        samples = 0
        while chunk := decoder.stdout.read(_CHUNK):
            samples += len(chunk) // 2
        complaints = decoder.stderr.read().decode()
    # One MP3 frame of 1152 samples lasts 144 ms at 8 kHz, the slowest rate there is.
    if complaints or decoder.returncode or abs(samples / 8000 - duration) > 0.144:
        raise DemoError(f"{mp3} is not right: {samples / 8000:.2f} s instead of {duration:.2f} s. {complaints}")


def make_clip(data: Path) -> Path:
    """A video of 20 s with a melody, made by the ffmpeg that came with the dependencies."""
    clip = data / "demo.mp4"
    if not clip.exists():
        print(f"\nNo video was named: making {_short(clip)} ...")
        tune = r"0.3*sin(2*PI*t*220*pow(2\,floor(mod(t*4\,8))*2/12))+0.2*sin(2*PI*t*110)"
        unfinished = data / "demo.unfinished.mp4"
        command = [
            *(_ffmpeg(), "-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25"),
            *("-f", "lavfi", "-i", f"aevalsrc={tune}|{tune}:s=44100", "-t", "20"),
            *("-c:v", "mpeg4", "-q:v", "5", "-c:a", "aac", "-metadata", "title=mp3burst demo", str(unfinished)),
        ]
        if subprocess.run(command, check=False).returncode:
            unfinished.unlink(missing_ok=True)
            raise DemoError("The video could not be made, as ffmpeg says above: name one of yours, or make room.")
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
    """The path as a person types it into a shell, blanks and all."""
    return shlex.quote(before + _short(path))


if __name__ == "__main__":
    sys.exit(main())

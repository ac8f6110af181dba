"""Takes pictures of the page for the documents, and films it, on a platform with users and conversions of its own."""

import argparse
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from functions.auth.accounts import Accounts
from functions.auth.administration import Administration
from functions.convert.ffmpeg.binary import default_ffmpeg
from functions.state.database import Database
from scripts.admin import database_in

_ROOT: Final = Path(__file__).resolve().parents[1]
_DOCS: Final = _ROOT / "docs"
_DESKTOP: Final[ViewportSize] = {"width": 1180, "height": 780}
_TALL: Final[ViewportSize] = {"width": 1180, "height": 960}
_PHONE: Final[ViewportSize] = {"width": 390, "height": 780}
#: Names of the clips, and their seconds.
_CLIPS: Final = {
    "Interview with Ada.mp4": 184,
    "Lecture 04 - Fourier.mkv": 312,
    "Night drive (live).mov": 439,
    "Bread, day two.mp4": 275,
}
#: Of the animation: its size, pictures a second, and seconds of rest at the end.
_FILM: Final[ViewportSize] = {"width": 800, "height": 640}
_RATE: Final = 8
_REST: Final = 2.0
#: Pictures of something that is waited for: what takes longer is shown faster.
_MAX_WAIT: Final = 28
#: Seconds that are played in the animation.
_PLAYED: Final = 3
#: The second that is heard in the pictures of the shelf.
_SEEN: Final = "103"
#: Drags a file over the page.
_DRAG: Final = """() => {
  const transfer = new DataTransfer();
  transfer.items.add(new File(["video"], "Concert.mp4"));
  dispatchEvent(new DragEvent("dragenter", { dataTransfer: transfer, bubbles: true }));
}"""
#: Whether the waveform has reached the end of the file: its last tenth is more than a line.
_IS_DRAWN: Final = """() => {
  const canvas = document.querySelector(".wave canvas");
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(width * 0.9, height * 0.35, width * 0.1, 1);
  return data.some(Boolean);
}"""
#: Names of other users.
_USERS: Final = ("Ada", "Bea", "Cem", "Dov")
#: Milliseconds until something must have happened.
_DEADLINE: Final = 120_000


def main() -> int:
    """Takes all pictures. Returns 1 if Chromium is not installed."""
    parser = argparse.ArgumentParser(prog="scripts/screenshots", description="Takes the pictures of docs/page.md.")
    parser.add_argument("--into", type=Path, default=_DOCS, metavar="DIR", help="where they are written (docs)")
    into = parser.parse_args().into
    into.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium")
    if chromium is None:
        print("Pictures need Chromium: install it (Debian: apt install chromium).", file=sys.stderr)
        return 1
    expect.set_options(timeout=_DEADLINE)
    with (
        tempfile.TemporaryDirectory() as folder,
        _platform(Path(folder) / "data") as url,
        sync_playwright() as playwright,
    ):
        clips = [_clip(Path(folder) / name, seconds) for name, seconds in _CLIPS.items()]
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        login = ("ada@example.org", secrets.token_urlsafe())
        _first_visit(browser, url, login, clips, into)
        for name, viewport in (("light", _DESKTOP), ("dark", _DESKTOP), ("phone", _PHONE)):
            _shelf(browser, url, login, viewport, into / f"page-{name}.png")
        _editor(browser, url, Path(folder), into / "page-editor.png")
        administrator = _administrator(browser, url, database_in(Path(folder) / "data"))
        for name, viewport in (("administration", _DESKTOP), ("administration-phone", _PHONE)):
            _administration(browser, url, administrator, viewport, into / f"page-{name}.png")
        _film(browser, url, Path(folder), into / "page.webp")
        browser.close()
    return 0


@contextmanager
def _platform(data: Path) -> Iterator[str]:
    """Runs the platform without limits for newcomers; yields its address."""
    command = [sys.executable, "-m", "infra.local", "--data", str(data), "--port", "0"]
    # No others: an operator's servers must not get these users, nor their mails.
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    environ = {**inherited, "CONFIRM_EMAIL": "off", "REGISTRATIONS_PER_HOUR": "0"}
    log = data.with_suffix(".log")
    with (
        log.open("w") as errors,
        subprocess.Popen(command, cwd=_ROOT, env=environ, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line.startswith("mp3burst is ready on "):
                raise RuntimeError(f"The platform did not start:\n{log.read_text()}")
            yield line.split()[-1]
        finally:
            process.terminate()


def _clip(path: Path, seconds: int) -> Path:
    """Makes a video with a tone that swells as a recording does, so that its waveform is worth a look."""
    swells = "*".join(f"(0.4+0.6*abs(sin({turns}*PI*t/{seconds}+{turns})))" for turns in (3, 11, 47, 211))
    sound = f"aevalsrc=0.8*sin(2*PI*220*t)*{swells}:s=22050:d={seconds}"
    picture = f"testsrc=size=160x90:rate=1:duration={seconds}"
    inputs = ("-f", "lavfi", "-i", sound, "-f", "lavfi", "-i", picture)
    subprocess.run([default_ffmpeg(), "-v", "error", *inputs, "-c:a", "aac", "-c:v", "mpeg4", str(path)], check=True)
    return path


def _first_visit(browser: Browser, url: str, login: tuple[str, str], clips: Sequence[Path], into: Path) -> None:
    """Takes the pictures of a newcomer: the first view, and the files that wait for an account."""
    page = browser.new_page(viewport=_DESKTOP, locale="en-US")
    page.goto(url)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    page.screenshot(path=into / "page-first.png")
    page.locator(".choose input[type=file]").set_input_files(clips)
    username, password = login
    page.get_by_label("Email").fill(username)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Create account").click()
    expect(page.locator(".mp3")).to_have_count(len(clips))
    page.close()


def _editor(browser: Browser, url: str, folder: Path, picture: Path) -> None:
    """Takes a picture of the editor with a selection that fades."""
    video = folder / "Evening song.webm"
    sound = "aevalsrc=0.6*sin(2*PI*220*t)*abs(sin(2*PI*t/11))*abs(sin(2*PI*t/1.7)):d=45"
    inputs = ("-f", "lavfi", "-i", sound, "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=5:duration=45")
    subprocess.run([default_ffmpeg(), "-v", "error", *inputs, "-c:a", "libopus", "-c:v", "libvpx", video], check=True)
    page = browser.new_page(viewport=_TALL, locale="en-US", color_scheme="dark")
    page.goto(url)
    page.get_by_label("Let me trim and edit each file first").check()
    page.locator(".choose input[type=file]").set_input_files(video)
    page.get_by_role("button", name="Edit: Evening song").click()
    dialog = page.get_by_role("dialog", name="Edit")
    for slider, key, times in (("From", "ArrowRight", 6), ("To", "ArrowLeft", 9), ("Fade in", "ArrowRight", 3)):
        for _ in range(times):
            dialog.get_by_role("slider", name=slider).press(f"Shift+{key}")
    dialog.get_by_label("Use a picture from the video as cover").check()
    expect(dialog.get_by_text("0:30, about")).to_be_visible()
    while not page.evaluate(_IS_DRAWN):
        page.wait_for_timeout(100)
    page.mouse.move(0, 0)
    page.screenshot(path=picture)
    page.close()


def _administrator(browser: Browser, url: str, database: Database) -> tuple[str, str]:
    """Registers some users of whom one has a quota of their own and one is locked; returns the login of another."""
    with browser.new_context(base_url=url) as context:
        ids = {}
        password = secrets.token_urlsafe()
        accounts = Accounts(database)
        for name in ("Root", *_USERS):
            username = f"{name.lower()}@example.com"
            context.request.post("/register", data={"name": name, "username": username, "password": password})
            ids[name] = username, accounts.id_of(username) or ""
        administration = Administration(database)
        administration.change(ids["Root"][1], None, role="admin")
        administration.set_quota(ids["Bea"][1], None, 50_000_000_000, None)
        administration.change(ids["Cem"][1], None, is_locked=True)
    return ids["Root"][0], password


def _administration(browser: Browser, url: str, login: tuple[str, str], viewport: ViewportSize, picture: Path) -> None:
    """Takes a picture of what administrators see: users, one of them opened."""
    scheme: Literal["light", "dark"] = "dark" if "phone" in picture.name else "light"
    page = browser.new_page(viewport=viewport, locale="en-US", color_scheme=scheme)
    page.goto(url)
    _log_in(page, login)
    page.locator(".menu-button").click()
    page.get_by_role("button", name="Administration").click()
    dialog = page.get_by_role("dialog", name="Administration")
    dialog.get_by_text("bea@").click()
    expect(dialog.get_by_label("Storage in GB")).to_have_value("50")
    page.mouse.move(0, 0)
    page.screenshot(path=picture)
    page.close()


def _log_in(page: Page, login: tuple[str, str]) -> None:
    page.get_by_role("button", name="Log in").click()
    username, password = login
    page.get_by_label("Email or username").fill(username)
    page.get_by_label("Password").fill(password)
    page.locator(".login").get_by_role("button", name="Log in").click()
    expect(page.locator(".login")).to_be_hidden()


def _shelf(browser: Browser, url: str, login: tuple[str, str], viewport: ViewportSize, picture: Path) -> None:
    """Takes a picture of the MP3s while one plays; a name with "light" is taken in light colors."""
    scheme: Literal["light", "dark"] = "light" if "light" in picture.name else "dark"
    page = browser.new_page(viewport=viewport, locale="en-US", color_scheme=scheme)
    page.goto(url)
    _log_in(page, login)
    page.locator(".mp3 .round").first.click()
    position = page.get_by_role("slider", name="Position")
    expect(position).not_to_have_value("0")
    position.fill(_SEEN)
    expect(position).to_have_value(str(int(_SEEN) + 1))
    page.screenshot(path=picture)
    page.close()


class _Film:
    """Pictures of a page, and for how many seconds each is shown."""

    def __init__(self, page: Page, folder: Path) -> None:
        self._page = page
        self._folder = folder
        self._pictures: list[tuple[bytes, float]] = []

    def take(self, seconds: float = 1 / _RATE) -> None:
        """Adds what the page shows now, for so many seconds."""
        self._pictures.append((self._page.screenshot(), seconds))

    def type(self, label: str, text: str) -> None:
        """Types a text, a few characters in each picture."""
        field = self._page.get_by_label(label)
        for end in range(4, len(text) + 4, 4):
            field.fill(text[:end])
            self.take()

    def until(self, condition: Callable[[], bool]) -> None:
        """Takes pictures until a condition is true, and adds some of those that differ."""
        deadline = time.monotonic() + _DEADLINE / 1000
        seen = [self._page.screenshot()]
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError("The page does not show what the film is about.")
            picture = self._page.screenshot()
            if picture != seen[-1]:
                seen.append(picture)
        every = max(1, len(seen) // _MAX_WAIT)
        self._pictures += [(picture, 1 / _RATE) for picture in seen[::every]]

    def write(self, file: Path) -> None:
        """Writes an animated WebP, which repeats for ever."""
        index = self._folder / "pictures.txt"
        with index.open("w") as lines:
            for number, (picture, seconds) in enumerate(self._pictures):
                (self._folder / f"{number}.png").write_bytes(picture)
                lines.write(f"file '{number}.png'\nduration {seconds}\n")
            lines.write(f"file '{number}.png'\n")  # otherwise ffmpeg ignores the last duration
        inputs = ("-f", "concat", "-i", str(index))
        output = ("-fps_mode", "passthrough", "-c:v", "libwebp_anim", "-lossless", "1", "-loop", "0")
        subprocess.run([default_ffmpeg(), "-v", "error", "-y", *inputs, *output, str(file)], check=True)


def _film(browser: Browser, url: str, folder: Path, file: Path) -> None:
    """Films a newcomer's way: drops videos, registers, watches and plays."""
    clips = [_clip(folder / name, seconds) for name, seconds in (("Concert.mp4", 1500), ("Interview.mkv", 420))]
    page = browser.new_page(viewport=_FILM, locale="en-US", color_scheme="light")
    page.goto(url)
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    film = _Film(page, folder)
    film.take(1.5)
    page.evaluate(_DRAG)
    expect(page.get_by_text("Drop to convert")).to_be_visible()
    film.take(1.0)
    page.evaluate("dispatchEvent(new DragEvent('dragleave'))")
    page.locator(".choose input[type=file]").set_input_files(clips)
    expect(page.locator(".login")).to_be_visible()
    film.take(1.0)
    film.type("Email", "grace@example.org")
    film.type("Password", secrets.token_urlsafe(12))
    page.get_by_role("button", name="Create account").click()
    expect(page.locator(".login")).to_be_hidden()
    page.evaluate("scrollTo(0, 0)")
    mp3s = page.locator(".mp3")
    film.until(lambda: mp3s.count() == len(clips))
    expect(page.locator(".toast")).to_be_hidden()
    film.take(1.0)
    page.get_by_role("button", name="Play: Interview").click()
    position = page.get_by_role("slider", name="Position")
    film.until(lambda: float(position.input_value()) >= _PLAYED)
    film.take(_REST)
    page.close()
    film.write(file)


if __name__ == "__main__":
    sys.exit(main())

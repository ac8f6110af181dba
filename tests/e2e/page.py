"""What a person does on the page at /, in Chromium, and what they see: for the tests of the page."""

from typing import Any, Final, Literal

from playwright.sync_api import Locator, Page, Request, ViewportSize, expect

from tests.e2e.client import PASSWORD, Client, wave_bytes
from tests.support.paths import ROOT

#: Milliseconds until something must have happened.
DEADLINE: Final = 60_000
PHONE: Final[ViewportSize] = {"width": 360, "height": 740}
DESKTOP: Final[ViewportSize] = {"width": 1280, "height": 860}
#: Notes what the Content-Security-Policy refuses.
WATCH: Final = "addEventListener('securitypolicyviolation', e => (window.refused ??= []).push(e.violatedDirective))"
#: How many files the browser keeps, or can open again.
KEPT_FILES: Final = """() => new Promise((resolve, reject) => {
  const opening = indexedDB.open("mp3burst", 1);
  opening.onerror = reject;
  opening.onsuccess = () => {
    const database = opening.result;
    const counting = database.transaction("handles").objectStore("handles").count();
    counting.onsuccess = () => { database.close(); resolve(counting.result); };
  };
})"""
_AXE: Final = ROOT / "functions/gateway/site/node_modules/axe-core/axe.min.js"
_SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("dark", "light")
#: Brings every animation to its end at once: to wait for one may take forever, as where no frames are drawn.
_FINISH_ANIMATIONS: Final = """() => {
  for (const each of document.getAnimations()) {
    if (each.effect.getComputedTiming().endTime === Infinity) each.cancel();
    else each.finish();
  }
}"""
#: Turns the 6 seconds of a notice, and of an undo, into a minute: a busy machine may need more than 6.
_LEAVE_TIME: Final = """() => {
  const timer = setTimeout;
  setTimeout = (act, wait) => timer(act, wait === 6000 ? 60000 : wait);
}"""


def enter(page: Page, me: Client, password: str = PASSWORD) -> None:
    """Logs in by the form that is shown, or by the button that shows it."""
    form = page.locator(".login")
    button = page.locator(".login-button")
    expect(form.or_(button).first).to_be_visible()
    if not form.is_visible():
        button.click()
    username = form.get_by_label("Email or username")
    has_account = form.get_by_role("button", name="I have an account")
    expect(username.or_(has_account)).to_be_visible()
    if has_account.is_visible():
        has_account.click()
    username.fill(me.username)
    form.get_by_label("Password").fill(password)
    form.get_by_role("button", name="Log in").click()
    expect(form).to_be_hidden()


def file(name: str, seconds: float = 0.5) -> Any:
    """Returns a sound that can be chosen."""
    return {"name": name, "mimeType": "audio/wav", "buffer": wave_bytes(seconds)}


def choose(page: Page, *files: Any) -> None:
    """Chooses files by the button."""
    page.locator(".choose input[type=file]").set_input_files(list(files))


def named(page: Page, name: str) -> Locator:
    """Returns the names in rows that contain this one. A row's whole text includes its open dialog's."""
    return page.locator(".text > .name").filter(has_text=name)


def shelved(page: Page, title: str) -> Locator:
    """Returns the row of the MP3 with this title."""
    return page.locator(".mp3").filter(has=named(page, title))


def ready(page: Page, title: str) -> Locator:
    """Waits for the MP3 with this title, and returns its row."""
    row = shelved(page, title)
    expect(row).to_be_visible()
    return row


def on_its_way(page: Page, name: str) -> Locator:
    """Returns the row of an upload or a conversion."""
    return page.locator(".item:not(.mp3)").filter(has=named(page, name))


def edited(page: Page, name: str) -> Locator:
    """Opens the editor of a file that waits for it."""
    expect(on_its_way(page, name)).to_contain_text("Edit it, or start")
    page.get_by_role("button", name=f"Edit: {name}").click()
    return page.get_by_role("dialog", name="Edit")


def open_menu(page: Page, me: Client, entry: str) -> None:
    """Chooses an entry of the user's menu."""
    page.get_by_role("button", name=f"Account: {me.username}").click()
    page.locator("#menu").get_by_role("button", name=entry, exact=True).click()


def offsets(page: Page) -> list[int]:
    """Notes where the parts of uploads begin, from now on."""
    found: list[int] = []

    def note(request: Request) -> None:
        if request.method == "PATCH":
            found.append(int(request.headers["upload-offset"]))

    page.on("request", note)
    return found


def leave_time(page: Page) -> None:
    """Lets notices stay for a minute, in which what they are about can be undone."""
    page.evaluate(_LEAVE_TIME)


def violations(page: Page) -> list[str]:
    """Returns what axe-core finds in what is shown, in light and in dark colors."""
    page.evaluate(_AXE.read_text())
    rules = "{runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}"
    found = []
    for scheme in _SCHEMES:
        page.emulate_media(color_scheme=scheme)
        page.evaluate(_FINISH_ANIMATIONS)
        found += page.evaluate(f"axe.run({rules})")["violations"]
    return [f"{each['id']}: {[node['html'] for node in each['nodes']]}" for each in found]

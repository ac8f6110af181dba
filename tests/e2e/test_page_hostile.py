"""Cross-site scripting: every text that a user or a server may choose is shown as text."""

import json
import re
from collections.abc import Iterator
from typing import Final

import pytest
from playwright.sync_api import BrowserContext, Dialog, Page, Route, expect

from tests.e2e.client import Client, wave_bytes
from tests.e2e.page import choose, edited, enter, named, on_its_way, open_menu, ready
from tests.e2e.tus import Tus
from tests.support.platform import Platform

#: Texts that run a script where they become HTML, an attribute, a script, an address or a template.
TEXTS: Final = (
    "<img src=x onerror=alert(1)>",
    '"><script>alert(1)<!--',
    "' autofocus onfocus='alert(1)",
    "javascript:alert(1)",
    "${alert(1)}{{alert(1)}}",
)
JSON: Final = {"Content-Type": "application/json"}
#: No wait for the browser is limited where a script runs in the page.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def nothing_runs(page: Page, context: BrowserContext) -> Iterator[None]:
    """Checks that no script of a text ran and that none was refused, nor an element made for it."""
    dialogs: list[Dialog] = []

    def dismiss(dialog: Dialog) -> None:
        dialogs.append(dialog)
        dialog.dismiss()

    context.on("dialog", dismiss)
    yield
    assert page.locator("#page").locator("img, script, iframe, object, [onerror], [onfocus], [autofocus]").count() == 0
    assert page.locator("[href^='javascript:'], [src^='javascript:']").count() == 0
    assert dialogs == []
    assert page.evaluate("window.refused") is None, "the page relies on no policy"


def test_names_of_files_and_tags(page: Page, me: Client) -> None:
    enter(page, me)
    names = [f"{text.replace('/', ':')}.wav" for text in TEXTS]
    choose(page, *({"name": name, "mimeType": "audio/wav", "buffer": wave_bytes(0.5)} for name in names))
    for name in names:
        ready(page, name.removesuffix(".wav")).get_by_role("button", name="Play").click()
    job = me.jobs()["jobs"][0]
    everything = dict.fromkeys(("title", "artist", "album", "genre"), TEXTS[0])
    chapters = [{"start": n / 10, "title": text} for n, text in enumerate(TEXTS)]
    body = json.dumps({**everything, "chapters": chapters}).encode()
    assert me.call("PATCH", f"/jobs/{job['job']}/tags", body, JSON).status == 200
    row = ready(page, job["filename"].removesuffix(".wav"))
    row.get_by_role("button", name="Edit tags").click()
    dialog = page.get_by_role("dialog", name="Edit tags")
    expect(dialog.get_by_label("Artist")).to_have_value(TEXTS[0])
    for text in TEXTS:
        expect(dialog.locator(".entry").filter(has_text=text)).to_be_visible()
        dialog.get_by_role("button", name=f"Play: {text}").click()
    dialog.get_by_role("button", name="Close").click()
    row.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("status").filter(has_text="Deleted")).to_be_visible()


def test_errors_and_warnings_of_the_server(page: Page, me: Client) -> None:
    """An error may quote the file: a converter's message, a format's name."""
    facts = {"status": "failed", "stage": "failed", "progress": 0, "mp3": None, "duration": None, "options": {}}
    failed = [
        {**facts, "job": f"{n:032}", "filename": text, "error": f"Failed: {text}", "created": f"2026-11-27T10:00:0{n}Z"}
        for n, text in enumerate(TEXTS)
    ]
    done = {**failed[0], "job": "9" * 32, "status": "done", "stage": "done", "mp3": "1" * 24, "warning": TEXTS[0]}
    page.route("**/jobs?*", lambda route: route.fulfill(json={"jobs": [*failed, done], "next": None}))
    page.route("**/files", lambda route: route.fulfill(status=413, json={"status": 413, "detail": TEXTS[1]}))
    enter(page, me)
    for text in TEXTS:
        expect(page.locator(".item.failed .status").filter(has_text=f"Failed: {text}")).to_be_visible()
    expect(page.locator(".warning")).to_have_text(TEXTS[0])
    choose(page, {"name": "a.wav", "mimeType": "audio/wav", "buffer": wave_bytes(0.1)})
    expect(on_its_way(page, "a.wav").locator(".status")).to_have_text(TEXTS[1])


def test_what_an_account_has(page: Page, me: Client) -> None:
    enter(page, me)
    for text in TEXTS:
        body = json.dumps({"name": text, "scopes": ["read"]}).encode()
        assert me.call("POST", "/keys", body, JSON).status == 201
    webhook = {"id": "1" * 32, "url": TEXTS[3], "state": "active", "secret": TEXTS[0]}
    delivery = {"id": "2" * 32, "url": TEXTS[3], "state": "failed", "error": TEXTS[0], "tried": None}
    session = {"id": "3" * 32, "created": "2026-11-27", "last_used": "2026-11-27", "current": False}
    answers: dict[str, object] = {
        "webhooks": {"webhooks": [webhook]},
        "deliveries": {"deliveries": [delivery | {"created": "2026-11-27"}]},
        "sessions": {"sessions": [session | {"agent": TEXTS[0], "network": TEXTS[1]}]},
    }

    def answer(route: Route) -> None:
        name = route.request.url.partition("?")[0].rpartition("/")[2]
        route.fulfill(json=answers[name])

    page.route(re.compile("/(webhooks|deliveries|sessions)([?].*)?$"), answer)
    open_menu(page, me, "Account")
    dialog = page.get_by_role("dialog", name="Account")
    dialog.get_by_text("API keys").click()
    for text in TEXTS:
        expect(dialog.locator(".entry").filter(has_text=text)).to_be_visible()
    dialog.get_by_text("Where you are logged in").click()
    expect(dialog.locator(".entry").filter(has_text=TEXTS[1]).filter(has_text=TEXTS[0])).to_be_visible()
    dialog.get_by_text("Webhooks").click()
    expect(dialog.get_by_text(f"Failed · {TEXTS[0]}")).to_be_visible()
    expect(dialog.get_by_label("Secret that verifies")).to_have_value(TEXTS[0])


def test_names_of_presets_and_texts_of_options(page: Page, me: Client) -> None:
    page.get_by_label("Let me trim and edit each file first").check()
    choose(page, {"name": "a.wav", "mimeType": "audio/wav", "buffer": wave_bytes(1)})
    enter(page, me)
    for number, text in enumerate(TEXTS):
        dialog = edited(page, "a.wav")
        dialog.get_by_label("kbit/s").select_option(str((80, 112, 128, 160, 224)[number]))
        dialog.get_by_label("Name of a preset").fill(text.replace("/", ":")[:40])
        dialog.get_by_role("button", name="Keep as preset").click()
        dialog.get_by_role("button", name="Close").click()
    dialog = edited(page, "a.wav")
    for field in ("From", "To"):
        dialog.get_by_role("textbox", name=field).fill(TEXTS[0][:16])
    dialog.get_by_role("button", name="Start with these settings").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Check the times")
    dialog.get_by_role("button", name="Close").click()
    for text in TEXTS:
        page.get_by_role("radio", name=text.replace("/", ":")[:40], exact=True).check()


def test_what_another_visit_has_left(page: Page, platform: Platform, me: Client) -> None:
    """The browser's storage, and the address, may come from an older page or from a hand."""
    url = f"{me.url}{Tus(me).create(1000).location}"
    stored = [{"key": "1", "name": TEXTS[0], "owner": me.user, "fileSize": 1000, "size": 1000, "url": url}]
    page.evaluate("text => localStorage['mp3burst.uploads'] = text", json.dumps(stored))
    page.goto(f"{platform.url}/?{TEXTS[0]}#{TEXTS[1]}")
    enter(page, me)
    expect(named(page, TEXTS[0])).to_be_visible()

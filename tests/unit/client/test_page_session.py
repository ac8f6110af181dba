"""Who uses the page, in Node.js."""

from pathlib import Path
from typing import Final

import pytest

from tests.support import page_code

_COMMON: Final = """
const { session } = await import("./page.mjs");
const users = { ann: { id: "ann" }, bob: { id: "bob" } };
server.answer = (method, url, user) => (user ? { status: 200, body: users[user] } : { status: 401 });
const shown = () => JSON.stringify(session.session.value);
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    page_code.bundle('export * as session from "./src/session";', folder / "page.mjs")
    return folder


def session_after(code: str, folder: Path) -> str:
    """Runs the code, and returns the session that the page has then."""
    return page_code.answers(_COMMON + code + "server.answers.push(shown()); end();", folder)[-1]


def test_session_that_was_refused_twice_has_expired(folder: Path) -> None:
    """What was being sent is kept for the same user, however many requests notice."""
    code = """
server.user = "ann";
await session.refresh();
server.user = "";
await session.refresh();
await session.refresh();
"""
    assert session_after(code, folder) == '{"state":"out","hasExpired":true}'


def test_session_ends_like_an_expired_one_when_the_password_is_changed(folder: Path) -> None:
    code = """
server.user = "ann";
await session.refresh();
await session.changePassword("old password", "new password");
"""
    assert session_after(code, folder) == '{"state":"out","hasExpired":true}'


@pytest.mark.parametrize("act", ["enter('bob', 'password', false)", "leave(false)", "changePassword('a', 'b')"])
def test_other_tabs_ask_who_is_logged_in(act: str, folder: Path) -> None:
    code = f"""
const tab = new BroadcastChannel("mp3burst.session");
const told = new Promise((done) => {{ tab.onmessage = done; }});
server.user = "bob";
await session.{act};
await told;
server.user = "ann";
tab.postMessage(null);
while (!shown().includes("ann")) await wait(1);
"""
    assert session_after(code, folder) == '{"state":"in","account":{"id":"ann"}}'


def test_late_answer_does_not_log_in_again(folder: Path) -> None:
    code = """
const { fetch } = globalThis;
globalThis.fetch = async (url, ...rest) => {
  const answer = await fetch(url, ...rest);
  if (url === "/me") await wait(20);
  return answer;
};
server.user = "ann";
await session.refresh();
const late = session.refresh();
await session.leave(false);
await late;
"""
    assert session_after(code, folder) == '{"state":"out","hasExpired":false}'

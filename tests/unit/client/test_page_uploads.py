"""The page's uploads, in Node.js."""

from pathlib import Path
from typing import Final

import pytest

from tests.support import page_code

_CODE: Final = """
export * as uploads from "./src/uploads";
export { session } from "./src/session";
"""
_COMMON: Final = """
const { uploads, session } = await import("./page.mjs");
const video = new File([new Uint8Array(100)], "lecture.mp4");
const logIn = (id) => { server.user = id; session.value = { state: "in", account: { id } }; };
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    page_code.bundle(_CODE, folder / "page.mjs")
    return folder


def answers(code: str, folder: Path) -> list[str]:
    return page_code.answers(_COMMON + code, folder)


def test_files_of_one_user_are_never_sent_as_another(folder: Path) -> None:
    """The session ends during an upload, and somebody else logs in: nothing is theirs until main.tsx says so."""
    sent = answers(
        """
const created = { status: 201, headers: { Location: "/files/1" } };
server.answer = (method) => method === "POST" ? created : { status: 401 };
uploads.add([{ file: video, handle: null }]);
await uploads.begin("ann");
logIn("ann");
await wait();
server.answers.push(session.value.state);
logIn("bob");
uploads.stop();
await uploads.begin("bob");
await wait();
end();
""",
        folder,
    )
    assert sent == ["POST /files of ann: 201", "PATCH /files/1 of ann: 401", "out"]


def test_paused_before_its_first_request_nothing_is_sent(folder: Path) -> None:
    sent = answers(
        """
await uploads.begin("ann");
logIn("ann");
uploads.add([{ file: video, handle: null }]);
const { key } = uploads.uploads.value[0];
while (uploads.uploads.value[0].state !== "sending") await Promise.resolve();
uploads.pause(key);
await wait();
server.answers.push(uploads.uploads.value[0].state);
end();
""",
        folder,
    )
    assert sent == ["paused"]


def test_address_that_is_not_there_is_not_asked_again_and_again(folder: Path) -> None:
    sent = answers(
        """
server.answer = () => ({ status: 404 });
await uploads.begin("ann");
logIn("ann");
uploads.add([{ file: video, handle: null }]);
await wait();
server.answers.push(uploads.uploads.value[0].state);
end();
""",
        folder,
    )
    assert sent == ["POST /files of ann: 404", "failed"]

"""The page's uploads, in Node.js, in front of a server that is made up."""

import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.support.page_code import bundle
from tests.support.servers import program

#: A browser in which somebody is logged in, and a server that notes whose requests it has answered.
_WORLD: Final = """
const stored = new Map();
globalThis.window = globalThis;
globalThis.addEventListener = () => undefined;
globalThis.document = { visibilityState: "visible", documentElement: { dataset: {} } };
globalThis.localStorage = {
  getItem: (name) => stored.get(name) ?? null,
  setItem: (name, text) => stored.set(name, text),
};
Object.defineProperty(globalThis, "navigator", { value: { onLine: true, languages: ["en"], product: "" } });
globalThis.fetch = async () => Promise.reject(new TypeError("there is no network"));
globalThis.server = { user: "", answers: [], answer: () => ({ status: 500 }) };
globalThis.XMLHttpRequest = class {
  upload = {};
  open(method, url) { Object.assign(this, { method, url }); }
  setRequestHeader() {}
  getResponseHeader(name) { return this.headers[name] ?? null; }
  abort() { clearTimeout(this.timer); }
  send() {
    this.timer = setTimeout(() => {
      const { status, headers = {} } = server.answer(this.method, this.url, server.user);
      server.answers.push(`${this.method} ${this.url} of ${server.user || "nobody"}: ${status}`);
      Object.assign(this, { status, headers, responseText: "", response: "" });
      this.onload();
    }, 1);
  }
};
"""
_CODE: Final = """
export * as uploads from "./src/uploads";
export { session } from "./src/session";
"""
_COMMON: Final = """
import "./world.mjs";
const { uploads, session } = await import("./page.mjs");
const wait = () => new Promise((done) => setTimeout(done, 300));
const video = new File([new Uint8Array(100)], "lecture.mp4");
const logIn = (id) => { server.user = id; session.value = { state: "in", account: { id } }; };
const end = () => { console.log(server.answers.join("\\n")); process.exit(0); };
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    bundle(_CODE, folder / "page.mjs")
    (folder / "world.mjs").write_text(_WORLD)
    return folder


def answers(code: str, folder: Path) -> list[str]:
    """Runs the page's code, and returns what the server has answered."""
    (folder / "main.mjs").write_text(_COMMON + code)
    done = subprocess.run(
        [program("node"), folder / "main.mjs"], stdout=subprocess.PIPE, text=True, timeout=60, check=True
    )
    return done.stdout.split("\n")[:-1]


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

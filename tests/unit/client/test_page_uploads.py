"""The page's uploads, in Node.js."""

import json
from pathlib import Path
from typing import Final

import pytest

from tests.support import clips, page_code

_CODE: Final = """
export * as jobs from "./src/jobs";
export * as options from "./src/options";
export * as uploads from "./src/uploads";
export { session } from "./src/session";
"""
_COMMON: Final = """
const { jobs, options, uploads, session } = await import("./page.mjs");
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


def test_nothing_is_sent_once_the_user_has_logged_out(folder: Path) -> None:
    """Three of five files are being sent: when these stop the others must not start."""
    sent = answers(
        """
let created = 0;
server.answer = (method) => {
  if (method === "POST") return { status: 201, headers: { Location: `/files/${(created += 1)}` } };
  return { status: method === "PATCH" ? 503 : 204 };
};
await uploads.begin("ann");
logIn("ann");
uploads.add([1, 2, 3, 4, 5].map((n) => ({ file: new File([new Uint8Array(n)], `${n}.mp4`), handle: null })));
while (uploads.uploads.value.filter((each) => each.url).length < 3) await wait(1);
server.answers.length = 0;
await uploads.abandon();
await wait(50);
server.answers = server.answers.filter((each) => !each.startsWith("PATCH"));
end();
""",
        folder,
    )
    assert sorted(sent) == [f"DELETE /files/{n} of ann: 204" for n in (1, 2, 3)]


def test_all_of_the_file_is_sent_once_a_cover_is_chosen(folder: Path, tmp_path: Path) -> None:
    """The server refused the first attempt, for which the sound had been taken out: that has no pictures."""
    codecs = ("-c:v", "libx264", "-g", 1, "-c:a", "aac")
    video = clips.clip(tmp_path / "a.mp4", *codecs, seconds=3, video=True)
    sent = answers(
        f"""
import {{ openAsBlob }} from "node:fs";
const film = new File([await openAsBlob({json.dumps(str(video))})], "a.mp4");
server.answer = () => ({{ status: 413 }});
await uploads.begin("ann");
logIn("ann");
uploads.add([{{ file: film, handle: null }}]);
const failed = async () => {{ while (uploads.uploads.value[0].state !== "failed") await wait(1); }};
await failed();
const [{{ key, size }}] = uploads.uploads.value;
uploads.start(key, {{ ...options.unedited(options.PRESETS.standard), cover: 1 }});
await failed();
server.answers = [size < film.size, uploads.uploads.value[0].size === film.size];
end();
""",
        folder,
    )
    assert sent == ["true", "true"]


def test_job_takes_the_place_of_its_upload_before_the_last_response(folder: Path) -> None:
    """The server's events may be faster than its response."""
    shown = answers(
        """
server.answer = (method, url) => {
  if (url.startsWith("/jobs")) return { status: 200, body: { jobs: [], next: null } };
  if (method === "POST") return { status: 201, headers: { Location: "/files/1", "Mp3burst-Future-Job": "7" } };
  const before = uploads.uploads.value.length;
  server.events.tell("job", { job: "7", filename: "lecture.mp4", status: "uploaded", created: "2026-11-27" });
  result.push(`${before} upload, then ${uploads.uploads.value.length} and ${jobs.working.value.length} job`);
  return { status: 0 };
};
const result = [];
await uploads.begin("ann");
logIn("ann");
await jobs.start();
uploads.add([{ file: video, handle: null }]);
await wait();
result.push(localStorage.getItem("mp3burst.uploads"));
server.answers = result;
end();
""",
        folder,
    )
    assert shown == ["1 upload, then 0 and 1 job", "[]"]

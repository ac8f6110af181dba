"""What the page knows of jobs, in Node.js."""

from pathlib import Path
from typing import Final

import pytest

from tests.support import page_code

_CODE: Final = """
export * as api from "./src/api";
export * as jobs from "./src/jobs";
export { leave } from "./src/leave";
export { notice } from "./src/notices";
"""
_COMMON: Final = """
const { api, jobs, leave, notice } = await import("./page.mjs");
const job = (id, status) => ({ job: id, status, filename: `${id}.mp4`, created: id });
server.user = "ann";
const pages = (...all) => { server.answer = (method) => method === "GET" ? all.shift() : { status: 204 }; };
const page = (...all) => ({ status: 200, body: { jobs: all, next: null } });
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    page_code.bundle(_CODE, folder / "page.mjs")
    return folder


def answers(code: str, folder: Path) -> list[str]:
    return page_code.answers(_COMMON + code, folder)


def test_what_was_deleted_is_gone_before_the_session_ends(folder: Path) -> None:
    sent = answers(
        """
pages(page(job("a", "done"), job("b", "done")));
await jobs.start();
jobs.remove(job("a", "done"));
await leave(false);
server.answers.push(jobs.done.value.map((each) => each.job));
end();
""",
        folder,
    )
    assert sent == ["GET /jobs?limit=50 of ann: 200", "DELETE /jobs/a of ann: 204", "DELETE /session of ann: 204", "b"]


def test_logout_that_fails_is_said(folder: Path) -> None:
    sent = answers(
        """
server.answer = () => ({ status: 503, body: { detail: "The database is unavailable." } });
await leave(true);
server.answers.push(notice.value.text);
end();
""",
        folder,
    )
    assert sent == ["DELETE /sessions of ann: 503", "The database is unavailable."]


def test_jobs_of_the_user_before_are_not_shown_to_the_next_one(folder: Path) -> None:
    sent = answers(
        """
pages(page(job("a", "done")), page(job("b", "done")));
const late = jobs.start();
jobs.stop();
await late;
await jobs.start();
server.answers.push(jobs.done.value.map((each) => each.job));
end();
""",
        folder,
    )
    assert sent[-1] == "b"


def test_job_that_ended_while_there_were_no_events_is_done(folder: Path) -> None:
    sent = answers(
        """
const realTimeout = setTimeout;
globalThis.setTimeout = (act, time, ...more) => realTimeout(act, Math.min(time, 20), ...more);
pages(page(job("a", "converting")), page(job("a", "done")), { status: 503 });
await jobs.start();
server.events.readyState = EventSource.CLOSED;
server.events.dispatchEvent(new Event("error"));
await wait(20);
await wait(20);
server.events.tell("jobs", { jobs: [] });
await wait(20);
server.answers.push(`${jobs.working.value.length} ${jobs.done.value.length}`);
end();
""",
        folder,
    )
    assert sent[-1] == "0 1"


def test_device_that_slept_for_hours_shows_what_has_ended_and_what_was_deleted(folder: Path) -> None:
    """Events have what has ended in the last hour only, and cannot tell what was deleted before they began."""
    sent = answers(
        """
pages(
  page(job("d", "converting"), job("c", "converting"), job("b", "converting"), job("a", "converting")),
  { status: 200, body: { jobs: [job("d", "converting"), job("c", "done"), job("aa", "done")], next: "aa" } },
);
await jobs.start();
server.events.tell("jobs", { jobs: [job("d", "converting")] });
await wait(20);
const ids = (those) => those.map((each) => each.job).sort().join();
server.answers.push(`${ids(jobs.working.value)} ${ids(jobs.done.value)}`);
server.events.tell("jobs", { jobs: [job("d", "converting"), job("a", "converting")] });
await wait(20);
end();
""",
        folder,
    )
    # Of "a", which is older than all that was listed, nothing is known.
    assert sent == ["GET /jobs?limit=50 of ann: 200", "GET /jobs?limit=500 of ann: 200", "a,d aa,c"]


def test_job_that_ended_during_an_outage_is_done(folder: Path) -> None:
    sent = answers(
        """
const realTimeout = setTimeout;
globalThis.setTimeout = (act, time, ...more) => realTimeout(act, Math.min(time, 20), ...more);
pages(page(job("a", "converting")));
await jobs.start();
let isCut = true;
server.answer = (method) => {
  if (isCut) throw new TypeError("no connection");
  return method === "HEAD" ? { status: 200 } : page(job("a", "done"));
};
server.events.readyState = 0;
server.events.dispatchEvent(new Event("error"));
await wait(60);
isCut = false;
await wait(60);
server.events.tell("jobs", { jobs: [] });
await wait(20);
server.answers.push(`${jobs.working.value.length} ${jobs.done.value.length}`);
end();
""",
        folder,
    )
    assert sent[-1] == "0 1"


@pytest.mark.parametrize(("proxy", "paths"), [("false", "/sso/google"), ("true", "/sso/google,/sso/proxy")])
def test_what_logs_in_without_a_password_is_offered(proxy: str, paths: str, folder: Path) -> None:
    sent = answers(
        f"""
const google = {{ name: "google", title: "Google", path: "/sso/google" }};
server.answer = () => ({{ status: 200, body: {{ providers: [google], proxy: {proxy} }} }});
server.answers.push((await api.getProviders()).map((each) => each.path).join());
end();
""",
        folder,
    )
    assert sent == ["GET /sso/providers of ann: 200", paths]

import { effect } from "@preact/signals";
import { render } from "preact";
import { App } from "./app";
import * as i18n from "./i18n";
import * as jobs from "./jobs";
import * as options from "./options";
import * as player from "./player";
import { refresh, session } from "./session";
import * as share from "./share";
import * as uploads from "./uploads";

/** Milliseconds between two attempts to reach the server. */
const RETRY = 5_000;

/** Whose uploads are shown, also while the session is over; null for those of a newcomer. */
let user: string | null = null;
let follows = false;

// What belongs to a user is fetched when the user logs in, and forgotten when another one may be next.
effect(() => {
  const current = session.value;
  if (current.state === "in") begin(current.account.id);
  else if (current.state === "out") end(current.hasExpired);
  else if (current.state === "unreachable") setTimeout(() => void refresh(), RETRY);
});

function begin(id: string): void {
  if (user !== id) {
    if (user !== null) {
      unfollow();
      uploads.stop();
    }
    user = id;
    uploads.begin(id);
    options.end();
    void options.begin();
  }
  if (!follows) {
    follows = true;
    void jobs.start();
  }
}

function unfollow(): void {
  if (!follows) return;
  follows = false;
  jobs.stop();
  player.close();
}

function end(hasExpired: boolean): void {
  unfollow();
  if (!hasExpired && user !== null) {
    uploads.stop();
    uploads.erase(user);
    options.end();
    user = null;
  }
}

// The title of the tab tells how far everything is.
effect(() => {
  const sending = uploads.uploads.value.filter((each) => !["held", "failed", "detached"].includes(each.state));
  const parts = [
    ...sending.map((each) => (each.size ? each.sent / each.size : 0) / 2),
    ...jobs.working.value.map((job) => 0.5 + job.progress / 2),
  ];
  const part = parts.reduce((sum, each) => sum + each, 0) / (parts.length || 1);
  document.title = parts.length
    ? i18n.strings.value.titleProgress(parts.length, i18n.percent(part))
    : `mp3burst: ${i18n.strings.value.headline}`;
});

window.addEventListener("pagehide", () => void jobs.flushDeletions());
void refresh();
void i18n.begin().then(() => {
  const root = document.getElementById("page");
  if (root) render(<App />, root);
  share.begin();
});

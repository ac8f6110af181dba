/** What the page tells: in a line that screen readers read out, and in notifications of the browser if allowed. */
import { signal } from "@preact/signals";
import type { Job } from "./api";
import { strings, type Strings } from "./i18n";

export interface Notice {
  id: number;
  text: string;
  undo: (() => void) | null;
}

/** Milliseconds for which a notice is shown. */
const SHOWN = 6_000;

export const notice = signal<Notice | null>(null);
/** Whether the browser shows notifications: its permission, or null where it has none. */
export const permission = signal(typeof Notification === "undefined" ? null : Notification.permission);
let last = 0;

/** Shows a line for some seconds, with a button that undoes what it is about. */
export function announce(text: (strings: Strings) => string, undo: (() => void) | null = null): void {
  last += 1;
  const id = last;
  notice.value = { id, text: text(strings.peek()), undo };
  setTimeout(() => dismiss(id), SHOWN);
}

export function dismiss(id: number): void {
  if (notice.peek()?.id === id) notice.value = null;
}

export function announceEnd(job: Job): void {
  announce((s) => (job.status === "done" ? s.isReady(job.filename) : s.hasFailed(job.filename)));
  if (permission.peek() === "granted" && document.visibilityState === "hidden") {
    const text = notice.peek()?.text ?? "";
    try {
      new Notification("mp3burst", { body: text, tag: job.job });
    } catch {
      // Chrome on Android allows notifications of service workers only.
      permission.value = null;
    }
  }
}

export async function askPermission(): Promise<void> {
  permission.value = await Notification.requestPermission();
}

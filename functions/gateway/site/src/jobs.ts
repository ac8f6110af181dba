/** The user's jobs, kept up to date by the server's events. */
import { computed, signal } from "@preact/signals";
import * as api from "./api";
import { announce, announceEnd } from "./notices";
import { expire, refresh } from "./session";

/** Milliseconds before events are asked for again after the server refused. */
const RETRY = 5_000;
/** Jobs in a page where all are wanted. */
const MANY = 500;
/** Milliseconds in which a deletion can be undone. */
export const UNDO = 6_000;

const byId = signal<ReadonlyMap<string, api.Job>>(new Map());
/** Jobs that are deleted once the time to undo it is over. */
const leaving = signal<ReadonlyMap<string, api.Job>>(new Map());

/** "loading" until the first page of jobs is here; "failed" if it could not be fetched. */
export const loading = signal<"loading" | "ready" | "failed">("loading");
/** Whether the server does not answer: what is shown of jobs in progress may no longer be true. */
export const isLost = signal(false);
/** The next page's `after`; null if there is none. */
export const next = signal<string | null>(null);

const visible = computed(() =>
  [...byId.value.values()]
    .filter((job) => !leaving.value.has(job.job))
    .sort((a, b) => (a.created < b.created ? 1 : a.created > b.created ? -1 : 0)),
);
export const working = computed(() => visible.value.filter((job) => !isEnded(job)).reverse());
export const failed = computed(() => visible.value.filter((job) => job.status === "failed"));
export const done = computed(() => visible.value.filter((job) => job.status === "done"));

let events: EventSource | null = null;
/** The events of which it is being found out why they have ended. */
let probed: EventSource | null = null;
let timer: ReturnType<typeof setTimeout> | undefined;
/** Another object after every `stop`: responses to what was asked before are another user's. */
let visit = {};

const isEnded = (job: api.Job) => job.status === "done" || job.status === "failed";

/** Fetches the jobs and follows them until `stop`. */
export async function start(): Promise<void> {
  follow();
  await more();
}

/** Fetches all pages that are left: to search, to sort and to select among them all. */
export async function all(): Promise<void> {
  while (next.peek() && loading.peek() === "ready") await more(MANY);
}

/** Fetches the next page of jobs; the first one if there is none yet. */
export async function more(limit?: number): Promise<void> {
  loading.value = "loading";
  const asked = visit;
  try {
    const page = await api.getJobs(next.peek(), limit);
    if (asked !== visit) return;
    // What an event has brought meanwhile is newer.
    byId.value = new Map([...page.jobs.map((job) => [job.job, job] as const), ...byId.peek()]);
    next.value = page.next;
    loading.value = "ready";
  } catch (error) {
    if (!(error instanceof api.Problem)) throw error;
    if (asked !== visit) return;
    if (error.status === 404 && next.peek() !== null) {
      next.value = null; // the last job of the page before was deleted: begin again
      await more(limit);
      return;
    }
    if (error.status === 401) expire();
    loading.value = "failed";
  }
}

/** Forgets everything: another user may be next. */
export function stop(): void {
  visit = {};
  void flushDeletions();
  events?.close();
  events = null;
  isLost.value = false;
  clearTimeout(timer);
  byId.value = new Map();
  next.value = null;
  loading.value = "loading";
}

export const has = (job: string) => byId.value.has(job);

/** Hides a job, and deletes it unless `restore` is called before the time to undo is over. */
export function remove(job: api.Job): void {
  leaving.value = new Map([...leaving.peek(), [job.job, job]]);
  setTimeout(() => void commit(job.job), UNDO);
}

export function restore(job: string): void {
  leaving.value = without(leaving.peek(), job);
}

/** Deletes a job at once: cancels what is in progress. */
export async function cancel(job: api.Job): Promise<void> {
  leaving.value = new Map([...leaving.peek(), [job.job, job]]);
  await commit(job.job);
}

async function commit(job: string): Promise<void> {
  if (!leaving.peek().has(job)) return;
  try {
    await api.deleteJob(job);
    byId.value = without(byId.peek(), job);
  } catch (error) {
    if (!(error instanceof api.Problem)) throw error;
    if (error.status === 401) expire();
    announce((strings) => error.detail || strings.cannotDelete);
  }
  leaving.value = without(leaving.peek(), job);
}

/** Deletes what waits for an undo that can no longer come, also while the page closes; before the session ends. */
export async function flushDeletions(): Promise<void> {
  const jobs = [...leaving.peek().keys()];
  for (const job of jobs) byId.value = without(byId.peek(), job);
  leaving.value = new Map();
  await Promise.allSettled(jobs.map((job) => api.deleteJob(job, true)));
}

function without<T>(map: ReadonlyMap<string, T>, key: string): ReadonlyMap<string, T> {
  const copy = new Map(map);
  copy.delete(key);
  return copy;
}

function follow(): void {
  events?.close();
  const source = new EventSource("/jobs/events");
  events = source;
  source.addEventListener("jobs", (event) => {
    const { jobs } = JSON.parse(event.data) as api.JobPage;
    merge(jobs);
    // They have ended more than an hour ago, or were deleted elsewhere: this device slept.
    const found = new Set(jobs.map((job) => job.job));
    const missing = [...byId.peek().values()].filter((job) => !isEnded(job) && !found.has(job.job));
    if (missing.length) void catchUp(missing);
  });
  source.addEventListener("job", (event) => merge([JSON.parse(event.data) as api.Job]));
  source.addEventListener("deleted", (event) => {
    byId.value = without(byId.peek(), (JSON.parse(event.data) as { job: string }).job);
  });
  source.addEventListener("open", () => {
    isLost.value = false;
  });
  source.addEventListener("error", () => {
    if (source !== events) return;
    // The browser comes back by itself after a lost connection, but not after a refusal.
    if (source.readyState !== EventSource.CLOSED) {
      void probe(source);
      return;
    }
    timer = setTimeout(() => {
      follow();
      void catchUp();
      void refresh();
    }, RETRY);
  });
}

/** Finds out whether events have ended because the server does not answer: it also ends them when nothing happens. */
async function probe(source: EventSource): Promise<void> {
  if (!working.peek().length || probed === source) return;
  probed = source;
  while (source === events && source.readyState !== EventSource.OPEN) {
    try {
      await fetch("/", { method: "HEAD", cache: "no-store" });
      if (isLost.peek() && source === events) {
        follow(); // now, rather than when the browser tries again
        void catchUp();
      }
      break;
    } catch {
      isLost.value = true;
      await new Promise((resolve) => setTimeout(resolve, RETRY));
    }
  }
  if (probed === source) probed = null;
}

/** Fetches what has ended while there were no events: new ones begin with what has not. `missing` may be deleted. */
export async function catchUp(missing: readonly api.Job[] = []): Promise<void> {
  const asked = visit;
  const page = await api.getJobs(null, missing.length ? MANY : undefined).catch(() => null);
  if (!page || asked !== visit) return;
  merge(page.jobs.filter(isEnded));
  const listed = new Set(page.jobs.map((job) => job.job));
  const end = page.next === null ? "" : (page.jobs.at(-1)?.created ?? "");
  for (const job of missing) {
    if (!listed.has(job.job) && job.created > end) byId.value = without(byId.peek(), job.job);
  }
}

function merge(jobs: api.Job[]): void {
  const merged = new Map(byId.peek());
  for (const job of jobs) {
    const before = merged.get(job.job);
    merged.set(job.job, job);
    if (before && !isEnded(before) && isEnded(job)) announceEnd(job);
  }
  byId.value = merged;
}

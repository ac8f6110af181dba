/**
 * The files on their way to the server, by tus 1.0: several at once, in the order in which they were given. An upload
 * continues where it stopped, after a pause, a lost connection, a new login, or in another tab once this one is closed.
 * Of a video only the sound is sent, if its MP3 is certain to be the same.
 */
import { batch, computed, effect, signal } from "@preact/signals";
import * as tus from "tus-js-client";
import { detailOf, seconds } from "./api";
import * as handles from "./handles";
import * as jobs from "./jobs";
import { announce } from "./notices";
import * as options from "./options";
import { expire, session } from "./session";
import { load, save } from "./stored";
import * as tabs from "./tabs";

export interface Upload {
  key: string;
  name: string;
  /** Bytes that are sent: those of the sound, or all of the file. */
  size: number;
  fileSize: number;
  modified: number;
  options: Record<string, string>;
  /** What the editor has changed; null if the preset applies. */
  edit: options.Edit | null;
  /**
   * "held" until the user starts it, "queued" for its turn, "preparing" what is sent, "sending", "paused" by the user, "waiting" to try again, "detached"
   * from its file, which has to be chosen again, "sent", or "failed" for good.
   */
  state: "held" | "queued" | "preparing" | "sending" | "paused" | "waiting" | "detached" | "sent" | "failed";
  sent: number;
  /** Bytes a second, once known. */
  rate: number | null;
  /** Why it waits or has failed: the server's sentence; null for a lost connection. */
  reason: string | null;
  url: string | null;
  /** What it becomes, once known. */
  job: string | null;
  /** Whether the browser can open its file again without the user choosing it. */
  hasHandle: boolean;
}

/** What is remembered of an upload when the tab is closed. */
type Remembered = Pick<Upload, "key" | "name" | "size" | "fileSize" | "modified" | "options" | "hasHandle"> & {
  url: string;
  owner: string;
};

/** Uploads at once. */
const AT_ONCE = 3;
/** Seconds between attempts, unless the server says: at first, and at most. */
const FIRST_WAIT = 1;
const LONGEST_WAIT = 30;
/** Milliseconds between two updates of the progress. */
const UPDATE = 200;
/** States of uploads that are sent without another click. */
export const PAUSABLE: ReadonlySet<Upload["state"]> = new Set(["queued", "preparing", "sending", "waiting"]);
/** Statuses that may pass: no response, too slow, in use by another request, too many, a fault, no room. */
const PASSING = new Set([0, 408, 409, 423, 425, 429, 500, 502, 503, 504, 507]);

const all = signal<readonly Upload[]>([]);
/** The uploads to show: of one that is complete the job is shown instead, once it is known. */
export const uploads = computed(() => all.value.filter((each) => !(each.job && jobs.has(each.job))));
export const isOnline = signal(navigator.onLine);
/** Whose files these are; null for those of a newcomer, before the first login. */
const owner = signal<string | null>(null);

const files = new Map<string, File>();
/** The handles of files that were dropped. The browser keeps one only once its upload is remembered, see `remember`. */
const given = new Map<string, handles.Handle>();
/** What is sent of the files. */
const bodies = new Map<string, Blob>();
/** The latest preparation of each upload that has not been paused or cancelled. */
const preparations = new Map<string, object>();
const running = new Map<string, tus.Upload>();
const timers = new Map<string, ReturnType<typeof setTimeout>>();
const attempts = new Map<string, number>();

/** Adds files, each with the options that are chosen now. A file whose upload was interrupted continues it. */
export function add(chosen: readonly { file: File; handle: handles.Handle | null }[]): void {
  for (const { file, handle } of chosen) {
    const same = all.peek().find((each) => isSame(each, file) && each.state !== "failed" && each.state !== "sent");
    if (same?.state === "detached") {
      attach(same.key, file);
    } else if (same) {
      announce((strings) => strings.isListed(file.name));
    } else {
      const key = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;
      files.set(key, file);
      tabs.hold(key);
      if (handle) given.set(key, handle);
      all.value = [...all.peek(), begun(key, file, handle !== null)];
    }
  }
}

/**
 * Adds the files that were shared with the page. They wait for a click, because another site can send some, too. What has
 * begun is shown by `begin`.
 */
export async function takeShared(): Promise<void> {
  for (const key of await handles.keys()) if (!isRememberedKey(key)) tabs.hold(key, () => void addShared(key));
}

async function addShared(key: string): Promise<void> {
  const file = await handles.get(key);
  if (!(file instanceof File) || isRememberedKey(key)) {
    tabs.release(key); // another tab has sent it or begun to
    if (!isRememberedKey(key)) void handles.remove(key);
    else if (owner.peek() !== null) takeOver(owner.peek() as string);
    return;
  }
  files.set(key, file);
  all.value = [...all.peek(), { ...begun(key, file, true), state: "held" }];
}

/** Keeps a file that is not being sent until the user starts it. */
export function hold(key: string): void {
  if (find(key)?.state === "queued") change(key, { state: "held" });
}

/** Starts a file that was held, with what the editor has changed if it was edited. */
export function start(key: string, edit: options.Edit | null = null): void {
  if (edit) bodies.delete(key); // with a cover all of the file is sent
  attempts.delete(key);
  change(key, { state: "queued", reason: null, ...(edit && { edit, options: options.toOptions(edit) }) });
}

/** Makes the others that are held sound the same. What belongs to one file, such as where it begins, stays as it is. */
export function applyToHeld(sound: options.Sound): void {
  for (const each of all.peek()) {
    if (each.state !== "held") continue;
    const edit = { ...(each.edit ?? options.unedited(sound)), ...sound };
    change(each.key, { edit, options: options.toOptions(edit) });
  }
}

export const fileOf = (key: string) => files.get(key) ?? null;

export function pause(key: string): void {
  void running.get(key)?.abort();
  running.delete(key);
  preparations.delete(key);
  clearTimeout(timers.get(key));
  change(key, { state: "paused", rate: null });
}

/** Pauses what is sent or waits for its turn, in one step: after a single pause the next in line starts. */
export function pauseAll(): void {
  batch(() => {
    for (const { key, state } of all.peek()) if (PAUSABLE.has(state)) pause(key);
  });
}

export function resume(key: string): void {
  attempts.delete(key);
  change(key, { state: "queued", reason: null });
}

/** Continues an upload whose tab was closed. Must be called while a click is handled. */
export async function reopen(key: string): Promise<void> {
  const handle = await handles.get(key);
  const file = handle && (await handles.open(handle));
  const upload = find(key);
  // A handle's file may have changed since; one that was kept has not, though some browsers forget when it was modified.
  if (file && upload && (handle instanceof File || isSame(upload, file))) attach(key, file);
  else change(key, { hasHandle: false });
}

/** Ends an upload, and deletes what the server has of it. */
export function cancel(key: string): void {
  const upload = find(key);
  void running.get(key)?.abort();
  clearTimeout(timers.get(key));
  if (upload?.url) void tus.Upload.terminate(upload.url).catch(() => undefined); // it expires by itself
  forget(key);
}

/** Stops all uploads, and deletes what the server has of them. Those that it could not delete are kept, and paused. */
export async function abandon(): Promise<void> {
  pauseAll();
  const begun = all.peek().filter((each) => each.url && each.state !== "sent");
  const deletions = begun.map(async ({ key, url }) => {
    await tus.Upload.terminate(url as string);
    forget(key);
  });
  await Promise.allSettled(deletions);
}

/**
 * Sends the files as this user's. Shows the uploads that earlier visits of the user have left, too, and those of other
 * tabs once these are closed, with what the server has of them.
 */
export function begin(user: string): void {
  owner.value = user;
  takeOver(user);
}

/** Shows what other tabs have begun as soon as they are closed. */
function takeOver(user: string): void {
  for (const { key } of rememberedOf(user)) if (!find(key)) tabs.hold(key, () => void show(key, user));
}

/** Shows an upload that no tab has, to be continued. */
async function show(key: string, user: string): Promise<void> {
  const each = rememberedOf(user).find((record) => record.key === key);
  if (!each) {
    tabs.release(key); // it is complete
    return;
  }
  const response = await fetch(each.url, { method: "HEAD", headers: { "Tus-Resumable": "1.0.0" } }).catch(() => null);
  if (owner.peek() !== user) return;
  if (response && (response.status === 404 || response.status === 410 || response.headers.has("Mp3burst-Job"))) {
    tabs.release(key);
    remember(key, null);
    void handles.remove(key); // or what was shared would be offered again
    return;
  }
  const sent = Number(response?.headers.get("Upload-Offset") ?? 0);
  const { owner: _, ...known } = each;
  const job = response?.headers.get("Mp3burst-Future-Job") ?? null;
  all.value = [...all.peek(), { ...known, edit: null, state: "detached", sent, rate: null, reason: null, job }];
}

/** Removes what this browser keeps of the user's uploads, such as the names of the files. */
export function erase(user: string): void {
  for (const { key } of rememberedOf(user)) {
    remember(key, null);
    void handles.remove(key);
  }
}

/** Stops sending and forgets the files: another user may be next. */
export function stop(): void {
  for (const upload of running.values()) void upload.abort();
  for (const timer of timers.values()) clearTimeout(timer);
  for (const { key } of all.peek()) if (!isRememberedKey(key)) void handles.remove(key); // shared: not begun, or refused
  tabs.release();
  running.clear();
  preparations.clear();
  files.clear();
  given.clear();
  bodies.clear();
  attempts.clear();
  owner.value = null;
  all.value = [];
}

window.addEventListener("storage", () => {
  if (owner.peek() !== null) takeOver(owner.peek() as string);
});
window.addEventListener("online", () => {
  isOnline.value = true;
  for (const each of all.peek()) if (each.state === "waiting") retry(each.key);
});
window.addEventListener("offline", () => {
  isOnline.value = false;
});

// Starts what is next, whenever something has changed. Another user may have logged in: `stop` has not been called yet.
effect(() => {
  if (session.value.state !== "in" || session.value.account.id !== owner.value || !isOnline.value) return;
  const current = all.value;
  let free = AT_ONCE - current.filter((each) => each.state === "preparing" || each.state === "sending").length;
  for (const each of current) {
    if (free > 0 && each.state === "queued") {
      free -= 1;
      void prepare(each, session.value.account.id);
    }
  }
});

// Files that wait for a login or a click follow the preset, which may be chosen after the files.
effect(() => {
  const current = options.chosen.value;
  const isOut = session.value.state === "out";
  const follows = ({ state, url, edit }: Upload) => !edit && (state === "held" || (isOut && state === "queued" && !url));
  all.value = all.peek().map((each) => (follows(each) ? { ...each, options: current } : each));
});

// The job is shown from now on, whether or not the last response has arrived.
effect(() => {
  for (const each of all.value) if (each.job && jobs.has(each.job)) forget(each.key);
});

function begun(key: string, file: File, hasHandle: boolean): Upload {
  return {
    key,
    name: file.name,
    size: file.size,
    fileSize: file.size,
    modified: file.lastModified,
    options: options.chosen.peek(),
    edit: null,
    state: options.editsFirst.peek() ? "held" : "queued",
    sent: 0,
    rate: null,
    reason: null,
    url: null,
    job: null,
    hasHandle,
  };
}

function attach(key: string, file: File): void {
  files.set(key, file);
  resume(key);
}

function isSame(upload: Upload, file: File): boolean {
  return upload.name === file.name && upload.fileSize === file.size && upload.modified === file.lastModified;
}

const find = (key: string) => all.peek().find((each) => each.key === key);

function change(key: string, changes: Partial<Upload>): void {
  all.value = all.peek().map((each) => (each.key === key ? { ...each, ...changes } : each));
}

function forget(key: string): void {
  release(key);
  all.value = all.peek().filter((each) => each.key !== key);
}

/** Drops what is needed to send a file. */
function release(key: string): void {
  running.delete(key);
  preparations.delete(key);
  files.delete(key);
  given.delete(key);
  bodies.delete(key);
  attempts.delete(key);
  tabs.release(key);
  remember(key, null);
  void handles.remove(key);
}

/** Takes out the sound, and sends it. */
async function prepare(upload: Upload, owner: string): Promise<void> {
  const { key, options: chosen } = upload;
  const file = files.get(key);
  if (!file) {
    change(key, { state: "detached" });
    return;
  }
  const preparation = {};
  preparations.set(key, preparation);
  change(key, { state: "preparing", reason: null });
  // What cannot be taken apart is sent as it is, and so is a file that cannot be read, which fails then.
  const body = bodies.get(key) ?? (await soundOf(file, chosen).catch(() => file));
  if (preparations.get(key) !== preparation) return;
  bodies.set(key, body);
  const isBegun = upload.url !== null && upload.size === body.size;
  const prepared = { size: body.size, ...(isBegun ? {} : { url: null, sent: 0 }) };
  change(key, prepared);
  send({ ...upload, ...prepared }, file, body, owner);
}

/** Returns what is to be sent of a file; a cover needs the pictures. */
async function soundOf(file: File, chosen: Upload["options"]): Promise<Blob> {
  if ((chosen.cover ?? "none") !== "none") return file;
  const sound = await import("./sound/sound");
  return (await sound.soundOf(file)) ?? file;
}

function send(upload: Upload, file: File, body: Blob, owner: string): void {
  const { key } = upload;
  const track = tracker(key);
  const sending = new tus.Upload(body, {
    endpoint: "/files",
    uploadUrl: upload.url,
    metadata: { filename: upload.name, ...upload.options },
    retryDelays: null, // see onError: the server says when to try again
    storeFingerprintForResuming: false, // see remember
    onUploadUrlAvailable: () => {
      if (!sending.url) return;
      change(key, { url: sending.url });
      remember(key, { ...remembered(upload), url: sending.url, owner });
      const handle = given.get(key);
      if (handle) void handles.put(key, handle);
    },
    // Its abort() has no effect before the first request.
    onBeforeRequest: () => {
      if (running.get(key) !== sending) throw new Error("paused");
    },
    // The server's events may show the job before the last response does, which must not be a second row.
    onAfterResponse: (_, response) => {
      const job = response.getHeader("Mp3burst-Future-Job");
      if (job) change(key, { job });
    },
    onProgress: (sent) => running.get(key) === sending && track(sent),
    onSuccess: ({ lastResponse }) => {
      const job = lastResponse.getHeader("Mp3burst-Job") ?? find(key)?.job ?? null;
      release(key);
      change(key, { state: "sent", sent: upload.size, job });
    },
    onError: (error) => {
      if (running.get(key) !== sending) return; // paused
      running.delete(key);
      void failed(key, file, error);
    },
  });
  running.set(key, sending);
  change(key, { state: "sending" });
  sending.start();
}

/** Returns a function that notes how many bytes were sent, and how fast. */
function tracker(key: string): (sent: number) => void {
  let shownAt = performance.now();
  let shown: number | null = null;
  let rate: number | null = null;
  return (sent) => {
    const now = performance.now();
    if (now - shownAt < UPDATE && shown !== null) return;
    if (shown !== null && sent > shown) {
      const latest = ((sent - shown) * 1000) / (now - shownAt);
      rate = rate === null ? latest : 0.85 * rate + 0.15 * latest;
      attempts.delete(key);
    }
    shownAt = now;
    shown = sent;
    change(key, { sent, rate });
  };
}

async function failed(key: string, file: File, error: Error | tus.DetailedError): Promise<void> {
  const response = "originalResponse" in error ? error.originalResponse : null;
  const status = response?.getStatus() ?? 0;
  const reason = response ? detailOf(response.getBody()) || null : null;
  if (status === 401) {
    expire();
    change(key, { state: "queued", rate: null });
  } else if ((status === 404 || status === 410) && find(key)?.url) {
    change(key, { state: "queued", url: null, sent: 0 }); // it has expired: begin again
  } else if (!PASSING.has(status)) {
    remember(key, null);
    change(key, { state: "failed", rate: null, reason });
  } else if (status === 0 && !(await isReadable(file))) {
    files.delete(key);
    bodies.delete(key);
    change(key, { state: "detached", rate: null, hasHandle: false });
  } else {
    const count = attempts.get(key) ?? 0;
    attempts.set(key, count + 1);
    const wait = seconds(response?.getHeader("Retry-After")) ?? Math.min(FIRST_WAIT * 2 ** count, LONGEST_WAIT);
    change(key, { state: "waiting", rate: null, reason });
    timers.set(key, setTimeout(() => retry(key), wait * 1000));
  }
}

function retry(key: string): void {
  clearTimeout(timers.get(key));
  if (find(key)?.state === "waiting") change(key, { state: "queued" });
}

/** Returns whether the file is still there as it was: browsers report a change as a lost connection. */
async function isReadable(file: File): Promise<boolean> {
  try {
    await file.slice(0, 1).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}

const remembered = ({ key, name, size, fileSize, modified, options: chosen, hasHandle }: Upload) => ({
  key,
  name,
  size,
  fileSize,
  modified,
  options: chosen,
  hasHandle,
});

const isRememberedKey = (key: string) => load("uploads", [], isRemembered).some((each) => each.key === key);

const rememberedOf = (user: string) => load("uploads", [], isRemembered).filter((each) => each.owner === user);

/** Keeps a record of the upload for later visits, or none. */
function remember(key: string, record: Remembered | null): void {
  const others = load("uploads", [], isRemembered).filter((each) => each.key !== key);
  save("uploads", record ? [...others, record] : others);
}

function isRemembered(value: unknown): value is Remembered[] {
  return (
    Array.isArray(value) &&
    value.every(
      (each) =>
        ["url", "key", "name"].every((name) => typeof each?.[name] === "string") && typeof each.fileSize === "number",
    )
  );
}

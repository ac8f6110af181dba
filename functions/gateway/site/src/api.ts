/** The calls of mp3burst. The token is in a cookie that no script can read. */

/** A job as GET /jobs has it; docs/api.md describes the fields. */
export interface Job {
  job: string;
  fid: string;
  filename: string;
  status: "fetching" | "uploaded" | "converting" | "done" | "failed";
  stage: "waiting" | "fetching" | "reading" | "encoding" | "joining" | "done" | "failed";
  progress: number;
  pieces: { done: number; total: number } | null;
  eta: number | null;
  mp3: string | null;
  duration: number | null;
  options: Record<string, unknown>;
  error: string | null;
  warning: string | null;
  receipt: { mp3_bytes: number | null } | null;
  created: string;
  finished: string | null;
}

export interface JobPage {
  jobs: Job[];
  next: string | null;
}

export interface Chapter {
  start: number;
  end: number;
  title: string;
}

export interface Link {
  id: string;
  job: string;
  created: string;
  expires: string;
}

/** What the page shows of the tags of an MP3. */
export interface Tags {
  title: string;
  artist: string;
  album: string;
  genre: string;
  date: string;
  chapters: Chapter[];
  cover: { type: string; size: number } | null;
}

/** What is left out stays as it is; an empty text removes. The cover is a picture in Base64. */
export type TagChange = Partial<Record<Exclude<keyof Tags, "chapters">, string>>;

export interface Account {
  id: string;
  username: string;
  name: string;
  email: string;
  confirmed: boolean;
  role: "user" | "admin";
  usage: { bytes: number; bytes_limit: number | null; jobs: number; jobs_limit: number | null };
}

/** Where users log in without a password. */
export interface Provider {
  path: string;
  title: string | null;
}

export interface Session {
  id: string;
  created: string;
  last_used: string;
  agent: string | null;
  network: string | null;
  current: boolean;
}

export interface ExternalLogin {
  id: string;
  /** The issuer of the provider's tokens, or `proxy`. */
  provider: string;
  created: string;
}

export const SCOPES = ["upload", "read", "delete", "account", "admin", "metrics"] as const;
export type Scope = (typeof SCOPES)[number];

export interface Key {
  id: string;
  name: string;
  scopes: Scope[];
  last_used: string | null;
}

export interface Webhook {
  id: string;
  url: string;
  state: "active" | "gone";
  secret: string;
}

export interface Delivery {
  id: string;
  url: string;
  state: "due" | "delivered" | "failed";
  error: string | null;
  created: string;
  tried: string | null;
}

/** Options under one name; those of a server are everyone's. */
export interface Preset {
  name: string;
  options: Record<string, string>;
  origin: "user" | "server";
}

/** The lowest and the highest sample of each part of an MP3 in turn, -128 to 127. */
export interface Waveform {
  length: number;
  data: number[];
}

/** A request that failed; `detail` is the server's sentence, or "" if no response arrived (status 0). */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly detail: string,
    /** Seconds after which the server asks to try again. */
    readonly retryAfter: number | null,
  ) {
    super(detail || `status ${status}`);
  }
}

export const getAccount = () => call<Account>("GET", "/me");
export const getJobs = (after: string | null, limit = 50) =>
  call<JobPage>("GET", `/jobs?limit=${limit}${after ? `&after=${encodeURIComponent(after)}` : ""}`);
export const getTags = (job: string) => call<Tags>("GET", `/jobs/${job}/tags`);
export const getWaveform = (job: string) => call<Waveform>("GET", `/jobs/${job}/waveform`);
export const changeTags = (job: string, changes: TagChange) =>
  call<Tags>("PATCH", `/jobs/${job}/tags`, { body: changes });
/** Makes an MP3 of each chapter, and returns how many. */
export const split = async (job: string) =>
  (await call<{ parts: unknown[] }>("POST", `/jobs/${job}/split`, { body: { at: "chapters" } })).parts.length;
export const getLinks = async (job: string) =>
  (await call<{ links: Link[] }>("GET", "/links")).links.filter((link) => link.job === job);
export const createLink = (job: string, seconds: number) =>
  call<Link & { url: string }>("POST", "/links", { body: { job, expires_in: seconds } });
export const deleteLink = (link: string) => call<void>("DELETE", `/links/${link}`);
export const getPresets = async () => (await call<{ presets: Preset[] }>("GET", "/presets")).presets;
export const putPreset = (name: string, options: Record<string, string>) =>
  call<void>("PUT", `/presets/${encodeURIComponent(name)}`, { body: { options } });
export const deletePreset = (name: string) => call<void>("DELETE", `/presets/${encodeURIComponent(name)}`);
export const createFeed = () => call<{ url: string }>("POST", "/feed");
export const deleteFeed = () => call<void>("DELETE", "/feed");
export const logOut = () => call<void>("DELETE", "/session");
export const logOutEverywhere = () => call<void>("DELETE", "/sessions");
export const changePassword = (old: string, fresh: string) =>
  call<void>("POST", "/me/password", { body: { old, new: fresh } });
export const getSessions = async () => (await call<{ sessions: Session[] }>("GET", "/sessions")).sessions;
export const endSession = (session: string) => call<void>("DELETE", `/sessions/${session}`);
export const getLogins = async () => (await call<{ logins: ExternalLogin[] }>("GET", "/logins")).logins;
export const deleteLogin = (login: string) => call<void>("DELETE", `/logins/${login}`);
export const getKeys = async () => (await call<{ keys: Key[] }>("GET", "/keys")).keys;
export const createKey = (name: string, scopes: readonly Scope[]) =>
  call<{ key: string }>("POST", "/keys", { body: { name, scopes } });
export const deleteKey = (key: string) => call<void>("DELETE", `/keys/${key}`);
export const getWebhooks = async () => (await call<{ webhooks: Webhook[] }>("GET", "/webhooks")).webhooks;
export const createWebhook = (url: string) => call<Webhook>("POST", "/webhooks", { body: { url } });
export const deleteWebhook = (webhook: string) => call<void>("DELETE", `/webhooks/${webhook}`);
export const ping = (webhook: string) => call<void>("POST", `/webhooks/${webhook}/ping`);
export const getDeliveries = async () =>
  (await call<{ deliveries: Delivery[] }>("GET", "/webhooks/deliveries?limit=20")).deliveries;
export const resend = (delivery: string) => call<void>("POST", `/webhooks/deliveries/${delivery}/resend`);
export const deleteAccount = (password: string) => call<void>("POST", "/me/deletion", { body: { password } });
export const resetPassword = (username: string) =>
  call<void>("POST", "/password-reset", { body: { username } });

/** Deletes a job; one that is gone already counts as deleted. `keepalive` lets the request outlive the page. */
export async function deleteJob(job: string, keepalive = false): Promise<void> {
  try {
    await call<void>("DELETE", `/jobs/${job}`, { keepalive });
  } catch (error) {
    if (!(error instanceof Problem && error.status === 404)) throw error;
  }
}

/** Logs in: the response sets the session's cookie. */
export function logIn(username: string, password: string): Promise<void> {
  const bytes = new TextEncoder().encode(`${username}:${password}`);
  const credentials = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  return call<void>("POST", "/login?cookie=true", { headers: { Authorization: `Basic ${credentials}` } });
}

/** Registers a user whose username is an address. */
export function register(username: string, password: string): Promise<void> {
  const name = username.split("@")[0] || username;
  return call<void>("POST", "/register", { body: { name, username, password } });
}

/** Returns the identity providers that users can log in with, and a proxy in front as one without a title. */
export async function getProviders(): Promise<Provider[]> {
  const { providers, proxy } = await call<{ providers: Provider[]; proxy: boolean }>("GET", "/sso/providers");
  return proxy ? [...providers, { path: "/sso/proxy", title: null }] : providers;
}

export const mp3Address = (mp3: string) => `/download?fid=${encodeURIComponent(mp3)}`;
export const zipAddress = (jobs: string[]) => `/jobs.zip?ids=${jobs.join(",")}`;

interface Call {
  body?: unknown;
  headers?: Record<string, string>;
  keepalive?: boolean;
}

/** Sends a request to the server. Throws `Problem` if it fails. */
export async function call<T>(method: string, path: string, { body, headers = {}, keepalive = false }: Call = {}): Promise<T> {
  const init: RequestInit = { method, headers, keepalive };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { ...headers, "Content-Type": "application/json" };
  }
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch {
    throw new Problem(0, "", null);
  }
  const text = await response.text().catch(() => "");
  if (!response.ok) throw new Problem(response.status, detailOf(text), seconds(response.headers.get("Retry-After")));
  return (text ? JSON.parse(text) : undefined) as T;
}

/** Returns the sentence of a problem (RFC 9457), or "" if the text is none. */
export function detailOf(text: string): string {
  try {
    const found: unknown = JSON.parse(text).detail;
    return typeof found === "string" ? found : "";
  } catch {
    return "";
  }
}

/** Returns the seconds of a Retry-After header, or null. */
export function seconds(header: string | null | undefined): number | null {
  return header && /^\d{1,6}$/.test(header) ? Number(header) : null;
}

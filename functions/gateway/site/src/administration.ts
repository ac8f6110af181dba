/** The calls of administrators. */
import * as api from "./api";
import { announce } from "./notices";
import { refresh } from "./session";

export interface User {
  id: string;
  username: string;
  name: string;
  email: string;
  confirmed: boolean;
  role: "user" | "admin";
  created: string;
  locked: string | null;
  bytes: number;
  bytes_limit: number | null;
  jobs: number;
  jobs_limit: number | null;
  quota: Quota;
}

/** What an administrator has set for a user: null for what everybody has, 0 for no limit. */
export interface Quota {
  bytes: number | null;
  jobs: number | null;
}

export const STATES = ["fetching", "uploaded", "converting", "encoding", "joining", "done", "failed"] as const;
export type State = (typeof STATES)[number];

export interface ObservedJob {
  job: string;
  username: string | null;
  state: State;
  deferred: boolean;
  attempts: number;
  error: string | null;
  duration: number | null;
  video_bytes: number | null;
  created: string;
}

export interface Queue {
  queue: "fetch" | "convert" | "encode" | "join" | "notify" | "hook";
  working: number;
  waiting: number;
  deferred: number;
  retrying: number;
  overdue: number;
  oldest: string | null;
}

export interface Queues {
  queues: Queue[];
  given_up: { jobs: number; mails: number; deliveries: number };
}

export interface Disk {
  stores: ("videos" | "pieces" | "mp3s")[];
  level: "enough" | "low" | "full" | "unknown";
  free: number | null;
  total: number | null;
  used: number | null;
  floor: number | null;
  measured: string | null;
  silent_since: string | null;
}

export interface Storage {
  /** Servers of the version before have none. */
  disks?: Disk[];
  stores: { store: "videos" | "pieces" | "mp3s"; blobs: number; bytes: number; expired: number }[];
  largest: { user: string; username: string | null; bytes: number }[];
}

export interface Page<T> {
  rows: T[];
  next: string | null;
}

export async function getUsers(search: string, after: string | null): Promise<Page<User>> {
  const found = await call<{ users: User[]; next: string | null }>("GET", `/admin/users?${query({ search, after })}`);
  return { rows: found.users, next: found.next };
}

export async function getJobs(state: string, after: string | null): Promise<Page<ObservedJob>> {
  const found = await call<{ jobs: ObservedJob[]; next: string | null }>("GET", `/admin/jobs?${query({ state, after })}`);
  return { rows: found.jobs, next: found.next };
}

export const changeUser = (user: string, change: { role?: User["role"]; locked?: boolean }) =>
  call<User>("PATCH", `/admin/users/${user}`, { body: change });
export const setQuota = (user: string, quota: Quota) => call<User>("PUT", `/admin/users/${user}/quota`, { body: quota });
export const endSessions = (user: string) => call<void>("DELETE", `/admin/users/${user}/sessions`);
export const deleteUser = (user: string) => call<void>("DELETE", `/admin/users/${user}`);
export const getQueues = () => call<Queues>("GET", "/admin/queues");
export const retryQueue = (queue: string) => call<{ rows: number }>("POST", `/admin/queues/${queue}/retry`);
export const getStorage = () => call<Storage>("GET", "/admin/storage");

/** Sends a request. Whoever is no longer an administrator is told so, and the view is closed. */
async function call<T>(...parameters: Parameters<typeof api.call>): Promise<T> {
  try {
    return await api.call<T>(...parameters);
  } catch (error) {
    if (error instanceof api.Problem && error.status === 403) {
      announce(() => error.detail);
      void refresh();
    }
    throw error;
  }
}

/** Returns parameters for a query, without those that are empty. */
function query(parameters: Record<string, string | null>): string {
  const given = Object.entries(parameters).filter((each): each is [string, string] => Boolean(each[1]));
  return new URLSearchParams([["limit", "25"], ...given]).toString();
}

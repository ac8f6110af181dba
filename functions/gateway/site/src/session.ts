/** Who uses the page. */
import { signal } from "@preact/signals";
import * as api from "./api";

export type Session =
  | { state: "unknown" } // the first response has not arrived
  | { state: "unreachable" } // and will not for now
  | { state: "out"; hasExpired: boolean }
  | { state: "in"; account: api.Account };

/** Whether somebody who is not logged in has asked to. */
export const wantsLogin = signal(false);
export const session = signal<Session>({ state: "unknown" });

/** Asks the server who is logged in. */
export async function refresh(): Promise<void> {
  try {
    session.value = { state: "in", account: await api.getAccount() };
  } catch (error) {
    if (!(error instanceof api.Problem)) throw error;
    if (error.status === 401) {
      session.value = { state: "out", hasExpired: session.peek().state === "in" };
    } else if (session.peek().state !== "in") {
      session.value = { state: "unreachable" };
    }
  }
}

/** Logs in, after registering if the user is new. Throws `Problem` if either is refused. */
export async function enter(username: string, password: string, isNew: boolean): Promise<void> {
  if (isNew) await api.register(username, password);
  await api.logIn(username, password);
  session.value = { state: "in", account: await api.getAccount() };
  wantsLogin.value = false;
}

export async function leave(everywhere: boolean): Promise<void> {
  await (everywhere ? api.logOutEverywhere() : api.logOut());
  session.value = { state: "out", hasExpired: false };
}

/** Notes that the server no longer accepts the session. */
export function expire(): void {
  if (session.peek().state === "in") session.value = { state: "out", hasExpired: true };
}

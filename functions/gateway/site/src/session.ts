/** Who uses the page. */
import { signal } from "@preact/signals";
import * as api from "./api";
import { announce } from "./notices";

export type Session =
  | { state: "unknown" } // the first response has not arrived
  | { state: "unreachable" } // and will not for now
  | { state: "out"; hasExpired: boolean }
  | { state: "in"; account: api.Account };

/** Whether somebody who is not logged in has asked to. */
export const wantsLogin = signal(false);
export const session = signal<Session>({ state: "unknown" });

/** Returns whether an administrator is logged in. The server decides; this is what is worth showing. */
export const isAdministrator = () => session.value.state === "in" && session.value.account.role === "admin";

/** Other tabs of this browser: what one does to the cookie is true for all. */
const tabs = new BroadcastChannel("mp3burst.session");
tabs.addEventListener("message", () => void refresh());
const tellTabs = () => tabs.postMessage(null);
/** Another object after each question: of two responses the one to the later question counts. */
let latest = {};

/** Asks the server who is logged in. */
export async function refresh(): Promise<void> {
  const before = session.peek();
  const asked = {};
  latest = asked;
  try {
    const account = await api.getAccount();
    if (asked !== latest) return;
    begin(account);
    if (before.state === "unknown") tellTabs(); // an identity provider may have sent somebody here
  } catch (error) {
    if (!(error instanceof api.Problem)) throw error;
    if (asked !== latest) return;
    if (error.status === 401) {
      const hadExpired = before.state === "out" && before.hasExpired;
      session.value = { state: "out", hasExpired: before.state === "in" || hadExpired };
    } else if (error.status === 403) {
      // The account is locked: another one may log in. What is remembered of uploads stays.
      session.value = { state: "out", hasExpired: before.state === "in" || (before.state === "out" && before.hasExpired) };
      if (error.detail) announce(() => error.detail);
    } else if (before.state === "unknown" || before.state === "unreachable") {
      session.value = { state: "unreachable" };
    }
  }
}

/** Logs in, after registering if the user is new. Throws `Problem` if either is refused. */
export async function enter(username: string, password: string, isNew: boolean): Promise<void> {
  if (isNew) await api.register(username, password);
  await api.logIn(username, password);
  tellTabs();
  begin(await api.getAccount());
}

export async function leave(everywhere: boolean): Promise<void> {
  await (everywhere ? api.logOutEverywhere() : api.logOut());
  end(false);
  tellTabs();
}

/** Changes the password. The server ends the session: the same user logs in next, and everything continues. */
export async function changePassword(old: string, fresh: string): Promise<void> {
  await api.changePassword(old, fresh);
  end(true);
  tellTabs();
}

/** Deletes the account for good. */
export async function deleteAccount(password: string): Promise<void> {
  await api.deleteAccount(password);
  end(false);
  tellTabs();
}

/** Notes that the server no longer accepts the session. */
export function expire(): void {
  if (session.peek().state === "in") end(true);
}

function begin(account: api.Account): void {
  latest = {};
  session.value = { state: "in", account };
  wantsLogin.value = false;
}

function end(hasExpired: boolean): void {
  latest = {};
  session.value = { state: "out", hasExpired };
}

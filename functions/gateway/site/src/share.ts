/** Files from a phone's share sheet, which share-worker.ts receives. */
import { announce } from "./notices";
import { takeShared } from "./uploads";

const WORKER = "/share/worker.js";

/** Browsers that check where scripts come from take an address from a policy only: this one has no other address. */
interface Policies {
  createPolicy(name: "share", rules: { createScriptURL(): string }): { createScriptURL(text: string): string };
}

/** Lets the page be a target of the share sheet once it is installed, and offers the files that were shared with it. */
export function begin(): void {
  if (location.hash === "#not-shared" || location.hash === "#not-received") {
    const isReceived = location.hash === "#not-shared";
    history.replaceState(null, "", "/");
    announce((strings) => (isReceived ? strings.notShared : strings.notReceived));
  }
  void takeShared();
  if (!("serviceWorker" in navigator)) return; // the page came without TLS from another machine
  const { trustedTypes } = globalThis as { trustedTypes?: Policies };
  const policy = trustedTypes?.createPolicy("share", { createScriptURL: () => WORKER });
  navigator.serviceWorker.register(policy?.createScriptURL("") ?? WORKER).catch(() => undefined); // not in all windows
}

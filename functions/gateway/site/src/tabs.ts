/** Which of the open tabs has an upload: another one must neither show it as interrupted nor continue it. */

const held = new Map<string, AbortController>();

/** Takes an upload for this tab until `release`, and calls `act` as soon as no other tab has it, once. */
export function hold(key: string, act: () => void = () => undefined): void {
  if (held.has(key)) return;
  const waiting = new AbortController();
  held.set(key, waiting);
  if (!("locks" in navigator)) {
    act(); // the page came without TLS from another machine
    return;
  }
  const { signal } = waiting;
  const until = () => {
    act();
    return new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
  };
  navigator.locks.request(`mp3burst.${key}`, { signal }, until).catch(() => undefined); // released while it waited
}

/** Lets other tabs have an upload, or all. */
export function release(key?: string): void {
  const keys = key === undefined ? [...held.keys()] : [key];
  for (const each of keys) {
    held.get(each)?.abort();
    held.delete(each);
  }
}
